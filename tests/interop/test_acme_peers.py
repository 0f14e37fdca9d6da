"""Our ACME client at servers that others wrote: pebble by the classic challenges, step-ca by a TPM's word."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import wire_pki as pki
from holdfast.host.acme.dns_01 import DnsProgram, DnsUpdates, TsigKey
from holdfast.host.acme.errors import SolverError
from holdfast.host.acme.http_01 import HttpPages
from holdfast.host.acme.solver import Solvers, Way
from holdfast.host.acme.tls_alpn_01 import AlpnServer
from holdfast.host.drive import drive
from holdfast.host.transport import Anchored, Channel, Link, TlsTransport
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.attest import application, attest_with
from holdfast.keys.open import TpmSettings, open_store
from holdfast.keys.tpm import TpmStore
from holdfast.wire import csr
from holdfast.wire.acme.account import ExternalAccount, change_key, enter
from holdfast.wire.acme.ari import ask
from holdfast.wire.acme.authorize import ChallengeFailed
from holdfast.wire.acme.client import AcmeProtocol, revoke
from holdfast.wire.acme.session import AcmeLimits, AcmeProblem, Session
from holdfast.wire.algorithms import spki
from holdfast.wire.chain import Rule, validate
from holdfast.wire.device_names import permanent_identifiers
from holdfast.wire.errors import TrustError
from holdfast.wire.model import (
    Chain,
    ClockState,
    EnrollmentRequest,
    HttpRequest,
    HttpResponse,
    Issued,
    KeyAlgorithm,
    Moment,
    Outcome,
    Pending,
    Purpose,
    SigningKey,
)
from holdfast.wire.tpm import akca
from holdfast.wire.tpm.public import parse_public
from holdfast_factory.attestation_ca import AttestationCa, Policy
from holdfast_factory.authority import Authority
from holdfast_factory.ek import manufacture_ek
from holdfast_factory.swtpm import Swtpm
from interop.acme_peers import TSIG_NAME, TSIG_SECRET, ZONE, Pebble, name_server, pebble, step_ca
from interop.est_peers import Domain, free_port, missing

pytestmark = pytest.mark.interop
LEGS = 60


def now() -> Moment:
    moment = datetime.now(UTC)
    return Moment(moment, moment - timedelta(days=1), ClockState.TRUSTED)


class Gateway:
    """Our client towards one server, with the worker's parts but in the test's hands."""

    def __init__(self, port: int, trust: Chain, directory: str, roots: Chain, **options: Any) -> None:
        self.port, self.trust, self.directory, self.roots = port, trust, directory, roots
        self.account: SigningKey = ec.generate_private_key(ec.SECP256R1())
        self.key: SigningKey = options.pop("key", None) or ec.generate_private_key(ec.SECP256R1())
        self.attest = options.pop("attest", None)
        self.subject = options.pop("subject", x509.Name([]))
        self.names: Sequence[x509.GeneralName] = options.pop("names", ())
        self.options = options

    def open(self) -> Link:
        rule = Rule.tls_server("localhost", allow_cmcra=False)

        def check(chain: Chain) -> None:
            validate(chain, self.trust, now(), rule)

        return TlsTransport().open(Channel("localhost", self.port, Anchored(check)))

    @property
    def protocol(self) -> AcmeProtocol:
        return AcmeProtocol(self.directory, **self.options)

    def request(self) -> EnrollmentRequest:
        return EnrollmentRequest(
            purpose=Purpose.INITIAL,
            csr=csr.build(self.key, self.subject, san=self.names),
            key=self.key,
            subject=self.subject,
            anchors=self.roots,
            transaction=b"t",
            random=secrets.token_bytes,
            account=self.account,
            attest=self.attest,
        )

    def enroll(self) -> Outcome:
        """All legs, over a new connection each, as after a power cut; the server's own pace is waited for."""
        request, protocol = self.request(), self.protocol
        outcome: Outcome = Pending(timedelta(0), b"")
        for _ in range(LEGS):
            assert isinstance(outcome, Pending)
            with self.open() as link:
                outcome = drive(protocol.resume(request, outcome.resume, link.tls, now()), link)
            if not isinstance(outcome, Pending):
                return outcome
        raise AssertionError(f"no end after {LEGS} legs")

    def talk(self, *exchanges: Any) -> list[Any]:
        """Several exchanges on one session; each is made from the session."""
        with self.open() as link:
            session = Session(link.tls, self.account, AcmeLimits(), now())
            drive(session.open(self.directory), link)
            drive(enter(session, external=self.options.get("external")), link)
            return [drive(make(session), link) for make in exchanges]


