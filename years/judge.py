"""What must hold at every instant of a life. A judge is told of steps and raises Violation."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature

from holdfast.life.record import (
    CredentialState,
    DeviceRecord,
    Identity,
    Move,
    Schedule,
    TransactionState,
)
from holdfast.wire.errors import HoldfastError, KeyStoreError, StateCorrupt, StateError

from .clocks import Time
from .estate import Estate
from .gateway import HEARTBEAT, Gateway, Woken

LONGEST_WITHOUT: Final = timedelta(hours=6, minutes=1)
"""Without a usable credential an attempt comes at least this soon, unless a server asked for patience."""

LONGEST_PATIENCE: Final = timedelta(days=4, minutes=1)
"""What a server may ask for (RFC 8995 §5.6 names no limit; the exchanges do)."""

CURED_WITHIN: Final = timedelta(days=6)
"""A device is well again so soon after the last misfortune has ended."""

MOST_STEPS_A_DAY: Final = 320
"""A poll every five minutes, where a server lets the device wait for days, and some more."""


LEADS_DOWN: Final = re.compile(
    r"transport\.(dns|unreachable|timeout|proxy|closed|truncated|broken)"
    r"|key\.unsuitable|[a-z]+\.(unsupported|unavailable)"
    r"|scep\.(no-recipient|get-challenge)|cmc\.(noSupport|unsigned)"
)
"""What may lead down a ladder, as the judge knows it from the texts and not from the agent. An unsigned CMC
answer says as much as a 503 of HTTP: the server cannot serve (RFC 10002 §3.2.1.3.4), and no more."""


class Violation(Exception):
    """A rule that did not hold; the text says which, and what was seen."""


class Judge:
    """Knows the truth: true time, what the CAs really issued, which keys the TPM would really take."""

    def __init__(self, time: Time, estate: Estate, gateway: Gateway) -> None:
        self._time = time
        self._estate = estate
        self._gateway = gateway
        self._names = estate.house.names
        self._floor: datetime | None = None
        self._generations: dict[str, int] = {}
        self._moves: dict[str, tuple[Move, ...]] = {}
        self._day = -1
        self._steps = 0
        self._damaged = False
        self.record: DeviceRecord | None = None
        self.enrolled: set[str] = set()
        self.most_steps = 0

    # --- what the judge is told ----------------------------------------------------------------------

    def forget(self, *, damaged: bool) -> None:
        """The disk lost its memory, and with it the floor; *damaged*: one load may say so."""
        self._floor, self._damaged = None, self._damaged or damaged
        self._generations.clear()
        self._moves.clear()

    def look(self, woken: Woken, *, calm: bool = False) -> None:
        """A step ended by itself; *calm*: nothing has befallen the device for a while. Raises Violation."""
        self._count()
        if self._estate.strayed and len(self._names) == 1:
            raise Violation("it was lied to in one place, and asked for a certificate in another")
        if woken.error is not None:
            self._check_error(woken.error)
            return
        assert woken.report is not None
        self.record = record = woken.report.record
        self._damaged = False
        self._check_floor(record)
        self._floor = record.floor
        if unknown := {i.name for i in record.identities} - set(self._names):
            raise Violation(f"identities {sorted(unknown)}")
        self._check_keys(record)
        for entry in self.entries:
            self._check_credential(entry, calm=calm)
            self._check_moves(entry)

    def _count(self) -> None:
        day = (self._time.now - self._time.began).days
        self._steps = self._steps + 1 if day == self._day else 1
        self._day = day

    def scheduled(self) -> None:
        """The step just told was one that the agent's own schedule asked for. Raises Violation."""
        self.most_steps = max(self.most_steps, self._steps)
        if self._steps > MOST_STEPS_A_DAY * len(self._names):
            raise Violation(f"a busy loop: {self._steps} steps on day {self._day}")

    # --- what must hold between steps ----------------------------------------------------------------

    @property
    def entries(self) -> tuple[Identity, ...]:
        """The identities that the device should have, as the last record has them."""
        return tuple(self.record.identity(name) for name in self._names) if self.record else ()

    @property
    def certificates(self) -> int:
        """How many the device has had since it last knew nothing."""
        return sum(entry.credential.generation for entry in self.entries)

    def check_wait(self, until: datetime | None) -> timedelta:
        """The device sleeps from now *until* its next step. Returns for how long of it the device lacks a
        usable credential. Raises Violation if that is too long."""
        if until is None or until - self._time.now > HEARTBEAT:
            raise Violation("no next attempt")
        return max((self._check_wait(e, until) for e in self.entries), default=timedelta(0))

    def _check_wait(self, entry: Identity, until: datetime) -> timedelta:
        if entry.name not in self.enrolled:
            return timedelta(0)
        gap = until - max(self._time.now, min(self.usable_until(entry), until))
        longest = self._longest_wait(entry)
        if gap > longest:
            raise Violation(f"{gap} without a usable credential and without an attempt, at most {longest}")
        return gap

    def _longest_wait(self, entry: Identity) -> timedelta:
        if self._gateway.keys.mood != "well":
            return HEARTBEAT  # it cannot know that the key is gone; the host looks when the TPM is mended
        wrong = not self._gateway.clock.right or not self._gateway.clock.synchronised
        active = entry.credential.state is CredentialState.ACTIVE
        if wrong and active and self._gateway.keys.usable(entry.credential.key):
            return HEARTBEAT  # it cannot know how late it is
        record = self.record
        assert record is not None
        asked = record.domain.polls > 0 or entry.transaction.state is TransactionState.PENDING
        patience = self._estate.patience_until - self._time.now + timedelta(minutes=1)
        return LONGEST_PATIENCE if asked else max(LONGEST_WITHOUT, patience)

    def usable_until(self, entry: Identity) -> datetime:
        """The end of the credential by the true time, or the beginning of time if it is of no use."""
        if entry.credential.state is not CredentialState.ACTIVE or not self._gateway.keys.usable(
            entry.credential.key
        ):
            return self._time.began
        return parsed(entry.credential.chain[0]).not_valid_after_utc

    @property
    def stranded(self) -> bool:
        """Whether the owner has cut the device off, see :meth:`excused_until`."""
        return any(self._cut_off(entry) for entry in self.entries)

    def excused_until(self, since: datetime) -> datetime | None:
        """Until when the device may be unwell, although nothing befell it since *since*: None if it may not.

        The owner may have cut it off: he takes its certificate no more (it was revoked, or its CA retired),
        or his servers went to a new root before the device could hear of it. That lasts until the certificate
        ends; but where the owner publishes what he revoked, only until the device must have asked.
        """
        moments = [self._excuse(entry, since) for entry in self.entries if self._cut_off(entry)]
        return max(moments, default=None)

    def _excuse(self, entry: Identity, since: datetime) -> datetime:
        leaf = parsed(entry.credential.chain[0])
        end, revoked = leaf.not_valid_after_utc, self._estate.revoked_at.get(leaf.serial_number)
        if revoked is None or not self._accepted(leaf) or not self._estate.publishes(leaf):
            return end
        return min(end, max(revoked, since) + 2 * self._estate.house.interval)

    def _cut_off(self, entry: Identity) -> bool:
        if self.record is None or entry.credential.state is not CredentialState.ACTIVE:
            return False
        leaf = parsed(entry.credential.chain[0])
        return leaf.serial_number in self._estate.world.revoked or not self._accepted(leaf)

    def _accepted(self, leaf: x509.Certificate) -> bool:
        """Whether servers that the device can trust take certificates like *leaf*."""
        assert self.record is not None
        domain = self._estate.world.domain
        known = {parsed(a.certificate) for a in self.record.domain.anchors}
        reached = {domain.root.certificate, domain.registrar.chain[-1]} <= known
        return reached and leaf.issuer in {c.subject for c in domain.intermediates}

    def well(self) -> bool:
        """Whether the device has all usable credentials, in quiet, and no renewal is overdue."""
        return (
            bool(self.entries)
            and not self.stranded
            and all(
                self.usable_until(entry) > self._time.now
                and entry.transaction.state is TransactionState.NONE
                and entry.schedule.attempts == 0
                for entry in self.entries
            )
        )

    def check_cured(self) -> None:
        """Raises Violation unless the device is well: nothing has befallen it for long enough."""
        if not self.well():
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

    def _check_keys(self, record: DeviceRecord) -> None:
        held, named = self._gateway.keys.refs(), record.key_refs()
        if self._gateway.keys.mood == "well" and held - named:
            raise Violation(f"orphan keys {sorted(held - named)}")
        used = {key for entry in self.entries for key in (entry.credential.key, entry.account)}
        quiet = all(
            entry.transaction.state is TransactionState.NONE
            and not entry.retiring
            and entry.credential.state is CredentialState.ACTIVE
            for entry in self.entries
        )
        if quiet and held - used:
            raise Violation(f"keys {sorted(held)} in quiet, {sorted(used)} are in use")

    def _check_credential(self, entry: Identity, *, calm: bool) -> None:
        credential = entry.credential
        if credential.state is not CredentialState.ACTIVE:
            return
        self.enrolled.add(entry.name)
        if credential.generation != self._generations.get(entry.name):
            self._generations[entry.name] = credential.generation
            self._check_origin(entry)
            if calm and entry.ladder.rung != self._rungs(entry)[0]:
                raise Violation(f"in calm, and its certificate comes from the rung {entry.ladder.rung}")
        disk = self._gateway.disk
        if entry.transaction.state is TransactionState.NONE and not entry.schedule.attempts:
            current = self._gateway.deployed(entry.name)
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

    def _check_moves(self, entry: Identity) -> None:
        """Down the ladder only because a server is out of reach, or has not what was asked for."""
        before, rungs = self._moves.get(entry.name, ()), self._rungs(entry)
        self._moves[entry.name] = entry.ladder.moves
        for move in entry.ladder.moves:
            down = rungs.index(move.target) > rungs.index(move.source)
            if move not in before and down and not LEADS_DOWN.fullmatch(move.code):
                raise Violation(f"{move.code} led down the ladder from {move.source} to {move.target}")

    def _rungs(self, entry: Identity) -> tuple[str, ...]:
        return next(s.rungs for s in self._gateway.settings.identities if s.name == entry.name)


def in_words(record: DeviceRecord | None) -> str:
    """Where the device stands, in a line."""
    if record is None:
        return "no record"
    if not record.identities:
        return f"no identity, {record.domain.state.value}" + _in_words(record.schedule)
    return f"{record.domain.state.value}, " + " and ".join(
        f"{entry.credential.state.value} {entry.credential.generation}, {entry.transaction.state.value}"
        + (_in_words(entry.schedule) or _in_words(record.schedule))
        for entry in record.identities
    )


def _in_words(schedule: Schedule) -> str:
    trouble = schedule.trouble
    if trouble is None:
        return ""
    return f"; {schedule.attempts} failures: {trouble.code} {trouble.detail[:80]}"


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
