"""What a pool's people are told of the certificate at its gateways' TLS port. Pure.

Gateways tell what they show: the operator reads no key, and what it says is so at the port, not merely in the Secret.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from copilot_operator.api.conditions import Condition, ConditionStatus, timestamp
from copilot_operator.domain.desired.service import CLI_PORT, TLS_PORT
from copilot_operator.domain.snapshot import Finding, Shown

CONDITION: Final = "CertificateReady"
SOON: Final = timedelta(days=7)
SOON_PART: Final = 6  # of its life, if that is less: who renews in time does so when a third is left (cert-manager)

FAULTS: Final = {
    "Missing": Finding("CertificateNotFound", "it is not there, or lacks tls.crt or tls.key"),
    "Unreadable": Finding("CertificateUnreadable", "tls.crt or tls.key is not PEM, or the key wants a password"),
    "Mismatched": Finding("CertificateMismatched", "tls.key is not the key of the first certificate in tls.crt"),
    "Expired": Finding("CertificateExpired", "its certificate has ended"),
    "NotYet": Finding("CertificateNotYetValid", "its certificate begins later"),
}


def certificate(secret: str, shown: Sequence[Shown], now: datetime) -> tuple[ConditionStatus, Finding]:
    """Of the gateway that is worst off; ``secret`` is the name of the pool's."""
    if not shown:
        return "Unknown", Finding("CertificateNotTold", "No gateway has told what it shows yet")
    worst = min(shown, key=lambda each: _rank(each, now))
    if worst.not_after is None:
        fault = FAULTS.get(worst.fault, FAULTS["Missing"])
        return "False", Finding(
            fault.reason,
            f"Secret {secret}: {fault.message}. Until it is mended nobody gets in at port {TLS_PORT}, "
            f"and port {CLI_PORT} serves without TLS; nodes take a minute or two to bring a change of it",
        )
    end = timestamp(worst.not_after)
    if worst.not_after <= now:
        return "False", Finding("CertificateExpired", f"Secret {secret}: its certificate ended at {end}. Renew it")
    if worst.not_before and worst.not_before > now:
        begins = timestamp(worst.not_before)
        message = f"Secret {secret}: its certificate begins at {begins}, and is refused until then"
        return "False", Finding("CertificateNotYetValid", message)
    if worst.fault:
        fault = FAULTS.get(worst.fault, FAULTS["Unreadable"])
        message = f"Secret {secret}: {fault.message}. Gateways show the one before, until {end}. Mend it before that"
        return "False", Finding(fault.reason, message)
    if worst.not_after - now < _soon(worst):
        return "True", Finding("CertificateExpiresSoon", f"Secret {secret}: its certificate ends at {end}. Renew it")
    return "True", Finding("CertificateShown", f"Gateways show a certificate that ends at {end}")


def certificate_row(
    secret: str, shown: Sequence[Shown], now: datetime, generation: int, before: Condition | None
) -> Condition:
    """The condition of a pool. Until a gateway has told anything what was told ``before`` stays."""
    status, finding = certificate(secret, shown, now)
    if status == "Unknown" and before:
        return before
    return Condition(
        type=CONDITION, status=status, reason=finding.reason, message=finding.message, observed_generation=generation
    )


def _soon(shown: Shown) -> timedelta:
    assert shown.not_after
    return min(SOON, (shown.not_after - shown.not_before) / SOON_PART) if shown.not_before else SOON


def _rank(shown: Shown, now: datetime) -> tuple[int, float]:
    """The less the worse."""
    if shown.not_after is None:
        return 0, 0.0
    end = shown.not_after.timestamp()
    early = shown.not_before is not None and shown.not_before > now
    return (1 if shown.not_after <= now or early else 2 if shown.fault else 3), end
