"""The floor: a bare client applies what the operator would, until the last server is Available.

``python3 -m tests.scale.floor N`` in the cluster's network; prints one JSON object.
"""

import asyncio
import json
import sys

from copilot_operator.domain.kinds import DEPLOYMENT
from copilot_operator.domain.manifest import Manifest
from tests.scale.client import Countdown, apply_all, client, condition, make_namespace, say, watching
from tests.scale.objects import TENANTS_IN, children


async def measure(count: int) -> dict[str, float]:
    common, each = children(count)
    available = Countdown(count, "servers are Available")

    def seen(_: str, deployment: Manifest) -> None:
        if condition(deployment, "Available") == "True":
            available.tell(deployment["metadata"]["name"])

    async with client() as api:
        await make_namespace(api, TENANTS_IN)
        async with watching(api, DEPLOYMENT, TENANTS_IN, seen):
            clock = asyncio.get_running_loop().time
            started = clock()
            await apply_all(api, [common])
            await apply_all(api, each)
            applied = clock() - started
            await available.wait()
    floor_s = available.last_at - started
    say(f"floor: {count} applied in {applied:.1f} s, Available in {floor_s:.1f} s")
    return {"floor_s": floor_s, "floor_applied_s": applied}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(int(sys.argv[1])))))
