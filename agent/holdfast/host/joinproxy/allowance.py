"""How much one source may have of the proxy (pure): connections, attempts a minute, octets, seconds.

A pledge needs two connections and some 20 KiB. Everything beyond a few times that is somebody else's use.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

MOST_SOURCES: Final = 1024
"""Whose attempts are remembered. Who is forgotten starts anew, so a flood of addresses gains no more than
the limit over all."""

MINUTE: Final = 60.0


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """``connections`` and ``new_per_minute`` of a source, ``most_connections`` of all sources together;
    ``octets`` (both ways) and ``seconds`` of a connection, ``idle_seconds`` of silence in it."""

    connections: int = 4
    new_per_minute: int = 20
    most_connections: int = 64
    octets: int = 4 << 20
    seconds: float = 300
    idle_seconds: float = 60
    connect_seconds: float = 5


@dataclass(slots=True)
class _Source:
    open: int = 0
    tokens: float = 0
    seen: float = 0.0


@dataclass(slots=True)
class Ledger:
    """Who has how much now."""

    limits: ProxyLimits
    _sources: OrderedDict[str, _Source] = field(default_factory=OrderedDict)
    open: int = 0
    refused: int = 0

    def admit(self, address: str, now: float) -> str | None:
        """The key to :meth:`release` a connection from *address* with, or None if it is one too many."""
        name = source_of(address)
        source = self._source(name, now)
        source.tokens = min(
            self.limits.new_per_minute,
            source.tokens + (now - source.seen) * self.limits.new_per_minute / MINUTE,
        )
        source.seen = now
        if (
            self.open >= self.limits.most_connections
            or source.open >= self.limits.connections
            or source.tokens < 1
        ):
            self.refused += 1
            return None
        source.tokens -= 1
        source.open += 1
        self.open += 1
        return name

    def release(self, name: str) -> None:
        """A connection of the source *name* has ended."""
        self.open -= 1
        self._sources[name].open -= 1

    def _source(self, name: str, now: float) -> _Source:
        known = self._sources.get(name)
        if known is None:
            self._forget()
            known = self._sources[name] = _Source(tokens=self.limits.new_per_minute, seen=now)
        self._sources.move_to_end(name)
        return known

    def _forget(self) -> None:
        """Room for one more: whoever was heard of longest ago and has nothing open is forgotten."""
        if len(self._sources) < MOST_SOURCES:
            return
        idle = next((name for name, source in self._sources.items() if not source.open), None)
        if idle is not None:
            del self._sources[idle]

    @property
    def remembered(self) -> int:
        return len(self._sources)


def source_of(address: str) -> str:
    """Who counts as one: an IPv4 or link-local address, or the /64 of any other IPv6 address."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        if not parsed.is_link_local:
            return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)
