"""What ``/metrics`` says: the text format of Prometheus, by hand. Pure. What is not known is left out."""

from collections.abc import Iterator, Mapping

from copilot_operator.agent.state import State, kinds_of_work
from copilot_operator.rpc.ping import Failure

_Sample = tuple[Mapping[str, str], float]


def text(state: State) -> str:
    """All metrics of one server."""
    return "".join(_lines(state))


def _lines(state: State) -> Iterator[str]:
    reading, used, disk, drain = state.reading, state.processes, state.disk, state.drain
    yield from _metric("copilot_agent_info", "gauge", "The agent itself.", [({"version": state.version}, 1)])
    yield from _metric("copilot_cli_up", "gauge", "Whether the CLI answered connect and ping.", _one(reading.ok))
    if reading.version is not None:
        yield from _metric("copilot_cli_info", "gauge", "The CLI that answers.", [({"version": reading.version}, 1)])
    if reading.latency_s is not None:
        latency = _one(reading.latency_s)
        yield from _metric("copilot_cli_ping_seconds", "gauge", "Time to the answer of the latest ping.", latency)
    failures: list[_Sample] = [({"reason": each}, state.probe_failures.get(each, 0)) for each in Failure]
    yield from _metric("copilot_cli_ping_failures_total", "counter", "Pings without a good answer.", failures)
    yield from _sessions(state)
    yield from _claims(state)
    memory, processes = _one(used.memory_bytes), _one(used.count)
    yield from _metric("copilot_server_memory_bytes", "gauge", "Resident memory of the CLI and its tools.", memory)
    yield from _metric("copilot_server_processes", "gauge", "Processes of the CLI and its tools.", processes)
    if disk is not None:
        capacity, free = _one(disk.capacity_bytes), _one(disk.free_bytes)
        yield from _metric("copilot_server_disk_capacity_bytes", "gauge", "Size of the state volume.", capacity)
        yield from _metric("copilot_server_disk_free_bytes", "gauge", "Free space of the state volume.", free)
        help = "Whether the state volume takes no writes."
        yield from _metric("copilot_server_disk_read_only", "gauge", help, _one(state.read_only))
    yield from _expiry(state)
    yield from _metric("copilot_server_draining", "gauge", "Whether a drain runs or is done.", _one(drain is not None))
    cut = _one(0 if drain is None else len(drain.progress.cut))
    yield from _metric("copilot_server_drain_cut_turns", "gauge", "Turns cut by the deadline of this drain.", cut)


def _sessions(state: State) -> Iterator[str]:
    if state.sessions is None:
        return
    count = state.sessions.count
    samples: list[_Sample] = [
        ({"state": "loaded"}, count.loaded),
        ({"state": "busy"}, count.busy),
        ({"state": "waiting"}, count.waiting),
        ({"state": "uncounted"}, count.uncounted),
        ({"state": "stored"}, state.sessions.stored),
    ]
    yield from _metric(
        "copilot_server_sessions",
        "gauge",
        "Sessions. Loaded contains busy; busy contains waiting and uncounted; stored are those on disk.",
        samples,
    )
    work: list[_Sample] = [({"work": kind}, number) for kind, number in kinds_of_work(state.sessions).items()]
    yield from _metric("copilot_server_busy_sessions", "gauge", "Busy sessions by what keeps them so.", work)
    help = "Sessions unloaded because others waited to be loaded (sessions.maxConcurrent)."
    yield from _metric("copilot_server_sessions_evicted_total", "counter", help, _one(state.evicted))
    help = "Sessions refused because there were as many as may be (sessions.whenFull: Reject)."
    yield from _metric("copilot_server_sessions_refused_total", "counter", help, _one(state.refused))
    help = "Sessions that wait to be loaded, for there are as many as may be (sessions.maxConcurrent)."
    yield from _metric("copilot_server_sessions_waiting_for_room", "gauge", help, _one(state.wait_for_room))
    help = "Tenants that wait to speak in sessions that they share with others (shared.sharedSessions)."
    yield from _metric("copilot_server_waiting_to_speak", "gauge", help, _one(state.wait_to_speak))
    silent_s = state.sessions.silent_s or 0.0
    help = "Longest time a turn that waits for nobody has shown no event."
    yield from _metric("copilot_server_stalled_seconds", "gauge", help, _one(round(silent_s, 1)))


def _claims(state: State) -> Iterator[str]:
    if state.claims is None:
        return
    help = "Sessions of the shared volume that this server has claimed (storage.mode: Shared)."
    yield from _metric("copilot_server_claims", "gauge", help, _one(state.claims.held))
    help = "Claims that were refused because another server had the session."
    yield from _metric("copilot_server_claims_refused_total", "counter", help, _one(state.claims.refused))
    help = "Claims that were taken over from a server that has ended."
    yield from _metric("copilot_server_claims_taken_over_total", "counter", help, _one(state.claims.taken_over))


def _expiry(state: State) -> Iterator[str]:
    tally = state.tally
    help = "Sessions deleted because nobody had used them for the pool's sessions.ttl."
    yield from _metric("copilot_server_expired_sessions_deleted_total", "counter", help, _one(tally.deleted))
    help = "Bytes of sessions deleted so."
    yield from _metric("copilot_server_expired_sessions_freed_bytes_total", "counter", help, _one(tally.freed_bytes))
    if tally.expired is not None:
        help = "Sessions that the last pass would have deleted without ttlAction: DryRun."
        yield from _metric("copilot_server_expired_sessions_kept", "gauge", help, _one(tally.expired))
    help = "Sessions of deleted tenants that were erased."
    yield from _metric("copilot_server_erased_sessions_total", "counter", help, _one(state.erased.sessions))
    help = "Broken sessions in quarantine on the volume."
    yield from _metric("copilot_server_quarantined_sessions", "gauge", help, _one(len(state.quarantined)))
    passes = _one(tally.passes)
    yield from _metric("copilot_server_janitor_passes_total", "counter", "Looks for expired sessions.", passes)
    if tally.pass_s is not None:
        help = "Time that the last look for expired sessions took."
        yield from _metric("copilot_server_janitor_pass_seconds", "gauge", help, _one(round(tally.pass_s, 3)))
    help = "Ephemeral sessions that are stored, because a client has them open or had a moment ago."
    yield from _metric("copilot_server_ephemeral_sessions", "gauge", help, _one(state.ephemeral))
    help = "Ephemeral sessions deleted because no client had them open any more."
    yield from _metric("copilot_server_ephemeral_sessions_erased_total", "counter", help, _one(state.ephemeral_erased))


def _one(value: float) -> list[_Sample]:
    return [({}, value)]


def _metric(name: str, kind: str, help: str, samples: list[_Sample]) -> Iterator[str]:
    yield f"# HELP {name} {help}\n# TYPE {name} {kind}\n"
    for labels, value in samples:
        pairs = ",".join(f'{key}="{_escaped(each)}"' for key, each in labels.items())
        yield f"{name}{{{pairs}}} {_number(value)}\n" if pairs else f"{name} {_number(value)}\n"


def _number(value: float) -> str:
    """A number as Prometheus reads it; bytes come out whole."""
    return repr(value) if isinstance(value, float) else str(int(value))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
