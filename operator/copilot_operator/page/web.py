"""The page's own port: one HTML file and one JSON document, on the loopback of the pod alone.

Nobody gets there but by ``kubectl port-forward``, so the cluster decides who may look: whoever may create
``pods/portforward`` in the operator's namespace. A browser that forwards the port is on a network with every site it
has open: what is not asked for by a name of the loopback is refused (DNS rebinding), and no other origin may read.
"""

import base64
import hashlib
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

from copilot_operator.page.snapshot import Snapshots

LOOPBACK: Final = "127.0.0.1"
NAMES: Final = frozenset({"localhost", LOOPBACK, "[::1]"})
FILE: Final = Path(__file__).with_name("page.html")
INLINE: Final = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)
REFUSED: Final = "this page is served to kubectl port-forward alone: open it as http://localhost:PORT\n"

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def policy(html: str) -> str:
    """The Content-Security-Policy that lets run what is in the file, and nothing else."""
    hashes: dict[str, str] = {}
    for name, text in INLINE.findall(html):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes[name] = f"{hashes.get(name, '')} 'sha256-{digest}'"
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src{hashes['script']}",
            f"style-src{hashes['style']}",
            "connect-src 'self'",
            "img-src data:",  # an empty icon
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # the browser itself refuses to make HTML of a text
            "trusted-types 'none'",
        ]
    )


def application(snapshots: Snapshots) -> web.Application:
    """``/`` and ``/status.json``; nothing can be changed by it."""
    html = FILE.read_text()
    headers = {
        "Content-Security-Policy": policy(html),
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cache-Control": "no-store",
        "Vary": "Accept-Encoding",
    }

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        if host_of(request.headers.get("Host", "")) not in NAMES:
            return web.Response(text=REFUSED, status=403, headers=headers)
        try:
            answer = await handler(request)
        except web.HTTPException as error:
            error.headers.update(headers)
            raise
        answer.headers.update(headers)
        return answer

    async def page(_: web.Request) -> web.Response:
        return web.Response(text=html, content_type="text/html")

    async def status(request: web.Request) -> web.Response:
        document = await snapshots.document()
        tag = {"ETag": f'"{document.tag}"'}
        if request.headers.get("If-None-Match") == tag["ETag"]:
            return web.Response(status=304, headers=tag)
        if "gzip" in request.headers.get("Accept-Encoding", ""):
            tag["Content-Encoding"] = "gzip"
            return web.Response(body=document.packed, content_type="application/json", headers=tag)
        return web.Response(body=document.body, content_type="application/json", headers=tag)

    made = web.Application(middlewares=[guarded])
    made.add_routes([web.get("/", page), web.get("/status.json", status)])
    return made


async def serve(port: int, snapshots: Snapshots) -> web.AppRunner:
    """Start to serve on the loopback; 0 is any port. The caller cleans up. Raises OSError if the port is taken."""
    runner = web.AppRunner(application(snapshots), access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, LOOPBACK, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def host_of(header: str) -> str:
    """Without the port."""
    return re.sub(r":\d+$", "", header.lower())
