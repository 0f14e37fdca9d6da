"""An attestation CA: certificates for attestation keys (AK) that live in a TPM of a known maker.

It believes an AK because of three things that it checks itself: the endorsement key's certificate leads to
a TPM maker's root; the AK's attributes say that it cannot leave its TPM and signs only what that TPM made;
and whoever asks has opened a secret that only this TPM with this AK can open. The rules of naming are the
operator's: a list of devices, or the endorsement key's own fingerprint."""

from __future__ import annotations

import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ObjectIdentifier

from holdfast.wire import certificates, chain, oids
from holdfast.wire.algorithms import spki
from holdfast.wire.device_names import permanent_identifier
from holdfast.wire.errors import HoldfastError, TrustError
from holdfast.wire.model import Chain, ClockState, HttpRequest, HttpResponse, Moment, RandomBytes
from holdfast.wire.tpm import akca
from holdfast.wire.tpm.credential import make_credential
from holdfast.wire.tpm.public import DECRYPT, HARDWARE_BOUND, RESTRICTED, SIGN, TpmPublic, parse_public
from holdfast_factory.authority import Authority, key_usage

SECRET_OCTETS: Final = 32
PATIENCE: Final = timedelta(minutes=5)
MOST_PENDING: Final = 1000
DEFAULT_LIFE: Final = timedelta(days=365)
TPM_ATTRIBUTES: Final = ("2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3")
"""Manufacturer, model and version, as the EK certificate states them (TCG EK Credential Profile §3.2.9)."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Whom the CA serves. ``makers``: roots of TPM makers. ``devices``: permanent identifier by the SHA-256
    (hex) of the EK's SubjectPublicKeyInfo or of its certificate; None names each device by the first of them.
    ``life``: of AK certificates."""

    makers: Chain
    devices: Mapping[str, str] | None = None
    life: timedelta = DEFAULT_LIFE


@dataclass(frozen=True, slots=True)
class _Pending:
    secret: bytes = field(repr=False)
    ak: TpmPublic
    ek_certificate: x509.Certificate
    identifier: str
    until: datetime


