"""A TPM as a :class:`~keys.contract.Home`, and a look at what is loaded in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tpm2_pytss import ESAPI, TPM2_CAP

from holdfast.keys.open import TpmSettings, open_store
from holdfast.keys.tpm import TpmStore


@dataclass(frozen=True)
class TpmHome:
    tcti: str
    directory: Path
    storage: str = "blob"

    def open(self) -> TpmStore:
        return open_store(
            TpmSettings(
                self.tcti, self.directory, storage=self.storage, identities=("ldevid", "second"), slots=1
            )
        )

    def leftovers(self) -> tuple[int, ...]:
        return transient(self.tcti)


def transient(tcti: str) -> tuple[int, ...]:
    """Handles of the transient objects in the TPM."""
    with ESAPI(tcti) as esapi:
        _, capability = esapi.get_capability(TPM2_CAP.HANDLES, 0x80000000, 16)
        return tuple(int(h) for h in capability.data.handles)
