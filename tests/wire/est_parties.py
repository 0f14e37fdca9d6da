"""A domain CA and a device for EST tests, and a server that answers exactly what it is told to."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.wire import csr
from holdfast.wire.model import (
    Chain,
    ClockState,
    EnrollmentRequest,
    HttpRequest,
    HttpResponse,
    Moment,
    Purpose,
    TlsInfo,
)

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TRUSTED = Moment(NOW, NOW - timedelta(days=90), ClockState.TRUSTED)
UNKNOWN = Moment(NOW - timedelta(days=90), NOW - timedelta(days=90), ClockState.UNKNOWN)
ORIGIN = "https://est.example:8443"
TLS12 = TlsInfo(ORIGIN, "TLSv1.2", (), True, b"twelve octets")
TLS13 = TlsInfo(ORIGIN, "TLSv1.3", (), True)
PROVISIONAL = TlsInfo(ORIGIN, "TLSv1.3", (), False)
ZEROS: Callable[[int], bytes] = bytes

Server = Callable[[HttpRequest], HttpResponse]


@dataclass(frozen=True)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def certificate(
    public: ec.EllipticCurvePublicKey,
    subject: x509.Name,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    *,
    ca: bool = False,
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=365),
    san: Sequence[x509.GeneralName] = (),
    usage: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.CLIENT_AUTH,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), True)
    )
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), not list(subject))
    if usage is not None and not ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), False)
    return builder.sign(signer, hashes.SHA256())


def authority(common_name: str, above: Holder | None = None, **options: Any) -> Holder:
    key = new_key()
    issuer = above.certificate.subject if above else name(common_name)
    signer = above.key if above else key
    options.setdefault("end", NOW + timedelta(days=3650))
    made = certificate(key.public_key(), name(common_name), issuer, signer, ca=True, **options)
    return Holder(made, key)


class Domain:
    """Root and issuing CA of the owner, and a device that wants a certificate from them."""

    def __init__(self) -> None:
        self.root = authority("Domain Root")
        self.issuing = authority("Domain Issuing", self.root)
        self.key = new_key()
        self.subject = name("gateway-7")
        self.san = (x509.DNSName("gateway-7.example"),)

    def request(self, *, challenge: str | None = None, anchors: Chain | None = None) -> EnrollmentRequest:
        der = csr.build(self.key, self.subject, san=self.san, challenge=challenge)
        return EnrollmentRequest(
            Purpose.INITIAL,
            der,
            self.key,
            self.subject,
            (self.root.certificate,) if anchors is None else anchors,
            b"transaction",
            ZEROS,
            intermediates=(self.issuing.certificate,),
        )

    def renewal(
        self, purpose: Purpose = Purpose.REKEY, subject: x509.Name | None = None
    ) -> tuple[EnrollmentRequest, x509.Certificate]:
        """A request to renew, and the certificate that it renews."""
        current = self.issue(self.request().csr)
        key = self.key if purpose is Purpose.RENEW else new_key()
        der = csr.build(key, subject or self.subject, san=self.san)
        request = EnrollmentRequest(
            purpose,
            der,
            key,
            subject or self.subject,
            (self.root.certificate,),
            b"transaction",
            ZEROS,
            current=((current, self.issuing.certificate), self.key),
            intermediates=(self.issuing.certificate,),
        )
        return request, current

    def issue(self, der: bytes, issuer: Holder | None = None, **options: Any) -> x509.Certificate:
        asked = x509.load_der_x509_csr(der)
        by = issuer or self.issuing
        options.setdefault("san", self.san)
        public = options.pop("public", asked.public_key())
        return certificate(
            public, options.pop("subject", asked.subject), by.certificate.subject, by.key, **options
        )


def run(exchange: Generator[HttpRequest, HttpResponse, Any], *answers: HttpResponse | Server) -> Any:
    """Drive an exchange: each request gets the next answer. All answers must be used, none may lack."""
    return run_recorded(exchange, *answers)[0]


def run_recorded(
    exchange: Generator[HttpRequest, HttpResponse, Any], *answers: HttpResponse | Server
) -> tuple[Any, list[HttpRequest]]:
    """As :func:`run`, with the requests that were sent."""
    sent: list[HttpRequest] = []
    left = list(answers)
    try:
        request = next(exchange)
        while True:
            sent.append(request)
            answer = left.pop(0)
            request = exchange.send(answer(request) if callable(answer) else answer)
    except StopIteration as stop:
        assert not left, f"{len(left)} answers were not asked for"
        return stop.value, sent
