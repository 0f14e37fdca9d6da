"""What an operator chooses about CMC, beside where the server is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum


class Legacy(Enum):
    """Old habits that are refused unless they are named."""

    SHA1 = "sha1"  # answers signed with SHA-1, challenges and anchors hashed with it; our own are never
    V1 = "v1"  # identityProof and popLinkWitness of RFC 2797, which know SHA-1 alone; statusInfo is read


class Form(Enum):
    """How a certificate is asked for."""

    PKCS10 = "pkcs10"  # a PKCS#10 in a Full PKI Request
    CRMF = "crmf"  # a CertReqMsg in a Full PKI Request
    SIMPLE = "simple"  # a PKCS#10 alone: who asks is the business of TLS


class Possession(Enum):
    """How the new key is proved to be held."""

    SIGNATURE = "signature"
    DECRYPTION = "decryption"  # by a challenge, for a key that only decrypts


@dataclass(frozen=True, slots=True)
class CmcLimits:
    """Bounds of one conversation. ``body`` in octets; a wait that a server asks for is clamped.

    Issued and CA certificates together stay within what path validation takes (``chain.MAX_CHAIN``).
    """

    body: int = 1 << 18
    issued_certificates: int = 10
    shortest_wait: timedelta = timedelta(seconds=1)
    longest_wait: timedelta = timedelta(days=4)
    default_wait: timedelta = timedelta(minutes=5)
