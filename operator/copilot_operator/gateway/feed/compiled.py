"""From Secrets and pods to the files that a gateway is configured with (``gateway/config.py``). Pure.

    settings Secret   pool.json; shards.json {"serverTokens": [names], "tenants": [names]};
                      pods.json {"servers": selector}; admin.key
    serverTokens      by server name: its connection token
    tenants           by any key: JSON {"tokens": [sha256 of a tenant's token], and the fields of a TenantFile}

A server is what its pod is: Serving while its CLI runs and nothing keeps new work away from it, Starting from its
process's start until kubelet has found that it answers, Draining while it ends or is cordoned, Stopped without a pod.
That it answers, the gateway finds out by itself: with one that starts sooner than kubelet, which looks once a second.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

SERVER_PORT: Final = 4321
TENANT_LABEL: Final = "copilot-operator.io/tenant"
CORDONED_LABEL: Final = "copilot-operator.io/cordoned"
CONTAINER: Final = "copilot"
SERVING, STARTING, DRAINING, STOPPED = "Serving", "Starting", "Draining", "Stopped"

Values = Mapping[str, str]  # of a Secret, decoded


class Incomplete(Exception):
    """What was read so far is no configuration; the message says what is missing or wrong."""


@dataclass(frozen=True, slots=True)
class SeenPod:
    """What a gateway keeps of a pod. ``server`` that it was made for, "" if it is no server's; ``state`` of that."""

    name: str
    ip: str
    server: str
    state: str
    uid: str = ""


def seen(pod: Mapping[str, Any]) -> SeenPod:
    """Of a pod as the API server tells it (core/v1)."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    labels = metadata.get("labels") or {}
    ip = status.get("podIP") or ""
    kept_off = "deletionTimestamp" in metadata or labels.get(CORDONED_LABEL) == "true"
    state = _state(status) if ip else STOPPED
    if kept_off:
        state = DRAINING if state == SERVING else STOPPED
    return SeenPod(metadata["name"], ip, _server_of(metadata, labels), state, metadata.get("uid") or "")


def _state(status: Mapping[str, Any]) -> str:
    """Of a server that nothing is kept from."""
    containers = status.get("containerStatuses") or ()
    cli: Mapping[str, Any] = next((each for each in containers if each.get("name") == CONTAINER), {})
    if "running" not in (cli.get("state") or {}):
        return STOPPED
    return SERVING if cli.get("started") else STARTING


def _server_of(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    """Anybody who may make pods may label them; those that a server's Deployment made are its own."""
    if not (label := labels.get(TENANT_LABEL)):
        return ""
    server = f"copilot-{label}"
    owners = metadata.get("ownerReferences") or ()
    made = any(each.get("kind") == "ReplicaSet" and each["name"].rpartition("-")[0] == server for each in owners)
    return server if made else ""


@dataclass
class Seen:
    """All that is known: the settings, the Secrets that they name, and the pods of servers by name.

    Until pods have been ``listed`` that a server has none means nothing.
    """

    settings: Values | None = None
    secrets: dict[str, Values] = field(default_factory=dict, repr=False)
    pods: dict[str, SeenPod] = field(default_factory=dict)
    listed: bool = False


def shards_of(settings: Values) -> tuple[list[str], list[str]]:
    """Names of the Secrets with servers' tokens, and of those with tenants. Raises Incomplete."""
    found = _json(settings, "shards.json")
    return _names(found, "serverTokens"), _names(found, "tenants")


def selector_of(settings: Values) -> str:
    """Label selector of the pods of servers. Raises Incomplete."""
    found = _json(settings, "pods.json")
    if not isinstance(found, dict) or not isinstance(found.get("servers"), str):
        raise Incomplete("pods.json: servers is no label selector")
    return str(found["servers"])


def compiled(known: Seen) -> dict[str, bytes]:
    """The files by name. Raises Incomplete; no value of a Secret is in its message."""
    if known.settings is None:
        raise Incomplete("the settings have not been read yet")
    token_shards, tenant_shards = shards_of(known.settings)
    if missing := [name for name in (*token_shards, *tenant_shards) if name not in known.secrets]:
        raise Incomplete(f"Secrets that have not been read yet: {', '.join(missing)}")
    if not known.listed:  # else every server would be Stopped, and its sessions lost, until the list comes
        raise Incomplete("the pods of servers have not been listed yet")
    tokens = {server: token for name in token_shards for server, token in known.secrets[name].items()}
    pool = _json(known.settings, "pool.json")
    if not isinstance(pool, dict):
        raise Incomplete("pool.json is no object")
    files: dict[str, Any] = {
        "pool.json": pool | {"adminKey": known.settings.get("admin.key")},
        "servers.json": _servers(tokens, known.pods.values()),
        "tenants.json": _tenants(known.secrets[name] for name in tenant_shards),
    }
    return {name: json.dumps(content, sort_keys=True).encode() for name, content in files.items()}


def _servers(tokens: Values, pods: Iterable[SeenPod]) -> dict[str, Any]:
    """Of two pods of a server the one that serves counts, then the one that drains."""
    order = {STOPPED: 0, STARTING: 1, DRAINING: 2, SERVING: 3}
    best: dict[str, SeenPod] = {}
    for pod in sorted(pods, key=lambda each: (order[each.state], each.name)):
        best[pod.server] = pod
    found: dict[str, Any] = {}
    for server, token in tokens.items():
        its = best.get(server)
        state = its.state if its else STOPPED
        place = {"host": its.ip, "port": SERVER_PORT, "pod": its.uid} if its and state != STOPPED else {}
        found[server] = {"state": state, "token": token, **place}
    return found


def _tenants(shards: Iterable[Values]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for shard in shards:
        for key in shard:
            entry = _json(shard, key)
            tokens = entry.pop("tokens", None) if isinstance(entry, dict) else None
            if not isinstance(tokens, list):
                raise Incomplete(f"tenant {key}: no list of tokens")
            found |= dict.fromkeys(map(str, tokens), entry)
    return found


def _json(values: Values, key: str) -> Any:
    try:
        return json.loads(values[key])
    except KeyError:
        raise Incomplete(f"{key} is missing") from None
    except ValueError:
        raise Incomplete(f"{key} is no JSON") from None


def _names(found: Any, key: str) -> list[str]:
    names = found.get(key) if isinstance(found, dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise Incomplete(f"shards.json: {key} is no list of names")
    return names
