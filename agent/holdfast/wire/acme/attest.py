"""device-attest-01 with a TPM 2.0: the statement made, read and judged (draft-ietf-acme-device-attest-09 §5).

The device's attestation key (AK) certifies the key of the CSR, with the hash of the key authorization as
qualifying data. So the CA knows that the key lives in a TPM whose AK it trusts, and that the statement was
made for this very challenge. The format is WebAuthn's ``tpm`` (§8.3) without authenticator data.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from io import BytesIO
from typing import Final

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire import chain
from holdfast.wire.algorithms import PublicKey, accepted_key, spki
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.device_names import permanent_identifiers
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment
from holdfast.wire.tpm.attested import parse_certify, require_certified, verify_statement
from holdfast.wire.tpm.public import HARDWARE_BOUND, SIGN, TpmPublic, parse_public

OBJECT_LIMIT: Final = 64 * 1024
MOST_CERTIFICATES: Final = 8
VERSION: Final = "2.0"
COSE: Final = {-7: "sha256", -257: "sha256", -35: "sha384", -258: "sha384", -36: "sha512", -259: "sha512"}
"""COSE algorithms that we accept, with their digest. RS1 (-65535) signs SHA-1 and is not among them."""

_DRAFT: Final = "draft-ietf-acme-device-attest-09 §5"
_WEBAUTHN: Final = "WebAuthn §8.3"


@dataclass(frozen=True, slots=True)
class TpmStatement:
    """The members of ``attStmt``: AK chain (DER, leaf first), TPMT_SIGNATURE, TPMS_ATTEST, TPMT_PUBLIC."""

    algorithm: int
    chain: tuple[bytes, ...] = field(repr=False)
    signature: bytes = field(repr=False)
    statement: bytes = field(repr=False)
    public: bytes = field(repr=False)


def qualifying_data(key_authorization: str) -> bytes:
    """What the AK is asked to sign along: SHA-256 of the key authorization."""
    return hashlib.sha256(key_authorization.encode()).digest()


def write_object(statement: TpmStatement) -> bytes:
    """The CBOR attestation object, deterministically encoded, without authData as the draft wants it."""
    members = {
        "ver": VERSION,
        "alg": statement.algorithm,
        "x5c": list(statement.chain),
        "sig": statement.signature,
        "certInfo": statement.statement,
        "pubArea": statement.public,
    }
    return bytes(cbor2.dumps({"fmt": "tpm", "attStmt": members}, canonical=True))


def read_object(data: bytes) -> TpmStatement:
    """A ``tpm`` attestation object. Unknown members are ignored.

    Raises RemoteProtocolError ``attest.too-large``, ``attest.syntax``, ``attest.format``.
    """
    if len(data) > OBJECT_LIMIT:
        raise RemoteProtocolError("attest.too-large", f"{len(data)} octets, limit {OBJECT_LIMIT}")
    try:
        stream = BytesIO(data)
        found = cbor2.load(stream)
        rest = len(data) - stream.tell()
    except (
        cbor2.CBORDecodeError,
        RecursionError,
        ValueError,
        TypeError,
        MemoryError,
        OverflowError,
    ) as error:
        raise RemoteProtocolError("attest.syntax", f"no CBOR: {error}"[:200], clause=_DRAFT) from error
    if rest or not isinstance(found, dict):
        raise RemoteProtocolError("attest.syntax", "not one CBOR map", clause=_DRAFT)
    if found.get("fmt") != "tpm":
        detail = f"format {str(found.get('fmt'))[:40]!r}; only tpm is known"
        raise RemoteProtocolError("attest.format", detail, clause=_DRAFT)
    return _statement(found.get("attStmt"))


def _statement(members: object) -> TpmStatement:
    if not isinstance(members, dict) or members.get("ver") != VERSION:
        raise RemoteProtocolError(
            "attest.syntax", f"attStmt is no map of version {VERSION}", clause=_WEBAUTHN
        )
    algorithm, x5c = members.get("alg"), members.get("x5c")
    octets = [members.get(name) for name in ("sig", "certInfo", "pubArea")]
    if not isinstance(algorithm, int) or not all(isinstance(each, bytes) for each in octets):
        raise RemoteProtocolError(
            "attest.syntax", "attStmt: a member is missing or mistyped", clause=_WEBAUTHN
        )
    if not isinstance(x5c, list) or not 1 <= len(x5c) <= MOST_CERTIFICATES or not _all_bytes(x5c):
        detail = f"x5c is no list of 1 to {MOST_CERTIFICATES} certificates"
        raise RemoteProtocolError("attest.syntax", detail, clause=_WEBAUTHN)
    signature, statement, public = (bytes(each) for each in octets if isinstance(each, bytes))
    return TpmStatement(algorithm, tuple(x5c), signature, statement, public)


def _all_bytes(values: list[object]) -> bool:
    return all(isinstance(each, bytes) for each in values)


@dataclass(frozen=True, slots=True)
class Attested:
    """What a statement proved: the key, and the certificate of the AK that vouches for it."""

    public: TpmPublic
    attestation_certificate: x509.Certificate


def judge(
    statement: TpmStatement, key_authorization: str, anchors: Chain, now: Moment, *, identifier: str | None
) -> Attested:
    """Every check of the draft and of WebAuthn §8.3, in order. *anchors* are those of attestation CAs.

    *identifier*: the permanent identifier that the AK certificate must name; None leaves that to the caller,
    who then compares the AK with a list of devices. Raises TrustError ``attest.*`` and ``chain.*``, and
    RemoteProtocolError ``attest.syntax``, ``tpm.*``.
    """
    certificates = _certificates(statement.chain)
    leaf = certificates[0]
    chain.validate(certificates, anchors, now, chain.Rule.attestation_key())
    check_profile(leaf)
    key = accepted_key(leaf)
    _check_algorithm(
        statement.algorithm, key, verify_statement(statement.statement, statement.signature, key)
    )
    public = parse_public(statement.public)
    require_certified(parse_certify(statement.statement), public, qualifying_data(key_authorization))
    if lacking := public.lacking(HARDWARE_BOUND | SIGN):
        detail = f"the key lacks {', '.join(lacking)}: it may exist outside this TPM"
        raise TrustError("attest.attributes", detail, clause="TPM 2.0 Part 2 §8.3")
    if identifier is not None and identifier not in _names(leaf):
        detail = "the attestation key's certificate does not name the device of the order"
        raise TrustError("attest.identifier", detail, clause=_DRAFT)
    return Attested(public, leaf)


def require_same_key(public: TpmPublic, request: x509.CertificateSigningRequest) -> None:
    """The CSR must be for the attested key. Raises TrustError ``attest.other-key``."""
    if not hmac.compare_digest(spki(public.key), spki(request)):
        raise TrustError("attest.other-key", "the CSR is not for the attested key", clause=_DRAFT)


def check_profile(leaf: x509.Certificate) -> None:
    """An AK certificate has no subject but a critical SAN that names the TPM (WebAuthn §8.3.1).

    A subject is tolerated if there is one: TPM makers' own CAs write it. Raises TrustError
    ``attest.profile``.
    """
    try:
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        raise TrustError(
            "attest.profile", "the AK certificate has no SAN", clause="WebAuthn §8.3.1"
        ) from None
    except LIBRARY_ERRORS as error:
        raise TrustError("attest.profile", f"unreadable extensions: {error}"[:200]) from error
    if not list(leaf.subject) and not san.critical:
        raise TrustError(
            "attest.profile", "no subject, and the SAN is not critical", clause="RFC 5280 §4.2.1.6"
        )


def _names(leaf: x509.Certificate) -> frozenset[str]:
    return permanent_identifiers(leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)


def _certificates(ders: tuple[bytes, ...]) -> Chain:
    try:
        return tuple(x509.load_der_x509_certificate(der) for der in ders)
    except LIBRARY_ERRORS as error:
        raise RemoteProtocolError("attest.syntax", f"x5c: {error}"[:200], clause=_WEBAUTHN) from error


def _check_algorithm(stated: int, key: PublicKey, digest: str) -> None:
    on_rsa = stated <= -257
    if COSE.get(stated) != digest or on_rsa is not isinstance(key, rsa.RSAPublicKey):
        detail = f"alg {stated} does not fit a signature over {digest}"
        raise TrustError("attest.algorithm", detail, clause=_WEBAUTHN)