def issued(outcome: Outcome) -> Issued:
    assert isinstance(outcome, Issued), outcome
    return outcome


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain.create()


@pytest.fixture
def ways() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def at_pebble(server: Pebble, domain: Domain, way: Way, *names: str, **options: Any) -> Gateway:
    return Gateway(
        server.port,
        domain.anchors,
        "/dir",
        server.roots,
        names=[x509.DNSName(n) for n in names],
        prefer=tuple(way.kinds),
        solver=Solvers([way]),
        for_server=True,
        **options,
    )


def verified(chain: Chain, server: Pebble, directory: Path) -> None:
    """A third party's word on what was issued."""
    (directory / "root.pem").write_bytes(pki.pem(*server.roots))
    (directory / "between.pem").write_bytes(pki.pem(*chain[1:]))
    (directory / "leaf.pem").write_bytes(pki.pem(chain[0]))
    files = ("-CAfile", "root.pem", "-untrusted", "between.pem", "leaf.pem")
    done = subprocess.run(
        ["openssl", "verify", "-purpose", "sslserver", *files],
        cwd=directory,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", ["http-01", "tls-alpn-01"])
def test_pebble_by_a_port_of_ours(tmp_path: Path, domain: Domain, ways: ExitStack, kind: str) -> None:
    with pebble(tmp_path, domain) as server:
        way: Way = HttpPages(server.http_port, "127.0.0.1")
        if kind == "tls-alpn-01":
            way = AlpnServer(server.tls_port, now, secrets.token_bytes, "127.0.0.1")
        ways.callback(way.close)
        gateway = at_pebble(server, domain, way, "localhost")
        first = issued(gateway.enroll())
        verified(first.chain, server, tmp_path)
        gateway.key = ec.generate_private_key(ec.SECP384R1())
        second = issued(gateway.enroll())  # a renewal: the authorization may be used again, or not
        assert second.chain[0].serial_number != first.chain[0].serial_number


@pytest.mark.parametrize("program", [False, True], ids=["rfc2136", "command"])
def test_pebble_by_dns(tmp_path: Path, domain: Domain, program: bool) -> None:
    """A wildcard, which no other challenge proves. The records go to BIND; pebble asks it for them."""
    with name_server(tmp_path) as port, pebble(tmp_path, domain, resolver=f"127.0.0.1:{port}") as server:
        key = TsigKey(TSIG_NAME, TSIG_SECRET)
        way: Way = DnsUpdates("127.0.0.1", port, ZONE, key)
        if program:
            script = tmp_path / "hook"
            verb = 'case $1 in present) v="add $2 60 TXT \\"$3\\"";; *) v="delete $2 TXT \\"$3\\"";; esac'
            update = f'printf "server 127.0.0.1 {port}\\nzone {ZONE}\\nupdate $v\\nsend\\n"'
            secret = f"hmac-sha256:{TSIG_NAME}:{TSIG_SECRET}"
            script.write_text(f"#!/bin/sh\n{verb}\n{update} | nsupdate -y {secret}\n")
            script.chmod(0o755)
            way = DnsProgram((str(script),), 20)
        gateway = at_pebble(server, domain, way, f"gateway.{ZONE}", f"*.{ZONE}")
        verified(issued(gateway.enroll()).chain, server, tmp_path)


def test_a_dns_server_that_does_not_know_the_key(tmp_path: Path) -> None:
    from holdfast.wire.acme.challenges import Task
    from holdfast.wire.acme.objects import Identifier

    task = Task("dns-01", Identifier("dns", f"gateway.{ZONE}"), "t", "t.k")
    with name_server(tmp_path) as port:
        wrong = TsigKey(TSIG_NAME, base64.b64encode(b"another secret").decode())
        for key in (wrong, None):
            with pytest.raises(SolverError) as caught:
                DnsUpdates("127.0.0.1", port, ZONE, key).present(task)
            assert caught.value.code == "acme.dns-update"
            assert TSIG_SECRET not in str(caught.value)


def test_pebble_wants_an_external_account(tmp_path: Path, domain: Domain, ways: ExitStack) -> None:
    secret = base64.urlsafe_b64encode(b"m" * 32).decode().rstrip("=")
    with pebble(tmp_path, domain, external={"kid-1": secret}) as server:
        way = HttpPages(server.http_port, "127.0.0.1")
        ways.callback(way.close)
        wrong = ExternalAccount("kid-1", b"n" * 32)
        with pytest.raises(AcmeProblem):
            at_pebble(server, domain, way, "localhost", external=wrong).talk()
        right = ExternalAccount.parse("kid-1", secret)
        verified(
            issued(at_pebble(server, domain, way, "localhost", external=right).enroll()).chain,
            server,
            tmp_path,
        )


def test_pebble_tells_when_to_renew_and_takes_revocation_and_a_new_account_key(
    tmp_path: Path, domain: Domain, ways: ExitStack
) -> None:
    with pebble(tmp_path, domain) as server:
        way = HttpPages(server.http_port, "127.0.0.1")
        ways.callback(way.close)
        gateway = at_pebble(server, domain, way, "localhost", profile="short")
        leaf = issued(gateway.enroll()).chain[0]
        life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
        assert timedelta(days=5) < life < timedelta(days=7)
        (suggestion,) = gateway.talk(lambda s: ask(s, leaf))
        assert leaf.not_valid_before_utc < suggestion.start < suggestion.end <= leaf.not_valid_after_utc
        fresh = ec.generate_private_key(ec.SECP256R1())
        gateway.talk(lambda s: change_key(s, fresh), lambda s: s.post(s.kid or "", None))
        gateway.account = fresh
        gateway.talk(lambda s: revoke(s, leaf, reason=4), lambda s: revoke(s, leaf))


def test_pebble_offers_another_chain(tmp_path: Path, domain: Domain, ways: ExitStack) -> None:
    with pebble(tmp_path, domain, environment={"PEBBLE_ALTERNATE_ROOTS": "2"}) as server:
        way = HttpPages(server.http_port, "127.0.0.1")
        ways.callback(way.close)
        gateway = at_pebble(server, domain, way, "localhost")
        other = server.root(1)
        (name,) = other.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        gateway.roots, gateway.options["alternate"] = (other,), str(name.value)
        chain = issued(gateway.enroll()).chain
        assert chain[-1].issuer == other.subject
        gateway.options["alternate"] = None
        with pytest.raises(TrustError):  # the default chain leads to the first root
            gateway.enroll()


def test_a_name_that_leads_elsewhere_is_refused_by_pebble(
    tmp_path: Path, domain: Domain, ways: ExitStack
) -> None:
    with pebble(tmp_path, domain) as server:
        way = HttpPages(server.http_port, "127.0.0.1")
        ways.callback(way.close)
        gateway = at_pebble(server, domain, way, "nobody.invalid")
        with pytest.raises(ChallengeFailed):
            gateway.enroll()


def test_every_nonce_refused_now_and_then_still_issues(
    tmp_path: Path, domain: Domain, ways: ExitStack
) -> None:
    with pebble(tmp_path, domain, environment={"PEBBLE_WFE_NONCEREJECT": "50"}) as server:
        way = HttpPages(server.http_port, "127.0.0.1")
        ways.callback(way.close)
        gateway = at_pebble(server, domain, way, "localhost")
        gateway.options["limits"] = AcmeLimits(nonces=20)
        verified(issued(gateway.enroll()).chain, server, tmp_path)


# --- device-attest-01 at step-ca


@pytest.fixture(scope="module")
def chip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Swtpm, Chain]]:
    home = tmp_path_factory.mktemp("chip")
    (home / "tpm").mkdir()
    manufacture_ek(home / "tpm", home / "ca")
    anchors = tuple(x509.load_pem_x509_certificates((home / "ca" / "issuercert.pem").read_bytes()))
    with Swtpm(home / "tpm") as tpm:
        yield tpm, anchors


