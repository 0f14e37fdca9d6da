"""The domain changes its root: old and new credentials work side by side, over TLS too."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path

from holdfast.host.transport import Anchored as HostAnchored
from holdfast.host.transport import Channel as HostChannel
from holdfast.host.transport import TlsTransport
from holdfast.wire.chain import Rule, validate
from holdfast.wire.model import Chain, HttpRequest
from holdfast_sim.answers import Peer
from holdfast_sim.ca import Credential
from holdfast_sim.faults import Fault
from holdfast_sim.serve import running_server
from holdfast_sim.tls import pem
from sim.actors import Bench, certificates

HELLO = HttpRequest("GET", "/")


def test_each_root_signs_the_other(bench: Bench, tmp_path: Path) -> None:
    old = bench.world.domain.root.certificate
    bench.world.roll_over()
    new = bench.world.domain.root.certificate
    handed = certificates(bench.get("cacerts"))
    assert {old, new} <= set(handed)
    assert len(handed) == 6
    new_with_old, old_with_new = bench.world.domain.links
    assert new_with_old.public_key() == new.public_key()
    new_with_old.verify_directly_issued_by(old)
    assert old_with_new.public_key() == old.public_key()
    old_with_new.verify_directly_issued_by(new)
    leaf = bench.ldevid().certificate
    (tmp_path / "old").write_text(pem(old))
    (tmp_path / "others").write_text("".join(pem(c) for c in handed if c not in (old, new)))
    (tmp_path / "leaf").write_text(pem(leaf))
    at = str(int(bench.time.now.timestamp()))
    command = ["openssl", "verify", "-attime", at, "-CAfile", tmp_path / "old"]
    done = subprocess.run(
        [*command, "-untrusted", tmp_path / "others", tmp_path / "leaf"], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_renewal_crosses_the_rollover(bench: Bench) -> None:
    before = bench.ldevid()
    bench.site.faults.add(Fault.parse("simplereenroll:rollover:1"))
    leaf = certificates(bench.enroll(peer=bench.peer(before), operation="simplereenroll"))[0]
    leaf.verify_directly_issued_by(bench.world.domain.issuing.certificate)
    after = Credential((leaf, bench.world.domain.issuing.certificate), bench.key)
    for credential in (before, after):
        assert bench.send(HELLO, Peer(credential.chain, ()), "application").status == 200
    again = certificates(bench.enroll(peer=bench.peer(after), operation="simplereenroll"))[0]
    assert again.issuer == leaf.issuer


def test_two_rollovers(bench: Bench) -> None:
    bench.world.roll_over()
    bench.world.roll_over()
    names = [c.subject.rfc4514_string() for c in bench.world.domain.anchors]
    assert len(set(names)) == 3
    assert len(bench.world.domain.links) == 4


def test_the_tls_servers_take_both_generations() -> None:
    bench = Bench.make(at=datetime.now(UTC))
    before, anchors = bench.ldevid(), bench.world.domain.anchors

    def check(chain: Chain) -> None:
        validate(chain, anchors, bench.time.moment(), Rule.tls_server("127.0.0.1", allow_cmcra=False))

    with running_server(bench.world) as running:
        host, port = running.addresses.application
        statuses = []
        for generation in ("old", "new"):
            if generation == "new":
                bench.world.roll_over()
            after = bench.ldevid() if generation == "new" else before
            for credential in {before.certificate: before, after.certificate: after}.values():
                channel = HostChannel(host, port, HostAnchored(check), (credential.chain, credential.key))
                with TlsTransport().open(channel) as link:
                    statuses.append(link.send(HELLO).status)
    assert statuses == [200, 200, 200]
