"""A CA that stands elsewhere: requests out, certificates in, by signed files that a person carries.

A request batch lists reservations that have no certificate yet; the line signs it. The CA's office enters
them into a ledger of its own, by the same rules, so that no two batches ever get two certificates for one
unit, and answers with a batch that its signer signs. The line takes all of an answer, or nothing.

Both are CMS SignedData over JSON, whose signers are pinned certificates of the factory's directory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from cryptography import x509
from sqlalchemy import insert, select

from holdfast.wire import cms, oids
from holdfast.wire.errors import ConfigError, RemoteProtocolError, TrustError
from holdfast_factory.authority import Authority
from holdfast_factory.line import issuing, schema
from holdfast_factory.line.book import Book, Page, Reservation
from holdfast_factory.line.entries import Fact, Kind
from holdfast_factory.line.plant import Plant
from holdfast_factory.unit import Purpose

LIMIT: Final = 32 * 1024 * 1024
MOST: Final = 5_000
_REQUESTS: Final = "holdfast-requests-1"
_CERTIFICATES: Final = "holdfast-certificates-1"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """One certificate that is asked for. ``public`` is SubjectPublicKeyInfo; the rest is the
    reservation's."""

    unit: str
    serial: str
    purpose: Purpose
    x509_serial: str
    not_before: str
    public: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Requests:
    """``batch`` is a random name in hex; ``issuer`` the key identifier of the CA that is asked."""

    format: str
    batch: str
    issuer: str
    requests: tuple[Request, ...]


@dataclass(frozen=True, slots=True)
class Answer:
    """One certificate, DER."""

    unit: str
    purpose: Purpose
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answers:
    """All certificates of ``batch``; ``request`` is the SHA-256 of the file that asked."""

    format: str
    batch: str
    request: str
    certificates: tuple[Answer, ...]


def ask(book: Book, plant: Plant, batch: str, now: datetime) -> tuple[bytes, int]:
    """The request batch (DER), called *batch*, of all that waits for a certificate; and how many that are.

    Raises ConfigError ``factory.nothing-waits``.
    """
    with book.page() as page:
        requests = tuple(_waiting(page))
        if not requests:
            raise ConfigError("factory.nothing-waits", "no unit waits for a certificate")
        content = Requests(_REQUESTS, batch, issuing.issuer_id(plant.issuer), requests)
        signed = _sign(content, plant.signer, now)
        _note(book, page, batch, "out", signed)
    return signed, len(requests)


def answer(book: Book, plant: Plant, signer: Authority, der: bytes, now: datetime) -> tuple[bytes, int]:
    """What the CA's office answers to the request batch *der*; *book* is its own ledger.

    The same file again gets the same answer again, which then is taken from the ledger: no power cut between
    signing and saving loses one. Raises TrustError ``batch.signer``, ``batch.replay``, ``batch.other-ca``,
    RemoteProtocolError ``batch.syntax``, and KeyStoreError of :meth:`Book.reserve`.
    """
    asked = open_batch(der, plant.signer.certificate, Requests)
    if asked.issuer != issuing.issuer_id(plant.issuer):
        raise TrustError("batch.other-ca", f"it asks the CA {asked.issuer[:40]}")
    if plant.issuing is None:
        raise ConfigError("factory.offline", "the CA's key is not here")
    if not 0 < len(asked.requests) <= MOST:
        raise RemoteProtocolError("batch.syntax", f"{len(asked.requests)} requests, 1 to {MOST} are answered")
    wanted = [(each, _reservation(each, asked.issuer)) for each in asked.requests]
    with book.page() as page:
        known = _batch(page, asked.batch, "in")
        if known is not None and known != hashlib.sha256(der).hexdigest():
            raise TrustError("batch.replay", f"another batch was called {asked.batch[:40]} before")
        for each, reserved in wanted:
            book.register(page, each.unit, each.serial)
            if book.write_reservation(page, reserved) != reserved:
                text = f"{each.serial} has been promised another certificate"
                raise TrustError("batch.changed", text)
    ca = issuing.Issuer(plant.product, plant.issuer, plant.issuing)
    signed = [issuing.sign(ca, reserved, each.serial) for each, reserved in wanted]
    with book.page() as page:
        for (each, _), der_of_it in zip(wanted, signed, strict=True):
            book.write_certificate(page, each.unit, each.purpose, der_of_it)
        if _batch(page, asked.batch, "in") is None:
            _note(book, page, asked.batch, "in", der)
        given = tuple(Answer(e.unit, e.purpose, _certificate(page, e.unit, e.purpose)) for e, _ in wanted)
    digest = hashlib.sha256(der).hexdigest()
    return _sign(Answers(_CERTIFICATES, asked.batch, digest, given), signer, now), len(given)


