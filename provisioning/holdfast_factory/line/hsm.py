"""The CA's keys in a PKCS#11 HSM. Who may use them, and how many persons that takes, is the HSM's affair.

``hsm.json`` in the factory's directory says which HSM: module, token, and the file that holds the PIN.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.errors import ConfigError, KeyStoreError, StateCorrupt
from holdfast_factory.files import write_file

SETTINGS: Final = "hsm.json"
_PREFIX: Final = "factory"
_LIMIT: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Hsm:
    """Which token: ``module`` and ``pin_file`` are paths, ``token`` is a PKCS#11 URI (RFC 7512)."""

    module: str
    token: str
    pin_file: str


class HsmKeys:
    """The keys of a factory in its HSM, labelled ``factory-<name>-1``. Close it, or use it in a ``with``
    block."""

    def __init__(self, hsm: Hsm, directory: Path) -> None:
        def pin() -> bytes:
            try:
                return bytes(Path(hsm.pin_file).read_bytes().removesuffix(b"\n"))
            except OSError as error:
                raise ConfigError("factory.token", f"{hsm.pin_file}: {error.strerror}") from error

        settings = Pkcs11Settings(
            Path(hsm.module), parse(hsm.token), directory, pin, prefix=_PREFIX, certificates=False
        )
        self._store = open_store(settings)

    def make(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Raises KeyStoreError."""
        return _ec(self._store.generate(self._ref(name), KeySpec()).signer())

    def load(self, name: str) -> ec.EllipticCurvePrivateKey:
        """Raises KeyStoreError."""
        return _ec(self._store.load(self._ref(name)).signer())

    def close(self) -> None:
        self._store.close()

    def _ref(self, name: str) -> KeyRef:
        return self._store.plan(name, 1)


def write_settings(directory: Path, hsm: Hsm) -> None:
    """Remember *hsm* for the factory in *directory*."""
    write_file(directory / SETTINGS, msgspec.json.encode(asdict(hsm)) + b"\n")


def keys_of(directory: Path) -> HsmKeys | None:
    """The HSM of the factory in *directory*; None if its keys are files. Raises StateCorrupt, ConfigError."""
    path = directory / SETTINGS
    if not path.exists():
        return None
    try:
        with path.open("rb") as file:
            return HsmKeys(msgspec.json.decode(file.read(_LIMIT), type=Hsm), directory)
    except (msgspec.MsgspecError, OSError) as error:
        raise StateCorrupt("factory.corrupt", f"{path}: {error}") from error


def _ec(signer: object) -> ec.EllipticCurvePrivateKey:
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise KeyStoreError("factory.corrupt", "the HSM's key is not on an elliptic curve")
    return signer
