"""What can happen to a device, and what it then does. Both are plain frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from holdfast.keys.api import NO_KEY, KeyRef
from holdfast.life.record import Anchor, Bar, Hint, Retired, Trouble
from holdfast.life.search import Candidate
from holdfast.wire.model import KeyAlgorithm, Purpose

# --- events about the domain -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BootstrapDue:
    """A step began while the device belongs to nobody, or while a bootstrap attempt is under way. ``seek``:
    whom to ask must be found out first."""

    seek: bool = False


@dataclass(frozen=True, slots=True)
class CandidatesFound:
    """A search for registrars has ended: whom to try, best first, and which sources brought nothing."""

    candidates: tuple[Candidate, ...] = ()
    silent: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AttemptPrepared:
    """A provisional connection stands and the voucher request for it is signed, but nothing was sent yet."""

    registrar: str
    nonce: str
    pvr: bytes = field(repr=False)
    registrar_certificate: bytes = field(repr=False)
    deadline: datetime


@dataclass(frozen=True, slots=True)
class VoucherPending:
    """The registrar asked for patience (202)."""

    due: datetime


@dataclass(frozen=True, slots=True)
class RegistrarMoved:
    """The registrar pointed to another origin, and may (RFC 8995 §5.6, draft-ietf-anima-brski-cloud-16)."""

    location: str


@dataclass(frozen=True, slots=True)
class VoucherAccepted:
    """Every check of the voucher held, the registrar's own chain included. ``est_server``: it came from the
    maker's cloud and names this server in the registrar's place."""

    voucher: bytes = field(repr=False)
    anchor: Anchor
    seen: datetime | None = None
    est_server: str = ""


@dataclass(frozen=True, slots=True)
class BootstrapFailed:
    """This registrar did not become our owner's. The next one is tried at ``due`` (None: at once).
    ``distrusted``: it failed as one that lies would."""

    trouble: Trouble
    due: datetime | None
    distrusted: bool = False


@dataclass(frozen=True, slots=True)
class BootstrapInterrupted:
    """The connection or the key store failed during an attempt that stays valid until its deadline."""

    trouble: Trouble
    due: datetime


@dataclass(frozen=True, slots=True)
class RegistrarLost:
    """Our domain's registrar is not where it was: out of reach, or somebody else answers there
    (``distrusted``)."""

    trouble: Trouble
    distrusted: bool = False


@dataclass(frozen=True, slots=True)
class MeetingDue:
    """A step began while places wait that may be our domain's registrar, or (``seek``) before the search for
    them was over."""

    seek: bool = False


@dataclass(frozen=True, slots=True)
class CandidateRefused:
    """That place is not our domain's registrar, or nobody answers there. ``last``: no other waits."""

    trouble: Trouble
    distrusted: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class RegistrarFound:
    """A server of our domain, by the anchors that we hold, answers at ``endpoint``."""

    endpoint: str


@dataclass(frozen=True, slots=True)
class DomainLost:
    """The domain no longer takes this device, and no credential is left: find out again whose it is."""

    trouble: Trouble
    due: datetime


# --- events about one identity -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StepBegun:
    """A step looks at the identity; nothing special is known."""


@dataclass(frozen=True, slots=True)
class RenewalDue:
    """The credential has reached its renewal moment."""

    purpose: Purpose


@dataclass(frozen=True, slots=True)
class CredentialLapsed:
    """The credential's life has ended, by a clock that can tell. ``renew``: the configuration wants it shown
    to the server all the same, once."""

    renew: Purpose | None = None


@dataclass(frozen=True, slots=True)
class CredentialRevived:
    """The clock that said that the credential's life had ended was wrong: a trusted one says otherwise."""


@dataclass(frozen=True, slots=True)
class CredentialRevoked:
    """Its issuer said, signed and fresh, that the certificate is revoked."""

    trouble: Trouble


@dataclass(frozen=True, slots=True)
class StandingDue:
    """It is time to ask whether the certificate is revoked."""


@dataclass(frozen=True, slots=True)
class StandingKnown:
    """The certificate is good, or (with ``trouble``) nobody could say. It is asked again at ``due``."""

    due: datetime
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class HintDue:
    """It is time to ask the CA when it would like to see the credential renewed."""


