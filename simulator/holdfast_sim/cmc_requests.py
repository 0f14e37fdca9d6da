"""Who asks for a certificate over CMC, and may they? (RFC 10002 §3.2, §6.2, §6.3, §6.7)"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from holdfast.wire import crmf, der
from holdfast.wire.algorithms import PublicKey, accepted_key, spki
from holdfast.wire.cmc import proofs, requests
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.challenge import prove
from holdfast.wire.cmc.controls import (
    EncryptedPop,
    read_add_extensions,
    read_change_subject_name,
    read_decrypted_pop,
    read_octets,
    read_text,
)
from holdfast.wire.cmc.messages import Crmf, Pkcs10, PkiData, Request, read_data
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.cms_enveloped import ForKey, envelope
from holdfast.wire.csr import parse
from holdfast.wire.errors import HoldfastError
from holdfast.wire.message_signatures import verify_by
from holdfast.wire.model import KeyAlgorithm
from holdfast.wire.oids import CHANGE_SUBJECT_NAME, CMC_RA

from . import ca
from .clients import Client, Kind
from .cmc_replies import CmcFailed, Due
from .enroll import alternative_names
from .world import World


@dataclass(frozen=True, slots=True)
class Asked:
    """A certificate request, taken apart: what is asked for, and whether its key signed it.

    ``change`` is the DER of a ChangeSubjectName, empty if there is none.
    """

    request: Request
    asked: x509.CertificateSigningRequest
    signed: bool
    change: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who signed a message: a client by certificate, the key of the request (``key``), or nobody."""

    name: str
    client: Client | None = None
    key: PublicKey | None = None


def read(request: Request) -> Asked:
    """Raises CmcFailed for a request that is none, or whose proof of possession does not hold."""
    try:
        if isinstance(request, Pkcs10):
            asked = parse(request.csr)
            return Asked(request, asked, signed=True, change=_change_in(asked))
        if isinstance(request, Crmf):
            return _read_crmf(request)
    except HoldfastError as error:
        failed = error.code.endswith((".pop", "signature.invalid"))
        raise CmcFailed(FailInfo.POP_FAILED if failed else FailInfo.BAD_REQUEST, str(error)) from error
    raise CmcFailed(FailInfo.BAD_REQUEST, "a request of a kind that is not known", Status.NO_SUPPORT)


def _read_crmf(request: Crmf) -> Asked:
    (found,) = crmf.read_requests(der.sequence(request.message))
    asked = crmf.as_csr(found.template)
    change = found.control(CHANGE_SUBJECT_NAME)
    signed = found.proof is not None
    if found.proof is not None:
        verify_by(asked, *found.proof, found.signed)
    elif not found.other_proof:
        raise CmcFailed(FailInfo.POP_REQUIRED, "no proof of possession")
    return Asked(request, asked, signed=signed, change=b"" if change is None else change.value)


def _change_in(asked: x509.CertificateSigningRequest) -> bytes:
    try:
        found = asked.attributes.get_attribute_for_oid(x509.ObjectIdentifier(CHANGE_SUBJECT_NAME))
    except x509.AttributeNotFound:
        return b""
    return der.sequence(found.value)  # cryptography takes the tag off


def key_of(content: bytes, identifier: bytes) -> PublicKey:
    """The key that signed *content* without a certificate: that of the request which has *identifier*."""
    for request in read_data(content).requests:
        asked = read(request).asked
        extension = asked.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        if extension.value.digest == identifier:
            return accepted_key(asked)
    raise CmcFailed(FailInfo.BAD_MESSAGE_CHECK, "no request has the key that signed")


def authorise(world: World, data: PkiData, speaker: Speaker, found: Asked) -> str:
    """Who asks, as a name for the records. Raises CmcFailed."""
    if speaker.client is None:
        return _by_secret(world, data, found)
    client = speaker.client
    if client.kind is Kind.LDEVID and not speaks_for_others(client):
        current = client.certificate
        same = found.asked.subject == current.subject
        if not same or set(alternative_names(found.asked)) != set(alternative_names(current)):
            raise CmcFailed(FailInfo.BAD_REQUEST, "the names differ from the current certificate's")
    return client.name


def names(found: Asked) -> tuple[x509.Name, tuple[x509.GeneralName, ...]]:
    """What the certificate will say: the names asked for, or what they shall become (§7.1)."""
    subject, san = found.asked.subject, alternative_names(found.asked)
    if not found.change:
        return subject, san
    change = read_change_subject_name(found.change)
    changed = crmf.as_csr(
        crmf.Template(
            subject=change.subject,
            public_key=some_key(),
            extensions=der.sequence(
                der.sequence(der.oid(requests.SUBJECT_ALT_NAME), der.octets(change.alternative))
            )
            if change.alternative
            else b"",
        )
    )
    return changed.subject, alternative_names(changed)


def some_key() -> bytes:
    """Some key: the library reads names only inside something that has one."""
    return spki(ca.new_key(KeyAlgorithm.P256))


