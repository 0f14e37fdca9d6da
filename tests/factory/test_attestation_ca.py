"""The attestation CA and real (software) TPMs: who gets a certificate for an attestation key, and who does
not."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.attest import application, attest_with
from holdfast.keys.open import TpmSettings, open_store
from holdfast.keys.tpm import TpmStore
from holdfast.wire.acme.attest import judge, read_object
from holdfast.wire.acme.objects import Identifier
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import HoldfastError, KeyStoreError, RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, HttpRequest, HttpResponse, Issued, Moment
from holdfast.wire.tpm import akca
from holdfast.wire.tpm.public import parse_public
from holdfast_factory.attestation_ca import PATIENCE, AttestationCa, Policy
from holdfast_factory.authority import Authority
from holdfast_factory.ek import manufacture_ek
from holdfast_factory.swtpm import Swtpm
from wire.acme_parties import Case

pytestmark = pytest.mark.tpm
NOW = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)  # the chips are made after this
MOMENT = Moment(NOW, NOW - timedelta(days=1), ClockState.TRUSTED)


@dataclass(frozen=True)
class Maker:
    """A maker of TPMs with two chips of its production."""

    anchors: tuple[x509.Certificate, ...]
    first: Swtpm
    second: Swtpm


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Maker]:
    home = tmp_path_factory.mktemp("maker")
    for name in ("first", "second"):
        (home / name).mkdir()
        manufacture_ek(home / name, home / "ca")
    anchors = tuple(x509.load_pem_x509_certificates((home / "ca" / "issuercert.pem").read_bytes()))
    with Swtpm(home / "first") as first, Swtpm(home / "second") as second:
        yield Maker(anchors, first, second)


@pytest.fixture
def store(maker: Maker, tmp_path: Path) -> Iterator[TpmStore]:
    with open_store(TpmSettings(maker.first.tcti, tmp_path / "keys")) as store:
        yield store


class Office:
    """An attestation CA whose clock the test moves."""

    def __init__(self, anchors: tuple[x509.Certificate, ...], devices: dict[str, str] | None = None) -> None:
        root = pki.ca(
            "Attestation CA", not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=900)
        )
        self.now = NOW
        authority = Authority(root.certificate, root.key)
        self.ca = AttestationCa(authority, Policy(anchors, devices), lambda: self.now, secrets.token_bytes)

    def serve(self, shown: akca.Application, store: TpmStore) -> tuple[x509.Certificate, ...]:
        """The whole protocol, through the HTTP face."""
        exchange = akca.apply(shown, store.attesting().activate)
        request = next(exchange)
        try:
            while True:
                request = exchange.send(self.ca.handle(request))
        except StopIteration as stop:
            chain: tuple[x509.Certificate, ...] = stop.value
            return chain


def fingerprint(shown: akca.Application) -> str:
    return hashlib.sha256(spki(parse_public(shown.ek_public).key)).hexdigest()


def refused(office: Office, shown: akca.Application, store: TpmStore, code: str) -> None:
    with pytest.raises(HoldfastError) as caught:
        office.serve(shown, store)
    assert caught.value.code == "akca.refused"
    assert code in caught.value.detail


def test_a_tpm_of_a_known_maker_gets_a_certificate(maker: Maker, store: TpmStore, tmp_path: Path) -> None:
    shown = application(store.attesting())
    office = Office(maker.anchors)
    (leaf,) = office.serve(shown, store)
    assert leaf.public_key() == parse_public(shown.ak_public).key
    assert not list(leaf.subject)
    san = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert san.critical
    tpm = san.value.get_values_for_type(x509.DirectoryName)[0]
    assert {a.oid.dotted_string for a in tpm} == {"2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"}
    (tmp_path / "leaf.pem").write_bytes(pki.pem(leaf))
    (tmp_path / "ca.pem").write_bytes(pki.pem(*office.ca.anchors))
    files = ("-CAfile", str(tmp_path / "ca.pem"), str(tmp_path / "leaf.pem"))
    pki.openssl("verify", "-ignore_critical", "-attime", str(int(NOW.timestamp())), *files)


def test_what_the_ca_certified_convinces_an_acme_server(maker: Maker, store: TpmStore) -> None:
    """From bare TPM to a certificate by attestation, nothing faked: EK, AK, device-attest-01."""
    shown = application(store.attesting())
    office = Office(maker.anchors, {fingerprint(shown): "HF-0042"})
    chain = office.serve(shown, store)
    key = store.generate(KeyRef("tpm2:blob:ldevid-1"), KeySpec())
    attest = attest_with(store.attesting(), key, chain)
    judge(read_object(attest(b"t.k")), "t.k", office.ca.anchors, MOMENT, identifier="HF-0042")
    case = Case(
        identifiers=(Identifier("permanent-identifier", "HF-0042"),),
        prefer=("device-attest-01",),
        key=key.signer(),
        attest=attest,
        solver=None,
        now=NOW,
    )
    case.world.acme.policy = replace(case.world.acme.policy, attestation_anchors=office.ca.anchors)
    outcome = case.enroll()
    assert isinstance(outcome, Issued)
    assert outcome.chain[0].public_key() == key.signer().public_key()


# --- who gets none


def test_a_tpm_of_an_unknown_maker(store: TpmStore) -> None:
    refused(Office((pki.ca("Another maker").certificate,)), application(store.attesting()), store, "chain.")


def test_a_tpm_without_a_certificate(maker: Maker, store: TpmStore) -> None:
    shown = replace(application(store.attesting()), ek_chain=())
    refused(Office(maker.anchors), shown, store, "akca.no-certificate")


def test_the_certificate_of_another_tpm(maker: Maker, store: TpmStore, tmp_path: Path) -> None:
    with open_store(TpmSettings(maker.second.tcti, tmp_path / "other")) as other:
        stolen = application(other.attesting()).ek_chain
    refused(
        Office(maker.anchors),
        replace(application(store.attesting()), ek_chain=stolen),
        store,
        "akca.key-mismatch",
    )


def test_an_attestation_key_of_another_tpm_does_not_open_the_secret(
    maker: Maker, store: TpmStore, tmp_path: Path
) -> None:
    """Everything is genuine, but the two keys are in two TPMs: neither opens what was sealed."""
    with open_store(TpmSettings(maker.second.tcti, tmp_path / "other")) as other:
        shown = replace(application(store.attesting()), ak_public=other.attesting().attestation_public())
        for holder in (store, other):
            with pytest.raises(KeyStoreError) as caught:
                Office(maker.anchors).serve(shown, holder)
            assert caught.value.code == "key.activation"


def test_a_key_that_is_not_restricted(maker: Maker, store: TpmStore) -> None:
    """Such a key would sign a forged statement for whoever asks."""
    key = store.generate(KeyRef("tpm2:blob:ldevid-1"), KeySpec())
    shown = replace(application(store.attesting()), ak_public=store.attesting().certify(key, b"").public)
    refused(Office(maker.anchors), shown, store, "akca.attributes")


def test_a_device_that_is_on_no_list_or_under_another_name(maker: Maker, store: TpmStore) -> None:
    shown = application(store.attesting())
    refused(Office(maker.anchors, {}), shown, store, "akca.unknown-device")
    office = Office(maker.anchors, {fingerprint(shown): "HF-1"})
    refused(office, replace(shown, identifier="HF-2"), store, "akca.identifier")
    assert office.serve(replace(shown, identifier="HF-1"), store)


def test_a_wrong_secret_a_late_one_and_one_used_twice(maker: Maker, store: TpmStore) -> None:
    office = Office(maker.anchors)
    shown = application(store.attesting())

    def opened() -> akca.Response:
        found = office.ca.challenge(shown)
        return akca.Response(found.id, store.attesting().activate(found.id_object, found.encrypted_secret))

    good = opened()
    office.ca.certificate(good)
    late, wrong = opened(), replace(opened(), secret=b"x" * 32)
    for response in (good, wrong, replace(good, id="00")):
        with pytest.raises(TrustError) as caught:
            office.ca.certificate(response)
        assert caught.value.code == "akca.activation"
    office.now += PATIENCE + timedelta(seconds=1)
    with pytest.raises(TrustError):
        office.ca.certificate(late)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"ek_public": 3}', b"x" * 100_000, b"[" * 60_000]
)
def test_garbage_is_refused_in_words(maker: Maker, body: bytes) -> None:
    office = Office(maker.anchors)
    for operation in ("challenge", "certificate"):
        answer = office.ca.handle(HttpRequest("POST", akca.PATH + operation, (), body))
        assert answer.status in (400, 403, 413)
    assert office.ca.handle(HttpRequest("GET", akca.PATH + "challenge")).status == 404


ANSWERS = {
    "akca.unavailable": HttpResponse(500, (), b"no"),
    "akca.type": HttpResponse(200, (("Content-Type", "text/html"),), b"no"),
    "akca.syntax": HttpResponse(200, (("Content-Type", "application/json"),), b"{}"),
    "akca.too-large": HttpResponse(200, (("Content-Type", "application/json"),), b" " * 100_000),
}


@pytest.mark.parametrize(("code", "answer"), ANSWERS.items())
def test_a_ca_that_answers_nonsense(code: str, answer: HttpResponse) -> None:
    exchange = akca.apply(akca.Application(b"", b""), lambda _i, _s: b"")
    next(exchange)
    with pytest.raises(RemoteProtocolError) as caught:
        exchange.send(answer)
    assert caught.value.code == code


def test_a_certificate_for_another_key_is_not_taken(maker: Maker, store: TpmStore) -> None:
    exchange = akca.apply(application(store.attesting()), lambda _i, _s: b"")
    next(exchange)
    json = (("Content-Type", "application/json"),)
    exchange.send(HttpResponse(200, json, akca.encode(akca.Challenge("1", b"", b""))))
    other = maker.anchors[0].public_bytes(Encoding.DER)
    with pytest.raises(TrustError) as caught:
        exchange.send(HttpResponse(200, json, akca.encode(akca.Certified((other,)))))
    assert caught.value.code == "akca.key-mismatch"
