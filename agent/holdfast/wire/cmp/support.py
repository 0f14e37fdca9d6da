"""Support messages: what an end entity may ask a CMP server (RFC 9483 §4.3), as genm and genp.

Each question is one request and one answer, which may be delayed. The answers are as trustworthy as their
protection; a new root counts only through the old one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Generic, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import certificates, chain, der
from holdfast.wire.algorithms import spki
from holdfast.wire.authorities import is_ca
from holdfast.wire.certificates import LIBRARY_ERRORS
from holdfast.wire.cmp import bodies, oids
from holdfast.wire.cmp.bodies import WHOLE_MESSAGE
from holdfast.wire.cmp.message import Body, Message, reading
from holdfast.wire.cmp.template import read_wishes
from holdfast.wire.cmp.transaction import Refusal, Transaction, Waiting
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.identified import Info
from holdfast.wire.model import Chain, CsrTemplate, Exchange, Moment, Pending, Rejected

MAX_CERTIFICATES: Final = 16
MAX_CRLS: Final = 16
_CLAUSE: Final = "RFC 9483 §4.3"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """What to ask: the genm entry, the entry that answers it, and how its value is read (None: absent)."""

    request: Info
    answer: str
    read: Callable[[bytes | None], T]


def ask(transaction: Transaction, question: Question[T], now: Moment) -> Exchange[T | Pending | Rejected]:
    """Ask, and read the answer.

    Raises RemoteProtocolError ``cmp.body`` for an answer to something else, and what the transaction raises.
    """
    content = bodies.general(question.request)
    answer = yield from transaction.ask(
        Body.GENM, content, now, expected=(Body.GENP,), support=question.request.oid
    )
    return _read(transaction, question, answer)


def ask_again(
    transaction: Transaction, question: Question[T], token: bytes, now: Moment
) -> Exchange[T | Pending | Rejected]:
    """Ask whether the answer is ready, after Pending with *token*."""
    transaction.restore(token)
    answer = yield from transaction.poll(WHOLE_MESSAGE, now, expected=(Body.GENP,))
    return _read(transaction, question, answer)


def _read(
    transaction: Transaction, question: Question[T], answer: Message | Waiting | Refusal
) -> T | Pending | Rejected:
    if isinstance(answer, Waiting):
        return Pending(answer.after or timedelta(0), transaction.token("genm"))
    if isinstance(answer, Refusal):
        return answer.outcome()
    infos = bodies.read_general(answer.content)
    if not infos:  # RFC 9483 §4.3: nothing to tell
        return question.read(None)
    found = next((i for i in infos if i.oid == question.answer), None)
    if found is None:
        detail = f"genp with {', '.join(i.oid for i in infos[:4])}, asked for {question.answer}"
        raise RemoteProtocolError("cmp.body", detail, clause=_CLAUSE)
    return question.read(found.value or None)


# --- CA certificates --------------------------------------------------------------------------------


def ca_certs() -> Question[Chain]:
    """The CA certificates (RFC 9483 §4.3.1). Reading raises RemoteProtocolError
    ``cmp.too-many-certificates`` and ``cmp.not-ca``."""
    return Question(Info(oids.CA_CERTS), oids.CA_CERTS, _read_ca_certs)


def _read_ca_certs(value: bytes | None) -> Chain:
    if value is None:
        return ()
    with reading("CaCertsValue"):
        ders = tuple(each.any() for each in der.read_one(value).each())
    if len(ders) > MAX_CERTIFICATES:
        detail = f"{len(ders)} CA certificates, at most {MAX_CERTIFICATES} are read"
        raise RemoteProtocolError("cmp.too-many-certificates", detail, clause=_CLAUSE)
    found = certificates.load_all(ders)
    if not all(map(is_ca, found)):
        raise RemoteProtocolError("cmp.not-ca", "a certificate among caCerts is no CA", clause=_CLAUSE)
    return found


# --- a new root -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RootUpdate:
    """A new root that the old one vouches for; ``old_with_new`` helps peers that know the new one alone."""

    new_with_new: x509.Certificate
    new_with_old: x509.Certificate
    old_with_new: x509.Certificate | None = None


def root_update(old: x509.Certificate, now: Moment) -> Question[RootUpdate | None]:
    """Whether there is a successor of the root *old* (RFC 9483 §4.3.2); None if there is none.

    Reading raises TrustError ``cmp.root-update`` and those of the chain where the old root does not vouch for
    the new one.
    """
    request = Info(oids.ROOT_CA_CERT, old.public_bytes(Encoding.DER))
    return Question(request, oids.ROOT_CA_KEY_UPDATE, lambda value: _read_root_update(value, old, now))


def _read_root_update(value: bytes | None, old: x509.Certificate, now: Moment) -> RootUpdate | None:
    if value is None:
        return None
    with reading("RootCaKeyUpdateValue"):
        cursor = der.read_one(value)
        new_der, linked_der, back_der = cursor.any(), None, None
        if found := cursor.maybe(0xA0):
            linked_der = found.any()
            found.close()
        if found := cursor.maybe(0xA1):
            back_der = found.any()
            found.close()
        cursor.close()
    new = certificates.load(new_der)
    if linked_der is None:
        raise _untrusted("the new root comes without newWithOld, so the old root does not vouch for it")
    linked = certificates.load(linked_der)
    back = None if back_der is None else certificates.load(back_der)
    chain.validate((linked,), (old,), now, chain.Rule.message_authority(pinned=False))
    if not is_ca(new) or not is_ca(linked) or new.subject != linked.subject or spki(new) != spki(linked):
        raise _untrusted("newWithNew and newWithOld are not the same CA with the same key")
    _check_signed(new, new)
    if back is not None:
        if back.subject != old.subject or spki(back) != spki(old):
            raise _untrusted("oldWithNew is not the old root")
        _check_signed(back, new)
    return RootUpdate(new, linked, back)


def _check_signed(certificate: x509.Certificate, issuer: x509.Certificate) -> None:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, *LIBRARY_ERRORS) as error:
        raise _untrusted("a certificate of the update is not signed by the new root") from error


def _untrusted(detail: str) -> TrustError:
    return TrustError("cmp.root-update", detail, clause="RFC 9483 §4.3.2")


# --- wishes, revocation lists -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Wishes:
    """The CA's template, read and as it came."""

    template: CsrTemplate
    encoded: bytes


