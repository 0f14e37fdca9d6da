"""The main job, without hardware and network: what is asked, in which order, and what is left at the end."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from holdfast.life.record import CredentialState, DomainState, Provenance, TransactionState
from holdfast.wire.model import ClockState, CsrTemplate, KeyAlgorithm
from holdfast_sim.world import EstPolicy, VoucherPolicy
from lifecycle.device import REGISTRAR, SECOND, Device

BRSKI = "/.well-known/brski"
EST = "/.well-known/est"


def test_the_order_of_a_first_boot(tmp_path: Path) -> None:
    device = Device(tmp_path)
    report = device.step()
    assert device.active
    assert device.targets() == [
        f"{BRSKI}/requestvoucher",
        f"{BRSKI}/voucher_status",
        f"{EST}/cacerts",
        f"{EST}/csrattrs",
        f"{EST}/simpleenroll",
        f"{BRSKI}/enrollstatus",
    ]
    assert sum(t.connections for t in report.traces) == 2
    assert [a.provenance for a in device.record.domain.anchors] == [Provenance.CACERTS]
    assert [r.status for r in device.world.reports] == [True, True]
    assert timedelta(days=90) / 20 < report.due - device.clock.now < timedelta(days=66)


def record_file(device: Device) -> tuple[int, int]:
    """Differs after every write; reading changes no more than the access time."""
    found = (device.settings.state_directory / "record").stat()
    return found.st_ino, found.st_mtime_ns


def test_a_second_step_does_nothing(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    written = record_file(device)
    asked = len(device.targets())
    device.pass_time(timedelta(days=1))
    device.step()
    assert len(device.targets()) == asked
    assert record_file(device) == written


def test_a_renewal_changes_the_key_and_keeps_the_names(tmp_path: Path) -> None:
    device = Device(tmp_path)
    first = device.step()
    before = device.identity.credential
    device.clock.now = first.due
    device.step()
    after = device.identity.credential
    assert (after.generation, after.state) == (2, CredentialState.ACTIVE)
    assert after.key != before.key
    assert after.chain != before.chain
    assert device.keys.refs() == {after.key}
    assert device.targets()[-4:] == [
        f"{EST}/cacerts",
        f"{EST}/csrattrs",
        f"{EST}/simplereenroll",
        f"{EST}/cacerts",
    ]


def test_a_same_key_renewal_keeps_the_key(tmp_path: Path) -> None:
    same = "  - name: ldevid\n    protocols: [{est: {}}]\n    renew: {same-key: true}\n"
    device = Device(tmp_path, identities=same)
    device.step()
    before = device.identity.credential
    device.step(renew=["ldevid"])
    after = device.identity.credential
    assert after.generation == 2
    assert after.key == before.key
    assert device.keys.refs() == {after.key}


@pytest.mark.parametrize("pin", ["root", "issuing", "registrar"])
def test_whatever_certificate_of_the_registrar_is_pinned(tmp_path: Path, pin: str) -> None:
    device = Device(tmp_path)
    device.world.vouchers = VoucherPolicy(pin=pin)  # type: ignore[arg-type]
    device.step()
    assert device.active


@pytest.mark.parametrize("state", ClockState)
def test_a_clock_that_nobody_set_hinders_nothing(tmp_path: Path, state: ClockState) -> None:
    device = Device(tmp_path)
    device.clock.state = state
    device.step()
    assert device.active


def test_the_ca_s_wishes_are_followed(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.world.est = EstPolicy(template=CsrTemplate(key=KeyAlgorithm.P384))
    device.step()
    assert device.active, device.record
    assert device.world.issued[-1].certificate.public_key().curve.name == "secp384r1"  # type: ignore[union-attr]


def test_a_csr_bound_to_its_connection(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.world.est = EstPolicy(template=CsrTemplate(link_tls_unique=True))
    device.step()
    assert device.active, device.record


def test_a_bound_csr_is_made_anew_after_a_lost_connection(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["simpleenroll:drop-before:1"])
    device.world.est = EstPolicy(template=CsrTemplate(link_tls_unique=True))
    device.step()
    assert device.identity.transaction.state is TransactionState.REQUESTED
    first = device.identity.transaction.csr
    device.live_until_active()
    assert device.world.issued[-1].operation == "simpleenroll"
    assert first


def test_patience_is_asked_for_in_both_places_and_both_forms(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        faults=[
            "requestvoucher:pending:2:retry-after=7",
            "simpleenroll:pending-date:1:retry-after=9",
            "simpleenroll:pending:1:retry-after=90",
        ],
    )
    report = device.step()
    assert device.identity.transaction.state is TransactionState.PENDING
    assert device.clock.waits == pytest.approx([7, 7, 9], abs=1)
    assert report.due - device.clock.now == timedelta(seconds=90)
    assert device.targets().count(f"{BRSKI}/requestvoucher") == 3
    csr = device.identity.transaction.csr
    device.live_until_active()
    sent = {e.request_body for e in device.site.transcript if e.target.endswith("simpleenroll")}
    assert len(sent) == 1
    assert csr


def test_a_pending_voucher_survives_a_new_connection_to_the_same_registrar(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["requestvoucher:pending:1:retry-after=55"])
    device.step()
    assert device.record.domain.state is DomainState.PROVISIONAL
    nonce = device.record.domain.nonce
    device.pass_time(timedelta(seconds=55))
    device.step()
    assert device.active
    sent = [e.request_body for e in device.site.transcript if e.target.endswith("requestvoucher")]
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert nonce


def test_a_pending_voucher_is_not_sent_to_a_registrar_with_another_certificate(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        faults=["requestvoucher:pending:1:retry-after=55", "registrar:swap-certificate:0:after=1"],
    )
    device.step()
    device.pass_time(timedelta(seconds=55))
    device.step()
    assert not device.active
    assert device.record.schedule.trouble is not None
    assert device.record.schedule.trouble.code in {"brski.registrar-changed", "voucher.registrar-chain"}
    assert len([t for t in device.targets() if t.endswith("requestvoucher")]) == 1


def test_an_endless_202_ends_after_four_days(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["requestvoucher:pending:0:retry-after=3600"])
    report = device.step()
    started = device.clock.now
    while device.record.domain.state is DomainState.PROVISIONAL and device.clock.now - started < timedelta(
        days=5
    ):
        device.clock.now = max(report.due, device.clock.now + timedelta(hours=1))
        report = device.step()
    assert device.record.schedule.trouble is not None
    assert device.record.schedule.trouble.code == "brski.no-answer"
    assert timedelta(days=4) <= device.clock.now - started < timedelta(days=4, hours=2)


def test_several_registrars_in_turn(tmp_path: Path) -> None:
    device = Device(tmp_path, registrars=["dead.example:1", SECOND, REGISTRAR])
    report = device.step()
    assert device.active
    assert device.record.domain.registrar == REGISTRAR
    assert [t.name for t in report.traces].count("PrepareAttempt") == 3


def test_when_no_registrar_answers_the_device_backs_off_and_never_gives_up(tmp_path: Path) -> None:
    device = Device(tmp_path, registrars=["dead.example:1", "dead.example:2"])
    waits = []
    for _ in range(20):
        report = device.step()
        waits.append(report.due - device.clock.now)
        device.clock.now = report.due
    assert waits[0] < timedelta(minutes=1)
    assert max(waits) <= timedelta(hours=6)
    assert waits[-1] >= timedelta(hours=3)
    device.servers["dead.example", 2] = "registrar"
    device.live_until_active()


def test_one_redirect_to_another_registrar_is_followed(tmp_path: Path) -> None:
    device = Device(tmp_path, faults=["requestvoucher:redirect:1:to=https://second.example:8443/"])
    device.servers["second.example", 8443] = "registrar"
    device.step()
    assert device.active
    assert device.record.domain.registrar == SECOND


def test_a_second_redirect_is_not(tmp_path: Path) -> None:
    device = Device(
        tmp_path,
        faults=[
            "requestvoucher:redirect:1:to=https://second.example:8443/",
            "requestvoucher:redirect:0:to=https://third.example:8443/",
        ],
    )
    device.servers["second.example", 8443] = device.servers["third.example", 8443] = "registrar"
    device.step()
    assert not device.active
    assert device.record.schedule.trouble is not None
    assert device.record.schedule.trouble.code == "brski.redirect-again"


def test_a_lapsed_credential_starts_again_from_the_idevid(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    old = device.identity.credential
    device.pass_time(timedelta(days=120))
    device.step()
    assert device.active
    assert device.identity.credential.chain != old.chain
    assert device.world.issued[-1].operation == "simpleenroll"


def test_a_certificate_that_the_domain_does_not_take_is_given_up_after_some_proofs(tmp_path: Path) -> None:
    device = Device(tmp_path)
    device.step()
    held = device.identity.credential
    device.reface(["cacerts:status:0:code=403:after=1"])
    device.step(renew=["ldevid"])
    assert device.identity.transaction.state is TransactionState.STAGED
    for _ in range(6):
        device.clock.now = max(device.clock.now, device.identity.schedule.due or device.clock.now)
        device.reface(["cacerts:status:0:code=403"])
        device.step()
        assert device.identity.credential == held
    assert device.identity.transaction.state is TransactionState.NONE
    assert device.keys.refs() == {held.key}
