"""Object identifiers that the libraries do not name, as dotted strings."""

from __future__ import annotations

from typing import Final

CMC_CA: Final = "1.3.6.1.5.5.7.3.27"
CMC_RA: Final = "1.3.6.1.5.5.7.3.28"  # RFC 6402 §2.10; one of its modules misprints another arc

TCG_EK_CERTIFICATE: Final = "2.23.133.8.1"
TCG_AIK_CERTIFICATE: Final = "2.23.133.8.3"

MASA_URL: Final = "1.3.6.1.5.5.7.1.32"  # RFC 8995 §2.3.2
HARDWARE_MODULE_NAME: Final = "1.3.6.1.5.5.7.8.4"  # RFC 4108 §5
PERMANENT_IDENTIFIER: Final = "1.3.6.1.5.5.7.8.3"  # RFC 4043

CT_DATA: Final = "1.2.840.113549.1.7.1"
CT_SIGNED_DATA: Final = "1.2.840.113549.1.7.2"
CT_ANIMA_JSON_VOUCHER: Final = "1.2.840.113549.1.9.16.1.40"  # RFC 8366 §6

CHALLENGE_PASSWORD: Final = "1.2.840.113549.1.9.7"  # noqa: S105 - an attribute type, not a password
EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"
CHANGE_SUBJECT_NAME: Final = "1.3.6.1.5.5.7.7.36"  # RFC 6402 §2.8
DECRYPT_KEY_IDENTIFIER: Final = "1.2.840.113549.1.9.16.2.37"  # RFC 7030 §4.4.1.1
ASYMM_DECRYPT_KEY_IDENTIFIER: Final = "1.2.840.113549.1.9.16.2.54"  # RFC 7030 §4.4.1.2
CSR_INFO_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.61"  # RFC 9908 §3.4
EXTENSION_REQUEST_TEMPLATE: Final = "1.2.840.113549.1.9.16.2.62"  # RFC 9908 §3.4

PWRI_KEK: Final = "1.2.840.113549.1.9.16.3.9"  # RFC 3211 §2.3
MS_CERTIFICATE_REQUEST_AGENT: Final = "1.3.6.1.4.1.311.20.2.1"  # what NDES gives its RA
