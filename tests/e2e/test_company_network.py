"""Certificates of a company in a ConfigMap: servers start with them, and others, or none, cut nobody's turn."""

from typing import Any, Final
from urllib.parse import urlsplit

import pytest

from copilot_operator.domain.kinds import POOL
from tests.support.certificates import certificate
from tests.support.kube import Object, conditions
from tests.support.place import CLI_IMAGE, POOL_NAME, Place

LOOKED_AT_S: Final = 180.0  # a pool looks every minute, a drain and a start on top
PROXY: Final = "http://proxy.example.com:3128"  # nobody's


def config_map(place: Place, text: str) -> None:
    metadata = {"name": "company-ca", "namespace": place.namespace}
    place.kube.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"ca.crt": text}})


def told(place: Place) -> Object:
    return conditions(place.kube.get(POOL, place.namespace, POOL_NAME)).get("CABundleReady") or {}


@pytest.mark.timeout(1500)
async def test_servers_wait_for_certificates_take_changed_ones_by_a_drain_and_go_on_with_what_they_have(
    place: Place, provider: Any
) -> None:
    one, two = (certificate(f"{name}.example.com")[0] for name in ("one", "two"))
    server = {
        "image": CLI_IMAGE,
        "resources": {"requests": {"cpu": "20m", "memory": "256Mi"}},
        "proxy": {"httpsProxy": PROXY, "noProxy": [urlsplit(provider["base_url"]).hostname]},
        "caBundleConfigMapRef": {"name": "company-ca"},
    }
    place.pool(server=server)
    place.tenant("ann")
    missing = await place.until_reason("ann", "ConfigMapNotFound")
    assert "ConfigMap company-ca does not exist; create it with the key ca.crt" in missing["message"]
    assert place.deployment("ann") is None, "no server starts without them"

    config_map(place, one)
    await place.until_ready("ann", within_s=120)
    assert told(place)["reason"] == "CertificatesFound"
    (pod,) = place.pods("ann")
    look = "cat $NODE_EXTRA_CA_CERTS; echo $https_proxy; [ ! -w $NODE_EXTRA_CA_CERTS ] || echo writable"
    words = ["exec", pod["metadata"]["name"], "-c", "copilot", "--", "sh", "-c", look]
    assert place.kube.kubectl("-n", place.namespace, *words) == f"{one}{PROXY}\n", "it is there, and read-only"
    assert await place.say("ann", provider, "remember NOTE=walnut") != []

    before = place.running("ann")
    config_map(place, two + one[: len(one) // 2] + "\n-----END CERTIFICATE-----\n")
    await place.until(
        lambda: told(place).get("reason") == "BundleUnreadable",
        within_s=LOOKED_AT_S,
        what="people hear that one can't be read",
        about="ann",
    )
    assert "Certificate 2 of 2 in key ca.crt of ConfigMap company-ca can't be read" in told(place)["message"]
    assert await place.say("ann", provider, "RECALL", resume=True) == ["notes: walnut"]
    assert place.running("ann") == before, "it goes on with what it was started with"

    config_map(place, two)
    await place.until(
        lambda: place.running("ann") not in ([], before),
        within_s=LOOKED_AT_S,
        what="it is started again with the others",
        about="ann",
    )
    await place.until_ready("ann", within_s=120)
    said = [event["message"] for event in place.kube.events(place.namespace, "ann")]
    assert any("changed: caBundle" in each for each in said), said
    assert await place.say("ann", provider, "RECALL", resume=True) == ["notes: walnut"]
