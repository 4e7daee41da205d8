"""Questions to the API server itself, about what no watch may have told."""

from copilot_operator.cluster.client import KubeApi
from copilot_operator.cluster.errors import Absent
from copilot_operator.domain.kinds import SECRET, Kind
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.secrets import as_observed


async def look(api: KubeApi, kind: Kind, namespace: str, name: str) -> Manifest | None:
    """The object as the API server has it now; None if there is none. Of a Secret the digests, as from the cache."""
    try:
        live = await api.get(kind, namespace, name)
    except Absent:
        return None
    return as_observed(live) if kind == SECRET else live
