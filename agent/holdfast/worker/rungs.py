"""From a protocol's settings to a rung: the exchange, its server and the way to it.

A protocol plugs in here: a settings record in ``host/config_model.py`` and one case in :func:`rung_of`.
Nothing else of the worker knows one protocol from another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from cryptography import x509

from holdfast.host.challenge import read_challenge
from holdfast.host.config import (
    AcmeSettings,
    AttestationSettings,
    CmcSettings,
    CmpSettings,
    EstSettings,
    IdentitySettings,
    ProtocolSettings,
    ScepSettings,
)
from holdfast.life.record import Anchor, DeviceRecord
from holdfast.wire.acme.challenges import DEVICE_ATTEST_01, Solver
from holdfast.wire.acme.client import AcmeProtocol
from holdfast.wire.certificates import load_all
from holdfast.wire.ciphers import ContentCipher
from holdfast.wire.cmc.client import CmcProtocol
from holdfast.wire.cmc.site import Site as CmcSite
from holdfast.wire.cmp.client import CmpProtocol, Form, Inquirer
from holdfast.wire.cmp.paths import WELL_KNOWN
from holdfast.wire.cmp.protection import SharedSecret
from holdfast.wire.cmp.transaction import Server
from holdfast.wire.errors import ConfigError
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.messages import CACERTS, fetch_request
from holdfast.wire.identified import NULL_DN, named
from holdfast.wire.model import Chain, EnrollmentProtocol, HttpRequest, RandomBytes, SigningKey
from holdfast.wire.scep.authority import Trust
from holdfast.wire.scep.client import ScepProtocol
from holdfast.wire.scep.http import Site
from holdfast.wire.scep.settings import ScepLimits
from holdfast.worker.certificates import configured
from holdfast.worker.links import Endpoint


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to enroll. ``name`` stands for it in the record and is unique within an identity.

    How to connect follows from ``endpoint``, which may be plain HTTP, and ``client_certificate``: whether TLS
    shows the identity that asks. ``tls_unique``: the CSR is bound to its connection (TLS 1.2).
    ``probe`` is a harmless request by which the same server proves a new certificate over mutual TLS; None
    where it cannot. ``challenge`` gives the challengePassword for a CSR, or None where it needs none; it is
    told the key of the certificate to be renewed. ``anchors``: the operator's own for this server and what it
    issues, in the place of the domain's. ``attestation`` is asked for what device-attest-01 takes.
    """

    name: str
    protocol: EnrollmentProtocol
    endpoint: Endpoint
    client_certificate: bool = True
    tls_unique: bool = False
    probe: HttpRequest | None = None
    challenge: Callable[[SigningKey | None], str | None] | None = None
    anchors: tuple[Anchor, ...] = ()
    attestation: AttestationSettings | None = None


def at_registrar(settings: IdentitySettings, name: str) -> bool:
    """Whether the rung *name* leads to the domain's registrar, and not to a server that is configured."""
    protocol: ProtocolSettings = settings.protocols[settings.rungs.index(name)]
    match protocol:
        case EstSettings():
            return protocol.url is None
        case CmpSettings() | CmcSettings():
            return protocol.origin is None
        case _:
            return False


Asker = Callable[[], tuple[Chain, SigningKey]]
"""Who asks, when it is needed: the identity that signs messages before there is a request."""


def rung_of(
    settings: IdentitySettings,
    name: str,
    record: DeviceRecord,
    random: RandomBytes,
    *,
    asker: Asker | None = None,
    device: Callable[[], str] | None = None,
    solver: Callable[[AcmeSettings], Solver | None] = lambda _settings: None,
) -> Rung:
    """The rung *name*, ready for use. Without *asker*, a protocol that signs its messages discovers nothing;
    *device* tells the serial number, *solver* how this host meets challenges.

    Raises ConfigError where its settings cannot be used now (a password file that is gone, say), and
    ValueError for a name that is none of ``settings.rungs``.
    """
    protocol: ProtocolSettings = settings.protocols[settings.rungs.index(name)]
    match protocol:
        case EstSettings():
            return _est(name, protocol, record, random)
        case CmpSettings():
            return _cmp(name, protocol, record, random, asker=asker)
        case CmcSettings():
            return _cmc(name, protocol, record)
        case ScepSettings():
            return _scep(name, protocol, record)
        case AcmeSettings():
            return _acme(name, protocol, device, solver(protocol))


