"""A gateway's TLS port before a real CLI, and what becomes of it while its certificate is renewed."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.conftest import TOKEN
from tests.contract.gateway_bed import ADMIN_KEY, Gateway, gateway_before, token_of
from tests.support.agent import http_get
from tests.support.certificates import Authority, Made, put
from tests.support.cli import real_cli
from tests.support.eventually import eventually
from tests.support.gateway import RawClient
from tests.support.model import ModelServer

NAME: Final = "copilotpool-saas-gateway.apps.svc"
SOON_S: Final = 20.0  # it looks for a changed certificate every second
TURN_S: Final = 60.0


@dataclass
class Bed:
    gateway: Gateway
    authority: Authority
    made: Made

    def put(self, made: Made) -> None:
        put(self.gateway.tls, made)

    async def client(self, authority: Authority | None = None) -> RawClient:
        """One that is authenticated."""
        trusted = (authority or self.authority).trusted()
        client = await RawClient.open(self.gateway.host, self.gateway.tls_port, tls=trusted, name=NAME)
        assert "result" in await client.connect(token_of("alice"))
        client.answer_s = TURN_S
        return client

    async def serial(self) -> Any:
        """Of the certificate that who comes now is shown."""
        context = self.authority.trusted()
        _, writer = await asyncio.open_connection(
            self.gateway.host, self.gateway.tls_port, ssl=context, server_hostname=NAME
        )
        writer.close()
        return writer.get_extra_info("peercert")["serialNumber"]

    async def told(self) -> dict[str, Any]:
        """What the operator hears of it."""
        found: dict[str, Any] = (await self.gateway.tells_all("/tenants"))["tls"]
        return found

    async def metric(self, name: str) -> float:
        _, text = await http_get(self.gateway.admin_port, "/metrics")
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))


@pytest.fixture
async def bed(tmp_path: Path) -> AsyncIterator[Bed]:
    authority = Authority()
    made = authority.issue(NAME)
    put(tmp_path / "tls", made)
    async with (
        ModelServer() as model,
        real_cli(tmp_path, token=TOKEN) as cli,
        gateway_before(cli, tmp_path, {"alice": model}) as gateway,
    ):
        yield Bed(gateway, authority, made)


async def turn(client: RawClient, id: str, text: str) -> str:
    """What the model has said."""
    before = client.types(id).count("session.idle")
    await client("session.send", sessionId=id, prompt=f"ECHO={text}")
    await eventually(lambda: client.types(id).count("session.idle") > before, within_s=TURN_S, what="the turn ends")
    said = [event["data"]["content"] for event in client.events(id) if event["type"] == "assistant.message"]
    return str(said[-1])


async def test_a_conversation_through_it_goes_on_while_the_certificate_is_renewed_and_a_broken_one_refused(
    bed: Bed,
) -> None:
    client = await bed.client()
    await client("session.create", sessionId="s", model="m")
    assert await turn(client, "s", "first") == "first"
    old = await bed.serial()

    bed.put(bed.authority.issue(NAME, lasts=timedelta(days=2)))

    async def renewed() -> bool:
        return bool(await bed.serial() != old)

    await eventually(renewed, within_s=SOON_S, what="who comes now is shown the new one")
    new = await bed.serial()
    assert await turn(client, "s", "second") == "second", "who has come before goes on"

    bed.put(replace(bed.made, key=bed.authority.issue(NAME).key))

    async def refused() -> bool:
        return (await bed.told()).get("fault") == "Mismatched"

    await eventually(refused, within_s=SOON_S, what="it says that it does not use it")
    assert await bed.serial() == new
    assert await bed.metric("copilot_gateway_certificates_refused_total") >= 1
    assert await bed.metric("copilot_gateway_certificate_expiry_timestamp_seconds") == (await bed.told())["notAfter"]
    assert await turn(client, "s", "third") == "third"

    bed.put(bed.authority.issue(NAME))

    async def mended() -> bool:
        return "fault" not in await bed.told()

    await eventually(mended, within_s=SOON_S, what="the next one is used")
    assert await bed.serial() not in (old, new)
    await client.close()


async def test_only_who_trusts_its_authority_gets_in_and_the_other_port_serves_as_ever(bed: Bed) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        await bed.client(Authority())
    plain = await RawClient.open(bed.gateway.host, bed.gateway.port)
    assert "result" in await plain.connect(token_of("alice"))
    await plain.close()


async def test_half_a_handshake_ends_and_keeps_nobody_out(bed: Bed) -> None:
    reader, writer = await asyncio.open_connection(bed.gateway.host, bed.gateway.tls_port)
    writer.write(bytes.fromhex("16030102"))
    await (await bed.client()).close()
    async with asyncio.timeout(60):
        assert await reader.read() == b""
    writer.close()


async def test_a_gateway_without_its_certificate_serves_plainly_and_with_tls_once_it_comes(tmp_path: Path) -> None:
    authority = Authority()
    (tmp_path / "tls").mkdir()
    async with (
        ModelServer() as model,
        real_cli(tmp_path, token=TOKEN) as cli,
        gateway_before(cli, tmp_path, {"alice": model}) as gateway,
    ):
        bed = Bed(gateway, authority, authority.issue(NAME))
        assert await bed.told() == {"fault": "Missing"}
        plain = await RawClient.open(gateway.host, gateway.port)
        assert "result" in await plain.connect(token_of("alice"))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await bed.client()
        bed.put(bed.made)

        async def comes() -> bool:
            return "notAfter" in await bed.told()

        await eventually(comes, within_s=SOON_S, what="it has the certificate")
        await (await bed.client()).close()
        await plain.close()
    assert ADMIN_KEY not in gateway.tail(10_000)
    assert "PRIVATE" not in gateway.tail(10_000)
