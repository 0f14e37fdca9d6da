"""A maker, a domain and a pledge for BRSKI tests, and a MASA that lies exactly as told."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.wire import cms, oids
from holdfast.wire.brski.client import Attempt, prepare
from holdfast.wire.brski.messages import MEDIA_TYPE, Voucher, aki
from holdfast.wire.brski.verify import VoucherTrust
from holdfast.wire.model import ClockState, HttpRequest, HttpResponse, Moment, TlsInfo

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
TRUSTED = Moment(NOW, NOW - timedelta(days=90), ClockState.TRUSTED)
UNKNOWN = Moment(NOW - timedelta(days=90), NOW - timedelta(days=90), ClockState.UNKNOWN)
SERIAL = "HF-0042"


@dataclass(frozen=True)
class Holder:
    """A certificate and its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)


def issue(
    common_name: str,
    issuer: Holder | None = None,
    *,
    ca: bool = False,
    key: ec.EllipticCurvePrivateKey | None = None,
    start: datetime = NOW - timedelta(days=365),
    end: datetime = NOW + timedelta(days=365),
    serial: str | None = None,
    masa_url: str | None = None,
    usages: tuple[x509.ObjectIdentifier, ...] = (),
    san: tuple[x509.GeneralName, ...] = (),
) -> Holder:
    """One certificate; self-signed without an *issuer*."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if serial is not None:
        names.append(x509.NameAttribute(NameOID.SERIAL_NUMBER, serial))
    subject = x509.Name(names)
    signer = issuer or Holder(None, key)  # type: ignore[arg-type]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca, None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), critical=False
        )
        .add_extension(x509.KeyUsage(not ca, False, False, False, False, ca, ca, False, False), critical=True)
    )
    if usages:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    if san:
        builder = builder.add_extension(x509.SubjectAlternativeName(san), critical=False)
    if masa_url is not None:
        value = core.IA5String(masa_url).dump()
        builder = builder.add_extension(
            x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.MASA_URL), value), critical=False
        )
    return Holder(builder.sign(signer.key, hashes.SHA256()), key)


REGISTRAR_USAGES = (
    ExtendedKeyUsageOID.SERVER_AUTH,
    ExtendedKeyUsageOID.CLIENT_AUTH,
    x509.ObjectIdentifier(oids.CMC_RA),
)


class Parties:
    """Everybody, made once: keys are slow."""

    def __init__(self) -> None:
        self.vendor = issue("Maker CA", ca=True)
        self.masa = issue("Maker MASA", self.vendor)
        self.idevid = issue("gateway", self.vendor, serial=SERIAL, masa_url="masa.maker.example:9443")
        self.sister = issue("gateway", self.vendor, serial="HF-0043", masa_url="masa.maker.example:9443")
        self.domain = issue("Domain Root", ca=True)
        self.ra_ca = issue("Domain RA CA", self.domain, ca=True)
        self.registrar = issue("registrar.domain.example", self.ra_ca, usages=REGISTRAR_USAGES)
        self.stranger_ca = issue("Stranger CA", ca=True)
        self.stranger = issue("registrar.stranger.example", self.stranger_ca, usages=REGISTRAR_USAGES)
        self.tls = self.connection(self.registrar, self.ra_ca)
        self.trust = VoucherTrust(
            manufacturer_anchors=(self.vendor.certificate,),
            signer_pins=frozenset(),
            serial_number=SERIAL,
            aki=aki(self.idevid.certificate),
        )

    def connection(self, *chain: Holder) -> TlsInfo:
        return TlsInfo("https://registrar.local:8443", "TLSv1.3", tuple(h.der for h in chain), False)

    def attempt(self, now: Moment = TRUSTED, tls: TlsInfo | None = None) -> Attempt:
        return prepare(
            self.idevid.key, (self.idevid.certificate,), tls or self.tls, now, lambda n: bytes(range(n))
        )

    def voucher(self, attempt: Attempt, **changes: Any) -> Voucher:
        """What an honest MASA says, except for *changes*."""
        honest = Voucher(
            serial_number=SERIAL,
            pinned_domain_cert=self.domain.der,
            nonce=attempt.nonce,
            assertion="proximity",
            created_on=NOW,
        )
        return replace(honest, **changes)

    def sign(
        self,
        voucher: Voucher | bytes,
        signer: Holder | None = None,
        *,
        content_type: str = oids.CT_ANIMA_JSON_VOUCHER,
        signing_time: datetime | None = NOW,
        chain: tuple[x509.Certificate, ...] = (),
    ) -> bytes:
        signer = signer or self.masa
        content = voucher if isinstance(voucher, bytes) else voucher.encode()
        return cms.sign(
            content, content_type, signer.key, signer.certificate, chain, signing_time=signing_time
        )


def ok(body: bytes, media_type: str = MEDIA_TYPE) -> HttpResponse:
    return HttpResponse(200, (("Content-Type", media_type),), body)


@dataclass(frozen=True)
class Talk:
    """How an exchange went: what it asked, and its outcome or error."""

    requests: tuple[HttpRequest, ...]
    outcome: Any = None
    error: BaseException | None = None


def converse(exchange: Generator[HttpRequest, HttpResponse, Any], *answers: HttpResponse | Exception) -> Talk:
    """Give the exchange its *answers* in turn; an exception is thrown into it."""
    requests: list[HttpRequest] = []
    pending = iter(answers)
    try:
        requests.append(next(exchange))
        while True:
            answer = next(pending, HttpResponse(200))
            if isinstance(answer, HttpResponse):
                requests.append(exchange.send(answer))
            else:
                requests.append(exchange.throw(answer))
    except StopIteration as stop:
        return Talk(tuple(requests), outcome=stop.value)
    except Exception as error:  # noqa: BLE001 - the tests judge its type
        return Talk(tuple(requests), error=error)
