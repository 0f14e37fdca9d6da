"""Servers of the domain, or devices of it, that reach for more than is theirs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.cli import status
from holdfast.cli.report import device_report
from holdfast.keys.api import KeyRef
from holdfast.life import events as ev
from holdfast.life.anchors import adopt
from holdfast.life.machine import decide
from holdfast.life.record import (
    Anchor,
    DeviceRecord,
    Domain,
    DomainState,
    Identity,
    Provenance,
    Transaction,
    TransactionState,
    Trouble,
)
from holdfast.wire.chain import MAX_ANCHORS, Rule, validate
from holdfast.wire.errors import TrustError
from holdfast.wire.model import ClockState, Moment
from holdfast.worker.links import Ground
from lifecycle.device import Device

FAR = datetime(9998, 1, 1, tzinfo=UTC)
UNTRUSTED = Moment(pki.NOW, pki.NOW, ClockState.FLOOR_ONLY)
DOMAIN = pki.ca("domain")


def anchor(certificate, provenance: Provenance) -> Anchor:
    return Anchor(certificate.public_bytes(Encoding.DER), provenance, pki.NOW)


def ground(*anchors: tuple[pki.Identity, Provenance]) -> Ground:
    held = tuple(anchor(i.certificate, p) for i, p in anchors)
    return Ground(held, tuple(i.certificate for i, _ in anchors), ())


# --- another device as the registrar ------------------------------------------------------------------


@pytest.mark.parametrize("eku", [(), (pki.CLIENT_AUTH,)])
def test_a_device_of_the_domain_is_no_registrar(eku) -> None:
    """Under a pinned CA no name is compared: a sister's LDevID must not do."""
    sister = pki.end_entity("sister", DOMAIN, eku=eku)
    with pytest.raises(TrustError) as caught:
        ground((DOMAIN, Provenance.VOUCHER)).check(sister.chain[:1], "registrar.example", pki.TRUSTED)
    assert caught.value.code == "chain.usage"


@pytest.mark.parametrize("eku", [pki.SERVER_AUTH, pki.CMC_RA])
def test_a_registrar_that_says_so_is_one(eku) -> None:
    registrar = pki.end_entity("registrar", DOMAIN, eku=[eku])
    ground((DOMAIN, Provenance.VOUCHER)).check(registrar.chain[:1], "10.0.0.1", pki.TRUSTED)


def test_the_pinned_certificate_itself_needs_no_usage() -> None:
    registrar = pki.end_entity("registrar", DOMAIN)
    validate((registrar.certificate,), (registrar.certificate,), pki.TRUSTED, Rule.tls_server_any_name())


# --- anchors ------------------------------------------------------------------------------------------


def test_a_pinned_registrar_stays_reachable_beside_roots_that_do_not_reach_it() -> None:
    """Else the next connection refuses the only server that the device knows, for ever."""
    registrar, other = pki.end_entity("registrar", DOMAIN), pki.ca("unrelated")
    both = ground((other, Provenance.CACERTS), (registrar, Provenance.VOUCHER))
    both.check((registrar.certificate,), "10.0.0.1", pki.TRUSTED)


def test_the_pinned_certificate_does_not_lend_its_freedom_of_names_to_the_other_roots() -> None:
    registrar, other = pki.end_entity("registrar", DOMAIN), pki.ca("unrelated")
    web = pki.end_entity("web", other, eku=[pki.SERVER_AUTH], san=pki.dns("web.example"))
    both = ground((other, Provenance.CACERTS), (registrar, Provenance.VOUCHER))
    both.check((web.certificate,), "web.example", pki.TRUSTED)
    with pytest.raises(TrustError):
        both.check((web.certificate,), "registrar.example", pki.TRUSTED)


def test_anchors_never_outgrow_what_validation_takes() -> None:
    held: tuple[Anchor, ...] = ()
    for turn in range(6):
        offered = tuple(pki.ca(f"root {turn} {i}").certificate for i in range(16))
        held = adopt(held, offered, lambda _: None, pki.TRUSTED).anchors
        assert held[0].certificate == offered[0].public_bytes(Encoding.DER)
    assert len(held) < MAX_ANCHORS


