"""Events: one per transition, written by ourselves, since kopf's only work inside its own handlers.

They expire after an hour, so nothing depends on them: a failed write is logged and forgotten.
"""

import logging
import uuid
from datetime import datetime

from copilot_operator.api.conditions import timestamp
from copilot_operator.cluster.client import FIELD_MANAGER, KubeApi
from copilot_operator.cluster.errors import ApiError, Ending
from copilot_operator.domain.kinds import EVENT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.status import Event

log = logging.getLogger(__name__)
MAX_MESSAGE = 1024  # the API server's limit for a core/v1 Event


async def write_event(api: KubeApi, regarding: Manifest, event: Event, now: datetime) -> None:
    metadata = regarding["metadata"]
    moment = timestamp(now)
    manifest = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            "name": f"{metadata['name'][:200].rstrip('-.')}.{uuid.uuid4().hex[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion", ""),
        },
        "type": event.type,
        "reason": event.reason,
        "message": event.message[:MAX_MESSAGE],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 1,
    }
    try:
        await api.create(EVENT, metadata["namespace"], manifest)
    except Ending:
        return
    except ApiError as error:
        log.warning("event not written", extra={"error": str(error), "reason": event.reason})
