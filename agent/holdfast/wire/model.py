"""The vocabulary that every protocol shares (ARCHITECTURE §3).

An *exchange* is a generator: it yields :class:`HttpRequest`, is sent :class:`HttpResponse` and returns
its outcome. It performs no I/O, so the same exchange runs over TLS, over an in-process simulator and
under a fuzzer.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

SigningKey = EllipticCurvePrivateKey | RSAPrivateKey
Chain = tuple[x509.Certificate, ...]
RandomBytes = Callable[[int], bytes]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """One request on a connection that was chosen before; ``target`` is origin-form (``/path?query``)."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One complete, bounded response. Header names compare case-insensitively."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        """First value of the header *name*, or None."""
        return next((v for n, v in self.headers if n.lower() == name.lower()), None)

    def header_all(self, name: str) -> tuple[str, ...]:
        """Every value of the header *name*, in order."""
        return tuple(v for n, v in self.headers if n.lower() == name.lower())


@dataclass(frozen=True, slots=True)
class TlsInfo:
    """What an exchange may know about the connection that it runs on.

    ``origin`` is ``https://host[:port]``. ``peer_chain`` is DER, leaf first, as the server sent it.
    ``authenticated`` is False on a BRSKI provisional connection until the voucher was verified.
    ``tls_unique`` exists on TLS 1.2 only (RFC 5929 §3; RFC 7030 §3.5).
    """

    origin: str
    version: str
    peer_chain: tuple[bytes, ...]
    authenticated: bool
    tls_unique: bytes | None = None


class ClockState(Enum):
    """How far the host's clock can be believed (ARCHITECTURE §5 rule 7)."""

    UNKNOWN = "unknown"  # no clock: the time floor is all there is
    FLOOR_ONLY = "floor-only"  # a clock that runs and is not below the floor, set by nobody we trust
    TRUSTED = "trusted"


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time together with its credibility. Both datetimes are aware UTC; ``now >= floor``.

    TRUSTED: compare both ends of a validity with ``now``. Otherwise ignore notBefore and compare
    notAfter with ``floor`` only.
    """

    now: datetime
    floor: datetime
    state: ClockState

    @property
    def trusted(self) -> bool:
        return self.state is ClockState.TRUSTED


class Purpose(Enum):
    """Why a certificate is asked for."""

    INITIAL = "initial"
    RENEW = "renew"  # same key
    REKEY = "rekey"  # new key


class KeyAlgorithm(Enum):
    """Key types of the product; values are what configuration and records spell."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"


@dataclass(frozen=True, slots=True)
class CsrTemplate:
    """What a server wants to see in the CSR (RFC 7030 §4.5.2, RFC 9908). Empty means: no wishes.

    ``extensions`` are complete extensions to request verbatim. ``fill_extensions`` are extensions whose
    value the device fills in (RFC 9908: empty SAN entries). ``subject`` lists (OID dotted, value or None
    to be filled in by the device), None if the server did not prescribe one. ``link_tls_unique`` asks for
    the challengePassword that binds the CSR to its connection (RFC 7030 §3.5). ``digest`` is ``sha256``,
    ``sha384``, ``sha512`` or None. ``unknown`` keeps dotted OIDs that were not understood.
    """

    key: KeyAlgorithm | None = None
    digest: str | None = None
    subject: tuple[tuple[str, str | None], ...] | None = None
    extensions: tuple[x509.Extension[x509.ExtensionType], ...] = ()
    fill_extensions: tuple[str, ...] = ()
    link_tls_unique: bool = False
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class KeyDemand:
    """What a protocol asks of a key beyond its algorithm. ``decrypt``: RSA that also decrypts (SCEP).
    ``transport``: beside it, a key of this kind in the same hardware that decrypts in its place until the
    certificate is there. ``account``: one that stands for the device at the CA, whatever becomes of its
    certificates (ACME)."""

    decrypt: bool = False
    transport: KeyAlgorithm | None = None
    account: bool = False


@dataclass(frozen=True, slots=True)
class Offer:
    """What a CA tells before enrollment: its certificates, and its wishes for the CSR.

    ``wishes`` is what ``template`` was read from, in the protocol's own encoding: it can be kept and read
    again (:meth:`EnrollmentProtocol.read_wishes`). ``authentic``: the message itself was signed by someone
    whom the domain's anchors vouch for; without that, and without TLS, no new anchor is taken from it.
    """

    ca_certificates: Chain
    template: CsrTemplate
    wishes: bytes = field(default=b"", repr=False)
    authentic: bool = False


