"""EnvelopedData: openssl opens ours, we open openssl's, and everything that a key shows wrong looks alike."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from asn1crypto import algos
from asn1crypto import cms as asn1
from asn1crypto.core import OctetString
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from hypothesis import given
from hypothesis import strategies as st

import wire_pki as pki
from holdfast.wire import cms_enveloped
from holdfast.wire.ciphers import ContentCipher, decrypt, encrypt, pad, unpad
from holdfast.wire.cms import CMS_LIMIT
from holdfast.wire.cms_enveloped import (
    ForCertificate,
    ForPassword,
    WithKey,
    WithPassword,
    envelope,
    open_enveloped,
)
from holdfast.wire.cms_enveloped_reading import enveloped_data
from holdfast.wire.errors import (
    KeyLocked,
    KeyStoreError,
    LocalProtocolError,
    RemoteProtocolError,
    TrustError,
)
from holdfast.wire.password_wrap import MOST_ITERATIONS, unwrap, wrap

CA = pki.ca("Enveloping CA")
OURS = pki.end_entity("ours", CA, kind="rsa2048")
OTHER = pki.end_entity("other", CA, kind="rsa3072")
CONTENT = b"a certificate request, " * 9
PASSWORD = b"one-time challenge"
ALL = frozenset(ContentCipher)
RANDOM = secrets.token_bytes
AES = (ContentCipher.AES128, ContentCipher.AES256)


def rsa_key(identity: pki.Identity = OURS) -> rsa.RSAPrivateKey:
    assert isinstance(identity.key, rsa.RSAPrivateKey)
    return identity.key


def ours() -> WithKey:
    return WithKey(rsa_key(), OURS.certificate)


@pytest.fixture
def openssl(tmp_path: Path) -> Callable[..., bytes]:
    (tmp_path / "key").write_bytes(pki.key_pem(OURS.key))
    (tmp_path / "cert").write_bytes(pki.pem(OURS.certificate))

    def run(*arguments: str, data: bytes) -> bytes:
        filled = [argument.format(d=tmp_path) for argument in arguments]
        return pki.openssl("cms", *filled, "-binary", data=data).stdout

    return run


# --- openssl, both ways ---


@pytest.mark.parametrize("cipher", list(ContentCipher))
@pytest.mark.parametrize("oaep", [False, True])
def test_openssl_opens_ours(openssl: Callable[..., bytes], cipher: ContentCipher, oaep: bool) -> None:
    made = envelope(CONTENT, ForCertificate(OURS.certificate, oaep=oaep), RANDOM, cipher=cipher)
    decrypting = ("-decrypt", "-inform", "DER", "-recip", "{d}/cert", "-inkey", "{d}/key")
    assert openssl(*decrypting, data=made) == CONTENT


@pytest.mark.parametrize("cipher", AES)
def test_openssl_opens_ours_by_password(openssl: Callable[..., bytes], cipher: ContentCipher) -> None:
    made = envelope(CONTENT, ForPassword(PASSWORD, 5000), RANDOM, cipher=cipher)
    decrypting = ("-decrypt", "-inform", "DER", "-pwri_password", PASSWORD.decode())
    assert openssl(*decrypting, data=made) == CONTENT


@pytest.mark.parametrize(
    "extra",
    [
        (),
        ("-keyid",),
        ("-stream",),
        ("-keyopt", "rsa_padding_mode:oaep"),
        ("-keyopt", "rsa_padding_mode:oaep", "-keyopt", "rsa_oaep_md:sha256"),
    ],
)
@pytest.mark.parametrize("cipher", ["-aes128", "-aes256", "-des3"])
def test_we_open_openssls(openssl: Callable[..., bytes], cipher: str, extra: tuple[str, ...]) -> None:
    made = openssl("-encrypt", cipher, "-outform", "DER", "-recip", "{d}/cert", *extra, data=CONTENT)
    assert open_enveloped(made, ours(), RANDOM, ciphers=ALL) == CONTENT


@pytest.mark.parametrize("cipher", ["-aes128", "-aes256"])
def test_we_open_openssls_by_password(openssl: Callable[..., bytes], cipher: str) -> None:
    words = ("-pwri_password", PASSWORD.decode())
    made = openssl("-encrypt", cipher, "-outform", "DER", *words, data=CONTENT)
    assert open_enveloped(made, WithPassword(PASSWORD), RANDOM) == CONTENT


# --- what is refused before a key is used ---


def refused(der: bytes, opener: WithKey | WithPassword | None = None, **options: Any) -> str:
    with pytest.raises(RemoteProtocolError) as caught:
        open_enveloped(der, opener or ours(), RANDOM, **options)
    return caught.value.code


def changed(der: bytes, change: Callable[[Any], None]) -> bytes:
    info = asn1.ContentInfo.load(der)
    change(info["content"])
    return bytes(info.copy().dump(force=True))


def test_triple_des_only_by_consent() -> None:
    made = envelope(CONTENT, ForCertificate(OURS.certificate), RANDOM, cipher=ContentCipher.DES3)
    assert refused(made) == "cms.legacy-cipher"
    assert open_enveloped(made, ours(), RANDOM, ciphers=ALL) == CONTENT


@pytest.mark.parametrize("name", ["des", "rc2", "rc4", "aes128_gcm", "aes192_cbc"])
def test_other_ciphers_have_no_switch(name: str) -> None:
    parameters = {"parameters": OctetString(bytes(8))} if name == "des" else {}

    def weaken(data: Any) -> None:
        weak = algos.EncryptionAlgorithm({"algorithm": name, **parameters})
        data["encrypted_content_info"]["content_encryption_algorithm"] = weak

    made = changed(envelope(CONTENT, ForCertificate(OURS.certificate), RANDOM), weaken)
    assert refused(made, ciphers=ALL) == "cms.weak-cipher"


def test_an_envelope_for_somebody_else() -> None:
    made = envelope(CONTENT, ForCertificate(OTHER.certificate), RANDOM)
    assert refused(made) == "cms.recipient"
    assert refused(made, WithPassword(PASSWORD)) == "cms.recipient"
    assert refused(envelope(CONTENT, ForPassword(PASSWORD, 1000), RANDOM)) == "cms.recipient"


def test_a_peer_cannot_make_us_derive_for_ever() -> None:
    made = envelope(CONTENT, ForPassword(PASSWORD, 70_001), RANDOM)
    number = (70_001).to_bytes(3, "big")
    assert made.count(b"\2\3" + number) == 1
    made = made.replace(b"\2\3" + number, b"\2\3" + (MOST_ITERATIONS + 1).to_bytes(3, "big"))
    assert refused(made, WithPassword(PASSWORD)) == "cms.iterations"


def test_sizes_are_bounded() -> None:
    made = envelope(CONTENT, ForCertificate(OURS.certificate), RANDOM)
    assert refused(made, limit=len(made) - 1) == "cms.too-large"
    assert refused(made[:-1]) == "cms.syntax"
    assert refused(made + b"\0") == "cms.syntax"

    def many(data: Any) -> None:
        for _ in range(8):
            data["recipient_infos"].append(data["recipient_infos"][0])

    assert refused(changed(made, many)) == "cms.syntax"

    def half_a_block(data: Any) -> None:
        data["encrypted_content_info"]["encrypted_content"] = bytes(24)

    assert refused(changed(made, half_a_block)) == "cms.syntax"


def test_an_ec_certificate_cannot_be_a_recipient() -> None:
    with pytest.raises(LocalProtocolError, match=r"cms\.recipient"):
        envelope(CONTENT, ForCertificate(CA.certificate), RANDOM)


# --- what a key shows to be wrong: one error, one path ---


def with_key_block(block: bytes, *, content_key: bytes = bytes(16)) -> bytes:
    """An envelope whose encrypted key decrypts to *block*, which may be no padding at all."""
    made = envelope(CONTENT, ForCertificate(OURS.certificate), lambda n: content_key[:n].ljust(n, b"\1"))
    numbers = rsa_key().public_key().public_numbers()
    raw = pow(int.from_bytes(block, "big"), numbers.e, numbers.n).to_bytes(256, "big")

    (part,) = enveloped_data(made, limit=CMS_LIMIT).transports
    assert made.count(part.encrypted_key) == 1
    return made.replace(part.encrypted_key, raw)


def pkcs1(key: bytes) -> bytes:
    return b"\0\2" + b"\xaa" * (253 - len(key)) + b"\0" + key


WRONG_KEYS = {
    "no padding": b"\0\1" + bytes(254),
    "no separator": b"\0\2" + b"\xaa" * 254,
    "empty key": pkcs1(b""),
    "short key": pkcs1(bytes(15)),
    "long key": pkcs1(bytes(24)),
    "another key": pkcs1(b"\xee" * 16),
}


@pytest.mark.parametrize("what", WRONG_KEYS)
def test_every_failure_of_a_key_is_one_error_by_one_path(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []

    def seen(cipher: ContentCipher, key: bytes, vector: bytes, data: bytes) -> bytes | None:
        steps.append(len(key))
        return decrypt(cipher, key, vector, data)

    monkeypatch.setattr(cms_enveloped, "decrypt", seen)
    with pytest.raises(TrustError) as caught:
        # A wrong key leaves a right padding once in 256 tries; a fixed one makes that never.
        open_enveloped(with_key_block(WRONG_KEYS[what]), ours(), lambda n: b"\xee" * n)
    assert (caught.value.code, caught.value.detail) == ("cms.decrypt", "the envelope does not open")
    assert steps == [16], "the content is decrypted all the same, with a key of the right size"
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_the_right_key_block_opens() -> None:
    """So the failures above come from what they are called after."""
    made = with_key_block(pkcs1(bytes(16)), content_key=bytes(16))
    assert open_enveloped(made, ours(), RANDOM) == CONTENT


def test_a_wrong_password_is_the_same_error() -> None:
    made = envelope(CONTENT, ForPassword(PASSWORD, 1000), RANDOM)
    for _ in range(20):
        with pytest.raises(TrustError) as caught:
            open_enveloped(made, WithPassword(b"guess"), lambda n: b"\xee" * n)
        assert caught.value.code == "cms.decrypt"


class Hardware(rsa.RSAPrivateKey):  # type: ignore[misc]
    """A key that fails as it is told."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def decrypt(self, ciphertext: bytes, padding: padding.AsymmetricPadding) -> bytes:
        raise self.error

    def _unused(self, *_: Any, **__: Any) -> Any:
        raise AssertionError

    sign = public_key = private_numbers = private_bytes = __copy__ = __deepcopy__ = _unused
    key_size = property(_unused)


