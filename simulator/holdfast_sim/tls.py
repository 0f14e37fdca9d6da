"""Server-side TLS on the standard library: any certificate that our PKI could have made gets in.

OpenSSL checks the path and the signatures; validity is left to the handlers, because they go by the world's
clock and can say in words why they refuse.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast.wire.model import Chain

from .answers import Peer
from .ca import Credential
from .site import Server, Site, without_root

# X509_V_FLAG_*, which Python does not name.
IGNORE_CRITICAL = 0x10  # IDevIDs may carry critical extensions that OpenSSL does not know
NO_CHECK_TIME = 0x200000


class Listener:
    """The TLS side of one server: which certificate each new connection is shown, and who is behind it."""

    def __init__(self, site: Site, server: Server) -> None:
        self._choose: Callable[[], Credential] = lambda: site.server_credential(server)
        self._site = site
        self._contexts: dict[tuple[bytes, str], ssl.SSLContext] = {}
        self._shown: dict[int, Chain] = {}
        self.context = self._context_for(site.world.domain.registrar)
        self.context.sni_callback = self._on_client_hello

    def peer(self, tls: ssl.SSLObject) -> Peer:
        """Who is behind an established connection."""
        der = tls.getpeercert(binary_form=True)
        chain = (x509.load_der_x509_certificate(der),) if der else ()
        unique = tls.get_channel_binding("tls-unique") if tls.version() == "TLSv1.2" else None
        return Peer(chain, self._shown[id(tls.context)], unique)

    def _on_client_hello(self, tls: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        """OpenSSL calls this for every handshake, also for a client that names no server."""
        tls.context = self._context_for(self._choose())

    def _context_for(self, credential: Credential) -> ssl.SSLContext:
        clients = _client_cas(self._site)  # a rollover adds to them
        key = credential.certificate.public_bytes(Encoding.DER), clients
        if key not in self._contexts:
            self._contexts[key] = _server_context(credential, clients)
            self._shown[id(self._contexts[key])] = without_root(credential.chain)
        return self._contexts[key]


def _client_cas(site: Site) -> str:
    maker, domain = site.world.manufacturer, site.world.domain
    authorities = (*maker.anchors, *maker.intermediates, *domain.anchors, *domain.intermediates)
    return "".join(pem(authority) for authority in authorities)


def _server_context(credential: Credential, clients: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with _key_file(credential) as path:
        context.load_cert_chain(path)
    context.load_verify_locations(cadata=clients)
    context.verify_mode = ssl.CERT_OPTIONAL
    context.verify_flags = ssl.VerifyFlags(int(context.verify_flags) | IGNORE_CRITICAL | NO_CHECK_TIME)
    return context


@contextlib.contextmanager
def _key_file(credential: Credential) -> Iterator[Path]:
    """The standard library loads keys from files only; this one is ours alone and gone at once."""
    descriptor, name = tempfile.mkstemp(suffix=".pem")  # mode 0600
    path = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(key_pem(credential))
            file.writelines(pem(certificate) for certificate in without_root(credential.chain))
        yield path
    finally:
        path.unlink()


def pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def key_pem(credential: Credential) -> str:
    """The private key, unencrypted PKCS#8: simulated keys guard nothing."""
    return credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
