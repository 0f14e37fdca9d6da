"""Our SCEP client at servers that others wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

import wire_pki as pki
from holdfast.keys.api import KeySpec
from holdfast.keys.tpm import TpmStore
from holdfast.wire.errors import RemoteProtocolError, TrustError
from holdfast.wire.model import Issued, KeyAlgorithm, Offer, Rejected
from holdfast.wire.scep.authority import Trust
from holdfast.wire.scep.settings import Decryption, Legacy
from holdfast_factory.swtpm import Swtpm
from interop import cmp_table as tables
from interop.scep_peers import CHALLENGE, Peer, micromdm, micromdm_des, now, rsa_key, step_ca

pytestmark = pytest.mark.interop

PEERS: dict[str, Callable[[Path], AbstractContextManager[Peer]]] = {"micromdm": micromdm, "step-ca": step_ca}
TABLE, PAGE = "scep-servers", tables.DOCS / "scep.md"
DES = "micromdm scepserver 2.1.0"
LABELS = {"micromdm": "micromdm scepserver 2.3.0, built with AES", "step-ca": "step-ca 0.30.2"}
SHA1 = frozenset({Legacy.SHA1})
"""Both servers sign with it, whatever they announce."""


@pytest.fixture(params=PEERS)
def peer(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Peer]:
    with PEERS[request.param](tmp_path) as running:
        running.label = LABELS[request.param]
        yield running


def note(peer: Peer, row: str, result: str = "yes") -> None:
    tables.note(TABLE, row, peer.label, result)


def checked(peer: Peer, outcome: Any, directory: Path) -> Issued:
    """The certificate, judged by openssl too."""
    assert isinstance(outcome, Issued), outcome
    (directory / "anchors").write_bytes(pki.pem(peer.ca))
    (directory / "chain").write_bytes(pki.pem(*outcome.chain))
    (directory / "leaf").write_bytes(pki.pem(outcome.chain[0]))
    files = ("-CAfile", str(directory / "anchors"), "-untrusted", str(directory / "chain"))
    pki.openssl("verify", "-purpose", "sslclient", *files, str(directory / "leaf"))
    return outcome


def enroll(peer: Peer, number: int = 0, *, challenge: str | None = CHALLENGE, **options: Any) -> Any:
    request = peer.request(rsa_key(number), challenge=challenge)
    options.setdefault("legacy", SHA1)
    return peer.ask(peer.protocol(**options).enroll(request, None, now()))


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_enrollment(peer: Peer, tmp_path: Path, method: str) -> None:
    peer.get = method == "GET"
    issued = checked(peer, enroll(peer, legacy=SHA1 | {Legacy.GET}), tmp_path)
    assert issued.chain[0].public_key() == rsa_key(0).public_key()
    assert peer.methods == [method]
    note(peer, f"PKCSReq by {method}")


@pytest.mark.parametrize("method", ["POST", "GET"])
def test_renewal_with_a_new_key(peer: Peer, tmp_path: Path, method: str) -> None:
    first = checked(peer, enroll(peer), tmp_path)
    peer.get = method == "GET"
    challenge = CHALLENGE if peer.always_challenged else None
    request = peer.request(rsa_key(1), current=(first.chain, rsa_key(0)), challenge=challenge)
    renewed = checked(
        peer, peer.ask(peer.protocol(legacy=frozenset(Legacy)).enroll(request, None, now())), tmp_path
    )
    assert renewed.chain[0].public_key() == rsa_key(1).public_key()
    assert peer.methods == ["POST", method]
    note(peer, f"RenewalReq with a new key by {method}", "yes, with a challenge")


def test_discovery(peer: Peer) -> None:
    offer = peer.ask(peer.protocol(challenged=True).discover(None, now()))
    assert isinstance(offer, Offer)
    assert offer.ca_certificates[0] == peer.ca
    note(peer, "GetCACaps, GetCACert by fingerprint")


@pytest.mark.parametrize("challenge", ["guess", None])
def test_a_wrong_challenge(peer: Peer, challenge: str | None) -> None:
    outcome = enroll(peer, challenge=challenge)
    assert isinstance(outcome, Rejected)
    assert outcome.code == "scep.badRequest"
    note(peer, "PKCSReq with a wrong challenge, or none", f"`{outcome.code}`")


def test_another_fingerprint(peer: Peer) -> None:
    client = replace(peer.protocol(), trust=Trust(fingerprints=frozenset({bytes(32)})))
    exchange = client.enroll(peer.request(rsa_key(0), challenge=CHALLENGE), None, now())
    with pytest.raises(TrustError, match=r"scep\.fingerprint"):
        peer.ask(exchange)
    assert peer.methods == []
    note(peer, "another CA's fingerprint", "`scep.fingerprint`")


def test_an_ec_identity_with_a_transport_key(peer: Peer, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    request = peer.request(key, challenge=CHALLENGE, transport=rsa_key(0))
    client = peer.protocol(decryption=Decryption.TRANSPORT_KEY, legacy=SHA1)
    issued = checked(peer, peer.ask(client.enroll(request, None, now())), tmp_path)
    assert issued.chain[0].public_key() == key.public_key()
    note(peer, "PKCSReq for a P-256 key, with a transport key")


@pytest.mark.tpm
def test_keys_in_a_tpm(peer: Peer, tmp_path: Path) -> None:
    """The TPM signs the request and decrypts the reply; the renewal, too."""
    with Swtpm(tmp_path / "tpm") as tpm, TpmStore(tpm.tcti, tmp_path / "keys") as store:
        spec = KeySpec(KeyAlgorithm.RSA2048, decrypt=True)
        keys = [store.generate(store.plan("ldevid", n), spec).signer() for n in (1, 2)]
        client = peer.protocol(legacy=SHA1)
        first = peer.request(keys[0], challenge=CHALLENGE)
        issued = checked(peer, peer.ask(client.enroll(first, None, now())), tmp_path)
        second = peer.request(keys[1], current=(issued.chain, keys[0]), challenge=CHALLENGE)
        renewed = checked(peer, peer.ask(client.enroll(second, None, now())), tmp_path)
    assert renewed.chain[0].public_key() == keys[1].public_key()
    note(peer, "PKCSReq and RenewalReq by keys in a TPM")


def test_a_reply_with_sha1_needs_consent(peer: Peer) -> None:
    with pytest.raises(TrustError, match=r"legacy: \[sha1\]") as caught:
        enroll(peer, legacy=frozenset())
    assert caught.value.code == "scep.digest"
    note(peer, "a reply signed with SHA-1, without `legacy: [sha1]`", "`scep.digest`")


def test_single_des_is_refused_and_says_what_to_do(tmp_path: Path) -> None:
    with micromdm_des(tmp_path) as peer:
        with pytest.raises(RemoteProtocolError) as caught:
            enroll(peer, legacy=frozenset(Legacy))
        assert caught.value.code == "scep.cipher"
        assert "micromdm's scepserver has none" in caught.value.detail
    tables.note(TABLE, "a reply with single DES, whatever `legacy` says", DES, f"`{caught.value.code}`")


def test_the_page_says_what_ran() -> None:
    """Last in this file, for it needs what the others saw."""
    if {column for table, _, column in tables.SEEN if table == TABLE} != {*LABELS.values(), DES}:
        pytest.skip("run with all the tests of this file")
    tables.check(TABLE, (*LABELS.values(), DES), PAGE)
