"""`make demo`: from a checkout to conversations with three tenants' own Copilot CLI servers.

Ends with one line, ``DEMO OK tenants=3 turns=<n> lost=0 seconds=<n>``, or with what went wrong and exit code 1.
"""

import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from copilot_operator.domain.kinds import POOL, TENANT
from tests.cluster.api import Cluster, choose
from tests.cluster.layout import DEFAULT_NAME
from tests.cluster.process import ClusterError
from tests.demo import models
from tests.demo.dump import dump
from tests.demo.models import Model
from tests.demo.story import DemoFailed, Story, wait_for
from tests.support.application import ConnectionData
from tests.support.installation import bring_images, build_images, install_operator, sample
from tests.support.kube import NAMESPACE, Kube, KubeError, is_ready
from tests.support.talk import Application, Talk, TalkFailed

PLACE: Final = "copilot-demo"
MARK: Final = "copilot-demo/run"  # label of the namespaces of all runs
TENANTS: Final = ("alice", "bob", "carol")
POOL_NAME: Final = "saas"
SLEEPER: Final = "bob"
READY_S: Final = 90.0
RECALL: Final = "RECALL: which NOTE words have I told you? Answer with these words only."


@dataclass(frozen=True)
class Scene:
    """What the acts share."""

    story: Story
    cluster: Cluster
    kube: Kube
    application: Application
    run: str
    place: str  # namespace

    def word(self, tenant: str) -> str:
        """What a tenant tells its server and asks for later."""
        return f"{tenant}-{self.run}"


def have_cluster(story: Story) -> Scene:
    cluster = choose(os.environ.get("COPILOT_TEST_CLUSTER", DEFAULT_NAME))
    with story.step(f"cluster ({cluster.kind})"), ThreadPoolExecutor() as pool:
        building = pool.submit(build_images, cluster)  # waits for the network as much as the cluster's own build does
        cluster.up()
        building.result()
    kube, run = Kube.of(cluster.kubeconfig), uuid.uuid4().hex[:8]
    place = f"{PLACE}-{run}" if kube.find(NAMESPACE, "", PLACE) else PLACE
    # The client starts now: importing the SDK takes seconds, which pass while images come.
    return Scene(story, cluster, kube, Application(cluster), run, place)


def install(scene: Scene) -> None:
    for former in scene.kube.list(NAMESPACE, selector=MARK):
        # Nobody waits for it: with pods that may take long to end, a namespace may take minutes.
        scene.kube.delete(NAMESPACE, "", former["metadata"]["name"])
    with scene.story.step("images"):
        mark = bring_images(scene.cluster)
    with scene.story.step("operator (two replicas, with its own RBAC)"):
        install_operator(scene.kube, mark)


def start_tenants(scene: Scene) -> Model:
    kube, story = scene.kube, scene.story
    metadata = {"name": scene.place, "labels": {MARK: scene.run}}
    kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    model = models.choose(story, kube, scene.place)
    story.say("kubectl apply -f manifests/samples/pool.yaml -f manifests/samples/tenants.yaml")
    kube.kubectl("-n", scene.place, "apply", "-f", str(sample("pool.yaml")))
    if model.auth:
        kube.merge(POOL, scene.place, POOL_NAME, {"spec": {"auth": model.auth}})
    kube.kubectl("-n", scene.place, "apply", "-f", str(sample("tenants.yaml")))
    with story.step("tenants Ready"):
        for tenant in TENANTS:
            wait_ready(scene, tenant)
    models.wait_for_model(kube, scene.place)
    return model


def wait_ready(scene: Scene, tenant: str) -> None:
    wait_for(
        lambda: is_ready(scene.kube.get(TENANT, scene.place, tenant)),
        within_s=READY_S,
        what=f"tenant {tenant} is Ready",
    )


def servers_ready(scene: Scene) -> int:
    status = scene.kube.get(POOL, scene.place, POOL_NAME).get("status") or {}
    return int(status.get("readyReplicas") or 0)


