"""Which names to ask for in a CSR."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from holdfast.host.config import IdentitySettings
from holdfast.wire.errors import ConfigError


def requested_names(
    settings: IdentitySettings, serial_number: str, current: x509.Certificate | None
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
        return _asked(settings, {"serial": serial_number})
    except ValueError as error:
        raise ConfigError(
            "config.names", f"{settings.name}: these names fit into no certificate: {error}"
        ) from error


def _asked(settings: IdentitySettings, facts: dict[str, str]) -> tuple[x509.Name, Sequence[x509.GeneralName]]:
    subject = {name: _fill(text, facts) for name, text in settings.subject.items()}
    san_entries: list[x509.GeneralName] = [x509.DNSName(_fill(t, facts)) for t in settings.san.dns]
    san_entries += [x509.UniformResourceIdentifier(_fill(t, facts)) for t in settings.san.uri]
    return _name(subject), san_entries


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


def _fill(template: str, facts: dict[str, str]) -> str:
    try:
        return template.format_map(facts)
    except (KeyError, IndexError, ValueError) as error:
        raise ConfigError(
            "config.template", f"{template!r}: only {{serial}} can be filled in here ({error})"
        ) from error
