"""One TLS handshake with a named kind of trust.

OpenSSL checks the handshake's own signatures in every case. Which *certificates* to believe is ours alone to
say, inside the handshake, before a client certificate leaves the device: no certificate store of the host, no
environment variable and no default of a library has a say.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from holdfast.host.deadline import Deadline
from holdfast.host.dial import authority, is_address
from holdfast.keys.tlsfault import surfacing
from holdfast.keys.tlskey import use_key
from holdfast.keys.tlsverify import on_peer_chain
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.model import Chain, SigningKey, TlsInfo


@dataclass(frozen=True, slots=True)
class Anchored:
    """Trust what *check* accepts: it gets the server's chain, leaf first, and raises TrustError to refuse."""

    check: Callable[[Chain], None]


@dataclass(frozen=True, slots=True)
class Provisional:
    """Trust nobody yet (RFC 8995 §5.1): the chain is recorded, the voucher decides later."""


@dataclass(frozen=True, slots=True)
class Plain:
    """No TLS at all: messages protect themselves (CMP, SCEP)."""


@dataclass(frozen=True, slots=True)
class Channel:
    """Where to connect, whom to trust there, and with what to authenticate: (chain leaf first, key).

    ``patience``: seconds in which the connection must stand, if that is less than the transport allows.

    Raises LocalProtocolError ``tls.plain-client`` for a plain channel that names a client or a TLS version.
    """

    host: str
    port: int
    trust: Provisional | Anchored | Plain
    client: tuple[Chain, SigningKey] | None = field(default=None, repr=False)
    max_tls12: bool = False
    patience: float | None = None

    def __post_init__(self) -> None:
        if self.plain and (self.client is not None or self.max_tls12):
            raise LocalProtocolError("tls.plain-client", "plain HTTP knows no client certificate")

    @property
    def plain(self) -> bool:
        return isinstance(self.trust, Plain)

    @property
    def default_port(self) -> int:
        return 80 if self.plain else 443

    @property
    def origin(self) -> str:
        """``https://host[:port]``, or ``http://host[:port]``."""
        scheme = "http" if self.plain else "https"
        return f"{scheme}://{authority(self.host, self.port, self.default_port)}"


def handshake(sock: socket.socket, channel: Channel, deadline: Deadline) -> tuple[ssl.SSLSocket, TlsInfo]:
    """Turn *sock* into a TLS connection; the caller closes *sock* if this raises.

    Raises the TrustError of an Anchored check itself; RemoteProtocolError ``tls.certificate`` for a chain
    that cannot be read; KeyStoreError when the client's key fails; TransportError ``transport.tls`` (no
    agreement), ``transport.tls-alert`` (the server refused us), ``transport.timeout``, ``transport.closed``;
    LocalProtocolError ``tls.plain`` for a plain channel.
    """
    if isinstance(channel.trust, Plain):
        raise LocalProtocolError("tls.plain", f"{channel.origin} has no TLS to shake hands for")
    judge = _Judge(channel.trust)
    context = _context(channel, judge)
    name = _server_name(channel.host)
    try:
        tls = context.wrap_socket(
            sock, server_hostname=name, do_handshake_on_connect=False, suppress_ragged_eofs=False
        )
    except (OSError, ValueError) as error:
        raise TransportError("transport.tls", f"{channel.host}: {error}") from error
    try:
        _shake(tls, deadline)
        return tls, _describe(tls, channel, judge)
    except BaseException:
        tls.close()
        raise


def _server_name(host: str) -> str | None:
    """What to send as SNI: a DNS name in ASCII; addresses are not sent (RFC 6066 §3).

    Checked here, because ``wrap_socket`` loses the socket of a name that it cannot encode.
    """
    if is_address(host):
        return None
    try:
        host.encode("ascii")
        host.encode("idna")  # labels of 1 to 63 octets
    except UnicodeError as error:
        raise TransportError("transport.dns", f"{host!r} is not a host name in ASCII") from error
    if not host or host.startswith(".") or "\0" in host:
        raise TransportError("transport.dns", f"{host!r} is not a host name in ASCII")
    return host


def cut_off(error: OSError) -> bool:
    """Whether the connection ended without a goodbye. Python 3.11.2 has no class of its own for that."""
    if isinstance(error, ssl.SSLEOFError | ConnectionError):
        return True
    return isinstance(error, ssl.SSLError) and error.reason == "UNEXPECTED_EOF_WHILE_READING"


def fault(error: OSError) -> TransportError:
    """What a failure of an established or half-made TLS connection means."""
    if cut_off(error) or isinstance(error, ssl.SSLZeroReturnError):
        return TransportError("transport.closed", "the peer closed the connection")
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        code = "transport.tls-alert" if "ALERT" in reason else "transport.tls"
        return TransportError(code, reason.lower().replace("_", " "))
    return TransportError("transport.broken", error.strerror or type(error).__name__)


class _Judge:
    """Sees the server's chain during the handshake and keeps what it accepted."""

    def __init__(self, trust: Provisional | Anchored) -> None:
        self._trust = trust
        self.chain: tuple[bytes, ...] = ()

    def __call__(self, chain: tuple[bytes, ...]) -> None:
        certificates = _parse(chain)
        if isinstance(self._trust, Anchored):
            self._trust.check(certificates)
        self.chain = chain


def _parse(chain: tuple[bytes, ...]) -> Chain:
    try:
        return tuple(x509.load_der_x509_certificate(der) for der in chain)
    except (ValueError, x509.InvalidVersion, UnsupportedAlgorithm) as error:
        raise RemoteProtocolError("tls.certificate", str(error), clause="RFC 5280 §4.1") from error


def _context(channel: Channel, judge: _Judge) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = (
        False  # names are a matter of the check, which knows RFC 7030's and BRSKI's rules
    )
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if channel.max_tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    # A renegotiation could bring another certificate after the check, or another tls-unique.
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    # Some Pythons ask OpenSSL to take a cut connection for a finished one: a cutter could end a body.
    context.options &= ~ssl.OP_IGNORE_UNEXPECTED_EOF
    on_peer_chain(context, judge)
    if channel.client is not None:
        chain, key = channel.client
        use_key(context, chain, key)
    return context


def _shake(tls: ssl.SSLSocket, deadline: Deadline) -> None:
    try:
        tls.settimeout(deadline.left())
        # OpenSSL reduces a refusal to "certificate verify failed"; the caller gets the refusal itself.
        with surfacing():
            tls.do_handshake()
    except TimeoutError as error:
        raise deadline.missed() from error
    except OSError as error:
        raise fault(error) from error


def _describe(tls: ssl.SSLSocket, channel: Channel, judge: _Judge) -> TlsInfo:
    if not judge.chain:
        raise TrustError("tls.unchecked", "the handshake ended without a look at the server's certificate")
    version = tls.version() or ""
    return TlsInfo(
        origin=channel.origin,
        version=version,
        peer_chain=judge.chain,
        authenticated=isinstance(channel.trust, Anchored),
        # On 1.3 Python returns bytes that bind nothing (RFC 8446 §C.5). On 1.2 the value is sound, because
        # this connection is neither resumed nor renegotiated (RFC 7627 §1).
        tls_unique=tls.get_channel_binding("tls-unique") if version == "TLSv1.2" else None,
    )
