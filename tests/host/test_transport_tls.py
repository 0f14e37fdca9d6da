"""Links over real TLS: whom they trust, what they send before that, and how they end."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, utils

from holdfast.host.transport import Anchored, Channel, Limits, Provisional, TlsTransport
from holdfast.keys.hardware import HardwareEcKey
from holdfast.keys.tlskey import use_key
from holdfast.wire.errors import (
    HoldfastError,
    KeyStoreError,
    KeyStoreUnavailable,
    LocalProtocolError,
    RemoteProtocolError,
    TransportError,
    TrustError,
)
from holdfast.wire.model import Chain, HttpRequest
from host.tls_server import OK, Authority, Conversation, TlsServer, server_context

GET = HttpRequest("GET", "/x")
CA = Authority("domain CA")
OTHER = Authority("another CA")
SERVER = CA.issue("est", ["localhost", "127.0.0.1"])
DEVICE = CA.issue("device")


def anchored_to(authority: Authority) -> Anchored:
    def check(chain: Chain) -> None:
        try:
            chain[0].verify_directly_issued_by(authority.certificate)
        except Exception as error:
            raise TrustError("chain.untrusted", "not of this authority") from error

    return Anchored(check)


def answer_ok(conversation: Conversation) -> None:
    while conversation.request():
        conversation.sock.sendall(OK)


@contextmanager
def serving(
    script: Callable[[Conversation], None] = answer_ok, context: ssl.SSLContext | None = None
) -> Iterator[TlsServer]:
    with TlsServer(context or server_context(SERVER, CA.certificate), script) as server:
        yield server


def channel(server: TlsServer, trust: Anchored | Provisional | None = None, **settings: object) -> Channel:
    values: dict[str, object] = {"host": "localhost", "client": (DEVICE.chain, DEVICE.key), **settings}
    return Channel(port=server.port, trust=trust or anchored_to(CA), **values)  # type: ignore[arg-type]


def failing(
    server: TlsServer, kind: type[HoldfastError], transport: TlsTransport | None = None
) -> HoldfastError:
    """Open a link and send one request; return the error of the kind that must come."""
    with pytest.raises(kind) as caught, (transport or TlsTransport()).open(channel(server)) as link:
        link.send(GET)
    assert type(caught.value) is kind
    return caught.value


def test_requests_follow_one_another_on_one_connection() -> None:
    with serving() as server, TlsTransport().open(channel(server)) as link:
        for _ in range(3):
            assert link.send(GET).body == b"ok"
        assert (link.requests, link.alive, server.accepted) == (3, True, 1)
        assert server.conversations[0].client_certificate == DEVICE.der
    assert not link.alive


def test_tls_information() -> None:
    with serving() as server, TlsTransport().open(channel(server)) as link:
        assert link.tls.origin == f"https://localhost:{server.port}"
        assert link.tls.version == "TLSv1.3"
        assert link.tls.tls_unique is None
        assert link.tls.authenticated
        ca = CA.certificate.public_bytes(serialization.Encoding.DER)
        assert link.tls.peer_chain == (SERVER.der, ca)


def test_the_default_port_is_not_written() -> None:
    assert Channel("Est.Example", 443, Provisional()).origin == "https://est.example"
    assert Channel("::1", 8443, Provisional()).origin == "https://[::1]:8443"


def test_tls_unique_is_that_of_the_server() -> None:
    uniques: list[bytes | None] = []

    def script(conversation: Conversation) -> None:
        uniques.append(conversation.sock.get_channel_binding("tls-unique"))
        answer_ok(conversation)

    with serving(script) as server, TlsTransport().open(channel(server, max_tls12=True)) as link:
        link.send(GET)
        assert link.tls.version == "TLSv1.2"
        assert link.tls.tls_unique
        assert uniques == [link.tls.tls_unique]


def test_names_are_sent_as_sni_and_addresses_are_not() -> None:
    with serving() as server:
        for host in ("localhost", "127.0.0.1"):
            for trust in (Provisional(), anchored_to(CA)):
                with TlsTransport().open(channel(server, trust, host=host)) as link:
                    link.send(GET)
        assert [c.sni for c in server.conversations] == ["localhost", "localhost", None, None]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_the_host_header_names_the_origin(host: str) -> None:
    with serving() as server, TlsTransport().open(channel(server, host=host)) as link:
        link.send(GET)
        assert f"Host: {host}:{server.port}\r\n".encode() in server.conversations[0].requests[0]


# Trust


def test_a_wrong_anchor_surfaces_before_the_client_certificate_is_sent() -> None:
    for tls12 in (False, True):
        with serving() as server:
            with pytest.raises(TrustError) as caught:
                TlsTransport().open(channel(server, anchored_to(OTHER), max_tls12=tls12))
            assert caught.value.code == "chain.untrusted"
            assert server.handshaken.wait(20)
            # The server saw the handshake refused; no connection, no certificate, no request.
            assert server.conversations == []
            assert len(server.failures) == 1


def test_the_very_refusal_of_the_check_comes_out() -> None:
    refusal = TrustError("voucher.example", "this one")

    def check(chain: Chain) -> None:
        raise refusal

    with serving() as server:
        with pytest.raises(TrustError) as caught:
            TlsTransport().open(channel(server, Anchored(check)))
        assert caught.value is refusal


def test_the_check_sees_the_chain_leaf_first() -> None:
    seen: list[Chain] = []
    with serving() as server, TlsTransport().open(channel(server, Anchored(seen.append))):
        assert seen == [SERVER.chain]


def test_the_environment_has_no_say_in_trust(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(CA.certificate.public_bytes(serialization.Encoding.PEM))
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(bundle))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    with serving() as server, pytest.raises(TrustError):
        TlsTransport().open(channel(server, anchored_to(OTHER)))
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(tmp_path / "absent"))
    with serving() as server, TlsTransport().open(channel(server)) as link:
        assert link.send(GET).status == 200


def test_proxy_variables_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with serving() as server, TlsTransport().open(channel(server)) as link:
        assert link.send(GET).status == 200


def test_a_provisional_link_is_authenticated_only_when_told_so() -> None:
    context = server_context(OTHER.issue("registrar"), CA.certificate)
    with serving(context=context) as server:
        link = TlsTransport().open(channel(server, Provisional()))
        with link:
            assert not link.tls.authenticated
            assert len(link.tls.peer_chain) == 2
            link.send(GET)
            assert not link.tls.authenticated
            link.authenticate()
            assert link.tls.authenticated
            link.send(GET)
            assert server.conversations[0].client_certificate == DEVICE.der


def test_a_server_without_the_key_of_its_certificate_fails_even_provisionally() -> None:
    class Forger:
        def sign_digest(self, digest: bytes) -> bytes:
            return OTHER.key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    use_key(context, SERVER.chain, HardwareEcKey(Forger(), SERVER.key.public_key()))
    with serving(context=context) as server:
        with pytest.raises(TransportError) as caught:
            TlsTransport().open(channel(server, Provisional()))
        assert (caught.value.code, caught.value.detail) == ("transport.tls", "bad signature")
        assert server.handshaken.wait(20)
        assert server.conversations == []


# Versions and client keys


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tls_1_1_is_refused() -> None:
    context = server_context(SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with serving(context=context) as server:
        for trust in (Provisional(), anchored_to(CA)):
            with pytest.raises(TransportError) as caught:
                TlsTransport().open(channel(server, trust))
            assert caught.value.code in {"transport.tls", "transport.tls-alert"}
        assert server.conversations == []


def test_a_server_that_does_not_speak_tls_is_named_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def plain() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(1024)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=plain)
        thread.start()
        with pytest.raises(TransportError) as caught:
            TlsTransport().open(Channel("127.0.0.1", listener.getsockname()[1], Provisional()))
        assert caught.value.code == "transport.tls"
        thread.join(20)


@pytest.mark.parametrize("tls12", [False, True])
def test_a_server_that_refuses_our_certificate_says_so(tls12: bool) -> None:
    context = server_context(SERVER, CA.certificate)
    context.verify_mode = ssl.CERT_REQUIRED
    stranger = OTHER.issue("stranger")
    with serving(context=context) as server:
        for client in (None, (stranger.chain, stranger.key)):
            refused = channel(server, client=client, max_tls12=tls12)
            with pytest.raises(TransportError) as caught, TlsTransport().open(refused) as link:
                link.send(GET)
            assert caught.value.code == "transport.tls-alert"


class LostSigner:
    """The hardware is gone."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def sign_digest(self, digest: bytes) -> bytes:
        raise self.error


