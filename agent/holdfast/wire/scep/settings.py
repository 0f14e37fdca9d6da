"""What an operator chooses about SCEP, beside where the server is."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Final

DEFAULT_PATH: Final = "/cgi-bin/pkiclient.exe"
"""What the path of a SCEP URL is by custom (RFC 8894 §4.1)."""


class Legacy(Enum):
    """Old habits that are refused unless they are named. Single DES, RC2 and MD5 have no name."""

    DES3 = "3des"  # triple DES, made and read, where the server has no AES
    SHA1 = "sha1"  # replies signed with SHA-1; our own are never
    GET = "get"  # a challenge, encrypted, in a URL, where the server takes no POST


class Decryption(Enum):
    """How a reply comes to be readable: what the certificate's own key has to do with it."""

    OWN_KEY = "own-key"  # RSA that signs and decrypts
    TRANSPORT_KEY = "transport-key"  # an RSA key beside it, for as long as the request lasts
    PASSWORD = "password"  # noqa: S105 - the challenge, by RFC 8894's PasswordRecipientInfo


@dataclass(frozen=True, slots=True)
class ScepLimits:
    """Bounds of one conversation, in octets, and how long to wait for a pending certificate."""

    body: int = 1 << 18
    wait: timedelta = timedelta(minutes=5)
