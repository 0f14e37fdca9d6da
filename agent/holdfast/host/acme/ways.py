"""From settings to what meets challenges on this host."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from holdfast.host.acme.http_01 import HttpPages
from holdfast.host.acme.solver import Solvers, Way
from holdfast.host.acme.tls_alpn_01 import AlpnServer
from holdfast.host.config_model import AcmeSettings, DnsSettings
from holdfast.host.config_secrets import read_secret
from holdfast.wire.acme.challenges import DNS_01, HTTP_01, TLS_ALPN_01
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Moment, RandomBytes


def solvers(
    now: Callable[[], Moment], random: RandomBytes, life: ExitStack
) -> Callable[[AcmeSettings], Solvers | None]:
    """What gives the solvers for some settings: the same ones again while *life* lasts, closed at its end.

    Nothing listens before the first challenge.
    """
    made: dict[AcmeSettings, Solvers] = {}

    def of(settings: AcmeSettings) -> Solvers | None:
        if settings not in made:
            made[settings] = life.enter_context(Solvers(_ways(settings, now, random)))
        return made[settings]

    return of


def _ways(settings: AcmeSettings, now: Callable[[], Moment], random: RandomBytes) -> list[Way]:
    ways: list[Way] = []
    if HTTP_01 in settings.challenges:
        ways.append(HttpPages(settings.http_port))
    if TLS_ALPN_01 in settings.challenges:
        ways.append(AlpnServer(settings.tls_port, now, random))
    if DNS_01 in settings.challenges and settings.dns is not None:
        ways.append(_dns(settings.dns))
    return ways


def _dns(settings: DnsSettings) -> Way:
    try:
        from holdfast.host.acme.dns_01 import DnsProgram, DnsUpdates, TsigKey  # noqa: PLC0415 - an extra
    except ImportError as error:
        detail = f"dns-01 needs dnspython: install holdfast[acme] ({error})"
        raise ConfigError("acme.no-dns", detail) from error
    if settings.command:
        return DnsProgram(settings.command, settings.timeout_seconds)
    key = None
    if settings.key_name is not None and settings.key_file is not None:
        secret = read_secret(settings.key_file).decode("ascii", errors="replace")
        key = TsigKey(settings.key_name, secret, settings.key_algorithm)
    return DnsUpdates(settings.server, settings.port, settings.zone, key)
