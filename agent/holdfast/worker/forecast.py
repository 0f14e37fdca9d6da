"""What the next steps will do if all goes well: the rules themselves, played over a copy of the record.

Pure: no network, no disk, no TPM. What only the world can tell (a certificate, a voucher) is stood in for.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from holdfast.host.config import IdentitySettings, Settings
from holdfast.keys.api import KeyRef
from holdfast.life import events as ev
from holdfast.life.machine import decide
from holdfast.life.record import Anchor, CredentialState, DeviceRecord, DomainState, Hint, Provenance
from holdfast.life.search import Candidate, Source
from holdfast.wire.discovery.announced import Role
from holdfast.wire.model import Moment, Purpose
from holdfast.worker.agenda import next_due, opening
from holdfast.worker.candidates import must_seek, whom_to_ask

DOMAIN: Final = ""
_MOST_EFFECTS: Final = 50
_MOST_LOOKS: Final = 3
_STAND_IN: Final = b"not issued yet"
_SOMEBODY: Final = Candidate("", Role.REGISTRAR, Source.LIST)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """At *at* the part named *identity* (DOMAIN: the device as a whole) takes the *effects* in order."""

    identity: str
    at: datetime
    effects: tuple[ev.Effect, ...]


def foresee(
    record: DeviceRecord, settings: Settings, identities: tuple[IdentitySettings, ...], now: Moment
) -> tuple[Foreseen, ...]:
    """What comes next for the domain, while the device belongs to nobody, and for each of *identities*."""
    told = []
    if record.domain.state is not DomainState.VOUCHED:
        at = max(next_due(record, settings.identities, now), now.now)
        registrar = whom_to_ask(record, settings)
        then = _at(now, at)
        record, effects = _play(record, ev.BootstrapDue(must_seek(record, settings)), then, "", registrar)
        told.append(Foreseen(DOMAIN, at, effects))
        now = then
    told += [f for f in (_foresee(record, i, now) for i in identities) if f is not None]
    return tuple(told)


def _foresee(record: DeviceRecord, identity: IdentitySettings, now: Moment) -> Foreseen | None:
    """The next time that something is done for *identity*, not only looked at."""
    for _ in range(_MOST_LOOKS):
        at = max(next_due(record, (identity,), now), now.now)
        now = _at(now, at)
        effects: tuple[ev.Effect, ...] = ()
        event = opening(record.identity(identity.name), identity, now, wanted=False)
        if event is not None:
            record, effects = _play(record, event, now, identity.name, "")
        entry = record.identity(identity.name)
        if entry.credential.state is CredentialState.ACTIVE and not entry.deployment.complete:
            record, also = _play(record, ev.DeployDue(), now, identity.name, "")
            effects += also
        if effects:
            return Foreseen(identity.name, at, effects)
    return None


def _at(now: Moment, moment: datetime) -> Moment:
    return replace(now, now=max(moment, now.floor))


def _play(
    record: DeviceRecord, event: ev.DomainEvent | ev.IdentityEvent, now: Moment, identity: str, registrar: str
) -> tuple[DeviceRecord, tuple[ev.Effect, ...]]:
    """Follow *event* as a step does, each effect going well."""
    record, found = decide(record, event, now, identity=identity)
    todo = deque(found)
    done: list[ev.Effect] = []
    while todo and len(done) < _MOST_EFFECTS:
        effect = todo.popleft()
        done.append(effect)
        happened = _supposed(effect, record, identity, registrar, now)
        record, found = decide(record, happened, now, identity=identity)
        todo.extendleft(reversed(found))
    return record, tuple(done)


def _supposed(
    effect: ev.Effect, record: DeviceRecord, identity: str, registrar: str, now: Moment
) -> ev.DomainEvent | ev.IdentityEvent:
    """What happens if *effect* goes well."""
    match effect:
        case ev.SeekRegistrars():
            return ev.CandidatesFound((_SOMEBODY,))
        case ev.PrepareAttempt():
            return ev.AttemptPrepared(registrar, "", b"", b"", now.now)
        case ev.RequestVoucher():
            return ev.VoucherAccepted(b"", Anchor(_STAND_IN, Provenance.VOUCHER, now.now))
        case ev.Discover(purpose):
            return _offer(record, identity, purpose)
        case ev.Enroll() | ev.Resume():
            return ev.CertificateIssued((_STAND_IN,), now.now)
        case ev.CheckStanding():
            return ev.StandingKnown(now.now)
        case ev.AskHint():
            return ev.HintHeard(Hint(now.now))
        case _:
            return _WELL[type(effect)]


_WELL: Final[Mapping[type[ev.Effect], ev.IdentityEvent]] = {
    ev.MakeRequest: ev.CsrMade(_STAND_IN),
    ev.ProveCredential: ev.CredentialProved(),
    ev.Deploy: ev.FilesPlaced("", anew=True),
    ev.RunHook: ev.HooksEnded(complete=True),
    ev.RetireKeys: ev.KeysRetired(),
}


def _offer(record: DeviceRecord, identity: str, purpose: Purpose) -> ev.OfferTaken:
    """An offer that changes nothing in the domain, and a key of the next generation."""
    credential = record.identity(identity).credential
    generation = credential.generation + 1
    key = credential.key if purpose is Purpose.RENEW else KeyRef(f"generation {generation}")
    return ev.OfferTaken(
        purpose=purpose,
        rung="",
        protocol="",
        key=key,
        algorithm=record.identity(identity).transaction.algorithm,
        generation=generation,
        transaction="",
        wishes=b"",
        anchors=record.domain.anchors,
        intermediates=record.domain.intermediates,
    )
