"""Whatever is put where a gateway reads its certificate, in any order: what could be shown once is never lost."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st

from copilot_operator.gateway.certificate import Certificate, Fault
from tests.support.certificates import Authority, Made, put

GOOD = ("good", "renewed")
KINDS = (*GOOD, "expired", "mismatched", "no key", "no certificate", "empty", "missing")
FAULTS = {
    "mismatched": Fault.MISMATCHED,
    "no key": Fault.UNREADABLE,
    "no certificate": Fault.UNREADABLE,
    "empty": Fault.UNREADABLE,
    "missing": Fault.MISSING,
}


@cache
def pairs() -> dict[str, Made]:
    authority = Authority()
    good, renewed = authority.issue("a"), authority.issue("a", lasts=timedelta(days=2))
    return {
        "good": good,
        "renewed": renewed,
        "expired": authority.issue("a", lasts=-timedelta(hours=1)),
        "mismatched": replace(good, key=renewed.key),
        "no key": replace(good, key=b"-----BEGIN PRIVATE KEY-----\nbm9uZQ==\n-----END PRIVATE KEY-----\n"),
        "no certificate": replace(good, certificate=b"\x00\xff not PEM"),
        "empty": Made(b"", b""),
    }


@contextmanager
def a_directory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name) / "tls"


def lay(directory: Path, kind: str) -> None:
    if kind == "missing":
        shutil.rmtree(directory, ignore_errors=True)
    else:
        put(directory, pairs()[kind])


@settings(max_examples=60)
@given(st.lists(st.sampled_from(KINDS), max_size=8))
@example(["good", "mismatched", "missing", "expired", "renewed"])
@example(["expired", "good", "expired"])
def test_the_last_usable_pair_is_shown_and_what_lies_there_now_is_told(kinds: list[str]) -> None:
    with a_directory() as directory:
        certificate, shown = Certificate(directory), ""
        for kind in kinds:
            lay(directory, kind)
            certificate.look()
            if kind in GOOD or (kind == "expired" and shown not in GOOD):
                shown = kind
            wanted = FAULTS.get(kind, Fault.EXPIRED if kind == "expired" and shown in GOOD else None)
            assert certificate.fault is wanted, kind
            assert (certificate.pair is not None) == bool(shown)
            if certificate.pair:
                left_s = certificate.pair.not_after - time.time()
                assert (left_s > 86400, left_s > 0) == (shown == "renewed", shown in GOOD)


def test_nothing_is_read_again_that_did_not_change() -> None:
    told = list[Fault | None]()
    with a_directory() as directory:
        lay(directory, "good")
        certificate = Certificate(directory, told.append)
        for _ in range(3):
            certificate.look()
        assert told == [None]
        first = certificate.pair
        lay(directory, "mismatched")
        for _ in range(3):
            certificate.look()
        assert told == [None, Fault.MISMATCHED]
        assert certificate.pair is first


def test_an_expired_pair_takes_the_place_of_one_that_has_expired_as_well() -> None:
    with a_directory() as directory:
        lay(directory, "good")
        certificate = Certificate(directory)
        certificate.look()
        lay(directory, "expired")
        certificate.look(now=time.time() + 2 * 86400)
        assert certificate.fault is None
        assert certificate.pair is not None
        assert certificate.pair.not_after < time.time()


def test_a_pair_that_begins_later_takes_the_place_of_the_one_in_use_then() -> None:
    told = list[Fault | None]()
    with a_directory() as directory:
        lay(directory, "good")
        certificate = Certificate(directory, told.append)
        certificate.look()
        first = certificate.pair
        lay(directory, "renewed")
        for _ in range(3):
            certificate.look(now=time.time() - 2 * 86400)
        assert (certificate.pair is first, told) == (True, [None, Fault.NOT_YET])
        certificate.look()
        assert (certificate.pair is first, told) == (False, [None, Fault.NOT_YET, None])
