"""A fast mutator over CMP messages that others wrote, and every entry that a message has into our code.

``python -m fuzz.cmp_mutants COUNT [SEED]`` runs COUNT mutants and prints one JSON line. They come from a
seed, so that a run can be repeated; what must come out is a value or an error of the one family.
"""

from __future__ import annotations

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import crmf, der
from holdfast.wire.cmp import bodies, kem, mac, oids, requests, support
from holdfast.wire.cmp.bodies import CertReply
from holdfast.wire.cmp.message import Body, Header, Message, encode, parse
from holdfast.wire.cmp.protection import SignedByAuthority, UnderSecret, same_name
from holdfast.wire.cmp.template import encode_wishes, read_wishes
from holdfast.wire.errors import HoldfastError
from holdfast.wire.identified import Info
from holdfast.wire.message_signatures import is_signature, verify_by
from holdfast.wire.model import ClockState, CsrTemplate, KeyAlgorithm, Moment

VECTORS = Path(__file__).parents[1] / "vectors" / "cmp"
SECRET = b"golden-secret"
THEN = datetime(2026, 11, 24, 15, tzinfo=UTC)
NOW = Moment(THEN, THEN, ClockState.TRUSTED)
ROOT = x509.load_pem_x509_certificate((VECTORS / "openssl35-ca.pem").read_bytes())
BUDGET = 2_000
"""Iterations that a mutant may make us compute: the seeds have 500."""


def seeds() -> list[bytes]:
    """Foreign messages, and ours of the kinds that no foreign one shows."""
    found = [p.read_bytes() for p in sorted(VECTORS.glob("*.der"))]
    base = parse((VECTORS / "openssl35-genp.der").read_bytes())
    wishes = CsrTemplate(
        key=KeyAlgorithm.P384,
        subject=(("2.5.4.3", None), ("2.5.4.10", "Owner")),
        fill_extensions=("2.5.29.17",),
    )
    root = ROOT.public_bytes(Encoding.DER)
    update = der.sequence(root, der.explicit(0, root), der.explicit(1, root))
    infos = (
        Info(oids.CERT_REQ_TEMPLATE, encode_wishes(wishes)),
        Info(oids.ROOT_CA_KEY_UPDATE, update),
        Info(oids.CRLS, der.sequence(der.sequence())),
        Info(oids.CA_CERTS, der.sequence(root, root)),
        Info(oids.KEM_CIPHERTEXT, kem.KemCiphertext(oids.ML_KEM_768, bytes(1088)).encode()),
    )
    found += [encode(base.header, Body.GENP, bodies.general(info), protect=lambda _: b"x") for info in infos]
    found.append(_under_kem(base.header))
    polled = bodies.poll_reply(bodies.PollReply(0, 60, ("later",)))
    found.append(encode(base.header, Body.POLL_REP, polled, protect=lambda _: b"x"))
    nested = bodies.nested([(VECTORS / f"openssl35-{n}.der").read_bytes() for n in ("ir", "rr")])
    found.append(encode(base.header, Body.NESTED, nested, protect=lambda _: b"x"))
    return found


def _under_kem(header: Header) -> bytes:
    parameters = kem.KemParameters(context=b"context")
    protected = replace(header, protection=parameters.algorithm())
    return encode(
        protected,
        Body.GENM,
        bodies.general(Info(oids.KEM_CIPHERTEXT)),
        protect=lambda data: parameters.compute(SECRET, header.transaction, data),
    )


def mutant(seed: bytes, chance: random.Random) -> bytes:
    """*seed* after one to three accidents, most of which keep its length."""
    octets = bytearray(seed)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        at = chance.randrange(len(octets)) if octets else 0
        match chance.randrange(8):
            case 0 | 1 if octets:
                octets[at] ^= 1 << chance.randrange(8)
            case 2 | 3 if octets:
                octets[at] = chance.choice(_EDGES)
            case 4 if octets:
                octets[at] = (octets[at] + chance.choice((-1, 1))) & 0xFF
            case 5:
                octets[at:at] = chance.randbytes(chance.randint(1, 4))
            case 6:
                del octets[at : at + chance.randint(1, 8)]
            case _:
                end = min(len(octets), at + chance.randint(1, 64))
                to = chance.randrange(len(octets) + 1)
                octets[to : to + end - at] = octets[at:end]
    return bytes(octets)


