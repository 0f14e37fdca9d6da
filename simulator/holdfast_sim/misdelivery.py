"""The faults that need to know nothing of the protocol: they spoil a finished answer, or replace it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from email.utils import format_datetime

from holdfast.wire.model import HttpRequest, HttpResponse

from .answers import Answer, Delivery
from .faults import Fault, FaultPlan
from .world import World

INSTEAD = ("drop-before", "status", "redirect", "pending", "pending-date", "pending-no-retry-after")
BODY = (
    "empty", "garbage", "garbage-json", "non-der", "pem", "unwrapped", "crlf", "cut-der", "wrong-type",
    "no-type", "wrong-encoding",
)  # fmt: skip
TRAVEL = ("drop-after", "truncated", "oversized", "endless", "slow")
DEFAULT_EXCESS = 8 * 1024 * 1024


def serve(
    world: World, plan: FaultPlan, where: str, request: HttpRequest, process: Callable[[], HttpResponse]
) -> Answer:
    """Run *process* unless a fault stands in its place, then spoil what it answered."""
    if fault := plan.take(where, *INSTEAD):
        return _instead(world, fault, request)
    response = process()
    names = []
    for kind in BODY:
        if fault := plan.take(where, kind):
            response = _spoil(response, fault)
            names.append(str(fault))
    delivery = Delivery()
    for kind in TRAVEL:
        if fault := plan.take(where, kind):
            delivery = _misdeliver(delivery, fault, len(response.body))
            names.append(str(fault))
    return Answer(response, delivery, tuple(names))


def _instead(world: World, fault: Fault, request: HttpRequest) -> Answer:
    names = (str(fault),)
    if fault.kind == "drop-before":
        return Answer(HttpResponse(500), Delivery(drop=True), names)
    if fault.kind == "redirect":
        location = fault.text("to", request.target)
        return Answer(HttpResponse(fault.number("code", 307), (("Location", location),)), faults=names)
    seconds = fault.text("retry-after", "" if fault.kind == "status" else "1")
    headers: tuple[tuple[str, str], ...] = (("Content-Type", "text/plain; charset=utf-8"),)
    if fault.kind == "pending-date":
        moment = world.now().replace(microsecond=0) + timedelta(seconds=fault.number("retry-after", 1))
        headers += (("Retry-After", format_datetime(moment, usegmt=True)),)
    elif seconds and fault.kind != "pending-no-retry-after":
        headers += (("Retry-After", seconds),)
    status = fault.number("code", 500) if fault.kind == "status" else 202
    return Answer(HttpResponse(status, headers, b"a simulated fault\n"), faults=names)


def _spoil(response: HttpResponse, fault: Fault) -> HttpResponse:
    if fault.kind == "wrong-type":
        return _typed(response, fault.text("type", "text/html"))
    if fault.kind == "no-type":
        return _typed(response, None)
    if fault.kind == "wrong-encoding":
        kept = tuple(h for h in response.headers if h[0].lower() != "content-transfer-encoding")
        return replace(response, headers=(*kept, ("Content-Transfer-Encoding", "8bit")))
    return replace(response, body=_other_body(response.body, fault))


def _other_body(body: bytes, fault: Fault) -> bytes:
    size = fault.number("size", 512)
    match fault.kind:
        case "empty":
            return b""
        case "garbage":
            return (b"\xf1not a message\x00" * (size // 14 + 1))[:size]
        case "garbage-json":
            return (b'{"ietf-voucher:voucher": [[[{' * (size // 29 + 1))[:size]
        case "non-der":
            return base64.encodebytes((b"this is base64, but it is no DER " * (size // 33 + 1))[:size])
        case "pem":
            lines = body if _is_base64(body) else base64.encodebytes(body)
            return b"-----BEGIN PKCS7-----\n" + lines.strip() + b"\n-----END PKCS7-----\n"
        case "unwrapped":
            return b"".join(body.split())
        case "crlf":
            return body.replace(b"\n", b"\r\n")
        case _:
            return body[: fault.number("keep", len(body) // 2)]


def _misdeliver(delivery: Delivery, fault: Fault, length: int) -> Delivery:
    match fault.kind:
        case "drop-after":
            return replace(delivery, drop=True)
        case "truncated":
            return replace(delivery, keep=min(fault.number("keep", length // 2), max(length - 1, 0)))
        case "slow":
            return replace(delivery, delay=float(fault.number("seconds", 3600)))
        case kind:
            return replace(delivery, pad=fault.number("size", DEFAULT_EXCESS), chunked=kind == "endless")


def _typed(response: HttpResponse, content_type: str | None) -> HttpResponse:
    kept = tuple(h for h in response.headers if h[0].lower() != "content-type")
    return replace(
        response, headers=kept if content_type is None else (*kept, ("Content-Type", content_type))
    )


def _is_base64(body: bytes) -> bool:
    try:
        return bool(base64.b64decode(b"".join(body.split()), validate=True))
    except ValueError:
        return False
