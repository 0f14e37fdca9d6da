"""Sign a voucher, or what a broken or hostile MASA would send instead."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from asn1crypto import cms as asn1_cms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.wire import cms, oids
from holdfast.wire.brski.messages import Voucher
from holdfast.wire.model import Chain

from .ca import Credential
from .faults import Fault, FaultPlan
from .manufacturer import Manufacturer
from .world import World

DER = Encoding.DER
WHERE = "requestvoucher"
Leaves = dict[str, Any]


def sign(world: World, plan: FaultPlan, voucher: Voucher) -> bytes:
    """CMS over *voucher*, with the faults that are due."""
    document = json.loads(voucher.encode())
    leaves: Leaves = document["ietf-voucher:voucher"]
    for kind, spoil in _LEAF_FAULTS.items():
        if fault := plan.take(WHERE, kind):
            spoil(leaves, world, fault)
    content = json.dumps(document, separators=(",", ":")).encode()
    signer = _signer(world, plan)
    content_type = oids.CT_DATA if plan.due(WHERE, "id-data") else oids.CT_ANIMA_JSON_VOUCHER
    moment = world.now()
    signed = cms.sign(
        content, content_type, signer.key, signer.certificate, signer.chain[1:], signing_time=moment
    )
    if plan.due(WHERE, "no-signed-attributes"):
        signed = _without_attributes(signed, content, signer)
    if plan.due(WHERE, "tampered"):
        signed = _tampered(signed, leaves)
    return signed


def pinned(world: World, path: Chain) -> x509.Certificate:
    """Which certificate of the chain *path*, leaf first, the voucher pins."""
    match world.vouchers.pin:
        case "root":
            return path[-1]
        case "issuing":
            return path[min(1, len(path) - 1)]
        case "registrar":
            return path[0]


def _signer(world: World, plan: FaultPlan) -> Credential:
    if plan.due(WHERE, "foreign-signer"):
        return Manufacturer.create(world.now(), world.random).masa
    if plan.due(WHERE, "idevid-signer"):
        return world.manufacturer.device("SIM-ANOTHER-DEVICE", world.now())
    return world.manufacturer.masa


def _without_attributes(signed: bytes, content: bytes, signer: Credential) -> bytes:
    """The signature directly over the content (RFC 5652 §5.4), which allows no other type than id-data."""
    info = asn1_cms.ContentInfo.load(signed)
    entry = info["content"]["signer_infos"][0]
    entry["signed_attrs"] = None
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        entry["signature"] = signer.key.sign(content, ec.ECDSA(hashes.SHA256()))
    else:
        entry["signature"] = signer.key.sign(content, padding.PKCS1v15(), hashes.SHA256())
    rebuilt: bytes = info.dump(force=True)
    return rebuilt


def _tampered(signed: bytes, leaves: Leaves) -> bytes:
    """Another serial number of the same length, so that only the signature can tell."""
    serial = str(leaves.get("serial-number", "voucher")).encode()
    other = serial[:-1] + (b"0" if serial[-1:] != b"0" else b"1")
    at = signed.index(serial)  # the content comes before the certificates
    return signed[:at] + other + signed[at + len(serial) :]


def _moment(value: datetime) -> str:
    return value.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _nonceless(leaves: Leaves, world: World, _: Fault) -> None:
    leaves.pop("nonce", None)
    leaves["expires-on"] = _moment(world.now() + world.vouchers.life)


def _expired(leaves: Leaves, world: World, _: Fault) -> None:
    leaves.pop("nonce", None)
    leaves["created-on"] = _moment(world.now() - timedelta(days=2))
    leaves["expires-on"] = _moment(world.now() - timedelta(days=1))


def _both(leaves: Leaves, world: World, _: Fault) -> None:
    leaves["expires-on"] = _moment(world.now() + world.vouchers.life)


def _neither(leaves: Leaves, _: World, __: Fault) -> None:
    leaves.pop("nonce", None)
    leaves.pop("expires-on", None)


def _future(leaves: Leaves, world: World, _: Fault) -> None:
    leaves["created-on"] = _moment(world.now() + timedelta(days=30))


def _wrong_pin(leaves: Leaves, world: World, _: Fault) -> None:
    leaves["pinned-domain-cert"] = b64encode(world.impostor.root.certificate.public_bytes(DER)).decode()


def _replace(name: str, value: object) -> Callable[[Leaves, World, Fault], None]:
    def spoil(leaves: Leaves, _: World, __: Fault) -> None:
        leaves[name] = value

    return spoil


def _remove(name: str) -> Callable[[Leaves, World, Fault], None]:
    def spoil(leaves: Leaves, _: World, __: Fault) -> None:
        leaves.pop(name, None)

    return spoil


def _est_domain(leaves: Leaves, _: World, fault: Fault) -> None:
    leaves["est-domain"] = fault.text("value", "est.example")


def _assertion(leaves: Leaves, _: World, fault: Fault) -> None:
    leaves["assertion"] = fault.text("value", "logged")


_LEAF_FAULTS: dict[str, Callable[[Leaves, World, Fault], None]] = {
    "wrong-nonce": _replace("nonce", b64encode(bytes(24)).decode()),
    "nonceless": _nonceless,
    "expired": _expired,
    "nonce-and-expires": _both,
    "no-freshness": _neither,
    "wrong-serial": _replace("serial-number", "SIM-ANOTHER-DEVICE"),
    "no-serial": _remove("serial-number"),
    "wrong-aki": _replace("idevid-issuer", b64encode(b"\x30\x16\x80\x14" + bytes(20)).decode()),
    "wrong-pin": _wrong_pin,
    "no-pin": _remove("pinned-domain-cert"),
    "garbage-pin": _replace("pinned-domain-cert", b64encode(b"no certificate").decode()),
    "future-created-on": _future,
    "assertion": _assertion,
    "est-domain": _est_domain,
    "no-est-domain": _remove("est-domain"),
    "unknown-leaf": _replace("example:unknown", {"of": ["no", "meaning"]}),
}
