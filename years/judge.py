"""What must hold at every instant of a life. A judge is told of steps and raises Violation."""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from holdfast.life.record import CredentialState, DeviceRecord, Identity, TransactionState
from holdfast.wire.errors import HoldfastError, KeyStoreError, StateCorrupt, StateError

from .clocks import Time
from .estate import Estate
from .gateway import HEARTBEAT, IDENTITY, Gateway, Woken

LONGEST_WITHOUT: Final = timedelta(hours=6, minutes=1)
"""Without a usable credential an attempt comes at least this soon, unless a server asked for patience."""

LONGEST_PATIENCE: Final = timedelta(days=4, minutes=1)
"""What a server may ask for (RFC 8995 §5.6 names no limit; the exchanges do)."""

CURED_WITHIN: Final = timedelta(days=6)
"""A device is well again so soon after the last misfortune has ended."""

MOST_STEPS_A_DAY: Final = 320
"""A poll every five minutes, where a server lets the device wait for days, and some more."""


class Violation(Exception):
    """A rule that did not hold; the text says which, and what was seen."""


class Judge:
    """Knows the truth: true time, what the CAs really issued, which keys the TPM would really take."""

    def __init__(self, time: Time, estate: Estate, gateway: Gateway) -> None:
        self._time = time
        self._estate = estate
        self._gateway = gateway
        self._floor: datetime | None = None
        self._generation = -1
        self._day = -1
        self._steps = 0
        self._damaged = False
        self.record: DeviceRecord | None = None
        self.enrolled = False
        self.most_steps = 0

    # --- what the judge is told ----------------------------------------------------------------------

    def forget(self, *, damaged: bool) -> None:
        """The disk lost its memory, and with it the floor; *damaged*: one load may say so."""
        self._floor, self._generation, self._damaged = None, -1, self._damaged or damaged

    def look(self, woken: Woken) -> None:
        """A step ended by itself. Raises Violation."""
        self._count()
        if woken.error is not None:
            self._check_error(woken.error)
            return
        assert woken.report is not None
        self.record = record = woken.report.record
        self._damaged = False
        self._check_floor(record)
        self._floor = record.floor
        if [i.name for i in record.identities] not in ([], [IDENTITY]):
            raise Violation(f"identities {[i.name for i in record.identities]}")
        entry = record.identity(IDENTITY)
        self._check_keys(record, entry)
        self._check_credential(entry)

    def _count(self) -> None:
        day = (self._time.now - self._time.began).days
        self._steps = self._steps + 1 if day == self._day else 1
        self._day = day

    def scheduled(self) -> None:
        """The step just told was one that the agent's own schedule asked for. Raises Violation."""
        self.most_steps = max(self.most_steps, self._steps)
        if self._steps > MOST_STEPS_A_DAY:
            raise Violation(f"a busy loop: {self._steps} steps on day {self._day}")

    # --- what must hold between steps ----------------------------------------------------------------

    def check_wait(self, until: datetime | None) -> timedelta:
        """The device sleeps from now *until* its next step. Returns for how long of it the device has no
        usable credential. Raises Violation if that is too long."""
        if until is None or until - self._time.now > HEARTBEAT:
            raise Violation("no next attempt")
        if not self.enrolled:
            return timedelta(0)
        gap = until - max(self._time.now, min(self.usable_until(), until))
        longest = self._longest_wait()
        if gap > longest:
            raise Violation(f"{gap} without a usable credential and without an attempt, at most {longest}")
        return gap

    def _longest_wait(self) -> timedelta:
        if not self._gateway.clock.right or not self._gateway.clock.synchronised:
            return HEARTBEAT  # it cannot know how late it is
        if self._gateway.keys.mood != "well":
            return HEARTBEAT  # nor that the key is gone; the host looks when the TPM is mended
        record = self.record
        assert record is not None
        asked = (
            record.domain.polls > 0 or record.identity(IDENTITY).transaction.state is TransactionState.PENDING
        )
        patience = self._estate.patience_until - self._time.now + timedelta(minutes=1)
        return LONGEST_PATIENCE if asked else max(LONGEST_WITHOUT, patience)

    def usable_until(self) -> datetime:
        """The end of the credential by the true time, or the beginning of time if it is of no use."""
        entry = self.record.identity(IDENTITY) if self.record else None
        if (
            entry is None
            or entry.credential.state is not CredentialState.ACTIVE
            or not self._gateway.keys.usable(entry.credential.key)
        ):
            return self._time.began
        return parsed(entry.credential.chain[0]).not_valid_after_utc

    @property
    def stranded(self) -> bool:
        """Whether the owner has cut the device off until its certificate ends: he takes it no more (it was
        revoked, or its CA retired), or his servers went to a new root before the device could hear of it."""
        entry = self.record.identity(IDENTITY) if self.record else None
        if self.record is None or entry is None or entry.credential.state is not CredentialState.ACTIVE:
            return False
        leaf, world = parsed(entry.credential.chain[0]), self._estate.world
        if leaf.serial_number in world.revoked:
            return True
        known = {parsed(a.certificate) for a in self.record.domain.anchors}
        reached = {world.domain.root.certificate, world.domain.registrar.chain[-1]} <= known
        return not reached or leaf.issuer not in {c.subject for c in world.domain.intermediates}

    def well(self) -> bool:
        """Whether the device has a usable credential, in quiet, and its renewal is not overdue."""
        entry = self.record.identity(IDENTITY) if self.record else None
        return (
            entry is not None
            and self.usable_until() > self._time.now
            and entry.transaction.state is TransactionState.NONE
            and entry.schedule.attempts == 0
            and not self.stranded
        )

    def check_cured(self) -> None:
        """Raises Violation unless the device is well: nothing has befallen it for long enough."""
        if not self.well() and not self.stranded:
            raise Violation(f"not well {CURED_WITHIN} after the last misfortune: {in_words(self.record)}")

    # --- rules ---------------------------------------------------------------------------------------

    def _check_error(self, error: HoldfastError) -> None:
        """Which errors may end a step: those of a disk or a TPM that is ill right now."""
        disk, keys = self._gateway.disk, self._gateway.keys
        if isinstance(error, StateCorrupt):
            if not self._damaged:
                raise Violation(f"no whole record: {error}")
            self._damaged = False
        elif isinstance(error, StateError):
            if not (disk.full or disk.read_only):
                raise Violation(f"a step ended with {error}, and the disk is well")
        elif not isinstance(error, KeyStoreError) or keys.mood == "well":
            raise Violation(f"a step ended with {type(error).__name__} {error}")

    def _check_floor(self, record: DeviceRecord) -> None:
        """It falls only to where a trusted clock stands: what was above came from one that was wrong."""
        if self._floor is None or record.floor >= self._floor:
            return
        clock = self._gateway.clock
        if not clock.synchronised or abs(self._time.now + clock.error - record.floor) > timedelta(minutes=1):
            raise Violation(f"the floor fell from {self._floor} to {record.floor}")

    def _check_keys(self, record: DeviceRecord, entry: Identity) -> None:
        held, named = self._gateway.keys.refs(), record.key_refs()
        if self._gateway.keys.mood == "well" and held - named:
            raise Violation(f"orphan keys {sorted(held - named)}")
        quiet = entry.transaction.state is TransactionState.NONE and not entry.retiring
        if quiet and entry.credential.state is CredentialState.ACTIVE and held - {entry.credential.key}:
            raise Violation(f"keys {sorted(held)} in quiet, {entry.credential.key} is in use")

    def _check_credential(self, entry: Identity) -> None:
        credential = entry.credential
        if credential.state is not CredentialState.ACTIVE:
            return
        self.enrolled = True
        if credential.generation != self._generation:
            self._generation = credential.generation
            self._check_origin(entry)
        disk = self._gateway.disk
        if entry.transaction.state is TransactionState.NONE and not entry.schedule.attempts:
            current = self._gateway.deployed()
            if current != f"generation-{credential.generation}" and not (disk.full or disk.read_only):
                raise Violation(f"generation {credential.generation} is active, {current} is deployed")

    def _check_origin(self, entry: Identity) -> None:
        """A new credential is for its key, and from the owner's CA."""
        leaf = parsed(entry.credential.chain[0])
        key = self._gateway.keys.keys.get(entry.credential.key)
        if key is not None and key.key.public_key() != leaf.public_key():
            raise Violation("the credential's key is not that of its certificate")
        if not any(_issued_by(leaf, issuer) for issuer in self._estate.honest):
            raise Violation(f"the certificate is not from the owner's CA but from {leaf.issuer}")


def in_words(record: DeviceRecord | None) -> str:
    """Where the device stands, in a line."""
    if record is None:
        return "no record"
    entry = record.identity(IDENTITY)
    trouble = entry.schedule.trouble or record.schedule.trouble
    return (
        f"{entry.credential.state.value} {entry.credential.generation}, {record.domain.state.value}, "
        f"{entry.transaction.state.value}"
        + (f"; {max(entry.schedule.attempts, record.schedule.attempts)} failures: " if trouble else "")
        + (f"{trouble.code} {trouble.detail[:80]}" if trouble else "")
    )


def _issued_by(leaf: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    return True


@lru_cache(64)
def parsed(der: bytes) -> x509.Certificate:
    """The certificate in *der*."""
    return x509.load_der_x509_certificate(der)
