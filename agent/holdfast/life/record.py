"""The durable record of a device: one domain part, and one entry an identity (ARCHITECTURE §5).

All records are frozen; the store writes what :func:`encode` returns and reads it with :func:`decode`.
Binary values are DER and stand as base64 in the JSON text, times as RFC 3339 UTC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final

import msgspec

from holdfast.keys.api import NO_KEY, KeyRef
from holdfast.life.search import NO_SEARCH, Search
from holdfast.wire.errors import SchemaTooNew, StateCorrupt
from holdfast.wire.model import KeyAlgorithm, Purpose

SCHEMA: Final = 2
"""2: deployments, ladders and what else came with unattended years. An agent of schema 1 would drop them."""


LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)


class DomainState(Enum):
    NONE = "none"
    PROVISIONAL = "provisional"
    VOUCHED = "vouched"


class CredentialState(Enum):
    NONE = "none"
    ACTIVE = "active"
    EXPIRED = "expired"
    REVOKED = "revoked"


class TransactionState(Enum):
    NONE = "none"
    KEYED = "keyed"
    REQUESTED = "requested"
    PENDING = "pending"
    STAGED = "staged"


class Provenance(Enum):
    """How an anchor came to be trusted."""

    VOUCHER = "voucher"
    CACERTS = "cacerts"  # named over a channel that the anchors before vouched for
    ROLLOVER = "rollover"  # the same, and signed by an anchor before
    CONFIGURED = "configured"  # by the operator, for a server outside the domain


@dataclass(frozen=True, slots=True)
class Anchor:
    """One domain trust anchor and where it came from.

    ``sources`` are the servers that name it; ``missing`` is since when none of them does any more.
    """

    certificate: bytes = field(repr=False)
    provenance: Provenance
    since: datetime
    sources: tuple[str, ...] = ()
    missing: datetime | None = None


@dataclass(frozen=True, slots=True)
class Retired:
    """An anchor that is trusted no more, by its SHA-256, and since when."""

    sha256: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Domain:
    """Whom the device belongs to.

    PROVISIONAL: an attempt with *registrar* is under way; ``pvr`` is the signed voucher request that is
    sent again unchanged after a 202, ``registrar_certificate`` the end-entity certificate that it names,
    ``nonce`` its nonce as the JSON string, ``polls`` counts the 202 answers to it. ``redirected`` says that
    the registrar is one that another registrar sent us to, and ``visited`` which ones did, first to last.

    VOUCHED: ``anchors`` came by voucher or later by cacerts; ``intermediates`` only help to build a path
    and are never trusted by themselves; ``retired`` anchors never come back. ``floor`` is the latest time
    that the domain has vouched for: it goes with the domain, so that one that dates its certificates in the
    year 9999 locks out itself alone. ``est_domain``: *registrar* is the EST server that the voucher names.
    ``sought`` is when the registrar was last sought anew because nobody answered at its place, ``doubted``
    when because somebody else did.
    """

    state: DomainState = DomainState.NONE
    registrar: str = ""
    redirected: bool = False
    polls: int = 0
    nonce: str = ""
    pvr: bytes = field(default=b"", repr=False)
    registrar_certificate: bytes = field(default=b"", repr=False)
    deadline: datetime | None = None
    voucher: bytes = field(default=b"", repr=False)
    anchors: tuple[Anchor, ...] = ()
    intermediates: tuple[bytes, ...] = field(default=(), repr=False)
    floor: datetime | None = None
    retired: tuple[Retired, ...] = ()
    visited: tuple[str, ...] = ()
    est_domain: bool = False
    sought: datetime | None = None
    doubted: datetime | None = None


@dataclass(frozen=True, slots=True)
class Credential:
    """What the identity holds: key reference and certificate chain (DER, leaf first).

    ``since`` is when it became the current one, by our clock: its first date may lie far before.
    """

    state: CredentialState = CredentialState.NONE
    key: KeyRef = NO_KEY
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    generation: int = 0
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Transaction:
    """What is under way. The key at ``key`` may not exist yet while KEYED: it is planned first.
    So is the one at ``transport``, which decrypts in its place where it cannot (SCEP) and goes with the
    transaction.

    ``rung`` names the ladder's rung that it runs on. ``wishes`` is the server's answer to what a CSR should
    hold, in the protocol's own encoding, kept so that the CSR can be made again after a power
    cut; ``deadline`` ends the patience with a server that answers "pending"; ``refusals`` counts how often
    a server did not take the STAGED certificate, and before that how often one came that is not valid yet;
    ``since`` is when it all began.
    """

    state: TransactionState = TransactionState.NONE
    purpose: Purpose = Purpose.INITIAL
    protocol: str = ""
    key: KeyRef = NO_KEY
    transport: KeyRef = NO_KEY
    algorithm: KeyAlgorithm = KeyAlgorithm.P256
    generation: int = 0
    id: str = ""
    csr: bytes = field(default=b"", repr=False)
    wishes: bytes = field(default=b"", repr=False)
    resume: bytes = field(default=b"", repr=False)
    chain: tuple[bytes, ...] = field(default=(), repr=False)
    deadline: datetime | None = None
    refusals: int = 0
    since: datetime | None = None
    rung: str = ""


@dataclass(frozen=True, slots=True)
class Trouble:
    """The last failure: its code, what was seen, the clause, and when. ``holdfast status`` shows it."""

    code: str
    detail: str
    clause: str
    retry: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    """When to act next, how often it failed in a row, the last failure, and the time of the row's first."""

    due: datetime | None = None
    attempts: int = 0
    trouble: Trouble | None = None
    since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Deployment:
    """How far other programs have the active credential.

    ``placed`` names what the files in ``current`` were made of: chain, anchors, key reference and the
    settings of the deployment; "" if they are not in place. ``tried`` names what could not be placed.
    ``hooks`` are the numbers of the hooks that ran since, ``complete`` says that none is left. It has a
    schedule of its own, so that a hook that fails holds up neither a renewal nor another identity.
    """

    placed: str = ""
    tried: str = ""
    hooks: tuple[int, ...] = ()
    complete: bool = False
    schedule: Schedule = Schedule()

    @property
    def stage(self) -> str:
        """How far it came, in words."""
        if self.complete:
            return "hooks run"
        return "files current" if self.placed else "promoted"


