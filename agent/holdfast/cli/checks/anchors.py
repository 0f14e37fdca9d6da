"""The trust anchors of the domain and of the manufacturer: there, valid, and valid for long enough."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from cryptography import x509

from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.words import timestamp, when
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain, Moment
from holdfast.worker.certificates import read_certificates

SOON: Final = timedelta(days=90)


def look(patient: Patient) -> Iterator[Finding]:
    """Domain anchors from the record, manufacturer anchors from their file; the two never mix."""
    path = patient.settings.manufacturer.anchors
    seen = f"read {path}"
    try:
        makers = read_certificates(path)
    except ConfigError as error:
        yield Finding(
            Verdict.FAIL, error.detail, "Put the maker's anchors there, as PEM.", seen, "manufacturer"
        )
    else:
        need = "No voucher can be believed without them: ask the maker for its new anchors."
        yield _judged(makers, patient.now, "manufacturer", need, seen)
    domain = tuple(x509.load_der_x509_certificate(a.certificate) for a in patient.record.domain.anchors)
    if not domain:
        yield Finding(Verdict.SKIPPED, "the device belongs to no domain yet", about="domain")
        return
    need = "No server of the domain can be believed without them: ask its CA's operator for the rollover."
    yield _judged(domain, patient.now, "domain", need, "read the anchors in the record")


def _judged(anchors: Chain, now: Moment, about: str, need: str, seen: str) -> Finding:
    if not anchors:
        return Finding(Verdict.FAIL, "there is not one anchor", need, seen, about)
    end = now.now if now.trusted else now.floor
    alive = [a for a in anchors if a.not_valid_after_utc > end]
    if not alive:
        last = max(a.not_valid_after_utc for a in anchors)
        return Finding(Verdict.FAIL, f"the last anchor ended at {timestamp(last)}", need, seen, about)
    last = max(a.not_valid_after_utc for a in alive)
    count = f"{len(alive)} of {len(anchors)} anchors"
    if last - end < SOON:
        said = f"{count} are valid, and the last of them ends at {when(last, end)}"
        return Finding(Verdict.WARN, said, need, seen, about)
    return Finding(Verdict.OK, f"{count} are valid, the last until {timestamp(last)}", "", seen, about)


CHECK: Final = Check("anchors", "the anchors of domain and manufacturer", look)
