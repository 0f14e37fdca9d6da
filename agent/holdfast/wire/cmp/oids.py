"""Object identifiers of CMP and CRMF, as dotted strings (RFC 9810 appendix F, RFC 4211, RFC 9481)."""

from __future__ import annotations

from typing import Final

# What stands in generalInfo, genm and genp: id-it.
IMPLICIT_CONFIRM: Final = "1.3.6.1.5.5.7.4.13"
CONFIRM_WAIT_TIME: Final = "1.3.6.1.5.5.7.4.14"
CA_CERTS: Final = "1.3.6.1.5.5.7.4.17"
ROOT_CA_KEY_UPDATE: Final = "1.3.6.1.5.5.7.4.18"
CERT_REQ_TEMPLATE: Final = "1.3.6.1.5.5.7.4.19"
ROOT_CA_CERT: Final = "1.3.6.1.5.5.7.4.20"
CERT_PROFILE: Final = "1.3.6.1.5.5.7.4.21"
CRL_STATUS_LIST: Final = "1.3.6.1.5.5.7.4.22"
CRLS: Final = "1.3.6.1.5.5.7.4.23"
KEM_CIPHERTEXT: Final = "1.3.6.1.5.5.7.4.24"

# Controls of a certificate request or template: id-regCtrl.
OLD_CERT_ID: Final = "1.3.6.1.5.5.7.5.1.5"
ALG_ID: Final = "1.3.6.1.5.5.7.5.1.11"
RSA_KEY_LEN: Final = "1.3.6.1.5.5.7.5.1.12"

# Protection by a shared secret.
PASSWORD_BASED_MAC: Final = "1.2.840.113533.7.66.13"  # noqa: S105 - an algorithm
PBMAC1: Final = "1.2.840.113549.1.5.14"

# Protection by a KEM key (RFC 9810 §5.1.3.4, RFC 8619, RFC 9935).
KEM_BASED_MAC: Final = "1.2.840.113533.7.66.16"
HKDF_SHA256: Final = "1.2.840.113549.1.9.16.3.28"
ML_KEM_512: Final = "2.16.840.1.101.3.4.4.1"
ML_KEM_768: Final = "2.16.840.1.101.3.4.4.2"
ML_KEM_1024: Final = "2.16.840.1.101.3.4.4.3"

COMMON_NAME: Final = "2.5.4.3"
CRL_REASON: Final = "2.5.29.21"
