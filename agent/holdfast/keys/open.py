"""Open the key store that the settings name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from holdfast.wire.errors import KeyStoreUnavailable

if TYPE_CHECKING:
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


def open_store(settings: TpmSettings) -> TpmStore:
    """The store for *settings*; no hardware is touched yet. Raises KeyStoreUnavailable(``key.no-tss``)."""
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
