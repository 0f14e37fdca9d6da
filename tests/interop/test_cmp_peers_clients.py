"""OpenSSL's ``openssl cmp`` at our simulator. Each test is one row of the second table in ``docs/cmp.md``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

import wire_pki as pki
from holdfast.wire.model import CsrTemplate, KeyAlgorithm
from holdfast_sim.ca import Credential
from holdfast_sim.cmp_desk import CmpPolicy
from holdfast_sim.faults import Fault
from holdfast_sim.serve import running_server
from holdfast_sim.world import World
from interop import cmp_table
from interop.cmp_peers import NEW, OLD, REFERENCE, SECRET, OpenSsl, openssl

pytestmark = pytest.mark.interop

TABLE = "cmp-clients"
SERIAL = "SN-17"
MAC = ("-ref", REFERENCE, "-secret", f"pass:{SECRET}", "-mac", "hmacWithSHA256")


@pytest.fixture(params=[OLD, NEW])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenSsl]:
    with openssl(request.param, tmp_path) as made:
        yield made


@dataclass
class Bench:
    """One OpenSSL before one simulator, with an IDevID of the simulated manufacturer."""

    peer: OpenSsl
    world: World
    port: int

    def write(self, name: str, credential: Credential) -> None:
        (self.peer.outside / f"{name}.pem").write_bytes(pki.pem(*credential.chain))
        (self.peer.outside / f"{name}-key.pem").write_bytes(pki.key_pem(credential.key))

    def key(self, name: str) -> None:
        (self.peer.outside / name).write_bytes(pki.key_pem(pki.new_key()))

    def cmp(self, command: str, *options: str, path: str = "/.well-known/cmp") -> bool:
        """Run ``openssl cmp``; whether it succeeded."""
        url = f"127.0.0.1:{self.port}{path}"
        trust = ("-trusted", "anchors.pem", "-verbosity", "6")
        return self.peer.run("cmp", "-cmd", command, "-server", url, *trust, *options).returncode == 0

    def signed(self, name: str = "idevid") -> tuple[str, ...]:
        return ("-cert", f"{name}.pem", "-key", f"{name}-key.pem", "-extracerts", f"{name}.pem")

    def enroll(self, command: str, *options: str) -> x509.Certificate | None:
        """Ask for a certificate for a new key; None if it did not come."""
        self.key("new-key.pem")
        out = self.peer.outside / "new.pem"
        out.unlink(missing_ok=True)
        subject = ("-subject", f"/CN=gateway/serialNumber={SERIAL}") if command != "kur" else ()
        wanted = ("-newkey", "new-key.pem", *subject, "-certout", "new.pem", "-out_trusted", "anchors.pem")
        if not self.cmp(command, *wanted, *options):
            return None
        return x509.load_pem_x509_certificate(out.read_bytes())


@contextmanager
def simulator(peer: OpenSsl, policy: CmpPolicy, faults: Sequence[str] = ()) -> Iterator[Bench]:
    world = World.create(lambda: datetime.now(UTC), secrets.token_bytes)
    world.cmp = replace(policy, secrets={REFERENCE: SECRET.encode()})
    world.sell(SERIAL)
    (peer.outside / "anchors.pem").write_bytes(pki.pem(*world.domain.anchors))
    with running_server(world, map(Fault.parse, faults)) as running:
        bench = Bench(peer, world, running.addresses.plain[1])
        bench.write("idevid", world.manufacturer.device(SERIAL, world.now()))
        yield bench


def shown(bench: Bench, row: str, certificate: x509.Certificate | None) -> None:
    """The row holds: the client has what the simulator issued last, and confirmed it."""
    assert certificate is not None
    assert certificate == bench.world.issued[-1].certificate
    assert certificate.serial_number not in bench.world.revoked
    cmp_table.note(TABLE, row, bench.peer.label, "yes")


@pytest.mark.parametrize("command", ["ir", "cr"])
def test_a_request_by_signature(peer: OpenSsl, command: str) -> None:
    with simulator(peer, CmpPolicy()) as bench:
        shown(bench, f"{command} by signature, certConf", bench.enroll(command, *bench.signed()))
        assert any(c.confirmed for c in bench.world.cmp_desk.conversations.values())


def test_p10cr(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy()) as bench:
        bench.key("new-key.pem")
        subject = f"/CN=gateway/serialNumber={SERIAL}"
        peer.run("req", "-new", "-key", "new-key.pem", "-subj", subject, "-out", "csr.pem")
        assert bench.cmp("p10cr", "-csr", "csr.pem", "-certout", "new.pem", *bench.signed())
        found = x509.load_pem_x509_certificate((peer.outside / "new.pem").read_bytes())
        shown(bench, "p10cr by signature", found)


def test_implicit_confirmation(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy(implicit_confirm=True)) as bench:
        shown(bench, "ir, confirmed implicitly", bench.enroll("ir", "-implicit_confirm", *bench.signed()))
        assert not any(c.confirmed for c in bench.world.cmp_desk.conversations.values())


def test_polling(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy(polls=2)) as bench:
        shown(bench, "ir, polled for twice", bench.enroll("ir", *bench.signed()))


def test_a_delayed_confirmation(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy(other_polls=1)) as bench:
        row = "pkiconf, polled for"
        if peer.label == OLD:  # it knows polling for certificates only
            assert bench.enroll("ir", *bench.signed()) is None
            cmp_table.note(TABLE, row, peer.label, "not known to it")
            return
        shown(bench, row, bench.enroll("ir", *bench.signed()))


def test_kur_and_rr(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy(implicit_confirm=True)) as bench:
        first = bench.enroll("ir", "-implicit_confirm", *bench.signed())
        assert first is not None
        (peer.outside / "own-key.pem").write_bytes((peer.outside / "new-key.pem").read_bytes())
        chain = (first, *bench.world.domain.issuing.chain)
        (peer.outside / "own.pem").write_bytes(pki.pem(*chain))
        own = bench.signed("own")
        updated = bench.enroll("kur", "-oldcert", "own.pem", "-implicit_confirm", *own)
        shown(bench, "kur with a new key", updated)
        assert bench.cmp("rr", "-oldcert", "own.pem", "-revreason", "4", *own)
        assert first.serial_number in bench.world.revoked
        cmp_table.note(TABLE, "rr", peer.label, "yes")


def test_ir_under_pbm(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy()) as bench:
        shown(bench, "ir under PBM with HMAC-SHA256", bench.enroll("ir", *MAC))


def test_polling_under_pbm(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy(polls=1)) as bench:
        shown(bench, "ir under PBM, polled for", bench.enroll("ir", *MAC))


def test_hmac_sha1(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy()) as bench:
        assert bench.enroll("ir", *MAC[:4]) is None
        assert bench.world.issued == []
        cmp_table.note(TABLE, "ir under PBM with HMAC-SHA1", peer.label, "refused by us")


def test_a_wrong_secret(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy()) as bench:
        assert bench.enroll("ir", *MAC[:2], "-secret", "pass:wrong", *MAC[4:]) is None
        assert bench.world.issued == []
        cmp_table.note(TABLE, "ir under PBM, wrong secret", peer.label, "refused by us")


def test_a_profile_in_the_path(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy()) as bench:
        bench.key("new-key.pem")
        options = (
            "-newkey",
            "new-key.pem",
            "-subject",
            f"/CN=gateway/serialNumber={SERIAL}",
            *bench.signed(),
        )
        path = "/.well-known/cmp/p/gateway/initialization"
        assert bench.cmp("ir", *options, "-certout", "new.pem", path=path)
        cmp_table.note(TABLE, "ir at a path with profile and operation", peer.label, "yes")


def test_the_client_refuses_what_we_spoil(peer: OpenSsl) -> None:
    """The other way about: its checks find our faults."""
    for kind in ("tampered", "unprotected", "wrong-nonce", "wrong-transaction", "foreign-signer"):
        with simulator(peer, CmpPolicy(), [f"cmp-ir:{kind}"]) as bench:
            assert bench.enroll("ir", *bench.signed()) is None
            cmp_table.note(TABLE, f"our fault `{kind}`", peer.label, "refused by it")


def test_a_certificate_for_another_key_is_declined(peer: OpenSsl) -> None:
    with simulator(peer, CmpPolicy(), ["cmp-ir:key-mismatch"]) as bench:
        assert bench.enroll("ir", *bench.signed()) is None
        assert bench.world.issued[-1].certificate.serial_number in bench.world.revoked
        cmp_table.note(TABLE, "our fault `key-mismatch`", peer.label, "declined by certConf, revoked by us")


INFO = {
    "caCerts": ("-cacertsout", "out.pem"),
    "rootCaCert": ("-oldwithold", "anchors.pem", "-newwithnew", "out.pem"),
    "certReqTemplate": ("-template", "out.der"),
    "crlStatusList": ("-crlcert", "issuing.pem", "-crlout", "out.crl"),
}


@pytest.mark.parametrize("info", INFO)
def test_genm(peer: OpenSsl, info: str) -> None:
    policy = CmpPolicy(template=CsrTemplate(key=KeyAlgorithm.P384, subject=(("2.5.4.3", None),)))
    row = f"genm {info}"
    with simulator(peer, policy) as bench:
        issuing = bench.world.domain.issuing.certificate
        (peer.outside / "issuing.pem").write_bytes(pki.pem(issuing))
        if info == "rootCaCert":
            bench.world.roll_over()
        if peer.label == OLD:
            if info == "caCerts":
                assert bench.cmp("genm", "-infotype", "caCerts", *bench.signed())
                cmp_table.note(TABLE, row, peer.label, "accepted, not shown")
            else:
                cmp_table.note(TABLE, row, peer.label, "not known to it")
            return
        assert bench.cmp("genm", "-infotype", info, *INFO[info], *bench.signed())
        made = (peer.outside / INFO[info][-1]).read_bytes()
        if info == "caCerts":
            expected = bench.world.domain.cacerts
            assert tuple(x509.load_pem_x509_certificates(made)) == expected
        elif info == "rootCaCert":
            assert x509.load_pem_x509_certificate(made) == bench.world.domain.anchors[0]
        elif info == "crlStatusList":
            assert x509.load_der_x509_crl(made).is_signature_valid(issuing.public_key())
        cmp_table.note(TABLE, row, peer.label, "yes")


def test_the_page_shows_what_ran() -> None:
    seen = {column for table, _, column in cmp_table.SEEN if table == TABLE}
    if not {OLD, NEW} <= seen:
        pytest.skip("run with all the tests of this file")
    cmp_table.check(TABLE, (OLD, NEW))