def _est(name: str, settings: EstSettings, record: DeviceRecord, random: RandomBytes) -> Rung:
    return Rung(
        name=name,
        protocol=EstProtocol(label=settings.label, credentials=settings.credentials, random=random),
        endpoint=Endpoint.parse(settings.url or record.domain.registrar),
        tls_unique=settings.tls_unique,
        probe=fetch_request(CACERTS, settings.label),
    )


def _cmp(
    name: str, settings: CmpSettings, record: DeviceRecord, random: RandomBytes, *, asker: Asker | None
) -> Rung:
    """At the registrar it goes on over the connection that BRSKI opened (RFC 9733 §5.1)."""
    named_secret = settings.secret
    secret = (
        None
        if named_secret is None
        else SharedSecret(*named_secret, kind=settings.mac, hmac_sha1=settings.hmac_sha1)
    )
    inquirer = None
    if asker is not None:
        anchors = tuple(x509.load_der_x509_certificate(a.certificate) for a in record.domain.anchors)
        helpers = tuple(map(x509.load_der_x509_certificate, record.domain.intermediates))
        inquirer = Inquirer(asker, anchors, helpers)
    protocol = CmpProtocol(
        server=Server(settings.path or WELL_KNOWN, _recipient(settings), profile=settings.profile),
        secret=secret,
        pins=settings.authorities,
        form=Form(settings.request),
        implicit_confirm=settings.implicit_confirm,
        random=random if settings.support_messages else None,
        inquirer=inquirer,
    )
    at_registrar = settings.origin is None
    return Rung(
        name=name,
        protocol=protocol,
        endpoint=Endpoint.of_url(settings.origin or record.domain.registrar),
        client_certificate=at_registrar,
    )


def _cmc(name: str, settings: CmcSettings, record: DeviceRecord) -> Rung:
    """At the registrar it is EST's /fullcmc, and EST proves a new certificate, too."""
    protocol = CmcProtocol(
        site=CmcSite(settings.path),
        secret=settings.secret,
        pins=settings.authorities,
        form=settings.request,
        possession=settings.possession,
        legacy=settings.legacy,
        return_data=settings.return_data,
    )
    at_registrar = settings.origin is None
    return Rung(
        name=name,
        protocol=protocol,
        endpoint=Endpoint.of_url(settings.origin or record.domain.registrar),
        probe=fetch_request(CACERTS) if at_registrar else None,
    )


def _recipient(settings: CmpSettings) -> bytes:
    if settings.recipient is None:
        return NULL_DN
    try:
        return named(x509.Name.from_rfc4514_string(settings.recipient))
    except ValueError as error:
        raise ConfigError("config.recipient", f"not a name like CN=RA,O=Owner: {error}") from error


def _scep(name: str, settings: ScepSettings, record: DeviceRecord) -> Rung:
    domain = record.domain
    protocol = ScepProtocol(
        trust=Trust(
            settings.fingerprints,
            load_all(anchor.certificate for anchor in domain.anchors),
            load_all(domain.intermediates),
        ),
        site=Site(settings.path, settings.ca),
        legacy=settings.legacy,
        decryption=settings.decryption,
        key=settings.key,
        challenged=settings.challenge is not None,
        always_challenged=settings.challenge_at_renewal,
        cipher=ContentCipher(f"{settings.cipher}_cbc"),
        limits=ScepLimits(wait=timedelta(seconds=settings.poll_seconds)),
    )

    source = settings.challenge

    def challenge(current: SigningKey | None) -> str | None:
        return read_challenge(source) if source is not None and protocol.needs_challenge(current) else None

    return Rung(
        name=name,
        protocol=protocol,
        endpoint=Endpoint.of_url(settings.origin),
        client_certificate=False,
        challenge=None if source is None else challenge,
    )


def _acme(name: str, settings: AcmeSettings, device: Callable[[], str] | None, solver: Solver | None) -> Rung:
    attests = DEVICE_ATTEST_01 in settings.challenges
    anchors = () if settings.anchors_file is None else configured(settings.anchors_file)
    protocol = AcmeProtocol(
        directory=settings.directory,
        prefer=settings.challenges,
        device=device if attests else None,
        solver=solver,
        contacts=settings.contacts,
        external=settings.external_account,
        profile=settings.profile,
        alternate=settings.alternate,
        for_server=settings.for_server,
        hardware_type=settings.attestation.hardware_type,
    )
    return Rung(
        name=name,
        protocol=protocol,
        endpoint=Endpoint.parse(settings.origin),
        client_certificate=False,
        anchors=anchors,
        attestation=settings.attestation if attests else None,
    )
