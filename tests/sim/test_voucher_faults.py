"""Each fault of a voucher is there, alone, and our own client refuses it by its name."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from holdfast.wire import cms
from holdfast.wire.brski.client import prepare, request_voucher
from holdfast.wire.brski.verify import Vouched
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import KeyAlgorithm
from holdfast_sim.faults import VOUCHER_KINDS, Fault
from holdfast_sim.tls import pem
from sim.actors import HOST, PORT, START, Bench, Channel, Provisional, drive

HARMLESS = {"unknown-leaf", "id-data", "assertion", "est-domain", "no-est-domain"}
REFUSED = {
    "expired": "voucher.nonceless",
    "foreign-signer": "voucher.signer-chain",
    "future-created-on": "voucher.created-on",
    "garbage-pin": "voucher.pinned-domain-cert",
    "idevid-signer": "voucher.signer-is-device",
    "no-freshness": "voucher.freshness",
    "no-pin": "voucher.pinned-domain-cert",
    "no-serial": "voucher.serial-number",
    "no-signed-attributes": "voucher.cms",
    "nonce-and-expires": "voucher.freshness",
    "nonceless": "voucher.nonceless",
    "tampered": "voucher.signature",
    "wrong-aki": "voucher.idevid-issuer",
    "wrong-nonce": "voucher.nonce",
    "wrong-pin": "voucher.registrar-chain",
    "wrong-serial": "voucher.serial-number",
}


def test_every_fault_is_accounted_for() -> None:
    assert set(REFUSED) | HARMLESS == VOUCHER_KINDS


def outcome(bench: Bench, **trust: Any) -> Any:
    now = bench.time.moment()
    with bench.transport.open(Channel(HOST, PORT, Provisional(), bench.idevid)) as link:
        attempt = prepare(bench.device.key, bench.device.chain, link.tls, now, bench.world.random)
        return drive(request_voucher(attempt, replace(bench.trust, **trust), link.tls, now), link.send)


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_the_client_refuses(kind: str) -> None:
    bench = Bench.make(f"requestvoucher:{kind}:1")
    with pytest.raises(HoldfastError) as refusal:
        outcome(bench)
    assert refusal.value.code == REFUSED[kind], refusal.value
    assert bench.site.faults.applied == [Fault("requestvoucher", kind, 1)]
    assert isinstance(outcome(bench), Vouched), "once was asked for"


def test_a_device_that_takes_nonceless_vouchers_tells_them_from_expired_ones() -> None:
    assert isinstance(outcome(Bench.make("requestvoucher:nonceless"), allow_nonceless=True), Vouched)
    with pytest.raises(HoldfastError) as refusal:
        outcome(Bench.make("requestvoucher:expired"), allow_nonceless=True)
    assert refusal.value.code == "voucher.expired"


@pytest.mark.parametrize("kind", sorted(HARMLESS))
def test_the_client_tolerates(kind: str) -> None:
    bench = Bench.make(f"requestvoucher:{kind}")
    assert isinstance(outcome(bench), Vouched)
    assert [fault.kind for fault in bench.site.faults.applied] == [kind]


def leaves(bench: Bench) -> dict[str, Any]:
    content = cms.open_signed(bench.ask_voucher().body).content
    inner: dict[str, Any] = json.loads(content)["ietf-voucher:voucher"]
    return inner


def test_a_fault_changes_one_thing() -> None:
    honest = leaves(Bench.make())
    assert {"nonce", "created-on", "serial-number", "pinned-domain-cert", "assertion"} <= set(honest)
    assert "expires-on" in leaves(Bench.make("requestvoucher:nonce-and-expires"))
    nonceless = leaves(Bench.make("requestvoucher:nonceless"))
    assert "nonce" not in nonceless
    assert nonceless["expires-on"] > START.isoformat()
    expired = leaves(Bench.make("requestvoucher:expired"))
    assert expired["created-on"] < expired["expires-on"] < START.isoformat()
    assert leaves(Bench.make("requestvoucher:assertion:value=verified"))["assertion"] == "verified"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("tampered", b"content verify error"),
        ("foreign-signer", b"certificate verify error"),
        ("wrong-nonce", b""),
    ],
)
def test_openssl_agrees_on_who_is_wrong(tmp_path: Path, kind: str, words: bytes) -> None:
    """A wrong leaf is well signed; a wrong signature is not."""
    bench = Bench.make(f"requestvoucher:{kind}")
    (tmp_path / "voucher").write_bytes(bench.ask_voucher().body)
    (tmp_path / "root").write_text(pem(bench.world.manufacturer.root))
    command = ["openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "voucher", "-purpose", "any"]
    command += ["-CAfile", tmp_path / "root", "-attime", str(int(START.timestamp()))]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode == 0) == (kind == "wrong-nonce"), done.stderr
    assert words in done.stderr.lower()


def test_rsa_authorities_vouch_and_issue_too() -> None:
    bench = Bench.make("requestvoucher:no-signed-attributes:1", algorithm=KeyAlgorithm.RSA2048)
    with pytest.raises(HoldfastError) as refusal:
        outcome(bench)
    assert refusal.value.code == "voucher.cms"
    assert isinstance(outcome(bench), Vouched)
    assert bench.enroll().status == 200


def test_a_signature_without_attributes_is_sound_apart_from_that() -> None:
    """Otherwise the fault would be just another broken signature."""
    for algorithm in (KeyAlgorithm.P256, KeyAlgorithm.RSA2048):
        bench = Bench.make("requestvoucher:no-signed-attributes", algorithm=algorithm)
        signed = bench.ask_voucher().body
        assert (
            cms.open_signed(signed, require_attributes=False).signer
            == bench.world.manufacturer.masa.certificate
        )
        with pytest.raises(HoldfastError, match=r"cms\.attributes"):
            cms.open_signed(signed)
