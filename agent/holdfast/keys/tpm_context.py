"""One connection to a TPM for one process: serialised, mapped to our errors, remade after an I/O error."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

from tpm2_pytss import ESAPI, TSS2_Exception

from holdfast.keys.tpm_faults import connection_broken, fault, unreachable
from holdfast.keys.tpm_usage import CountedEsapi, Counter
from holdfast.wire.errors import KeyStoreUnavailable

T = TypeVar("T")

_ATTEMPTS: Final = 2


class TpmContext:
    """Runs operations on an ESAPI context, one at a time, from any thread of this process.

    ``epoch`` grows whenever the context is remade: ESYS_TR handles of an older epoch mean nothing any more.
    *restore* is called with each remade context before it is used.
    """

    def __init__(self, tcti: str, restore: Callable[[Any], None]) -> None:
        # The TSS would log to stderr whatever we raise; it reads this when it first logs.
        os.environ.setdefault("TSS2_LOG", "all+NONE")
        self.tcti = tcti
        self.epoch = 0
        self.counter = Counter()
        self._restore = restore
        self._lock = threading.RLock()
        self._esapi: Any = None
        self._closed = False

    def run(self, doing: str, operation: Callable[[Any], T]) -> T:
        """The result of *operation* on the ESAPI context.

        *operation* must be safe to repeat: it runs a second time, on a new connection, after an I/O error.
        Raises KeyStoreError and its kinds; *doing* says for a person what was tried.
        """
        with self._lock:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    return operation(self._connected())
                except TSS2_Exception as error:
                    if not connection_broken(error.rc):
                        raise fault(error.rc, str(error), doing) from error
                    self._disconnect()
                    if attempt == _ATTEMPTS:
                        raise unreachable(self.tcti, f"{doing}: {error}") from error
            raise AssertionError  # the loop returns or raises

    def close(self) -> None:
        """End the connection for good. Idempotent."""
        with self._lock:
            self._closed = True
            self._disconnect()

    def _connected(self) -> Any:
        if self._closed:
            raise KeyStoreUnavailable("key.closed", "the key store was closed")
        if self._esapi is None:
            self._esapi = CountedEsapi(ESAPI(self.tcti), self.counter)
            self.epoch += 1
            if self.epoch > 1:
                self._restore(self._esapi)
        return self._esapi

    def _disconnect(self) -> None:
        if self._esapi is not None:
            self._esapi.close()
            self._esapi = None
