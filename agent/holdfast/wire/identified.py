"""What an OID or a name identifies, in the octets that it came in: algorithms, typed values, names."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from cryptography import x509

from holdfast.wire import der
from holdfast.wire.der import Cursor


@dataclass(frozen=True, slots=True)
class Algorithm:
    """An AlgorithmIdentifier; ``parameters`` encoded, empty if absent."""

    oid: str
    parameters: bytes = b""

    def encode(self) -> bytes:
        return der.sequence(der.oid(self.oid), self.parameters)


@dataclass(frozen=True, slots=True)
class Info:
    """InfoTypeAndValue; ``value`` encoded, empty if absent."""

    oid: str
    value: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        return der.sequence(der.oid(self.oid), self.value)


def read_algorithm(cursor: Cursor) -> Algorithm:
    """The next value as AlgorithmIdentifier. Raises ValueError."""
    inner = cursor.inside()
    return Algorithm(inner.oid(), inner.rest())


def read_infos(cursor: Cursor) -> tuple[Info, ...]:
    """The next value as SEQUENCE OF InfoTypeAndValue. Raises ValueError."""
    infos = []
    for each in cursor.inside().each():
        inner = each.inside()
        infos.append(Info(inner.oid(), inner.rest()))
    return tuple(infos)


def directory_name(name: bytes) -> bytes:
    """A GeneralName around the DER of a Name."""
    return der.explicit(4, name)


def named(name: x509.Name) -> bytes:
    """A GeneralName for *name*."""
    return directory_name(name.public_bytes())


NULL_DN: Final = directory_name(der.sequence())
