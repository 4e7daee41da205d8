"""`make bench-page`: what a viewer of the status page costs an operator with 2,000 tenants, as one JSON line.

``hold_ms`` is the longest time, by the thread's own clock, for which the event loop served nobody else.
"""

import asyncio
import json
import time
from typing import Final

from copilot_operator.page import snapshot
from tests.support.status_page import World, many

TENANTS: Final = 2000
AGAIN: Final = 10


async def main() -> None:
    setattr(snapshot, "FRESH_S", -1.0)  # noqa: B010 - each question makes a document, as if viewers came each second
    world, hold_s = World(), 0.0
    many(world, TENANTS)
    snapshots = world.snapshots()

    async def somebody_else() -> None:
        nonlocal hold_s
        while True:
            began = time.thread_time()
            await asyncio.sleep(0)
            hold_s = max(hold_s, time.thread_time() - began)

    began = time.process_time()
    document = await snapshots.document()
    first_s, began = time.process_time() - began, time.process_time()
    for _ in range(AGAIN):
        await snapshots.document()
    again_s = (time.process_time() - began) / AGAIN
    other = asyncio.create_task(somebody_else())
    await world.snapshots().document()
    other.cancel()
    figures = {
        "bench": "page",
        "tenants": TENANTS,
        "first_cpu_s": round(first_s, 3),
        "again_cpu_s": round(again_s, 3),
        "hold_ms": round(hold_s * 1000, 1),
        "bytes": len(document.body),
        "sent_bytes": len(document.packed),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    asyncio.run(main())
