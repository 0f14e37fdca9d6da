"""CMC from the device's side, against an honest server: every way to ask, wait, confirm, prove and revoke."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from holdfast.wire import cms, cms_reading, csr, der
from holdfast.wire.cmc import batch, requests, services
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.controls import AddExtensions, CertificateId, RevokeRequest
from holdfast.wire.cmc.messages import Control, Crmf, PkiData, read_data, read_response
from holdfast.wire.cmc.outcome import worst
from holdfast.wire.cmc.proofs import SharedSecret
from holdfast.wire.cmc.settings import Form, Legacy, Possession
from holdfast.wire.cmc.signer import Identity, Nobody
from holdfast.wire.cmc.status import read_status
from holdfast.wire.cmc.vocabulary import Status
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.issued import NamePolicy, alternative_names
from holdfast.wire.model import Issued, KeyAlgorithm, Pending, Purpose, Rejected
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.ca import name, new_key
from holdfast_sim.cmc_desk import CmcPolicy
from sim.cmc_actors import NAME, SAN, SECRET, Cmc
from sim.scep_actors import rsa_key


def data_of(device: Cmc, index: int = -1) -> PkiData:
    """What was sent, read without a check."""
    fields = cms_reading.signed_data(device.sent[index].body, limit=1 << 20)
    assert fields.content is not None
    return read_data(fields.content)


@pytest.mark.parametrize("over", ["plain", "est"])
@pytest.mark.parametrize("form", [Form.PKCS10, Form.CRMF])
@pytest.mark.parametrize("secret", [False, True])
@pytest.mark.parametrize("authority", ["ra", "ca"])
def test_enrollment(over: str, form: Form, secret: bool, authority: Any) -> None:
    device = Cmc.make(policy=CmcPolicy(authority=authority), secret=secret, over=over, form=form)
    issued = device.issued()
    assert issued.chain[0].public_key() == device.bench.key.public_key()
    assert alternative_names(issued.chain[0]) == frozenset(SAN)
    assert issued.chain[-1].issuer in {c.subject for c in device.world.domain.anchors}
    assert len(device.sent) == 1


def test_media_types_and_encodings() -> None:
    over_http, over_est = Cmc.make(), Cmc.make(over="est")
    for device in (over_http, over_est):
        device.issued()
        assert device.sent[0].method == "POST"
        assert (
            dict(device.sent[0].headers)["Content-Type"] == "application/pkcs7-mime; smime-type=CMC-request"
        )
        answer = device.received[0].header("Content-Type")
        assert answer == "application/pkcs7-mime; smime-type=CMC-response"
    assert over_http.sent[0].body[0] == 0x30
    assert over_est.sent[0].body.isascii()
    assert over_est.sent[0].target == "/.well-known/est/fullcmc"


def test_a_first_request_names_no_nonce_of_the_server_and_no_proof() -> None:
    device = Cmc.make()
    device.issued()
    found = {c.oid for c in data_of(device).controls}
    assert found == {words.TRANSACTION_ID, words.SENDER_NONCE, words.DATA_RETURN}


def test_a_secret_proves_identity_and_is_linked_to_the_key() -> None:
    device = Cmc.make(secret=True)
    device.issued()
    found = {c.oid for c in data_of(device).controls}
    assert {words.IDENTIFICATION, words.IDENTITY_PROOF_V2, words.POP_LINK_RANDOM} <= found
    assert not {words.IDENTITY_PROOF, words.POP_LINK_WITNESS} & found
    (signer,) = cms_reading.signed_data(device.sent[0].body, limit=1 << 20).signers
    named = x509.SubjectKeyIdentifier.from_public_key(device.bench.key.public_key())
    assert signer.key_identifier == named.digest
    assert SECRET not in device.sent[0].body


@pytest.mark.parametrize("wrong", [SharedSecret(b"another secret", NAME), SharedSecret(SECRET, "somebody")])
def test_a_wrong_secret(wrong: SharedSecret) -> None:
    device = Cmc.make()
    device.protocol = replace(device.protocol, secret=wrong)
    outcome = device.enroll()
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.estranged) == ("cmc.badIdentity", True)


def test_the_secret_does_not_show() -> None:
    assert "bean" not in repr(Cmc.make(secret=True).protocol)


def test_the_controls_of_old_only_behind_the_switch() -> None:
    outcome = Cmc.make(secret=True, legacy=frozenset({Legacy.V1})).enroll()
    assert isinstance(outcome, Rejected), "this server knows no SHA-1"
    old = Cmc.make("cmc:old-status", policy=CmcPolicy(sha1=True), secret=True, legacy=frozenset({Legacy.V1}))
    old.issued()
    found = {c.oid for c in data_of(old).controls}
    assert words.IDENTITY_PROOF in found
    assert words.IDENTITY_PROOF_V2 not in found


# --- waiting and confirming ----------------------------------------------------------------------


@pytest.mark.parametrize("secret", [False, True])
def test_pending(secret: bool) -> None:
    device = Cmc.make(policy=CmcPolicy(polls=2, check_after=3600), secret=secret)
    device.issued()
    assert device.waits == [timedelta(hours=1)] * 2
    queries = [data_of(device, index) for index in (1, 2)]
    for query in queries:
        assert not query.requests
        assert query.control(words.QUERY_PENDING) is not None
        assert query.control(words.RECIPIENT_NONCE) is not None
    transactions = {data_of(device, i).control(words.TRANSACTION_ID).value for i in range(3)}  # type: ignore[union-attr]
    assert len(transactions) == 1


def test_waits_are_bounded_and_a_wrong_clock_is_not_asked() -> None:
    device = Cmc.make(policy=CmcPolicy(polls=1, check_after=10**8))
    outcome = device.run(device.protocol.enroll(device.request(), None, device.bench.time.moment()))
    assert outcome.retry_after == timedelta(days=4)


def test_a_server_that_forgot_is_asked_anew() -> None:
    device = Cmc.make("cmc-query:forget:1", policy=CmcPolicy(polls=1))
    device.issued()
    assert [bool(data_of(device, i).requests) for i in range(4)] == [True, False, True, False]


def test_a_request_that_is_repeated_gets_the_same_certificate() -> None:
    device = Cmc.make()
    req = device.request()
    assert device.issued(req).chain == device.issued(req).chain
    assert len(device.world.issued) == 1


def test_a_token_of_another_request() -> None:
    device = Cmc.make(policy=CmcPolicy(polls=1))
    pending = device.enroll(patience=0)
    assert isinstance(pending, Pending)
    for token in (pending.resume, b"{}", b"x"):
        request = device.request()
        with pytest.raises(LocalProtocolError, match=r"cmc\.resume"):
            device.run(device.protocol.resume(request, token, None, device.bench.time.moment()))


def test_a_certificate_is_durable_before_it_is_confirmed() -> None:
    device = Cmc.make(policy=CmcPolicy(confirm=True))
    req = device.request()
    first = device.enroll(req, patience=0)
    assert isinstance(first, Pending)
    assert first.retry_after == timedelta(0)
    assert device.resume(req, first) == device.resume(req, first), "the confirmation may be lost and repeated"
    assert data_of(device).control(words.CONFIRM_CERT_ACCEPTANCE) is not None
    assert len(device.world.issued) == 1


def test_an_unacceptable_certificate_is_declined_and_so_revoked() -> None:
    device = Cmc.make("cmc-enroll:wrong-usage", policy=CmcPolicy(confirm=True))
    with pytest.raises(Exception, match=r"chain\.usage"):
        device.enroll()
    assert device.world.cmc_desk.failures == ["badRequest"]
    assert device.world.revoked == {device.world.issued[0].certificate.serial_number}


def test_a_simple_answer_to_a_full_request() -> None:
    device = Cmc.make(policy=CmcPolicy(simple=True))
    device.issued()
    assert device.received[0].header("Content-Type") == "application/pkcs7-mime; smime-type=certs-only"


def test_a_simple_request() -> None:
    device = Cmc.make(form=Form.SIMPLE, over="tls")
    peer = device.bench.peer()
    exchange = device.protocol.enroll(device.request(), None, device.bench.time.moment())
    assert isinstance(device.run(exchange, peer), Issued)
    assert dict(device.sent[0].headers)["Content-Type"] == "application/pkcs10"
    stranger = device.protocol.enroll(device.request(), None, device.bench.time.moment())
    assert device.run(stranger).code == "cmc.badIdentity"


def test_a_simple_request_proves_no_identity() -> None:
    for options in ({"secret": True}, {"over": "est"}, {"possession": Possession.DECRYPTION}):
        with pytest.raises(LocalProtocolError, match=r"cmc\.form"):
            Cmc.make(form=Form.SIMPLE, **options)  # type: ignore[arg-type]


# --- renewal and possession -----------------------------------------------------------------------


@pytest.mark.parametrize("form", [Form.PKCS10, Form.CRMF])
def test_renewal_is_signed_by_the_present_certificate(form: Form) -> None:
    device = Cmc.make(secret=True, form=form)
    issued = device.issued()
    renewed = device.issued(device.renewal(issued))
    assert renewed.chain[0].subject == issued.chain[0].subject
    found = cms.open_signed(device.sent[-1].body)
    assert found.signer == issued.chain[0]
    controls = {c.oid for c in read_data(found.content).controls}
    assert not controls & {words.IDENTITY_PROOF_V2, words.IDENTIFICATION, words.POP_LINK_RANDOM}


def test_renewal_with_the_same_key() -> None:
    device = Cmc.make()
    issued = device.issued()
    device.issued(device.renewal(issued, device.bench.key))


def test_a_renewal_under_other_names_asks_for_a_change() -> None:
    device = Cmc.make(renewal_names=NamePolicy.EXACT)
    issued = device.issued()
    key, subject = new_key(KeyAlgorithm.P256), name("gateway renamed")
    san = (x509.DNSName("renamed.example"),)
    asked = csr.build(key, subject, template=device.protocol.read_wishes(b""), san=san)
    renewed = device.issued(replace(device.renewal(issued, key), csr=asked, purpose=Purpose.REKEY))
    assert renewed.chain[0].subject == subject
    assert alternative_names(renewed.chain[0]) == frozenset(san)


@pytest.mark.parametrize("policy", [CmcPolicy(), CmcPolicy(challenge=True)])
def test_possession_by_decryption(policy: CmcPolicy) -> None:
    device = Cmc.make(policy=policy, possession=Possession.DECRYPTION)
    device.issued(device.request(rsa_key()))
    first, second = data_of(device, 0), data_of(device, 1)
    assert isinstance(first.requests[0], Crmf)
    assert first.requests == second.requests
    assert second.control(words.DECRYPTED_POP) is not None
    assert len(device.sent) == 2


def test_a_challenge_is_answered_also_if_the_request_was_signed() -> None:
    device = Cmc.make(policy=CmcPolicy(challenge=True))
    device.issued(device.request(rsa_key()))


def test_a_key_that_cannot_decrypt_says_so() -> None:
    device = Cmc.make(possession=Possession.DECRYPTION)
    with pytest.raises(Exception, match=r"cmc\.key-cannot-decrypt"):
        device.protocol.key_demand(KeyAlgorithm.P256)
    assert device.protocol.key_demand(KeyAlgorithm.RSA2048).decrypt
    outcome = device.enroll()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "cmc.popRequired"


# --- services ----------------------------------------------------------------------------------


@pytest.mark.parametrize("over", ["plain", "est"])
def test_revocation_by_the_certificate_itself(over: str) -> None:
    device = Cmc.make(over=over)
    issued = device.issued()
    wanted = RevokeRequest(CertificateId.of(issued.chain[0]), Reason.KEY_COMPROMISE, comment="lost")
    identity = Identity(issued.chain, device.bench.key)
    now = device.bench.time.moment()
    outcome = device.run(services.revoke(device.conversation(identity), wanted, now))
    assert isinstance(outcome, services.Revoked)
    assert device.world.revoked == {issued.chain[0].serial_number}


def test_revocation_of_somebody_else() -> None:
    device = Cmc.make()
    issued = device.issued()
    wanted = RevokeRequest(CertificateId.of(issued.chain[0]), Reason.KEY_COMPROMISE)
    refused = device.run(services.revoke(device.conversation(), wanted, device.bench.time.moment()))
    assert refused.code == "cmc.badIdentity"
    assert not device.world.revoked


def test_revocation_by_a_secret_alone() -> None:
    device = Cmc.make()
    issued = device.issued()
    now = device.bench.time.moment()
    for secret, kind in ((b"guessed", Rejected), (SECRET, services.Revoked)):
        wanted = RevokeRequest(CertificateId.of(issued.chain[0]), Reason.SUPERSEDED, secret=secret)
        assert isinstance(device.run(services.revoke(device.conversation(Nobody()), wanted, now)), kind)


@pytest.mark.parametrize("simple", [False, True])
def test_certificates_and_lists_on_request(simple: bool) -> None:
    device = Cmc.make(policy=CmcPolicy(simple=simple))
    issued, now = device.issued(), device.bench.time.moment()
    issuer, serial = device.world.domain.issuing.certificate, issued.chain[0].serial_number
    assert device.run(services.certificate(device.conversation(), issuer, serial, now)) == issued.chain[0]
    assert device.run(services.certificate(device.conversation(), issuer, 7, now)).code == "cmc.badCertId"
    device.world.revoked.add(serial)
    crl = device.run(services.revocation_list(device.conversation(), issuer, now))
    assert crl.get_revoked_certificate_by_serial_number(serial) is not None


def registrar(device: Cmc) -> Identity:
    credential = device.world.domain.registrar
    return Identity(credential.chain, credential.key)


def test_a_batch() -> None:
    """A registration authority sends two on, one of which fails."""
    device = Cmc.make()
    device.issued()
    good, bad = device.sent[0].body, Identity(*device.bench.idevid).sign(PkiData((), ()).encode())
    control, contents = batch.bundle([good, bad])
    now = device.bench.time.moment()
    conversation = device.conversation(registrar(device))
    reply = device.run(conversation.ask([control], now, contents=contents))
    found = batch.answers(reply.response, contents)
    said = [read_response(cms.open_signed(found[n]).content) for n in (1, 2)]
    statuses = [worst([read_status(c.value) for c in each.all(words.STATUS_INFO_V2)]) for each in said]
    assert [s.status for s in statuses if s] == [Status.SUCCESS, Status.SUCCESS]
    assert len(cms.open_signed(found[1]).certificates) > len(cms.open_signed(found[2]).certificates)


def test_a_batch_that_names_what_is_not_there() -> None:
    device = Cmc.make()
    control, _ = batch.bundle([b"0"])
    reply = device.run(device.conversation(registrar(device)).ask([control], device.bench.time.moment()))
    assert worst(reply.statuses).status is Status.FAILED
    with pytest.raises(RemoteProtocolError, match=r"cmc\.body-part"):
        batch.bundled(PkiData((Control(9, control[0], (control[1],)),)))


def test_an_ra_adds_extensions() -> None:
    device = Cmc.make()
    req = device.request()

    request = requests.build(req.csr, req.key, Form.PKCS10)
    value = der.sequence(der.sequence(der.oid("1.3.6.1.4.1.5.1")))
    policy = der.sequence(der.oid("2.5.29.32"), der.octets(value))
    control = (words.ADD_EXTENSIONS, AddExtensions(0, (request.number,), (policy,)).encode())
    now = device.bench.time.moment()
    reply = device.run(device.conversation(registrar(device)).ask([control], now, requests=(request,)))
    assert worst(reply.statuses).status is Status.SUCCESS
    (made,) = [c for c in reply.certificates if c.public_key() == device.bench.key.public_key()]
    assert made.extensions.get_extension_for_class(x509.CertificatePolicies)
    by_itself = replace(device.conversation(), transaction=4712)
    refused = device.run(by_itself.ask([control], now, requests=(request,)))
    assert worst(refused.statuses).status is Status.FAILED, "a device is no registration authority"


def test_published_anchors_come_with_the_certificate() -> None:
    device = Cmc.make(policy=CmcPolicy(authority="ca", publish=True))
    assert device.issued().anchors == device.world.domain.anchors


def test_a_failure_may_come_with_an_http_error() -> None:
    device = Cmc.make("cmc-enroll:refuse", policy=CmcPolicy(http_errors=True), over="est")
    device.world.cmc = replace(device.world.cmc, http_errors=True)
    outcome = device.enroll()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "cmc.badRequest"


def test_the_codec_knows_no_unknown_control() -> None:
    device = Cmc.make()
    now = device.bench.time.moment()
    reply = device.run(device.conversation().ask([("1.3.6.1.5.5.7.7.99", der.null())], now))
    assert worst(reply.statuses).describe().startswith("badRequest: the control")
