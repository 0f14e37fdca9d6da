"""One identity on its ladder: which rung an effect runs on, and when it goes on to the next."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from holdfast.host.config import AcmeSettings, IdentitySettings
from holdfast.life import events as ev
from holdfast.life.ladder import Down, Pressure, barred, candidates, forsakes, moves_on, reasons, way_down
from holdfast.life.record import Bar, Identity, TransactionState
from holdfast.wire.errors import ConfigError, HoldfastError
from holdfast.wire.model import Moment, Rejected
from holdfast.worker.agenda import life_of, remaining_life
from holdfast.worker.enrollment import RefusedError
from holdfast.worker.setbacks import trouble


class Ascent:
    """The ladder of *settings* for the identity *entry*. ``rung`` is the one that was tried last."""

    def __init__(self, settings: IdentitySettings, entry: Identity, now: Moment) -> None:
        self._settings = settings
        self._entry = entry
        self._now = now
        self.rung = settings.rungs[0]

    @property
    def lower(self) -> bool:
        """Whether the last word came from another rung than the best."""
        return self.rung != self._settings.rungs[0]

    @property
    def outside(self) -> bool:
        """Whether the last word came from a server that is trusted by other anchors than the domain's: what
        it says or shows tells nothing about the domain."""
        settings = self._settings.protocols[self._settings.rungs.index(self.rung)]
        return isinstance(settings, AcmeSettings) and settings.anchors_file is not None

    def rung_in_use(self) -> str:
        """The rung of the transaction; the first one where it does not matter.

        Raises RefusedError where the configuration has no longer the one that would have to answer.
        """
        transaction = self._entry.transaction
        asking = transaction.state not in {TransactionState.NONE, TransactionState.STAGED}
        if transaction.rung in self._settings.rungs:
            self.rung = transaction.rung
        elif transaction.rung and asking:
            detail = f"{transaction.rung} is not configured any more, but has the request"
            raise RefusedError("ladder.rung-gone", detail)
        return self.rung

    def discover(self, ask: Callable[[str], ev.OfferTaken]) -> ev.OfferTaken:
        """The first offer from the top. Nothing was sent yet, so this moves freely.

        Raises what a rung raised that must not be passed; else what the best one raised.
        """
        names = candidates(self._settings.rungs, self._entry.ladder, self._now.now)
        tried: list[Bar] = []
        first: HoldfastError | None = None
        for name in names:
            self.rung = name
            try:
                offer = ask(name)
            except HoldfastError as error:
                if not moves_on(_way_down(error), self._pressure()):
                    raise
                first = first or error
                tried.append(Bar(name, error.code, self._now.now))
            else:
                passed = reasons(self._settings.rungs, tuple(tried), self._entry.ladder, name)
                return replace(offer, passed=passed)
        self.rung = names[0]
        assert first is not None, "a ladder has a rung"
        raise first

    def prove(
        self, show: Callable[[str], ev.CredentialProved], judges: Callable[[str], bool]
    ) -> ev.CredentialProved:
        """Show the new certificate to the server that issued it; if that one is out of reach, to one of the
        other rungs that *judges* knows as able."""
        own = self.rung_in_use()
        try:
            return show(own)
        except HoldfastError as error:
            if _way_down(error) is not Down.UNREACHABLE:
                raise
            for name in self._settings.rungs:
                self.rung = name
                try:
                    if name != own and judges(name):
                        return show(name)
                except HoldfastError as another:
                    if _way_down(another) is not Down.UNREACHABLE and not isinstance(another, ConfigError):
                        raise
            self.rung = own
            raise

    def forsaken(self, error: HoldfastError) -> ev.RungForsaken | None:
        """What it means for the request on a rung that *error* happened: None if it stays there."""
        transaction = self._entry.transaction
        if not forsakes(_way_down(error), transaction.state, self._pressure()):
            return None
        after = barred(self._entry.ladder, transaction.rung, error.code, self._now.now)
        if not set(self._settings.rungs) - {bar.rung for bar in after.barred}:
            return None  # nowhere to go: a ladder in circles would make keys without end
        return ev.RungForsaken(trouble(error, self._now), transaction.rung, transaction.purpose)

    def _pressure(self) -> Pressure:
        remaining = remaining_life(self._entry, self._now)
        lifetime = None
        if remaining is not None:
            begin, end = life_of(self._entry, self._now)
            lifetime = end - begin
        return Pressure(self._now.now, self._entry.schedule, remaining, lifetime)


def _way_down(error: HoldfastError) -> Down | None:
    if isinstance(error, RefusedError):
        return way_down(Rejected(error.code, error.detail, unsupported=error.unsupported))
    return way_down(error)
