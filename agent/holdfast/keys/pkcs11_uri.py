"""PKCS#11 URIs (RFC 7512): parsed whole or refused, written in one form, matched against tokens and objects.

Pure text work. Beyond the grammar three things are refused by policy: a PIN that a command would give
(``pin-source=|...``), a relative ``module-path``, and both PIN attributes at once. Every refusal is a
KeyStoreError(``key.uri``) that names the attribute and never its value, which may be a PIN.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal
from urllib.parse import quote, unquote_to_bytes

from holdfast.wire.errors import KeyStoreError

SCHEME: Final = "pkcs11:"
MAX_URI: Final = 4096
MAX_ATTRIBUTES: Final = 64

ObjectType = Literal["public", "private", "cert", "secret-key", "data"]

_UNRESERVED: Final = r"A-Za-z0-9._~\-"
_VALUE: Final = r"(?:[%s]|%%[0-9A-Fa-f]{2})*"
_AVAILABLE: Final = _UNRESERVED + r":\[\]@!$'()*+,="
_PATH_VALUE: Final = re.compile(_VALUE % (_AVAILABLE + "&"))
_QUERY_VALUE: Final = re.compile(_VALUE % (_AVAILABLE + "/?|"))
_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VERSION: Final = re.compile(r"([0-9]{1,5})(?:\.([0-9]{1,5}))?")
_NUMBER: Final = re.compile(r"[0-9]{1,20}")
_TYPES: Final = ("public", "private", "cert", "secret-key", "data")
_ENCODED_BY_PEOPLE: Final = ":[]@!$'()*+,=&"  # allowed as they are in a path, and more readable so
_FILE: Final = re.compile(r"file:(?://(?:localhost)?)?(/(?!/)[^\0]*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """What a module says about a slot and the token in it, without the blanks that pad it."""

    token: str = ""
    manufacturer: str = ""
    serial: str = ""
    model: str = ""
    library_manufacturer: str = ""
    library_description: str = ""
    library_version: tuple[int, int] = (0, 0)
    slot_manufacturer: str = ""
    slot_description: str = ""
    slot_id: int = 0


@dataclass(frozen=True, slots=True)
class Pkcs11Uri:
    """One URI. An attribute that is None stands for anything; an empty one only for an empty value.

    ``unknown`` are path attributes that this code does not know: such a URI matches nothing. ``vendor`` are
    query attributes that it does not know, which are ignored; they alone may come more than once.
    """

    token: str | None = None
    manufacturer: str | None = None
    serial: str | None = None
    model: str | None = None
    library_manufacturer: str | None = None
    library_version: tuple[int, int] | None = None
    library_description: str | None = None
    slot_manufacturer: str | None = None
    slot_description: str | None = None
    slot_id: int | None = None
    object: str | None = None
    id: bytes | None = None
    type: ObjectType | None = None
    unknown: tuple[tuple[str, bytes], ...] = ()
    pin_source: str | None = None
    pin_value: str | None = field(default=None, repr=False)
    module_name: str | None = None
    module_path: str | None = None
    vendor: tuple[tuple[str, bytes], ...] = field(default=(), repr=False)

    @property
    def pin_file(self) -> str | None:
        """The file that ``pin-source`` names."""
        if self.pin_source is None or self.pin_source.startswith("/"):
            return self.pin_source
        match = _FILE.fullmatch(self.pin_source)
        assert match is not None  # parse() let nothing else through
        return unquote_to_bytes(match[1]).decode()

    @property
    def of_token(self) -> Pkcs11Uri:
        """Only what says which token, on which slot, by which library."""
        return Pkcs11Uri(unknown=self.unknown, **{n: getattr(self, n) for n in _OF_TOKEN})

    def with_object(self, label: str, identifier: bytes, kind: ObjectType) -> Pkcs11Uri:
        """The URI of one object on this token."""
        return replace(self.of_token, object=label, id=identifier, type=kind)

    def matches_token(self, facts: TokenFacts) -> bool:
        """Whether a token is meant, as far as the URI tells (RFC 7512 §2.4)."""
        if self.unknown:
            return False
        return all(getattr(self, n) in {None, getattr(facts, n)} for n in _OF_TOKEN)

    def text(self) -> str:
        """The one form that we write: attributes in the order of the fields, ``id`` encoded throughout."""
        path = ";".join(f"{n}={v}" for n, v in self._written(_PATH, _ENCODED_BY_PEOPLE))
        query = "&".join(f"{n}={v}" for n, v in self._written(_QUERY, _ENCODED_BY_PEOPLE[:-1] + "/?|"))
        return f"{SCHEME}{path}?{query}" if query else SCHEME + path

    def _written(self, known: dict[str, _Kind], safe: str) -> Iterator[tuple[str, str]]:
        for name in known:
            value = getattr(self, _field(name))
            if value is not None:
                yield name, _encoded(value, safe)
        for name, octets in self.unknown if known is _PATH else self.vendor:
            yield name, quote(octets, safe=safe)


def parse(text: str) -> Pkcs11Uri:
    """The URI in *text*. Raises KeyStoreError(``key.uri``)."""
    if len(text) > MAX_URI:
        raise _refused(f"longer than {MAX_URI} characters", "§2.3")
    if text[: len(SCHEME)].lower() != SCHEME:
        raise _refused("it does not start with pkcs11:", "§2.3")
    path, mark, query = text[len(SCHEME) :].partition("?")
    found: dict[str, Any] = {}
    found["unknown"] = _read(path, ";", _PATH, _PATH_VALUE, found)
    found["vendor"] = _read(query, "&", _QUERY, _QUERY_VALUE, found) if mark else ()
    if "pin_source" in found and "pin_value" in found:
        raise _refused("pin-source and pin-value exclude each other", "§2.3")
    return Pkcs11Uri(**found)


def _read(
    text: str, separator: str, known: dict[str, _Kind], value: re.Pattern[str], found: dict[str, Any]
) -> tuple[tuple[str, bytes], ...]:
    """Put the known attributes of one component into *found*; returns the others."""
    others: list[tuple[str, bytes]] = []
    parts = text.split(separator) if text else []
    if len(parts) > MAX_ATTRIBUTES:
        raise _refused(f"more than {MAX_ATTRIBUTES} attributes", "§2.3")
    for part in parts:
        name, equals, encoded = part.partition("=")
        if not equals or not _NAME.fullmatch(name):
            raise _refused("an attribute is not of the form name=value", "§2.3")
        if not value.fullmatch(encoded):
            raise _refused(f"{name}: a character must be percent-encoded", "§2.3")
        octets = unquote_to_bytes(encoded)
        if name not in known:
            if known is _PATH and name in dict(others):
                raise _refused(f"{name} stands there twice", "§2.3")
            others.append((name, octets))
            continue
        if _field(name) in found:
            raise _refused(f"{name} stands there twice", "§2.3")
        found[_field(name)] = known[name](name, octets)
    return tuple(others)


def _field(name: str) -> str:
    return name.replace("-", "_")


def _encoded(value: str | bytes | int | tuple[int, int], safe: str) -> str:
    match value:
        case bytes():
            return "".join(f"%{octet:02X}" for octet in value)
        case int():
            return str(value)
        case (major, minor):
            return f"{major}.{minor}"
        case _:
            return quote(str(value), safe=safe)


def _refused(why: str, where: str) -> KeyStoreError:
    return KeyStoreError("key.uri", f"PKCS#11 URI: {why}", clause=f"RFC 7512 {where}")


# --- what the values of each attribute are ------------------------------------------------------------

_Kind = Callable[[str, bytes], Any]


def _text(name: str, octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise _refused(f"{name} is not UTF-8", "§2.3") from None


def _octets(_name: str, octets: bytes) -> bytes:
    return octets


def _version(name: str, octets: bytes) -> tuple[int, int]:
    match = _VERSION.fullmatch(_text(name, octets))
    if match is None:
        raise _refused(f"{name} is not a version", "§2.3")
    return int(match[1]), int(match[2] or 0)


def _number(name: str, octets: bytes) -> int:
    text = _text(name, octets)
    if not _NUMBER.fullmatch(text):
        raise _refused(f"{name} is not a number", "§2.3")
    return int(text)


def _object_type(name: str, octets: bytes) -> str:
    text = _text(name, octets)
    if text not in _TYPES:
        raise _refused(f"{name} is none of {', '.join(_TYPES)}", "§2.3")
    return text


def _pin_source(name: str, octets: bytes) -> str:
    text = _text(name, octets)
    if text.startswith("|"):
        raise _refused("a command as pin-source is refused by policy", "§2.4")
    match = _FILE.fullmatch(text)
    path = _text(name, unquote_to_bytes(match[1])) if match else text
    if not path.startswith("/") or "\0" in path:
        raise _refused("pin-source must be a file: URI or a path from the root", "§2.4")
    return text


def _module_path(name: str, octets: bytes) -> str:
    text = _text(name, octets)
    if not text.startswith("/") or "\0" in text:
        raise _refused("module-path must be a path from the root", "§2.4")
    return text


def _module_name(name: str, octets: bytes) -> str:
    text = _text(name, octets)
    if "/" in text or "\0" in text:
        raise _refused("module-name must be no path", "§2.4")
    return text


_PATH: Final[dict[str, _Kind]] = {
    "token": _text,
    "manufacturer": _text,
    "serial": _text,
    "model": _text,
    "library-manufacturer": _text,
    "library-version": _version,
    "library-description": _text,
    "slot-manufacturer": _text,
    "slot-description": _text,
    "slot-id": _number,
    "object": _text,
    "id": _octets,
    "type": _object_type,
}
_QUERY: Final[dict[str, _Kind]] = {
    "pin-source": _pin_source,
    "pin-value": _text,
    "module-name": _module_name,
    "module-path": _module_path,
}
_OF_TOKEN: Final = tuple(_field(n) for n in _PATH if n not in {"object", "id", "type"})
