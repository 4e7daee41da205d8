"""Why a pool or a tenant is as it is: what the operator wrote, in the order of importance. Pure.

Nothing is judged here a second time: conditions, the drain in status, the notes of a drain at the Deployment, and
Events. A hint is the command of this plugin that goes with a reason; the way out itself is in the operator's message.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from copilot_operator.domain.drain import intent_of
from copilot_operator.domain.kinds import POOL
from copilot_operator.domain.manifest import Manifest, condition_of
from copilot_operator.domain.status import AS_ASKED_FOR, ORDINARY, PATIENCE
from copilot_operator.plugin.times import age, moment, span, until


class Severity(StrEnum):
    """How much somebody should care."""

    ERROR = "Error"
    WARNING = "Warning"
    INFO = "Info"


@dataclass(frozen=True)
class Reason:
    """One thing the operator says. ``source``: where it says so. ``hint``: a command, "" if there is none."""

    severity: Severity
    source: str
    reason: str
    message: str
    hint: str = ""

    def to_document(self) -> dict[str, str]:
        found = {"severity": self.severity.value, "source": self.source, "reason": self.reason, "message": self.message}
        return found | ({"hint": self.hint} if self.hint else {})


ASPECTS: Final = (
    "CredentialsReady", "CABundleReady", "CertificateReady", "ServerHealthy", "StorageReady", "MembersFound",
)  # fmt: skip
UPDATE_WENT_WRONG: Final = frozenset({"UpdateFailed", "UpdateHalted"})
AT_REST: Final = frozenset({"Settled", "UpToDate", "NotKnown"})
RUNS_SHORT: Final = frozenset({"AtMaximum"})  # sessions wait, or are refused
SAYS_NOTHING: Final = "Nothing is under way"
HINTS: Final[Mapping[str, str]] = {
    "Suspended": "kubectl copilot wake {name} -n {namespace}",
    "PausedByAnnotation": "kubectl copilot unpause {kind}/{name} -n {namespace}",
    "PoolPaused": "kubectl copilot unpause pool/{pool} -n {namespace}",
    "CrashLooping": "kubectl copilot logs {name} -n {namespace}",
    "ContainerNotStarted": "kubectl copilot logs {name} -n {namespace}",
    "ServerSilent": "kubectl copilot logs {name} -n {namespace}",
    "GatewayNotReady": "kubectl copilot explain pool/{pool} -n {namespace}",
    "PoolInvalid": "kubectl copilot explain pool/{pool} -n {namespace}",
    "UpdateFailed": "kubectl copilot restart pool/{name} -n {namespace}",
    "SecretNotFound": "kubectl copilot doctor -n {namespace}",
    "SecretNotUsable": "kubectl copilot doctor -n {namespace}",
    "NoDefaultStorageClass": "kubectl copilot doctor -n {namespace}",
}


def reasons(
    obj: Manifest, now: datetime, *, deployment: Manifest | None = None, pool: Manifest | None = None
) -> list[Reason]:
    """All about a pool or tenant; ``deployment`` of its server, ``pool`` of a tenant, where they were read.

    The first is the summary: why it is Ready, or is not.
    """
    found = [*_ready(obj, now), *_paused(obj), *_drain(obj, deployment, now), *_aspects(obj), *_why_it_runs(obj)]
    found += _progress(obj)
    if obj.get("kind") != POOL.kind and pool is not None:
        found += _of_pool(pool, now)
    return _once(found)


def troubles(found: Iterable[Reason]) -> list[Reason]:
    """Those that somebody should look at."""
    return [each for each in found if each.severity is not Severity.INFO]


def condition(obj: Mapping[str, Any], name: str) -> Manifest:
    """The condition of that type; empty if it was never written."""
    return condition_of(obj.get("status") or {}, name)


def events_of(events: Sequence[Manifest], obj: Manifest) -> list[Manifest]:
    """The operator's Events about an object, newest first."""
    metadata = obj["metadata"]

    def about(event: Manifest) -> bool:
        involved = event.get("involvedObject") or {}
        ours = "copilot-operator" in (event.get("reportingComponent"), (event.get("source") or {}).get("component"))
        return ours and involved.get("kind") == obj["kind"] and involved.get("name") == metadata["name"]

    return sorted(filter(about, events), key=_when, reverse=True)


def _when(event: Manifest) -> tuple[str, int]:
    """Of one second, the order in which they were written."""
    return str(event.get("lastTimestamp") or ""), int(event["metadata"].get("resourceVersion") or 0)


def _ready(obj: Manifest, now: datetime) -> Iterator[Reason]:
    ready, metadata = condition(obj, "Ready"), obj["metadata"]
    seen, wanted = (obj.get("status") or {}).get("observedGeneration"), metadata.get("generation")
    if "deletionTimestamp" in metadata:
        yield Reason(
            Severity.WARNING,
            "metadata",
            "Deleting",
            f"It is being deleted, since {age(metadata['deletionTimestamp'], now)}",
        )
    if not ready:
        since = now - moment(metadata["creationTimestamp"])
        told = f"The operator has written no status of it in {span(since)}"
        if since > PATIENCE:
            yield Reason(Severity.ERROR, "status", "NoStatus", f"{told}: is it running?", "kubectl copilot doctor")
        else:
            yield Reason(Severity.INFO, "status", "Starting", f"{told}; of a first start it tells when that is done")
        return
    if wanted and seen is not None and seen < wanted:
        message = (
            f"The operator tells of generation {seen}, and has yet to see {wanted}: what follows may be out of date"
        )
        yield Reason(Severity.INFO, "status", "NotObserved", message)
    if ready["status"] == "True" or ready["reason"] in ORDINARY:
        yield _told(obj, ready, Severity.INFO)
    else:
        yield _told(obj, ready, Severity.WARNING if ready["reason"] in AS_ASKED_FOR else Severity.ERROR)


