"""The TCG's templates: digests that others publish, and a key that a real chip made from one of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from holdfast.wire.errors import TrustError
from holdfast.wire.tpm.public import parse_public
from holdfast.wire.tpm.tcg_csr import parse_contents
from holdfast.wire.tpm.templates import Level, iak, idevid, level_of

VECTORS = Path(__file__).parent.parent / "vectors" / "tcg"
CONTENTS = parse_contents((VECTORS / "attestz-csr-contents.bin").read_bytes())
PUBLISHED = {
    ("idevid", "sha256"): "ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea",
    ("idevid", "sha384"): "4db1aa836d0b5615df6ee53a40ef70c61c217f4303d44695925972bc927006cfa5cbdf6d"
    "c18c4dbe329b2f1542c3dd33",
    ("idevid", "sha512"): "7dd7500fd6c1b94f97a6af910da147301ef28f662fee06f225a4ccadda3b4e6b38e66b2f"
    "3ad5dee1a0503cd2daedb1e68cfe4f84b03a8cd22bb6a976f071a72f",
    ("iak", "sha256"): "5437182326e414fca797d5f174615a1641f61255797c3a2b22c21d120b2d1e07",
    ("iak", "sha384"): "129d94ebf84556652c6eef43bbb757512ac87e52be7b349ca6ce4d826f749fcf672f5171"
    "6c5cbb605f313bf345aab312",
    ("iak", "sha512"): "8060d1fb31716a29e48a6e5fece088bcfc1b278fc162255e81c3eca3544cd44af94410c3"
    "715d561cccd9e39a6cb2646d43535bb54ea88710deb5f7836bd9b586",
}


@pytest.mark.parametrize("level", Level)
def test_policies_are_those_that_others_publish(level: Level) -> None:
    for name, template in (("idevid", idevid(level)), ("iak", iak(level))):
        size = int.from_bytes(template.area[8:10], "big")
        assert template.area[10 : 10 + size].hex() == PUBLISHED[name, template.digest]


def test_real_chips_keys_fit_the_template() -> None:
    signing, attesting = parse_public(CONTENTS.idevid), parse_public(CONTENTS.iak)
    assert level_of(signing) is Level.H3
    idevid(Level.H3).require(signing)
    iak(Level.H3).require(attesting)


def test_lacking_attribute_is_named() -> None:
    area = bytearray(CONTENTS.iak)
    area[5] &= ~0x01  # restricted is bit 16
    with pytest.raises(TrustError, match="restricted") as caught:
        iak(Level.H3).require(parse_public(bytes(area)))
    assert caught.value.code == "devid.attributes"


@pytest.mark.parametrize("at", [6, 7, 12, 40], ids=["attributes", "more attributes", "policy", "more policy"])
def test_other_template_is_refused(at: int) -> None:
    area = bytearray(CONTENTS.idevid)
    area[at] ^= 0x04
    with pytest.raises(TrustError) as caught:
        idevid(Level.H3).require(parse_public(bytes(area)))
    assert caught.value.code == "devid.template"


def test_key_that_decrypts_too_is_refused() -> None:
    area = bytearray(CONTENTS.idevid)
    area[5] |= 0x02  # decrypt is bit 17
    with pytest.raises(TrustError) as caught:
        idevid(Level.H3).require(parse_public(bytes(area)))
    assert caught.value.code == "devid.template"


def test_idevid_is_no_iak() -> None:
    with pytest.raises(TrustError) as caught:
        iak(Level.H3).require(parse_public(CONTENTS.idevid))
    assert caught.value.code == "devid.attributes"


def test_kind_without_template_is_refused() -> None:
    odd = parse_public(CONTENTS.idevid)
    with pytest.raises(TrustError) as caught:
        level_of(replace(odd, area=odd.area[:2] + b"\x00\x0b" + odd.area[4:]))
    assert caught.value.code == "devid.template"
