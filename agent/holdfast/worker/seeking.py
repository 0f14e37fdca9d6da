"""A search of the network for whom to ask."""

from __future__ import annotations

from holdfast.host.config import DiscoverySettings
from holdfast.life import events as ev
from holdfast.life.record import DeviceRecord
from holdfast.life.search import Source, ranked
from holdfast.wire.errors import TransportError
from holdfast.wire.model import Moment
from holdfast.worker.ports import Environment

LONGEST_LISTENING = 75.0
"""Seconds. A flood comes about once a minute (RFC 8995 §4.1.1), and not everybody answers questions."""

NOTHING_FOUND = "discovery.nothing-found"


def seek(env: Environment, record: DeviceRecord, now: Moment) -> ev.CandidatesFound:
    """Search. The place that was good before is enough while nothing speaks against it."""
    discovery, search = env.settings.discovery or DiscoverySettings(), record.search
    if search.good is not None and search.refusal_of(search.good.endpoint) is None:
        return ev.CandidatesFound((search.good,))
    return listen(env, record, discovery.order, _listening(record, discovery), now)


def listen(
    env: Environment, record: DeviceRecord, order: tuple[Source, ...], seconds: float, now: Moment
) -> ev.CandidatesFound:
    """Search for so many seconds, until somebody is found who was not refused; of *order* alone."""
    findings = env.search(seconds, {each.endpoint for each in record.search.refusals})
    return ev.CandidatesFound(ranked(findings.places, order, record.search, now.now), findings.silent)


def nobody(silent: tuple[str, ...]) -> TransportError:
    """The error of a search that found nobody."""
    return TransportError(NOTHING_FOUND, "; ".join(silent), clause="RFC 8995 §4.1")


def _listening(record: DeviceRecord, discovery: DiscoverySettings) -> float:
    """Longer after searches that found nobody."""
    trouble = record.schedule.trouble
    if trouble is None or trouble.code != NOTHING_FOUND:
        return discovery.listen_seconds
    return min(LONGEST_LISTENING, discovery.listen_seconds * (1 << min(record.schedule.attempts, 6)))
