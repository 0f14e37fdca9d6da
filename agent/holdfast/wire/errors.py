"""The one family of errors. The type says who is at fault, the code says what failed.

Codes are stable dotted names (``voucher.nonce``, ``est.key-mismatch``): they are written into the
device record, shown by ``holdfast status`` and sent in BRSKI telemetry, so they never carry a secret.
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import ClassVar


class Retry(Enum):
    """What an unattended device may do about an error."""

    NEVER = "never"  # the same attempt fails again; only a new input helps
    BACKOFF = "backoff"  # try again later, with growing distance
    OPERATOR = "operator"  # a person must act; retrying could do harm (TPM lockout, wrong PIN)


class HoldfastError(Exception):
    """Root of every error that crosses a floor.

    ``code``: stable dotted reason; ``detail``: what was seen, for a person, bounded and secret-free;
    ``clause``: the text that was broken (``RFC 8995 §5.6``), empty where none applies.
    """

    retry: ClassVar[Retry] = Retry.BACKOFF
    own_lines: ClassVar[bool] = False
    """Whether ``detail`` may have several lines, because all of it is our own."""

    def __init__(self, code: str, detail: str = "", *, clause: str = "") -> None:
        self.code = code
        # Much of it quotes a peer, whose control characters must not reach a terminal or split a log line.
        detail, kept = detail[:2000], "\n" if self.own_lines else ""
        if not detail.isprintable():
            detail = "".join(c if c.isprintable() or c in kept else " " for c in detail)
        self.detail = detail
        self.clause = clause
        super().__init__(code, self.detail, clause)

    def __str__(self) -> str:
        text = f"{self.code}: {self.detail}" if self.detail else self.code
        return f"{text} ({self.clause})" if self.clause else text

    def diagnostics(self) -> dict[str, str]:
        """What an operator reads: kind, code, detail, clause and what the agent will do about it."""
        return {
            "kind": type(self).__name__,
            "code": self.code,
            "detail": self.detail,
            "clause": self.clause,
            "retry": self.retry.value,
        }


class LocalProtocolError(HoldfastError):
    """Our own bug: we were about to break a protocol."""

    retry = Retry.NEVER


class RemoteProtocolError(HoldfastError):
    """The peer broke a named clause, or cannot serve us. Nothing that it sent was used.

    ``busy``: it cannot serve now and may have acted already, so the same request is sent again later, not
    before ``retry_after`` if it said so. ``unsupported``: it has no such operation or protocol.
    """

    def __init__(
        self,
        code: str,
        detail: str = "",
        *,
        clause: str = "",
        busy: bool = False,
        unsupported: bool = False,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(code, detail, clause=clause)
        self.busy = busy
        self.unsupported = unsupported
        self.retry_after = retry_after


class TrustError(HoldfastError):
    """A signature, pin, nonce, voucher or chain did not hold. Never a reason to fall down the ladder."""


class TransportError(HoldfastError):
    """The connection could not be made or did not last."""


class KeyStoreError(HoldfastError):
    """The home of a key failed."""


class KeyNotFound(KeyStoreError):
    """No key at that reference."""

    retry = Retry.NEVER


class KeyLocked(KeyStoreError):
    """Wrong or missing authorisation, or a lockout. Never retried blindly."""

    retry = Retry.OPERATOR


class KeyStoreUnavailable(KeyStoreError):
    """The TPM or token does not answer."""


class StateError(HoldfastError):
    """The durable record could not be used."""


class StateCorrupt(StateError):
    """No stored generation of the record passes its checksum."""

    retry = Retry.OPERATOR


class SchemaTooNew(StateError):
    """The record was written by a newer agent."""

    retry = Retry.OPERATOR


class ConfigError(HoldfastError):
    """The configuration cannot be used; ``detail`` lists every fault with file, key path and line."""

    retry = Retry.OPERATOR
    own_lines = True


class KeyUnsuitable(ConfigError):
    """A protocol cannot use keys of the configured kind; another protocol may."""
