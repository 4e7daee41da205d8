"""Certificates of authorities in a ConfigMap: can servers be started with them? Pure.

With one that is broken among them every turn fails in the CLI ("invalid extra CA certificate", seen with 1.0.102), so
all are read here, with OpenSSL.
"""

import base64
import re
import ssl
from hashlib import sha256
from typing import Final

from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.secrets import decoded
from copilot_operator.domain.snapshot import Bundle, Finding

CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----([^-]*)-----END CERTIFICATE-----")
FIELD: Final = "server.caBundleConfigMapRef"


def check_bundle(name: str, key: str, config_map: Manifest | None) -> Bundle:
    """What key ``key`` of the ConfigMap ``name`` holds; None: there is no such ConfigMap.

    Two texts with the same certificates have the same digest: neither order nor comments restart a server.
    """
    if config_map is None:
        return _unusable(
            name, key, "ConfigMapNotFound", f"ConfigMap {name} does not exist; create it with the key {key}"
        )
    texts = config_map.get("data") or {}
    binaries = config_map.get("binaryData") or {}
    if key not in texts and key not in binaries:
        held = ", ".join(sorted({*texts, *binaries})[:5]) or "none"
        return _unusable(name, key, "ConfigMapKeyNotFound", f"ConfigMap {name} has no key {key}; it has: {held}")
    blocks = CERTIFICATE.findall(texts[key] if key in texts else decoded(binaries[key]))
    if not blocks:
        message = f"Key {key} of ConfigMap {name} holds no certificate in PEM (-----BEGIN CERTIFICATE-----)"
        return _unusable(name, key, "NoCertificate", f"{message}; put those of your authorities there")
    found = []
    for number, block in enumerate(blocks, start=1):
        if (der := _read(block)) is None:
            message = f"Certificate {number} of {len(blocks)} in key {key} of ConfigMap {name} can't be read"
            return _unusable(name, key, "BundleUnreadable", f"{message}; replace it, or take it out")
        found.append(der)
    digest = sha256(b"".join(sorted({sha256(der).digest() for der in found}))).hexdigest()[:16]
    return Bundle(name, key, digest, certificates=len(found))


def _read(block: str) -> bytes | None:
    """The certificate (DER) that is the base64 text ``block``; None if OpenSSL can't make one of it."""
    try:
        der = base64.b64decode("".join(block.split()), validate=True)
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=der)
    except (ValueError, ssl.SSLError):
        return None
    return der


def _unusable(name: str, key: str, reason: str, message: str) -> Bundle:
    return Bundle(name, key, finding=Finding(reason, f"{FIELD}: {message}"))
