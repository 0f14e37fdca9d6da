"""What the lightweight profile is for: certificates by every request, in every mood of the server."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire import algorithm_oids
from holdfast.wire.algorithms import spki
from holdfast.wire.cmp import bodies, paths
from holdfast.wire.cmp.client import Form
from holdfast.wire.cmp.mac import read_parameters
from holdfast.wire.cmp.message import Body
from holdfast.wire.cmp.revocation import Revoked, revoke, revoke_again
from holdfast.wire.cmp.support import (
    RootUpdate,
    Wishes,
    ask,
    ask_again,
    ca_certs,
    crl_update,
    request_template,
    root_update,
)
from holdfast.wire.cmp.transaction import Server
from holdfast.wire.model import CsrTemplate, Issued, KeyAlgorithm, Offer, Pending, Rejected
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.cmp_desk import CmpPolicy
from sim.cmp_actors import Cmp

SERVER = Server()


def issued(cmp: Cmp, outcome: object) -> x509.Certificate:
    assert isinstance(outcome, Issued), outcome
    leaf = outcome.chain[0]
    assert leaf == cmp.world.issued[-1].certificate
    assert leaf.serial_number not in cmp.world.revoked
    return leaf


def kinds(cmp: Cmp) -> list[str]:
    return [m.kind.label for pair in zip(cmp.sent, cmp.received, strict=True) for m in pair]


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form.AUTO, ["ir", "ip", "certConf", "pkiconf"]),
        (Form.CR, ["cr", "cp", "certConf", "pkiconf"]),
        (Form.P10CR, ["p10cr", "cp", "certConf", "pkiconf"]),
    ],
)
@pytest.mark.parametrize("secret", [False, True])
def test_a_certificate_is_asked_for_granted_and_confirmed(form: Form, words: list[str], secret: bool) -> None:
    cmp = Cmp.make(form=form, secret=secret)
    leaf = issued(cmp, cmp.enroll())
    assert spki(leaf) == spki(cmp.bench.key)
    assert kinds(cmp) == words
    assert len({m.header.transaction for m in (*cmp.sent, *cmp.received)}) == 1
    assert len({m.header.sender_nonce for m in (*cmp.sent, *cmp.received)}) == 4
    assert cmp.sent[0].header.recip_nonce == b""
    assert cmp.sent[1].header.recip_nonce == cmp.received[0].header.sender_nonce


@pytest.mark.parametrize("kind", ["pbm", "pbmac1"])
def test_an_answer_keeps_the_parameters_of_the_mac_and_changes_its_salt(kind: str) -> None:
    cmp = Cmp.make(secret=True)
    assert cmp.protocol.secret is not None
    cmp.protocol = replace(cmp.protocol, secret=replace(cmp.protocol.secret, kind=kind, iterations=321))
    issued(cmp, cmp.enroll())
    found = [read_parameters(m.header.protection) for m in (*cmp.sent, *cmp.received) if m.header.protection]
    assert {(p.kind, p.iterations) for p in found} == {(kind, 321)}
    assert len({p.salt for p in found}) == 4


def test_implicit_confirmation_that_is_granted_spares_the_certconf() -> None:
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True))
    issued(cmp, cmp.enroll())
    assert kinds(cmp) == ["ir", "ip"]


def test_implicit_confirmation_counts_only_if_it_was_asked_for() -> None:
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True), implicit_confirm=False)
    issued(cmp, cmp.enroll())
    assert kinds(cmp) == ["ir", "ip", "certConf", "pkiconf"]


@pytest.mark.parametrize("secret", [False, True])
def test_a_certificate_is_durable_before_it_is_confirmed(secret: bool) -> None:
    """What the caller holds after ip resumes the same transaction in a client that knows nothing else."""
    cmp = Cmp.make(secret=secret)
    req = cmp.request()
    first = cmp.run(cmp.protocol.enroll(req, None, cmp.bench.time.moment()))
    assert isinstance(first, Pending)
    assert first.retry_after == timedelta(0)
    assert kinds(cmp) == ["ir", "ip"]
    issued(cmp, cmp.resume(req, first))
    assert kinds(cmp)[2:] == ["certConf", "pkiconf"]
    assert len({m.header.transaction for m in cmp.sent}) == 1
    # The pkiconf was lost with the power, and the same confirmation is sent again.
    issued(cmp, cmp.resume(req, first))
    assert kinds(cmp)[4:] == ["certConf", "error"]


@pytest.mark.parametrize("form", list(Form))
def test_a_client_polls_until_the_certificate_is_there(form: Form) -> None:
    cmp = Cmp.make(policy=CmpPolicy(polls=2, check_after=600), form=form)
    issued(cmp, cmp.enroll())
    assert kinds(cmp)[2:-2] == ["pollReq", "pollRep", "pollReq", "pollRep", "pollReq", kinds(cmp)[1]]
    assert cmp.waits == [timedelta(0), timedelta(minutes=10), timedelta(minutes=10), timedelta(0)]
    asked = bodies.read_poll_request(cmp.sent[1].content)
    assert asked == ((-1,) if form is Form.P10CR else (0,))


def test_an_error_may_ask_for_patience_about_a_certificate() -> None:
    cmp = Cmp.make(policy=CmpPolicy(polls=1, by_error=True))
    issued(cmp, cmp.enroll())
    assert kinds(cmp)[:6] == ["ir", "error", "pollReq", "pollRep", "pollReq", "ip"]
    assert bodies.read_poll_request(cmp.sent[1].content) == (bodies.WHOLE_MESSAGE,)


def test_a_confirmation_may_take_its_time_too() -> None:
    cmp = Cmp.make(policy=CmpPolicy(other_polls=2, check_after=60))
    issued(cmp, cmp.enroll())
    assert kinds(cmp)[2:] == [
        "certConf", "error", "pollReq", "pollRep", "pollReq", "pollRep", "pollReq", "pkiconf",
    ]  # fmt: skip
    assert bodies.read_poll_request(cmp.sent[-1].content) == (bodies.WHOLE_MESSAGE,)


def test_a_delayed_answer_may_be_to_the_first_message() -> None:
    """A CA behind an RA answers the ir, whatever the RA and the device said in between."""
    cmp = Cmp.make("cmp-pollReq:first-nonce", policy=CmpPolicy(polls=1))
    issued(cmp, cmp.enroll())
    nonces = {m.header.recip_nonce for m in cmp.received if m.kind is not Body.PKICONF}
    assert nonces == {cmp.sent[0].header.sender_nonce}


@pytest.mark.parametrize("same_key", [False, True])
def test_a_key_update_is_signed_by_what_it_updates(same_key: bool) -> None:
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True))
    first = cmp.enroll()
    assert isinstance(first, Issued)
    req = cmp.renewal(first, cmp.bench.key if same_key else None)
    leaf = issued(cmp, cmp.enroll(req))
    assert kinds(cmp)[2:] == ["kur", "kup"]
    assert spki(leaf) == spki(req.key)
    assert cmp.sent[-1].extra_certs[0] == first.chain[0].public_bytes(Encoding.DER)


def test_a_key_update_is_signed_even_where_there_is_a_secret() -> None:
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True), secret=True)
    first = cmp.enroll()
    assert isinstance(first, Issued)
    issued(cmp, cmp.enroll(cmp.renewal(first)))
    protection = cmp.sent[-1].header.protection
    assert protection is not None
    assert protection.oid == algorithm_oids.ECDSA_SHA256


def test_the_request_that_a_power_cut_swallowed_begins_anew_with_the_same_key() -> None:
    """The server has the transaction, we have not its answer: the next identifier follows from the first."""
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True))
    req = cmp.request()
    exchange = cmp.protocol.enroll(req, None, cmp.bench.time.moment())
    cmp.bench.site.answer("registrar", next(exchange), cmp.bench.stranger)
    leaf = issued(cmp, cmp.enroll(req))
    assert kinds(cmp) == ["ir", "error", "ir", "ip"]
    assert cmp.sent[0].header.transaction == req.transaction
    assert cmp.sent[1].header.transaction != req.transaction
    assert spki(leaf) == spki(req.key)


def test_a_server_that_knows_only_pvno_2_is_asked_in_it() -> None:
    cmp = Cmp.make(policy=CmpPolicy(versions=frozenset({2})), pvno=3)
    issued(cmp, cmp.enroll())
    assert [m.header.pvno for m in cmp.sent] == [3, 2, 2]


def test_pvno_3_is_spoken_where_it_is_configured() -> None:
    cmp = Cmp.make(pvno=3)
    issued(cmp, cmp.enroll())
    assert {m.header.pvno for m in (*cmp.sent, *cmp.received)} == {3}


def test_a_profile_is_named_in_header_and_path() -> None:
    policy = CmpPolicy(profiles=frozenset({"gateway"}))
    server = Server(path=paths.profile_path("gateway"), operations=True, profile="gateway")
    cmp = Cmp.make(policy=policy, server=server)
    issued(cmp, cmp.enroll())
    assert cmp.targets == ["/.well-known/cmp/p/gateway/initialization"] * 2
    other = Cmp.make(policy=policy, server=replace(server, profile="camera"))
    assert isinstance(other.enroll(), Rejected)


# --- support messages, revocation ---------------------------------------------------------------------


def test_ca_certificates_are_asked_for() -> None:
    cmp = Cmp.make()
    found = cmp.run(ask(cmp.transaction(), ca_certs(), cmp.bench.time.moment()))
    assert found == cmp.world.domain.cacerts


def test_the_successor_of_a_root_is_asked_for() -> None:
    cmp = Cmp.make()
    old = cmp.world.domain.anchors[0]
    now = cmp.bench.time.moment()
    assert cmp.run(ask(cmp.transaction(), root_update(old, now), now)) is None
    cmp.world.roll_over()
    found = cmp.run(ask(cmp.transaction(), root_update(old, now), now))
    assert isinstance(found, RootUpdate)
    assert found.new_with_new == cmp.world.domain.anchors[0]


def test_the_template_is_asked_for() -> None:
    wishes = CsrTemplate(
        key=KeyAlgorithm.P384,
        subject=(("2.5.4.10", "Owner"), ("2.5.4.3", None)),
        extensions=(x509.Extension(_EKU.oid, False, _EKU),),
        fill_extensions=("2.5.29.17",),
    )
    cmp = Cmp.make(policy=CmpPolicy(template=wishes))
    found = cmp.run(ask(cmp.transaction(), request_template(), cmp.bench.time.moment()))
    assert isinstance(found, Wishes)
    assert found.template == wishes
    assert cmp.protocol.read_wishes(found.encoded) == wishes


def test_revocation_lists_are_asked_for() -> None:
    cmp = Cmp.make()
    cmp.world.revoked.add(4711)
    issuer = cmp.world.domain.issuing.certificate
    (crl,) = cmp.run(ask(cmp.transaction(), crl_update(issuer.subject), cmp.bench.time.moment()))
    assert crl.get_revoked_certificate_by_serial_number(4711) is not None
    assert crl.is_signature_valid(issuer.public_key())


def test_an_answer_to_a_question_may_be_delayed() -> None:
    cmp = Cmp.make(policy=CmpPolicy(other_polls=1, check_after=60))
    now = cmp.bench.time.moment()
    transaction = cmp.transaction()
    pending = cmp.run(ask(transaction, ca_certs(), now))
    waits = []
    while isinstance(pending, Pending):
        waits.append(pending.retry_after)
        pending = cmp.run(ask_again(cmp.transaction(), ca_certs(), pending.resume, now))
    assert pending == cmp.world.domain.cacerts
    assert waits == [timedelta(0), timedelta(minutes=1)]


def test_a_certificate_is_revoked_by_itself() -> None:
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True))
    mine = cmp.enroll()
    assert isinstance(mine, Issued)
    transaction = cmp.transaction((mine.chain, cmp.bench.key))
    done = cmp.run(revoke(transaction, mine.chain[0], Reason.SUPERSEDED, cmp.bench.time.moment()))
    assert isinstance(done, Revoked)
    assert mine.chain[0].serial_number in cmp.world.revoked
    again = cmp.transaction((mine.chain, cmp.bench.key))
    repeated = cmp.run(revoke(again, mine.chain[0], Reason.SUPERSEDED, cmp.bench.time.moment()))
    assert isinstance(repeated, Revoked), "the answer before may have been lost"
    assert "certRevoked" in repeated.notice


def test_a_revocation_may_be_delayed() -> None:
    cmp = Cmp.make(policy=CmpPolicy(implicit_confirm=True))
    mine = cmp.enroll()
    assert isinstance(mine, Issued)
    cmp.world.cmp = replace(cmp.world.cmp, other_polls=1)
    now = cmp.bench.time.moment()
    pending = cmp.run(
        revoke(cmp.transaction((mine.chain, cmp.bench.key)), mine.chain[0], Reason.SUPERSEDED, now)
    )
    cmp.world.revoked.clear()  # or it could not ask any more
    while isinstance(pending, Pending):
        transaction = cmp.transaction((mine.chain, cmp.bench.key))
        pending = cmp.run(revoke_again(transaction, pending.resume, now))
    assert isinstance(pending, Revoked)


def test_discovery_brings_authorities_and_wishes() -> None:
    cmp = Cmp.make(
        policy=CmpPolicy(template=CsrTemplate(key=KeyAlgorithm.P384)), secret=True, random=os.urandom
    )
    offer = cmp.run(cmp.protocol.discover(None, cmp.bench.time.moment()))
    assert isinstance(offer, Offer)
    assert offer.ca_certificates == cmp.world.domain.cacerts
    assert offer.template.key is KeyAlgorithm.P384
    assert offer.authentic


def test_discovery_asks_nothing_where_nobody_could_vouch_for_the_answer() -> None:
    cmp = Cmp.make()
    assert cmp.run(cmp.protocol.discover(None, cmp.bench.time.moment())) == Offer((), CsrTemplate())
    assert cmp.sent == []


_EKU = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
