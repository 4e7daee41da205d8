"""How servers get out of a company's network: its proxy, and the authorities that its certificates are of."""

from typing import Annotated, Any, Final

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.names import DataKey, ObjectName
from copilot_operator.api.references import is_http_url
from copilot_operator.api.rules import LIST_SET, Rule

PROXY_VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
CA_VARIABLE: Final = "NODE_EXTRA_CA_CERTS"

# Whoever may read a pool would read it, and its revisions, and the Deployments of its servers.
NO_PASSWORD: Final = Rule(
    "!self.contains('@')",
    "write no user and no password here: leave proxy out, and write HTTP_PROXY, HTTPS_PROXY and NO_PROXY into "
    "server.env, what holds a password with valueFrom.secretKeyRef",
    lambda text: "@" not in text,
)
IS_PROXY_URL: Final = Rule(
    "isURL(self) && url(self).getScheme() in ['http', 'https'] && url(self).getHostname() != ''",
    "write the proxy's URL, such as http://proxy.example.com:3128",
    is_http_url,
)
PROXY_NEEDS_URL: Final = Rule(
    "has(self.httpProxy) || has(self.httpsProxy)",
    "write httpProxy, httpsProxy or both, or leave proxy out: noProxy alone keeps nobody from a proxy",
    lambda proxy: proxy.http_proxy is not None or proxy.https_proxy is not None,
)

ProxyUrl = Annotated[str, Field(min_length=1, max_length=2048), NO_PASSWORD, IS_PROXY_URL]


def _not_in_env(parent: str, names: tuple[str, ...], given: str, message: str) -> Rule:
    """Of a server: without variables of ``names`` where the field ``parent`` (``given`` as an attribute) sets them."""

    def holds(server: Any) -> bool:
        return getattr(server, given) is None or not any(each.name in names for each in server.env)

    cel = f"!has(self.{parent}) || !has(self.env) || self.env.all(e, !(e.name in {list(names)!r}))"
    return Rule(cel, message, holds, field_path=".env")


ONE_SOURCE_OF_PROXY: Final = _not_in_env(
    "proxy",
    tuple(spelled for name in PROXY_VARIABLES for spelled in (name, name.lower())),
    "proxy",
    "leave HTTP_PROXY, HTTPS_PROXY and NO_PROXY out, in capitals or not, or leave proxy out: it sets them all",
)
ONE_SOURCE_OF_CA: Final = _not_in_env(
    "caBundleConfigMapRef",
    (CA_VARIABLE,),
    "ca_bundle_config_map_ref",
    f"leave {CA_VARIABLE} out, or leave caBundleConfigMapRef out: it sets it",
)


class ProxySpec(Model):
    """The proxy that leads out of the network. Set as HTTP_PROXY, HTTPS_PROXY and NO_PROXY, in capitals and not. If
    only one is given, the CLI takes it for http:// and https://."""

    rules = (PROXY_NEEDS_URL,)

    http_proxy: ProxyUrl | None = None
    """URL of the proxy for http://. Without user and password: those are for a Secret, by server.env."""
    https_proxy: ProxyUrl | None = None
    """URL of the proxy for https://, mostly an http:// one itself. Without user and password, like httpProxy."""
    no_proxy: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[^\s,]+$")], ...],
        Field(max_length=64),
        LIST_SET,
    ] = ()
    """What is asked directly: names (example.com: with all below; .example.com), addresses and ranges (10.0.0.0/8).
    The server's own pod (localhost, 127.0.0.1, ::1) and Services by their full names (.svc, and the cluster's domain)
    always are."""


class CABundleRef(Model):
    """One key of a ConfigMap in the same namespace, with certificates."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey = "ca.crt"
    """Key that holds the certificates, in PEM."""
