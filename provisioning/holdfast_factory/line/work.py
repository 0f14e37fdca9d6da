"""The command ``run``: one station's shift."""

from __future__ import annotations

import argparse
import secrets
import signal
import socket
import sys
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

from cryptography import x509

from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain
from holdfast_factory.authority import Authority
from holdfast_factory.chips.ek_issue import Endorser, issue, read_authority
from holdfast_factory.files import write_file
from holdfast_factory.idevid import check_serial
from holdfast_factory.labels import SCHEMES, file_name, render
from holdfast_factory.line.acts import opened
from holdfast_factory.line.progress import Bar, JsonLines
from holdfast_factory.line.shift import Limits, Shift
from holdfast_factory.line.station import Numbering, Station
from holdfast_factory.places import examiner_for, open_unit
from holdfast_factory.unit import Examiner, Label, Printer


def run(options: argparse.Namespace) -> int:
    """Exit status 1 if a unit failed."""
    if options.scan and len(options.places) > 1:
        raise ConfigError("factory.scan", "a scanner serves one place")
    numbered = Numbering(options.numbers)
    check_serial(numbered(1))
    endorsing = read_authority(options.issue_ek) if options.issue_ek else None
    trusted = _makers(options.makers) + ((endorsing.certificate,) if endorsing else ())

    def examiner(place: str) -> Examiner:
        return examiner_for(place, trusted)

    with ExitStack() as stack:
        plant, book = stack.enter_context(opened(options, options.station, prepare=False))

        def begin() -> None:
            book.database.prepare()
            book.station_up({"version": version("holdfast"), "host": socket.gethostname()})

        station = Station(
            book, plant, _printer(options.labels), now=_now, random=secrets.token_bytes, numbered=numbered
        )
        watcher = JsonLines() if options.json else stack.enter_context(Bar(options.station, options.units))
        shift = Shift(
            station,
            options.places,
            partial(open_unit, endorser=_endorser(endorsing)),
            examiner,
            watcher=watcher,
            limits=Limits(options.units, options.once, options.poll),
            begin=begin,
            scan=_scanned if options.scan else str,
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: shift.stop())
        shift.run()
        return 1 if watcher.failed else 0


def _endorser(authority: Authority | None) -> Endorser | None:
    if authority is None:
        return None
    return lambda ek, chip: issue(authority, ek, chip, _now().replace(microsecond=0))


def _makers(paths: list[Path]) -> Chain:
    """Roots of TPM makers, and intermediates that are trusted like them."""
    found: list[x509.Certificate] = []
    for path in paths:
        try:
            found += x509.load_pem_x509_certificates(path.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigError("factory.makers", f"{path}: {error}") from error
    return tuple(found)


def _scanned() -> str:
    line = sys.stdin.readline()
    if not line:
        raise ConfigError("factory.scan", "the scanner's input has ended")
    return line.strip()


def _printer(directory: Path | None) -> Printer:
    def to_files(label: Label) -> bytes:
        if directory is not None:
            directory.mkdir(parents=True, exist_ok=True)
            for form in SCHEMES:
                write_file(directory / file_name(label.serial, form), render(label, form))
        return render(label, "txt")

    return to_files


def _now() -> datetime:
    return datetime.now(UTC)
