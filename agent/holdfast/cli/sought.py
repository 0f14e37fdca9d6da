"""What ``why`` and ``doctor`` say while the registrar of our domain is sought at another place (pure)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from holdfast.cli.words import timestamp
from holdfast.host.config import Settings
from holdfast.life.record import DeviceRecord, DomainState, Schedule
from holdfast.life.search import REST, STRANGER_REST, Refusal, Source, next_up

_MOST_REFUSALS_TOLD: Final = 8


@dataclass(frozen=True, slots=True)
class Sought:
    """A search for *registrar* that began ``at`` that time and has not brought it back. ``places`` are still
    to be met, ``under_way`` if the search is not over, ``again`` is when the next one may begin."""

    registrar: str
    at: datetime
    where: str
    places: tuple[str, ...]
    under_way: bool
    refusals: tuple[Refusal, ...]
    silent: tuple[str, ...]
    again: datetime

    def sentence(self) -> str:
        """All of it, for a paragraph."""
        if self.places:
            return f"Its registrar {self.registrar} is being sought: at {' or '.join(self.places)}."
        if self.under_way:
            return f"Its registrar {self.registrar} is being sought {self.where}."
        said = [f"Its registrar {self.registrar} was sought {self.where} at {timestamp(self.at)}, in vain"]
        if refused := "; ".join(f"{r.endpoint}: {r.code}" for r in self.refusals[:_MOST_REFUSALS_TOLD]):
            said.append(f"found and refused: {refused}")
        if self.silent:
            said.append(f"nobody was found by {'; '.join(self.silent)}")
        return (
            f"{'; '.join(said)}. It is sought again from {timestamp(self.again)} on, if it does not answer."
        )


def being_sought(record: DeviceRecord, settings: Settings, schedules: Iterable[Schedule]) -> Sought | None:
    """The search that goes on for the sake of one of *schedules*, if one does.

    Only what cannot reach the registrar, or met somebody else there, makes the device search for it.
    """
    domain, search = record.domain, record.search
    codes = [schedule.trouble.code for schedule in schedules if schedule.trouble is not None]
    if domain.state is not DomainState.VOUCHED or search.refusal_of(domain.registrar) is None:
        return None  # it is no longer refused once it was found
    began = [(domain.sought, REST)] if any(code.startswith("transport.") for code in codes) else []
    began += [(domain.doubted, STRANGER_REST)] if any(code.startswith("chain.") for code in codes) else []
    known = [(at, at + rest) for at, rest in began if at is not None]
    if not known:
        return None
    at, again = max(known)
    waiting = (search.trying, *search.waiting) if next_up(search) is not None else ()
    return Sought(
        registrar=domain.registrar,
        at=at,
        where=_where(settings),
        places=tuple(each.endpoint for each in waiting if each is not None),
        under_way=search.at is None,
        refusals=tuple(r for r in search.refusals if r.endpoint != domain.registrar),
        silent=search.silent,
        again=again,
    )


def _where(settings: Settings) -> str:
    if settings.discovery is None:
        return "among the configured registrars"
    return f"on the network ({', '.join(s.value for s in settings.discovery.order if s is not Source.CLOUD)})"
