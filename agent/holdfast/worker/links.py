"""At most one open connection, and the rule for using it again."""

from __future__ import annotations

from dataclasses import dataclass
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

from holdfast.host.transport import Anchored, Channel, Link, Plain, Provisional, secured
from holdfast.life.record import Anchor, Domain, Provenance
from holdfast.wire.chain import Rule, validate
from holdfast.wire.errors import ConfigError, TrustError
from holdfast.wire.model import Chain, Moment, SigningKey
from holdfast.worker.certificates import certificates_of, load_chain
from holdfast.worker.ports import Transport

DEFAULT_PORT: Final = 443
PLAIN_PORT: Final = 80


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A server by name. ``host`` carries no brackets, also for IPv6. ``plain``: HTTP without TLS."""

    host: str
    port: int
    plain: bool = False

    @staticmethod
    def parse(text: str) -> Endpoint:
        """From ``host``, ``host:port``, ``[v6]:port`` or an https URL. Raises ConfigError."""
        try:
            parts = urlsplit(text if "://" in text else f"//{text}")
            port = parts.port or DEFAULT_PORT
        except ValueError as error:
            raise ConfigError("config.endpoint", f"{text!r}: {error}") from error
        if not parts.hostname or parts.scheme not in {"", "https"}:
            raise ConfigError("config.endpoint", f"{text!r} is neither host:port nor an https URL")
        return Endpoint(parts.hostname, port)

    @staticmethod
    def of_url(url: str) -> Endpoint:
        """From an ``http:`` or ``https:`` URL of the configuration, never of a peer. Raises ConfigError."""
        if not url.startswith("http://"):
            return Endpoint.parse(url)
        named = Endpoint.parse(url.removeprefix("http://"))
        return Endpoint(named.host, urlsplit(url).port or PLAIN_PORT, plain=True)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Client:
    """Who we are on a connection: a name for the record's key, its chain and its key."""

    ref: str
    chain: Chain
    key: SigningKey


@dataclass(frozen=True, slots=True)
class Ground:
    """On what a server is trusted: the domain's anchors and the intermediates that help to reach them."""

    anchors: tuple[Anchor, ...]
    certificates: Chain
    intermediates: Chain
    est_domain: bool = False

    def check(self, chain: Chain, host: str, now: Moment) -> None:
        """Raises TrustError unless *chain* belongs to a server of the domain.

        Under the CA's own anchors, and under the operator's, it must be called *host*. Under the certificate
        that the voucher pinned the certificate decides and not the name: the pledge has the registrar's
        address from an unauthenticated discovery (RFC 8995 §5.6.2). That one is held beside the others while
        they do not reach the registrar. An EST server that the voucher names (``est_domain``) is called so,
        unless the pinned certificate is its very own (draft-ietf-anima-brski-cloud-16 §4.2).
        """
        presented = (*chain, *self.intermediates)
        pinned, named = self._of(pinned=True), self._of(pinned=False)
        try:
            validate(presented, named, now, Rule.tls_server(host, allow_cmcra=True))
        except TrustError:
            if not pinned:
                raise
            own = chain[0] in pinned
            rule = (
                Rule.tls_server(host, allow_cmcra=False)
                if self.est_domain and not own
                else Rule.tls_server_any_name()
            )
            validate(presented, pinned, now, rule)

    def _of(self, *, pinned: bool) -> Chain:
        pairs = zip(self.anchors, self.certificates, strict=True)
        return tuple(c for anchor, c in pairs if (anchor.provenance is Provenance.VOUCHER) is pinned)


def domain_ground(domain: Domain) -> Ground:
    """On what a server of *domain* is trusted."""
    return Ground(
        domain.anchors, certificates_of(domain.anchors), load_chain(domain.intermediates), domain.est_domain
    )


class Connection:
    """Keeps one link open between the effects of a step, because EST may continue where BRSKI stopped.

    A link is used again only for the same endpoint and the same client key, while it is alive and was
    authenticated. Everything else closes it first: the device never holds two connections.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._link: Link | None = None
        self._for: tuple[Endpoint, str] | None = None
        self.opened = 0
        self._earlier_requests = 0

    @property
    def round_trips(self) -> int:
        """Requests sent on every link so far."""
        return self._earlier_requests + (self._link.requests if self._link else 0)

    @property
    def current(self) -> Link | None:
        """The open link, if it still lives."""
        return self._link if self._link is not None and self._link.alive else None

    def session_with(self, endpoint: Endpoint) -> Link | None:
        """The open link, if it leads to *endpoint* and its server was authenticated."""
        link = self.current
        if link is None or self._for is None or self._for[0] != endpoint:
            return None
        return link if link.tls is not None and link.tls.authenticated else None

    def provisional(self, endpoint: Endpoint, client: Client, patience: float | None = None) -> Link:
        """A new connection whose server is not trusted yet (RFC 8995 §5.1), standing within *patience*
        seconds."""
        return self._open(
            endpoint,
            client.ref,
            Channel(
                endpoint.host,
                endpoint.port,
                Provisional(),
                (client.chain, client.key),
                patience=patience,
            ),
        )

    def web(
        self, endpoint: Endpoint, client: Client, anchors: Chain, now: Moment, patience: float | None = None
    ) -> Link:
        """A new connection to a server outside the domain, trusted by *anchors* and its DNS name alone."""

        def check(chain: Chain) -> None:
            validate(chain, anchors, now, Rule.tls_server(endpoint.host, allow_cmcra=False))

        channel = Channel(
            endpoint.host, endpoint.port, Anchored(check), (client.chain, client.key), patience=patience
        )
        return self._open(endpoint, f"{client.ref} outside", channel)

    def plain(self, endpoint: Endpoint) -> Link:
        """A connection without TLS, and so without any client; the open one where it serves."""
        link = self.current
        if link is not None and link.tls is None and self._for == (endpoint, ""):
            return link
        return self._open(endpoint, "", Channel(endpoint.host, endpoint.port, Plain()))

    def anchored(
        self,
        endpoint: Endpoint,
        client: Client | None,
        ground: Ground,
        now: Moment,
        *,
        tls_unique: bool = False,
        under: str = "",
        patience: float | None = None,
    ) -> Link:
        """A connection to a server of the domain; the open one where it serves.

        *tls_unique* asks for a connection that has that channel binding, which caps it at TLS 1.2. *under*
        names another *ground* than the domain's: what was trusted by one is not used for the other.
        *patience*: seconds until it must stand.
        """
        ref = client.ref if client else under
        link = self.session_with(endpoint)
        if (
            link is not None
            and self._for == (endpoint, ref)
            and (not tls_unique or secured(link).tls_unique is not None)
        ):
            return link
        trust = Anchored(lambda chain: ground.check(chain, endpoint.host, now))
        return self._open(
            endpoint,
            ref,
            Channel(
                endpoint.host,
                endpoint.port,
                trust,
                (client.chain, client.key) if client else None,
                max_tls12=tls_unique,
                patience=patience,
            ),
        )

    def _open(self, endpoint: Endpoint, ref: str, channel: Channel) -> Link:
        self.close()
        self._link = self._transport.open(channel)
        self._for = (endpoint, ref)
        self.opened += 1
        return self._link

    def close(self) -> None:
        """Close the open link, if any."""
        if self._link is not None:
            self._earlier_requests += self._link.requests
            self._link.close()
        self._link = None
        self._for = None

    def __enter__(self) -> Connection:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
