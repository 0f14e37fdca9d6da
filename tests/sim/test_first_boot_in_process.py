"""The whole way in process: voucher, certificate, application, renewal."""

from __future__ import annotations

from holdfast.wire.brski.client import obtain, prepare, report_enroll_status
from holdfast.wire.brski.verify import Vouched
from holdfast.wire.chain import Rule, validate
from holdfast.wire.model import HttpRequest
from holdfast_sim.answers import Peer
from sim.actors import HOST, PORT, Anchored, Bench, Channel, Provisional, certificates, drive


def test_from_idevid_to_application(bench: Bench) -> None:
    link = bench.transport.open(Channel(HOST, PORT, Provisional(), bench.idevid))
    assert not link.tls.authenticated
    now = bench.time.moment()
    attempt = prepare(bench.device.key, bench.device.chain, link.tls, now, bench.world.random)
    vouched = drive(obtain(attempt, bench.trust, link.tls, now), link.send)
    assert isinstance(vouched, Vouched)
    assert vouched.pinned == bench.world.domain.root.certificate
    link.authenticate()
    assert link.tls.authenticated
    assert [(r.operation, r.status) for r in bench.world.reports] == [("voucher_status", True)]

    ldevid = bench.ldevid()
    assert bench.world.issued[-1].certificate == ldevid.certificate

    anchors = bench.world.domain.anchors
    trust = Anchored(
        lambda chain: validate(chain, anchors, now, Rule.tls_server(HOST, allow_cmcra=True)) and None
    )
    with bench.transport.open(Channel(HOST, PORT, trust, (ldevid.chain, ldevid.key))) as again:
        assert again.tls.authenticated
        drive(report_enroll_status(ok=True), again.send)
        assert again.requests == 1
    assert not again.alive
    assert bench.world.reports[-1].operation == "enrollstatus"
    assert bench.world.reports[-1].client == ldevid.certificate

    hello = bench.send(HttpRequest("GET", "/"), Peer(ldevid.chain, ()), "application")
    assert (hello.status, b'"hello"' in hello.body) == (200, True)

    renewed = certificates(bench.enroll(peer=bench.peer(ldevid), operation="simplereenroll"))[0]
    assert renewed.subject == ldevid.certificate.subject
    assert renewed.serial_number != ldevid.certificate.serial_number
    assert [entry.operation for entry in bench.world.issued] == ["simpleenroll", "simplereenroll"]
