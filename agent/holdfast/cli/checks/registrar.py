"""The servers that this device needs answer, and are those of its domain. Nothing secret is sent to them."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Final

from holdfast.cli.advice import advice
from holdfast.cli.checks.finding import Check, Finding, Verdict
from holdfast.cli.checks.patient import Patient
from holdfast.cli.sought import being_sought
from holdfast.cli.words import timestamp
from holdfast.host.config_secrets import secret_from
from holdfast.host.transport import Anchored, Channel, Limits, Plain, Provisional, TlsTransport
from holdfast.life.record import Anchor, DeviceRecord, DomainState
from holdfast.wire.errors import ConfigError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import Chain, Moment
from holdfast.worker.certificates import certificates_of
from holdfast.worker.links import Endpoint, Ground, domain_ground
from holdfast.worker.rungs import rung_of

PATIENCE: Final = 10.0
"""Seconds for one server: name, TCP, proxy and TLS together."""


def look(patient: Patient) -> Iterator[Finding]:
    """TCP and a TLS handshake without a client certificate, to each server that is needed next."""
    limit = min(PATIENCE, patient.settings.limits.connect_seconds)
    settings = patient.settings
    credentials = secret_from(settings.proxy_credentials)
    transport = TlsTransport(Limits(connect=limit), settings.proxy, proxy_credentials=credentials)
    if patient.settings.discovery is not None and patient.record.domain.state is not DomainState.VOUCHED:
        yield from _searched(patient)
    yield from _sought(patient)
    for endpoint, anchors in dict.fromkeys(_servers(patient)):
        yield _asked(patient, transport, endpoint, anchors)


def _searched(patient: Patient) -> Iterator[Finding]:
    """What the last search brought: a candidate each, and each source that brought nobody."""
    search, seen = patient.record.search, "read in the record"
    if search.at is None:
        yield Finding(Verdict.WARN, "no search for registrars was made yet", "Start one: holdfast step", seen)
    for each in search.refusals:
        said = f"found at {timestamp(each.at)} and refused: {each.detail} ({each.code})"
        yield Finding(Verdict.WARN, said, advice(each.code), seen, each.endpoint)
    for silent in search.silent:
        yield Finding(Verdict.OK, f"nobody by {silent}", "", seen)


def _sought(patient: Patient) -> Iterator[Finding]:
    """The registrar of our domain is looked for elsewhere: how that goes, and who was refused."""
    record, seen = patient.record, "read in the record"
    search = being_sought(record, patient.settings, (each.schedule for each in record.identities))
    if search is None:
        return
    yield Finding(Verdict.WARN, search.sentence().removesuffix("."), "", seen, search.registrar)
    for each in search.refusals:
        said = f"found at {timestamp(each.at)} and refused: {each.detail} ({each.code})"
        yield Finding(Verdict.WARN, said, advice(each.code), seen, each.endpoint)


def _servers(patient: Patient) -> Iterator[tuple[Endpoint, tuple[Anchor, ...]]]:
    """Servers, and the operator's own anchors for those that have some in the place of the domain's."""
    record, settings = patient.record, patient.settings
    if record.domain.state is not DomainState.VOUCHED:
        known = settings.registrars if settings.discovery is None else _found(record)
        yield from ((Endpoint.parse(registrar), ()) for registrar in known)
        return
    for identity in settings.identities:
        for name in identity.rungs:
            try:
                rung = rung_of(identity, name, record, secrets.token_bytes)
            except ConfigError:
                continue  # the check of the configuration tells of it
            yield rung.endpoint, rung.anchors


def _found(record: DeviceRecord) -> tuple[str, ...]:
    """The places that are to be asked, those that the last search found first."""
    search = record.search
    known = (search.trying, *search.waiting, search.good)
    endpoints = (*(each.endpoint for each in known if each), *(r.endpoint for r in search.refusals))
    return tuple(dict.fromkeys(endpoints))


def _asked(
    patient: Patient, transport: TlsTransport, endpoint: Endpoint, anchors: tuple[Anchor, ...]
) -> Finding:
    about, seen = str(endpoint), "connected, shook hands without a client certificate, and closed"
    now = patient.now
    try:
        trust = _trust(patient.record, endpoint, anchors, now)
        transport.open(Channel(endpoint.host, endpoint.port, trust)).close()
    except TrustError as error:
        said = f"it is not a server of our domain: {error.detail} ({error.code})"
        return Finding(Verdict.FAIL, said, advice(error.code), seen, about)
    except TransportError as error:
        if error.code == "transport.tls-alert":
            said = "it answers, and will talk to a client with a certificate only"
            return Finding(Verdict.OK, said, "", seen, about)
        return Finding(Verdict.FAIL, f"{error.detail} ({error.code})", advice(error.code), seen, about)
    except RemoteProtocolError as error:
        return Finding(Verdict.FAIL, f"{error.detail} ({error.code})", advice(error.code), seen, about)
    return Finding(Verdict.OK, "it answers", "", seen, about)


def _trust(
    record: DeviceRecord, endpoint: Endpoint, anchors: tuple[Anchor, ...], now: Moment
) -> Plain | Anchored | Provisional:
    if endpoint.plain:
        return Plain()
    domain = record.domain
    if domain.state is not DomainState.VOUCHED:
        return Provisional()
    ground = Ground(anchors, certificates_of(anchors), ()) if anchors else domain_ground(domain)

    def check(chain: Chain) -> None:
        ground.check(chain, endpoint.host, now)

    return Anchored(check)


CHECK: Final = Check("registrar", "the servers that are needed next answer, and are ours", look)