@dataclass(frozen=True, slots=True)
class HintHeard:
    """What the CA said to that, or that it could not be asked."""

    hint: Hint


@dataclass(frozen=True, slots=True)
class CredentialLost:
    """The key of the credential is gone for good: the TPM was cleared or replaced."""

    trouble: Trouble


@dataclass(frozen=True, slots=True)
class OfferTaken:
    """The CA's certificates and wishes were read, and a key was planned: it does not exist yet.

    ``passed`` are the better rungs that did not answer, best first; ``transport`` is planned, too, where the
    protocol wants a second key, and so is ``account``, if it is not the one that there was; ``retired`` are
    anchors that go.
    """

    purpose: Purpose
    rung: str
    protocol: str
    key: KeyRef
    algorithm: KeyAlgorithm
    generation: int
    transaction: str
    wishes: bytes
    anchors: tuple[Anchor, ...]
    intermediates: tuple[bytes, ...] = field(repr=False)
    passed: tuple[Bar, ...] = ()
    transport: KeyRef = NO_KEY
    retired: tuple[Retired, ...] = ()
    account: KeyRef = NO_KEY


@dataclass(frozen=True, slots=True)
class CsrMade:
    """The planned key exists and has signed this CSR. Nothing was sent yet. ``home`` names the key's
    hardware."""

    csr: bytes = field(repr=False)
    home: str = ""


@dataclass(frozen=True, slots=True)
class AnchorsChanged:
    """The domain's CA changed while a request was under way: what it issued leads to a root that it tells us
    of now."""

    anchors: tuple[Anchor, ...]
    intermediates: tuple[bytes, ...] = field(repr=False)
    retired: tuple[Retired, ...] = ()


@dataclass(frozen=True, slots=True)
class EnrollmentPending:
    """The CA asked for patience (202)."""

    due: datetime
    resume: bytes
    deadline: datetime


@dataclass(frozen=True, slots=True)
class CertificateIssued:
    """A certificate came and passed every check that needs no handshake."""

    chain: tuple[bytes, ...] = field(repr=False)
    seen: datetime


@dataclass(frozen=True, slots=True)
class IssuedTooEarly:
    """The certificate that came (or the server's own) begins later than now: our clock is behind, or the CA's
    ahead. The same request is sent again at ``due``."""

    trouble: Trouble
    due: datetime


@dataclass(frozen=True, slots=True)
class CredentialProved:
    """A real handshake with the new certificate worked."""


@dataclass(frozen=True, slots=True)
class ProofRefused:
    """A server saw the new certificate and did not take it. It is shown again at ``due``."""

    trouble: Trouble
    due: datetime


@dataclass(frozen=True, slots=True)
class DeployDue:
    """Other programs do not have the active credential, with these anchors and settings, or were not told."""


@dataclass(frozen=True, slots=True)
class FilesPlaced:
    """``current`` leads to the active credential. ``anew``: the files had been missing or of another one."""

    digest: str
    anew: bool
    directory: str = ""


@dataclass(frozen=True, slots=True)
class HookRan:
    """The hook of that number ran well since the files were placed."""

    number: int


@dataclass(frozen=True, slots=True)
class HookFailed:
    """The hook of that number failed; the others do not wait for it. It runs again at ``due``."""

    number: int
    trouble: Trouble
    due: datetime


@dataclass(frozen=True, slots=True)
class HooksEnded:
    """No hook is left to run now. ``complete``: all of them ran well."""

    complete: bool


@dataclass(frozen=True, slots=True)
class DeployFailed:
    """The files could not be placed. The credential stays as it is, and it is tried again at ``due``."""

    digest: str
    trouble: Trouble
    due: datetime


@dataclass(frozen=True, slots=True)
class KeysRetired:
    """The keys that waited for it are destroyed."""


@dataclass(frozen=True, slots=True)
class EnrollmentFailed:
    """This transaction cannot succeed any more: its key goes, the credential stays."""

    trouble: Trouble
    due: datetime


