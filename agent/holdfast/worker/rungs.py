"""From a protocol's settings to a rung: the exchange, its server and the way to it.

A protocol plugs in here: a settings record in ``host/config_model.py`` and one case in :func:`rung_of`.
Nothing else of the worker knows one protocol from another.
"""

from __future__ import annotations

from dataclasses import dataclass

from holdfast.host.config import EstSettings, IdentitySettings, ProtocolSettings
from holdfast.life.record import DeviceRecord
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.est.messages import CACERTS, fetch_request
from holdfast.wire.model import EnrollmentProtocol, HttpRequest, RandomBytes
from holdfast.worker.links import Endpoint


@dataclass(frozen=True, slots=True)
class Rung:
    """One way to enroll. ``name`` stands for it in the record and is unique within an identity.

    How to connect follows from ``endpoint``, which may be plain HTTP, and ``client_certificate``: whether TLS
    shows the identity that asks. ``tls_unique``: the CSR is bound to its connection (TLS 1.2).
    ``probe`` is a harmless request by which the same server proves a new certificate over mutual TLS; None
    where it cannot.
    """

    name: str
    protocol: EnrollmentProtocol
    endpoint: Endpoint
    client_certificate: bool = True
    tls_unique: bool = False
    probe: HttpRequest | None = None


def rung_of(settings: IdentitySettings, name: str, record: DeviceRecord, random: RandomBytes) -> Rung:
    """The rung *name*, ready for use.

    Raises ConfigError where its settings cannot be used now (a password file that is gone, say), and
    ValueError for a name that is none of ``settings.rungs``.
    """
    protocol: ProtocolSettings = settings.protocols[settings.rungs.index(name)]
    match protocol:
        case EstSettings():
            return _est(name, protocol, record, random)


def _est(name: str, settings: EstSettings, record: DeviceRecord, random: RandomBytes) -> Rung:
    return Rung(
        name=name,
        protocol=EstProtocol(label=settings.label, credentials=settings.credentials, random=random),
        endpoint=Endpoint.parse(settings.url or record.domain.registrar),
        tls_unique=settings.tls_unique,
        probe=fetch_request(CACERTS, settings.label),
    )
