"""Whatever a token says of its objects, a public key comes out, or a KeyStoreError by name."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pkcs11
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from pkcs11 import Attribute, KeyType, ObjectClass

from effort import at_least
from holdfast.keys import pkcs11_objects as objects
from holdfast.keys.pkcs11_objects import Labels, Which
from holdfast.wire.errors import KeyStoreError
from keys.pki import Pki

EC = ec.generate_private_key(ec.SECP256R1()).public_key()
RSA = rsa.generate_private_key(65537, 2048).public_key()
P256 = bytes.fromhex("06082a8648ce3d030107")
POINT = EC.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
MODULUS = RSA.public_numbers().n.to_bytes(256, "big")

REFUSALS = st.sampled_from([pkcs11.AttributeSensitive, pkcs11.AttributeTypeInvalid, ValueError])
CERTIFICATE = Pki().root.public_bytes(Encoding.DER)
LIKELY = [b"", P256, P256[2:], POINT, b"\x04\x41" + POINT, POINT[:-1], POINT[::-1], MODULUS, b"\1\0\1"]
OCTETS = st.one_of(
    st.binary(max_size=80), st.sampled_from([*LIKELY, CERTIFICATE, CERTIFICATE[:-1]]), REFUSALS
)
LABELS = st.one_of(st.text(max_size=40), REFUSALS)


class Thing(dict[Attribute, Any]):
    """An object of a token; what it refuses to show is an exception class."""

    key_type = KeyType.EC

    def __getitem__(self, attribute: Attribute) -> Any:
        value = super().get(attribute, pkcs11.AttributeTypeInvalid)
        if isinstance(value, type):
            raise value
        return value


OF_OCTETS = ("EC_PARAMS", "EC_POINT", "MODULUS", "PUBLIC_EXPONENT", "ID", "VALUE")
THINGS = st.fixed_dictionaries(
    {}, optional={Attribute.LABEL: LABELS, **{Attribute[name]: OCTETS for name in OF_OCTETS}}
).map(Thing)
KINDS = st.sampled_from([KeyType.EC, KeyType.RSA])


def session(found: dict[ObjectClass, list[Thing]]) -> Any:
    return SimpleNamespace(get_objects=lambda wanted: iter(found.get(wanted[Attribute.CLASS], [])))


@given(THINGS, st.lists(THINGS, max_size=2), st.lists(THINGS, max_size=2), KINDS)
@settings(max_examples=at_least(500))
def test_public_keys(private: Thing, public: list[Thing], certificates: list[Thing], kind: KeyType) -> None:
    private.key_type = kind  # type: ignore[misc]
    token = session({ObjectClass.PUBLIC_KEY: public, ObjectClass.CERTIFICATE: certificates})
    try:
        key = objects.public_key(token, private, Which("x", b"x"))
    except KeyStoreError:
        return
    assert isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey)


def test_the_forms_that_tokens_use() -> None:
    for point in (POINT, b"\x04\x41" + POINT):
        private = Thing({Attribute.EC_PARAMS: P256, Attribute.EC_POINT: point})
        assert objects.public_key(session({}), private, Which("x", b"x")) == EC
    private = Thing({Attribute.MODULUS: MODULUS, Attribute.PUBLIC_EXPONENT: b"\1\0\1"})
    private.key_type = KeyType.RSA  # type: ignore[misc]
    assert objects.public_key(session({}), private, Which("x", b"x")) == RSA


@given(st.lists(THINGS, max_size=6))
@settings(max_examples=at_least(500))
def test_what_is_ours_follows_the_convention_to_the_letter(things: list[Thing]) -> None:
    ours = Thing({Attribute.LABEL: "holdfast-ldevid-1", Attribute.ID: b"holdfast-ldevid-1"})
    token = session({ObjectClass.PRIVATE_KEY: [*things, ours], ObjectClass.CERTIFICATE: things})
    assert objects.own_labels(token, Labels("holdfast")) == {"holdfast-ldevid-1"}