@pytest.fixture
def store(chip: tuple[Swtpm, Chain], tmp_path: Path) -> Iterator[TpmStore]:
    with open_store(TpmSettings(chip[0].tcti, tmp_path / "keys")) as store:
        yield store


class Office:
    """Our attestation CA, which names the device of the test."""

    def __init__(self, makers: Chain, store: TpmStore, serial: str) -> None:
        begin = datetime.now(UTC) - timedelta(hours=1)
        root = pki.ca("Attestation CA", not_before=begin, not_after=begin + timedelta(days=30))
        shown = application(store.attesting(KeyAlgorithm.RSA2048))
        devices = {hashlib.sha256(spki(parse_public(shown.ek_public).key)).hexdigest(): serial}
        made = Authority(root.certificate, root.key)
        ca = AttestationCa(made, Policy(makers, devices), lambda: datetime.now(UTC), secrets.token_bytes)
        self.anchors = ca.anchors
        self.chain: Chain = _run(akca.apply(shown, store.attesting(KeyAlgorithm.RSA2048).activate), ca)


def _run(exchange: Generator[HttpRequest, HttpResponse, Chain], ca: AttestationCa) -> Chain:
    try:
        request = next(exchange)
        while True:
            request = exchange.send(ca.handle(request))
    except StopIteration as stop:
        chain: Chain = stop.value
        return chain


