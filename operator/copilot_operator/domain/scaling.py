"""How many servers a Shared pool shall have (``spec.shared.autoscaling``). Pure; the number lives in the pool's status.

Sessions that are loaded, and those that wait to be, need so many servers that ``freeSessions`` more would have room.

* *Out* at once, unless it has just shrunk, and half of what is to be free still is.
* *In* when fewer servers were enough for all of ``scaleInDelay``, none came meanwhile, and it is known of each what it
  does. Those that work stay.

So the direction changes at most once in ``scaleInDelay``, unless sessions would be left without room. What was needed
lately is remembered by the one who asks (``Window``); an operator that starts anew forgets it, and is only later with
the next way in.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.autoscaling import AutoscalingSpec
from copilot_operator.api.conditions import timestamp
from copilot_operator.api.duration import duration_s
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.seats import Seat
from copilot_operator.domain.snapshot import Finding

READY_WITHIN: Final = timedelta(minutes=2)  # a server that takes longer holds up no further step


@dataclass(frozen=True)
class Load:
    """``sessions``: loaded, and waiting for room at their server. ``held``: by gateways, for no server takes them.

    Of the servers: ``working`` with a busy session, ``uncounted`` if nobody knows what they do, ``ready``.
    """

    sessions: int = 0
    held: int = 0
    working: int = 0
    uncounted: int = 0
    ready: int = 0

    @property
    def least(self) -> int:
        """Sessions that are known of."""
        return self.sessions + self.held


def load_of(seats: Iterable[Seat], held: int) -> Load:
    there = [seat for seat in seats if seat.up or seat.leaves or seat.demanded]
    return Load(
        sessions=sum(seat.loaded + seat.queued for seat in there),
        held=held,
        working=sum(seat.known and seat.busy > 0 for seat in there),
        uncounted=sum(not seat.known for seat in there),
        ready=sum(seat.up and seat.ready for seat in there),
    )


@dataclass(frozen=True)
class Scale:
    """What was decided last: ``status.autoscaling``."""

    replicas: int
    out_at: datetime | None = None
    in_at: datetime | None = None
    message: str = ""

    @property
    def document(self) -> Manifest:
        last = max((at for at in (self.out_at, self.in_at) if at), default=None)
        times = {"lastScaleOutTime": self.out_at, "lastScaleInTime": self.in_at}
        return {
            "replicas": self.replicas,
            **{key: timestamp(at) for key, at in times.items() if at},
            **({"direction": "Out" if last == self.out_at else "In"} if last else {}),
            "message": self.message,
        }


def scale_of(status: Manifest, running: int, spec: AutoscalingSpec) -> Scale:
    """What status tells; where it tells nothing the pool has not been scaled before, and goes on from what runs."""
    told = status.get("autoscaling") or {}
    if "replicas" not in told:
        first = min(max(running, spec.min_replicas), spec.max_replicas)
        return Scale(first, message=f"{running} servers ran when autoscaling began")
    out_at, in_at = (
        datetime.fromisoformat(told[key]) if key in told else None for key in ("lastScaleOutTime", "lastScaleInTime")
    )
    return Scale(int(told["replicas"]), out_at, in_at, told.get("message", ""))


@dataclass(frozen=True)
class Window:
    """What was needed lately: (when, servers), each fewer than the one before, since ``began``."""

    began: datetime
    peaks: tuple[tuple[datetime, int], ...] = ()

    def with_need(self, now: datetime, servers: int, length: timedelta) -> "Window":
        """Of several the last that is at least as high stands for those before it, too."""
        higher = tuple((at, before) for at, before in self.peaks if before > servers and now - at <= length)
        return replace(self, peaks=(*higher, (now, servers)))

    def peak(self, now: datetime, length: timedelta) -> int | None:
        """The most that was needed; None while it has not been looked at for long enough."""
        return max(servers for _, servers in self.peaks) if now - self.began >= length else None


@dataclass(frozen=True)
class Decision:
    """``finding`` is what the condition ``Scaled`` tells; ``as_needed``: whether it is True. ``before``: the number
    until now."""

    scale: Scale
    before: int
    window: Window
    finding: Finding
    as_needed: bool

    @property
    def changed(self) -> bool:
        return self.scale.replicas != self.before


def decide(
    spec: AutoscalingSpec, slots: int, last: Scale, load: Load, window: Window | None, now: datetime
) -> Decision:
    """``slots``: sessions that a server may have loaded. ``window``: as it was returned last."""
    delay = timedelta(seconds=duration_s(spec.scale_in_delay))
    least = servers_for(spec, slots, load.least)
    most = servers_for(spec, slots, load.least + load.uncounted * slots)
    window = (window or Window(now)).with_need(now, most, delay)
    needs = max(least, spec.min_replicas)
    target, finding = last.replicas, _as_needed(spec, load)
    as_needed = True
    if min(needs, spec.max_replicas) > last.replicas:
        target, finding, as_needed = _out(spec, slots, last, load, min(needs, spec.max_replicas), now)
    elif max(most, spec.min_replicas) < last.replicas or last.replicas > spec.max_replicas:
        target, held = _in(spec, last, load, window, now)
        finding, as_needed = held or finding, held is None
    if target == last.replicas == spec.max_replicas < least:
        text = f"{spec.max_replicas} servers run, and sessions need more: raise shared.autoscaling.maxReplicas"
        finding, as_needed = Finding("AtMaximum", text), False
    scale = last
    if target != last.replicas:
        message = f"{_counted(load)} need {needs} servers of {slots} slots; freeSessions is {spec.free_sessions}"
        grown = target > last.replicas
        scale = Scale(target, now if grown else last.out_at, last.in_at if grown else now, message)
    return Decision(scale, last.replicas, window, finding, as_needed)


def servers_for(spec: AutoscalingSpec, slots: int, sessions: int) -> int:
    """How many servers have room for so many sessions, and for those that are to be free; 0 for none."""
    if sessions == 0 and spec.min_replicas == 0:
        return 0
    share = spec.free_sessions.removesuffix("%")
    if share != spec.free_sessions:
        return _up(sessions * 100, slots * (100 - int(share)))
    return _up(sessions + int(spec.free_sessions), slots)


def _out(
    spec: AutoscalingSpec, slots: int, last: Scale, load: Load, wanted: int, now: datetime
) -> tuple[int, Finding, bool]:
    delay = timedelta(seconds=duration_s(spec.scale_in_delay))
    if last.in_at and now - last.in_at < delay and not _short(spec, slots, last.replicas, load):
        text = f"One more is needed for freeSessions, and half of them are free; it comes {spec.scale_in_delay} after"
        return last.replicas, Finding("WaitsAfterScaleIn", f"{text} the last one went"), False
    if spec.step and last.out_at and now - last.out_at < READY_WITHIN and load.ready < last.replicas:
        return last.replicas, Finding("WaitsForServers", "More come when those of the last step are ready"), False
    target = min(wanted, last.replicas + _step(spec, last.replicas))
    return target, _as_needed(spec, load), True


def _short(spec: AutoscalingSpec, slots: int, replicas: int, load: Load) -> bool:
    """Less than half of what is to be free is."""
    room = replicas * slots
    share = spec.free_sessions.removesuffix("%")
    wanted = room * int(share) / 100 if share != spec.free_sessions else int(share)
    return load.held > 0 or replicas < spec.min_replicas or (room - load.least) * 2 < wanted or room < load.least


def _in(spec: AutoscalingSpec, last: Scale, load: Load, window: Window, now: datetime) -> tuple[int, Finding | None]:
    """What is above ``maxReplicas`` goes at once: people have asked for it."""
    delay = timedelta(seconds=duration_s(spec.scale_in_delay))
    if load.uncounted:
        return last.replicas, Finding("NotCounted", "Fewer might do, but not every server has told what it does")
    peak = window.peak(now, delay)
    newest = max((at for at in (last.out_at, last.in_at if spec.step else None) if at), default=None)
    if last.replicas <= spec.max_replicas and (peak is None or (newest and now - newest < delay)):
        return last.replicas, None
    wanted = spec.max_replicas if peak is None else min(peak, spec.max_replicas)
    wanted = max(wanted, spec.min_replicas, last.replicas - _step(spec, last.replicas))
    if load.working >= last.replicas > wanted:
        return last.replicas, Finding("ServersWork", "Fewer would do for the sessions, but on each server one is busy")
    return min(last.replicas, max(wanted, load.working)), None


def _as_needed(spec: AutoscalingSpec, load: Load) -> Finding:
    if spec.min_replicas == 0 and load.least == 0:
        text = "No session is loaded, and none waits; the next request for one starts a server"
        return Finding("NobodyNeedsIt", text)
    text = (
        f"As many servers run as sessions needed within {spec.scale_in_delay}, with freeSessions {spec.free_sessions}"
    )
    return Finding("AsNeeded", text)


def _counted(load: Load) -> str:
    held = f" and {load.held} that wait for a server" if load.held else ""
    return f"{load.sessions} loaded sessions{held}"


def _step(spec: AutoscalingSpec, running: int) -> int:
    if spec.step is None:
        return spec.max_replicas + running
    share = spec.step.removesuffix("%")
    return max(1, _up(running * int(share), 100)) if share != spec.step else int(share)


def _up(number: int, by: int) -> int:
    return -(-number // by)
