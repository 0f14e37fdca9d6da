"""A unit whose chip is a TPM 2.0, over any wire that carries TPM commands."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Self, TypeVar

from holdfast.keys.tpm_faults import TpmFull
from holdfast.wire.errors import KeyStoreError, KeyStoreUnavailable
from holdfast.wire.tpm.public import parse_public
from holdfast.wire.tpm.templates import Level
from holdfast_factory.chips import commands, nv
from holdfast_factory.chips.commands import PLATFORM
from holdfast_factory.chips.dialogue import (
    Batch,
    Dialogue,
    Link,
    TpmRefusal,
    hold,
    leftovers,
    sweep,
    transients,
)
from holdfast_factory.chips.ek_issue import Endorser, endorse
from holdfast_factory.chips.endorsement import Ek, Look, look, read_ek
from holdfast_factory.chips.keys import (
    IAK_HANDLE,
    IDEVID_HANDLE,
    SRK_HANDLE,
    make,
    open_sealed,
    plain_signature,
    sign,
)
from holdfast_factory.unit import Certificates, Endorsement, ReadBack, SealedSecret, Shown

IDEVID_NV, IAK_NV = 0x01C90200, 0x01C90100
LOCKOUT_TRIES: Final = 32
_LOCKOUT_RECOVERY: Final = (600, 86400)  # seconds: to forget one failure; after a wrong lockout password
_PLACES: Final = (IDEVID_NV, IAK_NV)
T = TypeVar("T")


class TpmUnit:
    """See :class:`~holdfast_factory.unit.Unit`. *level* says which of the TCG's templates the keys have.
    *endorser* certifies an endorsement key whose maker left no certificate; None leaves it without.

    The endorsement key stays loaded between being read and being used, if the chip keeps it at no handle:
    making it twice costs seconds where it is an RSA key. :meth:`close` flushes it.
    """

    def __init__(
        self, link: Link, place: str, *, level: Level = Level.H2, endorser: Endorser | None = None
    ) -> None:
        self.place = place
        self._link = link
        self._level = level
        self._endorser = endorser
        self._seen: Look | None = None
        self._ek: Ek | None = None
        self._spaces: dict[int, nv.Space] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def endorsement(self) -> Endorsement:
        """Raises KeyStoreError ``factory.ek``, ``factory.nv-closed`` and those of the TPM."""
        self._forget()
        ek = self._hold(self._endorsed, "read the endorsement key")
        return Endorsement(ek.area, ek.certificates)

    def keys(self, model: str, serial: str) -> Shown:
        """Raises KeyStoreError ``factory.handle-taken`` and those of the TPM."""

        def whole() -> Dialogue[Shown]:
            ek = yield from self._endorsed()
            seen = yield from self._looked()
            made = yield from make(seen, ek, self._level, model, serial)
            there = seen.persistent | {IDEVID_HANDLE, IAK_HANDLE, SRK_HANDLE}
            self._seen = replace(seen, persistent=there)
            return Shown(made.request, made.idevid, made.iak)

        return self._hold(whole, "make the keys")

    def activate(self, secret: SealedSecret) -> bytes:
        """Raises KeyStoreError ``key.activation``: sealed for another TPM or another IAK."""

        def whole() -> Dialogue[bytes]:
            ek = yield from self._endorsed()
            self._ek = None  # it is flushed, whatever comes of it
            return (yield from open_sealed(ek, self._level, secret.id_object, secret.encrypted_secret))

        return self._hold(whole, "activate a credential")

    def install(self, certificates: Certificates) -> None:
        """Raises KeyStoreError ``factory.nv-taken`` if the place is locked with something else."""
        both = {IDEVID_NV: certificates.idevid, IAK_NV: certificates.iak}
        wanted = {index: data for index, data in both.items() if data}

        def whole() -> Dialogue[None]:
            seen = yield from self._looked()
            self._spaces |= yield from nv.put(wanted, seen.indices, seen.buffer)
            self._seen = replace(seen, indices=seen.indices | set(wanted))

        self._hold(whole, "write the certificates")

    def read_back(self, challenge: bytes) -> ReadBack:
        """Raises KeyStoreError of the TPM. A certificate that is not there is empty."""

        def whole() -> Dialogue[ReadBack]:
            seen = yield from self._looked()
            spaces = yield from self._defined(seen)
            batches = {index: nv.reading(each, seen.buffer) for index, each in spaces.items()}
            flat = tuple(command for batch in batches.values() for command in batch)
            own = () if self._ek is None or not self._ek.transient else (commands.flush(self._ek.handle),)
            self._ek = None
            *read, signed, loaded = yield (*own, *flat, sign(self._level, challenge), transients())
            del read[: len(own)]
            received = iter(read)
            found = {
                index: nv.without_padding(nv.content(tuple(next(received) for _ in batch)))
                for index, batch in batches.items()
            }
            signature = plain_signature(signed.parameters)
            return ReadBack(found.get(IDEVID_NV, b""), found.get(IAK_NV, b""), signature, leftovers(loaded))

        return self._hold(whole, "read back what was written")

    def lock(self) -> tuple[str, ...]:
        """Close the certificates to writing for good, and make the TPM patient with failures.

        The TCG's template subjects the IDevID key to the dictionary-attack counter, and a power cut after its
        use counts as a failure: with a chip's first setting, often three, a gateway would lock itself out.
        """

        def whole() -> Dialogue[tuple[str, ...]]:
            seen = yield from self._looked()
            spaces = yield from self._defined(seen)
            locks: Batch = tuple(commands.nv_write_lock(s.authority, s.index) for s in spaces.values())
            yield (*locks, commands.lockout_parameters(LOCKOUT_TRIES, *_LOCKOUT_RECOVERY))
            names = {IDEVID_NV: "idevid", IAK_NV: "iak"}
            words = [
                f"nv-{names[s.index]}-{'platform' if s.authority == PLATFORM else 'owner'}"
                for s in spaces.values()
            ]
            return (*words, f"lockout-{LOCKOUT_TRIES}")

        return self._hold(whole, "lock the chip")

    def close(self) -> None:
        """Flush what is loaded, and let go of the wire. Idempotent."""
        with contextlib.suppress(KeyStoreError):
            self._forget()
        self._link.close()

    def _endorsed(self) -> Dialogue[Ek]:
        if self._ek is None:
            seen = yield from self._looked()
            self._ek = ek = yield from read_ek(seen)
            if self._endorser is not None and not ek.certificates:
                made = yield from endorse(seen, ek, parse_public(ek.area), self._endorser)
                self._ek = replace(ek, certificates=(made,))
        return self._ek

    def _looked(self) -> Dialogue[Look]:
        if self._seen is None:
            self._seen = yield from look()
        return self._seen

    def _defined(self, seen: Look) -> Dialogue[dict[int, nv.Space]]:
        """Where the certificates are. What this object wrote itself is not asked for again."""
        unknown = tuple(i for i in _PLACES if i in seen.indices and i not in self._spaces)
        if unknown:
            answers = yield tuple(map(commands.nv_read_public, unknown))
            found = zip(unknown, answers, strict=True)
            self._spaces |= {index: nv.space(index, answer) for index, answer in found}
        return {index: self._spaces[index] for index in _PLACES if index in self._spaces}

    def _hold(self, dialogue: Callable[[], Dialogue[T]], doing: str) -> T:
        """As :func:`hold`; once more where somebody who was cut off had left the TPM full. What fails leaves
        nothing loaded: the unit is ours alone."""
        try:
            return hold(self._link, dialogue, doing)
        except TpmFull:
            self._reset()
            sweep(self._link)
            return hold(self._link, dialogue, doing)
        except KeyStoreError as error:
            self._reset()
            if not isinstance(error, KeyStoreUnavailable):
                sweep(self._link)
            raise

    def _forget(self) -> None:
        ek = self._ek
        self._reset()
        if ek is not None and ek.transient:
            hold(self._link, lambda: _flush(ek.handle), "flush the endorsement key")

    def _reset(self) -> None:
        self._seen = self._ek = None
        self._spaces = {}


def _flush(handle: int) -> Dialogue[None]:
    with contextlib.suppress(TpmRefusal):  # a TPM that was reset has flushed it
        yield (commands.flush(handle),)
