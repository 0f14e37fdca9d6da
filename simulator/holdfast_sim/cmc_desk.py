"""How the CMC server behaves, and what it remembers of each transaction."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from cryptography import x509

from .ca import Credential


@dataclass(frozen=True, slots=True)
class CmcPolicy:
    """How the CMC server behaves, apart from faults.

    ``path``: of plain HTTP and HTTPS, besides EST's ``/fullcmc``. ``secrets``: identification to shared
    secret. ``authority``: who signs the answers, the registrar (an RA by its extended key usage) or the
    issuing CA. ``polls``: how often a request is put off by ``check_after`` seconds. ``confirm``: a
    certificate counts once it was confirmed. ``challenge``: possession is shown by decryption, whatever the
    request says. ``simple``: success is answered by certificates alone. ``publish``: answers name the
    anchors. ``http_errors``: failures come with an HTTP error, as EST wants it. ``sha1``: the controls of
    RFC 2797 are understood, and answered by them.
    """

    path: str = "/cmc"
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    authority: Literal["ra", "ca"] = "ra"
    polls: int = 0
    check_after: int = 1
    confirm: bool = False
    challenge: bool = False
    simple: bool = False
    publish: bool = False
    http_errors: bool = False
    sha1: bool = False


@dataclass(slots=True)
class CmcTransaction:
    """One transaction: for whose key, how often it was asked about, what came of it.

    ``hidden`` is the value that the holder of the key has to find. ``token`` is what a waiting client asks
    with.
    """

    key: bytes = field(repr=False)
    asked: x509.CertificateSigningRequest
    token: bytes
    polls: int = 0
    issued: tuple[x509.Certificate, ...] = ()
    hidden: bytes = field(default=b"", repr=False)
    proved: bool = False
    confirmed: bool = False
    refused: bool = False


@dataclass(slots=True)
class CmcDesk:
    """``last`` is the answer before; ``device`` an end entity of the domain that a fault lets answer;
    ``failures`` are reasons that clients told us."""

    transactions: dict[int, CmcTransaction] = field(default_factory=dict)
    last: bytes = field(default=b"", repr=False)
    device: Credential | None = field(default=None, repr=False)
    failures: list[str] = field(default_factory=list)
    published: int = 0
