"""Both servers of the CLI's package in a network that is left through a proxy only, and where models have certificates
of the company's own authority: what the operator makes of server.proxy and server.caBundleConfigMapRef does it."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.domain.desired.outside import outside_env
from tests.contract.conftest import TOKEN, Client, subject_of
from tests.support.certificates import certificate
from tests.support.cli import Cli, copilot_runtime, real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer
from tests.support.snapshots import a_pool, a_snapshot

HOST: Final = "models.example.com"  # which no resolver knows: only a proxy leads there
TURN_S: Final = 180.0  # with all tries of who asks in vain
ENDS: Final = ("session.idle", "session.error")

Start = Callable[..., AbstractAsyncContextManager[Cli]]
BOTH: Final = pytest.mark.parametrize("start", [real_cli, copilot_runtime], ids=["CLI", "CopilotRuntime"])


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()


class Proxy:
    """``asked``: method and target of all requests. A tunnel (CONNECT), wherever it should lead, ends with TLS, and
    goes to the model; whatever else is asked has the answer 403."""

    def __init__(self, model: ModelServer, both: Path) -> None:
        self.asked: set[str] = set()
        self._model = model
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(both)

    async def served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
            self.asked.add(f"{method} {target}")
            if method == "CONNECT":
                writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
                await writer.start_tls(self._tls)
                up, down = await asyncio.open_connection(self._model.host, self._model.port)
                await asyncio.gather(copied(reader, down), copied(up, writer))
            else:
                writer.write(b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
                await writer.drain()
        writer.close()


class Company:
    """A network with a ``proxy`` at ``url``, and its authority's certificate in the file ``ca``."""

    def __init__(self, model: ModelServer, proxy: Proxy, url: str, ca: Path) -> None:
        self.model, self.proxy, self.url, self.ca = model, proxy, url, ca

    def env(self, **proxy: Any) -> dict[str, str]:
        """As the operator gives it to servers of a pool with this ``server.proxy``; the ConfigMap's file is ``ca``."""
        proxy = {"httpsProxy": self.url} | proxy
        pool = a_pool({"server.proxy": proxy, "server.caBundleConfigMapRef": {"name": "ca"}})
        made = {each["name"]: each["value"] for each in outside_env(a_snapshot(pool=pool))}
        assert "NODE_EXTRA_CA_CERTS" in made
        return made | {"NODE_EXTRA_CA_CERTS": str(self.ca)}


@pytest.fixture
async def company(tmp_path: Path) -> AsyncIterator[Company]:
    made, key = certificate(HOST)
    ca, both = tmp_path / "ca.pem", tmp_path / "both.pem"
    ca.write_text(made)
    both.write_text(made + key)
    async with ModelServer() as model:
        proxy = Proxy(model, both)
        server = await asyncio.start_server(proxy.served, "127.0.0.1", 0)
        async with server:
            yield Company(model, proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ca)


@asynccontextmanager
async def turns(
    start: Start, directory: Path, urls: dict[str, str | None], env: dict[str, str], *flags: str
) -> AsyncIterator[Client]:
    """A session for each of ``urls`` (None: GitHub's models), by its id, and a message in it; the turns run."""
    async with ModelServer() as nowhere, start(directory, token=TOKEN, flags=flags, env=env) as cli:
        subject = subject_of(cli, nowhere)
        client, provider = await subject.client(), subject.options.pop("provider")
        for id, url in urls.items():
            await subject.create(client, id, **({"provider": provider | {"baseUrl": url}} if url else {}))
            await client("session.send", sessionId=id, prompt="ECHO=through")
        try:
            yield client
        finally:
            await client.connection.close()


def ended(client: Client, id: str) -> Any:
    return next((each for each in client.whole_events(id) if each["type"] in ENDS), None)


async def end(client: Client, id: str = "s") -> Any:
    await eventually(lambda: ended(client, id), within_s=TURN_S, what=f"the end of the turn in {id}")
    return ended(client, id)


@BOTH
async def test_models_behind_a_proxy_with_a_certificate_of_the_companys(
    start: Start, company: Company, tmp_path: Path
) -> None:
    async with turns(start, tmp_path, {"s": f"https://{HOST}/v1"}, company.env()) as client:
        assert (await end(client))["type"] == "session.idle"
    assert company.proxy.asked == {f"CONNECT {HOST}:443"}
    assert company.model.bearers, "the model was asked"


@BOTH
async def test_github_is_asked_through_the_proxy_too(start: Start, company: Company, tmp_path: Path) -> None:
    github = dict.fromkeys(("COPILOT_DEBUG_GITHUB_API_URL", "COPILOT_API_URL"), f"https://{HOST}")
    env = company.env() | github | {"PAYS": "gho_of-a-person"}
    async with turns(start, tmp_path, {"s": None}, env, "--auth-token-env", "PAYS") as client:
        assert (await end(client))["type"] == "session.idle"
    assert f"CONNECT {HOST}:443" in company.proxy.asked
    assert all(HOST in each for each in company.proxy.asked), company.proxy.asked


@BOTH
async def test_with_one_broken_certificate_every_turn_fails(start: Start, company: Company, tmp_path: Path) -> None:
    """Why the operator reads them all before it starts a server with them."""
    company.ca.write_text(company.ca.read_text() + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    async with turns(start, tmp_path, {"s": f"https://{HOST}/v1"}, company.env()) as client:
        found = await end(client)
    assert found["type"] == "session.error"
    assert "invalid extra CA certificate" in found["data"]["message"]


@pytest.mark.timeout(1500)
@BOTH
async def test_who_is_named_in_no_proxy_is_asked_directly(start: Start, company: Company, tmp_path: Path) -> None:
    """A name with all below it, a range of addresses; and, named or not, the server's own pod and Services. For http://,
    too, the one proxy is asked, though it is named for https:// alone."""
    hosts = {"service": "models.team.svc", "name": "api.corp.example", "range": "127.9.9.9:9", "other": HOST}
    urls: dict[str, str | None] = {id: f"http://{host}/v1" for id, host in hosts.items()}
    env = company.env(noProxy=["corp.example", "127.9.0.0/16"])
    async with turns(start, tmp_path, urls | {"pod": company.model.base_url}, env) as client:
        assert (await end(client, "pod"))["type"] == "session.idle"
        for id in ("service", "name", "range"):  # which nobody answers to, after all tries
            assert (await end(client, id))["type"] == "session.error"
        await eventually(lambda: company.proxy.asked, within_s=TURN_S, what="the proxy is asked")
    assert {target.split("/")[2] for target in company.proxy.asked} == {HOST}
