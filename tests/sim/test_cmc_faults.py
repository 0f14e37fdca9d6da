"""Every check of the CMC client, each against a server that breaks just that."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import wire_pki as pki
from holdfast.wire import cms
from holdfast.wire.algorithms import spki
from holdfast.wire.cmc import services
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.anchors import published
from holdfast.wire.cmc.answer import Judge, read
from holdfast.wire.cmc.controls import CertificateId, RevokeRequest
from holdfast.wire.cmc.messages import Control, PkiResponse
from holdfast.wire.cmc.settings import Legacy, Possession
from holdfast.wire.cmc.signer import Identity
from holdfast.wire.cmc.site import PKCS7
from holdfast.wire.cmc.status import StatusInfo
from holdfast.wire.cmc.vocabulary import Status
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import HttpResponse, Issued, Pending, Rejected
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.cmc_desk import CmcPolicy
from sim.cmc_actors import Cmc
from sim.scep_actors import rsa_key
from tools import need

REMOTE, TRUST = RemoteProtocolError, TrustError

ANSWERS: list[tuple[str, type[HoldfastError], str]] = [
    # whose answer it is
    ("device-signer", TRUST, "chain.usage"),
    ("foreign-signer", TRUST, "chain.untrusted"),
    ("tampered", TRUST, "cms.digest"),
    ("unsigned", REMOTE, "cmc.unsigned"),
    ("wrong-content", REMOTE, "cmc.content-type"),
    # which request it answers
    ("wrong-nonce", TRUST, "cmc.nonce"),
    ("no-nonce", TRUST, "cmc.nonce"),
    ("two-nonces", REMOTE, "cmc.control"),
    ("wrong-transaction", TRUST, "cmc.transaction"),
    ("no-transaction", TRUST, "cmc.transaction"),
    ("wrong-data", TRUST, "cmc.data-return"),
    ("no-data", TRUST, "cmc.data-return"),
    # what it says
    ("doubled-part", REMOTE, "cmc.body-part"),
    ("other-part", REMOTE, "cmc.body-part"),
    ("contradiction", REMOTE, "cmc.status"),
    ("old-status", REMOTE, "cmc.status"),
    ("try-later", REMOTE, "cmc.tryLater"),
    ("keeps-waiting", REMOTE, "cmc.pend-info"),
    # the certificate
    ("no-certificate", TRUST, "cmc.key-mismatch"),  # the CA's own is no answer
    ("key-mismatch", TRUST, "cmc.key-mismatch"),
    ("two-leaves", REMOTE, "cmc.several-certificates"),
    ("issued-ca", TRUST, "chain.is-ca"),
    ("foreign-ca", TRUST, "chain.untrusted"),
    ("issued-expired", TRUST, "chain.expired"),
    ("issued-future", TRUST, "chain.not-yet-valid"),
    ("wrong-usage", TRUST, "chain.usage"),
]
"""Fault at the enrollment, and what the client must say."""

TRANSPORT: list[tuple[str, type[HoldfastError], str]] = [
    ("wrong-type", REMOTE, "cmc.media-type"),
    ("empty", REMOTE, "cmc.empty"),
    ("garbage", REMOTE, "cms.syntax"),
    ("cut-der", REMOTE, "cms.syntax"),
    ("status:code=404", REMOTE, "cmc.unsupported"),
    ("status:code=500", REMOTE, "cmc.unavailable"),
    ("status:code=403", REMOTE, "cmc.refused"),
    ("redirect:to=/elsewhere", REMOTE, "cmc.refused"),
    ("pending", REMOTE, "cmc.unavailable"),
    ("http-error", REMOTE, "cmc.http-status"),
]


def caught(device: Cmc, kind: type[HoldfastError], run: Callable[[], Any]) -> str:
    with pytest.raises(kind) as error:
        run()
    assert type(error.value) is kind
    assert not device.world.revoked
    return error.value.code


@pytest.mark.parametrize(("fault", "kind", "code"), ANSWERS)
def test_an_answer_that_lies(fault: str, kind: type[HoldfastError], code: str) -> None:
    device = Cmc.make(f"cmc-enroll:{fault}")
    assert caught(device, kind, device.enroll) == code
    assert isinstance(Cmc.make().enroll(), Issued), "the same exchange without the fault"


@pytest.mark.parametrize("over", ["plain", "est"])
@pytest.mark.parametrize(("fault", "kind", "code"), TRANSPORT)
def test_an_answer_that_http_spoils(fault: str, kind: type[HoldfastError], code: str, over: str) -> None:
    device = Cmc.make(f"cmc:{fault}", over=over)
    found = caught(device, kind, device.enroll)
    assert found == code or (over == "est" and fault in ("garbage", "cut-der") and found == "cmc.base64")


def test_base64_that_is_none() -> None:
    device = Cmc.make("cmc:garbage:size=33", over="est")
    assert caught(device, REMOTE, device.enroll) in ("cmc.base64", "cms.syntax")


REFUSALS = [
    ("refuse", Rejected("cmc.badRequest", "badRequest: a simulated fault")),
    ("bad-identity", Rejected("cmc.badIdentity", "badIdentity: a simulated fault", estranged=True)),
    ("no-support", Rejected("cmc.noSupport", "noSupport: a simulated fault", unsupported=True)),
    ("extended", Rejected("cmc.extended", "extended (1.3.6.1.4.1.5): a simulated fault")),
]


@pytest.mark.parametrize("http_errors", [False, True])
@pytest.mark.parametrize(("fault", "outcome"), REFUSALS)
def test_a_refusal_brings_the_servers_reason(fault: str, outcome: Rejected, http_errors: bool) -> None:
    device = Cmc.make(f"cmc-enroll:{fault}", policy=CmcPolicy(http_errors=http_errors))
    assert device.enroll() == outcome


def test_a_refusal_that_nobody_signed_is_no_refusal() -> None:
    """Anybody on the way can make one; it only costs time."""
    device = Cmc.make("cmc-enroll:refuse", "cmc-enroll:unsigned")
    with pytest.raises(RemoteProtocolError) as error:
        device.enroll()
    assert error.value.busy
    assert "badRequest" in error.value.detail
    over_http = Cmc.make("cmc-enroll:refuse", "cmc-enroll:foreign-signer", policy=CmcPolicy(http_errors=True))
    assert caught(over_http, REMOTE, over_http.enroll) == "cmc.refused"


def test_a_refusal_of_nothing_in_particular_is_no_refusal() -> None:
    """A server that cannot read a request has nothing to repeat. Its words are shown, and we ask again."""
    device = Cmc.make("cmc-enroll:refuse", "cmc-enroll:no-transaction", "cmc-enroll:no-nonce")
    with pytest.raises(RemoteProtocolError, match=r"cmc\.unmatched.*a simulated fault") as error:
        device.enroll()
    assert error.value.busy
    half = Cmc.make("cmc-enroll:refuse", "cmc-enroll:no-transaction")
    assert caught(half, TRUST, half.enroll) == "cmc.transaction"


def test_an_answer_from_before_is_refused() -> None:
    device = Cmc.make("cmc:replayed:0:after=1")
    req = device.request()
    device.issued(req)
    assert caught(device, TRUST, lambda: device.enroll(req)) == "cmc.nonce"
    assert caught(device, TRUST, lambda: device.enroll(device.request())) == "cmc.transaction"


def test_a_pinned_authority_needs_no_mark() -> None:
    device = Cmc.make("cmc:device-signer")
    caught(device, TRUST, device.enroll)
    desk = device.world.cmc_desk
    assert desk.device is not None
    pin = hashlib.sha256(spki(desk.device.certificate)).digest()
    device.protocol = replace(device.protocol, pins=frozenset({pin}))
    device.issued()
    desk.device = None
    assert caught(device, TRUST, device.enroll) == "chain.usage", "another key"


def test_success_without_any_certificate() -> None:
    device = Cmc.make("cmc-enroll:no-certificate", policy=CmcPolicy(authority="ca"))
    assert caught(device, REMOTE, device.enroll) == "cmc.no-certificate"


def test_a_renewal_keeps_its_names() -> None:
    device = Cmc.make("cmc-enroll:wrong-subject:0:after=1")
    issued = device.issued()
    assert caught(device, TRUST, lambda: device.enroll(device.renewal(issued))) == "cmc.names"


# --- waiting, confirming, proving -----------------------------------------------------------------


def test_waiting_without_a_token() -> None:
    device = Cmc.make("cmc-enroll:no-token", policy=CmcPolicy(polls=1))
    assert caught(device, REMOTE, device.enroll) == "cmc.pend-info"


def test_a_later_answer_may_leave_the_token_out() -> None:
    device = Cmc.make("cmc-query:no-token:1", policy=CmcPolicy(polls=2))
    device.issued()


QUERIES = ["wrong-nonce", "wrong-transaction", "wrong-data", "device-signer", "key-mismatch", "unsigned"]


@pytest.mark.parametrize("fault", QUERIES)
def test_an_answer_to_a_query_is_checked_as_well(fault: str) -> None:
    device = Cmc.make(f"cmc-query:{fault}", policy=CmcPolicy(polls=1))
    with pytest.raises((TrustError, RemoteProtocolError)):
        device.enroll()
    assert isinstance(device.outcomes[0], Pending)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("wrong-nonce", "cmc.nonce"),
        ("foreign-signer", "chain.untrusted"),
        ("simple-instead", "cmc.simple-response"),
    ],
)
def test_a_confirmation_is_confirmed_by_the_server(fault: str, code: str) -> None:
    device = Cmc.make(f"cmc-confirm:{fault}", policy=CmcPolicy(confirm=True))
    assert caught(device, TRUST if code != "cmc.simple-response" else REMOTE, device.enroll) == code


def test_a_confirmation_that_is_refused() -> None:
    outcome = Cmc.make("cmc-confirm:refuse", policy=CmcPolicy(confirm=True)).enroll()
    assert isinstance(outcome, Rejected)


CHALLENGES = [
    ("challenge-short", "cmc.challenge"),
    ("challenge-other-key", "cmc.challenge"),
    ("challenge-other-request", "cmc.challenge"),
    ("challenge-witness", "cmc.challenge"),
    ("challenge-sha1", "cmc.algorithm"),
]


@pytest.mark.parametrize(("fault", "code"), CHALLENGES)
def test_a_challenge_that_does_not_hold_ends_the_enrollment(fault: str, code: str) -> None:
    device = Cmc.make(f"cmc-enroll:{fault}", possession=Possession.DECRYPTION)
    assert caught(device, TRUST, lambda: device.enroll(device.request(rsa_key()))) == code
    assert device.world.cmc_desk.failures == ["popFailed"], "the server is told (§6.7 step 3)"


def test_sha1_in_a_challenge_behind_the_switch() -> None:
    legacy = frozenset({Legacy.SHA1})
    device = Cmc.make("cmc-enroll:challenge-sha1", possession=Possession.DECRYPTION, legacy=legacy)
    device.issued(device.request(rsa_key()))


def test_no_second_challenge() -> None:
    device = Cmc.make("cmc-prove:challenge-again", possession=Possession.DECRYPTION)
    assert caught(device, REMOTE, lambda: device.enroll(device.request(rsa_key()))) == "cmc.challenge-again"


# --- anchors, revocation, certificates and lists --------------------------------------------------

ANCHORS = [
    ("anchors-leaf", "ca", REMOTE, "cmc.anchors"),
    ("anchors-missing", "ca", REMOTE, "cmc.anchors"),
    ("anchors-sha1", "ca", TRUST, "cmc.algorithm"),
    ("old-time", "ca", TRUST, "cmc.anchors-time"),
    ("no-time", "ca", TRUST, "cmc.anchors-time"),
    ("keeps-waiting:0:after=9", "ra", TRUST, "cmc.anchors-signer"),
]


@pytest.mark.parametrize(("fault", "authority", "kind", "code"), ANCHORS)
def test_anchors_that_are_not_believed(
    fault: str, authority: Any, kind: type[HoldfastError], code: str
) -> None:
    device = Cmc.make(f"cmc-enroll:{fault}", policy=CmcPolicy(publish=True, authority=authority))
    assert caught(device, kind, device.enroll) == code


def test_anchors_of_before() -> None:
    device = Cmc.make(policy=CmcPolicy(publish=True, authority="ca"))
    now = device.bench.time.moment()
    reply = device.run(device.conversation().ask([], now))
    assert published(reply, now) is not None
    with pytest.raises(TrustError, match=r"cmc\.anchors-order"):
        published(reply, now, after=1)


SERVICES = [
    ("wrong-nonce", TRUST, "cmc.nonce"),
    ("no-transaction", TRUST, "cmc.transaction"),
    ("device-signer", TRUST, "chain.usage"),
    ("unsigned", REMOTE, "cmc.unsigned"),
    ("simple-instead", REMOTE, "cmc.simple-response"),
    ("keeps-waiting", REMOTE, "cmc.status"),
]


@pytest.mark.parametrize(("fault", "kind", "code"), SERVICES)
def test_a_revocation_counts_when_it_is_said_under_a_signature(
    fault: str, kind: type[HoldfastError], code: str
) -> None:
    device = Cmc.make(f"cmc-revoke:{fault}")
    issued, now = device.issued(), device.bench.time.moment()
    wanted = RevokeRequest(CertificateId.of(issued.chain[0]), Reason.UNSPECIFIED)
    by = device.conversation(Identity(issued.chain, device.bench.key))
    with pytest.raises(kind) as error:
        device.run(services.revoke(by, wanted, now))
    assert error.value.code == code


def test_another_certificate_than_asked_for() -> None:
    device = Cmc.make("cmc-get-cert:no-certificate")
    issued, now = device.issued(), device.bench.time.moment()
    issuer = device.world.domain.issuing.certificate
    serial = issued.chain[0].serial_number
    with pytest.raises(TrustError, match=r"cmc\.get-cert"):
        device.run(services.certificate(device.conversation(), issuer, serial, now))


@pytest.mark.parametrize("fault", ["crl:stale", "crl:other-issuer", "crl:foreign-signer"])
def test_a_list_that_is_not_the_issuers(fault: str) -> None:
    device = Cmc.make(fault)
    issuer, now = device.world.domain.issuing.certificate, device.bench.time.moment()
    with pytest.raises(TrustError, match=r"cmc\.get-crl"):
        device.run(services.revocation_list(device.conversation(), issuer, now))


def test_certificates_where_a_list_belongs() -> None:
    device = Cmc.make()
    issuer, now = device.world.domain.issuing.certificate, device.bench.time.moment()
    exchange = services.revocation_list(device.conversation(), issuer, now)
    next(exchange)
    with pytest.raises(TrustError, match=r"cmc\.get-crl"):
        exchange.send(HttpResponse(200, (("Content-Type", PKCS7),), cms.certs_only([issuer])))


def test_sha1_answers_only_behind_the_switch(tmp_path: Path) -> None:
    """Signed by openssl, because nothing here makes such a signature."""
    openssl = need("openssl", "openssl")
    issuer = pki.ca("SHA-1 CA")
    by = pki.end_entity("SHA-1 RA", issuer, kind="rsa2048", eku=[pki.CMC_RA])
    said = StatusInfo(Status.SUCCESS, ((1,),)).encode()
    content = PkiResponse((Control(1, words.STATUS_INFO_V2, (said,)),)).encode()
    (tmp_path / "content").write_bytes(content)
    (tmp_path / "ca.pem").write_bytes(pki.pem(by.certificate))
    (tmp_path / "key.pem").write_bytes(pki.key_pem(by.key))
    command = [
        openssl, "cms", "-sign", "-md", "sha1", "-nodetach", "-binary", "-in", "content", "-signer", "ca.pem",
        "-inkey", "key.pem", "-econtent_type", words.PKI_RESPONSE, "-outform", "DER", "-out", "signed",
    ]  # fmt: skip
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    made, judge = (tmp_path / "signed").read_bytes(), Judge((issuer.certificate,))
    with pytest.raises(TrustError, match=r"cmc\.digest.*legacy: \[sha1\]"):
        read(made, judge, pki.TRUSTED, limit=1 << 18)
    allowed = replace(judge, legacy=frozenset({Legacy.SHA1}))
    assert read(made, allowed, pki.TRUSTED, limit=1 << 18).response is not None
