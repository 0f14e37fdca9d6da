"""PKCS#10 certificate requests (RFC 2986), as every enrollment protocol here sends them.

The key signs through its own ``sign`` method, so a TPM key serves like a software key, and one signature
is made a request. What a server wished for (RFC 7030 §4.5.2, RFC 9908) comes in as a ``CsrTemplate``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID, NameOID

from holdfast.wire import oids
from holdfast.wire.algorithms import accepted_key, accepted_signature_digest, digest_for, spki
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import CsrTemplate, SigningKey

CSR_LIMIT: Final = 65536
CHALLENGE_LIMIT: Final = 255  # RFC 2985 §5.4.1, pkcs-9-ub-challengePassword
_PRINTABLE: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")
_PRINTABLE_ONLY: Final = (NameOID.SERIAL_NUMBER, NameOID.COUNTRY_NAME, NameOID.DN_QUALIFIER)
_STRING_CODECS: Final = {
    12: "utf-8",
    19: "ascii",
    20: "latin-1",
    22: "ascii",
    28: "utf-32-be",
    30: "utf-16-be",
}

_NO_WISHES: Final = CsrTemplate()

public_bytes = spki


def build(
    key: SigningKey,
    subject: x509.Name,
    *,
    template: CsrTemplate = _NO_WISHES,
    san: Sequence[x509.GeneralName] = (),
    challenge: str | None = None,
) -> bytes:
    """Make a DER certificate request signed by *key*.

    *subject* is used as it is, or, where the template prescribes a subject, supplies the values that the
    template leaves open. *san* becomes a subjectAltName unless the template fixes one verbatim. *challenge*
    is the challengePassword (RFC 7030 §3.5). A wish to fill in an extension that is not known is passed
    over: the server decides whether it can live without.

    Raises :class:`LocalProtocolError` with a ``csr.`` code; errors of the key itself pass through.
    """
    name = _subject(subject, template)
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    try:
        for extension in _extensions(key, name, template, san):
            builder = builder.add_extension(extension.value, extension.critical)
    except ValueError as error:
        raise LocalProtocolError("csr.extension", str(error)) from error
    if challenge is not None:
        value, tag = _challenge(challenge)
        builder = builder.add_attribute(x509.ObjectIdentifier(oids.CHALLENGE_PASSWORD), value, _tag=tag)
    return builder.sign(key, digest_for(key, template.digest)).public_bytes(Encoding.DER)


def parse(der: bytes, *, limit: int = CSR_LIMIT) -> x509.CertificateSigningRequest:
    """Read one DER request and check that its own key signed it.

    Raises :class:`RemoteProtocolError` (``csr.too-large``, ``csr.syntax``, ``key.syntax``) and
    :class:`TrustError` (``csr.pop``, ``key.weak``, ``key.unsupported``, ``signature.weak``).
    """
    if len(der) > limit:
        raise RemoteProtocolError("csr.too-large", f"{len(der)} octets, at most {limit} are read")
    try:
        csr = x509.load_der_x509_csr(der)
        _ = (csr.subject, tuple(csr.extensions), tuple(csr.attributes))  # the library parses these lazily
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise _unreadable(error) from error
    except (x509.InvalidVersion, x509.UnsupportedGeneralNameType) as error:
        raise _unreadable(error) from error
    accepted_key(csr)
    accepted_signature_digest(csr)
    try:
        holds = csr.is_signature_valid
    except (ValueError, UnsupportedAlgorithm) as error:
        raise TrustError("signature.unsupported", str(error), clause="RFC 2986 §4.2") from error
    if not holds:
        raise TrustError("csr.pop", "the request is not signed by its own key", clause="RFC 2986 §3")
    return csr


def challenge_password(csr: x509.CertificateSigningRequest) -> str | None:
    """The challengePassword of *csr*, or None. Raises :class:`RemoteProtocolError` ``csr.challenge``."""
    try:
        attribute = csr.attributes.get_attribute_for_oid(x509.ObjectIdentifier(oids.CHALLENGE_PASSWORD))
    except x509.AttributeNotFound:
        return None
    except ValueError as error:
        raise _unreadable(error) from error
    codec = _STRING_CODECS.get(attribute._type)
    if codec is None:
        raise RemoteProtocolError("csr.challenge", "not a DirectoryString", clause="RFC 2985 §5.4.1")
    try:
        text = attribute.value.decode(codec)
    except UnicodeDecodeError as error:
        raise RemoteProtocolError("csr.challenge", "undecodable string", clause="RFC 2985 §5.4.1") from error
    if not 1 <= len(text) <= CHALLENGE_LIMIT:
        raise RemoteProtocolError("csr.challenge", f"{len(text)} characters", clause="RFC 2985 §5.4.1")
    return text


def _unreadable(error: Exception) -> RemoteProtocolError:
    return RemoteProtocolError("csr.syntax", f"not one DER PKCS#10 request: {error}", clause="RFC 2986 §4")


def _challenge(text: str) -> tuple[bytes, _ASN1Type]:
    if not 1 <= len(text) <= CHALLENGE_LIMIT:
        detail = f"challengePassword of {len(text)} characters"
        raise LocalProtocolError("csr.challenge", detail, clause="RFC 2985 §5.4.1")
    tag = _ASN1Type.PrintableString if _PRINTABLE.issuperset(text) else _ASN1Type.UTF8String
    return text.encode(), tag


def _subject(subject: x509.Name, template: CsrTemplate) -> x509.Name:
    if not template.subject:
        return x509.Name([x509.RelativeDistinguishedName(map(_string_type, rdn)) for rdn in subject.rdns])
    return x509.Name(list(_prescribed(subject, template.subject)))


def _prescribed(
    subject: x509.Name, wanted: Iterable[tuple[str, str | None]]
) -> Iterable[x509.NameAttribute[Any]]:
    own = {
        dotted: iter(subject.get_attributes_for_oid(x509.ObjectIdentifier(dotted))) for dotted, _ in wanted
    }
    for dotted, value in wanted:
        mine = next(own[dotted], None)
        if value is None and mine is None:
            detail = f"the server leaves {dotted} to the device, which has no value for it"
            raise LocalProtocolError("csr.subject", detail, clause="RFC 9908 §3.4")
        if value is None and mine is not None:
            yield _string_type(mine)
        elif value is not None:
            try:
                yield _string_type(x509.NameAttribute(x509.ObjectIdentifier(dotted), value))
            except ValueError as error:
                raise LocalProtocolError("csr.subject", f"{dotted}: {error}") from error


def _string_type(attribute: x509.NameAttribute[Any]) -> x509.NameAttribute[Any]:
    """Give serialNumber and its like the one string type that X.520 allows, whatever they had before."""
    if attribute.oid not in _PRINTABLE_ONLY or not isinstance(attribute.value, str):
        return attribute
    if not _PRINTABLE.issuperset(attribute.value):
        detail = f"{attribute.oid.dotted_string} has characters outside PrintableString"
        raise LocalProtocolError("csr.subject", detail, clause="RFC 5280 appendix A.1")
    try:
        return x509.NameAttribute(attribute.oid, attribute.value, _ASN1Type.PrintableString)
    except ValueError as error:  # a name read from a certificate may break limits that a new one must keep
        raise LocalProtocolError("csr.subject", f"{attribute.oid.dotted_string}: {error}") from error


def _extensions(
    key: SigningKey, subject: x509.Name, template: CsrTemplate, san: Sequence[x509.GeneralName]
) -> list[x509.Extension[x509.ExtensionType]]:
    fixed = {extension.oid.dotted_string: extension for extension in template.extensions}
    if len(fixed) != len(template.extensions):
        raise LocalProtocolError("csr.extension", "the template names one extension twice")
    fill = dict.fromkeys(template.fill_extensions)
    if san:
        fill[_SAN] = None
    elif _SAN in fill and _SAN not in fixed:
        detail = "the server leaves subjectAltName to the device, which has no names"
        raise LocalProtocolError("csr.san", detail, clause="RFC 9908 §3.3")
    for dotted in fill:
        if dotted == _SAN and (dotted not in fixed or dotted in template.fill_extensions):
            fixed[dotted] = _alternative_names(fixed.get(dotted), san, critical=not list(subject))
        elif dotted in _FILLERS and dotted not in fixed:
            value = _FILLERS[dotted](key)
            critical = isinstance(value, x509.KeyUsage)
            fixed[dotted] = x509.Extension(value.oid, critical, value)
    return list(fixed.values())


def _alternative_names(
    fixed: x509.Extension[x509.ExtensionType] | None, san: Sequence[x509.GeneralName], *, critical: bool
) -> x509.Extension[x509.ExtensionType]:
    names = list(fixed.value) if fixed and isinstance(fixed.value, x509.SubjectAlternativeName) else []
    value = x509.SubjectAlternativeName(dict.fromkeys((*names, *san)))
    return x509.Extension(value.oid, fixed.critical if fixed else critical, value)


def _key_usage(_: SigningKey) -> x509.ExtensionType:
    absent = dict.fromkeys(("content_commitment", "key_encipherment", "data_encipherment"), False)
    absent |= dict.fromkeys(("key_agreement", "key_cert_sign", "crl_sign"), False)
    return x509.KeyUsage(digital_signature=True, encipher_only=False, decipher_only=False, **absent)


_SAN: Final = ExtensionOID.SUBJECT_ALTERNATIVE_NAME.dotted_string
_FILLERS: Final[dict[str, Callable[[SigningKey], x509.ExtensionType]]] = {
    ExtensionOID.KEY_USAGE.dotted_string: _key_usage,
    ExtensionOID.EXTENDED_KEY_USAGE.dotted_string: lambda _: x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH]
    ),
    ExtensionOID.SUBJECT_KEY_IDENTIFIER.dotted_string: lambda key: x509.SubjectKeyIdentifier.from_public_key(
        key.public_key()
    ),
}