def request_template() -> Question[Wishes]:
    """What a request should look like (RFC 9483 §4.3.3)."""
    return Question(
        Info(oids.CERT_REQ_TEMPLATE),
        oids.CERT_REQ_TEMPLATE,
        lambda value: Wishes(read_wishes(value or b""), value or b""),
    )


def crl_update(
    issuer: x509.Name, newer_than: datetime | None = None
) -> Question[tuple[x509.CertificateRevocationList, ...]]:
    """CRLs of *issuer* that are newer than what is at hand (RFC 9483 §4.3.4).

    They are not verified here: a CRL says by itself who signed it. Reading raises RemoteProtocolError
    ``cmp.syntax`` and ``cmp.too-many-crls``.
    """
    source = der.explicit(1, der.sequence(der.explicit(4, issuer.public_bytes())))
    time = b"" if newer_than is None else der.generalized_time(newer_than)
    status = der.sequence(der.sequence(source, time))
    return Question(Info(oids.CRL_STATUS_LIST, status), oids.CRLS, _read_crls)


def _read_crls(value: bytes | None) -> tuple[x509.CertificateRevocationList, ...]:
    if value is None:
        return ()
    with reading("CRLsValue"):
        ders = tuple(each.any() for each in der.read_one(value).each())
        if len(ders) > MAX_CRLS:
            detail = f"{len(ders)} CRLs, at most {MAX_CRLS} are read"
            raise RemoteProtocolError("cmp.too-many-crls", detail, clause=_CLAUSE)
        return tuple(map(x509.load_der_x509_crl, ders))
