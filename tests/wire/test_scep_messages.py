"""Parts of SCEP alone: attributes that are there twice, and what GetCert and GetCRL may bring."""

from __future__ import annotations

from datetime import timedelta

import pytest
from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.wire import cms, oids
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.scep import messages
from holdfast.wire.scep import vocabulary as words
from holdfast.wire.scep.http import MOST_IN_A_TARGET, Site
from holdfast.wire.scep.messages import Message
from holdfast.wire.scep.retrieval import certificate_in, crl_in
from holdfast.wire.scep.vocabulary import FailInfo, MessageType

CA = pki.ca("SCEP CA")
OTHER = pki.ca("SCEP CA")
DEVICE = pki.end_entity("device", CA)
LIMIT = 1 << 16
WHOLE = (
    (words.MESSAGE_TYPE, core.PrintableString("3")),
    (words.TRANSACTION_ID, core.PrintableString("1")),
    (words.SENDER_NONCE, core.OctetString(bytes(16))),
)


def read(*attributes: tuple[str, core.Asn1Value]) -> Message:
    made = cms.sign(None, oids.CT_DATA, CA.key, CA.certificate, attributes=attributes)
    return messages.read(made).message


def test_a_message_with_all_that_it_needs() -> None:
    assert read(*WHOLE) == Message(MessageType.CERT_REP, "1", bytes(16))


@pytest.mark.parametrize("extra", WHOLE, ids=["messageType", "transactionID", "senderNonce"])
def test_an_attribute_that_is_there_twice(extra: tuple[str, core.Asn1Value]) -> None:
    with pytest.raises(RemoteProtocolError, match="exactly one value"):
        read(*WHOLE, (extra[0], core.PrintableString("9")))


@pytest.mark.parametrize("missing", range(3))
def test_an_attribute_that_is_missing(missing: int) -> None:
    with pytest.raises(RemoteProtocolError, match="is missing"):
        read(*WHOLE[:missing], *WHOLE[missing + 1 :])


def test_strings_of_other_types_are_read() -> None:
    """Servers write UTF8String and IA5String, too."""
    spelt = (words.MESSAGE_TYPE, core.UTF8String("3")), (words.TRANSACTION_ID, core.IA5String("1")), WHOLE[2]
    assert read(*spelt) == read(*WHOLE)


def test_a_transaction_that_no_peer_could_read_is_not_sent() -> None:
    for transaction in ("", "é", "a_b"):
        with pytest.raises(LocalProtocolError, match=r"scep\.message"):
            messages.encode(Message(MessageType.PKCS_REQ, transaction, bytes(16)), CA.key, CA.certificate)


def test_reasons_are_spelt_as_in_the_standard() -> None:
    wanted = ["badAlg", "badMessageCheck", "badRequest", "badTime", "badCertId"]
    assert [reason.word for reason in FailInfo] == wanted


def test_a_message_too_long_for_a_url_is_not_sent() -> None:
    with pytest.raises(LocalProtocolError, match=r"scep\.get-size"):
        Site("/scep").get(bytes(MOST_IN_A_TARGET))


@pytest.mark.parametrize("path", ["scep", "/a b", "/a?b", "/a#b", "/é", "/a\n"])
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"scep\.path"):
        Site(path)


def test_only_the_certificate_that_was_asked_for() -> None:
    bag = cms.certs_only(DEVICE.chain)
    number = DEVICE.certificate.serial_number
    assert certificate_in(bag, CA.certificate, number, limit=LIMIT) == DEVICE.certificate
    for authority, serial in ((CA, number + 1), (OTHER, number)):
        with pytest.raises(TrustError, match=r"scep\.get-cert"):
            certificate_in(bag, authority.certificate, serial, limit=LIMIT)


def crl(by: pki.Identity, days: int = 1) -> bytes:
    begin = pki.NOW - timedelta(days=2)
    builder = x509.CertificateRevocationListBuilder().issuer_name(by.certificate.subject)
    builder = builder.last_update(begin).next_update(pki.NOW + timedelta(days=days))
    made = builder.sign(by.key, hashes.SHA256())  # type: ignore[arg-type]
    return cms.crls_only([made.public_bytes(Encoding.DER)])


def test_only_a_crl_of_this_ca_that_holds() -> None:
    assert crl_in(crl(CA), CA.certificate, pki.TRUSTED, limit=LIMIT).issuer == CA.certificate.subject
    for wrong in (crl(OTHER), crl(pki.ca("Another")), crl(CA, days=-1)):
        with pytest.raises(TrustError, match=r"scep\.get-crl"):
            crl_in(wrong, CA.certificate, pki.TRUSTED, limit=LIMIT)
    with pytest.raises(RemoteProtocolError, match=r"cms\.no-crls"):
        crl_in(cms.certs_only(CA.chain), CA.certificate, pki.TRUSTED, limit=LIMIT)
    with pytest.raises(RemoteProtocolError, match=r"cms\.no-certificates"):
        cms.parse_certs_only(crl(CA))


def test_openssl_reads_our_crl_bag() -> None:
    shown = pki.openssl("pkcs7", "-inform", "DER", "-print_certs", data=crl(CA)).stdout
    assert b"BEGIN X509 CRL" in shown
