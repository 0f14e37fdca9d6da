"""OAEP decoding against cryptography's own encoder, and against everything that is no OAEP block."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

from holdfast.keys.rsaoaep import decode_oaep
from holdfast.wire.errors import KeyStoreError

KEY = rsa.generate_private_key(65537, 2048)
NUMBERS = KEY.private_numbers()
ALGORITHMS = [hashes.SHA1(), hashes.SHA256(), hashes.SHA384(), hashes.SHA512()]


def block(message: bytes, algorithm: hashes.HashAlgorithm, label: bytes | None = None) -> bytes:
    """The padded block inside a ciphertext that cryptography made."""
    scheme = padding.OAEP(padding.MGF1(algorithm), algorithm, label)
    ciphertext = int.from_bytes(KEY.public_key().encrypt(message, scheme), "big")
    return pow(ciphertext, NUMBERS.d, NUMBERS.public_numbers.n).to_bytes(256, "big")


@given(st.binary(max_size=126), st.sampled_from(ALGORITHMS))
def test_every_message_comes_back(message: bytes, algorithm: hashes.HashAlgorithm) -> None:
    assert decode_oaep(block(message, algorithm), algorithm.name) == message


@given(st.binary(max_size=126), st.integers(0, 255), st.integers(1, 255))
def test_one_wrong_octet_anywhere_is_refused_in_one_way(message: bytes, at: int, flip: int) -> None:
    spoilt = bytearray(block(message, hashes.SHA256()))
    spoilt[at] ^= flip
    refused(bytes(spoilt))


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    refused(noise)


def test_a_label_or_another_hash_is_refused() -> None:
    refused(block(b"x", hashes.SHA256(), b"label"))
    refused(block(b"x", hashes.SHA384()))


def refused(data: bytes) -> None:
    with pytest.raises(KeyStoreError) as caught:
        decode_oaep(data, "sha256")
    assert (caught.value.code, caught.value.detail) == (
        "key.decrypt-failed",
        "the ciphertext is not for this key",
    )
