"""TSS2 PEM files and key file names: what damaged or hostile input does. No TPM needed."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss import TPM2B_PRIVATE, TPM2B_PUBLIC

from holdfast.keys.api import KeySpec
from holdfast.keys.key_files import KeyFiles, checked
from holdfast.keys.tpm_objects import object_name
from holdfast.keys.tpm_templates import public_key, signing_key
from holdfast.keys.tss2_pem import MAX_PEM, WrappedKey, decode, encode
from holdfast.wire.errors import KeyNotFound, KeyStoreError, KeyStoreUnavailable

PARENT = b"\x00\x0b" + bytes(range(32))


def failure(operation) -> str | None:
    """Code of the KeyStoreError that *operation* raises; every other exception is a bug and passes."""
    try:
        operation()
    except KeyStoreError as error:
        return error.code
    return None


def read(text: bytes) -> None:
    area = decode(text).public.publicArea
    object_name(area)
    public_key(area)


def wrapped(**changes) -> WrappedKey:
    area = signing_key(KeySpec())
    numbers = ec.generate_private_key(ec.SECP256R1()).public_key().public_numbers()
    area.unique.ecc.x = numbers.x.to_bytes(32, "big")
    area.unique.ecc.y = numbers.y.to_bytes(32, "big")
    fields = {
        "private": TPM2B_PRIVATE(b"wrapped" * 18),
        "public": TPM2B_PUBLIC(publicArea=area),
        "empty_auth": True,
        "parent": 0x81000001,
        "parent_name": PARENT,
    }
    return WrappedKey(**{**fields, **changes})


@pytest.mark.parametrize("empty_auth", [True, False])
@pytest.mark.parametrize("parent_name", [PARENT, b""])
def test_round_trip(empty_auth, parent_name):
    key = wrapped(empty_auth=empty_auth, parent_name=parent_name)
    again = decode(encode(key))
    assert (again.empty_auth, again.parent, again.parent_name) == (empty_auth, 0x81000001, parent_name)
    assert bytes(again.private) == bytes(key.private)
    assert object_name(again.public.publicArea) == object_name(key.public.publicArea)
    assert isinstance(public_key(again.public.publicArea), ec.EllipticCurvePublicKey)


def test_no_secret_in_the_text_form():
    assert "wrapped" not in repr(wrapped())


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"-----BEGIN TSS2 PRIVATE KEY-----\n",
        b"-----BEGIN TSS2 PRIVATE KEY-----\nAAAA\n-----END TSS2 PRIVATE KEY-----\n",
        b"-----BEGIN TSS2 PRIVATE KEY-----\n*\n-----END TSS2 PRIVATE KEY-----\n",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        encode(wrapped()) + bytes(MAX_PEM),
    ],
    ids=["empty", "cut", "short", "no base64", "another kind", "too long"],
)
def test_files_that_are_no_key(text):
    with pytest.raises(KeyStoreError) as caught:
        decode(text)
    assert caught.value.code == "key.corrupt"


def test_a_public_area_with_an_unknown_name_algorithm():
    der = base64.b64decode(b"".join(encode(wrapped(parent_name=b"")).splitlines()[1:-1]))
    damaged = der.replace(b"\x00\x23\x00\x0b", b"\x00\x23\x4f\x0b")
    assert damaged != der
    text = b"-----BEGIN TSS2 PRIVATE KEY-----\n%s\n-----END TSS2 PRIVATE KEY-----\n"
    assert failure(lambda: decode(text % base64.b64encode(der))) is None
    assert failure(lambda: decode(text % base64.b64encode(damaged))) == "key.corrupt"


TEXT = encode(wrapped())


@given(st.data())
def test_damaged_files_raise_nothing_else(data):
    damaged = bytearray(TEXT)
    for _ in range(data.draw(st.integers(1, 6))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for text in (bytes(damaged), cut):
        codes = {None, "key.corrupt", "key.kind", "key.restricted", "key.no-signing"}
        assert failure(lambda t=text: read(t)) in codes


@given(st.binary(max_size=300))
def test_any_bytes(text):
    with pytest.raises(KeyStoreError):
        decode(text)


@pytest.mark.parametrize("name", ["ldevid-0", "a-1", "a_b-c-12", "0-999999999"])
def test_names_that_are_let_through(name):
    assert checked(name) == name


@given(st.text())
def test_names_never_leave_the_directory(name):
    if failure(lambda: checked(name)) is None:
        assert "/" not in name
        assert name.isascii()
        assert not name.startswith(".")


@pytest.mark.parametrize(
    "name", ["", "a", "a-", "-1", "a-01", "a-1\n", "../a-1", "a/b-1", ".a-1", "A-1", "a-1234567890"]
)
def test_names_that_are_not(name):
    with pytest.raises(KeyStoreError):
        checked(name)


def test_files_other_than_keys_are_passed_over(tmp_path):
    files = KeyFiles(tmp_path)
    for stray in (".ldevid-2.tss2.pem.new", "README", "Bad-1.tss2.pem", "ldevid-x.tss2.pem"):
        (tmp_path / stray).touch()
    files.write("ldevid-1", b"content")
    assert files.names() == {"ldevid-1"}
    assert files.read("ldevid-1", 100) == b"content"


def test_a_directory_that_cannot_be_used(tmp_path):
    (tmp_path / "file").touch()
    files = KeyFiles(tmp_path / "file")
    for operation in (
        files.names,
        lambda: files.read("a-1", 10),
        lambda: files.write("a-1", b""),
    ):
        with pytest.raises(KeyStoreUnavailable) as caught:
            operation()
        assert caught.value.code == "key.directory"
    with pytest.raises(KeyNotFound):
        KeyFiles(tmp_path / "absent").read("a-1", 10)
    KeyFiles(tmp_path / "absent").remove("a-1")


def test_a_write_is_durable_before_it_is_visible(tmp_path, monkeypatch):
    events = []
    real_fsync, real_rename = os.fsync, type(tmp_path).rename
    monkeypatch.setattr(
        os, "fsync", lambda d: (events.append(str(Path(f"/proc/self/fd/{d}").readlink())), real_fsync(d))
    )
    monkeypatch.setattr(
        type(tmp_path), "rename", lambda s, t: (events.append(f"rename {t.name}"), real_rename(s, t))
    )
    KeyFiles(tmp_path).write("ldevid-1", b"content")
    assert events == [
        str(tmp_path / ".ldevid-1.tss2.pem.new"),
        "rename ldevid-1.tss2.pem",
        str(tmp_path),
    ]


def test_a_planted_link_is_not_followed(tmp_path):
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / ".ldevid-1.tss2.pem.new").symlink_to(target)
    KeyFiles(tmp_path).write("ldevid-1", b"content")
    assert target.read_bytes() == b"precious"
