"""The CMC codec alone: what is made is read again, what contradicts itself is refused, openssl reads it."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import wire_pki as pki
from holdfast.wire import cms, csr, der
from holdfast.wire.cmc import controls, messages, proofs, requests
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest
from holdfast.wire.cmc.messages import (
    Content,
    Control,
    Crmf,
    Other,
    OtherRequest,
    Pkcs10,
    PkiData,
    PkiResponse,
)
from holdfast.wire.cmc.settings import Form
from holdfast.wire.cmc.signer import Identity, Nobody, RequestKey
from holdfast.wire.cmc.status import PendInfo, StatusInfo, read_status
from holdfast.wire.cmc.vocabulary import FailInfo, Status
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.identified import Info
from holdfast.wire.issued import alternative_names
from holdfast.wire.model import CsrTemplate
from holdfast.wire.revocation.reason import Reason
from tools import need

CA = pki.ca("CMC CA")
DEVICE = pki.end_entity("device", CA)
KEY = pki.new_key()
NAMED = CsrTemplate(fill_extensions=("2.5.29.14",))
CSR = csr.build(KEY, pki.name("gateway"), template=NAMED, san=pki.dns("gateway.example"))
EVERY = PkiData(
    (Control(7, words.SENDER_NONCE, (der.octets(b"nonce"),)),),
    (Pkcs10(1, CSR), requests.build(CSR, KEY, Form.CRMF), OtherRequest(3, "1.2.3", der.octets(b"other"))),
    (Content(4, cms.certs_only([CA.certificate])),),
    (Other(5, "1.2.4", der.text("besides")),),
)


def numbered() -> PkiData:
    """EVERY with a CRMF request that has a number of its own."""
    template = requests.crmf.template_of(CSR)
    crm = Crmf(2, requests.crmf.request(2, template, KEY))
    return PkiData(EVERY.controls, (EVERY.requests[0], crm, EVERY.requests[2]), EVERY.contents, EVERY.others)


def test_every_part_is_read_as_it_was_made() -> None:
    made = numbered()
    found = messages.read_data(made.encode())
    assert found == made
    assert found.covered == messages.sequence(made.requests)
    answer = PkiResponse(made.controls, made.contents, made.others)
    assert messages.read_response(answer.encode()) == answer


def test_tags_are_implicit() -> None:
    """Octet by octet: [0] and [1] stand in the place of SEQUENCE, not around it."""
    assert Pkcs10(1, b"\x30\x00").encode() == bytes.fromhex("a0 05 02 01 01 30 00")
    assert Crmf(2, bytes.fromhex("30 05 30 03 02 01 02")).encode() == bytes.fromhex("a1 05 30 03 02 01 02")


@pytest.mark.parametrize("number", [0, 4])
def test_body_parts_have_numbers_of_their_own(number: int) -> None:
    made = numbered()
    doubled = PkiData((Control(number, "1.2.3", (der.null(),)),), made.requests, made.contents, made.others)
    with pytest.raises(RemoteProtocolError, match=r"cmc\.body-part"):
        messages.read_data(doubled.encode())


def test_a_control_has_one_value() -> None:
    for values in ((), (der.null(), der.null())):
        with pytest.raises(RemoteProtocolError, match=r"cmc\.control"):
            _ = Control(1, "1.2.3", values).value
    twice = PkiResponse((Control(1, "1.2.3", (der.null(),)), Control(2, "1.2.3", (der.null(),))))
    with pytest.raises(RemoteProtocolError, match=r"cmc\.control"):
        twice.control("1.2.3")


def test_sizes_are_bounded() -> None:
    with pytest.raises(RemoteProtocolError, match=r"cmc\.too-large"):
        messages.read_data(bytes(messages.MESSAGE_LIMIT + 1))
    many = PkiData(tuple(Control(n, "1.2.3", (der.null(),)) for n in range(1, messages.MOST_PARTS + 2)))
    with pytest.raises(RemoteProtocolError, match=r"cmc\.syntax"):
        messages.read_data(many.encode())


TIME = datetime(2026, 11, 2, 3, 4, 5, tzinfo=UTC)
STATUSES = [
    StatusInfo(Status.SUCCESS, ((1,),)),
    StatusInfo(Status.FAILED, ((1,), (2, 3)), "no", fail=FailInfo.BAD_IDENTITY),
    StatusInfo(Status.FAILED, ((0,),), fail=1000),
    StatusInfo(Status.PENDING, ((1,),), "soon", pend=PendInfo(b"token", TIME)),
    StatusInfo(Status.FAILED, ((1,),), extended="1.2.3", extended_value=der.integer(7)),
]


@pytest.mark.parametrize("status", STATUSES)
def test_statuses(status: StatusInfo) -> None:
    assert read_status(status.encode()) == status


def test_the_extended_reason_has_an_implicit_tag() -> None:
    expected = "30 11 02 01 02 30 03 02 01 01 a1 07 06 02 2a 03 02 01 07"
    assert STATUSES[4].encode() == bytes.fromhex(expected)


def test_the_old_status_knows_neither_paths_nor_extended_reasons() -> None:
    old = read_status(STATUSES[1].encode_v1(), v1=True)
    assert old.parts == ((1,), (3,))
    for newer in (STATUSES[1].encode(), STATUSES[4].encode()):
        with pytest.raises(RemoteProtocolError, match=r"cmc\.syntax"):
            read_status(newer, v1=True)


CONTRADICTIONS = [
    StatusInfo(Status.SUCCESS, ((1,),), fail=FailInfo.BAD_ALG),
    StatusInfo(Status.SUCCESS, ((1,),), pend=PendInfo(b"token", TIME)),
    StatusInfo(Status.PENDING, ((1,),), fail=FailInfo.BAD_ALG),
]


@pytest.mark.parametrize("status", CONTRADICTIONS)
def test_a_status_that_contradicts_itself(status: StatusInfo) -> None:
    with pytest.raises(RemoteProtocolError, match=r"cmc\.status"):
        read_status(status.encode())


def test_a_status_about_nothing() -> None:
    with pytest.raises(RemoteProtocolError, match=r"cmc\.syntax"):
        read_status(StatusInfo(Status.SUCCESS, ()).encode())


def test_reasons_are_spelt_as_in_the_standard() -> None:
    assert [FailInfo(n).word for n in (0, 1, 7, 11, 12)] == [
        "badAlg", "badMessageCheck", "badIdentity", "internalCAError", "tryLater",
    ]  # fmt: skip
    assert STATUSES[2].word == "failInfo-1000"
    assert StatusInfo(Status.NO_SUPPORT, ((1,),)).word == "noSupport"


EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WHO = CertificateId(CA.certificate.subject.public_bytes(), 77)


@given(
    st.sampled_from(Reason),
    st.none() | st.integers(0, 9 * 10**9).map(lambda seconds: EPOCH + timedelta(seconds=seconds)),
    st.binary(max_size=40),
    st.text(st.characters(codec="utf-8"), max_size=40),
)
def test_revocations(reason: Reason, since: datetime | None, secret: bytes, comment: str) -> None:
    made = RevokeRequest(WHO, reason, since, secret, comment)
    assert controls.read_revoke_request(made.encode()) == made


def test_other_controls() -> None:
    assert controls.read_accepted(WHO.accepted()) == WHO
    assert controls.read_get_cert(WHO.wanted()) == WHO
    assert controls.read_get_crl(controls.get_crl(CA.certificate.subject)) == WHO.issuer
    added = controls.AddExtensions(0, (1, 2), (der.sequence(der.oid("2.5.29.15"), der.octets(b"x")),))
    assert controls.read_add_extensions(added.encode()) == added
    anchors = controls.PublishedAnchors(4, proofs.SHA256, (bytes(32), bytes(range(32))))
    assert controls.read_published(anchors.encode()) == anchors
    assert controls.read_numbers(controls.numbers((3, 1))) == (3, 1)
    hidden = controls.EncryptedPop(Pkcs10(1, CSR), der.sequence(), proofs.HMAC_SHA256, proofs.SHA256, b"w")
    assert controls.read_encrypted_pop(hidden.encode()) == hidden
    shown = controls.DecryptedPop(1, proofs.HMAC_SHA256, b"proof")
    assert controls.read_decrypted_pop(shown.encode()) == shown
    change = controls.ChangeSubjectName(WHO.issuer, der.sequence(der.tlv(0x82, b"a.example")))
    assert controls.read_change_subject_name(change.encode()) == change
    assert change.encode().endswith(bytes.fromhex("a1 0b 82 09") + b"a.example")
    with pytest.raises(RemoteProtocolError, match=r"cmc\.syntax"):
        controls.read_change_subject_name(der.sequence())


def test_witnesses() -> None:
    made = proofs.prove(b"secret", b"covered")
    assert proofs.read_witness(made.encode()) == made
    proofs.check(made, b"secret", b"covered")
    for secret, covered in ((b"other", b"covered"), (b"secret", b"other")):
        with pytest.raises(TrustError, match=r"cmc\.witness"):
            proofs.check(made, secret, covered)
    old = proofs.prove(b"secret", b"covered", proofs.SHA1, proofs.HMAC_SHA1)
    with pytest.raises(TrustError, match=r"cmc\.algorithm"):
        proofs.check(old, b"secret", b"covered")
    proofs.check(old, b"secret", b"covered", sha1=True)


@pytest.mark.parametrize("form", [Form.PKCS10, Form.CRMF])
def test_a_link_stands_in_the_request_and_is_signed(form: Form) -> None:
    link = Info(words.POP_LINK_WITNESS_V2, proofs.prove(b"secret", b"random").encode())
    made = requests.build(CSR, KEY, form, (link,))
    assert requests.link_of(made) == link
    assert requests.link_of(requests.build(CSR, KEY, form)) is None
    if isinstance(made, Pkcs10):
        asked = csr.parse(made.csr)
        assert asked.subject == csr.parse(CSR).subject
        assert list(asked.extensions) == list(csr.parse(CSR).extensions)


def test_a_change_of_names() -> None:
    current = pki.end_entity("before", CA, san=pki.dns("before.example")).certificate
    made = csr.parse(requests.under_present_names(CSR, KEY, current))
    assert made.subject == current.subject
    assert alternative_names(made) == alternative_names(current)


def test_openssl_verifies_what_identities_and_keys_sign(tmp_path: Path) -> None:
    openssl = need("openssl", "openssl")
    data = numbered().encode()
    keyed = csr.parse(CSR)
    extensions = [(e.value, e.critical) for e in keyed.extensions]
    holder = pki.certificate("holder", KEY, None, extensions=extensions)
    (tmp_path / "ca.pem").write_bytes(pki.pem(CA.certificate))
    (tmp_path / "holder.pem").write_bytes(pki.pem(holder.certificate))
    for signer, extra in (
        (Identity(DEVICE.chain, DEVICE.key), ["-CAfile", "ca.pem", "-purpose", "any"]),
        (RequestKey.of(KEY, keyed), ["-noverify", "-certfile", "holder.pem"]),
    ):
        (tmp_path / "message.der").write_bytes(signer.sign(data))
        command = [openssl, "cms", "-verify", "-binary", "-inform", "DER", "-in", "message.der", *extra]
        done = subprocess.run([*command, "-out", "content"], cwd=tmp_path, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "content").read_bytes() == data
    (tmp_path / "message.der").write_bytes(Nobody().sign(data))
    shown = subprocess.run(
        [openssl, "cms", "-cmsout", "-print", "-inform", "DER", "-in", "message.der"],
        cwd=tmp_path, capture_output=True, check=True, text=True,
    )  # fmt: skip
    assert "id-smime-cct-PKIData" in shown.stdout or words.PKI_DATA in shown.stdout


READERS = [
    messages.read_data, messages.read_response, read_status, controls.read_accepted, controls.read_get_cert,
    controls.read_get_crl, controls.read_revoke_request, controls.read_add_extensions,
    controls.read_published, controls.read_numbers, controls.read_encrypted_pop, controls.read_decrypted_pop,
    controls.read_change_subject_name, proofs.read_witness,
]  # fmt: skip


@given(st.binary(max_size=300), st.sampled_from(READERS))
def test_any_octets(data: bytes, read: Callable[[bytes], object]) -> None:
    codes = []
    for each in (data, der.sequence(data)):
        try:
            read(each)
        except HoldfastError as error:
            codes.append(error.code)
    assert all(code.startswith("cmc.") for code in codes)
