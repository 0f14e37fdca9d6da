"""Who may use the screen: names, roles and scrypt hashes of passwords in one private file."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

from holdfast.wire.errors import ConfigError, StateCorrupt, StateError
from holdfast_factory.files import write_file

FILE: Final = "people.json"
MIN_PASSWORD: Final = 10
MAX_PASSWORD: Final = 1024
NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")

_COST: Final = {"n": 2**15, "r": 8, "p": 1, "maxmem": 64 * 2**20}
"""RFC 7914 §2: 32 MiB and about 0.1 s for each guess."""


class Role(StrEnum):
    """An operator runs shifts, searches and prints again; a supervisor also exports and audits."""

    OPERATOR = "operator"
    SUPERVISOR = "supervisor"


class Person(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One line of the file. ``salt`` and ``hash`` are hexadecimal."""

    name: str
    role: Role
    salt: str
    hash: str


def people(directory: Path) -> dict[str, Person]:
    """Everybody by name; nobody if there is no file yet. Raises StateCorrupt, StateError."""
    path = directory / FILE
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise StateError("factory.people", f"{path}: {error.strerror}") from error
    try:
        found = msgspec.json.decode(content, type=list[Person])
    except msgspec.MsgspecError as error:
        raise StateCorrupt("factory.people", f"{path}: {error}") from error
    return {person.name: person for person in found}


def admit(
    directory: Path,
    name: str,
    role: Role,
    password: str,
    random: Callable[[int], bytes] = secrets.token_bytes,
) -> None:
    """Add *name*, or give it another role and password. Raises ConfigError ``factory.people``."""
    if not NAME.fullmatch(name):
        raise ConfigError("factory.people", "name: 1 to 32 of a-z, 0-9, '.', '_', '-'")
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ConfigError("factory.people", f"password: {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    salt = random(16)
    present = people(directory)
    present[name] = Person(name, role, salt.hex(), _hash(password, salt))
    _write(directory, present)


def dismiss(directory: Path, name: str) -> None:
    """Take *name* out of the file. Raises ConfigError if it is not in it."""
    present = people(directory)
    if present.pop(name, None) is None:
        raise ConfigError("factory.people", f"{name!r} is nobody here")
    _write(directory, present)


def known(directory: Path, name: str, password: str) -> Person | None:
    """The person, or None if name or password are wrong; both take the same time to say so."""
    person = people(directory).get(name)
    salt = bytes.fromhex(person.salt) if person else bytes(16)
    offered = _hash(password[:MAX_PASSWORD], salt)
    if person is not None and hmac.compare_digest(offered, person.hash):
        return person
    return None


def _hash(password: str, salt: bytes) -> str:
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **_COST).hex()


def _write(directory: Path, present: dict[str, Person]) -> None:
    content = msgspec.json.format(msgspec.json.encode(list(present.values()))) + b"\n"
    write_file(directory / FILE, content, private=True)
