"""The pledge's side of BRSKI as exchanges: ask for a voucher, judge it, say how it went (RFC 8995 §5).

All of it runs on one provisional TLS connection. Nothing that arrives is used before
:func:`~holdfast.wire.brski.verify.verify_voucher` accepted it.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from holdfast.wire import cms, http, oids
from holdfast.wire.brski.idevid import serial_number
from holdfast.wire.brski.messages import (
    ENROLL_STATUS,
    MEDIA_TYPE,
    REQUEST_VOUCHER,
    TELEMETRY_TYPE,
    VOUCHER_STATUS,
    Telemetry,
    VoucherRequest,
)
from holdfast.wire.brski.verify import VOUCHER_LIMIT, Vouched, VoucherTrust, verify_voucher
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import (
    Chain,
    Exchange,
    HttpRequest,
    HttpResponse,
    Moment,
    Moved,
    Pending,
    RandomBytes,
    Rejected,
    SigningKey,
    TlsInfo,
)

__all__ = [
    "Attempt",
    "Vouched",
    "VoucherTrust",
    "obtain",
    "prepare",
    "report_enroll_status",
    "report_voucher_status",
    "request_voucher",
]

NONCE_OCTETS: Final = 24  # 32 characters of base64, without padding
LONGEST_WAIT: Final = timedelta(seconds=60)  # RFC 8995 §5.6: so that a hostile registrar cannot hold us
SHORTEST_WAIT: Final = timedelta(seconds=1)
_REASON_LIMIT: Final = 500  # characters of anybody's explanation that we keep or send

_REFUSALS: Final = {
    400: "registrar.bad-request",
    401: "registrar.unauthorized",
    403: "registrar.forbidden",
    404: "registrar.unknown-device",
    406: "registrar.not-acceptable",
    415: "registrar.unsupported-media-type",
}
_FOLLOWED: Final = (301, 302, 307, 308)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One signed voucher request, sent again unchanged after 202. It fits one registrar certificate only."""

    nonce: str
    pvr: bytes = field(repr=False)
    registrar_certificate: bytes = field(repr=False)


def prepare(key: SigningKey, idevid_chain: Chain, tls: TlsInfo, now: Moment, random: RandomBytes) -> Attempt:
    """Sign a voucher request that names the server of *tls*, with a fresh nonce.

    *idevid_chain* is leaf first. Raises LocalProtocolError, RemoteProtocolError ``idevid.serial-number`` and
    what the key raises.
    """
    if not tls.peer_chain or not idevid_chain:
        raise LocalProtocolError("brski.prepare", "an IDevID and a server certificate are due")
    octets = random(NONCE_OCTETS)
    if len(octets) != NONCE_OCTETS:
        raise LocalProtocolError("brski.nonce", f"{len(octets)} random octets, {NONCE_OCTETS} are due")
    request = VoucherRequest(
        serial_number=serial_number(idevid_chain[0]),
        nonce=base64.b64encode(octets).decode("ascii"),
        proximity_registrar_cert=tls.peer_chain[0],
        created_on=now.now if now.trusted else None,
    )
    pvr = cms.sign(
        request.encode(),
        oids.CT_ANIMA_JSON_VOUCHER,
        key,
        idevid_chain[0],
        idevid_chain[1:],
        signing_time=now.now if now.trusted else None,
    )
    return Attempt(request.nonce or "", pvr, tls.peer_chain[0])


def request_voucher(
    attempt: Attempt, trust: VoucherTrust, tls: TlsInfo, now: Moment
) -> Exchange[Vouched | Pending | Rejected | Moved]:
    """Send the request once and judge the answer.

    Raises TrustError or RemoteProtocolError ``voucher.*``; the registrar should then hear of it
    (:func:`report_voucher_status`), which :func:`obtain` does.
    """
    answer = yield from _ask(attempt, tls, now)
    if not isinstance(answer, HttpResponse):
        return answer
    return _judge(answer, attempt, trust, tls, now)


def obtain(
    attempt: Attempt, trust: VoucherTrust, tls: TlsInfo, now: Moment, *, cloud: bool = False
) -> Exchange[Vouched | Pending | Rejected | Moved]:
    """:func:`request_voucher`, then tell the registrar how its voucher was received (RFC 8995 §5.7).

    That telemetry is a courtesy: if it cannot be delivered, a good voucher is as good, and a refused one
    raises its own error. The registrar learns
    the code alone: it may be an attacker. *cloud*: as for :func:`~holdfast.wire.brski.verify.verify_voucher`.
    """
    answer = yield from _ask(attempt, tls, now)
    if not isinstance(answer, HttpResponse):
        return answer
    try:
        vouched = _judge(answer, attempt, trust, tls, now, cloud=cloud)
    except (TrustError, RemoteProtocolError) as failure:
        try:
            yield from report_voucher_status(ok=False, code=failure.code)
        except (TransportError, RemoteProtocolError) as lost:
            raise failure from lost
        raise
    with suppress(TransportError, RemoteProtocolError):
        yield from report_voucher_status(ok=True)
    return vouched