def added(data: PkiData, speaker: Speaker, number: int) -> list[tuple[x509.ExtensionType, bool]]:
    """Extensions that an RA adds to request *number* (§6.5.2). Raises CmcFailed."""
    control = data.control(words.ADD_EXTENSIONS)
    if control is None:
        return []
    if speaker.client is None or not speaks_for_others(speaker.client):
        raise CmcFailed(FailInfo.BAD_REQUEST, "only a registration authority adds extensions")
    wanted = read_add_extensions(control.value)
    if number not in wanted.requests:
        raise CmcFailed(FailInfo.BAD_REQUEST, "addExtensions names no request that is here")
    template = crmf.Template(public_key=some_key(), extensions=der.sequence(*wanted.extensions))
    return [(e.value, e.critical) for e in crmf.as_csr(template).extensions]


def speaks_for_others(client: Client) -> bool:
    """Whether the certificate says that its holder is a registration authority."""
    try:
        usages = client.certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        return False
    return any(usage.dotted_string == CMC_RA for usage in usages)


def _by_secret(world: World, data: PkiData, found: Asked) -> str:
    """identityProofV2 over the requests, and the POP link inside ours (§6.2.1, §6.3.1.1)."""
    control = data.control(words.IDENTIFICATION)
    name = "" if control is None else read_text(control)
    secret = world.cmc.secrets.get(name)
    if secret is None:
        raise CmcFailed(FailInfo.BAD_IDENTITY, "no secret has this identification")
    shared = proofs.SharedSecret(secret, name)
    try:
        _check_identity(data, shared, sha1=world.cmc.sha1)
        _check_link(data, shared, found.request, sha1=world.cmc.sha1)
    except HoldfastError as error:
        raise CmcFailed(FailInfo.BAD_IDENTITY, str(error)) from error
    return f"secret {name}"


def _check_identity(data: PkiData, shared: proofs.SharedSecret, *, sha1: bool) -> None:
    control, old = data.control(words.IDENTITY_PROOF_V2), data.control(words.IDENTITY_PROOF)
    if control is not None:
        witness = proofs.read_witness(control.value)
    elif old is not None and sha1:
        witness = proofs.Witness(proofs.SHA1, proofs.HMAC_SHA1, read_octets(old))
    else:
        raise CmcFailed(FailInfo.BAD_IDENTITY, "no proof of identity")
    proofs.check(witness, shared.material, data.covered, sha1=sha1)


def _check_link(data: PkiData, shared: proofs.SharedSecret, request: Request, *, sha1: bool) -> None:
    control, link = data.control(words.POP_LINK_RANDOM), requests.link_of(request)
    if control is None or link is None:
        raise CmcFailed(FailInfo.POP_FAILED, "identity and possession are not linked")
    random = read_octets(control)
    if len(random) < words.LINK_SIZE:
        raise CmcFailed(FailInfo.POP_FAILED, f"a link of {len(random)} octets")
    if link.oid == words.POP_LINK_WITNESS_V2:
        witness = proofs.read_witness(link.value)
    elif sha1:
        witness = proofs.Witness(proofs.SHA1, proofs.HMAC_SHA1, der.Cursor(link.value).octets())
    else:
        raise CmcFailed(FailInfo.POP_FAILED, "a link of RFC 2797")
    proofs.check(witness, shared.secret, random, sha1=sha1)


# --- possession by decryption --------------------------------------------------------------------


def challenge(world: World, due: Due, found: Asked, hidden: bytes) -> bytes:
    """The encryptedPOP for the key of *found*, around *hidden*. Raises CmcFailed for one that only signs."""
    key = found.asked.public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise CmcFailed(FailInfo.POP_REQUIRED, "only RSA keys decrypt")
    identifier = x509.SubjectKeyIdentifier.from_public_key(key).digest
    value = hidden[:4] if due("challenge-short") else hidden
    if due("challenge-other-key"):
        identifier = bytes(20)
    sealed = envelope(value, ForKey(key, identifier), world.random)
    request: Request = found.request
    if due("challenge-other-request"):
        request = Pkcs10(request.number, der.sequence())
    digest = proofs.SHA1 if due("challenge-sha1") else proofs.SHA256
    witness = proofs.hash_of(digest, value, sha1=True)
    if due("challenge-witness"):
        witness = bytes(len(witness))
    return EncryptedPop(request, sealed, proofs.HMAC_SHA256, digest, witness).encode()


def proved(data: PkiData, found: Asked, hidden: bytes) -> bool:
    """Whether *data* shows that *hidden* was seen. Raises CmcFailed for a proof that is wrong."""
    control = data.control(words.DECRYPTED_POP)
    if control is None or not hidden:
        return False
    shown = read_decrypted_pop(control.value)
    asked = EncryptedPop(found.request, b"", proofs.HMAC_SHA256, proofs.SHA256, b"")
    right = prove(asked, hidden, found.request)
    if shown.number != found.request.number or not hmac.compare_digest(shown.proof, right):
        raise CmcFailed(FailInfo.POP_FAILED, "the decrypted value is wrong")
    return True
