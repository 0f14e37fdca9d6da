"""What the screen does with the ledger: one method for each thing that a page shows or a button asks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, cast

from cryptography.hazmat.primitives.serialization import Encoding
from markupsafe import Markup

from holdfast.wire.errors import ConfigError
from holdfast_factory import labels
from holdfast_factory.files import write_file
from holdfast_factory.line import export
from holdfast_factory.line.audit import audit
from holdfast_factory.line.book import Book
from holdfast_factory.line.plant import Plant
from holdfast_factory.line.reading import Reading, StationState, UnitStory
from holdfast_factory.line.station import label_of
from holdfast_factory.screen import charts, view
from holdfast_factory.screen.stations import Stations
from holdfast_factory.unit import Certificates, Label, Purpose

SHIFT: Final = timedelta(hours=8)
"""What is counted until somebody starts a shift here."""

AUDIENCES: Final = ("masa", "owner")


class Desk:
    """The ledger of *book* and the factory *plant*, for people. *began* is when the screen was opened,
    *spool* the directory from which labels are printed."""

    def __init__(self, book: Book, plant: Plant, began: datetime, spool: Path | None = None) -> None:
        self._spool = spool
        self._book = book
        self._plant = plant
        self._reading = Reading(book.database)
        self._since = began - SHIFT
        self.organization = plant.product.organization
        self.model = plant.product.model

    def head(self) -> tuple[int, str]:
        """Changes whenever the ledger grows."""
        return self._reading.head()

    def begin_shift(self, now: datetime) -> None:
        """Count from *now* on."""
        self._since = now

    def facts(self, stations: Stations, now: datetime) -> Mapping[str, object]:
        """Everything on the page of the line."""
        causes = view.causes(self._reading.causes(self._since))
        return {
            "shift": view.shift(self._reading.yields(self._since), self._since, now),
            "stations": view.rows(self._others(), stations, now),
            "failures": bool(causes),
            "causes": Markup(charts.bars("Failures by cause", causes)),  # noqa: S704 - escaped there
            "hours": Markup(view.hours(self._reading.per_hour(now - view.CHARTED), now)),  # noqa: S704
        }

    def story(self, asked: str) -> Mapping[str, object] | None:
        """A unit by serial number, unit or certificate; None if the ledger does not know it."""
        found = self._reading.find(asked)
        if found is None:
            return None
        words = "\n".join(labels.lines(self._label(found))) if found.sealed else ""
        return {"story": view.story(found), "label": words}

    def label(self, serial: str) -> Label:
        """What stands on a sealed unit. Raises ConfigError ``factory.label``."""
        found = self._reading.find(serial)
        if found is None or found.sealed is None:
            raise ConfigError("factory.label", f"{serial!r} is no sealed device: it has no label")
        return self._label(found)

    def reprint(self, serial: str, operator: str) -> None:
        """Print a label again, and write down for whom. Raises ConfigError ``factory.label``."""
        if self._spool is None:
            raise ConfigError("factory.label", "this screen has no printer: start it with --labels DIR")
        label = self.label(serial)
        printed = labels.render(label, "zpl")
        self._book.printed(label.unit, printed, by=operator, again=True)
        write_file(self._spool / labels.file_name(label.serial, "zpl"), printed)

    def export(self, audience: str, now: datetime) -> bytes:
        """The signed manifest for one of the AUDIENCES. Raises ConfigError ``factory.export``."""
        if audience not in AUDIENCES:
            raise ConfigError("factory.export", f"{audience!r} is none of {', '.join(AUDIENCES)}")
        chosen = cast("Literal['masa', 'owner']", audience)
        der, _ = export.export(self._book, self._plant, now, audience=chosen)
        return der

    def audit(self) -> str:
        """Check the whole ledger. Raises StateCorrupt, naming the first thing that is wrong."""
        kept = export.kept_checkpoints(self._book, self._plant.signer.certificate)
        found = audit(self._book.database, self._plant.issuer, kept)
        return (
            f"{found.entries} entries, {found.units} units, {found.sealed} devices, {found.certificates} "
            f"certificates: the chain is whole. Its head is {found.head.seq} {found.head.hash}."
        )

    def _others(self) -> tuple[StationState, ...]:
        """Every station but this desk, which writes into the ledger under a name of its own."""
        return tuple(each for each in self._reading.stations() if each.name != self._book.station)

    def _label(self, found: UnitStory) -> Label:
        state = self._book.state(found.unit)
        assert state is not None
        assert found.sealed is not None
        installed = Certificates(
            state.certificates[Purpose.IDEVID],
            state.certificates.get(Purpose.IAK, b""),
            self._plant.issuer.public_bytes(Encoding.DER),
        )
        return label_of(self._plant, state, installed, found.sealed)
