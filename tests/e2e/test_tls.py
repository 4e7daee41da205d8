"""Gateways with a TLS port: an SDK that speaks plainly gets there through ``kubectl copilot connect --server``."""

import asyncio
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from copilot_operator.domain.kinds import POD, POOL, SECRET, SERVICE
from copilot_operator.domain.naming import GATEWAY_NAME, NAME_LABEL, gateway_of
from tests.e2e.test_plugin import Plugin, plugin
from tests.support.certificates import Authority, Made
from tests.support.kube import Object, conditions
from tests.support.place import POOL_NAME, Place

__all__ = ["plugin"]

READY_S: Final = 120.0
BROUGHT_S: Final = 240.0  # a node brings a changed Secret to its pods in a minute or two
SECRET_NAME: Final = "gateway-tls"


def told(place: Place) -> Object:
    """The pool's condition; {} if there is none."""
    return conditions(place.kube.get(POOL, place.namespace, POOL_NAME)).get("CertificateReady", {})


async def until_told(place: Place, reason: str) -> Object:
    await place.until(
        lambda: told(place).get("reason") == reason, within_s=BROUGHT_S, what=f"the pool says {reason}", about="ann"
    )
    return told(place)


def put(place: Place, made: Made, authority: Authority) -> None:
    """As cert-manager does."""
    values = {"tls.crt": made.certificate.decode(), "tls.key": made.key.decode(), "ca.crt": authority.ca.decode()}
    metadata = {"name": SECRET_NAME, "namespace": place.namespace}
    place.kube.apply(
        {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "stringData": values}
    )


def gateways(place: Place) -> set[tuple[str, int]]:
    """Their pods, and how often the container of each was started again."""
    return {
        (pod["metadata"]["uid"], sum(each["restartCount"] for each in pod["status"].get("containerStatuses", ())))
        for pod in place.kube.list(POD, place.namespace, f"{NAME_LABEL}={GATEWAY_NAME}")
        if "deletionTimestamp" not in pod["metadata"]
    }


def in_cluster(plugin: Plugin, *words: str, **options: Any) -> "subprocess.Popen[str]":
    """The plugin where the gateway's Service is reached."""
    cluster = plugin.place.cluster
    return cluster.start_in_network(
        plugin.argv(*words), env=plugin.environment(), stdout=subprocess.PIPE, text=True, **options
    )


@contextmanager
def connected(plugin: Plugin, tenant: str, server: str) -> Iterator[str]:
    """A local address in the cluster's network that leads to the server with TLS."""
    process = in_cluster(plugin, "connect", tenant, "--port=0", "--server", server)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().split()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    assert process.returncode == 0


@pytest.mark.timeout(1500)  # nodes bring changes of a Secret within two minutes, four times
async def test_an_sdk_without_tls_talks_through_it_and_goes_on_while_the_certificate_changes(
    place: Place, plugin: Plugin, provider: Any, tmp_path: Path
) -> None:
    place.pool(gateway={"replicas": 1, "drainTimeout": "5s", "tls": {"secretName": SECRET_NAME}})
    place.tenant("ann")
    await place.until_ready("ann", within_s=READY_S)
    await place.ping("ann")  # without the Secret it serves, though not with TLS
    missing = await until_told(place, "CertificateNotFound")
    assert missing["status"] == "False"
    assert SECRET_NAME in missing["message"]

    name = f"{gateway_of(POOL_NAME)}.{place.namespace}.svc"
    authority = Authority()
    made = authority.issue(name)
    before = gateways(place)
    put(place, made, authority)
    await until_told(place, "CertificateShown")
    address = place.kube.get(SERVICE, place.namespace, gateway_of(POOL_NAME))["spec"]["clusterIP"]

    with connected(plugin, "ann", f"{address}:4443") as here:
        through = replace(place.connection("ann"), address=here)
        assert await place.say("ann", provider, "remember NOTE=walnut", connection=through)

        (tmp_path / "ca.pem").write_bytes(Authority().ca)
        words = ("connect", "ann", "--port=0", "--server", address, "--ca-file", str(tmp_path / "ca.pem"))
        refused = in_cluster(plugin, *words, stderr=subprocess.PIPE)
        _, why = await asyncio.to_thread(refused.communicate, timeout=60)
        assert refused.returncode == 1
        assert "certificate that is not taken" in why

        put(place, replace(made, key=authority.issue(name).key), authority)
        broken = await until_told(place, "CertificateMismatched")
        assert "Gateways show the one before" in broken["message"]
        held = await place.say("ann", provider, "RECALL", resume=True, connection=through)
        assert held == ["notes: walnut"], "connections that come now get the certificate that still holds"

        put(place, authority.issue(name), authority)
        assert (await until_told(place, "CertificateShown"))["status"] == "True"
        held = await place.say("ann", provider, "RECALL", resume=True, connection=through)
        assert held == ["notes: walnut"]
    assert gateways(place) == before, "no gateway was started again for it"
    kinds = [event["reason"] for event in place.kube.events(place.namespace, POOL_NAME)]
    assert [kind for kind in kinds if kind.startswith("Certificate")] == [
        "CertificateNotFound",
        "CertificateShown",
        "CertificateMismatched",
        "CertificateShown",
    ]
    key = place.kube.get(SECRET, place.namespace, SECRET_NAME)["data"]["tls.key"]
    assert key not in str(place.kube.get(POOL, place.namespace, POOL_NAME))
