"""What is known of one device, in words, and whether it holds together."""

from __future__ import annotations

import hashlib
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from holdfast.wire import certificates
from holdfast.wire.errors import StateCorrupt
from holdfast_factory.line.entries import Entry, digest
from holdfast_factory.line.plant import Plant
from holdfast_factory.line.reading import Issued, UnitStory


def check(story: UnitStory, plant: Plant) -> None:
    """Each entry is what its hash was made of, each certificate is this CA's and this device's.

    Whether the entries stand in the chain, only an audit of all of it tells. Raises StateCorrupt.
    """
    for entry in story.entries:
        if digest(entry) != entry.hash:
            raise StateCorrupt("ledger.chain", f"entry {entry.seq} is not what its hash was made of")
    for each in story.certificates:
        _check_certificate(story, each, plant)


def lines(story: UnitStory) -> tuple[str, ...]:
    """For a person."""
    sealed = f"{story.sealed:%Y-%m-%d %H:%M:%S} UTC" if story.sealed else "not sealed"
    head = (f"serial   {story.serial}", f"unit     {story.unit}", f"sealed   {sealed}")
    issued = (f"{e.purpose:<8} {e.x509_serial}, SHA-256 {e.sha256}" for e in story.certificates)
    return (*head, *issued, *map(_line, story.entries))


def told(story: UnitStory) -> dict[str, Any]:
    """For a program."""
    return {
        "serial": story.serial,
        "unit": story.unit,
        "sealed": story.sealed.isoformat() if story.sealed else None,
        "certificates": {
            each.purpose.value: {"serial": each.x509_serial, "sha256": each.sha256}
            for each in story.certificates
        },
        "entries": [
            {"seq": e.seq, "at": e.at, "station": e.station, "kind": e.kind, "step": e.step, "code": e.code}
            for e in story.entries
        ],
    }


def _line(entry: Entry) -> str:
    return (
        f"{entry.seq:>8} {entry.at} {entry.station:<12} {entry.kind:<20} {entry.step} {entry.code}".rstrip()
    )


def _check_certificate(story: UnitStory, issued: Issued, plant: Plant) -> None:
    if hashlib.sha256(issued.der).hexdigest() != issued.sha256:
        raise StateCorrupt("ledger.certificate", f"the {issued.purpose} certificate was altered")
    found = certificates.load(issued.der)
    try:
        found.verify_directly_issued_by(plant.issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise StateCorrupt("ledger.certificate", f"the {issued.purpose} certificate is not ours") from error
    named = [a.value for a in found.subject.get_attributes_for_oid(x509.NameOID.SERIAL_NUMBER)]
    if named != [story.serial] or f"{found.serial_number:x}" != issued.x509_serial:
        raise StateCorrupt("ledger.certificate", f"the {issued.purpose} certificate names {named}")