def take_in(book: Book, plant: Plant, der: bytes) -> int:
    """Enter the certificates of the answer *der* into the ledger, all or none; returns how many.

    Raises TrustError ``batch.signer``, ``batch.unasked``, ``batch.replay``, ``batch.partial`` and
    ``factory.certificate``, RemoteProtocolError ``batch.syntax``.
    """
    told = open_batch(der, plant.ca_signer, Answers)
    with book.page() as page:
        if _batch(page, told.batch, "out") != told.request:
            raise TrustError("batch.unasked", f"this line asked for no batch {told.batch[:40]}")
        if _batch(page, told.batch, "in") is not None:
            raise TrustError("batch.replay", f"the batch {told.batch} was taken in before")
        asked = _decode(cms.open_signed(page.recall(told.request), limit=LIMIT).content, Requests)
        given = {(each.unit, each.purpose): each.certificate for each in told.certificates}
        wanted = {(each.unit, each.purpose): each for each in asked.requests}
        if given.keys() != wanted.keys() or len(given) != len(told.certificates):
            text = f"{len(told.certificates)} certificates for {len(wanted)} requests"
            raise TrustError("batch.partial", text)
        for key, request in wanted.items():
            reserved = _reservation(request, asked.issuer)
            issuing.check(plant.product, plant.issuer, reserved, given[key], request.serial)
            book.write_certificate(page, *key, given[key])
        _note(book, page, told.batch, "in", der)
    return len(given)


def open_batch(der: bytes, signer: x509.Certificate, kind: type[T]) -> T:
    """The batch that *signer*, and nobody else, has signed.

    Raises TrustError ``batch.signer``, RemoteProtocolError ``batch.syntax``, and those of CMS.
    """
    signed = cms.open_signed(der, limit=LIMIT)
    if signed.signer != signer:
        raise TrustError("batch.signer", "the batch is signed by somebody else than whom we expect")
    found = _decode(signed.content, kind)
    form = _REQUESTS if kind is Requests else _CERTIFICATES
    told: Any = found
    if told.format != form:
        raise RemoteProtocolError("batch.syntax", f"the format {told.format[:40]!r} is not {form}")
    return found


def _waiting(page: Page) -> list[Request]:
    reserved, issued, units = schema.RESERVATIONS, schema.CERTIFICATES, schema.UNITS
    rows = page.connection.execute(
        select(reserved, units.c.serial)
        .join(units, units.c.unit == reserved.c.unit)
        .outerjoin(issued, (issued.c.unit == reserved.c.unit) & (issued.c.purpose == reserved.c.purpose))
        .where(issued.c.unit.is_(None))
        .order_by(reserved.c.entry)
        .limit(MOST)
    ).all()
    return [
        Request(
            row.unit,
            row.serial,
            Purpose(row.purpose),
            row.x509_serial,
            row.not_before,
            page.recall(row.key_sha256),
        )
        for row in rows
    ]


def _reservation(asked: Request, issuer: str) -> Reservation:
    return Reservation(asked.unit, asked.purpose, issuer, asked.x509_serial, asked.public, asked.not_before)


def _certificate(page: Page, unit: str, purpose: Purpose) -> bytes:
    table = schema.CERTIFICATES
    mine = (table.c.unit == unit) & (table.c.purpose == purpose.value)
    return bytes(page.connection.scalars(select(table.c.der).where(mine)).one())


def _batch(page: Page, name: str, direction: str) -> str | None:
    """The SHA-256 of the file that went by *name*; None if none did."""
    table = schema.BATCHES
    mine = (table.c.batch == name) & (table.c.direction == direction)
    found: str | None = page.connection.scalar(select(table.c.sha256).where(mine))
    return found


def _note(book: Book, page: Page, batch: str, direction: str, der: bytes) -> None:
    kept = page.keep(der, LIMIT)
    kind = Kind.BATCH_OUT if direction == "out" else Kind.BATCH_IN
    entry = page.write(Fact(kind, book.station, body={"batch": batch, "evidence": kept}))
    row = {"batch": batch, "direction": direction, "sha256": kept, "entry": entry}
    page.connection.execute(insert(schema.BATCHES).values(row))


def _sign(content: Requests | Answers, signer: Authority, now: datetime) -> bytes:
    octets = msgspec.json.encode(content)
    return cms.sign(octets, oids.CT_DATA, signer.key, signer.certificate, signing_time=now)


def _decode(content: bytes, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.MsgspecError as error:
        raise RemoteProtocolError("batch.syntax", str(error)) from error
