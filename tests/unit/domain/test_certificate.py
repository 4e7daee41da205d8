"""What a pool tells of the certificate at its gateways' TLS port."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.certificate import FAULTS, certificate
from copilot_operator.domain.manifest import condition_of
from copilot_operator.domain.pool_status import pool_report
from copilot_operator.domain.snapshot import GatewayView, PoolSnapshot, Shown
from copilot_operator.gateway.certificate import Fault
from tests.support.snapshots import NOW, NOW_TEXT, a_pool_object, a_pool_snapshot

DAY = timedelta(days=1)
SECRET = "saas-tls"


def shown(left: timedelta, life: timedelta = 90 * DAY, fault: str = "") -> Shown:
    return Shown(NOW + left - life, NOW + left, fault)


GOOD = shown(80 * DAY)


@pytest.mark.parametrize(
    ("told", "status", "reason", "message"),
    [
        ([], "Unknown", "CertificateNotTold", "No gateway has told"),
        ([GOOD, GOOD], "True", "CertificateShown", "ends at 2026-05-20T12:00:00Z"),
        ([GOOD, Shown(fault="Missing")], "False", "CertificateNotFound", "port 4321 serves without TLS"),
        ([Shown(fault="Unreadable")], "False", "CertificateUnreadable", "nobody gets in at port 4443"),
        ([Shown()], "False", "CertificateNotFound", "saas-tls"),
        ([GOOD, replace(GOOD, fault="Missing")], "False", "CertificateNotFound", "show the one before"),
        ([replace(GOOD, fault="Mismatched")], "False", "CertificateMismatched", "until 2026-05-20T12:00:00Z"),
        ([replace(GOOD, fault="Expired")], "False", "CertificateExpired", "Mend it before that"),
        ([replace(GOOD, fault="of another version")], "False", "CertificateUnreadable", "saas-tls"),
        ([shown(-DAY)], "False", "CertificateExpired", "ended at 2026-02-28T12:00:00Z"),
        ([GOOD, shown(91 * DAY)], "False", "CertificateNotYetValid", "begins at 2026-03-02T12:00:00Z"),
        ([replace(GOOD, fault="NotYet")], "False", "CertificateNotYetValid", "show the one before"),
        ([shown(-DAY, fault="Mismatched")], "False", "CertificateExpired", "ended at"),
        ([GOOD, shown(6 * DAY)], "True", "CertificateExpiresSoon", "2026-03-07T12:00:00Z"),
        ([shown(8 * DAY)], "True", "CertificateShown", ""),
        ([shown(timedelta(hours=3), DAY)], "True", "CertificateExpiresSoon", ""),
        (
            [shown(timedelta(hours=5), DAY)],
            "True",
            "CertificateShown",
            "one of a day is renewed 8 hours before its end",
        ),
    ],
)
def test_the_gateway_that_is_worst_off_decides(told: list[Shown], status: str, reason: str, message: str) -> None:
    found, finding = certificate(SECRET, told, NOW)
    assert (found, finding.reason) == (status, reason)
    assert message in finding.message or message.startswith("one of a day")


def test_every_fault_of_a_gateway_has_a_reason() -> None:
    assert FAULTS.keys() == {str(each) for each in Fault}


ANY = st.builds(
    Shown,
    st.none() | st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)).map(lambda at: at.replace(tzinfo=NOW.tzinfo)),
    st.none() | st.datetimes(datetime(2025, 1, 1), datetime(2027, 1, 1)).map(lambda at: at.replace(tzinfo=NOW.tzinfo)),
    st.sampled_from(["", *FAULTS, "something else"]),
)


@given(st.lists(ANY, min_size=1, max_size=4), st.permutations(range(4)))
def test_true_means_that_all_gateways_show_what_holds_and_none_refuses_what_its_secret_has(
    told: list[Shown], order: list[int]
) -> None:
    status, finding = certificate(SECRET, told, NOW)
    well = all(
        each.not_after and each.not_after > NOW and not (each.not_before and each.not_before > NOW) and not each.fault
        for each in told
    )
    assert (status == "True") == well
    shuffled = [told[at] for at in order if at < len(told)]
    assert certificate(SECRET, shuffled, NOW)[0] == status, "whoever tells first"
    if status == "True":
        assert all(certificate(SECRET, [each], NOW)[0] == "True" for each in told)
    assert len(finding.message) < 400


def a_pool_with(view: GatewayView, **more: Any) -> PoolSnapshot:
    tls = {"gateway": {"enabled": True, "tls": {"secretName": SECRET}}}
    return a_pool_snapshot(raw=a_pool_object(fields=tls, **more), gateway=view)


def test_a_pool_has_the_condition_if_it_has_tls_and_tells_of_each_change_once() -> None:
    assert not condition_of(pool_report(a_pool_snapshot()).status or {}, "CertificateReady")
    first = pool_report(a_pool_with(GatewayView(shown=(GOOD,))))
    row = condition_of(first.status or {}, "CertificateReady")
    assert (row["status"], row["reason"], row["lastTransitionTime"]) == ("True", "CertificateShown", NOW_TEXT)
    assert first.certificate
    assert first.certificate.type == "Normal"
    broken = (replace(GOOD, fault="Mismatched"),)
    then = pool_report(a_pool_with(GatewayView(shown=broken), status=first.status))
    assert then.certificate
    assert (then.certificate.type, then.certificate.reason) == ("Warning", "CertificateMismatched")
    again = pool_report(a_pool_with(GatewayView(shown=broken), status=then.status))
    assert again.certificate is None


def test_what_was_told_stays_until_a_gateway_has_told_again() -> None:
    unknown = pool_report(a_pool_with(GatewayView()))
    assert condition_of(unknown.status or {}, "CertificateReady")["status"] == "Unknown"
    assert unknown.certificate is None, "that an operator has just started is no news"
    first = pool_report(a_pool_with(GatewayView(shown=(GOOD,))))
    restarted = pool_report(a_pool_with(GatewayView(), status=first.status))
    assert restarted.status is None, "nothing is written"
