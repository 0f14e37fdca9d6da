"""OpenSSL as an independent peer of OCSP and CRLs: it answers us, and it reads the simulator."""

from __future__ import annotations

import re
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as library

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.transport import Channel, Plain, TlsTransport
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, HttpRequest, Moment
from holdfast.wire.revocation import crl, ocsp
from holdfast.wire.revocation.standing import Standing
from holdfast_sim import standing
from holdfast_sim.faults import FaultPlan
from holdfast_sim.issue import order
from holdfast_sim.serve import running_server
from holdfast_sim.world import StandingPolicy, World
from tools import need

pytestmark = pytest.mark.interop
NOW = datetime.now(UTC).replace(microsecond=0)
BEGIN, END = NOW - timedelta(days=1), NOW + timedelta(days=30)
MOMENT = Moment(NOW, BEGIN, ClockState.TRUSTED)
OCSP_SIGNING = x509.oid.ExtendedKeyUsageOID.OCSP_SIGNING


@dataclass(frozen=True)
class Domain:
    """A CA of today with a good and a revoked device, in OpenSSL's files."""

    home: Path
    authority: pki.Identity
    good: pki.Identity
    revoked: pki.Identity
    responder: pki.Identity

    def openssl(self, *arguments: object, data: bytes | None = None, ok: bool = True) -> str:
        done = subprocess.run(
            [need("openssl", "openssl"), *map(str, arguments)],
            input=data,
            capture_output=True,
            cwd=self.home,
            check=False,
        )
        said = (done.stdout + done.stderr).decode(errors="replace")
        assert (done.returncode == 0) == ok, said
        return said


@pytest.fixture
def domain(tmp_path: Path) -> Domain:
    authority = pki.ca("Owner", not_before=BEGIN, not_after=END)
    leaves = [pki.end_entity(n, authority, not_before=BEGIN, not_after=END) for n in ("good", "revoked")]
    responder = pki.end_entity("responder", authority, eku=[OCSP_SIGNING], not_before=BEGIN, not_after=END)
    made = Domain(tmp_path, authority, *leaves, responder)
    for name, holder in (("ca", authority), ("good", leaves[0]), ("revoked", leaves[1]), ("ocsp", responder)):
        (tmp_path / f"{name}.pem").write_bytes(holder.certificate.public_bytes(Encoding.PEM))
        (tmp_path / f"{name}.key").write_bytes(pki.key_pem(holder.key))
    dates = [d.strftime("%y%m%d%H%M%SZ") for d in (END, NOW - timedelta(hours=2))]
    (tmp_path / "index.txt").write_text(
        f"V\t{dates[0]}\t\t{_hex(leaves[0])}\tunknown\t/CN=good\n"
        f"R\t{dates[0]}\t{dates[1]},keyCompromise\t{_hex(leaves[1])}\tunknown\t/CN=revoked\n"
    )
    return made


def _hex(holder: pki.Identity) -> str:
    text = f"{holder.certificate.serial_number:X}"
    return text.zfill(len(text) + len(text) % 2)


# --- OpenSSL answers us ------------------------------------------------------------------------------


