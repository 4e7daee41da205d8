"""The TLS listener before a handshake is done; test_front.py has what comes after it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as to

from copilot_operator.gateway import certificate
from copilot_operator.gateway.house import Bounds
from copilot_operator.gateway.tls import TlsListener
from tests.support.certificates import Authority, put
from tests.support.eventually import eventually
from tests.support.gateway import RawClient
from tests.unit.gateway.test_front import House

NAME = "gateway.ns.svc"


class Door:
    """A listener whose certificate may be changed."""

    def __init__(self, house: House, context: ssl.SSLContext | None) -> None:
        self.house, self.context, self.port = house, context, 0


@asynccontextmanager
async def door(context: ssl.SSLContext | None, bounds: Bounds = Bounds()) -> AsyncIterator[Door]:  # noqa: B008
    made = Door(House(), context)
    listener = TlsListener(made.house, bounds, lambda: made.context, "127.0.0.1", 0)
    made.port = listener.port
    running = asyncio.create_task(listener.run())
    try:
        yield made
    finally:
        running.cancel()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def context(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    directory = tmp_path_factory.mktemp("tls")
    put(directory, authority.issue(NAME))
    return certificate.read(directory).context


async def left(at: Door, why: str) -> None:
    await eventually(lambda: at.house.left == [why], within_s=5, what=f"its end: {why}")


async def test_half_a_handshake_counts_as_a_strangers_connection_and_ends_in_time(context: ssl.SSLContext) -> None:
    async with door(context, Bounds(handshake_s=2)) as at:
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.write(bytes.fromhex("1603010200"))  # of a record that never comes
        await eventually(lambda: len(at.house.clients) == 1, within_s=5, what="it is counted")
        assert at.house.left == []
        async with asyncio.timeout(10):
            assert await reader.read() == b"", "no byte before the handshake is done"
        await left(at, "no TLS handshake")
        writer.close()


async def test_who_speaks_plainly_to_the_port_of_tls_is_not_answered(context: ssl.SSLContext) -> None:
    async with door(context) as at:
        client = await RawClient.open("127.0.0.1", at.port)
        client.begin("connect", token="good")
        async with asyncio.timeout(10):
            await client.ended.wait()
        await left(at, "no TLS")
        assert at.house.tokens == []


async def test_who_only_looks_whether_the_port_is_open_is_no_fault(context: ssl.SSLContext) -> None:
    async with door(context) as at:
        _, writer = await asyncio.open_connection("127.0.0.1", at.port)
        writer.close()
        await left(at, "")


async def test_another_authoritys_client_and_one_that_wants_another_name_do_not_get_in(
    context: ssl.SSLContext, authority: Authority
) -> None:
    async with door(context) as at:
        for trusted, name in ((Authority().trusted(), NAME), (authority.trusted(), "other.ns.svc")):
            with pytest.raises(ssl.SSLCertVerificationError):
                await RawClient.open("127.0.0.1", at.port, tls=trusted, name=name)
        client = await RawClient.open("127.0.0.1", at.port, tls=authority.trusted(), name=NAME)
        assert "result" in await client.connect("good")
        await client.close()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
async def test_nothing_older_than_tls_1_2_is_spoken(context: ssl.SSLContext, authority: Authority) -> None:
    async with door(context) as at:
        old = authority.trusted()
        old.minimum_version = ssl.TLSVersion.TLSv1_1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawClient.open("127.0.0.1", at.port, tls=old, name=NAME)
        await left(at, "no TLS")
        old.maximum_version = ssl.TLSVersion.TLSv1_2
        client = await RawClient.open("127.0.0.1", at.port, tls=old, name=NAME)
        assert "result" in await client.connect("good")
        await client.close()


async def test_without_a_certificate_nobody_gets_in_and_with_one_at_once(
    context: ssl.SSLContext, authority: Authority
) -> None:
    async with door(None) as at:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await RawClient.open("127.0.0.1", at.port, tls=authority.trusted(), name=NAME)
        at.context = context
        client = await RawClient.open("127.0.0.1", at.port, tls=authority.trusted(), name=NAME)
        assert "result" in await client.connect("good")
        await client.close()


async def test_what_ends_the_listener_ends_handshakes_and_nobody_who_got_in(
    context: ssl.SSLContext, authority: Authority
) -> None:
    async with door(context) as at:
        inside = await RawClient.open("127.0.0.1", at.port, tls=authority.trusted(), name=NAME)
        await inside.connect("good")
        reader, writer = await asyncio.open_connection("127.0.0.1", at.port)
        await eventually(lambda: len(at.house.clients) == 2, within_s=5, what="it is counted")
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    assert "result" in await inside.ask("ping")
    writer.close()
    await inside.close()


def test_a_key_that_wants_a_password_is_unreadable(tmp_path: Path, authority: Authority) -> None:
    made = authority.issue(NAME)
    put(tmp_path / "tls", made)
    key = to.load_pem_private_key(made.key, None)
    locked = key.private_bytes(to.Encoding.PEM, to.PrivateFormat.PKCS8, to.BestAvailableEncryption(b"secret"))
    (tmp_path / "tls" / "..data" / "tls.key").write_bytes(locked)
    with pytest.raises(certificate.BadPair) as found:
        certificate.read(tmp_path / "tls")
    assert found.value.fault is certificate.Fault.UNREADABLE