def report_voucher_status(ok: bool, code: str = "", detail: str = "") -> Exchange[None]:
    """Tell the registrar whether its voucher was accepted. Whatever it answers is ignored."""
    yield from _report(VOUCHER_STATUS, ok, {"code": code, "detail": detail})


def report_enroll_status(
    ok: bool,
    code: str = "",
    detail: str = "",
    clause: str = "",
) -> Exchange[None]:
    """Tell the registrar how the enrollment went (RFC 8995 §5.9.4). Whatever it answers is ignored.

    Success belongs on a new connection with the new certificate, failure on the one that failed.
    """
    yield from _report(ENROLL_STATUS, ok, {"code": code, "detail": detail, "clause": clause})


def _report(target: str, ok: bool, failure: dict[str, str]) -> Exchange[None]:
    said = {name: text[:_REASON_LIMIT] for name, text in failure.items() if text}
    telemetry = Telemetry(ok) if ok else Telemetry(ok, ": ".join(said.values()) or "failed", said or None)
    yield HttpRequest("POST", target, (("Content-Type", TELEMETRY_TYPE),), telemetry.encode())


def _ask(attempt: Attempt, tls: TlsInfo, now: Moment) -> Exchange[HttpResponse | Pending | Rejected | Moved]:
    """Post the request; the response is returned only if it claims to carry a voucher (200)."""
    if tls.peer_chain[:1] != (attempt.registrar_certificate,):
        raise TrustError(
            "voucher.registrar-changed",
            "the server shows another certificate than the request names",
            clause="RFC 8995 §5.6.2",
        )
    response = yield _request(REQUEST_VOUCHER, attempt)
    _refuse_portal(response)
    if response.status in _FOLLOWED:
        location = response.header("Location") or ""
        target = http.same_origin_target(location, tls.origin, base=REQUEST_VOUCHER)
        if target is None:
            return Moved(http.absolute_location(location, tls.origin), response.status)
        response = yield _request(target, attempt)
        _refuse_portal(response)
        if 300 <= response.status < 400:
            raise RemoteProtocolError("voucher.redirect", "a second redirect", clause="RFC 8995 §5.6")
    if response.status == 200:
        return response
    if response.status == 202:
        wait = http.retry_after(response, now)
        return Pending(LONGEST_WAIT if wait is None else max(SHORTEST_WAIT, min(wait, LONGEST_WAIT)))
    if response.status >= 400:
        other = "registrar.refused" if response.status < 500 else "registrar.failed"
        return Rejected(_REFUSALS.get(response.status, other), _words(response))
    raise RemoteProtocolError("voucher.status", f"HTTP {response.status}", clause="RFC 8995 §5.6")


def _refuse_portal(response: HttpResponse) -> None:
    """A network that wants a person to sign in answers in the place of whoever is asked (RFC 8952): with 511
    (RFC 6585 §6), or a way to a page in plain HTTP. No registrar does any of that."""
    location = response.header("Location") or ""
    sends_away = 300 <= response.status < 400 and location.lower().startswith("http:")
    if response.status == 511 or sends_away:
        raise _portal(f"HTTP {response.status}{f', to {http.printable(location)}' if sends_away else ''}")


def _portal(what: str) -> RemoteProtocolError:
    detail = f"{what}: a page for a person came in place of a registrar's answer"
    return RemoteProtocolError("network.captive-portal", detail, clause="RFC 8952 §2")


def _request(target: str, attempt: Attempt) -> HttpRequest:
    return HttpRequest("POST", target, (("Content-Type", MEDIA_TYPE), ("Accept", MEDIA_TYPE)), attempt.pvr)


def _judge(
    response: HttpResponse,
    attempt: Attempt,
    trust: VoucherTrust,
    tls: TlsInfo,
    now: Moment,
    *,
    cloud: bool = False,
) -> Vouched:
    kind, _ = http.media_type(response)
    if kind in {"text/html", "application/xhtml+xml"}:
        raise _portal(f"HTTP 200 with {kind}")
    if kind != MEDIA_TYPE:
        raise RemoteProtocolError("voucher.media-type", kind[:80], clause="RFC 8995 §5.6")
    if len(response.body) > VOUCHER_LIMIT:
        raise RemoteProtocolError("voucher.too-large", f"{len(response.body)} octets")
    return verify_voucher(
        response.body, nonce=attempt.nonce, trust=trust, peer_chain=tls.peer_chain, now=now, cloud=cloud
    )


def _words(response: HttpResponse) -> str:
    """The status and the registrar's own explanation, cut, on one printable line."""
    text = http.printable(response.body[: 4 * _REASON_LIMIT].decode("utf-8", "replace"), _REASON_LIMIT)
    return f"HTTP {response.status}: {text}" if text else f"HTTP {response.status}"
