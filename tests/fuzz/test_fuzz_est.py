"""Whatever an EST server answers, only named errors and outcomes come out, and nothing spoilt is issued.

The accidents come from fixed seeds; only keys, serial numbers and ECDSA signatures differ between runs.
"""

from __future__ import annotations

import random
from collections.abc import Generator, Iterator
from typing import Any

import pytest

from holdfast.wire.authorities import split_authorities
from holdfast.wire.errors import HoldfastError, LocalProtocolError
from holdfast.wire.est import messages
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.messages import (
    certs_response,
    csrattrs_response,
    decode_body,
    encode_body,
    text_response,
)
from holdfast.wire.http import HttpCredentials
from holdfast.wire.model import (
    CsrTemplate,
    HttpRequest,
    HttpResponse,
    Issued,
    KeyAlgorithm,
    Moved,
    Offer,
    Pending,
    Rejected,
)
from wire.est_parties import TLS13, TRUSTED, UNKNOWN, ZEROS, Domain

EST = EstProtocol(credentials=HttpCredentials("gateway", "s3cret-pass"), random=ZEROS)
TEMPLATE = CsrTemplate(
    key=KeyAlgorithm.RSA2048,
    subject=(("2.5.4.3", None), ("2.5.4.11", "plant")),
    fill_extensions=("2.5.29.17", "2.5.29.37"),
    link_tls_unique=True,
    unknown=("1.2.3.4",),
)
VALUES = (
    "", "0", "-1", "99999999999999999999", "Sun, 01 Nov 2026 12:00:00 GMT", "Sun, 99 Nov 2026 12:00:00 GMT",
    "/x", "//", "https://", "https://[", "https://a:b/", "https://other.example/", "\x00", "é", "Basic",
    'Digest realm="r", nonce="n", qop=auth', 'Digest nonce="n', 'Basic realm="r"', "text/plain", ";;;=",
    "application/pkcs7-mime", "application/csrattrs; charset", 'application/pkcs7-mime; a="',
)  # fmt: skip
HEADERS = ("Content-Type", "Location", "WWW-Authenticate", "Retry-After", "Date", "Content-Transfer-Encoding")
STATUSES = (200, 202, 204, 301, 302, 303, 307, 308, 400, 401, 401, 404, 429, 500, 501, 503, 0, 999)
MAX_REQUESTS = 8


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain()


def spoilt(data: bytes, chance: random.Random) -> bytes:
    """*data* after one to three small accidents."""
    octets = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(octets) + 1)
        match chance.randrange(6):
            case 0 if at < len(octets):
                octets[at] ^= 1 << chance.randrange(8)
            case 1 if at < len(octets):
                octets[at] = chance.choice((0, 1, 0x30, 0x7F, 0x80, 0x84, 0xFF))
            case 2:
                del octets[at:]
            case 3:
                octets[at:at] = chance.randbytes(chance.randint(1, 4))
            case 4:
                del octets[at : at + chance.randint(1, 8)]
            case _:
                octets += octets[at : at + 40]
    return bytes(octets)


def mutated(good: HttpResponse, chance: random.Random) -> HttpResponse:
    headers = list(good.headers)
    status = good.status
    body = good.body
    kind = chance.randrange(4)
    if kind == 0 and body:
        body = encode_body(spoilt(decode_body(body), chance))
    elif kind == 1 and body:
        body = spoilt(body, chance)
    elif kind == 2:
        status = chance.choice(STATUSES)
        headers.insert(0, (chance.choice(HEADERS), chance.choice(VALUES)))
    else:
        headers = [(chance.choice(HEADERS), chance.choice(VALUES)) for _ in range(3)]
    return HttpResponse(status, tuple(headers), body)


def outcome(exchange: Generator[HttpRequest, HttpResponse, Any], answers: Iterator[HttpResponse]) -> Any:
    """What the exchange ends with, its named errors included. Anything else escapes and fails the test."""
    try:
        next(exchange)
        for _ in range(MAX_REQUESTS):
            exchange.send(next(answers))
    except StopIteration as stop:
        return stop.value
    except LocalProtocolError as e:
        raise AssertionError("a server made us blame ourselves") from e
    except HoldfastError as e:
        return e
    raise AssertionError(f"still asking after {MAX_REQUESTS} answers")


@pytest.mark.parametrize("seed", range(40))
def test_enrollment_survives_any_answer(domain: Domain, seed: int) -> None:
    chance = random.Random(seed)
    req = domain.request()
    leaf = domain.issue(req.csr)
    good = [certs_response((leaf, domain.issuing.certificate)), text_response(202), text_response(401)]
    seen = set()
    for _ in range(60):
        answers = iter([mutated(chance.choice(good), chance) for _ in range(MAX_REQUESTS)])
        now = chance.choice((TRUSTED, UNKNOWN))
        result = outcome(EST.enroll(req, TLS13, now), answers)
        assert isinstance(result, Issued | Pending | Rejected | Moved | HoldfastError)
        if isinstance(result, Issued):
            # What is signed is what was issued; the padding count of a BIT STRING around it is not signed.
            signed = [c.tbs_certificate_bytes for c in result.chain]
            assert signed == [c.tbs_certificate_bytes for c in (leaf, domain.issuing.certificate)]
        seen.add(type(result))
    assert len(seen) > 2, "the mutations reach too little"


@pytest.mark.parametrize("seed", range(40))
def test_discovery_survives_any_answer(domain: Domain, seed: int) -> None:
    chance = random.Random(seed)
    certs = certs_response((domain.root.certificate, domain.issuing.certificate))
    wishes = csrattrs_response(TEMPLATE)
    seen = set()
    for _ in range(60):
        first = chance.choice([certs, mutated(certs, chance)])
        rest = [chance.choice([wishes, mutated(wishes, chance)]) for _ in range(MAX_REQUESTS)]
        result = outcome(EST.discover(TLS13, TRUSTED), iter([first, *rest]))
        assert isinstance(result, Offer | Moved | HoldfastError)
        if isinstance(result, Offer):
            # A spoilt intermediate may be kept: it is proved where it is used.
            assert split_authorities(result.ca_certificates).roots == (domain.root.certificate,)
        seen.add(type(result))
    assert len(seen) > 1, "the mutations reach too little"


@pytest.mark.parametrize("seed", range(20))
def test_wishes_survive_any_accident(seed: int) -> None:
    chance = random.Random(seed)
    for style, template in (
        ("9908", TEMPLATE),
        ("7030", CsrTemplate(key=KeyAlgorithm.P384, digest="sha384")),
    ):
        good = messages.encode_csrattrs(template, style)  # type: ignore[arg-type]
        read = 0
        for _ in range(150):
            try:
                messages.parse_csrattrs(spoilt(good, chance))
                read += 1
            except HoldfastError as e:
                if e.code != "est.csrattrs":
                    raise
        assert read < 150
