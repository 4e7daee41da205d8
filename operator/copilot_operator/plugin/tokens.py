"""A tenant's connection token, from its Secret. It is shown to nobody who did not ask for it."""

import base64
import binascii

from copilot_operator.domain.kinds import SECRET
from copilot_operator.plugin.endpoint import Endpoint
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.kube import Kubectl


def token_of(kube: Kubectl, endpoint: Endpoint) -> str:
    """Raises PluginError."""
    secret = kube.seek(SECRET, endpoint.namespace, endpoint.secret)
    where = f"Secret {endpoint.namespace}/{endpoint.secret}, which status.endpoint of tenant {endpoint.tenant} names,"
    if secret is None:
        raise PluginError(f"{where} is not there; see: kubectl copilot explain {endpoint.tenant}")
    try:
        return base64.b64decode((secret.get("data") or {})["token"], validate=True).decode()
    except (KeyError, binascii.Error, UnicodeDecodeError):
        raise PluginError(f"{where} has no key token that can be read") from None


def how_to_get_it(endpoint: Endpoint) -> str:
    """A command that prints it."""
    return f"kubectl get secret {endpoint.secret} -n {endpoint.namespace} -o jsonpath='{{.data.token}}' | base64 -d"
