"""Open the key store that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, overload

from holdfast.keys.pkcs11_uri import Pkcs11Uri
from holdfast.wire.errors import KeyStoreUnavailable

if TYPE_CHECKING:
    from holdfast.keys.pkcs11 import Pkcs11Store
    from holdfast.keys.tpm import TpmStore


@dataclass(frozen=True, slots=True)
class TpmSettings:
    """How to reach the TPM and where its keys go; see :class:`~holdfast.keys.tpm.TpmStore`.

    ``auth`` and ``owner_auth`` read a secret when it is needed; they are never part of a text form.
    """

    tcti: str
    directory: Path
    srk: int = 0x81000001
    storage: Literal["blob", "persistent"] = "blob"
    persistent_base: int = 0x81010100
    persistent_count: int = 16
    identities: tuple[str, ...] = ("ldevid",)
    auth: Callable[[], bytes] | None = field(default=None, repr=False)
    owner_auth: Callable[[], bytes] | None = field(default=None, repr=False)
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Pkcs11Settings:
    """Which token, and how to reach it; see :class:`~holdfast.keys.pkcs11.Pkcs11Store`.

    ``pin`` reads the user PIN when it is needed; *directory* remembers a PIN that the token refused.
    """

    module: Path
    uri: Pkcs11Uri
    directory: Path
    pin: Callable[[], bytes] | None = field(default=None, repr=False)
    prefix: str = "holdfast"
    certificates: bool = True


@overload
def open_store(settings: TpmSettings) -> TpmStore: ...
@overload
def open_store(settings: Pkcs11Settings) -> Pkcs11Store: ...
@overload
def open_store(settings: TpmSettings | Pkcs11Settings) -> TpmStore | Pkcs11Store: ...
def open_store(settings: TpmSettings | Pkcs11Settings) -> TpmStore | Pkcs11Store:
    """The store for *settings*; no hardware is touched yet.

    Raises KeyStoreUnavailable(``key.no-tss``, ``key.no-pkcs11``) where the library for it is missing.
    """
    return _open_token(settings) if isinstance(settings, Pkcs11Settings) else _open_tpm(settings)


def _open_token(settings: Pkcs11Settings) -> Pkcs11Store:
    try:
        from holdfast.keys.pkcs11 import Pkcs11Store  # noqa: PLC0415 - comes with the extra "pkcs11" only
    except ImportError as error:
        raise KeyStoreUnavailable(
            "key.no-pkcs11", f"keys on tokens need python-pkcs11: install holdfast[pkcs11] ({error})"
        ) from error
    return Pkcs11Store(
        settings.module,
        settings.uri,
        settings.directory,
        pin=settings.pin,
        prefix=settings.prefix,
        certificates=settings.certificates,
    )


def _open_tpm(settings: TpmSettings) -> TpmStore:
    try:
        from holdfast.keys.tpm import TpmStore  # noqa: PLC0415 - the TSS comes with the extra "tpm" only
    except ImportError as error:
        raise KeyStoreUnavailable(
            "key.no-tss", f"TPM keys need tpm2-pytss: install holdfast[tpm] ({error})"
        ) from error
    return TpmStore(
        settings.tcti,
        settings.directory,
        srk=settings.srk,
        storage=settings.storage,
        persistent_base=settings.persistent_base,
        persistent_count=settings.persistent_count,
        identities=settings.identities,
        auth=settings.auth,
        owner_auth=settings.owner_auth,
        slots=settings.slots,
    )
