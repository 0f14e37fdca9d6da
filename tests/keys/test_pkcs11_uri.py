"""PKCS#11 URIs: the RFC's own examples, each refusal, matching, and the way there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import at_least
from holdfast.keys.pkcs11_uri import MAX_ATTRIBUTES, MAX_URI, Pkcs11Uri, TokenFacts, parse
from holdfast.wire.errors import KeyStoreError

EXAMPLES = (Path(__file__).parent.parent / "vectors/pkcs11/rfc7512-3.txt").read_text().splitlines()
MEANINGS: list[dict[str, Any]] = [
    {},
    {"object": "my-pubkey", "type": "public"},
    {"object": "my-key", "type": "private", "pin_source": "file:/etc/token"},
    {
        "token": "The Software PKCS#11 Softtoken",
        "manufacturer": "Snake Oil, Inc.",
        "model": "1.0",
        "serial": "",
        "object": "my-certificate",
        "type": "cert",
        "id": bytes.fromhex("69953e5cf4bdec91"),
        "pin_source": "file:/etc/token_pin",
    },
    {"object": "my-sign-key", "type": "private", "module_name": "mypkcs11"},
    {"object": "my-sign-key", "type": "private", "module_path": "/mnt/libmypkcs11.so.1"},
    {"token": "Software PKCS#11 softtoken", "manufacturer": "Snake Oil, Inc.", "pin_value": "the-pin"},
    {"slot_description": "Sun Metaslot"},
    {
        "library_manufacturer": "Snake Oil, Inc.",
        "library_description": "Soft Token Library",
        "library_version": (1, 23),
    },
    {
        "token": "My token% created by Joe",
        "library_version": (3, 0),
        "id": bytes.fromhex("010203baddcafe040506"),
    },
    {"token": "A name with a substring %;", "object": "my-certificate", "type": "cert"},
    {"token": "Name with a small A with acute: á", "object": "my-certificate", "type": "cert"},
    {
        "token": "my-token",
        "object": "my-certificate",
        "type": "cert",
        "unknown": (("vendor-aaa", b"value-a"),),
        "pin_source": "file:/etc/token_pin",
        "vendor": (("vendor-bbb", b"value-b"),),
    },
]


@pytest.mark.parametrize(("text", "meaning"), list(zip(EXAMPLES, MEANINGS, strict=True)))
def test_examples_of_the_rfc(text: str, meaning: dict[str, Any]) -> None:
    uri = parse(text)
    assert uri == Pkcs11Uri(**meaning)
    assert parse(uri.text()) == uri


def refusal(text: str) -> str:
    with pytest.raises(KeyStoreError) as caught:
        parse(text)
    assert caught.value.code == "key.uri"
    assert caught.value.clause.startswith("RFC 7512")
    return caught.value.detail


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "does not start"),
        ("pkcs12:token=x", "does not start"),
        ("token=x", "does not start"),
        ("pkcs11:token", "name=value"),
        ("pkcs11:;", "name=value"),
        ("pkcs11:token=x;", "name=value"),
        ("pkcs11:=x", "name=value"),
        ("pkcs11:to%6Ben=x", "name=value"),
        ("pkcs11:token=x?&", "name=value"),
        ("pkcs11:token=a b", "token: a character"),
        ("pkcs11:token=a/b", "token: a character"),
        ("pkcs11:token=a|b", "token: a character"),
        ("pkcs11:token=a#b", "token: a character"),
        ("pkcs11:token=%", "token: a character"),
        ("pkcs11:token=%4", "token: a character"),
        ("pkcs11:token=%4g", "token: a character"),
        ("pkcs11:token=é", "token: a character"),
        ("pkcs11:token=x\n", "token: a character"),
        ("pkcs11:token=%C3", "token is not UTF-8"),
        ("pkcs11:token=a;token=a", "token stands there twice"),
        ("pkcs11:vendor=a;vendor=b", "vendor stands there twice"),
        ("pkcs11:?module-name=a&module-name=b", "module-name stands there twice"),
        ("pkcs11:type=certificate", "type is none of"),
        ("pkcs11:type=", "type is none of"),
        ("pkcs11:library-version=1.", "not a version"),
        ("pkcs11:library-version=", "not a version"),
        ("pkcs11:library-version=1.2.3", "not a version"),
        ("pkcs11:slot-id=0x1", "not a number"),
        ("pkcs11:slot-id=-1", "not a number"),
        ("pkcs11:?pin-source=file:/a&pin-value=1234", "exclude each other"),
        ("pkcs11:?pin-value=1234&pin-source=file:/a", "exclude each other"),
        ("pkcs11:?pin-source=|/usr/bin/pin", "a command"),
        ("pkcs11:?pin-source=%7C/usr/bin/pin", "a command"),
        ("pkcs11:?pin-source=pin.txt", "from the root"),
        ("pkcs11:?pin-source=file:pin.txt", "from the root"),
        ("pkcs11:?pin-source=file://host/etc/pin", "from the root"),
        ("pkcs11:?pin-source=https://host/pin", "from the root"),
        ("pkcs11:?pin-source=file:/etc%2500/pin", "from the root"),
        ("pkcs11:?pin-source=file:/etc%25FF/pin", "not UTF-8"),
        ("pkcs11:?module-path=lib/p11.so", "from the root"),
        ("pkcs11:?module-path=./p11.so", "from the root"),
        ("pkcs11:?module-path=", "from the root"),
        ("pkcs11:?module-path=/a%00.so", "from the root"),
        ("pkcs11:?module-name=../p11", "no path"),
        ("pkcs11:token=" + "x" * MAX_URI, "longer than"),
        ("pkcs11:" + ";".join(f"v{n}=" for n in range(MAX_ATTRIBUTES + 1)), "more than"),
    ],
)
def test_refusals(text: str, why: str) -> None:
    assert why in refusal(text)


def test_no_refusal_shows_a_pin() -> None:
    for text in (
        "pkcs11:?pin-value=73-91&pin-source=file:/a",
        "pkcs11:?pin-value=73-91&pin-value=73-91",
        "pkcs11:?pin-value=73-91 ",
        "pkcs11:?pin-value=73-91%FF",
        "pkcs11:pin-value=73-91;;",
    ):
        assert "73-91" not in refusal(text)
    assert "73-91" not in repr(parse("pkcs11:?pin-value=73-91"))


@pytest.mark.parametrize(
    ("source", "file"),
    [
        ("file:/etc/pin", "/etc/pin"),
        ("file:///etc/pin", "/etc/pin"),
        ("file://localhost/etc/pin", "/etc/pin"),
        ("FILE:/etc/pin", "/etc/pin"),
        ("file:/etc/the%2520pin", "/etc/the pin"),
        ("/etc/pin", "/etc/pin"),
        ("/etc/the%2520pin", "/etc/the%20pin"),
    ],
)
def test_the_file_of_a_pin(source: str, file: str) -> None:
    assert parse(f"pkcs11:?pin-source={source}").pin_file == file
    assert parse("pkcs11:").pin_file is None


FACTS = TokenFacts(
    token="gateway",
    manufacturer="SoftHSM project",
    serial="5f",
    model="SoftHSM v2",
    library_manufacturer="SoftHSM",
    library_description="Implementation of PKCS11",
    library_version=(2, 6),
    slot_manufacturer="SoftHSM project",
    slot_description="SoftHSM slot ID 0x5f",
    slot_id=95,
)
WHOLE = (
    "pkcs11:token=gateway;manufacturer=SoftHSM%20project;serial=5f;model=SoftHSM%20v2;"
    "library-manufacturer=SoftHSM;library-description=Implementation%20of%20PKCS11;library-version=2.6;"
    "slot-manufacturer=SoftHSM%20project;slot-description=SoftHSM%20slot%20ID%200x5f;slot-id=95"
)


def test_a_whole_description_matches_and_each_difference_does_not() -> None:
    assert parse("pkcs11:").matches_token(FACTS)
    assert parse(WHOLE).matches_token(FACTS)
    assert parse("pkcs11:object=x;id=%01;type=cert").matches_token(FACTS), "objects are another question"
    for part in WHOLE.removeprefix("pkcs11:").split(";"):
        assert parse(f"pkcs11:{part}").matches_token(FACTS)
        assert not parse(f"pkcs11:{part}1").matches_token(FACTS), part
    for name in ("token", "serial", "slot-description"):
        assert not parse(f"pkcs11:{name}=").matches_token(FACTS), "empty is a value, too"
    assert parse("pkcs11:serial=").matches_token(TokenFacts())


def test_an_unknown_path_attribute_matches_nothing_an_unknown_query_is_ignored() -> None:
    assert not parse("pkcs11:token=gateway;vendor-x=1").matches_token(FACTS)
    assert parse("pkcs11:token=gateway?vendor-x=1&vendor-x=2").matches_token(FACTS)
    assert not parse("pkcs11:vendor-x=1").of_token.matches_token(FACTS)


def test_the_uri_of_one_object() -> None:
    uri = parse("pkcs11:token=gateway;object=old;id=%01?pin-source=file:/p&module-path=/m.so")
    assert uri.with_object("holdfast-ldevid-3", b"\x00k", "private").text() == (
        "pkcs11:token=gateway;object=holdfast-ldevid-3;id=%00%6B;type=private"
    )
    assert parse("PKCS11:token=x").text() == "pkcs11:token=x"
    assert parse("pkcs11:token=x?").text() == "pkcs11:token=x"


TEXTS = st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.from_regex(r"v[A-Za-z0-9_-]{1,8}", fullmatch=True)
OTHERS = st.lists(st.tuples(NAMES, st.binary(max_size=8)), max_size=3)
PATHS = st.none() | st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12
).map("/{}".format)


@given(
    st.builds(
        Pkcs11Uri,
        token=TEXTS,
        manufacturer=TEXTS,
        serial=TEXTS,
        model=TEXTS,
        library_manufacturer=TEXTS,
        library_version=st.none() | st.tuples(st.integers(0, 255), st.integers(0, 255)),
        library_description=TEXTS,
        slot_manufacturer=TEXTS,
        slot_description=TEXTS,
        slot_id=st.none() | st.integers(0, 2**64 - 1),
        object=TEXTS,
        id=st.none() | st.binary(max_size=20),
        type=st.sampled_from([None, "public", "private", "cert", "secret-key", "data"]),
        unknown=OTHERS.map(lambda o: tuple({name: (name, value) for name, value in o}.values())),
        pin_source=PATHS,
        module_path=PATHS,
        vendor=OTHERS.map(tuple),
    )
)
@settings(max_examples=at_least(300))
def test_what_is_written_reads_back(uri: Pkcs11Uri) -> None:
    text = uri.text()
    assert text.isascii()
    assert parse(text) == uri
    assert parse(text).text() == text
