"""Mutated vouchers: only our own errors escape, and a change of what was signed is never believed.

Deterministic: the mutations come from a fixed seed, so that a failure repeats. The number of mutations
follows FUZZ_EXAMPLES.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest
from cryptography import x509

from holdfast.wire import certificates, cms, oids
from holdfast.wire.brski.client import Attempt, Vouched, obtain
from holdfast.wire.brski.messages import (
    RegistrarVoucherRequest,
    Telemetry,
    Voucher,
    VoucherRequest,
    aki,
    masa_url,
    serial_number,
)
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpResponse
from wire.brski_parties import TRUSTED, Parties, converse, issue, ok

ROUNDS = int(os.environ.get("FUZZ_EXAMPLES", "3000"))


@pytest.fixture(scope="module")
def world() -> Parties:
    return Parties()


@pytest.fixture(scope="module")
def attempt(world: Parties) -> Attempt:
    return world.attempt()


def mutations(data: bytes, rounds: int, seed: int) -> Iterator[bytes]:
    """Flipped bits, cut ends, removed, doubled and replaced pieces, changed lengths."""
    chance = random.Random(seed)
    for _ in range(rounds):
        made = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            at = chance.randrange(len(made)) if made else 0
            span = chance.choice((1, 1, 2, 4, 16))
            match chance.randrange(6):
                case 0 if made:
                    made[at] ^= 1 << chance.randrange(8)
                case 1 if made:
                    made[at] = chance.choice((0, 1, 0x30, 0x7F, 0x80, 0xFF))
                case 2:
                    del made[at : at + span]
                case 3:
                    made[at:at] = made[at : at + span]
                case 4:
                    made[at:at] = chance.randbytes(span)
                case 5:
                    del made[max(at, 1) :]
        yield bytes(made)


def test_no_mutated_voucher_is_believed_unless_it_says_the_same(world: Parties, attempt: Attempt) -> None:
    voucher = world.sign(world.voucher(attempt))
    honest = cms.open_signed(voucher)
    outcomes: dict[str, int] = {}
    for mutated in mutations(voucher, ROUNDS, seed=8995):
        talk = converse(obtain(attempt, world.trust, world.tls, TRUSTED), ok(mutated))
        if talk.error is None:
            assert isinstance(talk.outcome, Vouched)
            assert cms.open_signed(mutated).content == honest.content
            assert cms.open_signed(mutated).signer == honest.signer
            assert talk.outcome.pinned == world.domain.certificate
        else:
            assert isinstance(talk.error, HoldfastError), (type(talk.error), mutated.hex())
            assert talk.error.code.startswith("voucher."), talk.error
            outcomes[talk.error.code] = outcomes.get(talk.error.code, 0) + 1
    assert outcomes.keys() >= {"voucher.cms", "voucher.signature"}, outcomes


def test_mutated_content_under_a_good_signature(world: Parties, attempt: Attempt) -> None:
    """A MASA that signs garbage: the codec and the checks meet every byte of it."""
    content = world.voucher(attempt).encode()
    for mutated in mutations(content, ROUNDS // 10, seed=8366):
        talk = converse(obtain(attempt, world.trust, world.tls, TRUSTED), ok(world.sign(mutated)))
        if talk.error is None:
            said = Voucher.decode(mutated)
            assert (said.serial_number, said.nonce) == (world.trust.serial_number, attempt.nonce)
        else:
            assert isinstance(talk.error, HoldfastError), (type(talk.error), mutated)


def test_a_mutated_registrar_chain_is_never_another_registrar(world: Parties, attempt: Attempt) -> None:
    voucher = ok(world.sign(world.voucher(attempt)))
    leaf, issuer = world.tls.peer_chain
    for mutated in mutations(issuer, ROUNDS // 10, seed=5280):
        tls = world.connection(world.registrar)
        tls = type(tls)(tls.origin, tls.version, (leaf, mutated), authenticated=False)
        talk = converse(obtain(attempt, world.trust, tls, TRUSTED), voucher)
        if talk.error is None:
            assert mutated == issuer or talk.outcome.registrar_chain[-1] == world.domain.certificate
        else:
            assert isinstance(talk.error, HoldfastError), (type(talk.error), mutated.hex())


def test_mutated_headers_and_statuses(world: Parties, attempt: Attempt) -> None:
    chance = random.Random(9110)
    names = (b"Content-Type", b"Location", b"Retry-After", b"Date")
    values = (
        b"application/voucher-cms+json", b"https://other.example/x", b"Sun, 01 Nov 2026 12:00:30 GMT", b"120",
    )  # fmt: skip
    for _ in range(ROUNDS // 3):
        headers = tuple(
            (
                name.decode("latin-1"),
                next(mutations(chance.choice(values), 1, chance.randrange(2**32))).decode("latin-1"),
            )
            for name in names
        )
        answer = HttpResponse(
            chance.choice((200, 201, 202, 301, 302, 307, 400, 404, 500)), headers, chance.randbytes(40)
        )
        talk = converse(obtain(attempt, world.trust, world.tls, TRUSTED), answer, answer)
        assert not isinstance(talk.outcome, Vouched)
        assert talk.error is None or isinstance(talk.error, HoldfastError), (talk.error, headers)


@pytest.mark.parametrize("kind", [Voucher, VoucherRequest, RegistrarVoucherRequest, Telemetry])
def test_mutated_json(world: Parties, attempt: Attempt, kind: type) -> None:
    honest = {
        Voucher: world.voucher(attempt).encode(),
        VoucherRequest: cms.open_signed(attempt.pvr).content,
        RegistrarVoucherRequest: RegistrarVoucherRequest(
            "1", "n", "proximity", None, b"\x30\x00", attempt.pvr
        ).encode(),
        Telemetry: Telemetry(False, "voucher.nonce", {"code": "voucher.nonce"}).encode(),
    }[kind]
    for mutated in mutations(honest, ROUNDS, seed=8259):
        try:
            kind.decode(mutated)
        except HoldfastError:
            continue


def test_mutated_idevids(world: Parties) -> None:
    """A registrar reads the certificates of devices that it has never seen."""
    module = b"\x30\x07\x06\x02\x2a\x03\x04\x01x"
    name = x509.OtherName(x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME), module)
    device = issue("gateway", world.vendor, masa_url="masa.maker.example", san=(name,))
    readable = 0
    for mutated in mutations(device.der, ROUNDS, seed=4108):
        for read in (serial_number, masa_url, aki):
            try:
                read(certificates.load(mutated))
            except HoldfastError:
                continue
            readable += 1
    assert readable > ROUNDS / 100
