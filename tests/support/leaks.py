"""Whether a secret got out: what Secrets of a namespace hold is looked for in all else that the API server keeps there,
and in what pods write."""

import base64
import json
from collections.abc import Iterator, Mapping
from functools import cache
from http.client import HTTPException
from itertools import chain
from typing import Any, Final

from copilot_operator.domain.github_app import SERIAL_KEY
from copilot_operator.domain.kinds import POD, SECRET
from tests.support.kube import Kube, KubeError, Object

NO_SECRET_KEYS: Final = frozenset(
    {"host", "port", "tlsPort", "cliUrl", "namespace", SERIAL_KEY, "clientId", "tls.crt", "ca.crt"}
)
"""Of connection Secrets, minted tokens, grants and certificates: anybody may know those."""
PUBLIC: Final = frozenset(
    {"baseUrl", "base_url", "type", "wireApi", "model"}
)  # of a credential in a gateway's settings
LEAST: Final = 12
"""Characters of what counts as secret: what is shorter (``none``, a test's key) stands everywhere."""
LINE: Final = 40
"""Characters of a line of a private key that tell it from others."""


def canaries(kube: Kube, namespace: str) -> dict[str, str]:
    """Secret texts, and where they are from (``SECRET/KEY``)."""
    found: dict[str, str] = {}
    for secret in kube.list(SECRET, namespace):
        data = (secret.get("data") or {}).items()
        values = {key: base64.b64decode(encoded).decode(errors="replace") for key, encoded in data}
        found |= texts_of(secret["metadata"]["name"], values)
    return found


def texts_of(secret: str, values: Mapping[str, str]) -> dict[str, str]:
    """The same of one Secret, by its name and values."""
    found: dict[str, str] = {}
    for key, text in values.items():
        if key not in NO_SECRET_KEYS:
            found |= dict.fromkeys(secret_texts(text), f"{secret}/{key}")
    return found


def leaks_of(kube: Kube, namespace: str, secret: Mapping[str, str]) -> list[str]:
    """Which of these are in what the API server keeps in the namespace, or in the logs of its pods."""
    return leaks(secret, chain(objects(kube, namespace), logs(kube, namespace)))


def secret_texts(text: str) -> Iterator[str]:
    """What of a Secret's value must be nowhere else: itself, and as it would be in a Secret; of a private key its
    lines; of a gateway's settings the credentials in them."""
    if text.startswith("{"):
        for value in _credentials(json.loads(text), inside=False):
            yield from secret_texts(value)
        return
    for line in text.split():
        if len(line) >= (LINE if "\n" in text.strip() else LEAST) and "://" not in line:
            yield line
            yield base64.b64encode(line.encode()).decode().rstrip("=")


def _credentials(value: Any, *, inside: bool) -> Iterator[str]:
    if isinstance(value, str) and inside:
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if key not in PUBLIC:
                yield from _credentials(each, inside=inside or key == "credential")
    elif isinstance(value, list):
        for each in value:
            yield from _credentials(each, inside=inside)


def leaks(secret: Mapping[str, str], texts: Iterator[tuple[str, str]]) -> list[str]:
    """Which secret is in which of the texts (name, text); secrets by where they are from, never themselves."""
    return sorted(f"{origin} is in {name}" for name, text in texts for known, origin in secret.items() if known in text)


def objects(kube: Kube, namespace: str) -> Iterator[tuple[str, str]]:
    """Whatever the API server keeps in a namespace, Events among it, but Secrets: (what it is, all of it)."""
    for path, resource in _listable(kube):
        try:
            items: list[Object] = kube.request("GET", f"{path}/namespaces/{namespace}/{resource}")["items"]
        except KubeError as error:
            if error.status in (404, 405):
                continue
            raise
        for item in items:
            yield f"{resource} {item['metadata'].get('name')}", json.dumps(item, ensure_ascii=False)


@cache
def _listable(kube: Kube) -> list[tuple[str, str]]:
    """Path of a group's preferred version, and the resource's name in it."""
    groups = kube.request("GET", "/apis")["groups"]
    return [
        (path, resource["name"])
        for path in ["/api/v1", *(f"/apis/{group['preferredVersion']['groupVersion']}" for group in groups)]
        for resource in kube.request("GET", path)["resources"]
        if resource["namespaced"] and "list" in resource["verbs"] and (path, resource["name"]) != SECRETS
    ]


SECRETS: Final = ("/api/v1", SECRET.plural)


def logs(kube: Kube, namespace: str) -> Iterator[tuple[str, str]]:
    """What the containers of all pods wrote, those that ended among them."""
    for pod in kube.list(POD, namespace):
        name, status = pod["metadata"]["name"], pod.get("status") or {}
        for each in [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]:
            for previous in ["false", "true"][: 1 + bool(each.get("restartCount"))]:
                query = {"container": each["name"], "previous": previous, "limitBytes": str(16 << 20)}
                try:
                    said = kube.text(POD.path(namespace, name, "log"), query)
                except KubeError as error:
                    if error.status in (400, 404) or error.status >= 500:  # it has not begun, or is gone, or its node
                        continue
                    raise
                except (OSError, HTTPException):  # it went while it was read
                    continue
                yield f"the log of {name}, {each['name']}", said
