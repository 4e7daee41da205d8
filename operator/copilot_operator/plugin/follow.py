"""Waiting for what was asked for, with a deadline, and showing how it goes."""

import time
from collections.abc import Callable
from typing import Final

from copilot_operator.plugin.errors import KubectlError, PluginError
from copilot_operator.plugin.tables import say
from copilot_operator.plugin.times import span_s
from copilot_operator.plugin.waits import Progress

EVERY_S: Final = 1.0
FINAL: Final = frozenset({"Forbidden", "NotFound"})  # asking again would not help


def follow(look: Callable[[], Progress], what: str, timeout_s: float, *, way_out: str) -> None:
    """Return once it is done; raises PluginError when it failed, the time is over, or Ctrl-C was pressed."""
    try:
        _follow(look, what, timeout_s, way_out)
    except KeyboardInterrupt:
        raise PluginError(f"{what}: no longer waited for\n{way_out}") from None


def _follow(look: Callable[[], Progress], what: str, timeout_s: float, way_out: str) -> None:
    begun = time.monotonic()
    said = line = ""
    while True:
        try:
            progress = look()
        except KubectlError as error:
            if error.reason in FINAL:
                raise
            progress = Progress(False, f"can't look: {error.message}")
        passed_s = time.monotonic() - begun
        line = progress.line
        if progress.done:
            say(f"{what}: done after {span_s(passed_s)}", style="OK")
            return
        if progress.failed:
            raise PluginError(f"{what}: {progress.failed}")
        if line != said:
            say(f"{span_s(passed_s):>5}  {line}")
            said = line
        if passed_s >= timeout_s:
            raise PluginError(f"{what}: not done within {span_s(timeout_s)}; last: {line}\n{way_out}")
        time.sleep(min(EVERY_S, max(0.05, timeout_s - passed_s)))
