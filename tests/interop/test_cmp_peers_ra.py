"""Siemens' CmpRaComponent between our client and our simulated CA: it judges both.

Each test is one row of the third table in ``docs/cmp.md``.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.transport import Channel, Plain, TlsTransport
from holdfast.wire import csr
from holdfast.wire.algorithms import spki
from holdfast.wire.cmp.client import CmpProtocol, Form
from holdfast.wire.cmp.protection import SharedSecret, SignedByAuthority, Signer
from holdfast.wire.cmp.revocation import Revoked, revoke
from holdfast.wire.cmp.transaction import Server, Transaction
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import (
    Chain,
    ClockState,
    EnrollmentRequest,
    Issued,
    Moment,
    Outcome,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
)
from holdfast.wire.revocation.reason import Reason
from holdfast_sim.ca import name
from holdfast_sim.cmp_desk import CmpPolicy
from holdfast_sim.serve import running_server
from holdfast_sim.world import World
from interop import cmp_table
from interop.est_peers import free_port, missing, peers_directory, serving

pytestmark = pytest.mark.interop

TABLE = "cmp-ra"
COLUMN = "Siemens CmpRaComponent 4.1.4"
SERIAL = "SN-17"
REFERENCE, SECRET = "gateway-7", b"nine bean rows"


@dataclass
class Bench:
    """The RA at ``port``, and the world of the CA behind it."""

    world: World
    port: int
    protocol: CmpProtocol = field(default_factory=CmpProtocol)

    def now(self) -> Moment:
        moment = datetime.now(UTC)
        return Moment(moment, moment, ClockState.TRUSTED)

    def run(self, exchange: Any) -> Any:
        with TlsTransport().open(Channel("127.0.0.1", self.port, Plain())) as link:
            return drive(exchange, link)

    def request(
        self, identity: tuple[Chain, SigningKey], key: SigningKey, purpose: Purpose = Purpose.INITIAL
    ) -> EnrollmentRequest:
        renewed = purpose is not Purpose.INITIAL
        subject = identity[0][0].subject if renewed else name("gateway", serial_number=SERIAL)
        return EnrollmentRequest(
            purpose,
            csr.build(key, subject),
            key,
            subject,
            self.world.domain.anchors,
            os.urandom(16),
            os.urandom,
            current=identity if renewed else None,
            intermediates=self.world.domain.intermediates,
            signer=identity,
        )

    def enroll(self, req: EnrollmentRequest) -> Outcome:
        outcome: Outcome = self.run(self.protocol.enroll(req, None, self.now()))
        for _ in range(8):
            if not isinstance(outcome, Pending):
                break
            outcome = self.run(self.protocol.resume(req, outcome.resume, None, self.now()))
        return outcome

    @property
    def idevid(self) -> tuple[Chain, SigningKey]:
        made = self.world.manufacturer.device(SERIAL, self.world.now())
        return made.chain, made.key


@contextmanager
def authority(directory: Path, policy: CmpPolicy | None = None) -> Iterator[Bench]:
    place = peers_directory() / "cmp-ra"
    if not (place / "CmpRa.class").exists():
        missing("Siemens' CmpRaComponent")
    world = World.create(lambda: datetime.now(UTC), secrets.token_bytes)
    world.cmp = policy or CmpPolicy()
    world.sell(SERIAL)
    own, maker, domain = world.domain.registrar, world.manufacturer, world.domain
    (directory / "ra.pem").write_bytes(pki.pem(*own.chain))
    key = own.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    (directory / "ra-key.der").write_bytes(key)
    (directory / "device-anchors.pem").write_bytes(pki.pem(*maker.anchors, *domain.anchors))
    (directory / "ca-anchors.pem").write_bytes(pki.pem(*domain.anchors))
    with running_server(world) as running:
        port = free_port()
        upstream = f"{running.addresses.plain_url}/.well-known/cmp"
        java = ["java", "-cp", f"{place}:{place}/lib/*", "CmpRa", str(directory), str(port), upstream]
        with serving(java, port, directory / "ra.log"):
            yield Bench(world, port)


def shown(bench: Bench, row: str, outcome: Outcome, req: EnrollmentRequest) -> Issued:
    assert isinstance(outcome, Issued), outcome
    assert outcome.chain[0] == bench.world.issued[-1].certificate
    assert spki(outcome.chain[0]) == spki(req.key)
    assert outcome.chain[0].serial_number not in bench.world.revoked
    cmp_table.note(TABLE, row, COLUMN, "yes")
    return outcome


@pytest.mark.parametrize("form", list(Form))
def test_a_request_by_signature(tmp_path: Path, form: Form) -> None:
    with authority(tmp_path) as bench:
        bench.protocol = CmpProtocol(form=form)
        req = bench.request(bench.idevid, pki.new_key())
        word = "ir" if form is Form.AUTO else form.value
        if form is Form.P10CR:  # RFC 9810 §5.3.4 says -1
            refused = bench.enroll(req)
            assert isinstance(refused, Rejected)
            assert "CertReqId must be 0" in refused.detail
            cmp_table.note(
                TABLE, "p10cr, answered with certReqId -1", COLUMN, "the CA's answer is refused by it"
            )
            bench.world.cmp = CmpPolicy(p10_request_id=0)
            word, req = "p10cr, answered with certReqId 0,", bench.request(bench.idevid, pki.new_key())
        shown(bench, f"{word} by signature, certConf", bench.enroll(req), req)


def test_implicit_confirmation(tmp_path: Path) -> None:
    with authority(tmp_path, CmpPolicy(implicit_confirm=True)) as bench:
        req = bench.request(bench.idevid, pki.new_key())
        shown(bench, "ir, confirmed implicitly", bench.enroll(req), req)


def test_polling(tmp_path: Path) -> None:
    with authority(tmp_path, CmpPolicy(polls=2)) as bench:
        req = bench.request(bench.idevid, pki.new_key())
        shown(bench, "ir, polled for through RA and CA", bench.enroll(req), req)


def test_update_and_revocation(tmp_path: Path) -> None:
    with authority(tmp_path, CmpPolicy(implicit_confirm=True)) as bench:
        req = bench.request(bench.idevid, pki.new_key())
        first = bench.enroll(req)
        assert isinstance(first, Issued)
        identity = (first.chain, req.key)
        again = bench.request(identity, pki.new_key(), Purpose.REKEY)
        shown(bench, "kur with a new key", bench.enroll(again), again)
        judge = SignedByAuthority(bench.world.domain.anchors, intermediates=bench.world.domain.intermediates)
        transaction = Transaction(Server(), Signer(*identity), judge, os.urandom, os.urandom(16))
        done = bench.run(revoke(transaction, first.chain[0], Reason.SUPERSEDED, bench.now()))
        assert isinstance(done, Revoked)
        assert first.chain[0].serial_number in bench.world.revoked
        cmp_table.note(TABLE, "rr", COLUMN, "yes")


def code_of(bench: Bench) -> str:
    with pytest.raises(HoldfastError) as caught:
        bench.enroll(bench.request(bench.idevid, pki.new_key()))
    return caught.value.code


def test_a_password_based_mac(tmp_path: Path) -> None:
    with authority(tmp_path) as bench:
        secret = SharedSecret(REFERENCE, SECRET)
        bench.protocol = CmpProtocol(server=Server(profile="pbm"), secret=secret)
        req = bench.request(bench.idevid, pki.new_key())
        shown(bench, "ir under PBM, certConf", bench.enroll(req), req)
        bench.protocol = replace(bench.protocol, secret=replace(secret, secret=b"wrong"))
        assert code_of(bench) == "cmp.protection"
        cmp_table.note(
            TABLE, "ir under PBM, wrong secret", COLUMN, "refused by it; its answer `cmp.protection`"
        )


def test_pbmac1(tmp_path: Path) -> None:
    """It takes PBKDF2's keyLength for bits, where RFC 8018 §A.2 has octets: there is no agreement."""
    with authority(tmp_path) as bench:
        secret = SharedSecret(REFERENCE, SECRET, "pbmac1")
        bench.protocol = CmpProtocol(server=Server(profile="pbmac1"), secret=secret)
        assert code_of(bench) == "cmp.syntax"
        cmp_table.note(TABLE, "ir under PBMAC1", COLUMN, "no: it counts the key's length in bits")


def test_a_stranger(tmp_path: Path) -> None:
    with authority(tmp_path) as bench:
        stranger = pki.end_entity("stranger", pki.ca("Other"))
        req = bench.request((stranger.chain, stranger.key), pki.new_key())
        outcome = bench.enroll(req)
        assert isinstance(outcome, Rejected)
        assert bench.world.issued == []
        cmp_table.note(TABLE, "ir by a stranger's certificate", COLUMN, f"`{outcome.code}`")


def test_the_page_shows_what_ran() -> None:
    if not any(table == TABLE for table, _, _ in cmp_table.SEEN):
        pytest.skip("run with all the tests of this file")
    cmp_table.check(TABLE, (COLUMN,))
