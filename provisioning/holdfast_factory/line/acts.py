"""What the line's commands do. Each takes its options and returns the exit status."""

from __future__ import annotations

import argparse
import json
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from holdfast.wire.errors import ConfigError, StateCorrupt
from holdfast_factory.authority import Product, load_authority
from holdfast_factory.files import write_file
from holdfast_factory.line import batch, export
from holdfast_factory.line import plant as plants
from holdfast_factory.line.audit import audit
from holdfast_factory.line.book import Book
from holdfast_factory.line.database import Database
from holdfast_factory.line.hsm import Hsm
from holdfast_factory.line.plant import CA_SIGNER, Plant, open_plant
from holdfast_factory.line.reading import Reading
from holdfast_factory.line.story import check, lines, told

_OFFICE: Final = "office"
"""The station's name of whoever works on the ledger without a unit."""


@contextmanager
def opened(
    options: argparse.Namespace, station: str = _OFFICE, *, prepare: bool = True
) -> Iterator[tuple[Plant, Book]]:
    """The factory and its ledger, until the block ends; *prepare*: with its tables up to date."""
    with ExitStack() as stack:
        plant = stack.enter_context(open_plant(options.factory))
        url = options.ledger or f"sqlite:///{(options.factory / 'line.db').absolute()}"
        database = Database(url)
        stack.callback(database.close)
        if prepare:
            database.prepare()
        yield plant, Book(database, station, lambda: datetime.now(UTC))


def verify(options: argparse.Namespace) -> int:
    """Exit status 1 if it is no sealed device."""
    with opened(options) as (plant, book):
        story = Reading(book.database).find(options.serial)
        if story is None:
            raise StateCorrupt("ledger.unknown", f"no unit of this ledger is {options.serial!r}")
        check(story, plant)
    print(json.dumps(told(story)) if options.json else "\n".join(lines(story)))
    return 0 if story.sealed else 1


def export_manifest(options: argparse.Namespace) -> int:
    """Write a manifest."""
    serials = frozenset(options.serial) or None
    with opened(options) as (plant, book):
        der, count = export.export(book, plant, _now(), audience=options.audience, serials=serials)
        write_file(options.out, der)
    print(f"{options.out}: {count} devices, for the {options.audience}")
    return 0


def audit_ledger(options: argparse.Namespace) -> int:
    """Check it all; the first thing that is wrong is the error."""
    with opened(options) as (plant, book):
        signer = plant.signer.certificate
        kept = [export.read_checkpoint(path.read_bytes(), signer) for path in options.checkpoint]
        kept += export.kept_checkpoints(book, signer)
        found = audit(book.database, plant.issuer, tuple(kept))
        if options.sign:
            write_file(options.sign, export.checkpoint(book, plant.signer, _now()))
    if options.json:
        print(json.dumps({**asdict(found), "checkpoints": len(kept)}))
    else:
        print(
            f"{found.entries} entries, {found.units} units, {found.sealed} devices, "
            f"{found.certificates} certificates, {found.evidence} pieces of evidence, "
            f"{len(kept)} checkpoints: all as signed for; head {found.head.seq} {found.head.hash}"
        )
    return 0


def ca_init(options: argparse.Namespace) -> int:
    """Make the manufacturer's PKI."""
    hsm = None
    if options.token:
        if not (options.module and options.pin_file):
            raise ConfigError("factory.token", "--token needs --module and --pin-file")
        hsm = Hsm(str(options.module.absolute()), options.token, str(options.pin_file.absolute()))
    product = Product(options.masa_url, options.organization, options.model)
    plants.init_plant(options.directory, product, _now().replace(microsecond=0), hsm)
    where = f"CA keys in {hsm.token}" if hsm else "CA keys in files"
    print(f"{options.directory}: {product.organization}, {product.model}, {where}")
    return 0


def ca_line(options: argparse.Namespace) -> int:
    """Write what a line without the CA's key needs."""
    plants.hand_out(options.directory, options.out)
    print(f"{options.out}: public certificates and the line's signer")
    return 0


def ca_ask(options: argparse.Namespace) -> int:
    """Write requests."""
    with opened(options) as (plant, book):
        der, count = batch.ask(book, plant, secrets.token_hex(16), _now())
        write_file(options.out, der)
    print(f"{options.out}: {count} requests")
    return 0


def ca_answer(options: argparse.Namespace) -> int:
    """Answer requests."""
    with opened(options) as (plant, book):
        signer = load_authority(plant.directory, CA_SIGNER)
        der, count = batch.answer(book, plant, signer, _read(options.source), _now())
        write_file(options.out, der)
    print(f"{options.out}: {count} certificates")
    return 0


def ca_take(options: argparse.Namespace) -> int:
    """Take an answer in."""
    with opened(options) as (plant, book):
        count = batch.take_in(book, plant, _read(options.source))
    print(f"{count} certificates taken in: bring the units that wait")
    return 0


ACTS: Final[Mapping[str, Callable[[argparse.Namespace], int]]] = {
    "verify": verify,
    "export": export_manifest,
    "audit": audit_ledger,
    "ca_init": ca_init,
    "ca_line": ca_line,
    "ca_ask": ca_ask,
    "ca_answer": ca_answer,
    "ca_take": ca_take,
}


def _now() -> datetime:
    return datetime.now(UTC)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(batch.LIMIT + 1)
    except OSError as error:
        raise ConfigError("factory.file", f"{path}: {error.strerror}") from error
