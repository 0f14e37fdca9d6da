"""Which names to ask for in a CSR."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final, Protocol

from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.host.config import IdentitySettings
from holdfast.wire.device_names import hardware_module_name, permanent_identifier
from holdfast.wire.errors import ConfigError


class Facts(Protocol):
    """The device's facts by name. Raises KeyError for a name that there is none of."""

    def __getitem__(self, name: str, /) -> str: ...


class DeviceFacts:
    """The serial number beside the facts of the host."""

    def __init__(self, serial_number: str, host: Facts) -> None:
        self._serial_number = serial_number
        self._host = host

    def __getitem__(self, name: str) -> str:
        return self._serial_number if name == "serial" else self._host[name]


def requested_names(
    settings: IdentitySettings, facts: Facts, current: x509.Certificate | None
) -> tuple[x509.Name, Sequence[x509.GeneralName]]:
    """Subject and SAN entries.

    A renewal repeats those of the *current* certificate, because the server may refuse anything else
    (RFC 7030 §4.2.2). A first enrollment fills the configured templates with the device's facts.
    """
    if current is not None:
        try:
            san = current.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except x509.ExtensionNotFound:
            return current.subject, ()
        return current.subject, tuple(san)
    try:
        return _asked(settings, facts)
    except ValueError as error:
        raise ConfigError(
            "config.names", f"{settings.name}: these names fit into no certificate: {error}"
        ) from error


def with_device(
    san: Sequence[x509.GeneralName], serial_number: str, hardware_type: str | None
) -> Sequence[x509.GeneralName]:
    """*san* with the device's own name, once: a PermanentIdentifier (RFC 4043), or a HardwareModuleName
    (RFC 4108 §5) of *hardware_type*."""
    if hardware_type is None:
        name = permanent_identifier(serial_number)
    else:
        name = hardware_module_name(serial_number, hardware_type)
    return san if name in san else (*san, name)


def _asked(settings: IdentitySettings, facts: Facts) -> tuple[x509.Name, Sequence[x509.GeneralName]]:
    subject = {name: _fill(text, facts) for name, text in settings.subject.items()}
    san = settings.san
    entries: list[x509.GeneralName] = [x509.DNSName(_fill(t, facts)) for t in san.dns]
    entries += [x509.UniformResourceIdentifier(_fill(t, facts)) for t in san.uri]
    entries += [x509.IPAddress(ipaddress.ip_address(text)) for text in san.ip]
    entries += [x509.RFC822Name(_fill(t, facts)) for t in san.email]
    return _name(subject), entries


_ATTRIBUTES: Final = {
    "country": NameOID.COUNTRY_NAME,
    "organization": NameOID.ORGANIZATION_NAME,
    "organizational-unit": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "common-name": NameOID.COMMON_NAME,
    "serial-number": NameOID.SERIAL_NUMBER,
}


def _name(attributes: dict[str, str]) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(oid, attributes[n]) for n, oid in _ATTRIBUTES.items() if n in attributes]
    )


def _fill(template: str, facts: Facts) -> str:
    try:
        return template.format_map(facts)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError("config.template", f"{template!r}: no such fact of the device ({error})") from error
