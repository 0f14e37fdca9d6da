"""A new certificate is proved by use before the old one goes (ARCHITECTURE §5 rule 3)."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from holdfast.host.drive import drive
from holdfast.wire.brski import client as brski
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TransportError
from holdfast.wire.model import HttpRequest, Moment
from holdfast.worker.links import Client, Connection, Endpoint, Ground

PROOF_ATTEMPTS: Final = 5
"""How often a server may refuse the new certificate before it is given up."""

REFUSING: Final = frozenset({401, 403, 495, 496})
"""Statuses by which a server says that it does not take the certificate (495, 496: nginx)."""


def prove(
    connection: Connection,
    client: Client,
    ground: Ground,
    now: Moment,
    *,
    server: Endpoint,
    probe: HttpRequest | None,
    verify_url: str,
    registrar: Endpoint | None,
) -> None:
    """Make a new connection with the new certificate, and see it accepted.

    TLS 1.3 tells a client nothing of its certificate until the server answers, so a request is sent: a GET
    of *verify_url*, else *probe* to *server*. After a first enrollment *registrar* hears of the
    success (RFC 8995 §5.9.4); if it is the server and takes the certificate, nothing more is asked. Without
    *probe* and *verify_url* there is nobody to show the certificate to, and its own checks must do. Raises
    TransportError (``proof.refused`` where the server said no), or what the connection raised.
    """
    heard = registrar is not None and _tell(connection, client, ground, now, registrar)
    if verify_url:
        link = connection.anchored(Endpoint.parse(verify_url), client, ground, now)
        status = link.send(HttpRequest("GET", urlsplit(verify_url).path or "/")).status
    elif probe is None or (heard and registrar == server):
        return
    else:
        link = connection.anchored(server, client, ground, now)
        status = link.send(probe).status
    if status in REFUSING:
        raise TransportError("proof.refused", f"the server answers {status} to the new certificate")


def _tell(connection: Connection, client: Client, ground: Ground, now: Moment, registrar: Endpoint) -> bool:
    """Tell *registrar* of the success; whether it took the certificate and gave an answer. A registrar that
    does not listen is no reason against the certificate."""
    exchange = brski.report_enroll_status(ok=True)
    try:
        status = connection.anchored(registrar, client, ground, now).send(next(exchange)).status
    except (TransportError, RemoteProtocolError):
        connection.close()
        return False
    finally:
        exchange.close()
    return status not in REFUSING


def tell_of_failure(connection: Connection, registrar: Endpoint, code: str, detail: str) -> None:
    """Tell the registrar over the existing session (RFC 8995 §5.9.4). Lost telemetry is no failure."""
    link = connection.session_with(registrar)
    if link is None:
        return
    try:
        drive(brski.report_enroll_status(ok=False, code=code, detail=detail), link)
    except (TransportError, RemoteProtocolError):
        connection.close()


def proof_refused(error: HoldfastError) -> bool:
    """Whether *error* says that the server saw the certificate and did not take it."""
    return isinstance(error, TransportError) and error.code in {"proof.refused", "transport.tls-alert"}
