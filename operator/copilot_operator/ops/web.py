"""The operator's HTTP port: /livez, /readyz, /metrics. Plain text; a refusal says why."""

from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from copilot_operator.ops.metrics import Metrics

Check = Callable[[], str]  # why not; "" if all is well


async def serve(port: int, *, live: Check, ready: Check, metrics: Metrics) -> web.AppRunner:
    """Start to serve; the caller cleans the runner up. Raises OSError if the port is taken."""

    def probe(check: Check) -> Callable[[web.Request], object]:
        async def answer(_: web.Request) -> web.Response:
            why_not = check()
            return web.Response(text=f"{why_not or 'ok'}\n", status=503 if why_not else 200)

        return answer

    async def expose(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes(
        [web.get("/livez", probe(live)), web.get("/readyz", probe(ready)), web.get("/metrics", expose)]  # type: ignore[arg-type]
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=2)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner
