"""Reading and writing the TPM's own big-endian structures (TPM 2.0 Library, Part 2), bounded and complete."""

from __future__ import annotations

from typing import Final

from holdfast.wire.errors import RemoteProtocolError

LIMIT: Final = 8192
"""No structure that we read is larger (TPM2B fields have 16-bit lengths)."""


class Octets:
    """A cursor over one structure. Raises RemoteProtocolError ``tpm.syntax`` that names *what* is read."""

    def __init__(self, data: bytes, what: str, *, limit: int = LIMIT) -> None:
        if len(data) > limit:
            raise RemoteProtocolError("tpm.too-large", f"{what}: {len(data)} octets, limit {limit}")
        self._data = data
        self._at = 0
        self._what = what

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            detail = f"{self._what} ends after {len(self._data)} octets, {end} are needed"
            raise RemoteProtocolError("tpm.syntax", detail, clause="TPM 2.0 Part 2")
        found, self._at = self._data[self._at : end], end
        return found

    @property
    def rest(self) -> bytes:
        """What was not read yet."""
        return self._data[self._at :]

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def sized(self) -> bytes:
        """A TPM2B: two octets of length, then that many."""
        return self.take(self.number(2))

    def end(self) -> None:
        """Nothing may follow."""
        if rest := len(self._data) - self._at:
            raise RemoteProtocolError(
                "tpm.syntax", f"{rest} octets follow {self._what}", clause="TPM 2.0 Part 2"
            )


def sized(data: bytes) -> bytes:
    """*data* as a TPM2B."""
    return len(data).to_bytes(2, "big") + data
