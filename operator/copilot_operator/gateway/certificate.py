"""The certificate of the TLS listener: read from a directory, and read again when it changes there.

A pair that can't be used takes the place of none that can: whoever breaks a renewal is told, and clients go on.
"""

import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from cryptography import x509

CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
OTHER_KEY: Final = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")  # OpenSSL's reasons


class Fault(StrEnum):
    """Why a pair is not used. Nothing of what stands in the files is ever told."""

    MISSING = "Missing"  # one of the two files is not there
    UNREADABLE = "Unreadable"  # no certificate, or no key without a password, in PEM
    MISMATCHED = "Mismatched"  # the key is another certificate's
    EXPIRED = "Expired"  # and the one in use is not
    NOT_YET = "NotYet"  # it begins later, and the one in use holds until then


class BadPair(Exception):
    """The pair can't be used; ``fault`` says why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(fault)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Pair:
    """A certificate with its key, for new connections. Times are seconds of Unix time."""

    not_before: float
    not_after: float
    context: ssl.SSLContext = field(repr=False, compare=False)


def refusal(new: Pair, old: Pair | None, now: float) -> Fault | None:
    """Why ``new`` does not take the place of ``old``. An expired one alone is shown: its error says what is wrong."""
    if old is None or old.not_after <= now:
        return None
    return Fault.EXPIRED if new.not_after <= now else Fault.NOT_YET if now < new.not_before else None


def read(directory: Path) -> Pair:
    """The pair that lies there; raises BadPair."""
    certificate, key = directory / CERTIFICATE, directory / KEY
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # a client would have us pay for handshakes over and over
    try:
        first = x509.load_pem_x509_certificates(certificate.read_bytes())[0]
        context.load_cert_chain(certificate, key, password=lambda: "")  # else it would ask a terminal
    except FileNotFoundError as error:
        raise BadPair(Fault.MISSING) from error
    except ssl.SSLError as error:
        raise BadPair(Fault.MISMATCHED if error.reason in OTHER_KEY else Fault.UNREADABLE) from error
    except (OSError, ValueError, x509.InvalidVersion) as error:
        raise BadPair(Fault.UNREADABLE) from error
    return Pair(first.not_valid_before_utc.timestamp(), first.not_valid_after_utc.timestamp(), context)


class Certificate:
    """What a directory holds, or held when it could last be used. ``told`` of each attempt: the fault, or None."""

    def __init__(self, directory: Path, told: Callable[[Fault | None], None] = lambda fault: None) -> None:
        self.pair: Pair | None = None
        self.fault: Fault | None = None  # of what lies there now
        self._directory, self._told = directory, told
        self._seen: object = None

    def document(self) -> dict[str, Any]:
        """For the operator."""
        times = {"notBefore": self.pair.not_before, "notAfter": self.pair.not_after} if self.pair else {}
        return {**times, **({"fault": self.fault} if self.fault else {})}

    def look(self, now: float | None = None) -> None:
        """Take what has changed since the last time."""
        seen = tuple(_numbers(self._directory / name) for name in (CERTIFICATE, KEY))
        known = seen == self._seen
        if known and self.fault is not Fault.NOT_YET:
            return
        self._seen = seen  # taken before it is read: what changes meanwhile is read again
        before = self.fault
        try:
            pair = read(self._directory)
            self.fault = refusal(pair, self.pair, time.time() if now is None else now)
        except BadPair as error:
            self.fault = error.fault
        else:
            self.pair = self.pair if self.fault else pair
        if not known or self.fault is not before:
            self._told(self.fault)


def _numbers(path: Path) -> tuple[int, int, int] | None:
    """Inode, time and size of what the path leads to; None: nothing."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
