"""Certificates as a company makes them for itself, and pairs as cert-manager puts them into a Secret."""

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY: Final = timedelta(days=1)
PEM: Final = serialization.Encoding.PEM
CA: Final = x509.BasicConstraints(ca=True, path_length=None)


def certificate(host: str) -> tuple[str, str]:
    """Of ``host``, by an authority of its own (it is one itself): the certificate and its key (PEM)."""
    key, name = ec.generate_private_key(ec.SECP256R1()), _name(host)
    return _signed(name, key, name, key, DAY, _names(host), CA).decode(), _text(key).decode()


@dataclass(frozen=True)
class Made:
    """``tls.crt`` and ``tls.key``, in PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


class Authority:
    """Nobody trusts it but who has ``ca``, in PEM."""

    def __init__(self, name: str = "a test") -> None:
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), _name(name)
        self.ca = _signed(self._name, self._key, self._name, self._key, DAY, CA)

    def issue(self, *names: str, lasts: timedelta = DAY) -> Made:
        """For these DNS names. It began a day ago; a negative ``lasts`` is of one that has ended."""
        key = ec.generate_private_key(ec.SECP256R1())
        return Made(_signed(_name(names[0]), key, self._name, self._key, lasts, _names(*names)), _text(key))

    def trusted(self) -> ssl.SSLContext:
        """Of a client that trusts it alone."""
        return ssl.create_default_context(cadata=self.ca.decode())


def put(directory: Path, made: Made) -> None:
    """As kubelet does: both files at once."""
    directory.mkdir(exist_ok=True)
    version = directory / f"..{len(list(directory.iterdir()))}"
    version.mkdir()
    (version / "tls.crt").write_bytes(made.certificate)
    (version / "tls.key").write_bytes(made.key)
    link = directory / "..tmp"
    link.symlink_to(version.name)
    link.rename(directory / "..data")
    for name in ("tls.crt", "tls.key"):
        if not (directory / name).is_symlink():
            (directory / name).symlink_to(Path("..data") / name)


def _signed(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    lasts: timedelta,
    *extensions: x509.ExtensionType,
) -> bytes:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + lasts)
    )
    for each in extensions:
        made = made.add_extension(each, critical=each is CA)
    return made.sign(issuer_key, hashes.SHA256()).public_bytes(PEM)


def _names(*names: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.DNSName(each) for each in names])


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _text(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
