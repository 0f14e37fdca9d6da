"""What an announcement comes to: a place that says of itself that it is a registrar, or leads to one.

Nobody signs announcements. They say where to ask, and never whom to believe: the voucher decides that.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

_NAME: Final = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})?)*"
)
_ZONE: Final = re.compile(r"[A-Za-z0-9_.-]{1,15}")


class Role(Enum):
    """What an announced place claims to be."""

    REGISTRAR = "registrar"
    PROXY = "proxy"  # a join proxy: carries the connection to a registrar (RFC 8995 §4)
    CLOUD = "cloud"  # the maker's, which knows the owner's


@dataclass(frozen=True, slots=True)
class Announced:
    """One place: ``host`` is a name or an address (IPv6 without brackets, link-local with its zone), ``port``
    1 to 65535. ``announcer`` is who said so, for fairness between announcers; ``priority`` as in SRV
    records, lower first."""

    host: str
    port: int
    role: Role
    announcer: str = ""
    priority: int = 0

    @property
    def endpoint(self) -> str:
        """``host:port``, IPv6 in brackets."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def usable_name(name: str) -> str | None:
    """*name* as a host name in lower case without its last dot, or None if it is none."""
    name = name.rstrip(".").lower()
    return name if _NAME.fullmatch(name) else None


def usable_address(packed: bytes, zone: str) -> str | None:
    """The unicast address in *packed* (4 or 16 octets) as text; one of a link gets *zone*. None for what
    cannot be a server: multicast, unspecified, loopback, a link-local address without a zone."""
    try:
        address = ipaddress.ip_address(packed)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return None
    if address.is_multicast or address.is_unspecified or address.is_loopback or address.is_reserved:
        return None
    if address.version == 6 and address.is_link_local:
        return f"{address}%{zone}" if _ZONE.fullmatch(zone) else None
    return str(address)


def on_link(host: str) -> bool:
    """Whether *host* is an address that means something on one link only."""
    try:
        return ipaddress.ip_address(host).is_link_local
    except ValueError:
        return False
