"""How the demo speaks: each step with the time since the start, so that a reader sees where the seconds go."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


class DemoFailed(Exception):
    """The demo can't go on; the message is for people."""


@dataclass
class Story:
    started_at: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started_at

    def say(self, text: str) -> None:
        print(f"[{self.seconds:5.1f} s] {text}", flush=True)

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        began = time.monotonic()
        self.say(f"{what} ...")
        yield
        self.say(f"{what}: done in {time.monotonic() - began:.1f} s")


def wait_for(condition: Callable[[], object], *, within_s: float, what: str, state: Callable[[], str] = str) -> None:
    """Ask until the answer is true-ish; past the deadline DemoFailed, with the ``state`` of things."""
    ends_at = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > ends_at:
            raise DemoFailed(f"{what}: not within {within_s:g} s\n{state()}")
        time.sleep(0.2)
