"""Mutated requests, CMS and chains: nothing but our own errors escapes, and no forgery passes.

Edits come from a fixed seed; keys are fresh each run, so a failure prints the whole input.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import pairwise

import pytest

import wire_pki as pki
from holdfast.wire import cms, csr, oids
from holdfast.wire.certificates import load
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import HoldfastError

ROOT = pki.ca("Root")
SUB = pki.ca("Sub", ROOT)
LEAF = pki.end_entity(pki.name("leaf", "SN-1"), SUB, san=pki.dns("a.example"), eku=[pki.CLIENT_AUTH])
CONTENT = b'{"ietf-voucher:voucher":{"nonce":"x"}}'
VOUCHER = cms.sign(
    CONTENT, oids.CT_ANIMA_JSON_VOUCHER, LEAF.key, LEAF.certificate, LEAF.above, signing_time=pki.NOW
)
BAG = cms.certs_only(LEAF.chain)
REQUEST = csr.build(LEAF.key, pki.name("leaf", "SN-1"), san=pki.dns("a.example"), challenge="secret")
RULES = (
    Rule.client(),
    Rule.issued(),
    Rule.registrar(),
    Rule.voucher_signer(),
    Rule.tls_server("a.example", allow_cmcra=True),
)
NOTHING = object()
_ODD = (
    b"\x00",
    b"\x80",
    b"\xff",
    b"\x30\x80",
    b"\x84\xff\xff\xff\xff",
    b"\x31\x00",
    b"\x1f\x81",
    b"\x06\x00",
)


def read_request(data: bytes) -> object:
    made = csr.parse(data)
    return (csr.challenge_password(made), csr.public_bytes(made))


def said(opened: cms.SignedContent) -> object:
    """What the signature covers. The signer's certificate is for the chain to prove, only its key counts."""
    return (opened.content, opened.content_type, csr.public_bytes(opened.signer), opened.signing_time)


def read_voucher(data: bytes) -> object:
    return said(cms.open_signed(data))


def read_unattributed(data: bytes) -> object:
    return said(cms.open_signed(data, require_attributes=False, candidates=LEAF.chain))


def read_chain(data: bytes) -> object:
    """Put the certificate in every place of a chain. Only as the leaf or an issuer could it do harm."""
    broken = load(data)
    for rule in RULES:
        for chain, anchors in (
            ((LEAF.certificate,), (broken, SUB.certificate)),
            ((LEAF.certificate, broken), (ROOT.certificate, SUB.certificate)),
        ):
            with suppress(HoldfastError):
                validate(chain, anchors, pki.TRUSTED, rule)  # may hold: the mutant is not needed
        with suppress(HoldfastError):
            return validate((LEAF.certificate, broken), (ROOT.certificate,), pki.TRUSTED, rule)
    return validate((broken, *LEAF.above), (ROOT.certificate,), pki.TRUSTED, Rule.client())


SAID = (CONTENT, oids.CT_ANIMA_JSON_VOUCHER, csr.public_bytes(LEAF.key), pki.NOW)
CORPUS: list[tuple[Callable[[bytes], object], bytes, object]] = [
    (read_request, REQUEST, NOTHING),
    (read_voucher, VOUCHER, SAID),
    (read_unattributed, VOUCHER, SAID),
    (cms.parse_certs_only, BAG, None),
    (read_chain, pki.der(LEAF.certificate), NOTHING),
    (read_chain, pki.der(SUB.certificate), NOTHING),
]
"""Reader, honest input, and what a changed input may at most say: NOTHING, or this, or (None) anything."""


def mutations(seed: bytes, rounds: int) -> Iterator[bytes]:
    """Every octet flipped, every truncation, then *rounds* of seeded edits."""
    for at in range(len(seed)):
        yield seed[:at]
        yield seed[:at] + bytes([seed[at] ^ (1 << at % 8)]) + seed[at + 1 :]
    source = random.Random(8995)
    for _ in range(rounds):
        data = bytearray(seed)
        for _ in range(source.randint(1, 4)):
            at, size = source.randrange(len(data) + 1), source.choice((0, 1, 1, 2, 8, 64))
            new = source.choice(
                (source.choice(_ODD), source.randbytes(source.randint(0, 6)), bytes(data[at : at + 40]))
            )
            data[at : at + size] = new
            data = data or bytearray(1)
        yield bytes(data)


@pytest.mark.parametrize("index", range(len(CORPUS)))
def test_mutations(index: int) -> None:
    read, seed, allowed = CORPUS[index]
    families = set[str]()
    for data in mutations(seed, 4000):
        if data == seed:
            continue
        try:
            result = read(data)
        except HoldfastError as error:
            families.add(error.code.split(".")[0])
            continue
        assert allowed is not NOTHING, data.hex()
        assert allowed is None or result == allowed, data.hex()
    assert families
    assert families <= {"csr", "cms", "certificate", "chain", "key", "signature"}


def test_the_corpus_is_honest() -> None:
    assert read_request(REQUEST) == ("secret", csr.public_bytes(LEAF.key))
    assert read_voucher(VOUCHER) == read_unattributed(VOUCHER) == SAID
    assert set(cms.parse_certs_only(BAG)) == set(LEAF.chain)
    assert read_chain(pki.der(LEAF.certificate)) == LEAF.chain


def test_random_chains() -> None:
    """Any mix of good, foreign and mutated certificates ends in a path to the anchor or in our error."""
    source = random.Random(5280)
    other = pki.ca("Root")
    pool = [
        *LEAF.chain,
        *pki.end_entity("leaf", pki.ca("Sub", other)).chain,
        pki.end_entity("x", SUB).certificate,
    ]
    seen = set()
    for _ in range(400):
        chain = tuple(source.choices(pool, k=source.randint(0, 6)))
        anchors = tuple(source.choices(pool, k=source.randint(0, 2)))
        try:
            path = validate(chain, anchors, pki.TRUSTED, source.choice(RULES))
        except HoldfastError as error:
            seen.add(error.code)
            continue
        assert path[0] == chain[0]
        assert path[-1] in anchors
        assert set(path[:-1]) <= set(chain)
        for child, issuer in pairwise(path):
            child.verify_directly_issued_by(issuer)
        seen.add("good")
    assert {"good", "chain.untrusted", "chain.empty", "chain.usage"} <= seen
