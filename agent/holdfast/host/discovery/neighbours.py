"""One wait for everybody on the links: multicast DNS and GRASP side by side, for so many seconds in all."""

from __future__ import annotations

import selectors
from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from holdfast.host.discovery.gathering import Gathering
from holdfast.host.discovery.grasp import GraspListener
from holdfast.host.discovery.interfaces import Interface
from holdfast.host.discovery.mdns import MdnsAsker, askers
from holdfast.life.search import Source
from holdfast.wire.model import RandomBytes

ASK_AGAIN: Final = 1.0
"""Seconds: datagrams get lost, and some answers name what must be asked for."""

_AT_ONCE: Final = 64
"""Datagrams read from one socket before the others have their turn."""


def listen(
    sources: tuple[Source, ...],
    interfaces: tuple[Interface, ...],
    seconds: float,
    random: RandomBytes,
    monotonic: Callable[[], float],
) -> dict[Source, Gathering]:
    """Ask and listen. All of the time is used, so that who answers first gains nothing by it.

    Raises OSError where this host has no such sockets.
    """
    gathered = {source: Gathering(random) for source in sources}
    with ExitStack() as open_now, selectors.DefaultSelector() as selector:
        speakers: list[MdnsAsker | GraspListener] = []
        if Source.MDNS in sources:
            speakers += askers(interfaces, random)
        if Source.GRASP in sources:
            speakers.append(GraspListener(interfaces, random))
        for each in speakers:
            open_now.callback(each.close)
            source = Source.GRASP if isinstance(each, GraspListener) else Source.MDNS
            selector.register(each.socket, selectors.EVENT_READ, (each, gathered[source]))
        _converse(speakers, selector, seconds, monotonic)
    return gathered


def _converse(
    speakers: list[MdnsAsker | GraspListener],
    selector: selectors.BaseSelector,
    seconds: float,
    monotonic: Callable[[], float],
) -> None:
    now = asked = monotonic()
    end = now + seconds
    for each in speakers:
        each.ask()
    while now < end:
        if now - asked >= ASK_AGAIN:
            asked = now
            for each in speakers:
                each.ask()
        for key, _ in selector.select(min(end, asked + ASK_AGAIN) - now):
            _hear(*key.data)
        now = monotonic()


def _hear(speaker: MdnsAsker | GraspListener, gathering: Gathering) -> None:
    for _ in range(_AT_ONCE):
        try:
            gathering.add(speaker.receive())
        except OSError:  # nothing more to read, or a link that went down
            return