@dataclass(frozen=True, slots=True)
class Bar:
    """A rung that did not serve: the code of the reason, and when."""

    rung: str
    code: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Move:
    """One move on the ladder: from which rung to which, the code of the reason, and when."""

    source: str
    target: str
    code: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Ladder:
    """Where an identity stands on its ladder: the rung that answered last, the last moves, and the rungs that
    the next transaction passes over because a request to them came to nothing."""

    rung: str = ""
    moves: tuple[Move, ...] = ()
    barred: tuple[Bar, ...] = ()


@dataclass(frozen=True, slots=True)
class Hint:
    """When the CA would like to see the credential renewed (no window: whenever), when it is asked again, and
    why it could not be asked last time."""

    ask: datetime
    start: datetime | None = None
    end: datetime | None = None
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """One identity: a credential, a transaction, keys that wait to be destroyed, a schedule, how far other
    programs have the credential, and its place on the ladder of protocols.

    ``account`` is the key that stands for it at an ACME server. ``directory`` is where its files are.
    ``dropped`` is when the configuration was first seen without it. ``standing`` is when its certificate's
    status is looked up again."""

    name: str
    credential: Credential = Credential()
    transaction: Transaction = Transaction()
    retiring: tuple[KeyRef, ...] = ()
    schedule: Schedule = Schedule()
    deployment: Deployment = Deployment()
    ladder: Ladder = Ladder()
    account: KeyRef = NO_KEY
    directory: str = ""
    dropped: datetime | None = None
    hint: Hint | None = None
    standing: Schedule = Schedule()


