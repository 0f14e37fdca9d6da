"""A life on SCEP: first boot, renewal, waiting, power cuts, and the ladder down to it and up again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.transport import Channel, Link
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.life.record import Provenance, TransactionState
from holdfast.wire.csr import challenge_password, parse
from holdfast.wire.errors import ConfigError, TransportError
from holdfast.wire.model import KeyAlgorithm, SigningKey
from holdfast.worker.ports import Environment
from holdfast_sim import scep
from holdfast_sim.faults import Fault
from holdfast_sim.link import InProcessTransport
from holdfast_sim.scep_authority import ScepPolicy
from holdfast_sim.site import Server, Site
from lifecycle import soft_keys
from lifecycle.cuts import PowerCut, cut_after
from lifecycle.device import Device
from years.keys import private_key

SCEP = "http://scep.example/scep"
RSA = "key: {algorithm: rsa2048}"


class Gateway(Device):
    """A device whose ladder is EST at the registrar, if wanted, then SCEP over plain HTTP."""

    def __init__(
        self,
        directory: Path,
        *,
        ladder: str = f"[{{scep: {{url: '{SCEP}', {RSA}}}}}]",
        faults: Sequence[str] = (),
        extra: str = "",
        **policy: Any,
    ) -> None:
        identities = f"  - name: ldevid\n    protocols: {ladder}\n{extra}"
        super().__init__(directory, identities=identities, faults=faults)
        self.world.scep = ScepPolicy(**policy)
        self.down: set[str] = set()
        self.asked: list[str] = []
        self.where: dict[tuple[str, int], Server] = {
            ("registrar.example", 8443): "registrar",
            ("est.example", 443): "registrar",
            ("scep.example", 80): "plain",
        }

    def open(self, channel: Channel) -> Link:
        if channel.host in self.down:
            raise TransportError("transport.unreachable", f"{channel.host}: connection refused")

        def seen(request: Any) -> None:
            self.asked.append(request.target.replace("?operation=", "/").rpartition("/")[2].partition("&")[0])

        return InProcessTransport(self.site, self.where, on_request=seen).open(channel)

    @property
    def environment(self) -> Environment:
        return replace(super().environment, transport=self)

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.identity.credential.chain[0])

    def renew(self) -> None:
        generation = self.identity.credential.generation
        self.step(renew=["ldevid"])
        assert self.identity.credential.generation == generation + 1


def test_first_boot_and_renewal(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.step()
    assert gateway.active
    assert isinstance(gateway.leaf.public_key(), rsa.RSAPublicKey)
    first = gateway.leaf
    gateway.renew()
    assert gateway.leaf.public_key() != first.public_key()
    assert gateway.keys.refs() == {gateway.identity.credential.key}
    assert [record.operation for record in gateway.world.issued] == ["scep", "scep"]


def test_a_challenge_from_a_file_is_used_once_and_shown_nowhere(tmp_path: Path) -> None:
    (tmp_path / "once").write_text("s3cr3t-once\n")
    (tmp_path / "once").chmod(0o600)
    ladder = f"[{{scep: {{url: '{SCEP}', {RSA}, challenge-file: once}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder, challenges={"s3cr3t-once": None})
    report = gateway.step()
    assert gateway.active
    gateway.renew()  # signed by the certificate: no second challenge
    seen = [
        str(report),
        *gateway.targets(),
        repr(gateway.record),
        *(repr(e) for e in gateway.site.transcript),
    ]
    assert not any("s3cr3t" in text for text in seen)
    assert gateway.identity.transaction.csr == b"", "the request that held it is gone"


def test_a_challenge_from_a_command(tmp_path: Path) -> None:
    command = "['/bin/sh', '-c', 'echo \"$0\"', 'from-a-command']"
    ladder = f"[{{scep: {{url: '{SCEP}', {RSA}, challenge-command: {command}}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder, challenges={"from-a-command": None})
    gateway.step()
    assert gateway.active


def test_a_command_that_fails_waits_and_makes_no_request(tmp_path: Path) -> None:
    ladder = f"[{{scep: {{url: '{SCEP}', {RSA}, challenge-command: ['/bin/false']}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder)
    gateway.step()
    trouble = gateway.identity.schedule.trouble
    assert trouble is not None
    assert (trouble.code, trouble.detail) == ("scep.challenge-command", "/bin/false ended with status 1")
    assert "PKIOperation" not in gateway.asked


def test_pending_is_polled_with_the_same_transaction(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, polls=2)
    report = gateway.step()
    waiting = gateway.identity.transaction
    assert waiting.state is TransactionState.PENDING
    assert report.due == gateway.clock.now + timedelta(minutes=5)
    gateway.live_until_active()
    assert list(gateway.world.scep_desk.transactions) == [waiting.id]
    assert gateway.keys.made == 1


@pytest.mark.parametrize("at", [2, 3, 4, 5])
def test_a_lost_answer_is_asked_for_again_and_issues_once(tmp_path: Path, at: int) -> None:
    gateway = Gateway(tmp_path, faults=[f"pkioperation:drop-after:{at}"])
    gateway.live_until_active(steps=20)
    assert len(gateway.world.issued) == 1
    assert len(gateway.world.scep_desk.transactions) == 1


def test_an_ec_identity_with_a_transport_key(tmp_path: Path) -> None:
    (tmp_path / "once").write_text("a")
    (tmp_path / "once").chmod(0o600)
    ladder = f"[{{scep: {{url: '{SCEP}', decryption: transport-key, challenge-file: once}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder, challenges={"a": None, "b": None}, polls=1)
    gateway.step()
    held = gateway.identity.transaction
    assert {held.key, held.transport} == gateway.keys.refs()
    gateway.live_until_active()
    assert isinstance(gateway.leaf.public_key(), ec.EllipticCurvePublicKey)
    assert gateway.keys.refs() == {gateway.identity.credential.key}, "the transport key is gone"
    (tmp_path / "once").write_text("b")
    gateway.step(renew=["ldevid"])
    assert gateway.identity.transaction.state is TransactionState.PENDING
    gateway.clock.advance(timedelta(minutes=6))
    gateway.step()
    assert gateway.identity.credential.generation == 2
    assert gateway.keys.refs() == {gateway.identity.credential.key}


def test_a_transport_key_that_was_cut_short_is_made_again(tmp_path: Path) -> None:
    ladder = f"[{{scep: {{url: '{SCEP}', decryption: transport-key}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder)
    made = gateway.keys.generate

    class PowerCut(Exception):
        pass

    def cut(ref: KeyRef, spec: KeySpec) -> Any:
        if "transport" in ref:
            made(ref, spec)
            raise PowerCut
        return made(ref, spec)

    gateway.keys.generate = cut  # type: ignore[method-assign]
    with pytest.raises(PowerCut):
        gateway.step()
    assert gateway.identity.transaction.state is TransactionState.KEYED
    gateway.keys.generate = made  # type: ignore[method-assign]
    gateway.step()
    assert gateway.active
    assert gateway.keys.refs() == {gateway.identity.credential.key}


def test_a_password_serves_an_ec_identity(tmp_path: Path) -> None:
    (tmp_path / "once").write_text("open sesame")
    (tmp_path / "once").chmod(0o600)
    ladder = f"[{{scep: {{url: '{SCEP}', decryption: password, challenge-file: once}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder, mode="ec-ca", challenges={"open sesame": None})
    gateway.step()
    assert gateway.active
    assert isinstance(gateway.leaf.public_key(), ec.EllipticCurvePublicKey)


def test_an_ec_identity_alone_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a p256 key cannot decrypt"):
        Gateway(tmp_path, ladder=f"[{{scep: {{url: '{SCEP}'}}}}]")


def test_a_forged_ca_is_no_reason_to_go_on(tmp_path: Path) -> None:
    ladder = f"[{{scep: {{url: '{SCEP}', {RSA}}}}}, {{est: {{}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder, faults=["getcacert:foreign-anchor"])
    gateway.step()
    assert not gateway.active
    assert "simpleenroll" not in gateway.asked
    assert gateway.keys.made == 0


def test_a_server_that_cannot_serve_us_is_passed_before_a_key_is_made(tmp_path: Path) -> None:
    ladder = f"[{{scep: {{url: '{SCEP}', {RSA}}}}}, {{est: {{}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder, mode="ec-ca")
    gateway.step()
    assert gateway.active
    assert gateway.identity.ladder.moves[0].code == "scep.no-recipient"
    assert gateway.keys.made == 1


def test_est_dead_then_scep_then_est_again(tmp_path: Path) -> None:
    ladder = f"[{{est: {{url: 'https://est.example'}}}}, {{scep: {{url: '{SCEP}', {RSA}}}}}]"
    gateway = Gateway(tmp_path, ladder=ladder)
    gateway.down = {"est.example"}
    gateway.step()
    assert gateway.active
    assert gateway.world.issued[-1].operation == "scep"
    assert gateway.identity.ladder.rung == "scep"
    gateway.down = set()
    gateway.renew()
    assert gateway.world.issued[-1].operation == "simplereenroll"
    assert gateway.identity.ladder.rung == "est"
    gateway.down = {"est.example"}
    gateway.renew()  # the P-256 key of the EST certificate cannot sign for SCEP: a new RSA key signs itself
    assert gateway.world.issued[-1].operation == "scep"
    assert isinstance(gateway.leaf.public_key(), rsa.RSAPublicKey)


def test_the_next_ca_becomes_an_anchor_before_it_issues(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.step()
    coming = scep.announce_next(gateway.world)
    gateway.renew()
    held = {a.certificate for a in gateway.record.domain.anchors}
    assert coming.root.certificate.public_bytes(Encoding.DER) in held
    scep.activate_next(gateway.world)
    gateway.renew()
    assert gateway.leaf.issuer == gateway.world.domain.issuing.certificate.subject


def test_the_csr_of_a_pending_transaction_is_durable(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, polls=1)
    gateway.step()
    request = parse(gateway.identity.transaction.csr)
    assert challenge_password(request) is None
    before = gateway.identity.transaction
    gateway.site = Site(gateway.world, [Fault.parse("pkioperation:status:code=503")])
    gateway.clock.advance(timedelta(minutes=6))
    gateway.step()
    assert gateway.identity.transaction == before


@pytest.mark.parametrize("decryption", [RSA, "decryption: transport-key"])
def test_a_power_cut_at_any_point_of_a_first_boot(tmp_path: Path, decryption: str) -> None:
    """Before and after every commit and every message: the same transaction goes on, and issues once."""
    cuts = 0
    for point in range(200):
        gateway = Gateway(tmp_path / str(point), ladder=f"[{{scep: {{url: '{SCEP}', {decryption}}}}}]")
        left = [point]
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, left)
            patch.setattr(soft_keys, "private_key", _same_key)  # RSA keys take their time
            try:
                gateway.step()
            except PowerCut:
                cuts += 1
            else:
                break
        gateway.live_until_active(steps=20)
        assert len(gateway.world.issued) == 1, point
        assert len(gateway.world.scep_desk.transactions) == 1, point
        assert gateway.keys.refs() == {gateway.identity.credential.key}, point
    assert cuts > 25


@cache
def _same_key(algorithm: KeyAlgorithm) -> SigningKey:
    return private_key(algorithm)


def test_a_change_of_root_is_followed_over_the_link_between_the_roots(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.step()
    gateway.world.roll_over()
    gateway.step(renew=["ldevid"])
    assert gateway.identity.credential.generation == 2
    assert gateway.leaf.issuer == gateway.world.domain.issuing.certificate.subject
    added = [a for a in gateway.record.domain.anchors if a.provenance is Provenance.ROLLOVER]
    assert [a.certificate for a in added] == [
        gateway.world.domain.root.certificate.public_bytes(Encoding.DER)
    ]