def converse(scene: Scene, model: Model, tenant: str, *prompts: str, resume: bool = False) -> list[str]:
    """Talk to a tenant's server through the official SDK; all an application has is the connection Secret."""
    connection = ConnectionData.of(scene.kube, scene.place, tenant)
    what = Talk(
        url=connection.address,  # by address, since this client is no pod: it has no cluster DNS
        token=connection.token,
        session=f"demo-{tenant}",
        prompts=prompts,
        resume=resume,
        model=model.name,
        provider=model.provider,
    )
    answers = scene.application.talk(what)
    for prompt, answer in zip(prompts, answers, strict=True):
        scene.story.say(f"  {tenant}: {prompt}")
        scene.story.say(f"  {tenant}'s server: {answer}")
    return answers


def talk_to_all(scene: Scene, model: Model) -> list[str]:
    """A two-turn conversation with each tenant's server at the same time; returns the answers to the second turns."""
    prompts = {
        tenant: (f"Please remember NOTE={scene.word(tenant)} and say just ECHO=`noted`.", RECALL) for tenant in TENANTS
    }
    with scene.story.step("conversations"), ThreadPoolExecutor(len(TENANTS)) as threads:
        talks = [threads.submit(converse, scene, model, tenant, *prompts[tenant]) for tenant in TENANTS]
        return [done.result()[-1] for done in talks]


def sleep_and_wake(scene: Scene, model: Model) -> str:
    """Suspend a tenant, wake it, ask again; returns the answer."""
    kube = scene.kube
    with scene.story.step(f"{SLEEPER} suspended: no pod, the volume stays"):
        kube.merge(TENANT, scene.place, SLEEPER, {"spec": {"suspended": True}})
        wait_for(
            lambda: (kube.get(TENANT, scene.place, SLEEPER).get("status") or {}).get("phase") == "Suspended",
            within_s=READY_S,
            what=f"tenant {SLEEPER} is Suspended",
        )
    with scene.story.step(f"{SLEEPER} awake again"):
        kube.merge(TENANT, scene.place, SLEEPER, {"spec": {"suspended": False}})
        wait_for(
            lambda: (kube.get(TENANT, scene.place, SLEEPER).get("status") or {}).get("phase") == "Ready",
            within_s=READY_S,
            what=f"tenant {SLEEPER} is Ready again",
        )
    return converse(scene, model, SLEEPER, RECALL, resume=True)[-1]


def play(scene: Scene) -> str:
    """All acts; returns the last line. Raises DemoFailed if an answer does not know what was said before."""
    model = start_tenants(scene)
    heard = dict(zip(TENANTS, talk_to_all(scene, model), strict=True))
    woken = sleep_and_wake(scene, model)
    remembered = [(tenant, answer) for tenant, answer in [*heard.items(), (SLEEPER, woken)]]
    lost = [tenant for tenant, answer in remembered if scene.word(tenant) not in answer]
    wait_for(lambda: servers_ready(scene) == len(TENANTS), within_s=30, what="the pool counts its servers")
    print(f"\n$ kubectl -n {scene.place} get cpool,ctenant -o wide")
    print(scene.kube.kubectl("-n", scene.place, "get", "cpool,ctenant", "-o=wide"))
    if lost:
        raise DemoFailed(f"lost the conversation of: {', '.join(lost)}")
    return f"DEMO OK tenants={len(TENANTS)} turns={2 * len(TENANTS) + 1} lost=0 seconds={scene.story.seconds:.0f}"


def main() -> int:
    story = Story()
    scene: Scene | None = None
    try:
        scene = have_cluster(story)
        install(scene)
        last_line = play(scene)
    except (DemoFailed, ClusterError, KubeError, TalkFailed, OSError) as error:
        story.say(f"FAILED: {error}")
        if scene:
            dump(scene.kube, scene.place)
            look_around(scene)
        return 1
    finally:
        if scene:
            scene.application.close()
    look_around(scene)
    print(last_line)
    return 0


def look_around(scene: Scene) -> None:
    print(f"Look around: export KUBECONFIG={scene.cluster.kubeconfig}; kubectl -n {scene.place} get all")
    print("Take it down: make down")


if __name__ == "__main__":
    sys.exit(main())
