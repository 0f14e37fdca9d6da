"""Wires to a TPM on this machine: a TCTI of the TSS, which carries raw commands as they are."""

from __future__ import annotations

import os
from typing import Any, Final

os.environ.setdefault("TSS2_LOG", "all+NONE")  # failures reach the caller as errors, not as lines on stderr

from tpm2_pytss import TCTILdr, TSS2_Exception

from holdfast.keys.tpm_faults import unreachable
from holdfast.wire.errors import KeyStoreUnavailable

_RC: Final = slice(6, 10)
AGAIN: Final = (0x908, 0x90A, 0x922)
"""TPM_RC_YIELDED, _TESTING, _RETRY: the command did nothing yet and is to be sent again. Chips say so at the
first use of a key that counts failures, once after each power-on."""
MOST_TIMES: Final = 8


class TctiLink:
    """The TPM at a TCTI string: ``device:/dev/tpmrm0``, ``swtpm:host=127.0.0.1,port=2321``.

    Raises KeyStoreUnavailable. ``round_trips`` counts batches, ``commands`` what was in them.
    """

    def __init__(self, tcti: str) -> None:
        self._tcti = tcti
        self.round_trips = 0
        self.commands = 0
        name, _, configuration = tcti.partition(":")
        try:
            self._loaded: Any = TCTILdr(name, configuration or None)
        except TSS2_Exception as error:
            raise unreachable(tcti, str(error)) from error

    def exchange(self, batch: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """See :class:`~holdfast_factory.chips.dialogue.Link`."""
        if self._loaded is None:
            raise KeyStoreUnavailable("key.closed", "the connection was closed")
        self.round_trips += 1
        answers: list[bytes] = []
        try:
            for command in batch:
                answers.append(self._ask(command))
                if any(answers[-1][_RC]):
                    break
        except TSS2_Exception as error:
            raise unreachable(self._tcti, str(error)) from error
        return tuple(answers)

    def _ask(self, command: bytes) -> bytes:
        for _ in range(MOST_TIMES):
            self._loaded.transmit(command)
            answer = bytes(self._loaded.receive())
            self.commands += 1
            if int.from_bytes(answer[_RC], "big") not in AGAIN:
                break
        return answer

    def close(self) -> None:
        """Let go of it. Idempotent."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None
