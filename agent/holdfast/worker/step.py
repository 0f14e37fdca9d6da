"""One step: load the record, decide, act, commit, and say when to come back.

The record is committed after every transition and before the effect that follows it, so a power cut
between any two of them repeats one effect at most, and every effect can be repeated.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from holdfast.host.clock import BUILD_TIME, believed
from holdfast.host.config import IdentitySettings
from holdfast.keys.api import Homed
from holdfast.life import events as ev
from holdfast.life.machine import decide
from holdfast.life.record import (
    CredentialState,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Schedule,
    TransactionState,
)
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import (
    HoldfastError,
    KeyLocked,
    KeyStoreError,
    KeyStoreUnavailable,
    LocalProtocolError,
    RemoteProtocolError,
    TrustError,
)
from holdfast.wire.model import Chain, Moment, Purpose, SigningKey
from holdfast.worker.agenda import (
    hint_due,
    lives_again,
    next_due,
    opening,
    remaining_life,
    server_wait,
    waiting,
)
from holdfast.worker.allowance import allowance, allowed
from holdfast.worker.ascent import Ascent
from holdfast.worker.bootstrap import Bootstrap
from holdfast.worker.candidates import domain_opening
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.deployment import Deployer
from holdfast.worker.dropped import dropped_due, settle
from holdfast.worker.enrollment import Enrollment, RefusedError, unheard
from holdfast.worker.links import Connection, Endpoint
from holdfast.worker.ports import Doing, Environment, Trace
from holdfast.worker.proof import PROOF_ATTEMPTS, proof_refused, tell_of_failure
from holdfast.worker.relocation import Relocation, may_have_moved
from holdfast.worker.rungs import Rung, at_registrar, rung_of
from holdfast.worker.setbacks import (
    EARLY_ATTEMPTS,
    PATIENCE_WITH_TIME,
    is_of_time,
    key_is_gone,
    next_attempt,
    trouble,
)
from holdfast.worker.standing import Inquiry

MOST_EFFECTS: Final = 200
"""A step that does more than this goes in circles."""

SHORTEST_WAIT: Final = timedelta(seconds=1)
"""A server that asks for no patience at all still gets some."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """The record after the step, what it did, and when the next one is due: a date by the host's clock, and
    how long that is from now, for a host that has no clock."""

    record: DeviceRecord
    traces: tuple[Trace, ...]
    due: datetime
    wait: timedelta
    note: str


class Step:
    """One run over the device and its identities."""

    def __init__(
        self, env: Environment, *, renew: frozenset[str] = frozenset(), hasten: bool = False
    ) -> None:
        """*renew* names identities that an operator wants renewed now, whatever their age. *hasten*: the
        network has just come up, so nobody waits any longer because it was not there."""
        self._env = env
        self._renew = set(renew)
        self._hasten = hasten
        self._traces: list[Trace] = []
        self._record = DeviceRecord(floor=BUILD_TIME)

    def run(self) -> StepReport:
        """Do everything that is due. Short waits that a server asked for are waited out on the open link.

        Raises StateError when the record cannot be loaded or committed, KeyStoreError when orphan keys
        cannot be cleared away; every other failure ends up in the record.
        """
        loaded = self._env.store.load()
        if loaded.record is not None:
            self._record = loaded.record
        self._check_hardware()
        settle(self._record, self._env.settings, self._now(), self._env.random, self._note)
        self._collect_orphans()
        patience = timedelta(seconds=self._env.settings.limits.inline_wait_seconds)
        with Connection(self._env.transport) as connection:
            while True:
                self._round(connection)
                if self._renew and self._record.domain.state is DomainState.VOUCHED:
                    self._round(connection)
                wait = server_wait(self._record, self._env.settings.identities, self._now())
                if wait is None or max(wait, SHORTEST_WAIT) > patience:
                    break
                wait = max(wait, SHORTEST_WAIT)
                patience -= wait
                self._env.announce(Doing("Wait", "", allowance(wait)))
                self._env.clock.wait(wait.total_seconds())
        now = self._now()
        dues = (next_due(self._record, self._env.settings.identities, now), *dropped_due(self._record))
        due = min(dues)
        wait = max(due - now.now, timedelta(0))
        return StepReport(self._record, tuple(self._traces), due, wait, loaded.note)

    # --- rounds ------------------------------------------------------------------------------------

    def _round(self, connection: Connection) -> None:
        hasten, self._hasten = self._hasten, False  # an attempt that fails again has a wait of its own
        domain_waits = waiting(self._record.schedule, self._now(), hasten=hasten)
        whose = domain_opening(self._record, self._env.settings, waits=domain_waits)
        if whose is not None:
            self._play(connection, whose, None)
        for settings in self._in_turn():
            if self._record.domain.state is not DomainState.VOUCHED:
                return
            if lives_again(self._record.identity(settings.name), self._now()):
                self._revive(connection, settings)
            entry = self._record.identity(settings.name)
            wanted = settings.name in self._renew
            self._renew.discard(settings.name)
            event = self._loss(entry) or opening(entry, settings, self._now(), wanted=wanted, hasten=hasten)
            registrar = self._record.domain.registrar
            if event is not None:
                self._play_alone(connection, event, settings)
            if wanted and self._record.domain.registrar != registrar:
                self._renew.add(settings.name)  # it was found elsewhere, and has not heard of the wish yet
            if hint_due(self._record.identity(settings.name), settings, self._now()):
                self._play_alone(connection, ev.HintDue(), settings)
            if Inquiry(self._env, connection, settings).due(self._record, self._now()):
                self._play_alone(connection, ev.StandingDue(), settings)
            if Deployer(self._env, settings).due(self._record, self._now()):
                self._play_alone(connection, ev.DeployDue(), settings)

    def _in_turn(self) -> list[IdentitySettings]:
        """The identities as configured, those that failed last behind the others: their servers may let us
        wait."""
        identities = self._env.settings.identities
        return sorted(identities, key=lambda s: self._record.identity(s.name).schedule.attempts > 0)

    def _play_alone(
        self, connection: Connection, event: ev.IdentityEvent, settings: IdentitySettings
    ) -> None:
        """Play *event* so that a mistake of ours in one identity's life does not hold up the others."""
        try:
            self._play(connection, event, settings)
        except LocalProtocolError as error:
            now = self._now()
            entry = self._record.identity(settings.name)
            due = next_attempt(entry.schedule, error, now, self._env.random)
            self._note(ev.AttemptFailed(trouble(error, now), due), settings.name)

    def _loss(self, entry: Identity) -> ev.CredentialLost | None:
        """Whether the key of the credential at rest is gone: a TPM may be cleared or replaced at any time,
        and nothing else would tell before the next renewal."""
        at_rest = entry.transaction.state is TransactionState.NONE
        if entry.credential.state is CredentialState.ACTIVE and at_rest:
            try:
                self._env.keys.load(entry.credential.key)
            except KeyStoreError as error:
                if key_is_gone(error):
                    return ev.CredentialLost(trouble(error, self._now()))
        return None

    def _revive(self, connection: Connection, settings: IdentitySettings) -> None:
        """Take a credential back whose life a wrong clock had ended, if it is of this domain."""
        domain, entry = self._record.domain, self._record.identity(settings.name)
        presented = (*load_chain(entry.credential.chain), *load_chain(domain.intermediates))
        try:
            validate(presented, certificates_of(domain.anchors), self._now(), Rule.issued())
        except TrustError:
            return
        self._play(connection, ev.CredentialRevived(), settings)

    def _play(
        self,
        connection: Connection,
        event: ev.DomainEvent | ev.IdentityEvent,
        settings: IdentitySettings | None,
    ) -> None:
        """Follow *event* and everything that comes of it until there is nothing left to do."""
        todo: deque[ev.Effect] = deque(self._take(event, settings))
        done = 0
        while todo:
            done += 1
            if done > MOST_EFFECTS:
                raise LocalProtocolError("step.circles", f"more than {MOST_EFFECTS} effects in one step")
            for happened in self._perform(connection, todo.popleft(), settings):
                todo.extendleft(reversed(self._take(happened, settings)))

    def _take(
        self, event: ev.DomainEvent | ev.IdentityEvent, settings: IdentitySettings | None
    ) -> tuple[ev.Effect, ...]:
        changed, effects = decide(
            self._record, event, self._now(), identity=settings.name if settings else ""
        )
        if changed != self._record:
            self._env.store.commit(changed)
            self._record = changed
        return effects

    # --- effects -----------------------------------------------------------------------------------

    def _perform(
        self, connection: Connection, effect: ev.Effect, settings: IdentitySettings | None
    ) -> Iterator[ev.DomainEvent | ev.IdentityEvent]:
        name = settings.name if settings else ""
        self._env.announce(Doing(type(effect).__name__, name, allowed(effect, self._env.settings, settings)))
        began, trips, opened = self._env.clock.monotonic(), connection.round_trips, connection.opened
        before = self._record.identity(name).transaction if settings else None
        happened = tuple(
            self._domain_effect(connection, effect)
            if isinstance(effect, ev.DomainEffect)
            else self._identity_effect(connection, effect, settings)
        )
        trace = Trace(
            name=type(effect).__name__,
            identity=name,
            began=began,
            ended=self._env.clock.monotonic(),
            round_trips=connection.round_trips - trips,
            connections=connection.opened - opened,
            result=", ".join(type(h).__name__ for h in happened) or "done",
            protocol=before.protocol if before else "brski",
            transaction=before.id if before else "",
        )
        self._traces.append(trace)
        self._env.observe(trace)
        yield from happened

    def _domain_effect(self, connection: Connection, effect: ev.DomainEffect) -> Iterator[ev.DomainEvent]:
        bootstrap = Bootstrap(self._env, connection)
        match effect:
            case ev.SeekRegistrars() if self._record.domain.state is DomainState.VOUCHED:
                yield Relocation(self._env, connection).seek(self._record, self._now())
            case ev.MeetRegistrar():
                yield Relocation(self._env, connection).meet(self._record, self._now())
            case ev.SeekRegistrars():
                yield from bootstrap.seek(self._record, self._now())
            case ev.PrepareAttempt():
                yield bootstrap.prepare(self._record, self._now())
            case ev.RequestVoucher():
                yield bootstrap.request(self._record, self._now())

    def _identity_effect(
        self, connection: Connection, effect: ev.IdentityEffect, settings: IdentitySettings | None
    ) -> Iterator[ev.DomainEvent | ev.IdentityEvent]:
        if settings is None:
            raise LocalProtocolError("step.no-identity", f"{type(effect).__name__} without an identity")
        ascent = Ascent(settings, self._record.identity(settings.name), self._now())
        try:
            happened = self._act(connection, settings, ascent, effect)
        except HoldfastError as error:
            yield from self._setback(connection, effect, settings, ascent, error)
        else:
            yield happened

    def _enrollment(
        self, connection: Connection, settings: IdentitySettings, name: Callable[[], str]
    ) -> Enrollment:
        def rung() -> Rung:
            return rung_of(
                settings,
                name(),
                self._record,
                self._env.random,
                asker=asker,
                device=device,
                solver=self._env.solver,
            )

        def device() -> str:
            return self._env.factory().serial_number

        def asker() -> tuple[Chain, SigningKey]:
            return enrollment.identity(self._record)

        enrollment = Enrollment(self._env, connection, settings, rung)
        return enrollment

    def _act(
        self, connection: Connection, settings: IdentitySettings, ascent: Ascent, effect: ev.IdentityEffect
    ) -> ev.IdentityEvent:
        record, now = self._record, self._now()
        match effect:
            case ev.Deploy():
                return Deployer(self._env, settings).place(record)
            case ev.CheckStanding():
                return Inquiry(self._env, connection, settings).ask(record, now)
            case ev.RunHook(number):
                return Deployer(self._env, settings).run_hook(record, number, now)
            case _:
                return self._enroll(connection, settings, ascent, effect)

    def _enroll(
        self,
        connection: Connection,
        settings: IdentitySettings,
        ascent: Ascent,
        effect: ev.RungEffect,
    ) -> ev.IdentityEvent:
        record, now = self._record, self._now()

        def on(name: str) -> Enrollment:
            return self._enrollment(connection, settings, lambda: name)

        enrollment = self._enrollment(connection, settings, ascent.rung_in_use)
        match effect:
            case ev.Discover(purpose):
                return ascent.discover(lambda name: on(name).discover(record, purpose, now))
            case ev.MakeRequest():
                return enrollment.make_request(record, now)
            case ev.Enroll(refreshed) | ev.Resume(refreshed):
                return enrollment.enroll(record, now, refreshed=refreshed)
            case ev.AskHint():
                return enrollment.ask_hint(record, now)
            case ev.ProveCredential():
                return ascent.prove(lambda name: on(name).prove(record, now), lambda name: on(name).judges)
            case ev.RetireKeys():
                return enrollment.retire(record)

    def _setback(
        self,
        connection: Connection,
        effect: ev.IdentityEffect,
        settings: IdentitySettings,
        ascent: Ascent,
        error: HoldfastError,
    ) -> Iterator[ev.DomainEvent | ev.IdentityEvent]:
        now = self._now()
        entry = self._record.identity(settings.name)
        due = next_attempt(entry.schedule, error, now, self._env.random, remaining=remaining_life(entry, now))
        what = trouble(error, now)
        if isinstance(effect, ev.AskHint):
            yield unheard(entry, what, now)
            return
        if _lost(effect, entry, error):
            yield ev.CredentialLost(what)
        elif isinstance(effect, ev.Deploy):
            yield self._not_deployed(entry, settings, error, now)
        elif _too_early(effect, entry, error):
            yield ev.IssuedTooEarly(what, due)
        elif (forsaken := ascent.forsaken(error)) is not None:
            yield forsaken
        elif _hopeless(effect, entry, error):
            if isinstance(effect, ev.Enroll | ev.Resume):
                registrar = Endpoint.parse(self._record.domain.registrar)
                tell_of_failure(connection, registrar, error.code, error.detail)
            yield ev.EnrollmentFailed(what, due)
        elif isinstance(effect, ev.ProveCredential) and proof_refused(error):
            yield ev.ProofRefused(what, due)
        else:
            yield ev.AttemptFailed(what, due)
        yield from self._place_or_domain(effect, settings, ascent, error)

    def _place_or_domain(
        self, effect: ev.IdentityEffect, settings: IdentitySettings, ascent: Ascent, error: HoldfastError
    ) -> Iterator[ev.DomainEvent]:
        """What *error* says of the registrar's place, or of the whole domain."""
        now, entry = self._now(), self._record.identity(settings.name)
        if self._registrar_moved(effect, settings, ascent, error, now):
            yield ev.RegistrarLost(trouble(error, now), distrusted=isinstance(error, TrustError))
            return
        elsewhere = isinstance(effect, ev.ProveCredential) and settings.verify_url is not None
        elsewhere = elsewhere or ascent.lower or ascent.outside
        patient = _shows_ended(entry) or (
            is_of_time(error) and entry.schedule.attempts + 1 < PATIENCE_WITH_TIME
        )
        if _estranged(error) and not (elsewhere or patient) and not self._anyone_active():
            alone = replace(self._record, domain=Domain())  # whose clock knows less, and so may the time be
            after = believed(self._env.clock, alone.proven, alone.time_floor)
            due = next_attempt(entry.schedule, error, after, self._env.random)
            yield ev.DomainLost(trouble(error, after), due)

    def _registrar_moved(
        self,
        effect: ev.IdentityEffect,
        settings: IdentitySettings,
        ascent: Ascent,
        error: HoldfastError,
        now: Moment,
    ) -> bool:
        """Whether *error* was met at the registrar's place, and is reason to look for it elsewhere."""
        if not isinstance(effect, ev.RungEffect) or not at_registrar(settings, ascent.rung):
            return False
        if isinstance(effect, ev.ProveCredential) and settings.verify_url is not None:
            return False
        asked = self._env.settings
        choices = len(asked.registrars) if asked.discovery is None else 2
        return may_have_moved(self._record, error, now, choices)

    def _not_deployed(
        self, entry: Identity, settings: IdentitySettings, error: HoldfastError, now: Moment
    ) -> ev.DeployFailed:
        due = next_attempt(entry.deployment.schedule, error, now, self._env.random)
        wanted = Deployer(self._env, settings).digest(self._record)
        return ev.DeployFailed(wanted, trouble(error, now), due)

    # --- facts -------------------------------------------------------------------------------------

    def _now(self) -> Moment:
        return believed(self._env.clock, self._record.proven, self._record.time_floor)

    def _anyone_active(self) -> bool:
        entries = (self._record.identity(s.name) for s in self._env.settings.identities)
        return any(e.credential.state is CredentialState.ACTIVE for e in entries)

    def _check_hardware(self) -> None:
        """Begin anew if the keys that the record names were made in other hardware (FIELD-LESSONS 12).

        The record stands aside first. What is out of reach now says nothing.
        """
        keys = self._env.keys
        if not self._record.home or not isinstance(keys, Homed):
            return
        try:
            home = keys.home()
        except KeyStoreError:
            return
        if home == self._record.home:
            return
        place = self._env.store.set_aside()
        now = self._now()
        lost = KeyStoreError(
            "key.hardware-changed",
            f"the TPM was cleared or replaced, and its keys are lost; the record is kept as {place}",
        )
        schedule = Schedule(trouble=trouble(lost, now), since=now.now)
        self._record = DeviceRecord(floor=self._record.floor, schedule=schedule)
        self._env.store.commit(self._record)

    def _collect_orphans(self) -> None:
        """Destroy keys that no record names: an interrupted step or a lost record left them."""
        for ref in sorted(self._env.keys.refs() - self._record.key_refs()):
            self._env.keys.destroy(ref)
        for entry in self._record.identities:
            transaction = entry.transaction
            if transaction.state is TransactionState.KEYED and transaction.purpose is not Purpose.RENEW:
                self._env.keys.destroy(transaction.key)  # its making was cut short
            if transaction.state is TransactionState.KEYED and transaction.transport:
                self._env.keys.destroy(transaction.transport)
        for entry in self._record.identities:
            if not entry.retiring or self._undeployed(entry):
                continue
            for ref in entry.retiring:
                self._env.keys.destroy(ref)
            self._note(ev.KeysRetired(), entry.name)

    def _note(self, event: ev.IdentityEvent, name: str) -> None:
        """Commit what *event* makes of the record. Its effects are those of :meth:`_collect_orphans`."""
        changed, _ = decide(self._record, event, self._now(), identity=name)
        if changed != self._record:
            self._env.store.commit(changed)
            self._record = changed

    def _undeployed(self, entry: Identity) -> bool:
        """Whether other programs may still use a key that *entry* has no more use for."""
        settings = next((s for s in self._env.settings.identities if s.name == entry.name), None)
        return settings is not None and Deployer(self._env, settings).pending(entry)