@contextmanager
def responder(domain: Domain, *, signer: str) -> Iterator[int]:
    """``openssl ocsp -port 0``; it says on which port it listens."""
    command = [need("openssl", "openssl"), "ocsp", "-port", "0", "-index", "index.txt", "-CA", "ca.pem"]
    command += ["-rsigner", f"{signer}.pem", "-rkey", f"{signer}.key", "-ndays", "1"]
    with subprocess.Popen(
        command, cwd=domain.home, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for line in process.stdout:
                if found := re.search(r"ACCEPT\s.*:(\d+)", line):
                    yield int(found[1])
                    return
            pytest.fail("openssl ocsp did not say where it listens")
        finally:
            process.kill()


def told(domain: Domain, port: int, holder: pki.Identity) -> Standing:
    question = ocsp.ask(holder.certificate, domain.authority.certificate, secrets.token_bytes)
    with TlsTransport().open(Channel("127.0.0.1", port, Plain())) as link:
        return drive(ocsp.exchange(question, "/", MOMENT), link)


@pytest.mark.parametrize("signer", ["ca", "ocsp"])
def test_openssl_as_the_responder(domain: Domain, signer: str) -> None:
    with responder(domain, signer=signer) as port:
        assert not told(domain, port, domain.good).revoked
        standing_of = told(domain, port, domain.revoked)
        assert standing_of.revoked
        assert standing_of.reason == "keyCompromise"
        assert standing_of.at == NOW - timedelta(hours=2)
        with pytest.raises(RemoteProtocolError) as caught:
            told(domain, port, domain.responder)
        assert caught.value.code == "ocsp.unknown"


def test_openssl_as_a_responder_without_the_right(domain: Domain) -> None:
    with responder(domain, signer="good") as port, pytest.raises(TrustError) as caught:
        told(domain, port, domain.revoked)
    assert caught.value.code == "ocsp.signer"


def test_openssl_reads_our_request(domain: Domain) -> None:
    question = ocsp.ask(domain.good.certificate, domain.authority.certificate, lambda n: b"\xab" * n)
    (domain.home / "request.der").write_bytes(question.der)
    said = domain.openssl("ocsp", "-reqin", "request.der", "-req_text", "-noverify")
    assert f"{domain.good.certificate.serial_number:X}" in said
    assert "OCSP Nonce" in said
    answer = domain.home / "answer.der"
    domain.openssl(
        *("ocsp", "-reqin", "request.der", "-index", "index.txt", "-CA", "ca.pem", "-rsigner", "ca.pem"),
        *("-rkey", "ca.key", "-respout", answer, "-ndays", "1", "-noverify"),
    )
    assert not ocsp.judge(answer.read_bytes(), question, MOMENT).revoked


def test_a_list_by_openssl(domain: Domain) -> None:
    (domain.home / "ca.cnf").write_text(
        "[ca]\ndefault_ca=me\n[me]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\n"
        "default_crl_days=2\ncrl_extensions=ext\n[ext]\nauthorityKeyIdentifier=keyid\n"
    )
    (domain.home / "number").write_text("01\n")
    domain.openssl(
        *("ca", "-gencrl", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "list.pem")
    )
    text = (domain.home / "list.pem").read_bytes()
    issuer = domain.authority.certificate
    assert not crl.judge(text, domain.good.certificate, issuer, MOMENT).revoked
    revoked = crl.judge(text, domain.revoked.certificate, issuer, MOMENT)
    assert (revoked.revoked, revoked.reason) == (True, "keyCompromise")


# --- OpenSSL reads the simulator ----------------------------------------------------------------------


@pytest.fixture
def world() -> World:
    made = World.create(lambda: datetime.now(UTC), secrets.token_bytes)
    made.standing = StandingPolicy("http://127.0.0.1:1")
    return made


def issued(world: World) -> x509.Certificate:
    """A device certificate of the simulated CA."""
    key = pki.new_key()
    return order(world, key.public_key(), pki.name("gateway"), ()).sign()


@pytest.mark.parametrize("delegate", [False, True])
@pytest.mark.parametrize("revoked", [False, True])
def test_openssl_as_the_client_of_the_simulator(
    tmp_path: Path, world: World, delegate: bool, revoked: bool
) -> None:
    world.standing = StandingPolicy("http://127.0.0.1:1", delegate=delegate)
    leaf = issued(world)
    if revoked:
        world.revoked.add(leaf.serial_number)
    (tmp_path / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (tmp_path / "issuer.pem").write_bytes(world.domain.issuing.certificate.public_bytes(Encoding.PEM))
    (tmp_path / "root.pem").write_bytes(world.domain.root.certificate.public_bytes(Encoding.PEM))
    with running_server(world) as running:
        url = f"{running.addresses.plain_url}{standing.OCSP_PATH}"
        done = subprocess.run(
            [
                *(need("openssl", "openssl"), "ocsp", "-url", url, "-issuer", "issuer.pem"),
                *("-cert", "leaf.pem", "-CAfile", "root.pem", "-verify_other", "issuer.pem"),
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
        )
        with TlsTransport().open(Channel(*running.addresses.plain, Plain())) as link:
            listed = link.send(HttpRequest("GET", standing.CRL_PATH)).body
    said = done.stdout + done.stderr
    assert "Response verify OK" in said, said
    assert f"leaf.pem: {'revoked' if revoked else 'good'}" in said
    (tmp_path / "list.der").write_bytes(listed)
    done = subprocess.run(
        [
            *(need("openssl", "openssl"), "crl", "-inform", "DER", "-in", "list.der", "-noout", "-text"),
            *("-CAfile", "issuer.pem", "-verify"),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert "verify OK" in done.stdout + done.stderr, done.stdout + done.stderr
    assert (f"{leaf.serial_number:X}" in done.stdout) == revoked


def test_the_simulator_s_answer_is_what_the_library_reads(world: World) -> None:
    leaf = issued(world)
    question = ocsp.ask(leaf, world.domain.issuing.certificate, secrets.token_bytes)
    der = standing.answer(world, FaultPlan(), library.load_der_ocsp_request(question.der), question.nonce)
    assert not ocsp.judge(der, question, world.moment()).revoked