def _paused(obj: Manifest) -> Iterator[Reason]:
    paused = condition(obj, "Paused")
    if paused.get("status") == "True":
        message = paused.get("message") or "An annotation says so: the operator keeps its hands off"
        yield _told(obj, {**paused, "message": message}, Severity.WARNING)


def _drain(obj: Manifest, deployment: Manifest | None, now: datetime) -> Iterator[Reason]:
    """The drain as status has it; else its notes at the Deployment, which come first."""
    if found := drain_document(obj, deployment):
        deadline = moment(found["deadline"])
        left = "not counted yet" if found["busy"] is None else f"{found['busy']} sessions still work"
        if found["work"]:
            left += f" ({', '.join(f'{number} {kind}' for kind, number in sorted(found['work'].items()))})"
        cut = f"; {found['cut']} turns were cut" if found["cut"] else ""
        overdue = now > deadline
        message = (
            f"Cause {found['cause']}, since {age(found['since'], now)}, deadline {until(deadline, now)}; {left}{cut}"
        )
        yield Reason(Severity.WARNING if overdue else Severity.INFO, found["source"], "Drain", message)


def drain_document(obj: Manifest, deployment: Manifest | None) -> dict[str, Any] | None:
    """A drain under way; None if there is none."""
    if drain := (obj.get("status") or {}).get("drain"):
        return {
            "cause": drain["cause"], "since": drain["startTime"], "deadline": drain["deadline"],
            "busy": drain.get("busy"), "work": drain.get("work") or {}, "cut": drain.get("cut", 0),
            "source": "status.drain",
        }  # fmt: skip
    intent = intent_of(deployment)
    if intent is None:
        return None
    return {
        "cause": intent.why.value, "since": intent.since.isoformat(), "deadline": intent.deadline.isoformat(),
        "busy": None, "work": {}, "cut": 0, "source": "annotations of the Deployment",
    }  # fmt: skip


def _aspects(obj: Manifest) -> Iterator[Reason]:
    for name in ASPECTS:
        if (found := condition(obj, name)).get("status") == "False":
            yield _told(obj, found, Severity.WARNING)


def _why_it_runs(obj: Manifest) -> Iterator[Reason]:
    """Of a tenant why its server runs, or does not; of a pool why so many do, where the operator decides."""
    if needed := condition(obj, "Needed"):
        yield _told(obj, needed, Severity.INFO)
    if scaled := condition(obj, "Scaled"):
        yield _told(obj, scaled, Severity.WARNING if scaled["reason"] in RUNS_SHORT else Severity.INFO)
    if told := (obj.get("status") or {}).get("autoscaling"):
        last = "Out" if told.get("direction") == "Out" else "In"
        at = told.get(f"lastScale{last}Time")
        message = f"{told['replicas']} servers{f', since {at}' if at else ''}: {told.get('message', '')}"
        yield Reason(Severity.INFO, "status.autoscaling", "Decided", message)


def _progress(obj: Manifest) -> Iterator[Reason]:
    found = condition(obj, "Progressing")
    if found.get("reason") in UPDATE_WENT_WRONG:
        yield _told(obj, found, Severity.WARNING)
    elif found and (found["reason"] not in AT_REST or _waits(found)):
        yield _told(obj, found, Severity.INFO)
    failed = (obj.get("status") or {}).get("failedRevision")
    if failed and found.get("reason") not in UPDATE_WENT_WRONG:
        message = f"Revision {failed['revision']} was given up: {failed['message']}"
        yield Reason(Severity.WARNING, "status.failedRevision", failed["reason"], message)


def _waits(found: Manifest) -> bool:
    """A settled tenant that says why it is not as it shall be: it waits for its turn, say."""
    return found["reason"] == "Settled" and found.get("message", "") not in ("", SAYS_NOTHING)


def _of_pool(pool: Manifest, now: datetime) -> Iterator[Reason]:
    name = pool["metadata"]["name"]
    for each in troubles(reasons(pool, now)):
        yield Reason(each.severity, f"pool {name}: {each.source}", each.reason, each.message, each.hint)


def _told(obj: Manifest, found: Manifest, severity: Severity) -> Reason:
    metadata = obj["metadata"]
    is_pool = obj.get("kind") == POOL.kind
    pool = metadata["name"] if is_pool else ((obj.get("spec") or {}).get("poolRef") or {}).get("name", "")
    names = {
        "name": metadata["name"],
        "namespace": metadata["namespace"],
        "pool": pool,
        "kind": "pool" if is_pool else "tenant",
    }
    hint = HINTS.get(found["reason"], "").format_map(names)
    if (found["status"], found["type"]) == ("True", "Ready") or (is_pool and "explain pool/" in hint):
        hint = ""
    return Reason(severity, f"condition {found['type']}", found["reason"], found.get("message", ""), hint)


def _once(found: Iterable[Reason]) -> list[Reason]:
    """What several conditions say in the same words is said by the first of them."""
    told: dict[tuple[str, str], Reason] = {}
    for each in found:
        told.setdefault((each.reason, each.message), each)
    return list(told.values())