def test_hardware_that_rejects_a_padding_is_no_other_error() -> None:
    made = envelope(CONTENT, ForCertificate(OURS.certificate), RANDOM)
    rejecting = Hardware(KeyStoreError("key.decrypt-failed", "the ciphertext is not for this key"))
    with pytest.raises(TrustError, match=r"cms\.decrypt"):
        open_enveloped(made, WithKey(rejecting, OURS.certificate), lambda n: b"\xee" * n)


def test_hardware_that_is_locked_says_so() -> None:
    made = envelope(CONTENT, ForCertificate(OURS.certificate), RANDOM)
    with pytest.raises(KeyLocked):
        open_enveloped(made, WithKey(Hardware(KeyLocked("key.locked")), OURS.certificate), RANDOM)


# --- properties ---


@given(st.binary(max_size=300), st.sampled_from(list(ContentCipher)))
def test_what_goes_in_comes_out(content: bytes, cipher: ContentCipher) -> None:
    key, vector = RANDOM(cipher.key_size), RANDOM(cipher.block)
    assert decrypt(cipher, key, vector, encrypt(cipher, key, vector, content)) == content
    made = envelope(content, ForCertificate(OURS.certificate), RANDOM, cipher=cipher)
    assert open_enveloped(made, ours(), RANDOM, ciphers=ALL) == content


