"""The owner's domain: a root, an issuing CA, and a registrar that also speaks EST."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from holdfast.wire import oids
from holdfast.wire.model import Chain, KeyAlgorithm

from . import ca
from .ca import Authority, Credential, Validity

CMC_RA = x509.ObjectIdentifier(oids.CMC_RA)
INFRASTRUCTURE_LIFE = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Domain:
    """``former`` are the roots and issuing CAs before the last rollover, newest first; ``links`` sign each
    of two neighbouring roots with the other (RFC 7030 §4.1.3: OldWithNew, NewWithOld). ``generation`` counts
    issuing CAs, for their names."""

    root: Authority = field(repr=False)
    issuing: Authority = field(repr=False)
    registrar: Credential = field(repr=False)
    application: Credential = field(repr=False)
    former: tuple[tuple[Authority, Authority], ...] = field(default=(), repr=False)
    links: Chain = field(default=(), repr=False)
    generation: int = 1

    @property
    def anchors(self) -> Chain:
        roots = (self.root.certificate, *(root.certificate for root, _ in self.former))
        return tuple(dict.fromkeys(roots))

    @property
    def intermediates(self) -> Chain:
        return (self.issuing.certificate, *(issuing.certificate for _, issuing in self.former))

    @property
    def cacerts(self) -> Chain:
        """What EST's ``cacerts`` hands out: roots, issuing CAs and the links between roots."""
        return (*self.anchors, *self.intermediates, *self.links)

    @classmethod
    def create(
        cls,
        owner: str,
        now: datetime,
        random: Callable[[int], bytes],
        *,
        names: Sequence[str] = ("localhost", "127.0.0.1"),
        algorithm: KeyAlgorithm = KeyAlgorithm.P256,
    ) -> Domain:
        """A new domain. *names* are the DNS names and addresses of its servers."""
        life = Validity.starting(now, INFRASTRUCTURE_LIFE)
        root = Authority.root(ca.name(f"{owner} Root CA", owner), life, random, algorithm)
        issuing = root.subordinate(ca.name(f"{owner} Issuing CA", owner), life, algorithm)
        registrar, application = _servers(issuing, general_names(names), now, algorithm)
        return cls(root, issuing, registrar, application)

    def with_new_registrar(self, now: datetime) -> Domain:
        """The same domain whose registrar got another key and certificate: the old one was revoked."""
        old = self.registrar.certificate
        kept = (x509.BasicConstraints, x509.KeyUsage, x509.ExtendedKeyUsage, x509.SubjectAlternativeName)
        extensions = [(e.value, e.critical) for e in old.extensions if isinstance(e.value, kept)]
        life = Validity.starting(now, INFRASTRUCTURE_LIFE)
        registrar = self.issuing.credential_for(old.subject, life, extensions, KeyAlgorithm.P256)
        return replace(self, registrar=registrar)

    def rolled_over(self, now: datetime, random: Callable[[int], bytes]) -> Domain:
        """The same domain with a new root and issuing CA; its servers keep their certificates."""
        life, old = Validity.starting(now, INFRASTRUCTURE_LIFE), self.root
        name, owner, algorithm = f"G{self.generation + 1}", self.owner, KeyAlgorithm.P256
        root = Authority.root(ca.name(f"{owner} Root CA {name}", owner), life, random, algorithm)
        issuing = root.subordinate(ca.name(f"{owner} Issuing CA {name}", owner), life, algorithm)
        pairs = ((old, root), (root, old))
        links = tuple(
            signer.sign(signed.certificate.subject, signed.public_key, life, ca.CA_EXTENSIONS)
            for signer, signed in pairs
        )
        changed = replace(self, root=root, issuing=issuing, links=(*links, *self.links))
        return replace(changed, former=self._with_former(), generation=self.generation + 1)

    def reissued(self, now: datetime) -> Domain:
        """The same domain with a new issuing CA under the same root."""
        life, name = Validity.starting(now, INFRASTRUCTURE_LIFE), f"G{self.generation + 1}"
        subject = ca.name(f"{self.owner} Issuing CA {name}", self.owner)
        issuing = self.root.subordinate(subject, life, KeyAlgorithm.P256)
        return replace(self, issuing=issuing, former=self._with_former(), generation=self.generation + 1)

    def with_new_servers(self, now: datetime) -> Domain:
        """The same domain; its servers show new certificates of the present issuing CA."""
        san = self.registrar.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        registrar, application = _servers(self.issuing, tuple(san.value), now, KeyAlgorithm.P256)
        return replace(self, registrar=registrar, application=application)

    def without_former(self) -> Domain:
        """The same domain once nothing of what was before the last rollovers is good any more."""
        return replace(self, former=(), links=())

    @property
    def owner(self) -> str:
        """The organization that its certificates name."""
        subject = self.root.certificate.subject
        return str(subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)

    def _with_former(self) -> tuple[tuple[Authority, Authority], ...]:
        return ((self.root, self.issuing), *self.former)


def _servers(
    issuing: Authority, san: Sequence[x509.GeneralName], now: datetime, algorithm: KeyAlgorithm
) -> tuple[Credential, Credential]:
    """Registrar and application, called *san*."""
    owner = str(issuing.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value)
    life, server = Validity.starting(now, INFRASTRUCTURE_LIFE), ExtendedKeyUsageOID.SERVER_AUTH
    # A registrar is also a TLS client: of the MASA (RFC 8995 §5.5).
    usages = ca.end_entity(server, ExtendedKeyUsageOID.CLIENT_AUTH, CMC_RA, san=san)
    return (
        issuing.credential_for(ca.name(f"{owner} Registrar", owner), life, usages, algorithm),
        issuing.credential_for(
            ca.name(f"{owner} Application", owner), life, ca.end_entity(server, san=san), algorithm
        ),
    )


def general_names(names: Sequence[str]) -> tuple[x509.GeneralName, ...]:
    """Addresses become iPAddress entries, everything else dNSName."""
    return tuple(_general_name(name) for name in names)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
