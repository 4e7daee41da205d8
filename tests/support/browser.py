"""A real browser for tests: Debian's headless Chromium, spoken to by its own protocol (DevTools, JSON over WebSocket).

The machine's own is used if there is one. Else Debian's package is unpacked into the cache, with those libraries that
the machine lacks: nothing is installed.
"""

import asyncio
import base64
import contextlib
import itertools
import os
import re
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest

from tests.cluster.layout import cache_directory
from tests.cluster.packages import find
from tests.cluster.process import ClusterError, run
from tests.cluster.programs import lock

PACKAGE: Final = "chromium-headless-shell"
NAMES: Final = (PACKAGE, "chromium", "google-chrome")
START_S: Final = 90.0
ANSWER_S: Final = 60.0
END_S: Final = 10.0
LISTENS: Final = re.compile(rb"DevTools listening on (ws://\S+)")
FONTS: Final = """<?xml version="1.0"?><!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>
<dir>/usr/share/fonts</dir><dir>{tree}/usr/share/fonts</dir><cachedir>{home}/fonts</cachedir></fontconfig>
"""


class BrowserError(Exception):
    """The browser did not do what was asked; the message says what it said."""


def chromium() -> tuple[str, Path | None]:
    """The program, and the tree its libraries are in; None: the machine's own. Skips the test if none can be had."""
    if own := next((path for name in NAMES if (path := find(name))), None):
        return own, None
    tree = cache_directory() / "programs" / f"debian-{PACKAGE}"
    if not tree.is_dir():
        if shutil.which("apt-get") is None:
            pytest.skip(f"no Chromium is installed, and there is no apt-get to fetch Debian's package {PACKAGE} with")
        with lock(PACKAGE):
            if not tree.is_dir():
                try:
                    _unpack(tree)
                except ClusterError as error:
                    pytest.skip(f"no Chromium is installed, and Debian's package {PACKAGE} can't be fetched: {error}")
    return str(tree / "usr" / "lib" / "chromium" / PACKAGE), tree


def _unpack(tree: Path) -> None:
    """The package with all that it needs and the machine has not. Raises ClusterError."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "partial").mkdir()
        download = [
            "apt-get", "-qq", "-y", "--no-install-recommends", "--download-only", "-o", "APT::Sandbox::User=root",
            "-o", "Debug::NoLocking=1", "-o", f"Dir::Cache::archives={directory}", "install", PACKAGE,
        ]  # fmt: skip
        if run(download, timeout_s=300, check=False).returncode != 0:
            run(["apt-get", "-qq", "update"], timeout_s=300)
            run(download, timeout_s=300)
        partial = tree.with_name(tree.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        for archive in sorted(Path(directory).glob("*.deb")):
            run(["dpkg-deb", "--extract", str(archive), str(partial)], timeout_s=120)
        partial.rename(tree)


class Page:
    """One page of the browser. ``complaints``: what it wrote to its console, and what its policy refused."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._session: str | None = None
        self.complaints: list[str] = []
        self._reading = asyncio.create_task(self._read(), name="browser")

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """A method of the protocol. Raises BrowserError."""
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json(message)
        try:
            async with asyncio.timeout(ANSWER_S):
                found = await answer
        except TimeoutError:
            raise BrowserError(f"{method}: no answer within {ANSWER_S:g} s") from None
        if "error" in found:
            raise BrowserError(f"{method}: {found['error']}")
        result: dict[str, Any] = found["result"]
        return result

    async def open(self, url: str, *, width: int = 1280, height: int = 900) -> None:
        """Go there, in a tab of its own."""
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            await self.call(f"{domain}.enable")
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        await self.call("Page.navigate", url=url)

    async def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, which may be a promise. Raises BrowserError."""
        found = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise BrowserError(f"{expression}: {found['exceptionDetails']}")
        return found["result"].get("value")

    async def wait_for(self, expression: str, within_s: float = 60.0) -> Any:
        """The first value of an expression that is true-ish. Raises BrowserError, with what is on the page."""
        try:
            async with asyncio.timeout(within_s):
                while not (value := await self._tried(expression)):  # noqa: ASYNC110 - the page is in another process
                    await asyncio.sleep(0.1)
                return value
        except TimeoutError:
            seen = await self.evaluate("document.body.innerText.slice(0, 1500)")
            raise BrowserError(
                f"not within {within_s:g} s: {expression}\non the page: {seen}\n{self.complaints}"
            ) from None

    async def _tried(self, expression: str) -> Any:
        with contextlib.suppress(BrowserError):  # a page that is not all there yet
            return await self.evaluate(expression)

    async def press(self, key: str, code: int, *, text: str = "") -> None:
        """A key, by its name (KeyboardEvent.key) and its number (windowsVirtualKeyCode)."""
        pressed = {"key": key, "code": key, "windowsVirtualKeyCode": code} | ({"text": text} if text else {})
        await self.call("Input.dispatchKeyEvent", type="keyDown", **pressed)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **pressed)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self.call("Input.insertText", text=text)

    async def colours(self, scheme: str) -> None:
        """``light`` or ``dark``."""
        await self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    async def screenshot(self) -> bytes:
        """PNG of what is in the window."""
        return base64.b64decode((await self.call("Page.captureScreenshot", format="png"))["data"])

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        async for message in self._socket:
            found = message.json()
            if waiting := self._answers.pop(found.get("id", 0), None):
                waiting.set_result(found)
            elif found.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"):
                self.complaints.append(str(found["params"]))


@contextlib.asynccontextmanager
async def browser() -> AsyncIterator[Page]:
    """A browser of one's own, with an empty profile, and a page of it."""
    program, tree = await asyncio.to_thread(chromium)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        environment = os.environ | {"HOME": home}
        if tree:
            (Path(home) / "fonts.conf").write_text(FONTS.format(tree=tree, home=home))
            environment |= {"LD_LIBRARY_PATH": _libraries(tree), "FONTCONFIG_FILE": f"{home}/fonts.conf"}
        words = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--hide-scrollbars", f"--user-data-dir={home}/profile", "--remote-debugging-port=0", "about:blank",
        ]  # fmt: skip
        child = await asyncio.create_subprocess_exec(
            program, *words, env=environment, start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            address = await _address(child)
            drained = asyncio.create_task(_drain(child), name="output of the browser")
            async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=0) as socket:
                page = Page(socket)
                try:
                    yield page
                finally:
                    await page.close()
                    drained.cancel()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            async with asyncio.timeout(END_S):
                await child.wait()


async def _address(child: asyncio.subprocess.Process) -> str:
    assert child.stderr is not None
    said = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(START_S):
            while line := await child.stderr.readline():
                said += line
                if found := LISTENS.search(line):
                    return found[1].decode()
    raise BrowserError(f"the browser does not start; it said: {said.decode(errors='replace')[-2000:]}")


async def _drain(child: asyncio.subprocess.Process) -> None:
    """A pipe that nobody reads would stop it."""
    assert child.stderr is not None
    while await child.stderr.read(65536):
        pass


def _libraries(tree: Path) -> str:
    folders = {str(path.parent) for path in (tree / "usr" / "lib").rglob("*.so*")}
    return ":".join(sorted(folders))
