"""Whose turn it is to be asked: registrars of the configuration, or those that a search found (pure)."""

from __future__ import annotations

from holdfast.host.config import Settings
from holdfast.life import events as ev
from holdfast.life.record import DeviceRecord, Domain, DomainState
from holdfast.life.search import next_up
from holdfast.wire.discovery.announced import Role
from holdfast.worker.agenda import registrar_in_turn


def must_seek(record: DeviceRecord, settings: Settings) -> bool:
    """Whether a bootstrap begins with a search: nobody is being asked, and nobody waits to be."""
    free = record.domain == Domain()
    return settings.discovery is not None and free and next_up(record.search) is None


def domain_opening(record: DeviceRecord, settings: Settings, *, waits: bool) -> ev.DomainEvent | None:
    """With what a step begins the domain's part: a bootstrap, unless it *waits*, or what a power cut left of
    a search for the registrar of our domain."""
    domain = record.domain
    if domain.state is not DomainState.VOUCHED:
        return None if waits else ev.BootstrapDue(must_seek(record, settings))
    begun = domain.sought is not None or domain.doubted is not None
    if begun and record.search.at is None:
        return ev.MeetingDue(seek=True)
    return ev.MeetingDue() if next_up(record.search) is not None else None


def whom_to_ask(record: DeviceRecord, settings: Settings) -> str:
    """The registrar in turn, as ``host:port``; "" while it must be sought first."""
    if settings.discovery is None or record.domain.redirected:
        return registrar_in_turn(record, settings.registrars)
    candidate = next_up(record.search)
    return candidate.endpoint if candidate is not None else ""


def by_the_cloud(record: DeviceRecord) -> bool:
    """Whether the one in turn is the maker's own registrar, or one that it sent us to."""
    candidate = next_up(record.search)
    return candidate is not None and candidate.role is Role.CLOUD


def last_of_all(record: DeviceRecord, settings: Settings) -> bool:
    """Whether nobody is left to ask after the one in turn."""
    if settings.discovery is None:
        return (record.schedule.attempts + 1) % len(settings.registrars) == 0
    waiting = len(record.search.waiting)
    return waiting == 0 or (record.search.trying is None and waiting == 1)
