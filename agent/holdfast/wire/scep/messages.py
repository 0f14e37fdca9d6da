"""The pkiMessage (RFC 8894 §3): SignedData around EnvelopedData, with SCEP's signed attributes.

One codec for both ends. What is written is exact; what is read may use other string types, as servers do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from asn1crypto import cms as asn1_cms
from asn1crypto import core
from asn1crypto import x509 as asn1_x509
from cryptography import x509

from holdfast.wire import cms, oids
from holdfast.wire.cms_reading import PARSER_ERRORS
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, SigningKey
from holdfast.wire.scep import vocabulary as words
from holdfast.wire.scep.vocabulary import FailInfo, MessageType, PkiStatus

MESSAGE_LIMIT: Final = 262_144
_TEXT_LIMIT: Final = 255
_CLAUSE: Final = "RFC 8894 §3.2"
_PRINTABLE: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 '()+,-./:=?")
_TEXTS: Final = (core.PrintableString, core.UTF8String, core.IA5String, core.TeletexString)


@dataclass(frozen=True, slots=True)
class Message:
    """One pkiMessage. ``envelope`` is DER EnvelopedData, empty where a message has none."""

    type: MessageType
    transaction: str
    sender_nonce: bytes
    envelope: bytes = field(default=b"", repr=False)
    recipient_nonce: bytes = b""
    status: PkiStatus | None = None
    fail_info: FailInfo | None = None
    fail_text: str = ""


@dataclass(frozen=True, slots=True)
class Received:
    """A message whose signature over ``digest`` held for ``signer``, whom nobody has trusted yet."""

    message: Message
    signer: x509.Certificate
    certificates: Chain
    digest: str


def encode(message: Message, key: SigningKey, signer: x509.Certificate, chain: Chain = ()) -> bytes:
    """Sign *message*. Raises LocalProtocolError ``scep.message`` for one that no peer could read."""
    if not message.transaction or not _PRINTABLE.issuperset(message.transaction):
        raise LocalProtocolError("scep.message", "the transactionID is no PrintableString", clause=_CLAUSE)
    values: list[tuple[str, core.Asn1Value]] = [
        (words.MESSAGE_TYPE, core.PrintableString(message.type.value)),
        (words.TRANSACTION_ID, core.PrintableString(message.transaction)),
        (words.SENDER_NONCE, core.OctetString(message.sender_nonce)),
    ]
    if message.recipient_nonce:
        values.append((words.RECIPIENT_NONCE, core.OctetString(message.recipient_nonce)))
    if message.status is not None:
        values.append((words.PKI_STATUS, core.PrintableString(message.status.value)))
    if message.fail_info is not None:
        values.append((words.FAIL_INFO, core.PrintableString(message.fail_info.value)))
    if message.fail_text:
        values.append((words.FAIL_INFO_TEXT, core.UTF8String(message.fail_text)))
    return cms.sign(message.envelope or None, oids.CT_DATA, key, signer, chain, attributes=values)


def read(der: bytes, *, known: Chain = (), sha1: bool = False, limit: int = MESSAGE_LIMIT) -> Received:
    """Verify the signature of a pkiMessage and read its attributes. *known* are possible signers.

    Raises RemoteProtocolError ``scep.attributes`` and what :func:`holdfast.wire.cms.open_signed` raises.
    """
    opened = cms.open_signed(der, limit=limit, candidates=known, require_content=False, sha1=sha1)
    found: dict[str, bytes] = {}
    for dotted, values in opened.attributes:
        if dotted in found or len(values) != 1:
            raise _unreadable(f"{dotted} has not exactly one value")
        found[dotted] = values[0]
    fail_info, text = _maybe(found, words.FAIL_INFO), _maybe(found, words.FAIL_INFO_TEXT)
    status = _maybe(found, words.PKI_STATUS)
    try:
        message = Message(
            MessageType(_text(found, words.MESSAGE_TYPE)),
            _text(found, words.TRANSACTION_ID),
            _octets(found, words.SENDER_NONCE),
            opened.content,
            _octets(found, words.RECIPIENT_NONCE) if words.RECIPIENT_NONCE in found else b"",
            None if status is None else PkiStatus(status),
            None if fail_info is None else FailInfo(fail_info),
            text or "",
        )
    except ValueError as error:
        raise _unreadable(str(error)) from error
    return Received(message, opened.signer, opened.certificates, opened.digest)


def issuer_and_subject(issuer: x509.Name, subject: x509.Name) -> bytes:
    """What CertPoll asks by (§3.3.3)."""
    names = (asn1_x509.Name.load(issuer.public_bytes()), asn1_x509.Name.load(subject.public_bytes()))
    return bytes(_IssuerAndSubject({"issuer": names[0], "subject": names[1]}).dump())


def read_issuer_and_subject(der: bytes) -> tuple[bytes, bytes]:
    """Both names as DER. Raises RemoteProtocolError ``scep.syntax``."""
    pair = _loaded(_IssuerAndSubject, der)
    return bytes(pair["issuer"].dump()), bytes(pair["subject"].dump())


def issuer_and_serial(issuer: x509.Name, serial: int) -> bytes:
    """What GetCert and GetCRL ask by (§3.3.4, §3.3.5)."""
    name = asn1_x509.Name.load(issuer.public_bytes())
    return bytes(asn1_cms.IssuerAndSerialNumber({"issuer": name, "serial_number": serial}).dump())


def read_issuer_and_serial(der: bytes) -> tuple[bytes, int]:
    """The issuer's name as DER, and the serial number. Raises RemoteProtocolError ``scep.syntax``."""
    pair = _loaded(asn1_cms.IssuerAndSerialNumber, der)
    return bytes(pair["issuer"].dump()), int(pair["serial_number"].native)


