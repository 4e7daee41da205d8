"""``connect --server``: to a gateway's TLS port, past the API server."""

import asyncio
import base64
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.plugin.direct import address, direct
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.forward import Relay, join
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.rpc.ping import ping
from tests.support.certificates import Authority, put
from tests.support.standin import StandIn, standin
from tests.unit.plugin.conftest import FakeKubectl
from tests.unit.plugin.documents import Object, pool, ready, tenant
from tests.unit.plugin.test_commands import ENDPOINT, fill
from tests.unit.plugin.test_talking import write

TOKEN = "the-tenants-token"
NAME = "copilotpool-saas-gateway.team.svc"
SECRET = "/api/v1/namespaces/team/secrets/saas-tls"


class Port:
    """A port with TLS before a server that speaks without."""

    def __init__(self, server: StandIn, authority: Authority, number: int) -> None:
        self.server, self.authority, self.number = server, authority, number
        self.at = f"127.0.0.1:{number}"


@pytest.fixture
async def port(tmp_path: Path) -> AsyncIterator[Port]:
    authority = Authority()
    put(tmp_path / "tls", authority.issue(NAME))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls" / "tls.crt", tmp_path / "tls" / "tls.key")
    async with standin(token=TOKEN) as server:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                await join((reader, writer), await asyncio.open_connection("127.0.0.1", server.port))
            writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        yield Port(server, authority, listener.sockets[0].getsockname()[1])
        listener.close()


def a_pool(gateway: Object | None = None) -> Object:
    made = pool("saas", ready("PoolReady"))
    made["spec"]["gateway"] = {"enabled": True, "tls": {"secretName": "saas-tls"}} if gateway is None else gateway
    return made


def answer(kubectl: FakeKubectl, ca: bytes | None) -> None:
    data = {"tls.key": "bm8="} | ({"ca.crt": base64.b64encode(ca).decode()} if ca is not None else {})
    kubectl.answers[SECRET] = {"metadata": {}, "data": data}
    write(kubectl)


def kube() -> Kubectl:
    return Kubectl(os.environ["KUBECTL"])


async def test_a_local_port_leads_to_one_with_tls_that_the_pools_own_authority_vouches_for(
    kubectl: FakeKubectl, port: Port
) -> None:
    answer(kubectl, port.authority.ca)
    relay = Relay(direct(kube(), a_pool(), port.at, "", None))
    here = int((await relay.listen(0)).partition(":")[2])
    assert (await ping("127.0.0.1", here, TOKEN, 10)).ok
    assert (await ping("127.0.0.1", here, TOKEN, 10)).ok, "and again"
    await relay.close()
    assert not [words for words in kubectl.asked if words[0] == "port-forward"]


