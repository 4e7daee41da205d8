"""A way to a pool's gateways that the API server has no part in: TLS to an address, such as a load balancer's."""

import asyncio
import base64
import binascii
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from copilot_operator.domain.desired.service import TLS_PORT
from copilot_operator.domain.kinds import SECRET
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import gateway_of
from copilot_operator.plugin.endpoint import has_gateway
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.forward import Streams
from copilot_operator.plugin.kube import Kubectl

CONNECT_S: Final = 10.0
CA: Final = "ca.crt"


@dataclass(frozen=True)
class Direct:
    """``name`` is what the certificate must be for, ``trusts`` says by whom."""

    host: str
    port: int
    name: str
    trusts: str
    context: ssl.SSLContext = field(repr=False)

    @contextlib.asynccontextmanager
    async def __call__(self) -> AsyncIterator[Streams]:
        """A connection, as long as the block lasts. Raises PluginError."""
        where = f"{self.host}:{self.port}"
        try:
            async with asyncio.timeout(CONNECT_S):
                reader, writer = await asyncio.open_connection(
                    self.host, self.port, ssl=self.context, server_hostname=self.name
                )
        except ssl.SSLCertVerificationError as error:
            raise PluginError(
                f"{where} shows a certificate that is not taken: {error.verify_message}. It must be for {self.name} "
                f"(--server-name names another one), and by {self.trusts} (--ca-file names a file of authorities)"
            ) from None
        except ssl.SSLError as error:
            raise PluginError(f"{where} does not speak TLS as it should: {error.reason or error}") from None
        except TimeoutError:
            raise PluginError(f"{where} does not answer within {CONNECT_S:g} s") from None
        except ValueError as error:  # UnicodeError among them
            raise PluginError(f"can't connect to {where}: {self.host} or {self.name} is no name of a host") from error
        except OSError as error:
            raise PluginError(
                f"can't connect to {where}: {error.strerror or error}; a gateway takes connections with TLS if its "
                "pool's condition CertificateReady says that it shows a certificate"
            ) from None
        try:
            yield reader, writer
        finally:
            writer.close()


def direct(kube: Kubectl, pool: Manifest, server: str, name: str, ca_file: Path | None) -> Direct:
    """The way to ``server`` (``HOST:PORT``) for tenants of a pool; what is not said the cluster is asked. Raises
    PluginError."""
    if not has_gateway(pool):
        raise PluginError(f"pool {pool['metadata']['name']} has no gateway, and it is gateways that speak TLS")
    host, port = address(server)
    namespace = pool["metadata"]["namespace"]
    name = name or f"{gateway_of(pool['metadata']['name'])}.{namespace}.svc"
    trusts, context = _trusted_file(ca_file) if ca_file else _trusted_by(kube, pool)
    return Direct(host, port, name, trusts, context)


def address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST``, ``HOST:PORT``, ``[IPV6]:PORT``. Raises PluginError."""
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, str(TLS_PORT)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        host = ""
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise PluginError(f"--server {text}: write HOST:PORT, such as gateway.example.com:{TLS_PORT}")
    return host, int(port)


def _trusted_file(path: Path) -> tuple[str, ssl.SSLContext]:
    try:
        return f"an authority in {path}", ssl.create_default_context(cafile=str(path))
    except ssl.SSLError:
        raise PluginError(f"--ca-file {path}: there is no certificate in PEM in it") from None
    except OSError as error:
        raise PluginError(f"--ca-file {path}: {error.strerror}") from None


def _trusted_by(kube: Kubectl, pool: Manifest) -> tuple[str, ssl.SSLContext]:
    """The authority that made the pool's certificate, if its Secret says so (as cert-manager's do), else this
    machine's."""
    tls = ((pool.get("spec") or {}).get("gateway") or {}).get("tls")
    if not tls:
        return "an authority of this machine", ssl.create_default_context()
    namespace, name = pool["metadata"]["namespace"], tls["secretName"]
    try:
        held = (kube.seek(SECRET, namespace, name) or {}).get("data") or {}
    except PluginError as error:
        raise PluginError(f"{error}\n--ca-file names a file of authorities, and no Secret is read then") from None
    if CA not in held:
        return "an authority of this machine", ssl.create_default_context()
    where = f"{CA} of Secret {namespace}/{name}"
    try:
        text = base64.b64decode(held[CA], validate=True).decode("ascii")
        return f"the authority in {where}", ssl.create_default_context(cadata=text)
    except (ssl.SSLError, binascii.Error, UnicodeDecodeError, ValueError):
        raise PluginError(
            f"{where}: there is no certificate in PEM in it; --ca-file names a file of authorities"
        ) from None