@dataclass(frozen=True, slots=True)
class DeviceRecord:
    """Everything that must survive a power cut.

    ``floor`` is the device's own: the build, and the last trusted clock that a commit saw. Only a trusted
    clock may take it back (ADR 13). ``home`` names the hardware that the keys were made in; "" if it has no
    name, or no key was made yet. ``search`` is about registrars that nobody configured.
    """

    floor: datetime
    domain: Domain = Domain()
    identities: tuple[Identity, ...] = ()
    schedule: Schedule = Schedule()
    home: str = ""
    search: Search = NO_SEARCH

    @property
    def proven(self) -> datetime:
        """What others have signed: no clock at all is believed before it while this domain is ours."""
        return self.domain.floor or LONG_AGO

    @property
    def time_floor(self) -> datetime:
        """No earlier time is believed of a clock that is not trusted."""
        return max(self.floor, self.domain.floor or self.floor)

    def identity(self, name: str) -> Identity:
        """The entry *name*; a fresh one if the record has none yet."""
        for entry in self.identities:
            if entry.name == name:
                return entry
        return Identity(name)

    def with_identity(self, identity: Identity) -> DeviceRecord:
        """This record with *identity* in the place of the entry of the same name."""
        others = tuple(i for i in self.identities if i.name != identity.name)
        return replace(self, identities=tuple(sorted((*others, identity), key=lambda i: i.name)))

    def without_identity(self, name: str) -> DeviceRecord:
        """This record without the entry *name*."""
        return replace(self, identities=tuple(i for i in self.identities if i.name != name))

    def key_refs(self) -> frozenset[KeyRef]:
        """Every key reference that the record names; keys outside it are orphans."""
        refs: set[KeyRef] = set()
        for i in self.identities:
            transaction = i.transaction
            refs.update((i.credential.key, transaction.key, transaction.transport, i.account, *i.retiring))
        return frozenset(refs - {NO_KEY})


@dataclass(frozen=True, slots=True)
class _Schema:
    schema: int


@dataclass(frozen=True, slots=True)
class _Envelope:
    schema: int
    record: DeviceRecord


def encode(record: DeviceRecord) -> bytes:
    """JSON text of *record*, UTF-8, one line."""
    return msgspec.json.encode(_Envelope(SCHEMA, record))


def decode(data: bytes) -> DeviceRecord:
    """The record in *data*. Raises StateCorrupt (naming the field) or SchemaTooNew."""
    try:
        schema = msgspec.json.decode(data, type=_Schema).schema
        if schema > SCHEMA:
            raise SchemaTooNew(
                "state.schema-too-new",
                f"the record has schema {schema}, this agent reads up to {SCHEMA}: install the newer agent",
            )
        if schema < SCHEMA:
            data = _migrated(data, schema)
        return msgspec.json.decode(data, type=_Envelope).record
    except msgspec.MsgspecError as error:
        raise StateCorrupt("state.corrupt", f"the record does not parse: {error}") from error


def _migrated(data: bytes, schema: int) -> bytes:
    """*data* of an older *schema* as the present one. Raises StateCorrupt for one that there never was."""
    raw = msgspec.json.decode(data)
    for number in range(schema, SCHEMA):
        if number not in _MIGRATIONS:
            raise StateCorrupt("state.corrupt", f"no agent ever wrote schema {schema}")
        raw = _MIGRATIONS[number](raw)
    return msgspec.json.encode(raw | {"schema": SCHEMA})


def _from_1(raw: dict[str, Any]) -> dict[str, Any]:
    """What is new in 2 has defaults that are true of a record of 1: nothing of it has happened yet."""
    return raw


_MIGRATIONS: Final[Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {1: _from_1}
"""From each schema to the next."""