def _lost(effect: ev.IdentityEffect, entry: Identity, error: HoldfastError) -> bool:
    """Whether the key of the active credential is gone. Both effects use no other key."""
    active = entry.credential.state is CredentialState.ACTIVE
    idle = entry.transaction.state is TransactionState.NONE
    return active and idle and isinstance(effect, ev.Discover | ev.Deploy) and key_is_gone(error)


def _too_early(effect: ev.IdentityEffect, entry: Identity, error: HoldfastError) -> bool:
    """Whether a certificate, the new one or the server's, only begins too late, and patience is left."""
    asked = isinstance(effect, ev.Enroll | ev.Resume) and isinstance(error, TrustError)
    patience = entry.transaction.refusals + 1 < EARLY_ATTEMPTS
    return asked and error.code == "chain.not-yet-valid" and patience


def _hopeless(effect: ev.IdentityEffect, entry: Identity, error: HoldfastError) -> bool:
    """Whether this transaction cannot succeed any more, however often it is tried."""
    if entry.transaction.state is TransactionState.NONE:
        return False
    if (
        key_is_gone(error)
        or isinstance(error, RefusedError)
        or (_shows_ended(entry) and error.code == "transport.tls-alert")
    ):
        return True
    if isinstance(effect, ev.ProveCredential):
        return proof_refused(error) and entry.transaction.refusals + 1 >= PROOF_ATTEMPTS
    if isinstance(effect, ev.MakeRequest) and isinstance(error, KeyStoreError):
        # Not this kind of key, here: the CA's wishes or the configuration may change.
        return not isinstance(error, KeyLocked | KeyStoreUnavailable)
    if isinstance(error, RemoteProtocolError) and error.busy:
        return False  # a server that is busy may have issued already: the same request, later
    return isinstance(error, RemoteProtocolError | TrustError | LocalProtocolError)


def _shows_ended(entry: Identity) -> bool:
    """Whether the transaction shows the server a certificate that has ended. If it is refused, that says
    nothing of what the server thinks of the IDevID."""
    expired = entry.credential.state is CredentialState.EXPIRED
    under_way = entry.transaction.state is not TransactionState.NONE
    return expired and under_way and entry.transaction.purpose is not Purpose.INITIAL


def _estranged(error: HoldfastError) -> bool:
    """Whether the domain's servers are not those that the voucher spoke of, or do not know us."""
    return isinstance(error, TrustError) or (isinstance(error, RefusedError) and error.estranged)
