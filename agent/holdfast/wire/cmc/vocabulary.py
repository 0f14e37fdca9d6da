"""The words of CMC: content types, controls, states and reasons (RFC 10002 §6, first in RFC 5272 and 6402).

The module of RFC 6402 exchanges the numbers of identityProofV2 and popLinkWitnessV2; these are those of the
text, of IANA and of every implementation.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

PKI_DATA: Final = "1.3.6.1.5.5.7.12.2"
PKI_RESPONSE: Final = "1.3.6.1.5.5.7.12.3"

_ARC: Final = "1.3.6.1.5.5.7.7."
STATUS_INFO: Final = _ARC + "1"
IDENTIFICATION: Final = _ARC + "2"
IDENTITY_PROOF: Final = _ARC + "3"
DATA_RETURN: Final = _ARC + "4"
TRANSACTION_ID: Final = _ARC + "5"
SENDER_NONCE: Final = _ARC + "6"
RECIPIENT_NONCE: Final = _ARC + "7"
ADD_EXTENSIONS: Final = _ARC + "8"
ENCRYPTED_POP: Final = _ARC + "9"
DECRYPTED_POP: Final = _ARC + "10"
GET_CERT: Final = _ARC + "15"
GET_CRL: Final = _ARC + "16"
REVOKE_REQUEST: Final = _ARC + "17"
QUERY_PENDING: Final = _ARC + "21"
POP_LINK_RANDOM: Final = _ARC + "22"
POP_LINK_WITNESS: Final = _ARC + "23"
CONFIRM_CERT_ACCEPTANCE: Final = _ARC + "24"
STATUS_INFO_V2: Final = _ARC + "25"
TRUSTED_ANCHORS: Final = _ARC + "26"
BATCH_REQUESTS: Final = _ARC + "28"
BATCH_RESPONSES: Final = _ARC + "29"
POP_LINK_WITNESS_V2: Final = _ARC + "33"
IDENTITY_PROOF_V2: Final = _ARC + "34"

NO_SIGNATURE: Final = "1.3.6.1.5.5.7.6.2"

THIS_MESSAGE: Final = 0
"""The bodyPartID that stands for the whole message."""
MOST_BODY_PART: Final = 4_294_967_295
NONCE_SIZE: Final = 16
LINK_SIZE: Final = 64
"""Octets of a POP link random: at least 512 bits (RFC 10002 §6.3.1.1)."""


class Status(IntEnum):
    """CMCStatus."""

    SUCCESS = 0
    FAILED = 2
    PENDING = 3
    NO_SUPPORT = 4
    CONFIRM_REQUIRED = 5
    POP_REQUIRED = 6
    PARTIAL = 7


class FailInfo(IntEnum):
    """CMCFailInfo."""

    BAD_ALG = 0
    BAD_MESSAGE_CHECK = 1
    BAD_REQUEST = 2
    BAD_TIME = 3
    BAD_CERT_ID = 4
    UNSUPPORTED_EXT = 5
    MUST_ARCHIVE_KEYS = 6
    BAD_IDENTITY = 7
    POP_REQUIRED = 8
    POP_FAILED = 9
    NO_KEY_REUSE = 10
    INTERNAL_CA_ERROR = 11
    TRY_LATER = 12
    AUTH_DATA_FAIL = 13

    @property
    def word(self) -> str:
        """As the standard spells it: ``badAlg``."""
        first, *rest = self.name.lower().split("_")
        return first + "".join(part.upper() if part == "ca" else part.capitalize() for part in rest)
