"""What pledge, registrar and MASA say to each other, as records and as JSON (RFC 8366 §5, RFC 8995 §3).

Every record has ``encode() -> bytes`` (JSON) and ``decode(bytes)``. The records carry what was said,
right or wrong: whether a voucher may be believed is decided in :mod:`holdfast.wire.brski.verify`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from holdfast.wire.brski.idevid import aki, masa_url, serial_number
from holdfast.wire.brski.leaves import Leaves, read_object, write_binary, write_moment, write_object

__all__ = [
    "ENROLL_STATUS",
    "MEDIA_TYPE",
    "REQUEST_VOUCHER",
    "TELEMETRY_TYPE",
    "VOUCHER_STATUS",
    "RegistrarVoucherRequest",
    "Telemetry",
    "Voucher",
    "VoucherRequest",
    "aki",
    "masa_url",
    "serial_number",
]

MEDIA_TYPE: Final = "application/voucher-cms+json"
TELEMETRY_TYPE: Final = "application/json"
REQUEST_VOUCHER: Final = "/.well-known/brski/requestvoucher"
VOUCHER_STATUS: Final = "/.well-known/brski/voucher_status"
ENROLL_STATUS: Final = "/.well-known/brski/enrollstatus"

_REQUEST: Final = "ietf-voucher-request:voucher"
_VOUCHER: Final = "ietf-voucher:voucher"
_REASON_LIMIT: Final = 2000


@dataclass(frozen=True, slots=True)
class VoucherRequest:
    """What a pledge asks (RFC 8995 §5.2). ``nonce`` is text, copied and compared verbatim.

    ``proximity_registrar_cert`` is the DER of the first certificate that the registrar showed in TLS.
    """

    serial_number: str
    nonce: str | None = None
    assertion: str | None = "proximity"
    proximity_registrar_cert: bytes | None = field(default=None, repr=False)
    created_on: datetime | None = None

    def encode(self) -> bytes:
        leaves = {
            "assertion": self.assertion,
            "created-on": write_moment(self.created_on),
            "nonce": self.nonce,
            "serial-number": self.serial_number,
            "proximity-registrar-cert": write_binary(self.proximity_registrar_cert),
        }
        return write_object(leaves, wrapper=_REQUEST)

    @classmethod
    def decode(cls, data: bytes) -> VoucherRequest:
        """Raises RemoteProtocolError ``voucher-request.<leaf>``."""
        leaves = Leaves.wrapped(data, _REQUEST, "voucher-request")
        return cls(
            serial_number=leaves.required_text("serial-number"),
            nonce=leaves.text("nonce"),
            assertion=leaves.text("assertion"),
            proximity_registrar_cert=leaves.binary("proximity-registrar-cert"),
            created_on=leaves.moment("created-on"),
        )


@dataclass(frozen=True, slots=True)
class RegistrarVoucherRequest:
    """What a registrar asks the MASA on behalf of a pledge (RFC 8995 §5.5).

    ``idevid_issuer`` is the complete value of the IDevID's AuthorityKeyIdentifier extension (DER);
    ``prior_signed_voucher_request`` the pledge's CMS as it came.
    """

    serial_number: str
    nonce: str | None = None
    assertion: str | None = None
    created_on: datetime | None = None
    idevid_issuer: bytes | None = None
    prior_signed_voucher_request: bytes | None = field(default=None, repr=False)

    def encode(self) -> bytes:
        leaves = {
            "assertion": self.assertion,
            "created-on": write_moment(self.created_on),
            "nonce": self.nonce,
            "serial-number": self.serial_number,
            "idevid-issuer": write_binary(self.idevid_issuer),
            "prior-signed-voucher-request": write_binary(self.prior_signed_voucher_request),
        }
        return write_object(leaves, wrapper=_REQUEST)

    @classmethod
    def decode(cls, data: bytes) -> RegistrarVoucherRequest:
        """Raises RemoteProtocolError ``voucher-request.<leaf>``; refuses a proximity certificate."""
        leaves = Leaves.wrapped(data, _REQUEST, "voucher-request")
        if "proximity-registrar-cert" in leaves.members:
            raise leaves.refuse("proximity-registrar-cert", "forbidden in a registrar's request")
        return cls(
            serial_number=leaves.required_text("serial-number"),
            nonce=leaves.text("nonce"),
            assertion=leaves.text("assertion"),
            created_on=leaves.moment("created-on"),
            idevid_issuer=leaves.binary("idevid-issuer"),
            prior_signed_voucher_request=leaves.binary("prior-signed-voucher-request"),
        )


@dataclass(frozen=True, slots=True)
class Voucher:
    """What a MASA says (RFC 8366 §5.3). Only the serial number is mandatory; policy judges the rest.

    ``est_domain``: the EST server to enroll at, in the voucher of a cloud registrar
    (draft-ietf-anima-brski-cloud-16 §2.3; the leaf is of draft-ietf-anima-rfc8366bis).
    """

    serial_number: str
    pinned_domain_cert: bytes | None = field(default=None, repr=False)
    nonce: str | None = None
    assertion: str | None = None
    created_on: datetime | None = None
    expires_on: datetime | None = None
    idevid_issuer: bytes | None = None
    domain_cert_revocation_checks: bool | None = None
    last_renewal_date: datetime | None = None
    est_domain: str | None = None

    def encode(self) -> bytes:
        leaves = {
            "assertion": self.assertion,
            "created-on": write_moment(self.created_on),
            "expires-on": write_moment(self.expires_on),
            "nonce": self.nonce,
            "serial-number": self.serial_number,
            "idevid-issuer": write_binary(self.idevid_issuer),
            "pinned-domain-cert": write_binary(self.pinned_domain_cert),
            "domain-cert-revocation-checks": self.domain_cert_revocation_checks,
            "last-renewal-date": write_moment(self.last_renewal_date),
            "est-domain": self.est_domain,
        }
        return write_object(leaves, wrapper=_VOUCHER)

    @classmethod
    def decode(cls, data: bytes) -> Voucher:
        """Raises RemoteProtocolError ``voucher.<leaf>``."""
        leaves = Leaves.wrapped(data, _VOUCHER, "voucher")
        return cls(
            serial_number=leaves.required_text("serial-number"),
            pinned_domain_cert=leaves.binary("pinned-domain-cert"),
            nonce=leaves.text("nonce"),
            assertion=leaves.text("assertion"),
            created_on=leaves.moment("created-on"),
            expires_on=leaves.moment("expires-on"),
            idevid_issuer=leaves.binary("idevid-issuer"),
            domain_cert_revocation_checks=leaves.boolean("domain-cert-revocation-checks"),
            last_renewal_date=leaves.moment("last-renewal-date"),
            est_domain=leaves.text("est-domain"),
        )


@dataclass(frozen=True, slots=True)
class Telemetry:
    """How it went, for the voucher (RFC 8995 §5.7) or the enrollment (§5.9.4); a failure has a ``reason``."""

    status: bool
    reason: str | None = None
    reason_context: Mapping[str, object] | None = None
    version: int = 1

    def encode(self) -> bytes:
        return write_object(
            {
                "version": self.version,
                "status": self.status,
                "reason": self.reason,
                "reason-context": self.reason_context,
            }
        )

    @classmethod
    def decode(cls, data: bytes) -> Telemetry:
        """Raises RemoteProtocolError ``telemetry.<member>``."""
        leaves = Leaves("telemetry", read_object(data, "telemetry"), clause="RFC 8995 §5.7")
        version, status = leaves.integer("version"), leaves.boolean("status")
        if version is None or status is None:
            raise leaves.refuse("version" if version is None else "status", "mandatory member is absent")
        context = leaves.members.get("reason-context")
        if context is not None and not isinstance(context, dict):
            context = {"value": context}  # the RFC allows a literal
        return cls(status, leaves.text("reason", limit=_REASON_LIMIT), context, version)
