"""One unit's way through a station, from bare board to sealed device, taken up wherever it was cut off.

The intent of a step stands in the ledger before the act, its result after it; each act, asked again, finds
what it did before. So whatever dies in between - the station, the database, the power - the next station
that meets the unit goes on at the first step that has no result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import certificates
from holdfast.wire.errors import HoldfastError, KeyStoreUnavailable, StateCorrupt, StateError, TrustError
from holdfast.wire.model import RandomBytes
from holdfast_factory.line import issuing
from holdfast_factory.line.book import Book, UnitState
from holdfast_factory.line.entries import Json
from holdfast_factory.line.plant import Plant
from holdfast_factory.tpm_examiner import require_activated
from holdfast_factory.unit import (
    Certificates,
    Endorsement,
    Examiner,
    Label,
    Printer,
    ProvedKeys,
    Purpose,
    Shown,
    StepName,
    Unit,
)

CHALLENGE_OCTETS: Final = 32


class Ending(StrEnum):
    """How a unit left the station."""

    SEALED = "sealed"
    ALREADY = "already-sealed"
    WAITING = "waiting"  # for certificates from a CA elsewhere
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """``code`` and ``detail`` say why it failed, at ``step``."""

    unit: str
    serial: str
    ending: Ending
    step: str = ""
    code: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a step left: evidence for the ledger, facts for its entry, and what was issued. ``wait``: it
    cannot be done now."""

    evidence: bytes = b""
    facts: Mapping[str, Json] | None = None
    certificates: Mapping[Purpose, bytes] | None = None
    wait: bool = False


@dataclass(frozen=True, slots=True)
class Numbering:
    """Serial numbers by the line: ``pattern`` is a format with one integer field, such as ``GW-{:06d}``."""

    pattern: str = "GW-{:06d}"

    def __call__(self, number: int) -> str:
        return self.pattern.format(number)


class Station:
    """Takes units through the steps. *now* and *random* are its clock and its source of chance."""

    def __init__(
        self,
        book: Book,
        plant: Plant,
        printer: Printer,
        *,
        now: Callable[[], datetime],
        random: RandomBytes,
        numbered: Callable[[int], str],
    ) -> None:
        self.book = book
        self._plant = plant
        self._printer = printer
        self._now = now
        self._random = random
        self._numbered = numbered

    def work(self, unit: Unit, examiner: Examiner, *, scanned: str = "", unlike: str = "") -> Result | None:
        """Take *unit* as far as it goes; None if there is none, or it is the unit *unlike*.

        A failure is written into the ledger and returned. Raises only what keeps the ledger itself from being
        written: StateError ``ledger.unavailable``, after which the same unit can be given again, and others.
        """
        name, serial, step = "", scanned, StepName.ENDORSEMENT
        try:
            shown = unit.endorsement()
        except KeyStoreUnavailable:
            return None  # it was taken away, or is not up yet
        except HoldfastError as error:
            self.book.failed("", step, error.code, error.detail)
            return Result("", scanned, Ending.FAILED, step, error.code, error.detail)
        try:
            name = examiner.identify(shown)
            if name == unlike:
                return None
            state = self.book.state(name)
            if state is not None and state.sealed:
                return Result(name, state.serial, Ending.ALREADY)
            examiner.endorsement(shown, self._now())
            state = self.book.meet(name, msgspec.json.encode(shown), self._numbered, scanned)
            serial = state.serial
            job = _Job(self, unit, examiner, shown, state)
            for step in state.todo:
                outcome = job.act(step)
                if outcome.wait:
                    return Result(name, serial, Ending.WAITING, step)
                self.book.done(name, step, outcome.evidence, outcome.facts, certificates=outcome.certificates)
        except StateError:
            raise
        except HoldfastError as error:
            self.book.failed(name, step, error.code, error.detail)
            return Result(name, serial, Ending.FAILED, step, error.code, error.detail)
        return Result(name, serial, Ending.SEALED)


