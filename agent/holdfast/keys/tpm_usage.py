"""What this process asks of the TPM: commands, the time that they took; and what the TPM counts itself."""

from __future__ import annotations

import time
from typing import Any, Final

from tpm2_pytss import TPM2_CAP, TPM2_PT

from holdfast.keys.api import Usage

_LOCAL: Final = frozenset(
    {"close", "tr_close", "tr_get_name", "tr_get_tpm_handle", "tr_serialize", "tr_deserialize", "tr_set_auth"}
)
"""What the library does by itself. Everything else that we call is one command."""


class Counter:
    """Adds up over every connection that a process makes."""

    def __init__(self) -> None:
        self.usage = Usage()

    def spent(self, seconds: float) -> None:
        """One command took that long."""
        self.usage = Usage(self.usage.commands + 1, self.usage.seconds + seconds)


class CountedEsapi:
    """An ESAPI context whose commands are counted."""

    def __init__(self, esapi: Any, counter: Counter) -> None:
        self._esapi = esapi
        self._counter = counter

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._esapi, name)
        if name in _LOCAL or not callable(member):
            return member

        def command(*arguments: Any, **options: Any) -> Any:
            began = time.monotonic()
            try:
                return member(*arguments, **options)
            finally:
                self._counter.spent(time.monotonic() - began)

        return command


def lockout_counter(esapi: Any) -> int | None:
    """How many failed authorisations the TPM remembers; None if it does not say. Changes nothing."""
    _, capability = esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, TPM2_PT.LOCKOUT_COUNTER, 1)
    for found in capability.data.tpmProperties:
        if int(found.property) == int(TPM2_PT.LOCKOUT_COUNTER):
            return int(found.value)
    return None
