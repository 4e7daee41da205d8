"""A pool whose servers are copilot-runtime, the server without Node.js."""

from typing import Any

from copilot_operator.domain.kinds import POOL
from tests.support.kube import conditions
from tests.support.place import POOL_NAME, Place

READY_S = 120.0


async def test_it_serves_ends_in_its_pod_when_its_agent_is_told_to_and_goes_on(place: Place, provider: Any) -> None:
    never = {"maxRestartsPerHour": 0}  # the operator does not know of this restart, and would replace the pod
    place.pool(gateway={"replicas": 1, "drainTimeout": "5s"}, sessions={"maxConcurrent": 20}, health=never)
    place.kube.merge(POOL, place.namespace, POOL_NAME, {"spec": {"server": {"runtime": "CopilotRuntime"}}})
    place.tenant("ada")
    await place.until_ready("ada", within_s=READY_S)
    (pod,) = place.pods("ada")
    assert pod["spec"]["containers"][0]["args"][:2] == ["--runtime", "CopilotRuntime"]
    assert await place.say("ada", provider, "NOTE=alder ECHO=`hello`") == ["hello"]

    def restarted() -> bool:
        return '"restarted": true' in place.asked_of_agent("ada", "/restart")

    await place.until(restarted, within_s=60, what="its session is unloaded, and it has ended", about="ada")
    await place.until(lambda: place.running("ada")[0][1] == 1, within_s=60, what="it is started again", about="ada")
    await place.until(
        lambda: conditions(place.pods("ada")[0])["Ready"]["status"] == "True", within_s=60, what="its pod is ready"
    )
    assert [each["metadata"]["uid"] for each in place.pods("ada")] == [pod["metadata"]["uid"]], "in the same pod"
    assert await place.say("ada", provider, "RECALL", resume=True) == ["notes: alder"]