@dataclass(frozen=True, slots=True)
class IdentityDropped:
    """The configuration does not name this identity any more. It may be a mistake: the credential stays."""


@dataclass(frozen=True, slots=True)
class IdentityRestored:
    """The configuration names this identity again, in time."""


@dataclass(frozen=True, slots=True)
class IdentityForgotten:
    """The configuration has not named this identity for so long that its files were taken away."""


@dataclass(frozen=True, slots=True)
class RungForsaken:
    """The rung that has the request is given up for another one: the transaction begins anew, with a new
    key."""

    trouble: Trouble
    rung: str
    purpose: Purpose


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """The step failed, the transaction stays as it is and is tried again at ``due``."""

    trouble: Trouble
    due: datetime


DomainEvent = (
    BootstrapDue
    | CandidatesFound
    | AttemptPrepared
    | VoucherPending
    | RegistrarMoved
    | VoucherAccepted
    | BootstrapFailed
    | BootstrapInterrupted
    | RegistrarLost
    | MeetingDue
    | CandidateRefused
    | RegistrarFound
    | DomainLost
)
IdentityEvent = (
    StepBegun
    | RenewalDue
    | CredentialLapsed
    | CredentialRevived
    | CredentialRevoked
    | StandingDue
    | StandingKnown
    | HintDue
    | HintHeard
    | CredentialLost
    | OfferTaken
    | CsrMade
    | AnchorsChanged
    | EnrollmentPending
    | CertificateIssued
    | IssuedTooEarly
    | CredentialProved
    | ProofRefused
    | DeployDue
    | FilesPlaced
    | HookRan
    | HookFailed
    | HooksEnded
    | DeployFailed
    | KeysRetired
    | EnrollmentFailed
    | RungForsaken
    | IdentityDropped
    | IdentityRestored
    | IdentityForgotten
    | AttemptFailed
)

# --- effects: what the worker does next --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SeekRegistrars:
    """Look on the network for whom to ask."""


@dataclass(frozen=True, slots=True)
class PrepareAttempt:
    """Open a provisional connection to the next registrar and sign a voucher request for it."""


@dataclass(frozen=True, slots=True)
class RequestVoucher:
    """Send the prepared voucher request, on the same connection or to the same certificate."""


@dataclass(frozen=True, slots=True)
class MeetRegistrar:
    """See whether the next place that was found shows a certificate of our domain."""


@dataclass(frozen=True, slots=True)
class Discover:
    """Read the CA's certificates and wishes, and plan a key."""

    purpose: Purpose


@dataclass(frozen=True, slots=True)
class MakeRequest:
    """Make the planned key and its CSR."""


@dataclass(frozen=True, slots=True)
class Enroll:
    """Send the CSR. ``refreshed``: the anchors were asked for again already."""

    refreshed: bool = False


@dataclass(frozen=True, slots=True)
class Resume:
    """Ask again for the pending answer. ``refreshed``: as for Enroll."""

    refreshed: bool = False


@dataclass(frozen=True, slots=True)
class ProveCredential:
    """Use the staged certificate in a handshake with a peer of the domain."""


@dataclass(frozen=True, slots=True)
class Deploy:
    """Make the active credential current for other programs."""


@dataclass(frozen=True, slots=True)
class RunHook:
    """Tell other programs: run the first hook from that number on that did not run yet."""

    number: int


@dataclass(frozen=True, slots=True)
class CheckStanding:
    """Ask the issuer whether the certificate is revoked."""


@dataclass(frozen=True, slots=True)
class AskHint:
    """Ask the CA when it would like to see the credential renewed."""


@dataclass(frozen=True, slots=True)
class RetireKeys:
    """Destroy the keys that no part of the record needs any more."""


DomainEffect = SeekRegistrars | PrepareAttempt | RequestVoucher | MeetRegistrar
RungEffect = Discover | MakeRequest | Enroll | Resume | ProveCredential | AskHint | RetireKeys
"""What is done on a rung of the ladder, or has to do with the keys of one."""
IdentityEffect = RungEffect | Deploy | RunHook | CheckStanding
Effect = DomainEffect | IdentityEffect
