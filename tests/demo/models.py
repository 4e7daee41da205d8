"""Who answers: the stand-in model in a pod, or the real thing when the user gives a key."""

import base64
import os
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.domain.kinds import DEPLOYMENT
from tests.demo.story import Story, wait_for
from tests.support import model_pod
from tests.support.kube import Kube

TOKEN_SECRET: Final = "github-token"
TOKEN_KEY: Final = "token"


@dataclass(frozen=True)
class Model:
    """How sessions are created. ``provider`` is None where GitHub serves the model."""

    name: str | None
    provider: dict[str, Any] | None = field(default=None, repr=False)
    auth: dict[str, Any] | None = None  # of the pool


def choose(story: Story, kube: Kube, namespace: str) -> Model:
    """$OPENAI_API_KEY (with $OPENAI_BASE_URL, $OPENAI_MODEL) or $GITHUB_TOKEN where given, else the stand-in."""
    if key := os.environ.get("OPENAI_API_KEY"):
        base_url = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1")
        story.say(f"model: {base_url}, with $OPENAI_API_KEY")
        provider = {"type": "openai", "base_url": base_url, "api_key": key, "wire_api": "completions"}
        return Model(os.environ.get("OPENAI_MODEL", "gpt-5-mini"), provider)
    if token := os.environ.get("GITHUB_TOKEN"):
        story.say("model: GitHub's, with $GITHUB_TOKEN, which the pool gives to its servers")
        _keep_token(kube, namespace, token)
        reference = {"name": TOKEN_SECRET, "key": TOKEN_KEY}
        return Model(os.environ.get("COPILOT_MODEL"), auth={"gitHub": {"tokenSecretRef": reference}})
    story.say("model: a stand-in as a pod (give OPENAI_API_KEY or GITHUB_TOKEN for a real one)")
    model_pod.start(kube, namespace)
    return Model("fake-model", model_pod.provider(kube, namespace))


def wait_for_model(kube: Kube, namespace: str) -> None:
    """Where the stand-in serves: until it does."""
    if kube.find(DEPLOYMENT, namespace, model_pod.NAME):
        wait_for(lambda: model_pod.answers(kube, namespace), within_s=60, what="the stand-in model is ready")


def _keep_token(kube: Kube, namespace: str, token: str) -> None:
    labels = {"copilot-operator.io/tenant-usable": "true"}
    metadata = {"name": TOKEN_SECRET, "namespace": namespace, "labels": labels}
    data = {TOKEN_KEY: base64.b64encode(token.encode()).decode()}
    kube.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})
