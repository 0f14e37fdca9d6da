"""Protection by a KEM key that the device holds in software, and every way in which it goes wrong."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mlkem

from holdfast.wire import algorithm_oids, der
from holdfast.wire.cmp import kem, kem_peer, oids
from holdfast.wire.cmp.client import CmpProtocol, Form
from holdfast.wire.cmp.kem import KemCiphertext, KemParameters
from holdfast.wire.cmp.kem_client import KemIdentity, KemProtector
from holdfast.wire.cmp.kem_peer import encapsulate
from holdfast.wire.cmp.message import Body, Header, Message, encode, parse
from holdfast.wire.cmp.protection import SharedSecret
from holdfast.wire.errors import HoldfastError, LocalProtocolError, RemoteProtocolError, TrustError
from holdfast.wire.identified import NULL_DN, Algorithm
from holdfast.wire.model import HttpResponse, Issued, KeyAlgorithm, Pending, Rejected
from holdfast_sim.ca import name, new_key
from holdfast_sim.cmp_desk import CmpPolicy
from sim.cmp_actors import Cmp

TRANSACTION, DATA = bytes(range(16)), b"header and body"
SHARED = bytes(range(32))


def certificate(key: Any, cmp: Cmp) -> x509.Certificate:
    now, issuer = cmp.world.now(), new_key(KeyAlgorithm.P256)
    builder = x509.CertificateBuilder(
        name("Owner"),
        name("gateway"),
        key.public_key(),
        x509.random_serial_number(),
        now,
        now + timedelta(days=9),
    )
    return builder.sign(issuer, hashes.SHA256())


def device(*faults: str, policy: CmpPolicy | None = None, size: str = "768", **options: Any) -> Cmp:
    """A device with an ML-KEM key and a certificate for it, which the server knows."""
    key = getattr(mlkem, f"MLKEM{size}PrivateKey").generate()
    cmp = Cmp.make(*faults)
    own = certificate(key, cmp)
    cmp.world.cmp = replace(policy or CmpPolicy(), kem=(own,))
    cmp.protocol = CmpProtocol(kem=KemIdentity((own,), key.decapsulate), **options)
    return cmp


# --- the exchange ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [Form.AUTO, Form.CR, Form.P10CR])
@pytest.mark.parametrize("size", ["768", "1024"])
@pytest.mark.parametrize("signed", [False, True])
def test_a_certificate_under_a_kem_key(form: Form, size: str, *, signed: bool) -> None:
    cmp = device(policy=CmpPolicy(kem_signed=signed), size=size, form=form)
    assert isinstance(cmp.enroll(cmp.request(signer=None)), Issued)
    question, *others = cmp.sent
    assert (question.kind, question.header.protection, question.protection) == (Body.GENM, None, None)
    assert cmp.received[0].header.protection is None or signed
    assert [m.kind for m in others][-1] is Body.CERT_CONF
    for message in others:
        assert message.header.protection == KemParameters().algorithm()
        assert message.header.transaction == question.header.transaction
    assert all(
        m.header.protection and not m.header.protection.oid.endswith("66.16") for m in cmp.received[1:]
    )


def test_a_wait_and_a_confirmation_go_on_after_a_power_cut() -> None:
    """The token holds the ciphertext, which is public, and no secret."""
    cmp = device(policy=CmpPolicy(polls=2))
    request = cmp.request(signer=None)
    assert isinstance(cmp.enroll(request), Issued)
    waits = [o for o in cmp.outcomes if isinstance(o, Pending)]
    assert len(waits) == 4
    (conversation,) = cmp.world.cmp_desk.conversations.values()
    assert all(conversation.shared.hex().encode() not in w.resume for w in waits)
    spoilt = waits[0].resume.replace(b'"kem":"30', b'"kem":"31')
    with pytest.raises(LocalProtocolError, match=r"cmp\.resume"):
        cmp.resume(request, Pending(timedelta(0), spoilt))


def test_an_update_is_signed_by_what_it_updates() -> None:
    cmp = device()
    issued = cmp.enroll()
    assert isinstance(issued, Issued)
    cmp.sent.clear()
    assert isinstance(cmp.enroll(cmp.renewal(issued)), Issued)
    assert Body.GENM not in {m.kind for m in cmp.sent}


# --- what a server does wrong -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "detail"),
    [
        ("no-ciphertext", "without a ciphertext"),
        ("wrong-info", "without a ciphertext"),
        ("short-ciphertext", "a ciphertext of 1087 octets"),
        ("huge-ciphertext", "a ciphertext of 21760 octets"),
        ("other-kem", "for a key of"),
        ("unknown-kem", "unknown KEM"),
    ],
)
def test_a_ciphertext_that_is_none_for_our_key(fault: str, detail: str) -> None:
    cmp = device(f"cmp-genm:{fault}")
    with pytest.raises(RemoteProtocolError, match=rf"cmp\.kem-ciphertext.*{detail}"):
        cmp.enroll()
    assert [m.kind for m in cmp.sent] == [Body.GENM]


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        ("wrong-transaction", TrustError, "cmp.transaction"),
        ("wrong-nonce", TrustError, "cmp.nonce"),
        ("wrong-version", RemoteProtocolError, "cmp.version"),
        ("unprotected-error", RemoteProtocolError, "cmp.unprotected-error"),
    ],
)
def test_a_bad_answer_with_the_ciphertext(fault: str, kind: type[HoldfastError], code: str) -> None:
    cmp = device(f"cmp-genm:{fault}")
    with pytest.raises(kind) as caught:
        cmp.enroll()
    assert caught.value.code == code
    assert [m.kind for m in cmp.sent] == [Body.GENM]


@pytest.mark.parametrize(
    ("fault", "code"), [("tampered", "cmp.protection"), ("foreign-signer", "chain.untrusted")]
)
def test_a_protection_of_the_ciphertext_must_hold_if_there_is_one(fault: str, code: str) -> None:
    cmp = device(f"cmp-genm:{fault}", policy=CmpPolicy(kem_signed=True))
    with pytest.raises(TrustError) as caught:
        cmp.enroll()
    assert caught.value.code == code


def test_a_wrong_ciphertext_makes_a_mac_that_the_server_refuses() -> None:
    cmp = device("cmp-genm:wrong-ciphertext")
    outcome = cmp.enroll()
    assert isinstance(outcome, Rejected)
    assert outcome.code == "cmp.unauthorized"
    assert not cmp.world.issued


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("unprotected", "cmp.unprotected"),
        ("tampered", "cmp.protection"),
        ("foreign-signer", "chain.untrusted"),
        ("wrong-transaction", "cmp.transaction"),
    ],
)
def test_the_certificate_comes_in_a_signed_answer(fault: str, code: str) -> None:
    cmp = device(f"cmp-ir:{fault}")
    with pytest.raises(TrustError) as caught:
        cmp.enroll()
    assert caught.value.code == code


def test_a_mac_under_our_own_ciphertext_proves_no_server() -> None:
    """Anybody can encapsulate for our certificate, and then make a right MAC."""
    cmp = device()
    answer = cmp.bench.site.answer

    def impostor(*arguments: Any) -> Any:
        found = answer(*arguments)
        message = parse(found.response.body)
        if message.kind is not Body.IP:
            return found
        shared = cmp.world.cmp_desk.conversations[message.header.transaction].shared
        body = protected(message.header, shared, kind=Body.IP, content=message.content)
        return replace(found, response=HttpResponse(200, found.response.headers, body))

    cmp.bench.site.answer = impostor  # type: ignore[method-assign]
    with pytest.raises(TrustError, match=r"cmp\.protection-kind"):
        cmp.enroll()


# --- the MAC --------------------------------------------------------------------------------------


def protected(
    header: Header,
    shared: bytes,
    parameters: KemParameters | None = None,
    *,
    kind: Body = Body.GENM,
    content: bytes = b"\x30\x00",
) -> bytes:
    parameters = parameters or KemParameters()
    header = replace(header, protection=parameters.algorithm())
    return encode(
        header, kind, content, protect=lambda data: parameters.compute(shared, header.transaction, data)
    )


def message(parameters: KemParameters | None = None) -> Message:
    return parse(protected(Header(NULL_DN, NULL_DN, transaction=TRANSACTION), SHARED, parameters))


@pytest.mark.parametrize("parameters", [KemParameters(), KemParameters(64, b"ctx"), KemParameters(48, b"")])
def test_the_mac_is_what_the_rfcs_say(parameters: KemParameters) -> None:
    """HKDF of RFC 5869 by hand, and KemOtherInfo octet by octet."""
    inner = b"\x30\x09\x0c\x07CMP-KEM" + b"\x04\x10" + TRANSACTION
    if parameters.context is not None:
        size = len(parameters.context)
        inner += bytes((0xA0, size + 2, 0x04, size)) + parameters.context
    info = bytes((0x30, len(inner))) + inner
    pseudorandom = hmac.new(bytes(32), SHARED, hashlib.sha256).digest()
    blocks = [b""]
    for count in (1, 2):
        blocks.append(hmac.new(pseudorandom, blocks[-1] + info + bytes((count,)), hashlib.sha256).digest())
    key = b"".join(blocks)[: parameters.length]
    expected = hmac.new(key, DATA, hashlib.sha256).digest()
    assert parameters.compute(SHARED, TRANSACTION, DATA) == expected


def test_the_parameters_are_written_as_the_rfc_says() -> None:
    algorithm = KemParameters().algorithm()
    assert algorithm.oid == "1.2.840.113533.7.66.16"
    hkdf, length, mac = "300d060b2a864886f70d010910031c", "020120", "300a06082a864886f70d0209"
    assert algorithm.parameters.hex() == f"301e{hkdf}{length}{mac}"


def test_a_message_passes_with_its_secret_in_its_transaction() -> None:
    assert kem.check(message(), SHARED, TRANSACTION) == KemParameters()
    with_context = KemParameters(64, b"ctx")
    assert kem.check(message(with_context), SHARED, TRANSACTION) == with_context


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda m: replace(m, protected=m.protected + b"x"), "cmp.protection"),
        (lambda m: replace(m, protection=bytes(32)), "cmp.protection"),
        (lambda m: replace(m, protection=m.protection[:31]), "cmp.protection"),
        (lambda m: replace(m, protection=b""), "cmp.protection"),
        (lambda m: replace(m, header=replace(m.header, transaction=bytes(16))), "cmp.protection"),
        (lambda m: replace(m, protection=None), "cmp.protection-kind"),
        (
            lambda m: replace(m, header=replace(m.header, protection=Algorithm(oids.PBMAC1))),
            "cmp.protection-kind",
        ),
    ],
)
def test_a_spoilt_message_does_not_pass(spoil: Callable[[Message], Message], code: str) -> None:
    with pytest.raises(TrustError) as caught:
        kem.check(spoil(message()), SHARED, TRANSACTION)
    assert caught.value.code == code


def test_the_key_holds_for_one_transaction_and_one_secret() -> None:
    other = parse(protected(Header(NULL_DN, NULL_DN, transaction=bytes(16)), SHARED))
    moved = replace(other, header=replace(other.header, transaction=TRANSACTION))
    for found, shared in ((other, SHARED), (moved, SHARED), (message(), bytes(32))):
        with pytest.raises(TrustError, match=r"cmp\.protection"):
            kem.check(found, shared, TRANSACTION)


HKDF, HMAC = Algorithm(oids.HKDF_SHA256).encode(), Algorithm(algorithm_oids.HMAC_SHA256).encode()
LENGTH = der.integer(32)


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((Algorithm("1.3.133.16.840.9.44.1.2").encode(), LENGTH, HMAC), "cmp.mac-algorithm"),
        ((Algorithm(oids.HKDF_SHA256, der.null()).encode(), LENGTH, HMAC), "cmp.mac-algorithm"),
        ((HKDF, LENGTH, Algorithm(algorithm_oids.HMAC_SHA1).encode()), "cmp.mac-algorithm"),
        ((HKDF, LENGTH, Algorithm(algorithm_oids.HMAC_SHA512).encode()), "cmp.mac-algorithm"),
        ((HKDF, LENGTH, Algorithm(algorithm_oids.HMAC_SHA256, der.integer(1)).encode()), "cmp.mac-algorithm"),
        ((HKDF, der.integer(31), HMAC), "cmp.syntax"),
        ((HKDF, der.integer(65), HMAC), "cmp.syntax"),
        ((HKDF, der.integer(2**40), HMAC), "cmp.syntax"),
        ((HKDF, der.integer(-32), HMAC), "cmp.syntax"),
        ((HKDF, der.explicit(0, der.octets(bytes(257))), LENGTH, HMAC), "cmp.syntax"),
        ((HKDF, LENGTH), "cmp.syntax"),
        ((HKDF, LENGTH, HMAC, LENGTH), "cmp.syntax"),
    ],
)
def test_unknown_and_boundless_parameters_are_refused(parts: tuple[bytes, ...], code: str) -> None:
    with pytest.raises(HoldfastError) as caught:
        kem.read_parameters(Algorithm(oids.KEM_BASED_MAC, der.sequence(*parts)))
    assert caught.value.code == code


def test_null_parameters_of_the_mac_pass() -> None:
    parts = (HKDF, LENGTH, Algorithm(algorithm_oids.HMAC_SHA256, der.null()).encode())
    algorithm = Algorithm(oids.KEM_BASED_MAC, der.sequence(*parts))
    assert kem.read_parameters(algorithm) == KemParameters()


# --- what is not there ------------------------------------------------------------------------------


def test_without_ml_kem_nothing_is_encapsulated(monkeypatch: pytest.MonkeyPatch) -> None:
    own = device().protocol.kem
    assert own is not None
    monkeypatch.setattr(kem_peer, "ML_KEM", {})
    with pytest.raises(LocalProtocolError, match=r"cmp\.kem-unavailable"):
        encapsulate(own.chain[0])


@pytest.mark.parametrize(
    ("outcome", "kind", "code"),
    [
        (UnsupportedAlgorithm("no ML-KEM"), LocalProtocolError, "cmp.kem-unavailable"),
        (ValueError("no"), RemoteProtocolError, "cmp.kem-ciphertext"),
        (bytes(31), LocalProtocolError, "cmp.kem"),
    ],
)
def test_what_cannot_decapsulate_says_so(outcome: Any, kind: type[HoldfastError], code: str) -> None:
    cmp = device()
    assert cmp.protocol.kem is not None

    def decapsulate(_: bytes) -> bytes:
        if isinstance(outcome, Exception):
            raise outcome
        return bytes(outcome)

    cmp.protocol = replace(cmp.protocol, kem=KemIdentity(cmp.protocol.kem.chain, decapsulate))
    with pytest.raises(kind) as caught:
        cmp.enroll()
    assert caught.value.code == code


def test_only_a_known_kem_key_and_no_secret_beside_it() -> None:
    cmp = device()
    own = cmp.protocol.kem
    assert own is not None
    for chain in ((), cmp.bench.idevid[0]):
        with pytest.raises(LocalProtocolError, match=r"cmp\.kem"):
            KemIdentity(chain, own.decapsulate)
    with pytest.raises(LocalProtocolError, match=r"cmp\.kem"):
        CmpProtocol(kem=own, secret=SharedSecret("r", b"s"))
    with pytest.raises(LocalProtocolError, match=r"cmp\.kem"):
        KemProtector(own).start(os.urandom)


def test_an_unknown_certificate_gets_no_ciphertext() -> None:
    cmp = device()
    cmp.world.cmp = replace(cmp.world.cmp, kem=())
    with pytest.raises(RemoteProtocolError, match=r"cmp\.unprotected-error"):
        cmp.enroll()


def test_a_ciphertext_is_read_as_it_was_written() -> None:
    info = KemCiphertext(oids.ML_KEM_768, os.urandom(1088))
    assert kem.read_ciphertext(info.encode()) == info
    with pytest.raises(RemoteProtocolError, match=r"cmp\.syntax"):
        kem.read_ciphertext(info.encode() + b"x")
    with_parameters = Algorithm(oids.ML_KEM_768, der.null()).encode()  # RFC 9935 §3: absent
    with pytest.raises(RemoteProtocolError, match=r"cmp\.kem-ciphertext"):
        kem.read_ciphertext(der.sequence(with_parameters, der.octets(info.ciphertext)))
