"""The certificates of the SCEP server: its RA's or its CA's, made when the first request comes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.model import Chain, KeyAlgorithm

from . import ca
from .ca import Authority, Credential, Validity
from .domain import CMC_RA, INFRASTRUCTURE_LIFE, Domain

Mode = Literal["ra", "split-ra", "unmarked-ra", "ca", "ec-ca"]
CAPABILITIES = ("AES", "SHA-256", "SHA-512", "SCEPStandard", "POSTPKIOperation", "Renewal", "GetNextCACert")


@dataclass(frozen=True, slots=True)
class ScepPolicy:
    """How the SCEP server behaves, apart from faults.

    ``mode``: one RA certificate for both parts, one for each part, one that does not say what it is, a CA
    with an RSA key that answers itself, or the domain's own CA with its EC key, which nobody can encrypt for
    except by password. ``capabilities``: the lines of GetCACaps; None: it does not know that operation.
    ``challenges``: one-time passwords and for whom they are (None: anyone); empty: none is asked for.
    ``polls``: how often a request is answered with PENDING. ``path``: of the URL. ``des3``: it knows no AES.
    ``sha1``: requests may be signed with it.
    """

    mode: Mode = "ra"
    path: str = "/scep"
    capabilities: tuple[str, ...] | None = CAPABILITIES
    line_end: str = "\n"
    challenges: Mapping[str, str | None] = field(default_factory=dict, repr=False)
    polls: int = 0
    des3: bool = False
    sha1: bool = False
    life: timedelta = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class ScepAuthority:
    """``issuing`` signs certificates, ``recipient`` opens requests, ``signer`` signs replies; ``chain`` is
    what GetCACert gives."""

    domain: Domain = field(repr=False)
    issuing: Authority = field(repr=False)
    recipient: Credential = field(repr=False)
    signer: Credential = field(repr=False)
    chain: Chain

    @classmethod
    def of(cls, domain: Domain, mode: Mode, now: datetime, random: Callable[[int], bytes]) -> ScepAuthority:
        life = Validity.starting(now, INFRASTRUCTURE_LIFE)
        if mode == "ec-ca":
            own = domain.issuing.credential
            return cls(domain, domain.issuing, own, own, (domain.issuing.certificate,))
        if mode == "ca":
            key = ca.new_key(KeyAlgorithm.RSA2048)
            usage = ca.key_usage("key_cert_sign", "crl_sign", "digital_signature", "key_encipherment")
            extensions = ((x509.BasicConstraints(ca=True, path_length=0), True), (usage, True))
            certificate = domain.root.sign(
                ca.name(f"Simulated SCEP CA G{len(domain.former) + 1}"), key.public_key(), life, extensions
            )
            own = Credential((certificate, *domain.root.chain), key)
            return cls(domain, Authority(own, random), own, own, (certificate,))
        both = ("digital_signature", "key_encipherment")
        parts = [both] if mode != "split-ra" else [both[:1], both[1:]]
        marks = [] if mode == "unmarked-ra" else [CMC_RA]
        made = [
            domain.issuing.credential_for(
                ca.name(f"Simulated SCEP RA {number}"), life, _ra(parts_of, marks), KeyAlgorithm.RSA2048
            )
            for number, parts_of in enumerate(parts, 1)
        ]
        # Who trusts the root of before follows this link to the new one (RFC 8894 §4.2.1.2 allows helpers).
        links = tuple(link for link in domain.links if link.subject == domain.root.certificate.subject)
        chain = (*(each.certificate for each in made), *domain.issuing.chain, *links)
        return cls(domain, domain.issuing, made[-1], made[0], chain)


def _ra(usages: tuple[str, ...], marks: list[x509.ObjectIdentifier]) -> ca.Extensions:
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (ca.key_usage(*usages), True),
        (x509.ExtendedKeyUsage([*marks, ExtendedKeyUsageOID.EMAIL_PROTECTION]), False),
    ]
    return extensions


@dataclass(slots=True)
class Transaction:
    """One transactionID: what was asked, how often it was asked for, and what came of it."""

    csr: bytes = field(repr=False)
    key: bytes = field(repr=False)
    polls: int = 0
    issued: bytes = field(default=b"", repr=False)


@dataclass(slots=True)
class ScepDesk:
    """What the server remembers.

    ``used`` are challenges that are spent; ``coming`` is a domain that GetNextCACert announces and that is
    not in force yet; ``former`` are CAs of ours before this one; ``last`` is the reply before.
    """

    authority: ScepAuthority | None = None
    former: Chain = ()
    coming: Domain | None = field(default=None, repr=False)
    transactions: dict[str, Transaction] = field(default_factory=dict)
    used: set[str] = field(default_factory=set, repr=False)
    last: bytes = field(default=b"", repr=False)

    def at_work(
        self, domain: Domain, mode: Mode, now: datetime, random: Callable[[int], bytes]
    ) -> ScepAuthority:
        """The authority for *domain*, made anew after a rollover."""
        if self.authority is None or self.authority.domain.issuing is not domain.issuing:
            if self.authority is not None:
                self.former = (self.authority.issuing.certificate, *self.former)[:8]
            self.authority = ScepAuthority.of(domain, mode, now, random)
        return self.authority