class _IssuerAndSubject(core.Sequence):  # type: ignore[misc]
    _fields = [("issuer", asn1_x509.Name), ("subject", asn1_x509.Name)]  # noqa: RUF012


def _loaded(kind: Any, der: bytes) -> Any:
    try:
        value = kind.load(der, strict=True)
        _ = value.native
    except PARSER_ERRORS as error:
        detail = f"not one {kind.__name__.removeprefix('_')}: {str(error)[:200]}"
        raise RemoteProtocolError("scep.syntax", detail, clause="RFC 8894 §3.3") from error
    return value


def _maybe(found: dict[str, bytes], dotted: str) -> str | None:
    return _text(found, dotted) if dotted in found else None


def _text(found: dict[str, bytes], dotted: str) -> str:
    value = _value(found, dotted)
    if not isinstance(value, _TEXTS):
        raise _unreadable(f"{dotted} is no string")
    try:
        text = str(value.native)
    except PARSER_ERRORS as error:
        raise _unreadable(f"{dotted} is undecodable") from error
    if len(text) > _TEXT_LIMIT:
        raise _unreadable(f"{dotted} has {len(text)} characters")
    return text


def _octets(found: dict[str, bytes], dotted: str) -> bytes:
    value = _value(found, dotted)
    if not isinstance(value, core.OctetString) or not 1 <= len(bytes(value)) <= 64:
        raise _unreadable(f"{dotted} is no OCTET STRING of 1 to 64 octets")
    return bytes(value)


def _value(found: dict[str, bytes], dotted: str) -> Any:
    if dotted not in found:
        raise _unreadable(f"{dotted} is missing")
    try:
        return core.load(found[dotted], strict=True)
    except PARSER_ERRORS as error:
        raise _unreadable(f"{dotted}: {error}") from error


def _unreadable(detail: str) -> RemoteProtocolError:
    return RemoteProtocolError("scep.attributes", detail[:300], clause=_CLAUSE)


def check_reply(received: Received, signers: Chain, transaction: str, nonce: bytes) -> Message:
    """The reply, if it comes from one of *signers* and answers just this request (RFC 8894 §3.1, §8).

    Raises TrustError ``scep.signer``, ``scep.transaction``, ``scep.nonce``; RemoteProtocolError
    ``scep.message-type``, ``scep.status``.
    """
    message = received.message
    if received.signer not in signers:
        detail = "the reply is signed by a certificate that is neither the CA's nor its RA's"
        raise TrustError("scep.signer", detail, clause="RFC 8894 §3.1")
    if message.type is not MessageType.CERT_REP:
        raise RemoteProtocolError("scep.message-type", message.type.name, clause="RFC 8894 §3.3.2")
    if message.transaction != transaction:
        raise TrustError(
            "scep.transaction", "the reply is to another transaction", clause="RFC 8894 §3.2.1.1"
        )
    if message.recipient_nonce != nonce:
        detail = "the reply does not repeat the nonce of this request"
        raise TrustError("scep.nonce", detail, clause="RFC 8894 §3.2.1.5")
    if message.status is None or (message.status is PkiStatus.FAILURE and message.fail_info is None):
        raise RemoteProtocolError("scep.status", "a reply without pkiStatus or failInfo", clause=_CLAUSE)
    if message.status is PkiStatus.SUCCESS and not message.envelope:
        raise RemoteProtocolError("scep.status", "success without content", clause="RFC 8894 §3.2.2")
    return message