def test_step_ca_believes_the_tpm(
    tmp_path: Path, domain: Domain, chip: tuple[Swtpm, Chain], store: TpmStore
) -> None:
    office = Office(chip[1], store, "HF-0042")
    key = store.generate(KeyRef("tpm2:blob:ldevid-1"), KeySpec())
    with step_ca(tmp_path, domain, office.anchors) as server:
        gateway = Gateway(
            server.port,
            domain.anchors,
            server.directory,
            server.roots,
            key=key.signer(),
            attest=attest_with(store.attesting(KeyAlgorithm.RSA2048), key, office.chain),
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HF-0042")]),
            prefer=("device-attest-01",),
            device=lambda: "HF-0042",
        )
        leaf = issued(gateway.enroll()).chain[0]
        assert leaf.public_key() == key.signer().public_key()
        san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert permanent_identifiers(san) == {"HF-0042"}


def test_step_ca_refuses_what_is_not_true(
    tmp_path: Path, domain: Domain, chip: tuple[Swtpm, Chain], store: TpmStore
) -> None:
    office = Office(chip[1], store, "HF-0042")
    key = store.generate(KeyRef("tpm2:blob:ldevid-1"), KeySpec())
    attest = attest_with(store.attesting(KeyAlgorithm.RSA2048), key, office.chain)
    with step_ca(tmp_path, domain, office.anchors) as server:
        base = Gateway(
            server.port,
            domain.anchors,
            server.directory,
            server.roots,
            key=key.signer(),
            attest=attest,
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "HF-0042")]),
            prefer=("device-attest-01",),
            device=lambda: "HF-0042",
        )
        base.attest = lambda _authorization: attest(b"another.challenge")
        with pytest.raises(ChallengeFailed) as caught:
            base.enroll()
        assert caught.value.code == "acme.bad-attestation-statement"
        base.attest = attest
        base.options["device"] = lambda: "HF-9999"
        with pytest.raises(ChallengeFailed):
            base.enroll()
    (tmp_path / "other").mkdir()
    with step_ca(tmp_path / "other", domain, [pki.ca("Another attestation CA").certificate]) as server:
        base.port = server.port
        base.options["device"] = lambda: "HF-0042"
        with pytest.raises(ChallengeFailed):
            base.enroll()


# --- others' client at our server


def test_lego_enrolls_renews_and_revokes_at_our_simulator(tmp_path: Path) -> None:
    lego = shutil.which("lego")
    if lego is None:
        missing("lego")
    port = free_port()
    arguments = ["serve", "--json", "--directory", str(tmp_path / "sim"), "--http-01-port", str(port)]
    sim = subprocess.Popen(
        [sys.executable, "-m", "holdfast_sim.cli", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert sim.stdout is not None
        told = json.loads(sim.stdout.readline())
        common = [str(lego), "--server", told["acme"], "--email", "a@example.com", "--accept-tos"]
        common += ["--path", str(tmp_path / "lego"), "--domains", "gateway.example"]
        common += ["--http", "--http.port", f"127.0.0.1:{port}"]
        for command in (["run"], ["renew", "--days", "4000", "--no-random-sleep"], ["revoke"]):
            done = subprocess.run(
                [*common, *command],
                env={**os.environ, "LEGO_CA_CERTIFICATES": told["anchors"]},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            if command != ["revoke"]:
                leaf = tmp_path / "lego" / "certificates" / "gateway.example.crt"
                files = ("-CAfile", told["anchors"], "-untrusted", str(leaf), str(leaf))
                pki.openssl("verify", "-purpose", "sslserver", *files)
    finally:
        sim.terminate()
        sim.wait(20)
        assert sim.stdout is not None
        sim.stdout.close()