_EDGES = (
    0x00,
    0x01,
    0x02,
    0x04,
    0x05,
    0x06,
    0x0C,
    0x18,
    0x30,
    0x31,
    0x7F,
    0x80,
    0x84,
    0xA0,
    0xA1,
    0xA6,
    0xFF,
)

_READERS: dict[Body, tuple[Callable[[bytes], object], ...]] = {
    Body.IR: (crmf.read_requests,),
    Body.CR: (crmf.read_requests,),
    Body.KUR: (crmf.read_requests,),
    Body.IP: (bodies.read_cert_reply,),
    Body.CP: (bodies.read_cert_reply,),
    Body.KUP: (bodies.read_cert_reply,),
    Body.CERT_CONF: (bodies.read_cert_confirm,),
    Body.PKICONF: (bodies.read_confirmed,),
    Body.POLL_REQ: (bodies.read_poll_request,),
    Body.POLL_REP: (bodies.read_poll_reply,),
    Body.ERROR: (bodies.read_error,),
    Body.RR: (requests.read_revocations,),
    Body.RP: (bodies.read_revocation_reply,),
    Body.NESTED: (bodies.read_nested,),
    Body.GENM: (bodies.read_general,),
    Body.GENP: (bodies.read_general,),
}
_ANSWERS: dict[str, Callable[[bytes], object]] = {
    oids.CA_CERTS: support.ca_certs().read,
    oids.ROOT_CA_KEY_UPDATE: support.root_update(ROOT, NOW).read,
    oids.CERT_REQ_TEMPLATE: read_wishes,
    oids.KEM_CIPHERTEXT: kem.read_ciphertext,
    oids.CRLS: support.crl_update(ROOT.subject).read,
}


def enter(data: bytes, *, thorough: bool) -> str:
    """Everything that a message can be asked. Returns how far it came; raises what is no HoldfastError."""
    try:
        message = parse(data)
    except HoldfastError as error:
        return error.code
    furthest = "read"
    for step in (_protection, _body) if thorough else (_mac, _body):
        try:
            step(message)
        except HoldfastError as error:
            furthest = error.code
    return furthest


def _mac(message: Message) -> None:
    """Parameters are judged; no iteration is made."""
    algorithm = message.header.protection
    same_name(message.header.sender, message.header.recipient)
    if algorithm is not None and mac.is_mac(algorithm):
        mac.read_parameters(algorithm, most=BUDGET, hmac_sha1=True)
    elif algorithm is not None and algorithm.oid == oids.KEM_BASED_MAC:
        kem.check(message, SECRET, message.header.transaction)


def _protection(message: Message) -> None:
    algorithm = message.header.protection
    if algorithm is not None and mac.is_mac(algorithm):
        UnderSecret(SECRET, BUDGET, hmac_sha1=True).check(message, NOW)
    SignedByAuthority((ROOT,)).check(message, NOW)


def _body(message: Message) -> None:
    for read in _READERS.get(message.kind, ()):
        found = read(message.content)
        if isinstance(found, CertReply):
            for response in found.responses:
                response.status.describe()
        for each in found if isinstance(found, tuple) else ():
            if isinstance(each, crmf.CertRequest):
                _proof(each)
            elif isinstance(each, Info) and each.oid in _ANSWERS and each.value:
                _ANSWERS[each.oid](each.value)
    for info in message.header.general_info:
        if info.oid == oids.OLD_CERT_ID:
            requests.read_certificate_id(info.value)


def _proof(request: crmf.CertRequest) -> None:
    for control in request.controls:
        if control.oid == oids.OLD_CERT_ID:
            requests.read_certificate_id(control.value)
    asked = crmf.as_csr(request.template)
    if request.proof is not None and is_signature(request.proof[0]):
        verify_by(asked, *request.proof, request.signed)


def run(count: int, seed: int) -> dict[str, object]:
    """*count* mutants; one in sixteen also meets every check of signatures and chains."""
    chance, found, began = random.Random(seed), Counter[str](), time.monotonic()
    sources = seeds()
    for n in range(count):
        data = mutant(sources[n % len(sources)], chance)
        try:
            found[enter(data, thorough=n % 16 == 0)] += 1
        except Exception:
            print(json.dumps({"seed": seed, "mutant": n, "data": data.hex()}), file=sys.stderr)  # noqa: T201
            raise
    return {"mutants": count, "seconds": round(time.monotonic() - began, 1), "read": found["read"]}


if __name__ == "__main__":
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)))  # noqa: T201
