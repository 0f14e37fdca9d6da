"""GRASP as bootstrapping needs it (RFC 8990, DULL §2.5.2): floods that announce registrars and join proxies
(RFC 8995 §4.1.1, §4.3), and the discovery message with which a pledge asks for one.

Nothing of it is signed, and nothing of it is believed beyond "ask there".
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any, Final

import cbor2

from holdfast.wire.discovery import cbor
from holdfast.wire.discovery.announced import Announced, Role, usable_address, usable_name
from holdfast.wire.errors import RemoteProtocolError

PORT: Final = 7017
GROUP: Final = "ff02::13"
"""ALL_GRASP_NEIGHBORS (RFC 8990 §2.6)."""

MOST_OCTETS: Final = 2048
"""GRASP_DEF_MAX_SIZE (RFC 8990 §2.6)."""

MOST_OBJECTIVES: Final = 16
LIFE_MILLISECONDS: Final = 180_000
"""How long a flood holds: three times the usual interval (RFC 8995 §4.1.1)."""

AN_PROXY: Final = "AN_Proxy"
AN_JOIN_REGISTRAR: Final = "AN_join_registrar"
EST_TLS: Final = "EST-TLS"
_ROLES: Final = {AN_PROXY.lower(): Role.PROXY, AN_JOIN_REGISTRAR.lower(): Role.REGISTRAR}
"""Whatever the case: an early implementation floods ``AN_proxy``."""

_DISCOVERY, _FLOOD = 1, 9
_IPV6, _IPV4, _FQDN, _URI = 103, 104, 105, 106
_TCP: Final = 6
_F_DISC, _F_SYNCH = 1 << 0, 1 << 2
_ONE_LINK: Final = 1


@dataclass(frozen=True, slots=True)
class Objective:
    """What is announced or sought. ``value`` is a text where we know it, and ignored otherwise.

    What is sent for pledges stays on its link (RFC 8990 §2.5.2), so ``loop_count`` is 1. It is not compared
    in what comes: registrars flood AN_join_registrar with 255 (RFC 8995 §4.3), and the sender's address is it
    that shows whether something is of this link.
    """

    name: str
    flags: int = _F_SYNCH
    loop_count: int = _ONE_LINK
    value: str = ""


@dataclass(frozen=True, slots=True)
class Locator:
    """Where: an address (4 or 16 octets) or a name, a transport protocol by its number, a port."""

    where: bytes | str
    port: int
    protocol: int = _TCP


@dataclass(frozen=True, slots=True)
class Flood:
    """M_FLOOD (RFC 8990 §2.8.11): who floods, for how long it holds in ms, and what is where."""

    session: int
    initiator: bytes
    life: int
    told: tuple[tuple[Objective, Locator | None], ...]

    def encode(self) -> bytes:
        return cbor2.dumps(
            [_FLOOD, self.session, self.initiator, self.life]
            + [[_objective_out(o), [] if at is None else _locator_out(at)] for o, at in self.told]
        )


@dataclass(frozen=True, slots=True)
class Discovery:
    """M_DISCOVERY (RFC 8990 §2.8.4): somebody on this link seeks an objective."""

    session: int
    initiator: bytes
    objective: Objective

    def encode(self) -> bytes:
        return cbor2.dumps([_DISCOVERY, self.session, self.initiator, _objective_out(self.objective)])


Message = Flood | Discovery


def decode(data: bytes) -> Message:
    """The message in *data*. Raises RemoteProtocolError ``grasp.*`` or ``cbor.*``."""
    parts = cbor.decode(data, limit=MOST_OCTETS)
    if not isinstance(parts, list) or len(parts) < 4:
        raise _refuse("message", "no array of a type, a session and more")
    kind, session, initiator = parts[:3]
    if not _number(kind, 8):
        raise _refuse("message-type", "no number")
    if not _number(session, 32):
        raise _refuse("session-id", "no number of 32 bits")
    if not isinstance(initiator, bytes) or len(initiator) not in {4, 16}:
        raise _refuse("initiator", "no address")
    if kind == _DISCOVERY:
        return Discovery(session, initiator, _objective(parts[3]))
    if kind != _FLOOD:
        raise _refuse("message-type", f"{kind} is of no use here")
    if not _number(parts[3], 32):
        raise _refuse("ttl", "no number of 32 bits")
    if len(parts) - 4 > MOST_OBJECTIVES or len(parts) == 4:
        raise _refuse("message", f"{len(parts) - 4} entries")
    return Flood(session, initiator, parts[3], tuple(map(_told, parts[4:])))


def places(message: Message, *, sender: str, zone: str) -> tuple[Announced, ...]:
    """What a flood announces that a pledge on the link *zone* can use. Raises RemoteProtocolError where
    *sender*, the source address, is not of this link: what is for pledges never crosses one (RFC 8990
    §2.5.2)."""
    if not ipaddress.ip_address(sender.partition("%")[0]).is_link_local:
        raise _refuse("sender", "not an address of this link")
    if not isinstance(message, Flood) or message.life == 0:
        return ()
    found = (_announced(o, at, sender, zone) for o, at in message.told if at is not None)
    return tuple(each for each in found if each is not None)


def _announced(objective: Objective, at: Locator, sender: str, zone: str) -> Announced | None:
    role = _ROLES.get(objective.name.lower())
    if role is None or at.protocol != _TCP or not objective.flags & _F_SYNCH:
        return None
    if objective.value not in {"", EST_TLS}:
        return None  # a registrar for other protocols: CoAP, say
    host = usable_name(at.where) if isinstance(at.where, str) else usable_address(at.where, zone)
    if host is None:
        return None
    return Announced(host, at.port, role, f"{sender.partition('%')[0]}%{zone}")


def _told(entry: object) -> tuple[Objective, Locator | None]:
    if not isinstance(entry, list) or len(entry) != 2:
        raise _refuse("flood", "no pair of an objective and a locator")
    return _objective(entry[0]), None if entry[1] == [] else _locator(entry[1])


def _objective(parts: object) -> Objective:
    if not isinstance(parts, list) or not 3 <= len(parts) <= 4:
        raise _refuse("objective", "no array of a name, flags, a loop count and a value")
    name, flags, loop_count = parts[:3]
    if not isinstance(name, str) or not 0 < len(name) <= 200:
        raise _refuse("objective-name", "no text")
    if not _number(flags, 8) or not _number(loop_count, 8):
        raise _refuse("objective", f"flags or loop count of {name[:40]!a} are no numbers")
    value = parts[3] if len(parts) == 4 else ""
    if value is None:
        value = ""
    # A value that is no text belongs to somebody else's objective, or to a later version of ours.
    return Objective(name, flags, loop_count, value if isinstance(value, str) else "?")


def _locator(parts: object) -> Locator | None:
    """None for a URI, which bootstrapping has no use for."""
    if not isinstance(parts, list) or not parts or not _number(parts[0], 16):
        raise _refuse("locator", "no array with a kind")
    kind = parts[0]
    if len(parts) != 4:
        raise _refuse("locator", f"{len(parts)} members")
    if kind == _URI:
        return None
    where, protocol, port = parts[1:]
    octets = {_IPV6: 16, _IPV4: 4}.get(kind)
    named = kind == _FQDN and isinstance(where, str)
    if not named and not (isinstance(where, bytes) and len(where) == octets):
        raise _refuse("locator", f"kind {kind} with something else")
    if not _number(protocol, 8) or not _number(port, 16) or port == 0:
        raise _refuse("locator", "protocol or port out of range")
    return Locator(where, port, protocol)


def _objective_out(objective: Objective) -> list[Any]:
    return [objective.name, objective.flags, objective.loop_count, objective.value]


def _locator_out(locator: Locator) -> list[Any]:
    kind = _FQDN if isinstance(locator.where, str) else {16: _IPV6, 4: _IPV4}[len(locator.where)]
    return [kind, locator.where, locator.protocol, locator.port]


def _number(value: Any, bits: int) -> bool:
    return type(value) is int and 0 <= value < 1 << bits


def _refuse(what: str, why: str) -> RemoteProtocolError:
    return RemoteProtocolError(f"grasp.{what}", why, clause="RFC 8990 §2.8")


def soliciting(name: str, session: int, initiator: bytes) -> Discovery:
    """The message with which a pledge asks who on this link is a *name*."""
    return Discovery(session, initiator, Objective(name, _F_DISC | _F_SYNCH))


def announcing(name: str, address: bytes, port: int, session: int) -> Flood:
    """The flood of a *name* at *address* and *port* over TCP."""
    value = EST_TLS if name == AN_JOIN_REGISTRAR else ""
    told = (Objective(name, value=value), Locator(address, port))
    return Flood(session, address, LIFE_MILLISECONDS, (told,))