def test_a_link_between_two_roots_of_one_name_is_no_anchor() -> None:
    old, new = pki.ca("root"), pki.ca("root")
    link = pki.ca("root", new, key=old.key)
    trust = adopt((), (new.certificate, link.certificate), lambda _: None, pki.TRUSTED)
    assert [a.certificate for a in trust.anchors] == [new.certificate.public_bytes(Encoding.DER)]
    assert trust.intermediates == (link.certificate.public_bytes(Encoding.DER),)


# --- time ---------------------------------------------------------------------------------------------


def test_a_domain_that_lives_in_the_far_future_takes_its_time_with_it() -> None:
    """A wrong CA, or a MASA with a wrong clock, must not make every other certificate expired for ever."""
    vouched = DeviceRecord(
        floor=pki.NOW, domain=Domain(state=DomainState.PROVISIONAL, registrar="r.example:443")
    )
    accepted = ev.VoucherAccepted(b"v", anchor(DOMAIN.certificate, Provenance.VOUCHER), FAR)
    vouched, _ = decide(vouched, accepted, UNTRUSTED)
    assert vouched.time_floor == FAR
    asking = Transaction(state=TransactionState.REQUESTED, key=KeyRef("k"), id="00")
    vouched = vouched.with_identity(Identity("ldevid", transaction=asking))
    issued, _ = decide(
        vouched, ev.CertificateIssued((b"c",), FAR.replace(year=9999)), UNTRUSTED, identity="ldevid"
    )
    assert issued.time_floor.year == 9999
    lost = ev.DomainLost(Trouble("chain.expired", "", "", "backoff", pki.NOW), pki.NOW)
    free, _ = decide(issued, lost, UNTRUSTED)
    assert free.time_floor == pki.NOW


def test_the_time_of_a_domain_only_rises() -> None:
    asking = Transaction(state=TransactionState.REQUESTED, key=KeyRef("k"), id="00")
    domain = Domain(state=DomainState.VOUCHED, floor=FAR)
    record = DeviceRecord(floor=pki.NOW, domain=domain).with_identity(Identity("ldevid", transaction=asking))
    changed, _ = decide(record, ev.CertificateIssued((b"c",), pki.NOW), UNTRUSTED, identity="ldevid")
    assert changed.time_floor == FAR
    assert replace(changed, domain=Domain()).time_floor == pki.NOW


# --- what a peer's words may do to a terminal ---------------------------------------------------------


def test_a_refusal_cannot_write_control_characters() -> None:
    rogue = pki.end_entity("evil\x1b]0;owned\x07\nstate active", pki.ca("x\x1b[2J"))
    with pytest.raises(TrustError) as caught:
        validate((rogue.certificate,), (DOMAIN.certificate,), pki.TRUSTED, Rule.client())
    assert "evil" in caught.value.detail
    assert str(caught.value).isprintable()


def test_status_shows_no_control_character_of_a_subject() -> None:
    rogue = pki.ca("evil\x1b]0;owned\x07\ndomain vouched")
    domain = Domain(state=DomainState.VOUCHED, anchors=(anchor(rogue.certificate, Provenance.CACERTS),))
    lines = status.text(device_report(DeviceRecord(floor=pki.NOW, domain=domain), ""))
    assert any("evil" in line for line in lines)
    assert all(line.isprintable() for line in lines)


# --- the whole first boot: nothing secret in what the device remembers or shows ----------------------


def test_no_record_trace_or_error_shows_a_key(tmp_path: Path) -> None:
    device = Device(tmp_path)
    report = device.live_until_active()
    shown = repr((report, device.record, device.factory, device.environment.settings))
    assert "PRIVATE KEY" not in shown
    stored = b"".join(p.read_bytes() for p in sorted(tmp_path.rglob("*")) if p.is_file())
    assert b"PRIVATE KEY" not in stored.replace(b"BEGIN TSS2 PRIVATE KEY", b"").replace(
        b"END TSS2 PRIVATE KEY", b""
    )
