"""Plain Kubernetes: what the operator makes for a tenant, as somebody would write it who has no operator. Pure."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

from copilot_operator.domain.desired import pool
from copilot_operator.domain.desired.claim import claim
from copilot_operator.domain.desired.deployment import TOKEN_ENV, deployment
from copilot_operator.domain.desired.service import CLI_PORT, host, service
from copilot_operator.domain.kinds import GROUP
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import MANAGED_BY_LABEL
from copilot_operator.domain.snapshot import TenantSnapshot
from copilot_operator.export.servers import Server

TOKEN_KEY: Final = "token"


def manifests(servers: Sequence[Server]) -> list[Manifest]:
    """What their pools have in common once, then the objects of each server."""
    pools = {(each.snapshot.namespace, each.snapshot.pool_name): each for each in servers}
    made = [obj for each in pools.values() for obj in _of_pool(each)]
    return made + [obj for each in servers for obj in of_server(each.snapshot)]


def of_server(snapshot: TenantSnapshot) -> list[Manifest]:
    """The claim, the Service and the Deployment."""
    return [_plain(claim(snapshot)), _plain(service(snapshot)), _plain(standalone(snapshot))]


def standalone(snapshot: TenantSnapshot) -> Manifest:
    """The Deployment. A new pod waits for the state directory of the old one, so that one must go first."""
    assert snapshot.spec
    made = deployment(snapshot)
    made["spec"]["strategy"] = {"type": "Recreate"}
    made["spec"]["replicas"] = 0 if snapshot.spec.suspended else 1
    template = made["spec"]["template"]["spec"]
    for container in (*template["initContainers"], *template["containers"]):
        for variable in container["env"]:
            if variable["name"] == TOKEN_ENV:
                variable["valueFrom"] = {"secretKeyRef": {"name": snapshot.server, "key": TOKEN_KEY}}
    return made


def instructions(servers: Sequence[Server]) -> list[str]:
    """How to make the Secrets that the manifests name, and what is lost: lines for people."""
    lines = ["Make these Secrets before you apply it. Pods do not start before they are there."]
    for each in servers:
        snapshot = each.snapshot
        address = host(snapshot)
        lines += [
            "",
            f"kubectl -n {snapshot.namespace} create secret generic {snapshot.server} \\",
            f"  --from-literal=host={address} --from-literal=port={CLI_PORT} \\",
            f'  --from-literal=cliUrl={address}:{CLI_PORT} --from-literal={TOKEN_KEY}="$(openssl rand -hex 32)"',
        ]
    for namespace, name, key in sorted(_named(servers)):
        lines += ["", f"Secret {name} of namespace {namespace}, key {key}: bring it, or apply what makes it."]
    for namespace, name, key in sorted(_bundles(servers)):
        lines += ["", f"ConfigMap {name} of namespace {namespace}, key {key}: certificates (PEM); bring it."]
    notes = list(dict.fromkeys(note for each in servers for note in each.notes))
    return lines + ([""] + [f"Note: {note}." for note in notes] if notes else [])


def _named(servers: Sequence[Server]) -> set[tuple[str, str, str]]:
    """Secrets besides those with tokens: namespace, name, key."""
    found = set()
    for each in servers:
        for container in deployment(each.snapshot)["spec"]["template"]["spec"]["containers"]:
            for variable in container["env"]:
                reference = (variable.get("valueFrom") or {}).get("secretKeyRef")
                if reference and variable["name"] != TOKEN_ENV:
                    found.add((each.snapshot.namespace, reference["name"], reference["key"]))
    return found


def _bundles(servers: Sequence[Server]) -> set[tuple[str, str, str]]:
    """ConfigMaps with certificates: namespace, name, key."""
    found = set()
    for each in servers:
        assert each.snapshot.pool
        if ref := each.snapshot.pool.spec.server.ca_bundle_config_map_ref:
            found.add((each.snapshot.namespace, ref.name, ref.key))
    return found


def _of_pool(server: Server) -> Iterator[Manifest]:
    snapshot = server.pool
    assert snapshot.spec
    yield _plain(pool.service_account(snapshot))
    if snapshot.spec.network_policy.enabled:
        policy = pool.network_policy(snapshot)
        operator = pool.operator_peer(snapshot.settings)
        policy["spec"]["ingress"] = [rule for rule in policy["spec"]["ingress"] if operator not in rule["from"]]
        yield _plain(policy)


def _plain(manifest: Manifest) -> Manifest:
    """Without what says that it is an operator's: nobody watches it."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "ownerReferences"}
    kept = {key: value for key, value in metadata.pop("annotations", {}).items() if not key.startswith(f"{GROUP}/")}
    made = _unmanaged(manifest | {"metadata": metadata | ({"annotations": kept} if kept else {})})
    assert isinstance(made, dict)
    return made


def _unmanaged(node: Any) -> Any:
    """Without the label that an operator knows its own objects by, also where it is selected by."""
    if isinstance(node, dict):
        return {key: _unmanaged(value) for key, value in node.items() if key != MANAGED_BY_LABEL}
    return [_unmanaged(each) for each in node] if isinstance(node, list) else node
