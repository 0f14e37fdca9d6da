"""A unit on the line, as the station sees it: what can be asked of it, and what it shows.

Two halves stay apart. A :class:`Unit` does the acts, on whatever wire leads to the chip; it is not
believed. An :class:`Examiner` judges what was shown, on the station's side, with the makers' roots; it
touches no unit. The station joins the two, and writes each step into the ledger before and after it.

Every act may be cut off at any point and asked again: the second time it finds what the first one left, and
the result is the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from holdfast.wire.model import RandomBytes


class StepName(StrEnum):
    """The steps in their order. The values stand in ledgers: none is ever renamed."""

    ENDORSEMENT = "endorsement"
    KEYS = "keys"
    ACTIVATION = "activation"
    ISSUE = "issue"
    INSTALL = "install"
    INSPECTION = "inspection"
    LOCK = "lock"
    LABEL = "label"


class Purpose(StrEnum):
    """What a certificate of the factory is for."""

    IDEVID = "idevid"
    IAK = "iak"


@dataclass(frozen=True, slots=True)
class Endorsement:
    """What makes a unit this unit and no other.

    *public* is the TPMT_PUBLIC of the endorsement key and *certificates* are DER, its own first, then
    whatever intermediates NV holds. A token has neither: *token* then tells its manufacturer, model and
    serial number.
    """

    public: bytes = field(default=b"", repr=False)
    certificates: tuple[bytes, ...] = field(default=(), repr=False)
    token: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """The keys of a unit. *request* proves them: a TCG-CSR-IDEVID, or PKCS#10 from a token.

    *idevid* and *iak* are TPMT_PUBLIC, or for a token SubjectPublicKeyInfo and nothing.
    """

    request: bytes = field(repr=False)
    idevid: bytes = field(repr=False)
    iak: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class ProvedKeys:
    """What the examiner believes: the keys to certify, as SubjectPublicKeyInfo (DER).

    *iak_name* is the TPM's Name of the IAK, to which a secret is sealed; without an IAK both are empty.
    """

    idevid: bytes = field(repr=False)
    iak: bytes = field(default=b"", repr=False)
    iak_name: bytes = b""


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """The two insides that TPM2_ActivateCredential takes."""

    id_object: bytes = field(repr=False)
    encrypted_secret: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Certificates:
    """What is written into a unit, DER. *iak* is empty where there is none, *issuer* is the factory's CA."""

    idevid: bytes = field(repr=False)
    iak: bytes = field(repr=False)
    issuer: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReadBack:
    """What a unit holds: the certificates as its hardware gives them, and the IDevID key's signature (ECDSA
    or RSA PKCS#1 v1.5, SHA-256) over the station's challenge. *leftovers* counts transient objects."""

    idevid: bytes = field(repr=False)
    iak: bytes = field(repr=False)
    signature: bytes = field(repr=False)
    leftovers: int = 0


class Unit(Protocol):
    """The acts. All raise only kinds of KeyStoreError, and leave nothing transient behind."""

    @property
    def place(self) -> str:
        """How it is reached, for a person: no secret in it."""
        ...

    def endorsement(self) -> Endorsement:
        """Read the endorsement key and its certificates. Changes nothing."""
        ...

    def keys(self, model: str, serial: str) -> Shown:
        """Make the keys by the TCG's templates, or find them; certify one by the other; sign the request."""
        ...

    def activate(self, secret: SealedSecret) -> bytes:
        """Open what was sealed for this TPM and its IAK."""
        ...

    def install(self, certificates: Certificates) -> None:
        """Write the certificates to where the agent looks for them."""
        ...

    def read_back(self, challenge: bytes) -> ReadBack:
        """Read the certificates and sign *challenge*."""
        ...

    def lock(self) -> tuple[str, ...]:
        """Lock what the owner must not find open; says what is locked, a word each."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...


class Examiner(Protocol):
    """The judgements. All raise TrustError or RemoteProtocolError, saying why; none returns a bool."""

    def identify(self, shown: Endorsement) -> str:
        """The unit's name in the ledger, see :func:`unit_of`, out of what it shows."""
        ...

    def endorsement(self, shown: Endorsement, now: datetime) -> None:
        """The certificate leads to a maker's root and is for this key."""
        ...

    def keys(self, shown: Shown, endorsement: Endorsement, model: str, serial: str) -> ProvedKeys:
        """Attributes, TPM2_Certify, signatures, and that the request is for this unit and serial number."""
        ...

    def seal(
        self, keys: ProvedKeys, endorsement: Endorsement, random: RandomBytes
    ) -> tuple[SealedSecret, bytes] | None:
        """A secret for this TPM and IAK, sealed and plain; None where the hardware can prove nothing."""
        ...

    def read_back(self, read: ReadBack, installed: Certificates, challenge: bytes) -> None:
        """The unit holds what was installed, and its key signs."""
        ...


class Places(Protocol):
    """Opens units: ``tcti:device:/dev/tpmrm0``, ``tcti:swtpm:path=...``, ``ssh:...``, ``serial:...``."""

    def __call__(self, place: str) -> Unit:
        """Raises KeyStoreUnavailable while no unit is there."""
        ...


@dataclass(frozen=True, slots=True)
class Label:
    """What stands on a unit. *idevid* is the SHA-256 of the certificate, *unit* that of the EK, in hex."""

    serial: str
    model: str
    organization: str
    unit: str
    idevid: str
    masa_url: str
    made: datetime


class Printer(Protocol):
    """Prints the label of a sealed unit."""

    def __call__(self, label: Label) -> bytes:
        """Returns what was printed; its hash goes into the ledger."""
        ...


def unit_of(identity: bytes) -> str:
    """A unit's name in the ledger: SHA-256 (hex) of its EK's SubjectPublicKeyInfo, or of a token's words."""
    return hashlib.sha256(identity).hexdigest()
