"""Our CMP client at servers that others wrote. Each test is one row of the first table in ``docs/cmp.md``."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.host.drive import drive
from holdfast.host.transport import Channel, Link, Plain, TlsTransport
from holdfast.keys.api import KeySpec, KeyStore
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11_uri import parse
from holdfast.keys.tpm import TpmStore
from holdfast.wire import csr
from holdfast.wire.algorithms import spki
from holdfast.wire.cmp.client import CmpProtocol, Form
from holdfast.wire.cmp.protection import SharedSecret, SignedByAuthority, Signer
from holdfast.wire.cmp.revocation import Revoked, revoke
from holdfast.wire.cmp.support import Question, ask, ca_certs, crl_update
from holdfast.wire.cmp.transaction import Server, Transaction
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import (
    ClockState,
    EnrollmentRequest,
    Issued,
    KeyAlgorithm,
    Moment,
    Outcome,
    Pending,
    Purpose,
    Rejected,
    SigningKey,
)
from holdfast.wire.revocation.reason import Reason
from holdfast_factory.softhsm import make_token
from holdfast_factory.swtpm import Swtpm
from interop import cmp_table
from interop.cmp_peers import KEYED, NEW, OLD, REFERENCE, SECRET, SIGNED, OpenSsl, Realm, openssl
from keys.token_home import need

pytestmark = pytest.mark.interop

TABLE = "cmp-servers"
SUBJECT = pki.name("gateway")
SAN = pki.dns("gateway.example")
PATH = Server(path="/pkix/")
IMPLICIT = (*SIGNED, "-grant_implicitconf")


def now() -> Moment:
    moment = datetime.now(UTC)
    return Moment(moment, moment, ClockState.TRUSTED)


@pytest.fixture(params=[OLD, NEW])
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenSsl]:
    with openssl(request.param, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def realm() -> Realm:
    return Realm.create()


@dataclass
class Device:
    """Our client at one server, over one connection as long as it lives."""

    peer: OpenSsl
    realm: Realm
    options: tuple[str, ...] = SIGNED
    protocol: CmpProtocol = field(default_factory=lambda: CmpProtocol(server=PATH))
    identity: tuple[tuple[x509.Certificate, ...], SigningKey] | None = None
    serial: int | None = None

    def __post_init__(self) -> None:
        self.identity = self.identity or (self.realm.device.chain, self.realm.device.key)

    def request(self, key: SigningKey, purpose: Purpose = Purpose.INITIAL) -> EnrollmentRequest:
        assert self.identity is not None
        chain, signer = self.identity
        subject = SUBJECT if purpose is Purpose.INITIAL else chain[0].subject
        san = SAN if purpose is Purpose.INITIAL else ()
        self.realm.certificate(key, subject, san, self.serial)
        return EnrollmentRequest(
            purpose,
            csr.build(key, subject, san=san),
            key,
            subject,
            (self.realm.authority.certificate,),
            os.urandom(16),
            os.urandom,
            current=None if purpose is Purpose.INITIAL else (chain, signer),
            signer=(chain, signer),
        )

    def at(self, act: Callable[[Link], Any]) -> Any:
        """Run *act* on a link to the server."""
        self.realm.write(self.peer.outside)
        with (
            self.peer.serving(*self.options) as port,
            TlsTransport().open(Channel("127.0.0.1", port, Plain())) as link,
        ):
            return act(link)

    def enroll(self, key: SigningKey | None = None, purpose: Purpose = Purpose.INITIAL) -> Outcome:
        req = self.request(key or pki.new_key(), purpose)
        if "-rsp_cert" not in self.options:
            self.options = (*self.options, "-rsp_cert", "issued.pem")

        def act(link: Link) -> Outcome:
            outcome = drive(self.protocol.enroll(req, None, now()), link)
            for _ in range(8):
                if not isinstance(outcome, Pending):
                    break
                outcome = drive(self.protocol.resume(req, outcome.resume, None, now()), link)
            return outcome

        outcome: Outcome = self.at(act)
        if isinstance(outcome, Issued):
            assert spki(outcome.chain[0]) == spki(req.key)
        return outcome

    def transaction(self) -> Transaction:
        assert self.identity is not None
        judge = SignedByAuthority((self.realm.authority.certificate,))
        return Transaction(PATH, Signer(*self.identity), judge, os.urandom, os.urandom(16))

    def question(self, question: Question[Any]) -> Any:
        def act(link: Link) -> Any:
            return drive(ask(self.transaction(), question, now()), link)

        return self.at(act)


def shown(peer: OpenSsl, row: str, outcome: object) -> None:
    """The row holds: the outcome is a certificate."""
    assert isinstance(outcome, Issued), outcome
    cmp_table.note(TABLE, row, peer.label, "yes")


def told(peer: OpenSsl, row: str, act: Callable[[], Any], *codes: str) -> None:
    """The row holds: it ends with one of *codes*, as an error or a refusal."""
    try:
        outcome = act()
    except HoldfastError as error:
        code = error.code
    else:
        assert isinstance(outcome, Rejected), outcome
        code = outcome.code
    assert code in codes, code
    cmp_table.note(TABLE, row, peer.label, f"`{code}`")


def keyed(peer: OpenSsl, realm: Realm, *options: str, **changes: Any) -> Device:
    secret = SharedSecret(REFERENCE, SECRET.encode(), hmac_sha1=True)
    protocol = CmpProtocol(server=PATH, secret=replace(secret, **changes))
    return Device(peer, realm, (*KEYED, *options), protocol)


def test_ir(peer: OpenSsl, realm: Realm) -> None:
    shown(peer, "ir by signature, certConf", Device(peer, realm).enroll())


def test_ir_implicit(peer: OpenSsl, realm: Realm) -> None:
    shown(peer, "ir, confirmed implicitly", Device(peer, realm, IMPLICIT).enroll())


def test_polling(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-poll_count", "3", "-check_after", "1"))
    shown(peer, "ir, polled for three times", device.enroll())


@pytest.mark.parametrize("form", [Form.CR, Form.P10CR])
def test_cr(peer: OpenSsl, realm: Realm, form: Form) -> None:
    device = Device(peer, realm, protocol=CmpProtocol(server=PATH, form=form))
    shown(peer, f"{form.value} by signature", device.enroll())


@pytest.mark.parametrize("kind", ["p384", "rsa2048"])
def test_other_keys(peer: OpenSsl, realm: Realm, kind: Any) -> None:
    key = pki.new_key(kind)
    identity = pki.end_entity("device", realm.authority, key=key, not_before=realm.begin, not_after=realm.end)
    device = Device(peer, realm, identity=(identity.chain, key))
    shown(peer, f"ir for and by a key of {kind}", device.enroll(key))


def test_kur(peer: OpenSsl, realm: Realm) -> None:
    # The older server compares oldCertID with the certificate that it is about to hand out.
    serial = realm.device.certificate.serial_number if peer.label == OLD else None
    device = Device(peer, realm, serial=serial)
    shown(peer, "kur with a new key", device.enroll(purpose=Purpose.REKEY))
    device = Device(peer, realm, serial=serial)
    shown(peer, "kur with the same key", device.enroll(realm.device.key, Purpose.RENEW))


def test_rr(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-rsp_cert", "device.pem"))

    def act(link: Link) -> Any:
        leaf = realm.device.certificate
        return drive(revoke(device.transaction(), leaf, Reason.SUPERSEDED, now()), link)

    assert isinstance(device.at(act), Revoked)
    cmp_table.note(TABLE, "rr", peer.label, "yes")


def test_ir_under_pbm(peer: OpenSsl, realm: Realm) -> None:
    shown(peer, "ir under PBM, answers with HMAC-SHA1 allowed", keyed(peer, realm).enroll())


def test_polling_under_pbm(peer: OpenSsl, realm: Realm) -> None:
    device = keyed(peer, realm, "-poll_count", "1", "-check_after", "1")
    shown(peer, "ir under PBM, polled for", device.enroll())


def test_hmac_sha1_is_refused_unless_it_is_allowed(peer: OpenSsl, realm: Realm) -> None:
    row = "ir under PBM, answers with HMAC-SHA1 not allowed"
    told(peer, row, keyed(peer, realm, hmac_sha1=False).enroll, "cmp.mac-algorithm")


def test_capubs_under_pbm(peer: OpenSsl, realm: Realm) -> None:
    device = keyed(peer, realm, "-rsp_capubs", "ca.pem", "-grant_implicitconf")
    request = device.request
    device.request = lambda *a: replace(request(*a), anchors=())  # type: ignore[method-assign]
    shown(peer, "ir under PBM, the root from caPubs", device.enroll())


def test_a_wrong_secret(peer: OpenSsl, realm: Realm) -> None:
    row = "ir under PBM, wrong secret"
    told(peer, row, keyed(peer, realm, secret=b"wrong").enroll, "cmp.protection")


def test_pbmac1(peer: OpenSsl, realm: Realm) -> None:
    """OpenSSL does not know it, takes it for a signature, and says so under its secret."""
    told(peer, "ir under PBMAC1", keyed(peer, realm, kind="pbmac1").enroll, "cmp.rejected")


def test_pvno_3(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, protocol=CmpProtocol(server=PATH, pvno=3))
    if peer.label == OLD:
        told(
            peer, "ir with pvno 3", device.enroll, "cmp.unprotected-error", "cmp.rejected", "cmp.content-type"
        )
        return
    shown(peer, "ir with pvno 3", device.enroll())


def test_a_rejection(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-pkistatus", "2", "-failure", "9", "-statusstring", "no"))
    told(peer, "a rejection, protected", device.enroll, "cmp.rejected")


def test_an_error(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-send_error"))
    told(peer, "an error, protected", device.enroll, "cmp.rejected")


def test_an_unprotected_error(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-send_error", "-send_unprot_err"))
    told(peer, "an error, unprotected", device.enroll, "cmp.unprotected-error")


def test_unprotected_answers(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-send_unprotected"))
    told(peer, "answers without protection", device.enroll, "cmp.unprotected")


def test_a_foreign_server(peer: OpenSsl, realm: Realm) -> None:
    other = Realm.create()
    other.device = realm.device
    device = Device(peer, realm, (*SIGNED[:4], "-srv_trusted", "device.pem", "-partial_chain"))
    request = device.request
    device.request = lambda *a: replace(request(*a), anchors=(other.authority.certificate,))  # type: ignore[method-assign]
    told(peer, "answers signed under another root", device.enroll, "chain.untrusted", "chain.bad-signature")


def test_genm_ca_certs(peer: OpenSsl, realm: Realm) -> None:
    device = Device(peer, realm, (*SIGNED, "-rsp_cert", "device.pem", "-rsp_capubs", "ca.pem"))
    row = "genm caCerts"
    if peer.label == OLD:
        assert device.question(ca_certs()) == ()
        cmp_table.note(TABLE, row, peer.label, "an empty genp")
        return
    assert device.question(ca_certs()) == (realm.authority.certificate,)
    cmp_table.note(TABLE, row, peer.label, "yes")


def test_genm_crls(peer: OpenSsl, realm: Realm) -> None:
    row = "genm crlStatusList"
    (peer.outside / "crl.pem").write_bytes(_crl(realm))
    options = (*SIGNED, "-rsp_cert", "device.pem")
    question = crl_update(realm.authority.certificate.subject)
    if peer.label == OLD:
        told(peer, row, lambda: Device(peer, realm, options).question(question), "cmp.body", "cmp.rejected")
        return
    device = Device(peer, realm, (*options, "-rsp_crl", "crl.pem"))
    (found,) = device.question(question)
    assert found.is_signature_valid(realm.authority.certificate.public_key())
    cmp_table.note(TABLE, row, peer.label, "yes")


def _crl(realm: Realm) -> bytes:
    builder = x509.CertificateRevocationListBuilder(
        realm.authority.certificate.subject, realm.begin, realm.end
    )
    return builder.sign(realm.authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


ALGORITHMS = (("P-256", KeyAlgorithm.P256), ("RSA-2048", KeyAlgorithm.RSA2048))


def by_hardware(peer: OpenSsl, realm: Realm, store: KeyStore, title: str) -> None:
    """One key of *store* protects the messages, another gets the certificate."""
    for n, (name, algorithm) in enumerate(ALGORITHMS, start=1):
        signer = store.generate(store.plan("ldevid", n), KeySpec(algorithm)).signer()
        wanted = store.generate(store.plan("ldevid", n + 10), KeySpec(algorithm)).signer()
        identity = realm.certificate(signer, pki.name("device"))
        device = Device(peer, realm, identity=(identity.chain, signer))
        shown(peer, f"ir by and for keys {title}, {name}", device.enroll(wanted))


@pytest.mark.tpm
def test_the_keys_are_in_a_tpm(peer: OpenSsl, realm: Realm, tmp_path: Path) -> None:
    with Swtpm(tmp_path / "tpm") as tpm, TpmStore(tpm.tcti, tmp_path / "keys") as store:
        by_hardware(peer, realm, store, "in a TPM")


@pytest.mark.pkcs11
def test_the_keys_are_on_a_token(peer: OpenSsl, realm: Realm, tmp_path: Path) -> None:
    need("softhsm2-util:softhsm2")
    token = make_token(tmp_path / "token", "gateway", "2468-gateway")
    token.see()
    settings = Pkcs11Settings(token.module, parse(token.uri), tmp_path / "keys", lambda: b"2468-gateway")
    with open_store(settings) as store:
        by_hardware(peer, realm, store, "on a PKCS#11 token")


def test_the_page_shows_what_ran() -> None:
    seen = {column for table, _, column in cmp_table.SEEN if table == TABLE}
    if not {OLD, NEW} <= seen:
        pytest.skip("run with all the tests of this file")
    cmp_table.check(TABLE, (OLD, NEW))
