"""CMS SignedData (RFC 5652): signing, opening, and the certs-only form that carries certificates.

Opening verifies the signature against the embedded signer certificate and says who that was. Whether the
signer may be trusted is a question for :mod:`holdfast.wire.chain`.

Strictness: what we write is DER. What we read may use BER lengths (indefinite, constructed strings) around
the certificates and the signed attributes; certificates themselves must be DER, nothing may follow the
structure, and sizes, counts and nesting are bounded before the structure is interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from asn1crypto import cms as asn1_cms
from asn1crypto import core
from asn1crypto import crl as asn1_crl
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms_reading, oids
from holdfast.wire.algorithms import DIGESTS, Digest, PublicKey, accepted_key, digest_for, sign_data, spki
from holdfast.wire.algorithms import verify as verify_signature
from holdfast.wire.certificates import load_all
from holdfast.wire.cms_reading import SignedDataFields, SignerFields
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, SigningKey

CMS_LIMIT: Final = 262_144


@dataclass(frozen=True, slots=True)
class SignedContent:
    """Content whose signature held, and the certificate that it held for (not yet a trusted one).

    ``content_type`` is a dotted OID. ``certificates`` are all that came along, as sent. ``attributes`` are
    the signed ones beside those of CMS itself: dotted type and encoded values. ``absent``: there was no
    content, which then is empty. ``digest`` is the name of the one that was signed. ``crls`` are
    DER, not verified.
    """

    content: bytes = field(repr=False)
    content_type: str
    signer: x509.Certificate
    certificates: Chain
    signing_time: datetime | None
    attributes: tuple[tuple[str, tuple[bytes, ...]], ...] = ()
    absent: bool = False
    digest: str = "sha256"
    crls: tuple[bytes, ...] = field(default=(), repr=False)


def sign(
    content: bytes | None,
    content_type: str,
    key: SigningKey,
    signer: x509.Certificate,
    chain: Chain = (),
    *,
    signing_time: datetime | None = None,
    attributes: Iterable[tuple[str, core.Asn1Value]] = (),
) -> bytes:
    """Make a DER SignedData over *content*, with *signer* and *chain* embedded; None leaves the content out.

    Signed attributes are always present: contentType, messageDigest and, if given, signingTime (aware) and
    *attributes*: dotted type and the one value of each.
    Raises :class:`LocalProtocolError` ``cms.key-mismatch`` if *key* is not the key of *signer*.
    """
    if spki(key) != spki(signer):
        raise LocalProtocolError("cms.key-mismatch", "the signer certificate is for another key")
    issued = asn1_x509.Certificate.load(signer.public_bytes(Encoding.DER))
    sid = asn1_cms.SignerIdentifier(
        "issuer_and_serial_number", {"issuer": issued.issuer, "serial_number": issued.serial_number}
    )
    signed = _attributes(content or b"", content_type, digest_for(key), signing_time, attributes)
    return _signed_data((content, content_type), key, sid, signed, (signer, *chain))


def sign_by_key(content: bytes, content_type: str, key: SigningKey, identifier: bytes) -> bytes:
    """As :func:`sign`, by a key that has no certificate yet: *identifier* is the subject key identifier that
    its certificate request asks for (RFC 10002 §3.2)."""
    sid = asn1_cms.SignerIdentifier("subject_key_identifier", identifier)
    signed = _attributes(content, content_type, digest_for(key), None, ())
    return _signed_data((content, content_type), key, sid, signed, ())


def _signed_data(
    what: tuple[bytes | None, str],
    key: SigningKey,
    sid: asn1_cms.SignerIdentifier,
    attributes: asn1_cms.CMSAttributes,
    certificates: Chain,
) -> bytes:
    content, content_type = what
    digest = digest_for(key)
    algorithm = {"algorithm": digest.name}
    by_key = sid.name == "subject_key_identifier"
    info = {
        "version": "v3" if by_key else "v1",
        "sid": sid,
        "digest_algorithm": algorithm,
        "signed_attrs": attributes,
        "signature_algorithm": _signature_algorithm(key, digest),
        "signature": sign_data(key, attributes.dump(), digest),
    }
    plain = content_type == oids.CT_DATA
    if plain:  # version 1 reads as PKCS#7 too; any other content needs version 3 (RFC 5652 §5.1)
        there = {} if content is None else {"content": core.OctetString(content)}
        encapsulated = asn1_cms.ContentInfo({"content_type": "data", **there})
    else:
        encapsulated = asn1_cms.EncapsulatedContentInfo(
            {"content_type": content_type, "content": core.ParsableOctetString(content or b"")}
        )
    bag = {"certificates": _certificate_set(certificates)} if certificates else {}
    return _content_info(
        {
            "version": "v1" if plain and not by_key else "v3",
            "digest_algorithms": [algorithm],
            "encap_content_info": encapsulated,
            **bag,
            "signer_infos": [info],
        }
    )


def open_signed(
    der: bytes,
    *,
    limit: int = CMS_LIMIT,
    candidates: Iterable[x509.Certificate] = (),
    require_attributes: bool = True,
    require_content: bool = True,
    sha1: bool = False,
) -> SignedContent:
    """Verify the one signature of a SignedData and return what it covers.

    The signer is looked for among the embedded certificates, then among *candidates*. With
    *require_attributes* a signature without signed attributes is refused, as RFC 5652 §5.3 wants for any
    content type but id-data; without it, absent attributes are accepted and present ones still checked.
    Without *require_content* a signature over attributes alone is opened, too. *sha1* accepts that digest.

    Raises :class:`RemoteProtocolError` (``cms.too-large``, ``cms.syntax``, ``cms.signers``,
    ``cms.attributes``, ``certificate.syntax``) and :class:`TrustError` (``cms.signature``, ``cms.digest``,
    ``cms.content-type``, ``cms.no-signer``, ``cms.algorithm``, ``key.weak``, ...).
    """
    fields = cms_reading.signed_data(der, limit=limit)
    info = _only_signer(fields)
    if fields.content is None and require_content:
        raise RemoteProtocolError("cms.detached", "the signed content is missing", clause="RFC 8366 §6.1")
    certificates = load_all(fields.certificates)
    signer = _find_signer(info, (*certificates, *candidates))
    digest = _digest(info, sha1=sha1)
    content = fields.content or b""
    if info.attributes is not None:
        _check_attributes(info, digest, content, fields.content_type)
    elif require_attributes:
        raise RemoteProtocolError("cms.attributes", "no signed attributes", clause="RFC 5652 §5.3")
    elif cms_reading.is_set(content):
        detail = "content without signed attributes that could itself be signed attributes"
        raise TrustError("cms.content-type", detail, clause="RFC 5652 §5.4")
    signed = content if info.attributes is None else cms_reading.der_set(info.attributes)
    _check_signature(info, accepted_key(signer), signed, digest)
    return SignedContent(
        content,
        fields.content_type,
        signer,
        certificates,
        info.signing_time,
        info.values,
        absent=fields.content is None,
        digest=digest.name,
        crls=fields.crls,
    )


def open_by_key(der: bytes, key: Callable[[bytes, bytes], PublicKey], *, limit: int = CMS_LIMIT) -> bytes:
    """The content of what :func:`sign_by_key` made. *key* finds the key by the content and the identifier,
    neither of them verified.

    Raises as :func:`open_signed` does, RemoteProtocolError ``cms.signers`` where a certificate is named.
    """
    fields = cms_reading.signed_data(der, limit=limit)
    info = _only_signer(fields)
    if info.key_identifier is None or info.attributes is None or fields.content is None:
        detail = "it is not signed by a key that a key identifier names"
        raise RemoteProtocolError("cms.signers", detail, clause="RFC 10002 §3.2")
    digest = _digest(info, sha1=False)
    _check_attributes(info, digest, fields.content, fields.content_type)
    found = key(fields.content, info.key_identifier)
    _check_signature(info, found, cms_reading.der_set(info.attributes), digest)
    return fields.content


def certs_only(certs: Sequence[x509.Certificate]) -> bytes:
    """Make the degenerate SignedData that carries certificates and nothing else (RFC 5652 §5)."""
    if not certs:
        raise LocalProtocolError("cms.no-certificates", "certs-only without a certificate")
    return _content_info(
        {
            "version": "v1",
            "digest_algorithms": [],
            "encap_content_info": asn1_cms.ContentInfo({"content_type": "data"}),
            "certificates": _certificate_set(certs),
            "signer_infos": [],
        }
    )


def parse_certs_only(der: bytes, *, limit: int = CMS_LIMIT) -> Chain:
    """Certificates of a certs-only SignedData, in the order sent (which means nothing: it is a SET).

    A set has no duplicates, yet servers repeat their root: each certificate is given once. Nothing is
    verified. Raises :class:`RemoteProtocolError` (``cms.too-large``, ``cms.syntax``,
    ``cms.not-certs-only``, ``cms.no-certificates``, ``certificate.syntax``).
    """
    fields = cms_reading.signed_data(der, limit=limit)
    clause = "RFC 5652 §5"
    if fields.signers:
        raise RemoteProtocolError("cms.not-certs-only", "it is signed", clause=clause)
    if fields.content is not None or fields.content_type != oids.CT_DATA:
        raise RemoteProtocolError("cms.not-certs-only", "it has content", clause=clause)
    if not fields.certificates:
        raise RemoteProtocolError("cms.no-certificates", "it is empty", clause=clause)
    return load_all(tuple(dict.fromkeys(fields.certificates)))


def unsigned(content: bytes, content_type: str, certs: Sequence[x509.Certificate] = ()) -> bytes:
    """A SignedData around *content* that nobody signed (RFC 10002 §6.11)."""
    bag = {"certificates": _certificate_set(certs)} if certs else {}
    return _content_info(
        {
            "version": "v3",
            "digest_algorithms": [],
            "encap_content_info": asn1_cms.EncapsulatedContentInfo(
                {"content_type": content_type, "content": core.ParsableOctetString(content)}
            ),
            **bag,
            "signer_infos": [],
        }
    )


def crls_only(crls: Sequence[bytes]) -> bytes:
    """Make the degenerate SignedData that carries CRLs (DER) and nothing else (RFC 8894 §4.6)."""
    return _content_info(
        {
            "version": "v1",
            "digest_algorithms": [],
            "encap_content_info": asn1_cms.ContentInfo({"content_type": "data"}),
            "crls": [asn1_cms.RevocationInfoChoice("crl", asn1_crl.CertificateList.load(c)) for c in crls],
            "signer_infos": [],
        }
    )


def parse_crls(der: bytes, *, limit: int = CMS_LIMIT) -> tuple[bytes, ...]:
    """The CRLs (DER, not verified) of a degenerate SignedData. Raises as :func:`parse_certs_only` does, and
    ``cms.no-crls``."""
    fields = cms_reading.signed_data(der, limit=limit)
    if fields.signers or fields.content is not None:
        raise RemoteProtocolError("cms.not-certs-only", "it is signed or has content", clause="RFC 5652 §5")
    if not fields.crls:
        raise RemoteProtocolError("cms.no-crls", "it has no CRL", clause="RFC 8894 §4.6")
    return fields.crls


def _content_info(signed_data: dict[str, object]) -> bytes:
    made = asn1_cms.ContentInfo(
        {"content_type": "signed_data", "content": asn1_cms.SignedData(signed_data)}
    ).dump()
    assert isinstance(made, bytes)
    return made


def _certificate_set(certs: Iterable[x509.Certificate]) -> list[asn1_cms.CertificateChoices]:
    distinct = dict.fromkeys(certificate.public_bytes(Encoding.DER) for certificate in certs)
    return [asn1_cms.CertificateChoices("certificate", asn1_x509.Certificate.load(der)) for der in distinct]


def _attributes(
    content: bytes,
    content_type: str,
    digest: Digest,
    signing_time: datetime | None,
    more: Iterable[tuple[str, core.Asn1Value]],
) -> asn1_cms.CMSAttributes:
    attributes: list[dict[str, object]] = [
        {"type": "content_type", "values": [content_type]},
        {"type": "message_digest", "values": [_hash(digest, content)]},
    ]
    if signing_time is not None:
        moment = signing_time.astimezone(UTC).replace(microsecond=0)
        if not 1950 <= moment.year < 2050:  # RFC 5652 §11.3 leaves UTCTime for these years alone
            time = asn1_cms.Time("generalized_time", moment)
        else:
            time = asn1_cms.Time("utc_time", moment)
        attributes.append({"type": "signing_time", "values": [time]})
    attributes += [{"type": dotted, "values": [value]} for dotted, value in more]
    return asn1_cms.CMSAttributes(attributes)


def _signature_algorithm(key: SigningKey, digest: Digest) -> dict[str, object]:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return {"algorithm": f"{digest.name}_ecdsa"}
    return {"algorithm": "rsassa_pkcs1v15", "parameters": core.Null()}  # rsaEncryption: RFC 3370 §3.2


def _hash(digest: hashes.HashAlgorithm, data: bytes) -> bytes:
    context = hashes.Hash(digest)
    context.update(data)
    return context.finalize()


def _only_signer(fields: SignedDataFields) -> SignerFields:
    if len(fields.signers) != 1:
        detail = f"{len(fields.signers)} signatures, exactly one is expected"
        raise RemoteProtocolError("cms.signers", detail, clause="RFC 8366 §6.1")
    return fields.signers[0]


def _find_signer(info: SignerFields, among: Iterable[x509.Certificate]) -> x509.Certificate:
    fitting = {certificate for certificate in among if info.names(certificate)}
    if not fitting:
        raise TrustError("cms.no-signer", "the signer's certificate is not there", clause="RFC 5652 §5.3")
    if len(fitting) > 1:
        raise TrustError("cms.no-signer", "two certificates fit the signer", clause="RFC 5652 §5.3")
    return fitting.pop()


def _digest(info: SignerFields, *, sha1: bool) -> hashes.HashAlgorithm:
    if sha1 and info.digest == "sha1":
        return hashes.SHA1()  # noqa: S303 - the caller asked for it by name
    if info.digest not in DIGESTS:
        raise TrustError("cms.algorithm", f"digest {info.digest} is not accepted")
    return DIGESTS[info.digest]()


def _check_attributes(
    info: SignerFields, digest: hashes.HashAlgorithm, content: bytes, content_type: str
) -> None:
    if info.signed_type is None or info.signed_digest is None:
        detail = "contentType and messageDigest must both be signed"
        raise RemoteProtocolError("cms.attributes", detail, clause="RFC 5652 §5.3")
    if info.signed_type != content_type:
        detail = f"signed as {info.signed_type}, sent as {content_type}"
        raise TrustError("cms.content-type", detail, clause="RFC 5652 §11.1")
    if info.signed_digest != _hash(digest, content):
        detail = "the content is not what was signed"
        raise TrustError("cms.digest", detail, clause="RFC 5652 §5.6")


def _check_signature(info: SignerFields, key: PublicKey, signed: bytes, digest: hashes.HashAlgorithm) -> None:
    kind = "ecdsa" if isinstance(key, ec.EllipticCurvePublicKey) else "rsa"
    if info.scheme.key != kind or info.scheme.digest not in (None, digest.name):
        detail = f"{info.scheme.key} with {info.scheme.digest} on a key for {kind} and {digest.name}"
        raise TrustError("cms.algorithm", detail, clause="RFC 5652 §5.3")
    try:
        verify_signature(key, info.signature, signed, digest, pss_salt=info.scheme.pss_salt)
    except TrustError as error:
        raise TrustError("cms.signature", error.detail, clause="RFC 5652 §5.6") from error