@given(st.binary(min_size=16, max_size=32), st.sampled_from(AES))
def test_wrapping_comes_back(key: bytes, cipher: ContentCipher) -> None:
    kek, vector = RANDOM(cipher.key_size), RANDOM(cipher.block)
    wrapped = wrap(cipher, kek, vector, key, RANDOM)
    assert len(wrapped) % cipher.block == 0
    assert unwrap(cipher, kek, vector, wrapped) == key


@given(st.binary(min_size=1, max_size=64), st.sampled_from([8, 16]))
def test_padding_is_what_the_standard_says(data: bytes, block: int) -> None:
    assert unpad(pad(data, block), block) == data
    whole = data * block  # of whole blocks, and rarely padded
    count = whole[-1]
    right = 1 <= count <= block and whole.endswith(bytes([count]) * count)
    assert unpad(whole, block) == (whole[:-count] if right else None)


@given(st.data())
def test_nothing_but_our_errors(data: st.DataObject) -> None:
    seed = bytearray(envelope(CONTENT, ForCertificate(OURS.certificate), RANDOM))
    at = data.draw(st.integers(0, len(seed) - 1))
    seed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    for opener in (ours(), WithPassword(PASSWORD)):
        with suppress(RemoteProtocolError, TrustError):
            open_enveloped(bytes(seed), opener, RANDOM)
