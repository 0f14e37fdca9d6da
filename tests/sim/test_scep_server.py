"""SCEP in process: every operation of the client against the simulator, and every choice of both."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

import wire_pki as pki
from holdfast.wire import csr
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import KeyUnsuitable, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.model import Issued, KeyAlgorithm, KeyDemand, Offer, Pending, Purpose, Rejected
from holdfast.wire.scep.authority import Trust, fingerprint
from holdfast.wire.scep.http import Site as ScepSite
from holdfast.wire.scep.http import message_of_query
from holdfast.wire.scep.settings import Decryption, Legacy
from holdfast.wire.scep.signer import Signer, self_signed
from holdfast_sim import scep
from holdfast_sim.ca import name, new_key
from holdfast_sim.scep_authority import CAPABILITIES
from sim.scep_actors import TLS, ScepBench, rsa_key

MODES = ["ra", "split-ra", "ca"]
GET_ONLY = ("AES", "SHA-256", "Renewal")


def check(bench: ScepBench, outcome: object) -> x509.Certificate:
    assert isinstance(outcome, Issued)
    assert outcome.chain[0] == bench.issued[-1]
    return outcome.chain[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("capabilities", [CAPABILITIES, GET_ONLY, (), None])
def test_enrollment(mode: str, capabilities: tuple[str, ...] | None) -> None:
    bench = ScepBench.make(mode=mode, capabilities=capabilities)
    check(bench, bench.enroll())
    method = "POST" if capabilities == CAPABILITIES else "GET"
    assert bench.operations == ["GET GetCACaps", "GET GetCACert", f"{method} PKIOperation"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_capabilities_in_any_dress(end: str) -> None:
    bench = ScepBench.make(capabilities=("postpkioperation", "", "x-unheard-of", "RENEWAL"), line_end=end)
    check(bench, bench.enroll())
    assert bench.operations[-1] == "POST PKIOperation"


def test_renewal_is_signed_by_the_certificate_that_it_renews() -> None:
    bench = ScepBench.make(challenges={"once": None})
    first = check(bench, bench.enroll(bench.request(challenge="once")))
    second = bench.renewal(((first,), rsa_key()), rsa_key(1))
    renewed = check(bench, bench.enroll(second))
    assert renewed.public_key() == rsa_key(1).public_key()


def test_renewal_where_it_is_not_announced_is_a_pkcsreq_of_the_same_signer() -> None:
    bench = ScepBench.make(capabilities=("AES", "POSTPKIOperation"), challenges={"once": None})
    first = check(bench, bench.enroll(bench.request(challenge="once")))
    check(bench, bench.enroll(bench.renewal(((first,), rsa_key()), rsa_key(1))))


def test_a_renewal_with_a_revoked_certificate_is_refused() -> None:
    bench = ScepBench.make()
    first = check(bench, bench.enroll())
    bench.world.revoked.add(first.serial_number)
    outcome = bench.enroll(bench.renewal(((first,), rsa_key()), rsa_key(1)))
    assert outcome == Rejected("scep.badRequest", "the signer's certificate is revoked")


def test_a_challenge_works_once() -> None:
    bench = ScepBench.make(challenges={"once": None})
    check(bench, bench.enroll(bench.request(challenge="once")))
    for wrong in ("once", "guess", None):
        outcome = bench.enroll(bench.request(rsa_key(1), challenge=wrong))
        assert isinstance(outcome, Rejected)
        assert outcome.code == "scep.badRequest"


def test_pending_then_polled() -> None:
    bench = ScepBench.make(polls=2)
    request = bench.request()
    first = bench.enroll(request)
    assert isinstance(first, Pending)
    assert first.retry_after == timedelta(minutes=5)
    again = bench.run(bench.protocol().resume(request, first.resume, None, bench.now))
    assert again == first
    check(bench, bench.run(bench.protocol().resume(request, again.resume, None, bench.now)))


def test_a_forgotten_transaction_is_asked_for_anew() -> None:
    bench = ScepBench.make("pkioperation:forget:1", polls=1)
    request = bench.request()
    waiting = bench.enroll(request)
    bench.sent.clear()
    outcome = bench.run(bench.protocol().resume(request, waiting.resume, None, bench.now))
    assert isinstance(outcome, Pending)
    assert bench.operations[-2:] == ["POST PKIOperation", "POST PKIOperation"]
    check(bench, bench.run(bench.protocol().resume(request, outcome.resume, None, bench.now)))


def test_a_lost_answer_is_asked_for_by_the_same_request() -> None:
    bench = ScepBench.make(challenges={"once": None})
    request = bench.request(challenge="once")
    lost = check(bench, bench.enroll(request))
    assert check(bench, bench.enroll(request)) == lost
    assert len(bench.issued) == 1


def test_one_request_a_key_at_a_time() -> None:
    bench = ScepBench.make(polls=5)
    assert isinstance(bench.enroll(), Pending)
    outcome = bench.enroll()
    assert outcome == Rejected("scep.badRequest", "another request for this key is under way")


def test_a_token_of_another_request_is_our_bug() -> None:
    bench = ScepBench.make(polls=1)
    waiting = bench.enroll()
    with pytest.raises(LocalProtocolError, match=r"scep\.resume"):
        bench.run(bench.protocol().resume(bench.request(rsa_key(1)), waiting.resume, None, bench.now))


def test_get_cert_and_get_crl() -> None:
    bench = ScepBench.make()
    request = bench.request()
    issued = check(bench, bench.enroll(request))
    bench.world.revoked.add(12345)
    signer = Signer((issued,), rsa_key())
    client = bench.protocol()
    number = issued.serial_number
    assert bench.run(client.certificate(signer, request, number, None, bench.now)) == issued
    crl = bench.run(client.revocation_list(signer, request, number, None, bench.now))
    assert crl.get_revoked_certificate_by_serial_number(12345) is not None
    assert crl.get_revoked_certificate_by_serial_number(number) is None
    nobody = bench.run(client.certificate(signer, request, 7, None, bench.now))
    assert nobody == Rejected("scep.badCertId", "no such certificate")


# --- who the server is ---


@pytest.mark.parametrize("mode", MODES)
def test_a_fingerprint_vouches_where_no_anchor_does(mode: str) -> None:
    bench = ScepBench.make(mode=mode)
    ca = scep.authority(bench.world).issuing.certificate
    pinned = Trust(fingerprints=frozenset({fingerprint(ca)}))
    request = bench.request(anchors=(ca,))
    check(bench, bench.enroll(request, trust=pinned))
    with pytest.raises(TrustError, match=r"scep\.fingerprint"):
        bench.enroll(trust=Trust(fingerprints=frozenset({bytes(32)})))
    with pytest.raises(TrustError, match=r"scep\.ca-untrusted"):
        bench.enroll(trust=Trust(anchors=bench.world.impostor.anchors))


def test_an_ra_that_does_not_say_so_needs_tls_or_a_fingerprint() -> None:
    bench = ScepBench.make(mode="unmarked-ra")
    with pytest.raises(TrustError, match=r"scep\.ra-unmarked") as caught:
        bench.enroll()
    ra = scep.authority(bench.world).chain[0]
    assert fingerprint(ra).hex() in caught.value.detail
    pinned = Trust(frozenset({fingerprint(ra)}), bench.world.domain.anchors)
    check(bench, bench.enroll(trust=pinned))
    check(bench, bench.run(bench.protocol().enroll(bench.request(), TLS, bench.now)))


def test_a_split_ra_is_used_by_its_usages() -> None:
    bench = ScepBench.make(mode="split-ra")
    check(bench, bench.enroll())
    authority = scep.authority(bench.world)
    assert authority.signer.certificate != authority.recipient.certificate


# --- what is possible, before a key is made ---


def test_an_ec_key_is_refused_before_it_is_made() -> None:
    bench = ScepBench.make()
    with pytest.raises(KeyUnsuitable, match=r"scep\.key-cannot-decrypt") as caught:
        bench.protocol().key_demand(KeyAlgorithm.P256)
    for way in ("rsa2048", "transport-key", "password"):
        assert way in caught.value.detail
    assert bench.protocol().key_demand(KeyAlgorithm.RSA2048) == KeyDemand(decrypt=True)
    assert bench.protocol(decryption=Decryption.TRANSPORT_KEY).key_demand(KeyAlgorithm.P256) == KeyDemand(
        transport=KeyAlgorithm.RSA2048
    )
    assert bench.protocol(decryption=Decryption.PASSWORD).key_demand(KeyAlgorithm.P256) == KeyDemand()


def test_discovery_says_what_cannot_be_done() -> None:
    def refused(bench: ScepBench, **options: object) -> RemoteProtocolError:
        with pytest.raises(RemoteProtocolError) as caught:
            bench.run(bench.protocol(**options).discover(None, bench.now))
        assert caught.value.unsupported
        return caught.value

    old = refused(ScepBench.make(capabilities=("DES3", "SHA-1", "POSTPKIOperation")))
    assert (old.code, "legacy: [3des]" in old.detail) == ("scep.weak-server", True)
    older = ScepBench.make(capabilities=("DES3", "SHA-1", "POSTPKIOperation"))
    digest = refused(older, legacy=frozenset({Legacy.DES3}))
    assert (digest.code, "legacy: [sha1]" in digest.detail) == ("scep.weak-server", True)
    url = refused(ScepBench.make(capabilities=GET_ONLY), challenged=True)
    assert (url.code, "legacy: [get]" in url.detail) == ("scep.get-challenge", True)
    assert refused(ScepBench.make(mode="ec-ca")).code == "scep.no-recipient"
    by_password = {"decryption": Decryption.PASSWORD, "challenged": True, "legacy": frozenset(Legacy)}
    get_only = ScepBench.make(mode="ec-ca", capabilities=GET_ONLY)
    assert refused(get_only, **by_password).code == "scep.get-challenge"
    assert not older.world.issued


def test_an_old_server_is_served_by_consent() -> None:
    bench = ScepBench.make(capabilities=("DES3", "SHA-1", "POSTPKIOperation"), des3=True)
    check(bench, bench.enroll(legacy=frozenset({Legacy.DES3, Legacy.SHA1})))


def test_a_triple_des_reply_needs_consent() -> None:
    bench = ScepBench.make(des3=True)
    with pytest.raises(RemoteProtocolError, match=r"legacy: \[3des\]") as caught:
        bench.enroll()
    assert caught.value.code == "scep.cipher"


def test_a_challenge_goes_into_a_url_by_consent_only() -> None:
    bench = ScepBench.make(capabilities=GET_ONLY, challenges={"once": None})
    with pytest.raises(RemoteProtocolError, match=r"scep\.get-challenge"):
        bench.enroll(bench.request(challenge="once"))
    assert "PKIOperation" not in str(bench.operations)
    check(bench, bench.enroll(bench.request(challenge="once"), legacy=frozenset({Legacy.GET})))
    assert not any("once" in request.target for request in bench.sent)


# --- EC keys ---


def test_a_transport_key_reads_the_answer_for_an_ec_key() -> None:
    bench = ScepBench.make(challenges={"a": None, "b": None})
    key = new_key(KeyAlgorithm.P256)
    request = bench.request(key, challenge="a", transport=rsa_key())
    first = check(bench, bench.enroll(request, decryption=Decryption.TRANSPORT_KEY))
    assert first.public_key() == key.public_key()
    another = new_key(KeyAlgorithm.P256)
    second = bench.renewal(((first,), key), another, challenge="b", transport=rsa_key(1))
    renewed = check(bench, bench.enroll(second, decryption=Decryption.TRANSPORT_KEY))
    assert renewed.public_key() == another.public_key()


@pytest.mark.parametrize("mode", ["ra", "ec-ca"])
def test_a_password_reads_the_answer_for_an_ec_key(mode: str) -> None:
    bench = ScepBench.make(mode=mode, challenges={"once": None}, polls=1)
    key = new_key(KeyAlgorithm.P256)
    request = bench.request(key, challenge="once")
    client = bench.protocol(decryption=Decryption.PASSWORD, challenged=True)
    waiting = bench.run(client.enroll(request, None, bench.now))
    assert isinstance(waiting, Pending)
    issued = check(bench, bench.run(client.resume(request, waiting.resume, None, bench.now)))
    assert isinstance(issued.public_key(), ec.EllipticCurvePublicKey)


def test_an_ec_key_without_help_is_our_bug_once_it_exists() -> None:
    bench = ScepBench.make()
    with pytest.raises(LocalProtocolError, match=r"scep\.key-cannot-decrypt"):
        bench.enroll(bench.request(new_key(KeyAlgorithm.P256)))
    assert not bench.sent


def test_the_signer_of_a_first_request_is_the_same_after_a_power_cut() -> None:
    subject, transaction = name("gateway-7"), b"t" * 16
    made = self_signed(rsa_key(), subject, transaction).certificate
    assert made == self_signed(rsa_key(), subject, transaction).certificate
    assert made != self_signed(rsa_key(), subject, b"u" * 16).certificate
    assert isinstance(made.public_key(), rsa.RSAPublicKey)


# --- rollover ---


@pytest.mark.parametrize("mode", ["ra", "ca"])
def test_the_next_ca_is_learned_from_the_present_one(mode: str) -> None:
    bench = ScepBench.make(mode=mode)
    first = check(bench, bench.enroll())
    coming = scep.announce_next(bench.world)
    offer = bench.run(bench.protocol().discover(None, bench.now))
    assert isinstance(offer, Offer)
    assert offer.authentic
    assert coming.root.certificate in offer.ca_certificates
    scep.activate_next(bench.world)
    old = bench.protocol(trust=Trust(anchors=(bench.world.domain.former[0][0].certificate,)))
    if mode == "ca":  # a CA without an RA shows its own certificate alone; with one, the link to it, too
        with pytest.raises(TrustError, match=r"scep\.ca-untrusted"):
            bench.run(old.enroll(bench.request(), None, bench.now))
    else:
        check(bench, bench.run(old.enroll(bench.request(), None, bench.now)))
    stranger = bench.protocol(trust=Trust(anchors=(ScepBench.make().world.domain.root.certificate,)))
    with pytest.raises(TrustError, match=r"scep\.ca-untrusted"):
        bench.run(stranger.enroll(bench.request(), None, bench.now))
    renewal = bench.renewal(((first,), rsa_key()), rsa_key(1))
    renewed = check(bench, bench.enroll(replace(renewal, anchors=bench.world.domain.anchors)))
    assert renewed.issuer != first.issuer


def test_no_next_ca_is_no_error() -> None:
    bench = ScepBench.make()
    offer = bench.run(bench.protocol(key=KeyAlgorithm.RSA2048).discover(None, bench.now))
    assert offer.template.key is KeyAlgorithm.RSA2048
    assert bench.operations[-1] == "GET GetNextCACert"
    assert set(offer.ca_certificates) == set(bench.world.domain.issuing.chain)


# --- what must not be sent ---


def test_requests_that_are_our_bug() -> None:
    bench = ScepBench.make()
    good = bench.request()
    for bad, code in (
        (replace(good, csr=b"nothing"), "scep.csr"),
        (replace(good, key=rsa_key(1)), "scep.csr"),
        (replace(good, purpose=Purpose.REKEY), "scep.no-current"),
    ):
        with pytest.raises(LocalProtocolError) as caught:
            bench.enroll(bad)
        assert caught.value.code == code
    assert not bench.sent


def test_the_request_carries_the_names_that_were_asked_for() -> None:
    bench = ScepBench.make()
    request = bench.request()
    issued = check(bench, bench.enroll(request))
    asked = csr.parse(request.csr)
    assert (issued.subject, spki(issued)) == (asked.subject, spki(asked))


@pytest.mark.parametrize("space", ["+", " ", "%2B", "%20"])
def test_a_message_in_a_url_is_read_however_it_was_escaped(space: str) -> None:
    """A plus that was not escaped, or became a space on its way, and the alphabet for URLs."""
    message = bytes(range(248, 256)) * 6 + b"\xfb\xef\xbe"
    plain = base64.b64encode(message).decode()
    assert "+" in plain
    assert "/" in plain
    spelt = unquote(plain.replace("+", space))
    assert message_of_query(spelt) == message
    assert message_of_query(plain.rstrip("=")) == message
    assert message_of_query(base64.urlsafe_b64encode(message).decode()) == message
    target = ScepSite("/scep").get(message).target.partition("message=")[2]
    assert set(target) & set("+/=") == set()
    assert message_of_query(unquote(target)) == message


@pytest.mark.parametrize("mode", MODES)
def test_openssl_reads_both_messages(mode: str, tmp_path: Path) -> None:
    """A third party opens the request with the RA's key, and the reply with the device's."""
    bench = ScepBench.make(mode=mode)
    issued = check(bench, bench.enroll())
    recipient = scep.authority(bench.world).recipient
    (tmp_path / "ra.pem").write_bytes(pki.pem(recipient.certificate) + pki.key_pem(recipient.key))
    request = bench.sent[-1].body
    sealed = pki.openssl("cms", "-verify", "-noverify", "-inform", "DER", "-binary", data=request).stdout
    decrypt = ("cms", "-decrypt", "-inform", "DER", "-binary", "-inkey")
    der = pki.openssl(*decrypt, str(tmp_path / "ra.pem"), data=sealed).stdout
    shown = pki.openssl("req", "-inform", "DER", "-verify", "-noout", "-subject", data=der)
    assert b"CN = gateway-7" in shown.stdout + shown.stderr
    (tmp_path / "device.pem").write_bytes(pki.key_pem(rsa_key()))
    reply = bench.world.scep_desk.last
    sealed = pki.openssl("cms", "-verify", "-noverify", "-inform", "DER", "-binary", data=reply).stdout
    bag = pki.openssl(*decrypt, str(tmp_path / "device.pem"), data=sealed).stdout
    certificates = pki.openssl("pkcs7", "-inform", "DER", "-print_certs", data=bag).stdout
    assert pki.pem(issued).strip() in certificates
