"""A ConfigMap with certificates: what servers can be started with, and what is said of the rest."""

import base64
from functools import cache
from typing import Any

import pytest

from copilot_operator.domain.authorities import check_bundle
from tests.support.certificates import certificate

COMMENT = "# Autoridad de Certificación: die Wurzel\n"
BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
NO_BASE64 = "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"


@cache
def root(name: str = "one.example.com") -> str:
    return certificate(name)[0]


def held(text: str, key: str = "ca.crt") -> dict[str, Any]:
    return {"data": {key: text}}


@pytest.mark.parametrize(
    ("config_map", "reason", "said"),
    [
        (None, "ConfigMapNotFound", "ConfigMap ca does not exist; create it with the key ca.crt"),
        ({}, "ConfigMapKeyNotFound", "ConfigMap ca has no key ca.crt; it has: none"),
        (held(root(), "ca-bundle.crt"), "ConfigMapKeyNotFound", "it has: ca-bundle.crt"),
        (held(""), "NoCertificate", "Key ca.crt of ConfigMap ca holds no certificate in PEM"),
        (held(certificate("key.example.com")[1]), "NoCertificate", "put those of your authorities there"),
        ({"binaryData": {"ca.crt": base64.b64encode(b"\xfe\xed\xfe\xed").decode()}}, "NoCertificate", "in PEM"),
        (held(root() + BROKEN), "BundleUnreadable", "Certificate 2 of 2 in key ca.crt of ConfigMap ca"),
        (held(NO_BASE64 + root()), "BundleUnreadable", "Certificate 1 of 2"),
        (held("-----BEGIN CERTIFICATE-----\n" * 36_000), "NoCertificate", "in PEM"),  # 1 MiB, looked at once
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_servers_can_t_be_started_with_is_named_with_the_way_out(config_map: Any, reason: str, said: str) -> None:
    found = check_bundle("ca", "ca.crt", config_map)
    assert found.digest is None
    assert found.finding
    assert found.finding.reason == reason
    assert found.finding.message.startswith("server.caBundleConfigMapRef: ")
    assert said in found.finding.message


def test_certificates_are_counted_and_the_same_ones_have_the_same_digest() -> None:
    one, two = root(), root("two.example.com")
    plain = check_bundle("ca", "ca.crt", held(one + two))
    assert (plain.finding, plain.certificates) == (None, 2)
    for same in (two + one, COMMENT + one + "\r\n" + two, (one + two).replace("\n", "\r\n")):
        assert check_bundle("ca", "ca.crt", held(same)).digest == plain.digest
    binary = {"binaryData": {"ca.crt": base64.b64encode((one + two).encode()).decode()}}
    assert check_bundle("ca", "ca.crt", binary).digest == plain.digest
    assert check_bundle("ca", "ca.crt", held(one)).digest != plain.digest
