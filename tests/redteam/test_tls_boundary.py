"""Servers that want to be believed without their key, and an environment that tries to help them."""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.transport import Anchored, Channel, Provisional, TlsTransport
from holdfast.keys.hardware import HardwareEcKey, HardwareRsaKey
from holdfast.keys.tlskey import use_key
from holdfast.wire.errors import TransportError
from host.tls_server import OK, Authority, Conversation, TlsServer
from keys.pki import Pki, SoftEcSigner, SoftRsaSigner

PKI = Pki()
VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
TRUSTS = [Provisional(), Anchored(lambda _chain: None)]


def impostor(kind: str) -> HardwareEcKey | HardwareRsaKey:
    """A key that shows one public half and signs with another: a stolen certificate without its key."""
    if kind == "ec":
        shown, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
        return HardwareEcKey(SoftEcSigner(own), shown.public_key())
    shown, own = rsa.generate_private_key(65537, 2048), rsa.generate_private_key(65537, 2048)
    return HardwareRsaKey(SoftRsaSigner(own), shown.public_key())


def answer_ok(conversation: Conversation) -> None:
    while conversation.request():
        conversation.sock.sendall(OK)


def channel(port: int, trust: Provisional | Anchored) -> Channel:
    return Channel("localhost", port, trust)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("trust", TRUSTS, ids=["provisional", "anchored"])
@pytest.mark.parametrize("kind", ["ec", "rsa"])
def test_a_certificate_without_its_key_is_refused_whatever_the_trust(version, trust, kind) -> None:
    key = impostor(kind)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = context.maximum_version = version
    use_key(context, PKI.chain(key.public_key(), "server"), key)
    with TlsServer(context, answer_ok) as server, pytest.raises(TransportError) as caught:
        TlsTransport().open(channel(server.port, trust))
    assert caught.value.code == "transport.tls"
    assert "signature" in caught.value.detail or "verify" in caught.value.detail


@pytest.mark.parametrize("version", VERSIONS)
def test_no_connection_resumes_another(version, tmp_path: Path) -> None:
    """A resumed session shows no certificate, so no check would run: every connection must be a full one."""
    seen: list[int] = []
    context = PKI.server_context(tmp_path, version, client_auth=False)
    transport = TlsTransport()
    with TlsServer(context, answer_ok) as server:
        for _ in range(3):
            with transport.open(channel(server.port, Anchored(lambda chain: seen.append(len(chain))))):
                pass
    assert seen == [2, 2, 2]
    assert len(server.conversations) == 3


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_not_spoken(version, tmp_path: Path) -> None:
    context = PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_2, client_auth=False)
    context.minimum_version = version
    context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    with TlsServer(context, answer_ok) as server, pytest.raises(TransportError):
        TlsTransport().open(channel(server.port, Provisional()))


@pytest.mark.parametrize("cipher", ["aNULL", "eNULL", "kRSA", "AESCCM", "3DES", "RC4", "PSK"])
def test_weak_ciphers_are_not_spoken(cipher: str, tmp_path: Path) -> None:
    context = PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_2, client_auth=False)
    try:
        context.set_ciphers(f"{cipher}:@SECLEVEL=0")
    except ssl.SSLError:
        pytest.skip("this OpenSSL has no such cipher")
    with TlsServer(context, answer_ok) as server, pytest.raises(TransportError):
        TlsTransport().open(channel(server.port, Provisional()))


PROBE = """
    import sys
    from holdfast.host.transport import Anchored, Channel, Provisional, TlsTransport
    from holdfast.wire.errors import HoldfastError, TrustError
    def refuse(chain):
        raise TrustError("chain.untrusted", "not of this authority")
    port = int(sys.argv[1])
    TlsTransport().open(Channel("localhost", port, Provisional())).close()
    try:
        TlsTransport().open(Channel("localhost", port, Anchored(refuse)))
    except TrustError as error:
        print(error.code)
"""


def test_the_environment_has_no_say(tmp_path: Path) -> None:
    """Neither a store of anchors, nor a key log, nor a proxy, nor an OpenSSL configuration."""
    pki = Authority("environment CA")
    root = tmp_path / "root.pem"
    root.write_bytes(pki.certificate.public_bytes(Encoding.PEM))
    keylog, lax = tmp_path / "keys.log", tmp_path / "openssl.cnf"
    lax.write_text(
        "openssl_conf = top\n[top]\nssl_conf = ssl\n[ssl]\nsystem_default = lax\n"
        "[lax]\nVerifyMode = \nMinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0\n"
    )
    environment = {
        **os.environ,
        "SSLKEYLOGFILE": str(keylog),
        "SSL_CERT_FILE": str(root),
        "SSL_CERT_DIR": str(tmp_path),
        "REQUESTS_CA_BUNDLE": str(root),
        "OPENSSL_CONF": str(lax),
        **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy"), "http://127.0.0.1:1"),
    }
    context = PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3, client_auth=False)
    with TlsServer(context, answer_ok) as server:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(PROBE), str(server.port)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout.strip(), done.returncode) == ("chain.untrusted", 0), done.stderr
    assert not keylog.exists()
