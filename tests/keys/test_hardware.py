"""The cryptography classes over a signer: what they refuse, and PSS against cryptography's own verifier."""

from __future__ import annotations

import hashlib

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from hypothesis import given
from hypothesis import strategies as st

from holdfast.keys.hardware import HardwareEcKey, HardwareRsaKey
from holdfast.keys.rsapss import encode_pss
from holdfast.wire.errors import KeyStoreError
from keys.pki import name, soft_hardware

EC = ec.generate_private_key(ec.SECP256R1())
RSA = rsa.generate_private_key(65537, 2048)
SHA256, SHA384, SHA512 = hashes.SHA256(), hashes.SHA384(), hashes.SHA512()


def mgf(algorithm):
    return padding.MGF1(algorithm)


def code(operation) -> str:
    with pytest.raises(KeyStoreError) as caught:
        operation()
    return caught.value.code


def test_they_are_what_cryptography_takes():
    for soft, kind in ((EC, HardwareEcKey), (RSA, HardwareRsaKey)):
        key = soft_hardware(soft)
        assert isinstance(key, kind)
        assert isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey)
        assert key.public_key() == soft.public_key()
        assert key.key_size == soft.key_size
        request = x509.CertificateSigningRequestBuilder().subject_name(name("x")).sign(key, SHA256)
        assert request.is_signature_valid
    assert isinstance(soft_hardware(EC).curve, ec.SECP256R1)


def test_pss_csr_verifies():
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(name("x"))
        .sign(
            soft_hardware(RSA),
            SHA256,
            rsa_padding=padding.PSS(mgf(SHA256), padding.PSS.DIGEST_LENGTH),
        )
    )
    assert request.is_signature_valid


@pytest.mark.parametrize("algorithm", [SHA256, SHA384, SHA512], ids=lambda a: a.name)
def test_pss_by_number_and_by_name(algorithm):
    key = soft_hardware(RSA)
    for salt in (padding.PSS.DIGEST_LENGTH, algorithm.digest_size):
        scheme = padding.PSS(mgf(algorithm), salt)
        RSA.public_key().verify(key.sign(b"data", scheme, algorithm), b"data", scheme, algorithm)
    assert set(key.signer.calls) == {"raw"}


def test_pss_that_is_not_made():
    key = soft_hardware(RSA)
    for scheme in (
        padding.PSS(mgf(SHA256), padding.PSS.MAX_LENGTH),
        padding.PSS(mgf(SHA256), padding.PSS.AUTO),
        padding.PSS(mgf(SHA256), 20),
        padding.PSS(mgf(SHA384), padding.PSS.DIGEST_LENGTH),
        padding.OAEP(mgf(SHA256), SHA256, None),
    ):
        assert code(lambda s=scheme: key.sign(b"data", s, SHA256)) == "key.unsupported"
    assert key.signer.calls == []


@given(
    st.integers(1024, 4099),
    st.sampled_from(["sha256", "sha384", "sha512"]),
    st.binary(max_size=64),
    st.binary(),
)
def test_pss_blocks_fit_the_modulus(bits, algorithm, salt, data):
    digest = hashlib.new(algorithm, data).digest()
    if len(digest) + len(salt) + 2 > (bits + 6) // 8:
        assert code(lambda: encode_pss(digest, algorithm, salt, bits)) == "key.pss-too-long"
        return
    block = encode_pss(digest, algorithm, salt, bits)
    assert len(block) == (bits + 7) // 8
    assert int.from_bytes(block, "big").bit_length() < bits
    assert block[-1] == 0xBC


@pytest.mark.parametrize("bits", [1024, 1025, 1031, 2047, 2048])
def test_pss_for_odd_modulus_sizes(bits):
    soft = rsa.generate_private_key(65537, bits)
    scheme = padding.PSS(mgf(SHA256), 32)
    signature = soft_hardware(soft).sign(b"data", scheme, SHA256)
    soft.public_key().verify(signature, b"data", scheme, SHA256)


def test_weak_and_odd_digests():
    for soft, sign in (
        (EC, lambda k, a: k.sign(b"x" * 20, ec.ECDSA(a))),
        (RSA, lambda k, a: k.sign(b"x" * 20, padding.PKCS1v15(), a)),
    ):
        key = soft_hardware(soft)
        for algorithm in (hashes.SHA1(), utils.Prehashed(hashes.SHA1()), hashes.SHA3_256()):
            assert code(lambda k=key, s=sign, a=algorithm: s(k, a)) == "key.unsupported"
        assert code(lambda k=key, s=sign: s(k, utils.Prehashed(SHA256))) == "key.digest"
        assert not key.signer.calls


def test_other_operations():
    key = soft_hardware(EC)
    assert code(lambda: key.exchange(ec.ECDH(), EC.public_key())) == "key.unsupported"
    assert code(lambda: key.sign(b"x", ec.ECDSA(SHA256, deterministic_signing=True))) == "key.unsupported"
    key = soft_hardware(RSA)
    for scheme in (
        padding.OAEP(mgf(SHA256), SHA256, b"label"),
        padding.OAEP(mgf(hashes.SHA1()), SHA256, None),
        padding.PSS(mgf(SHA256), 32),
    ):
        assert code(lambda s=scheme: key.decrypt(bytes(256), s)) == "key.unsupported"
    assert code(lambda: key.decrypt(bytes(255), padding.PKCS1v15())) == "key.decrypt-failed"