@dataclass(frozen=True, slots=True)
class EnrollmentRequest:
    """Everything that one enrollment needs. ``csr`` is DER PKCS#10, durable before the first send.

    ``current`` is the (chain, key) that authenticates a renewal; ``transaction`` is the durable
    idempotency id; ``anchors`` are the domain anchors that the answer must chain to. ``intermediates`` are CA
    certificates without trust of their own that may help to build the path. ``template`` holds the wishes
    that the CSR was made by.

    ``signer`` is the identity that signs messages, for protocols that protect messages themselves: the IDevID
    at first, the present credential on renewal. Its chain has the leaf first. ``transport`` is the key that
    decrypts in the place of ``key``, where the protocol demanded one, as it did ``account``. ``attest`` gives
    the hardware's statement about ``key`` for a key authorization, where the hardware can (ACME).
    """

    purpose: Purpose
    csr: bytes = field(repr=False)
    key: SigningKey = field(repr=False)
    subject: x509.Name
    anchors: Chain
    transaction: bytes
    random: RandomBytes = field(repr=False)
    current: tuple[Chain, SigningKey] | None = field(default=None, repr=False)
    intermediates: Chain = ()
    template: CsrTemplate = CsrTemplate()
    signer: tuple[Chain, SigningKey] | None = field(default=None, repr=False)
    transport: SigningKey | None = field(default=None, repr=False)
    account: SigningKey | None = field(default=None, repr=False)
    attest: Callable[[bytes], bytes] | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Issued:
    """A verified certificate, leaf first, with the intermediates that lead to an anchor."""

    chain: Chain
    anchors: Chain = ()


@dataclass(frozen=True, slots=True)
class Pending:
    """The server asks for patience. ``resume`` is opaque to the caller and persisted verbatim."""

    retry_after: timedelta
    resume: bytes = b""


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server refused. ``unsupported``: it has no such operation, so another protocol may do.
    ``estranged``: it does not know us, rather than not liking the request."""

    code: str
    detail: str
    unsupported: bool = False
    estranged: bool = False


@dataclass(frozen=True, slots=True)
class Moved:
    """The server points to another origin; the caller decides (RFC 7030 §3.2.1, RFC 8995 §5.6). ``status`` is
    that of HTTP, 0 where it makes no difference."""

    location: str
    status: int = 0


@dataclass(frozen=True, slots=True)
class RenewalHint:
    """When a CA would like to see a certificate renewed (ACME ARI, EST renewal-info): a window, aware UTC,
    and how long until it should be asked again."""

    start: datetime
    end: datetime
    ask_again: timedelta


Outcome = Issued | Pending | Rejected | Moved
Exchange = Generator[HttpRequest, HttpResponse, T]


class EnrollmentProtocol(Protocol):
    """A way to obtain a certificate. Implementations are frozen records and hold no connection.

    ``tls`` is None on plain HTTP: then who speaks is the protocol's own business, and one that relies on TLS
    raises LocalProtocolError. Secrets (passwords, shared secrets) are part of the implementing record.
    A refusal is a Rejected outcome; errors say by their flags what a caller may do
    (:class:`~holdfast.wire.errors.RemoteProtocolError`).
    """

    name: ClassVar[str]

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:
        """What this protocol asks of a key of *algorithm*, before one is made.

        Raises KeyUnsuitable where keys of that algorithm cannot be used with it.
        """
        ...

    def read_wishes(self, wishes: bytes) -> CsrTemplate:
        """``Offer.wishes`` read again. Raises RemoteProtocolError if they are malformed."""
        ...

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer | Moved]:
        """Ask for CA certificates and CSR wishes. A TLS connection is authenticated already."""
        ...

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:
        """Send the request and judge the answer."""
        ...

    def resume(
        self, req: EnrollmentRequest, token: bytes, tls: TlsInfo | None, now: Moment
    ) -> Exchange[Outcome]:
        """Ask again after Pending, whose ``resume`` is *token*, perhaps days and a power cut later."""
        ...


@runtime_checkable
class Hinting(Protocol):
    """What a protocol can do besides, whose servers say when they would like to see a renewal."""

    def renewal_hint(
        self, current: x509.Certificate, tls: TlsInfo | None, now: Moment
    ) -> Exchange[RenewalHint | None]:
        """The server's wish for *current*; None if it has none."""
        ...
