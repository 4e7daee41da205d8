"""The program of ``helm test``."""

import asyncio
import sys

import pytest

from copilot_operator.ops import web
from copilot_operator.ops.metrics import Metrics, gauge
from tests.chart.generate import CHART


async def ready(port: int, seconds: float) -> tuple[int, str]:
    words = [sys.executable, "-c", (CHART / "files" / "ready.py").read_text(), f"http://127.0.0.1:{port}", str(seconds)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    return process.returncode or 0, (out + err).decode()


@pytest.mark.parametrize(("why_not", "code"), [("", 0), ("not everything was listed yet", 1)])
async def test_helm_test_asks_whether_the_operator_is_ready(why_not: str, code: int) -> None:
    metrics = Metrics()
    metrics.read(lambda: iter([gauge("copilot_operator_leading", "", 1.0)]))
    server = await web.serve(0, live=lambda: "", ready=lambda: why_not, metrics=metrics)
    try:
        port = next(address[1] for address in server.addresses if len(address) == 2)  # of IPv4
        returned, said = await ready(port, 0.5 if code else 20)
    finally:
        await server.cleanup()
    assert returned == code, said
    assert ("503" if code else "is ready") in said