class _Job:
    """The steps of one unit: what one finds out, a later one uses, or reads from the ledger's evidence."""

    def __init__(
        self, station: Station, unit: Unit, examiner: Examiner, shown: Endorsement, state: UnitState
    ) -> None:
        self._station = station
        self._book = station.book
        self._plant = station._plant
        self._unit = unit
        self._examiner = examiner
        self._endorsement = shown
        self._state = state
        self._shown: Shown | None = None
        self._proved: ProvedKeys | None = None

    def act(self, step: StepName) -> Outcome:
        """Raises the errors of unit and examiner."""
        acts = {
            StepName.ENDORSEMENT: lambda: Outcome(msgspec.json.encode(self._endorsement)),
            StepName.KEYS: self._keys,
            StepName.ACTIVATION: self._activation,
            StepName.ISSUE: self._issue,
            StepName.INSTALL: self._install,
            StepName.INSPECTION: self._inspection,
            StepName.LOCK: self._lock,
            StepName.LABEL: self._label,
        }
        return acts[step]()

    def _keys(self) -> Outcome:
        self._shown = self._unit.keys(self._plant.product.model, self._state.serial)
        self.proved()
        return Outcome(msgspec.json.encode(self._shown))

    def proved(self) -> ProvedKeys:
        """The keys, judged anew from what the unit showed, though that was in another station's time."""
        if self._proved is None:
            if self._shown is None:
                self._shown = self._recall_shown()
            self._proved = self._examiner.keys(
                self._shown, self._endorsement, self._plant.product.model, self._state.serial
            )
        return self._proved

    def _recall_shown(self) -> Shown:
        kept = self._book.evidence(self._state.evidence[StepName.KEYS])
        try:
            return msgspec.json.decode(kept, type=Shown)
        except msgspec.MsgspecError as error:
            raise StateCorrupt("ledger.evidence", f"the keys of {self._state.serial}: {error}") from error

    def _activation(self) -> Outcome:
        sealed = self._examiner.seal(self.proved(), self._endorsement, self._station._random)
        if sealed is None:
            return Outcome(facts={"proved": False})
        box, secret = sealed
        require_activated(self._unit.activate(box), secret)
        return Outcome(facts={"proved": True})

    def _issue(self) -> Outcome:
        keys, plant, state = self.proved(), self._plant, self._state
        reserved = self._book.reserve(
            issuing.wanted(state.unit, keys, plant.issuer, self._station._random, self._station._now())
        )
        if plant.issuing is None:
            return Outcome(wait=len(state.certificates) < len(reserved))
        ca = issuing.Issuer(plant.product, plant.issuer, plant.issuing)
        signed = {
            each.purpose: issuing.sign(ca, each, state.serial)
            for each in reserved
            if each.purpose not in state.certificates
        }
        return Outcome(certificates=signed)

    def _certificates(self) -> Certificates:
        """What stands in the ledger, which is what counts, whoever else may have signed at the same time."""
        state = self._book.state(self._state.unit)
        if state is None or Purpose.IDEVID not in state.certificates:
            raise StateCorrupt("ledger.unreserved", f"{self._state.serial} has no certificate in the ledger")
        return Certificates(
            state.certificates[Purpose.IDEVID],
            state.certificates.get(Purpose.IAK, b""),
            self._plant.issuer.public_bytes(Encoding.DER),
        )

    def _install(self) -> Outcome:
        self._unit.install(self._certificates())
        return Outcome()

    def _inspection(self) -> Outcome:
        installed = self._certificates()
        challenge = self._station._random(CHALLENGE_OCTETS)
        read = self._unit.read_back(challenge)
        self._examiner.read_back(read, installed, challenge)
        _check_path(certificates.load(read.idevid), self._plant.issuer)
        return Outcome(challenge + read.signature)

    def _lock(self) -> Outcome:
        return Outcome(facts={"locked": list(self._unit.lock())})

    def _label(self) -> Outcome:
        label = label_of(self._plant, self._state, self._certificates(), self._station._now())
        return Outcome(self._station._printer(label))


def label_of(plant: Plant, state: UnitState, installed: Certificates, made: datetime) -> Label:
    """What stands on the unit."""
    product = plant.product
    idevid = certificates.load(installed.idevid)
    return Label(
        serial=state.serial,
        model=product.model,
        organization=product.organization,
        unit=state.unit,
        idevid=idevid.fingerprint(hashes.SHA256()).hex(),
        masa_url=product.masa_url,
        made=made,
    )


def _check_path(idevid: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        idevid.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature) as error:
        raise TrustError("factory.inspection", "the IDevID in the unit is not of this factory") from error
