"""The real CLI in a network that is left through a proxy only, and where models have certificates of the company's own
authority: what docs/security.md tells to write in spec.server.env does it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.contract.conftest import TOKEN, Client, subject_of
from tests.support.cli import real_cli
from tests.support.eventually import eventually
from tests.support.model import ModelServer

HOST: Final = "models.example.com"  # which no resolver knows: only a proxy leads there
TURN_S: Final = 60.0


def certificate(directory: Path) -> tuple[Path, Path]:
    """Of ``HOST``, by an authority of its own (it is one itself): the certificate, and both with the key (PEM)."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ca, both = directory / "ca.pem", directory / "both.pem"
    ca.write_bytes(text)
    both.write_bytes(text + key.private_bytes(serialization.Encoding.PEM, form, plain))
    return ca, both


async def copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while some := await reader.read(65536):
            writer.write(some)
            await writer.drain()
    writer.close()


class Proxy:
    """``asked``: what CONNECT named. Whatever that is, the connection ends with TLS, and goes to the model."""

    def __init__(self, model: ModelServer, both: Path) -> None:
        self.asked: set[str] = set()
        self._model = model
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(both)

    async def served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            method, target, _ = (await reader.readuntil(b"\r\n\r\n")).decode().split(" ", 2)
            self.asked.add(f"{method} {target}")
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await writer.start_tls(self._tls)
            up, down = await asyncio.open_connection(self._model.host, self._model.port)
            await asyncio.gather(copied(reader, down), copied(up, writer))
        writer.close()


@asynccontextmanager
async def a_turn(directory: Path, base_url: str, **env: str) -> AsyncIterator[Client]:
    """A session, and a message in it; the turn runs."""
    async with ModelServer() as nowhere, real_cli(directory, token=TOKEN, env=env) as cli:
        subject = subject_of(cli, nowhere)
        subject.options["provider"] |= {"baseUrl": base_url}
        client = await subject.client()
        await subject.create(client, "s")
        await client("session.send", sessionId="s", prompt="ECHO=through")
        try:
            yield client
        finally:
            await client.connection.close()


def ended(client: Client) -> Any:
    return next((each for each in client.whole_events("s") if each["type"] in ("session.idle", "session.error")), None)


async def kind_of_end(client: Client) -> str:
    await eventually(lambda: ended(client), within_s=TURN_S, what="the end of the turn")
    return str(ended(client)["type"])


@asynccontextmanager
async def a_proxy(directory: Path) -> AsyncIterator[tuple[Proxy, str, Path, ModelServer]]:
    ca, both = certificate(directory)
    async with ModelServer() as model:
        proxy = Proxy(model, both)
        server = await asyncio.start_server(proxy.served, "127.0.0.1", 0)
        async with server:
            yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", ca, model


async def test_models_behind_a_proxy_with_a_certificate_of_the_companys(tmp_path: Path) -> None:
    async with a_proxy(tmp_path) as (proxy, url, ca, model):
        env = {"HTTPS_PROXY": url, "NO_PROXY": "127.0.0.1", "NODE_EXTRA_CA_CERTS": str(ca)}
        async with a_turn(tmp_path, f"https://{HOST}/v1", **env) as client:
            assert await kind_of_end(client) == "session.idle"
        assert f"CONNECT {HOST}:443" in proxy.asked
        assert model.bearers, "the model was asked"


async def test_who_is_named_in_no_proxy_is_asked_directly(tmp_path: Path) -> None:
    async with a_proxy(tmp_path) as (proxy, url, ca, model):
        env = {"HTTPS_PROXY": url, "HTTP_PROXY": url, "NO_PROXY": "127.0.0.1", "NODE_EXTRA_CA_CERTS": str(ca)}
        async with a_turn(tmp_path, model.base_url, **env) as client:
            assert await kind_of_end(client) == "session.idle"
        assert not [each for each in proxy.asked if "127.0.0.1" in each]
