"""Checkpoints and manifests: what leaves the line, signed, for those who rely on it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
from cryptography import x509
from sqlalchemy import insert, select

from holdfast.wire import cms, manifest, oids
from holdfast.wire.errors import HoldfastError, StateCorrupt, TrustError
from holdfast.wire.manifest import Checkpoint, Manifest, ManifestDevice
from holdfast_factory.authority import Authority
from holdfast_factory.line import schema
from holdfast_factory.line.audit import Head
from holdfast_factory.line.book import Book
from holdfast_factory.line.entries import Fact, Kind
from holdfast_factory.line.plant import Plant
from holdfast_factory.line.reading import Reading, UnitStory
from holdfast_factory.unit import Purpose


def checkpoint(book: Book, signer: Authority, now: datetime) -> bytes:
    """Sign for the newest entry, keep that, and return it: CMS over a JSON :class:`Checkpoint`."""
    ledger = Reading(book.database).identity()
    with book.page() as page:
        seq, newest = page.head
        content = msgspec.json.encode(Checkpoint(ledger, seq, newest))
        signed = cms.sign(content, oids.CT_DATA, signer.key, signer.certificate, signing_time=now)
        entry = page.write(Fact(Kind.CHECKPOINT, book.station, body={"seq": seq, "hash": newest}))
        page.connection.execute(insert(schema.CHECKPOINTS).values(seq=entry, cms=signed))
    return signed


def read_checkpoint(der: bytes, signer: x509.Certificate) -> Head:
    """Open a checkpoint, or the one in a manifest, that *signer* signed. Raises TrustError,
    RemoteProtocolError."""
    signed = cms.open_signed(der, limit=manifest.LIMIT)
    if signed.signer != signer:
        raise TrustError("manifest.signer", "the checkpoint is signed by somebody else than this line")
    try:
        point = msgspec.json.decode(signed.content, type=Checkpoint)
    except msgspec.MsgspecError:
        point = manifest.decode(der, signer).checkpoint
    return Head(point.seq, point.hash)


def kept_checkpoints(book: Book, signer: x509.Certificate) -> tuple[Head, ...]:
    """Those in the ledger itself. Raises StateCorrupt ``ledger.checkpoint``."""
    with book.database.reading() as connection:
        rows = connection.scalars(select(schema.CHECKPOINTS.c.cms).order_by(schema.CHECKPOINTS.c.seq)).all()
    try:
        return tuple(read_checkpoint(bytes(der), signer) for der in rows)
    except HoldfastError as error:
        raise StateCorrupt("ledger.checkpoint", f"a checkpoint in the ledger: {error}") from error


def export(
    book: Book,
    plant: Plant,
    now: datetime,
    *,
    audience: Literal["masa", "owner"],
    serials: frozenset[str] | None = None,
) -> tuple[bytes, int]:
    """The manifest (DER) of every sealed device, or of *serials*, and how many there are.

    Raises StateCorrupt ``ledger.unknown`` if one of *serials* is no sealed device.
    """
    reading = Reading(book.database)
    stories = [story for unit in reading.sealed_units() if (story := reading.find(unit)) is not None]
    chosen = [story for story in stories if serials is None or story.serial in serials]
    if serials is not None and (lacking := serials - {story.serial for story in chosen}):
        raise StateCorrupt("ledger.unknown", f"{min(lacking)!r} is no sealed device of this ledger")
    seq, newest = reading.head()
    made = Manifest(
        manifest.FORMAT,
        audience,
        plant.product.organization,
        plant.product.model,
        now,
        Checkpoint(reading.identity(), seq, newest),
        tuple(_devices(chosen)),
    )
    signed = manifest.encode(made, plant.signer.key, plant.signer.certificate)
    with book.page() as page:
        body = {"audience": audience, "devices": len(chosen), "sha256": hashlib.sha256(signed).hexdigest()}
        page.write(Fact(Kind.EXPORTED, book.station, body=body))
    return signed, len(chosen)


def _devices(stories: Iterable[UnitStory]) -> Iterable[ManifestDevice]:
    for story in stories:
        ders = {each.purpose: each.der for each in story.certificates}
        assert story.sealed is not None
        yield ManifestDevice(
            story.serial, ders[Purpose.IDEVID], ders.get(Purpose.IAK, b""), story.unit, story.sealed
        )
