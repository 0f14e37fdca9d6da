"""Registrar and MASA believe only what RFC 8995 lets them believe."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms, oids
from holdfast.wire.brski.messages import MEDIA_TYPE, RegistrarVoucherRequest, Voucher, VoucherRequest, aki
from holdfast.wire.model import HttpRequest, HttpResponse
from holdfast_sim import registrar
from holdfast_sim.answers import Refused
from holdfast_sim.ca import Credential
from holdfast_sim.domain import Domain
from holdfast_sim.manufacturer import Manufacturer
from holdfast_sim.tls import pem
from holdfast_sim.world import VoucherPolicy
from sim.actors import SERIAL, START, Bench

BRSKI = "/.well-known/brski/"


def refused(answer: HttpResponse, status: int, words: str) -> None:
    """The refusal names what failed, so that one check is not mistaken for another."""
    text = answer.body.decode()
    assert (answer.status, words in text) == (status, True), (answer.status, text)
    assert (answer.header("Content-Type") or "").startswith("text/plain")


def voucher_of(answer: HttpResponse) -> Voucher:
    assert answer.status == 200, answer.body
    assert answer.header("Content-Type") == MEDIA_TYPE
    return Voucher.decode(cms.open_signed(answer.body).content)


def test_a_voucher_says_what_it_must(bench: Bench) -> None:
    voucher = voucher_of(bench.ask_voucher())
    root = bench.world.domain.root.certificate
    assert voucher.serial_number == SERIAL
    assert voucher.nonce == "bm9uY2Utb2YtdGhlLXRlc3Q"
    assert voucher.expires_on is None
    assert voucher.pinned_domain_cert == root.public_bytes(Encoding.DER)
    assert voucher.idevid_issuer == aki(bench.device.certificate)
    assert voucher.assertion == "proximity"
    assert voucher.created_on == START
    assert bench.world.ledger[SERIAL] == bench.world.audit[0].domain_id.hex()


def test_openssl_verifies_the_voucher(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "voucher").write_bytes(bench.ask_voucher().body)
    (tmp_path / "root").write_text(pem(bench.world.manufacturer.root))
    command = ["openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "voucher", "-purpose", "any"]
    command += ["-CAfile", tmp_path / "root", "-attime", str(int(START.timestamp()))]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["ietf-voucher:voucher"]["serial-number"] == SERIAL
    shown = subprocess.run(
        ["openssl", "cms", "-cmsout", "-print", "-inform", "DER", "-in", tmp_path / "voucher"],
        capture_output=True,
        check=True,
    ).stdout
    assert oids.CT_ANIMA_JSON_VOUCHER.encode() in shown or b"id-smime-ct-40" in shown or b"1.16.1.40" in shown


@pytest.mark.parametrize(("pin", "place"), [("root", 2), ("issuing", 1), ("registrar", 0)])
def test_what_is_pinned(pin: str, place: int) -> None:
    bench = Bench.make(vouchers=VoucherPolicy(pin=pin))  # type: ignore[arg-type]
    expected = bench.world.domain.registrar.chain[place]
    assert voucher_of(bench.ask_voucher()).pinned_domain_cert == expected.public_bytes(Encoding.DER)


def test_without_a_nonce_the_voucher_expires(bench: Bench) -> None:
    voucher = voucher_of(bench.ask_voucher(bench.pvr(nonce=None)))
    assert voucher.nonce is None
    assert voucher.expires_on == START + timedelta(minutes=20)


def test_without_proximity_it_is_logged(bench: Bench) -> None:
    """The registrar insists on proximity, so this is a matter of the MASA alone."""
    pvr = bench.pvr(proximity_registrar_cert=None, assertion="logged")
    assert voucher_of(ask_masa(bench, pvr=pvr)).assertion == "logged"
    refused(bench.ask_voucher(pvr), 401, "proximity")


class TestRegistrar:
    def test_wants_an_idevid(self, bench: Bench) -> None:
        refused(bench.ask_voucher(peer=bench.stranger), 401, "client certificate")
        refused(bench.ask_voucher(peer=bench.peer(bench.ldevid())), 403, "no IDevID")
        foreign = Manufacturer.create(START, bench.world.random).device(SERIAL, START)
        refused(bench.ask_voucher(peer=bench.peer(foreign)), 403, "not accepted")

    def test_wants_the_right_media_type(self, bench: Bench) -> None:
        target = f"{BRSKI}requestvoucher"
        wrong = HttpRequest("POST", target, (("Content-Type", "application/json"),), bench.pvr())
        assert bench.send(wrong).status == 415
        accept = HttpRequest(
            "POST", target, (("Content-Type", MEDIA_TYPE), ("Accept", "text/html")), bench.pvr()
        )
        refused(bench.send(accept), 406, MEDIA_TYPE)
        assert bench.send(HttpRequest("GET", target)).status == 405
        assert bench.send(HttpRequest("POST", f"{BRSKI}other")).status == 404

    def test_refuses_what_cannot_be_read(self, bench: Bench) -> None:
        honest = bench.pvr()
        for body in (b"", b"{}", honest[:-1], honest + b"\0", bytes(len(honest))):
            refused(bench.ask_voucher(body), 400, "not usable")
        refused(bench.ask_voucher(bench.signed(b"[]")), 400, "not usable")
        bad = bytearray(honest)
        bad[-1] ^= 1
        refused(bench.ask_voucher(bytes(bad)), 400, "not usable")

    def test_refuses_another_kind_of_content(self, bench: Bench) -> None:
        content = VoucherRequest(SERIAL).encode()
        refused(bench.ask_voucher(bench.signed(content, content_type="1.2.3.4")), 406, "1.2.3.4")

    def test_takes_the_content_type_of_the_wild(self, bench: Bench) -> None:
        content = cms.open_signed(bench.pvr()).content
        assert bench.ask_voucher(bench.signed(content, content_type=oids.CT_DATA)).status == 200

    def test_refuses_the_signature_of_a_stranger(self, bench: Bench) -> None:
        foreign = Manufacturer.create(START, bench.world.random).device(SERIAL, START)
        pvr = bench.signed(cms.open_signed(bench.pvr()).content, foreign)
        refused(bench.ask_voucher(pvr), 404, "stranger")

    def test_refuses_the_signature_of_another_device(self, bench: Bench) -> None:
        other = bench.world.manufacturer.device(SERIAL, START)
        pvr = bench.signed(cms.open_signed(bench.pvr()).content, other)
        refused(bench.ask_voucher(pvr), 404, "not signed by the key")

    def test_refuses_another_serial_number(self, bench: Bench) -> None:
        refused(bench.ask_voucher(bench.pvr(serial_number="SIM-0002")), 404, "serial number")

    def test_refuses_another_proximity_certificate(self, bench: Bench) -> None:
        seen = bench.world.impostor.registrar.certificate.public_bytes(Encoding.DER)
        refused(bench.ask_voucher(bench.pvr(proximity_registrar_cert=seen)), 401, "proximity")

    def test_passes_on_what_the_masa_says(self, bench: Bench) -> None:
        del bench.world.ledger[SERIAL]
        refused(bench.ask_voucher(), 404, "no device with the serial number")
        bench.world.sell(SERIAL, "somebody else")
        refused(bench.ask_voucher(), 403, "another owner")
        assert not bench.world.audit

    def test_a_manifest_pins_the_idevid(self, bench: Bench) -> None:
        bench.world.idevids[SERIAL] = "0" * 64
        refused(bench.ask_voucher(), 403, "left the factory with")
        der = bench.device.certificate.public_bytes(Encoding.DER)
        bench.world.idevids[SERIAL] = hashlib.sha256(der).hexdigest()
        assert bench.ask_voucher().status == 200

    def test_an_expired_registrar_gets_no_voucher(self, bench: Bench) -> None:
        bench.time.now = START + timedelta(days=4000)
        refused(bench.ask_voucher(), 403, "chain.expired")
        assert not bench.world.audit

    def test_a_quarrel_with_the_masa_is_no_fault_of_the_pledge(self, bench: Bench) -> None:
        request = HttpRequest("POST", f"{BRSKI}requestvoucher", (("Content-Type", MEDIA_TYPE),), bench.pvr())
        for status in (400, 401, 406, 500):
            with pytest.raises(Refused) as refusal:
                registrar.handle(
                    bench.world, lambda *_, s=status: HttpResponse(s, (), b"no"), request, bench.peer()
                )
            assert refusal.value.status == 502

    def test_records_status(self, bench: Bench) -> None:
        def report(operation: str, body: bytes, kind: str = "application/json") -> int:
            request = HttpRequest("POST", BRSKI + operation, (("Content-Type", kind),), body)
            return bench.send(request).status

        said = b'{"version":1,"status":false,"reason":"voucher.nonce","reason-context":{"a":1}}'
        assert report("voucher_status", said) == 200
        assert report("enrollstatus", b'{"version":"1","status":true}') == 200
        first, second = bench.world.reports
        assert (first.operation, first.status, first.reason) == ("voucher_status", False, "voucher.nonce")
        assert (second.operation, second.status) == ("enrollstatus", True)
        assert report("enrollstatus", b"{") == 400
        assert report("enrollstatus", said, "text/plain") == 415
        anonymous = HttpRequest("POST", f"{BRSKI}enrollstatus", (("Content-Type", "application/json"),), said)
        assert bench.send(anonymous, bench.stranger).status == 401
        assert len(bench.world.reports) == 2


def ask_masa(
    bench: Bench,
    *,
    pvr: bytes | None = None,
    by: Credential | None = None,
    chain: tuple[object, ...] | None = None,
    operation: str = "requestvoucher",
    **changes: object,
) -> HttpResponse:
    """A registrar's request, honest but for *changes*."""
    by = by or bench.world.domain.registrar
    prior = pvr if pvr is not None else bench.pvr(proximity_registrar_cert=der(by))
    nonce = VoucherRequest.decode(cms.open_signed(prior).content).nonce
    leaves: dict[str, object] = {"serial_number": SERIAL, "nonce": nonce, "created_on": START}
    leaves |= {"idevid_issuer": aki(bench.device.certificate), "prior_signed_voucher_request": prior}
    asked = RegistrarVoucherRequest(**(leaves | changes))  # type: ignore[arg-type]
    certificates = by.chain[1:] if chain is None else chain
    body = cms.sign(asked.encode(), oids.CT_ANIMA_JSON_VOUCHER, by.key, by.certificate, certificates)  # type: ignore[arg-type]
    request = HttpRequest("POST", BRSKI + operation, (("Content-Type", MEDIA_TYPE),), body)
    return bench.send(request, bench.stranger, "masa")


