"""PKCS#11 tokens in the configuration: the home of our keys (``keys.pkcs11``), and that of the IDevID."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from holdfast.host.config_secrets import secret_from
from holdfast.host.config_yaml import Fault, KeyPath
from holdfast.keys.open import Pkcs11Settings
from holdfast.keys.pkcs11_uri import Pkcs11Uri, parse
from holdfast.wire.errors import KeyStoreError

PREFIX: Final = "holdfast"
_KEYS: Final[KeyPath] = ("keys", "pkcs11")
_IDEVID: Final[KeyPath] = ("idevid",)
_PINS: Final = ("pin-file", "pin-credential")
_OF_A_TPM: Final = ("handle", "auth-file")


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """Which token (or object on it), by which module, and the file with its user PIN."""

    uri: Pkcs11Uri
    module: Path
    pin_file: Path | None = None
    prefix: str = PREFIX
    certificates: bool = True

    def store_settings(self, directory: Path) -> Pkcs11Settings:
        """What opens the token's store, which remembers refused PINs in *directory*."""
        return Pkcs11Settings(
            module=self.module,
            uri=self.uri,
            directory=directory,
            pin=secret_from(self.pin_file),
            prefix=self.prefix,
            certificates=self.certificates,
        )


def token_uri(text: str) -> str:
    """Format ``token-uri``: a PKCS#11 URI of one token, without secrets."""
    uri = _uri(text)
    if uri.object is not None or uri.id is not None or uri.type is not None:
        raise ValueError("must name a token only; object, id and type do not belong here")
    return text


def object_uri(text: str) -> str:
    """Format ``private-key-uri``: a PKCS#11 URI of a private key, without secrets."""
    uri = _uri(text)
    if uri.object is None and uri.id is None:
        raise ValueError("must name the key by object, id or both")
    if uri.type not in {None, "private"}:
        raise ValueError("must name a private key")
    return text


def _uri(text: str) -> Pkcs11Uri:
    try:
        uri = parse(text)
    except KeyStoreError as error:
        raise ValueError(f"{error.detail} ({error.clause})") from None
    if uri.pin_value is not None:
        raise ValueError("must hold no PIN: use pin-file or pin-credential")
    if uri.unknown:
        raise ValueError("has an attribute that is not known, so it matches nothing (RFC 7512 §2.3)")
    return uri


def read_home(data: Mapping[str, Any], base: Path, credentials: Path) -> TokenSettings:
    """The settings of ``keys.pkcs11``, which hold by :func:`faults`."""
    uri = parse(data["uri"])
    return TokenSettings(
        uri=uri,
        module=_module(data, base, uri) or Path(),
        pin_file=_pin_file(data, base, credentials, uri),
        prefix=data["label-prefix"],
        certificates=data["certificates"],
    )


def read_idevid(
    data: Mapping[str, Any], base: Path, credentials: Path, home: TokenSettings | None
) -> TokenSettings | None:
    """The settings of ``idevid`` if it is on a token. What it does not say of the token is said by *home*.

    The PIN of *home* is for *home*'s token alone: it is not tried on another one.
    """
    if "uri" not in data:
        return None
    uri = parse(data["uri"])
    module = _module(data, base, uri) or (home.module if home else Path())
    pin = _pin_file(data, base, credentials, uri)
    if home is not None and home.module == module and uri.of_token in {Pkcs11Uri(), home.uri.of_token}:
        pin = pin or home.pin_file
        uri = replace(home.uri.of_token, object=uri.object, id=uri.id, type="private")
    return TokenSettings(uri, module, pin)


def _module(data: Mapping[str, Any], base: Path, uri: Pkcs11Uri) -> Path | None:
    if "module" in data:
        return base / str(data["module"])
    return Path(uri.module_path) if uri.module_path is not None else None


def _pin_file(data: Mapping[str, Any], base: Path, credentials: Path, uri: Pkcs11Uri) -> Path | None:
    if "pin-file" in data:
        return base / str(data["pin-file"])
    if "pin-credential" in data:
        return credentials / str(data["pin-credential"])
    return Path(uri.pin_file) if uri.pin_file is not None else None


class Reading(Protocol):
    """What the rules need of the document."""

    def get(self, path: KeyPath, kind: type[Any]) -> Any: ...

    def file(self, path: KeyPath, *, secret: bool) -> Iterator[Fault]: ...

    def credential(self, path: KeyPath) -> Iterator[Fault]: ...

    def fault(self, path: KeyPath, message: str) -> Fault: ...


def faults(reading: Reading) -> Iterator[Fault]:
    """Every rule about tokens that does not hold."""
    home, keys = reading.get(_KEYS, dict), reading.get(("keys",), dict) or {}
    if home is None and keys.get("store") == "pkcs11" and "pkcs11" not in keys:
        yield reading.fault(("keys", "store"), "needs a pkcs11 section beside it")
    if home is not None:
        if keys.get("store") == "tpm":
            yield reading.fault(("keys", "store"), "excludes the pkcs11 section beside it")
        yield from _token(reading, _KEYS, home, module_needed=True)
    idevid = reading.get(_IDEVID, dict) or {}
    if "uri" in idevid:
        yield from _token(reading, _IDEVID, idevid, module_needed=home is None)
        for name in _OF_A_TPM:
            if name in idevid:
                yield reading.fault((*_IDEVID, name), "is for a TPM, and excludes uri")
        if "nv-index" in (reading.get((*_IDEVID, "certificate"), dict) or {}):
            yield reading.fault((*_IDEVID, "certificate", "nv-index"), "is for a TPM, and excludes uri")
    else:
        for name in ("module", *_PINS):
            if name in idevid:
                yield reading.fault((*_IDEVID, name), "needs a uri")


def _token(
    reading: Reading, path: KeyPath, data: Mapping[str, Any], *, module_needed: bool
) -> Iterator[Fault]:
    text = reading.get((*path, "uri"), str)
    uri = parse(text) if text is not None else None
    pins = [name for name in _PINS if name in data]
    if uri is not None and uri.pin_source is not None:
        pins.append("uri")
    for name in pins[1:]:
        yield reading.fault((*path, name), f"says where the PIN is, and so does {pins[0]}")
    yield from reading.file((*path, "pin-file"), secret=True)
    yield from reading.credential((*path, "pin-credential"))
    yield from reading.file((*path, "module"), secret=False)
    if "module" in data and uri is not None and uri.module_path is not None:
        yield reading.fault((*path, "module"), "says which module, and so does uri")
    if module_needed and uri is not None and "module" not in data and uri.module_path is None:
        yield reading.fault((*path, "uri"), "needs a module beside it, or a module-path in it")