@pytest.mark.parametrize("tls12", [False, True])
def test_a_key_that_cannot_sign_surfaces_as_its_own_error(tls12: bool) -> None:
    lost = KeyStoreUnavailable("key.tpm", "the TPM does not answer")
    key = HardwareEcKey(LostSigner(lost), DEVICE.key.public_key())
    with serving() as server:
        with pytest.raises(KeyStoreUnavailable) as caught:
            TlsTransport().open(channel(server, client=(DEVICE.chain, key), max_tls12=tls12))
        assert caught.value is lost


def test_a_key_of_another_certificate_is_refused() -> None:
    with serving() as server:
        with pytest.raises(KeyStoreError) as caught:
            TlsTransport().open(channel(server, client=(DEVICE.chain, OTHER.issue("x").key)))
        assert caught.value.code == "tls.key-mismatch"


def test_a_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    version_3, version_6 = bytes.fromhex("a003020102"), bytes.fromhex("a003020105")
    pem = tmp_path / "server.pem"
    odd = ssl.DER_cert_to_PEM_cert(SERVER.der.replace(version_3, version_6, 1))
    pem.write_bytes(SERVER.pem().partition(b"-----BEGIN CERT")[0] + odd.encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with serving(context=context) as server:
        for trust in (Provisional(), anchored_to(CA)):
            with pytest.raises(RemoteProtocolError) as caught:
                TlsTransport().open(channel(server, trust))
            assert caught.value.code == "tls.certificate"


def test_a_handshake_that_nobody_judged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def unjudged(context: ssl.SSLContext, check: object) -> None:
        context.verify_mode = ssl.CERT_NONE

    monkeypatch.setattr("holdfast.host.tls.on_peer_chain", unjudged)
    with serving() as server:
        with pytest.raises(TrustError) as caught:
            TlsTransport().open(channel(server, Provisional()))
        assert caught.value.code == "tls.unchecked"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\x00",
        b"\x16\x03\x03\x00\x05\x02\x00\x00\x01\x00",
        b"\x16\x03\x03\xff\xff" + b"\x02" * 20000,
        b"\x15\x03\x03\x00\x02\x02\x28",
        b"\x17\x03\x03\x00\x10" + bytes(16),
        bytes(range(256)) * 8,
    ],
)
def test_a_handshake_of_garbage(said: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def garbage() -> None:
            sock, _ = listener.accept()
            with sock:
                sock.recv(4096)
                sock.sendall(said)

        thread = threading.Thread(target=garbage)
        thread.start()
        with pytest.raises(TransportError) as caught:
            TlsTransport().open(Channel("127.0.0.1", listener.getsockname()[1], Provisional()))
        assert caught.value.code in {"transport.tls", "transport.tls-alert", "transport.closed"}
        thread.join(20)


# The end of a link


def test_connection_close_ends_the_link_without_a_reconnect() -> None:
    def script(conversation: Conversation) -> None:
        conversation.answer(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")

    with serving(script) as server, TlsTransport().open(channel(server)) as link:
        assert link.send(GET).body == b"ok"
        assert not link.alive
        with pytest.raises(TransportError) as caught:
            link.send(GET)
        assert caught.value.code == "transport.closed"
        assert (link.requests, server.accepted) == (1, 1)


@pytest.mark.parametrize("goodbye", [True, False], ids=["close-notify", "cut"])
def test_a_server_that_closes_between_requests(goodbye: bool) -> None:
    def script(conversation: Conversation) -> None:
        conversation.answer(OK)
        if goodbye:
            conversation.say_goodbye()

    with serving(script) as server, TlsTransport().open(channel(server)) as link:
        link.send(GET)
        with pytest.raises(TransportError) as caught:
            link.send(GET)
        assert caught.value.code == "transport.closed"
        assert not link.alive
        with pytest.raises(TransportError, match=r"transport\.closed"):
            link.send(GET)
        assert server.accepted == 1


def test_a_closed_link_does_not_send() -> None:
    with serving() as server:
        link = TlsTransport().open(channel(server))
        link.close()
        link.close()
        with pytest.raises(TransportError, match=r"transport\.closed"):
            link.send(GET)
        assert server.accepted == 1


def test_a_body_until_close_needs_a_goodbye() -> None:
    def ended(conversation: Conversation) -> None:
        conversation.answer(b"HTTP/1.0 200 OK\r\n\r\nwhole")
        conversation.say_goodbye()

    def cut(conversation: Conversation) -> None:
        conversation.answer(b"HTTP/1.0 200 OK\r\n\r\nhalf")

    with serving(ended) as server, TlsTransport().open(channel(server)) as link:
        assert link.send(GET).body == b"whole"
        assert not link.alive
    with serving(cut) as server:
        assert failing(server, TransportError).code == "transport.truncated"


@pytest.mark.parametrize("goodbye", [True, False], ids=["close-notify", "cut"])
def test_a_truncated_body(goodbye: bool) -> None:
    def script(conversation: Conversation) -> None:
        conversation.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")
        if goodbye:
            conversation.say_goodbye()

    with serving(script) as server:
        assert failing(server, TransportError).code == "transport.truncated"


def test_a_server_that_speaks_unasked() -> None:
    def twice(conversation: Conversation) -> None:
        conversation.answer(OK + OK)

    with serving(twice) as server:
        assert failing(server, RemoteProtocolError).code == "http.unsolicited"


@pytest.mark.parametrize("asked", [0, 1], ids=["before-the-first-request", "between-requests"])
def test_a_server_that_speaks_before_it_is_asked(asked: int) -> None:
    def script(conversation: Conversation) -> None:
        for _ in range(asked):
            conversation.answer(OK)
        conversation.sock.sendall(OK)
        conversation.request()

    # TLS 1.2: there, nothing but these bytes can make the socket readable.
    with serving(script) as server, TlsTransport().open(channel(server, max_tls12=True)) as link:
        for _ in range(asked):
            link.send(GET)
        assert select.select([link._sock], [], [], 20)[0]
        with pytest.raises(RemoteProtocolError) as caught:
            link.send(GET)
        assert caught.value.code == "http.unsolicited"
        assert not link.alive


def test_bounds_reach_the_connection() -> None:
    def script(conversation: Conversation) -> None:
        conversation.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")

    with serving(script) as server:
        error = failing(server, RemoteProtocolError, TlsTransport(Limits(body_bytes=999)))
        assert error.code == "http.too-large"


def test_a_request_of_ours_that_is_wrong_leaves_the_link_usable() -> None:
    with serving() as server, TlsTransport().open(channel(server)) as link:
        with pytest.raises(LocalProtocolError):
            link.send(HttpRequest("GET", "/x", (("X", "a\r\nb"),)))
        assert link.send(GET).status == 200


def test_the_observer_hears_of_each_step() -> None:
    heard: list[tuple[str, str]] = []
    transport = TlsTransport(on_event=lambda name, on: heard.append((name, on.host)))
    with serving() as server, transport.open(channel(server)) as link:
        link.send(GET)
        link.send(GET)
    steps = ["connect", "request", "response", "request", "response"]
    assert heard == [(step, "localhost") for step in steps]


# Deadlines


class Ticking:
    """A monotonic clock on which every look costs *step* seconds."""

    def __init__(self, step: float) -> None:
        self.now = 0.0
        self.step = step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_slow_drip_is_cut_by_the_total_deadline() -> None:
    def drip(conversation: Conversation) -> None:
        conversation.request()
        conversation.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while True:
            conversation.sock.sendall(b"x")

    limits = Limits(connect=1000, read=100, total=100)
    with serving(drip) as server:
        transport = TlsTransport(limits, monotonic=Ticking(1.0))
        assert failing(server, TransportError, transport).code == "transport.timeout"


LARGE = HttpRequest("POST", "/x", (), bytes(32 * 1024 * 1024))


def test_a_server_that_does_not_read() -> None:
    done = threading.Event()
    with serving(lambda _: done.wait(20) and None) as server:
        with TlsTransport(Limits(read=0.1)).open(channel(server)) as link:
            with pytest.raises(TransportError) as caught:
                link.send(LARGE)
            assert (caught.value.code, link.requests) == ("transport.timeout", 0)
        done.set()


def test_a_server_that_goes_while_we_write() -> None:
    with serving(lambda conversation: conversation.sock.recv(1)) as server:
        with TlsTransport().open(channel(server)) as link, pytest.raises(TransportError) as caught:
            link.send(LARGE)
        assert caught.value.code == "transport.closed"


def test_a_server_that_never_answers() -> None:
    def silent(conversation: Conversation) -> None:
        conversation.request()
        conversation.request()

    with serving(silent) as server:
        assert failing(server, TransportError, TlsTransport(Limits(read=0.05))).code == "transport.timeout"


def test_a_server_that_never_shakes_hands() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(TransportError) as caught:
            TlsTransport(Limits(connect=0.1)).open(
                Channel("127.0.0.1", listener.getsockname()[1], Provisional())
            )
        assert caught.value.code == "transport.timeout"