def der(credential: Credential) -> bytes:
    return credential.certificate.public_bytes(Encoding.DER)


class TestMasa:
    def test_answers_an_honest_registrar(self, bench: Bench) -> None:
        assert voucher_of(ask_masa(bench)).serial_number == SERIAL

    def test_refuses_what_cannot_be_read(self, bench: Bench) -> None:
        for body in (b"", b"0\x80", bench.pvr()[:-1]):
            request = HttpRequest("POST", f"{BRSKI}requestvoucher", (("Content-Type", MEDIA_TYPE),), body)
            refused(bench.send(request, bench.stranger, "masa"), 400, "not usable")
        request = HttpRequest("POST", f"{BRSKI}requestvoucher", (("Content-Type", "text/plain"),), b"")
        assert bench.send(request, server="masa").status == 415
        assert bench.send(HttpRequest("POST", f"{BRSKI}enrollstatus"), server="masa").status == 404

    def test_refuses_a_signer_without_cmc_ra(self, bench: Bench) -> None:
        refused(ask_masa(bench, by=bench.world.domain.application), 403, "no registrar")

    def test_refuses_a_chain_without_its_top(self, bench: Bench) -> None:
        refused(ask_masa(bench, chain=()), 403, "no registrar")

    def test_refuses_a_registrar_under_a_root_that_does_not_sign_it(self, bench: Bench) -> None:
        other = bench.world.impostor
        refused(
            ask_masa(bench, chain=(other.issuing.certificate, other.root.certificate)), 403, "no registrar"
        )

    def test_refuses_without_the_pledges_own_request(self, bench: Bench) -> None:
        refused(ask_masa(bench, prior_signed_voucher_request=None), 403, "prior-signed")
        refused(ask_masa(bench, prior_signed_voucher_request=b"\x30\x00"), 400, "pledge's")

    def test_refuses_a_pledge_of_another_make(self, bench: Bench) -> None:
        foreign = Manufacturer.create(START, bench.world.random).device(SERIAL, START)
        pvr = bench.signed(cms.open_signed(bench.pvr()).content, foreign)
        refused(ask_masa(bench, pvr=pvr), 404, "no IDevID of this manufacturer")

    def test_refuses_serial_numbers_that_disagree(self, bench: Bench) -> None:
        bench.world.sell("SIM-0002")
        refused(ask_masa(bench, serial_number="SIM-0002"), 403, "serial numbers")
        refused(ask_masa(bench, pvr=bench.pvr(serial_number="SIM-0002")), 403, "serial numbers")
        both = ask_masa(bench, pvr=bench.pvr(serial_number="SIM-0002"), serial_number="SIM-0002")
        refused(both, 403, "serial numbers")  # the IDevID still says SIM-0001

    def test_refuses_nonces_that_disagree(self, bench: Bench) -> None:
        refused(ask_masa(bench, nonce="another"), 403, "nonces")
        refused(ask_masa(bench, nonce=None), 403, "nonces")

    def test_refuses_another_issuer_of_the_idevid(self, bench: Bench) -> None:
        refused(ask_masa(bench, idevid_issuer=b"\x30\x03\x80\x01\x01"), 403, "idevid-issuer")

    def test_refuses_a_registrar_that_the_pledge_did_not_see(self, bench: Bench) -> None:
        seen = bench.pvr(proximity_registrar_cert=der(bench.world.impostor.registrar))
        refused(ask_masa(bench, pvr=seen), 403, "not in the registrar's chain")
        refused(ask_masa(bench, pvr=bench.pvr(proximity_registrar_cert=None)), 403, "without proximity")
        refused(ask_masa(bench, pvr=bench.pvr(proximity_registrar_cert=b"junk")), 400, "cannot be read")

    def test_knows_its_devices(self, bench: Bench) -> None:
        del bench.world.ledger[SERIAL]
        refused(ask_masa(bench), 404, "no device")
        bench.world.vouchers = replace(bench.world.vouchers, open_ledger=True)
        assert ask_masa(bench).status == 200
        assert bench.world.ledger[SERIAL] == bench.world.audit[0].domain_id.hex()

    def test_a_claimed_device_stays_with_its_owner(self, bench: Bench) -> None:
        assert ask_masa(bench).status == 200
        other = Domain.create("Second Owner", START, bench.world.random)
        refused(ask_masa(bench, by=other.registrar), 403, "another owner")
        assert ask_masa(bench).status == 200
        assert len(bench.world.audit) == 2

    def test_audit_log(self, bench: Bench) -> None:
        assert ask_masa(bench).status == 200
        log = json.loads(ask_masa(bench, operation="requestauditlog").body)
        (event,) = log["events"]
        assert event["nonce"] == "bm9uY2Utb2YtdGhlLXRlc3Q"
        assert event["assertion"] == "proximity"
        assert event["date"] == "2026-11-01T12:00:00Z"
        other = Domain.create("Second Owner", START, bench.world.random)
        refused(ask_masa(bench, by=other.registrar, operation="requestauditlog"), 403, "another owner")
        del bench.world.ledger[SERIAL]
        refused(ask_masa(bench, operation="requestauditlog"), 404, "nothing is known")

    def test_refuses_content_that_is_no_request(self, bench: Bench) -> None:
        by = bench.world.domain.registrar

        def post(content: bytes, kind: str) -> HttpResponse:
            body = cms.sign(content, kind, by.key, by.certificate, by.chain[1:])
            request = HttpRequest("POST", f"{BRSKI}requestvoucher", (("Content-Type", MEDIA_TYPE),), body)
            return bench.send(request, bench.stranger, "masa")

        refused(post(b"[]", oids.CT_ANIMA_JSON_VOUCHER), 400, "registrar's voucher request: ")
        honest = RegistrarVoucherRequest(SERIAL).encode()
        refused(post(honest, "1.2.3.4"), 406, "1.2.3.4")
        refused(post(honest, oids.CT_DATA), 403, "prior-signed")
        forbidden = (
            b'{"ietf-voucher-request:voucher":{"serial-number":"x","proximity-registrar-cert":"AAAA"}}'
        )
        refused(post(forbidden, oids.CT_DATA), 400, "forbidden")