class AttestationCa:
    """Issues under *authority*. Time and chance come from outside; applications are held in memory,
    bounded."""

    def __init__(
        self, authority: Authority, policy: Policy, now: Callable[[], datetime], random: RandomBytes
    ) -> None:
        self._authority = authority
        self._policy = policy
        self._now = now
        self._random = random
        self._pending: OrderedDict[str, _Pending] = OrderedDict()

    @property
    def anchors(self) -> Chain:
        """What an ACME server trusts to believe the AKs of this CA."""
        return (self._authority.certificate,)

    def challenge(self, application: akca.Application) -> akca.Challenge:
        """Check what was shown, and seal a secret for it.

        Raises TrustError ``akca.no-certificate``, ``akca.key-mismatch``, ``akca.attributes``,
        ``akca.unknown-device``, ``akca.identifier`` and ``chain.*``; RemoteProtocolError ``tpm.*``.
        """
        ek, ak = parse_public(application.ek_public), parse_public(application.ak_public)
        certificate = self._check_endorsement(ek, application.ek_chain)
        _check_attestation_key(ak)
        identifier = self._identifier(ek, certificate, application.identifier)
        secret = self._random(SECRET_OCTETS)
        sealed = make_credential(ek, ak.name, secret, self._random)
        number = self._random(16).hex()
        self._pending[number] = _Pending(secret, ak, certificate, identifier, self._now() + PATIENCE)
        while len(self._pending) > MOST_PENDING:
            self._pending.popitem(last=False)
        return akca.Challenge(number, sealed.id_object, sealed.encrypted_secret)

    def certificate(self, response: akca.Response) -> akca.Certified:
        """The AK's certificate, if the secret is the one that was sealed. One try for each challenge.

        Raises TrustError ``akca.activation``.
        """
        pending = self._pending.pop(response.id, None)
        if pending is None or pending.until < self._now():
            raise TrustError("akca.activation", "no such application, or its time is over")
        if not hmac.compare_digest(pending.secret, response.secret):
            detail = "not the secret that was sealed: the two keys are not in one TPM"
            raise TrustError("akca.activation", detail, clause="TPM 2.0 Part 1 §24")
        leaf = self._issue(pending)
        return akca.Certified((leaf.public_bytes(Encoding.DER),))

    def handle(self, request: HttpRequest) -> HttpResponse:
        """The HTTP face: POST to ``challenge`` and ``certificate`` below :data:`akca.PATH`."""
        operation = request.target.partition("?")[0].removeprefix(akca.PATH)
        if request.method != "POST" or operation not in ("challenge", "certificate"):
            return _text(404, "POST challenge or certificate")
        if len(request.body) > akca.LIMIT:
            return _text(413, f"more than {akca.LIMIT} octets")
        try:
            if operation == "challenge":
                told = akca.encode(self.challenge(akca.decode(request.body, akca.Application)))
            else:
                told = akca.encode(self.certificate(akca.decode(request.body, akca.Response)))
        except TrustError as error:
            return _text(403, str(error))
        except HoldfastError as error:
            return _text(400, str(error))
        return HttpResponse(200, (("Content-Type", akca.JSON),), told)

    def _check_endorsement(self, ek: TpmPublic, ders: tuple[bytes, ...]) -> x509.Certificate:
        if not ders:
            raise TrustError("akca.no-certificate", "the TPM has no endorsement key certificate")
        given = certificates.load_all(ders[: akca.MOST_CERTIFICATES])
        now = self._now()
        moment = Moment(now, now, ClockState.TRUSTED)
        chain.validate(given, self._policy.makers, moment, chain.Rule.endorsement_key())
        if spki(given[0]) != spki(ek.key):
            raise TrustError("akca.key-mismatch", "the certificate is not for this endorsement key")
        if lacking := ek.lacking(HARDWARE_BOUND | RESTRICTED | DECRYPT):
            raise TrustError("akca.attributes", f"the endorsement key lacks {', '.join(lacking)}")
        return given[0]

    def _identifier(self, ek: TpmPublic, certificate: x509.Certificate, wanted: str) -> str:
        fingerprint = hashlib.sha256(spki(ek.key)).hexdigest()
        listed = hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()
        devices = self._policy.devices
        found = fingerprint if devices is None else devices.get(fingerprint) or devices.get(listed)
        if found is None:
            raise TrustError("akca.unknown-device", f"no device has the endorsement key {fingerprint}")
        if wanted and wanted != found:
            raise TrustError("akca.identifier", "this endorsement key belongs to another device")
        return found

    def _issue(self, pending: _Pending) -> x509.Certificate:
        """The profile of WebAuthn §8.3.1: no subject, critical SAN, the usage tcg-kp-AIKCertificate."""
        now = self._now().replace(microsecond=0)
        issuer = self._authority.certificate
        names = [_tpm_name(pending.ek_certificate), permanent_identifier(pending.identifier)]
        key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
        aki = x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id)
        serial = int.from_bytes(self._random(16), "big") >> 1 | 1
        return (
            x509.CertificateBuilder(issuer.subject, x509.Name([]), pending.ak.key, serial)
            .not_valid_before(now)
            .not_valid_after(now + self._policy.life)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage(ca=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ObjectIdentifier(oids.TCG_AIK_CERTIFICATE)]), critical=False
            )
            .add_extension(x509.SubjectAlternativeName([n for n in names if n is not None]), critical=True)
            .add_extension(aki, critical=False)
            .sign(self._authority.key, hashes.SHA256())
        )


def _check_attestation_key(ak: TpmPublic) -> None:
    if lacking := ak.lacking(HARDWARE_BOUND | RESTRICTED | SIGN):
        raise TrustError("akca.attributes", f"the attestation key lacks {', '.join(lacking)}")
    if ak.attributes & DECRYPT:
        raise TrustError("akca.attributes", "an attestation key does not decrypt")


def _tpm_name(ek: x509.Certificate) -> x509.DirectoryName | None:
    """The TPM's manufacturer, model and version out of the EK certificate's SAN; None if it has none."""
    try:
        san = ek.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, *certificates.LIBRARY_ERRORS):
        return None
    for name in san.get_values_for_type(x509.DirectoryName):
        kept = [a for a in name if a.oid.dotted_string in TPM_ATTRIBUTES]
        if kept:
            return x509.DirectoryName(x509.Name(kept))
    return None


def _text(status: int, text: str) -> HttpResponse:
    return HttpResponse(status, (("Content-Type", "text/plain; charset=utf-8"),), text.encode())
