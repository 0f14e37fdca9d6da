"""What this process has in the TPM: persistent objects that it knows, and transient keys that it loaded.

A TPM without a resource manager has three transient slots for everybody, a persistent parent takes one
while it is used, and what a killed process left there stays until the TPM is reset. So few keys stay loaded,
the one used longest ago goes first, and leftovers are recognised by their name.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections import OrderedDict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from tpm2_pytss import TPM2_CAP, TPM2B_PUBLIC, TPMT_PUBLIC, TSS2_Exception

from holdfast.keys.tpm_context import TpmContext
from holdfast.keys.tpm_faults import TpmFull, fault
from holdfast.wire.errors import KeyStoreError

T = TypeVar("T")

_TRANSIENT_FIRST: Final = 0x80000000
_MAX_LISTED: Final = 64
_BARE: Final = re.compile(r"swtpm|mssim|device:/dev/tpm[0-9]")
_HASHES: Final = {0x0B: "sha256", 0x0C: "sha384", 0x0D: "sha512"}


@dataclass(frozen=True, slots=True)
class Persistent:
    """A persistent object: its ESYS_TR in the current epoch and its public area."""

    esys: Any
    public: Any


@dataclass(frozen=True, slots=True)
class _Transient:
    esys: Any
    name: bytes
    epoch: int


def object_name(public: Any) -> bytes:
    """The Name of an object: nameAlg and the hash of its public area (TPM 2.0 Part 1 §16)."""
    name: bytes = bytes(TPM2B_PUBLIC(publicArea=public).get_name())
    return name


class Objects:
    """Cache of loaded objects over a :class:`TpmContext`. Methods that take ``esapi`` run inside ``run``."""

    def __init__(self, tcti: str, slots: int) -> None:
        self.context = TpmContext(tcti, self._restore)
        self.has_resource_manager = not _BARE.match(tcti)
        self._slots = slots
        self._persistent: dict[int, Persistent] = {}
        self._persistent_epoch = 0
        self._transient: OrderedDict[str, _Transient] = OrderedDict()
        self._loading: set[bytes] = set()  # names whose Load was sent: it may have happened unseen
        self.known_names: Callable[[], Collection[bytes]] = tuple

    def run(self, doing: str, operation: Callable[[Any], T]) -> T:
        """As :meth:`TpmContext.run`; if the TPM is full, our keys leave it and *operation* runs once more."""
        try:
            return self.context.run(doing, operation)
        except TpmFull:
            self.context.run("make room", self._make_room)
            return self.context.run(doing, operation)

    def persistent(self, esapi: Any, handle: int) -> Persistent:
        """The object at *handle*: one ReadPublic for each process and handle. Raises TSS2_Exception."""
        if self._persistent_epoch != self.context.epoch:
            self._persistent.clear()
            self._persistent_epoch = self.context.epoch
        if handle not in self._persistent:
            esys = esapi.tr_from_tpmpublic(handle)
            self._persistent[handle] = Persistent(esys, _public_area(esapi, esys))
        return self._persistent[handle]

    def forget_persistent(self, handle: int) -> None:
        self._persistent.pop(handle, None)

    def transient(self, esapi: Any, ref: str, name: bytes, load: Callable[[Any], Any]) -> Any:
        """ESYS_TR of the key *ref* whose Name is *name*; *load* brings it into the TPM if it is not there."""
        held = self._transient.get(ref)
        if held is not None and held.epoch == self.context.epoch and held.name == name:
            self._transient.move_to_end(ref)
            return held.esys
        self.flush(esapi, ref)
        self.make_place(esapi)
        self._loading.add(name)
        esys = load(esapi)
        self.hold(ref, esys, name)
        return esys

    def hold(self, ref: str, esys: Any, name: bytes) -> None:
        """Remember a key that was just loaded."""
        self._loading.discard(name)
        self._transient[ref] = _Transient(esys, name, self.context.epoch)

    def make_place(self, esapi: Any) -> None:
        """Flush keys, those used longest ago first, until another fits."""
        while len(self._transient) >= self._slots:
            self.flush(esapi, next(iter(self._transient)))

    def flush(self, esapi: Any, ref: str) -> None:
        """Take the key *ref* out of the TPM if this process loaded it."""
        held = self._transient.get(ref)
        if held is not None and held.epoch == self.context.epoch:
            try:
                esapi.flush_context(held.esys)
            except TSS2_Exception as error:
                if fault(error.rc, "", "").code not in {"key.not-found", "key.object-gone"}:
                    raise
        self.forget(ref)

    def forget(self, ref: str) -> None:
        """The object of *ref* is not in the TPM any more, or not under the handle that we know."""
        self._transient.pop(ref, None)

    def close(self) -> None:
        """Flush what is loaded and disconnect. A TPM that does not answer is left as it is. Idempotent."""
        if self._transient or self._loading:
            with contextlib.suppress(KeyStoreError):
                self.context.run("flush keys", self._flush_all)
        self.context.close()

    def reclaim(self, esapi: Any, names: Collection[bytes]) -> None:
        """Flush every transient object with one of *names* that we do not hold: its owner is gone."""
        if names:
            self._flush_strangers(esapi, lambda esys: bytes(esapi.tr_get_name(esys)) in names)

    def reclaim_below(self, esapi: Any, parent: Any, spared: Collection[bytes]) -> None:
        """Flush every transient child of *parent* that we do not hold and whose Name is not *spared*.

        A key whose maker was killed before it was stored has no name that anybody knows; but its qualified
        name tells its parent (TPM 2.0 Part 1 §16).
        """
        _, _, above = esapi.read_public(parent)

        def orphaned(esys: Any) -> bool:
            _, name, qualified = esapi.read_public(esys)
            return bytes(name) not in spared and bytes(qualified) == _below(bytes(above), bytes(name))

        self._flush_strangers(esapi, orphaned)

    def _flush_strangers(self, esapi: Any, doomed: Callable[[Any], bool]) -> None:
        """Flush the transient objects that we do not hold and that are *doomed*."""
        current = (t for t in self._transient.values() if t.epoch == self.context.epoch)
        held = {int(esapi.tr_get_tpm_handle(t.esys)) for t in current}
        for handle in handles(esapi, _TRANSIENT_FIRST, _MAX_LISTED):
            if handle not in held:
                esys = esapi.tr_from_tpmpublic(handle)
                (esapi.flush_context if doomed(esys) else esapi.tr_close)(esys)

    def _restore(self, esapi: Any) -> None:
        """A new connection: what the old one had loaded may still be there, under handles we lost."""
        names = {t.name for t in self._transient.values()} | self._loading
        self.reclaim(esapi, names)
        self._transient.clear()
        self._loading.clear()

    def _flush_all(self, esapi: Any) -> None:
        for ref in list(self._transient):
            self.flush(esapi, ref)

    def _make_room(self, esapi: Any) -> None:
        self._flush_all(esapi)
        self.reclaim(esapi, self.known_names())


def _below(parent: bytes, name: bytes) -> bytes:
    """The qualified name of the object *name* whose parent has the qualified name *parent*."""
    algorithm = name[:2]
    return algorithm + hashlib.new(_HASHES[int.from_bytes(algorithm, "big")], parent + name).digest()


def handles(esapi: Any, first: int, count: int) -> tuple[int, ...]:
    """At most *count* handles of objects that exist in [first, first + count)."""
    _, capability = esapi.get_capability(TPM2_CAP.HANDLES, first, count)
    found = (int(h) for h in capability.data.handles)
    return tuple(h for h in found if first <= h < first + count)


def _public_area(esapi: Any, esys: Any) -> Any:
    """The public area that ESAPI read already, taken from its serialised form to save a second ReadPublic.

    The form is the TSS's own, so it counts only if the Name that the TSS holds is that of what we found.
    """
    record = esapi.tr_serialize(esys)
    name = bytes(esapi.tr_get_name(esys))
    at = 4 + 2 + len(name) + 4 + 2  # handle, TPM2B_NAME, resource type, size of TPM2B_PUBLIC
    algorithm = _HASHES.get(int.from_bytes(name[:2], "big"))
    if algorithm and name[2:] == hashlib.new(algorithm, record[at:]).digest():
        with contextlib.suppress(TSS2_Exception):
            public, _ = TPMT_PUBLIC.unmarshal(record[at:])
            return public
    public, _, _ = esapi.read_public(esys)
    return public.publicArea
