"""`make picture`: docs/page.png, the status page of the operator that `make demo` has left running, with a drain in it.

A turn is begun with one tenant's server and a restart asked for: the server waits for the turn, and the page says so.
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

from copilot_operator.api.conditions import timestamp
from copilot_operator.domain.kinds import TENANT
from copilot_operator.domain.naming import RESTARTED_AT_ANNOTATION
from tests.cluster.api import Cluster, choose
from tests.cluster.layout import DEFAULT_NAME, ROOT
from tests.demo.__main__ import MARK
from tests.support import model_pod
from tests.support.application import ConnectionData
from tests.support.browser import browser
from tests.support.kube import NAMESPACE, Kube
from tests.support.page_of_cluster import by_plugin
from tests.support.talk import Talk, talk

PICTURE: Final = ROOT / "docs" / "page.png"
MOST_BYTES: Final = 200_000
WIDTH: Final = 1280
SPEAKER: Final = "carol"
LONG: Final = "SLEEP=50 ECHO=`done`"
SHOWN: Final = "document.getElementById('state').textContent === 'live'"
BUSY: Final = f"shown.live[Object.keys(shown.live).find((name) => name.endsWith('/copilot-{SPEAKER}'))].busy === 1"
DRAINS: Final = "document.querySelector('#drains tbody').innerText.includes('1 busy')"
HEIGHT: Final = "Math.ceil(document.documentElement.scrollHeight)"


async def take(cluster: Cluster, kube: Kube, place: str, url: str) -> bytes:
    """PNG of the page at ``url``."""
    connection = ConnectionData.of(kube, place, SPEAKER)
    said = Talk(
        connection.address,
        connection.token,
        f"picture-{os.getpid()}",
        (LONG,),
        provider=model_pod.provider(kube, place),
    )
    with ThreadPoolExecutor(1) as threads:
        talking = threads.submit(talk, cluster, said)
        async with browser() as page:
            await page.open(url, width=WIDTH)
            await page.wait_for(SHOWN)
            await page.wait_for(BUSY)
            change = {"metadata": {"annotations": {RESTARTED_AT_ANNOTATION: timestamp(datetime.now(UTC))}}}
            await asyncio.to_thread(kube.merge, TENANT, place, SPEAKER, change)
            await page.wait_for(DRAINS)
            height = min(1500, await page.evaluate(HEIGHT))
            await page.call(
                "Emulation.setDeviceMetricsOverride", width=WIDTH, height=height, deviceScaleFactor=1, mobile=False
            )
            picture = await page.screenshot()
        await asyncio.to_thread(talking.result)
    if len(picture) > MOST_BYTES:
        raise ValueError(f"the picture has {len(picture)} bytes, more than {MOST_BYTES}")
    return picture


def main() -> int:
    cluster = choose(os.environ.get("COPILOT_TEST_CLUSTER", DEFAULT_NAME))
    kube = Kube.of(cluster.kubeconfig)
    places = [
        each["metadata"]["name"]
        for each in kube.list(NAMESPACE, selector=MARK)
        if not each["metadata"].get("deletionTimestamp")
    ]
    if not places:
        print("no demo runs: make demo", file=sys.stderr)
        return 1
    with by_plugin(cluster.kubeconfig) as url:
        PICTURE.write_bytes(asyncio.run(take(cluster, kube, places[0], url)))
    print(f"wrote {PICTURE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