async def test_a_file_of_authorities_wins_and_no_secret_is_read(
    kubectl: FakeKubectl, port: Port, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_bytes(port.authority.ca)
    async with direct(kube(), a_pool(), port.at, "", tmp_path / "ca.pem")() as (_, writer):
        assert writer.get_extra_info("ssl_object").version() in ("TLSv1.2", "TLSv1.3")
    assert kubectl.asked == []


async def refused(kubectl: FakeKubectl, port: Port, ca: bytes | None, name: str = "") -> str:
    answer(kubectl, ca)
    with pytest.raises(PluginError) as found:
        async with direct(kube(), a_pool(), port.at, name, None)():
            pass
    return str(found.value)


async def test_another_authoritys_certificate_is_not_taken(kubectl: FakeKubectl, port: Port) -> None:
    said = await refused(kubectl, port, Authority().ca)
    assert f"It must be for {NAME}" in said
    assert "the authority in ca.crt of Secret team/saas-tls (--ca-file names" in said
    assert "an authority of this machine" in await refused(kubectl, port, None)


async def test_a_certificate_for_another_name_is_not_taken(kubectl: FakeKubectl, port: Port) -> None:
    said = await refused(kubectl, port, port.authority.ca, "gateway.example.com")
    assert "It must be for gateway.example.com (--server-name names another one)" in said


async def test_what_does_not_speak_tls_or_is_not_there_is_said_so(kubectl: FakeKubectl, port: Port) -> None:
    answer(kubectl, port.authority.ca)

    def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as plain:
        number = plain.sockets[0].getsockname()[1]
        with pytest.raises(PluginError, match="does not speak TLS as it should"):
            async with direct(kube(), a_pool(), f"127.0.0.1:{number}", "", None)():
                pass
    with pytest.raises(PluginError, match=r"can't connect to 127\.0\.0\.1:1: .*CertificateReady"):
        async with direct(kube(), a_pool(), "127.0.0.1:1", "", None)():
            pass


@pytest.mark.parametrize(
    ("gateway", "ca", "said"),
    [
        ({"enabled": False}, b"", "pool saas has no gateway"),
        (None, b"no PEM", "ca.crt of Secret team/saas-tls: there is no certificate in PEM in it"),
        (None, b"\xff", "ca.crt of Secret team/saas-tls: there is no certificate in PEM in it"),
    ],
)
def test_what_cannot_be_trusted_is_named(kubectl: FakeKubectl, gateway: Any, ca: bytes, said: str) -> None:
    answer(kubectl, ca)
    with pytest.raises(PluginError) as found:
        direct(kube(), a_pool(gateway), "gateway.example.com", "", None)
    assert said in str(found.value)


def test_who_may_not_read_the_secret_is_told_of_the_file(kubectl: FakeKubectl, tmp_path: Path) -> None:
    kubectl.answers[SECRET] = 'Error from server (Forbidden): secrets "saas-tls" is forbidden'
    write(kubectl)
    with pytest.raises(PluginError, match=r"(?s)forbidden.*--ca-file names a file of authorities"):
        direct(kube(), a_pool(), "gateway.example.com", "", None)
    (tmp_path / "empty.pem").write_text("")
    for path, why in ((tmp_path / "none.pem", "No such file"), (tmp_path / "empty.pem", "no certificate in PEM")):
        with pytest.raises(PluginError, match=why):
            direct(kube(), a_pool(), "gateway.example.com", "", path)


def test_a_pool_without_a_certificate_may_have_one_before_it(kubectl: FakeKubectl) -> None:
    found = direct(kube(), a_pool({}), "gateway.example.com", "gateway.example.com", None)
    assert (found.name, found.port, found.trusts) == ("gateway.example.com", 4443, "an authority of this machine")
    assert kubectl.asked == []


def test_options_about_a_server_want_one(kubectl: FakeKubectl) -> None:
    fill(kubectl, pool("saas", ready("PoolReady")), tenant("ann", ready(), endpoint=ENDPOINT))
    said = kubectl.run("connect", "ann", "--ca-file", "ca.pem")
    assert said.exit_code == 2
    assert "are about --server" in said.output
    assert "--server x:y: write HOST:PORT" in kubectl.run("connect", "ann", "--server", "x:y").output


@given(st.text("abcz019.-", min_size=1, max_size=20), st.integers(1, 65535))
def test_addresses_are_read_as_they_are_written(host: str, port: int) -> None:
    assert address(f"{host}:{port}") == (host, port)
    assert address(host) == (host, 4443)
    assert address(f"[2001:db8::7]:{port}") == ("2001:db8::7", port)
    assert address("[2001:db8::7]") == ("2001:db8::7", 4443)


@given(st.text(max_size=12))
def test_what_is_no_address_is_refused_and_nothing_else_happens(text: str) -> None:
    with suppress(PluginError):
        host, port = address(text)
        assert host
        assert 0 < port <= 65535


@pytest.mark.parametrize("text", ["", ":4443", "a:", "a:0", "a:65536", "a:x", "2001:db8::7", "https://a:1", "a:１"])
def test_these_are_no_addresses(text: str) -> None:
    with pytest.raises(PluginError):
        address(text)
