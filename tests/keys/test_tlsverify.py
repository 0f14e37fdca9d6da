"""on_peer_chain: our own decision inside the handshake."""

from __future__ import annotations

import gc
import ssl
import weakref

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.keys import tlsverify
from holdfast.keys.tlsfault import keep, last_error, surfacing
from holdfast.keys.tlskey import use_key
from holdfast.keys.tlsverify import on_peer_chain
from holdfast.wire.errors import TrustError
from keys.pki import Pki, handshake, soft_hardware, tls_server

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
PKI = Pki()


def empty_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    return context


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_the_check_alone_decides_and_sees_what_was_sent(tmp_path, version):
    seen = []
    context = empty_context()
    on_peer_chain(context, seen.append)
    with tls_server(PKI.server_context(tmp_path, version, client_auth=False)) as server, surfacing():
        handshake(context, server.port)
    assert seen == [tuple(c.public_bytes(serialization.Encoding.DER) for c in PKI.server_chain)]


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_without_a_check_every_peer_is_refused(tmp_path, version):
    with (
        tls_server(PKI.server_context(tmp_path, version, client_auth=False)) as server,
        pytest.raises(ssl.SSLCertVerificationError),
    ):
        handshake(empty_context(), server.port)


@pytest.mark.parametrize("version", VERSIONS, ids=str)
def test_refusal_comes_out_before_our_certificate_is_sent(tmp_path, version):
    key = soft_hardware(ec.generate_private_key(ec.SECP256R1()))
    context = empty_context()
    use_key(context, PKI.chain(key.public_key()), key)

    def refuse(chain):
        raise TrustError("chain.untrusted", "not ours")

    on_peer_chain(context, refuse)
    with tls_server(PKI.server_context(tmp_path, version)) as server:
        with pytest.raises(TrustError, match="not ours") as caught, surfacing():
            handshake(context, server.port)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert key.signer.calls == 0
    assert not server.peers
    assert "BAD_CERTIFICATE" in str(server.errors[0]).upper().replace(" ", "_")


def test_a_refusal_is_final_even_if_verification_is_switched_off_later(tmp_path):
    context = empty_context()

    def refuse(chain):
        raise TrustError("chain.untrusted")

    on_peer_chain(context, refuse)
    context.verify_mode = ssl.CERT_NONE
    with (
        tls_server(PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3, client_auth=False)) as server,
        pytest.raises(TrustError),
        surfacing(),
    ):
        handshake(context, server.port)


@pytest.mark.parametrize("broken", ["none", "optional", "hostname"])
def test_unfit_contexts_are_refused(broken):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = broken == "hostname"
    if broken != "hostname":
        context.verify_mode = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL}[broken]
    with pytest.raises(ValueError, match="CERT_REQUIRED"):
        on_peer_chain(context, lambda chain: None)


def test_the_peer_can_be_a_client(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    seen = []
    context = PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3, client_auth=False)
    context.verify_mode = ssl.CERT_REQUIRED
    on_peer_chain(context, seen.append)
    chain = PKI.chain(key.public_key())
    client = PKI.client_context()
    use_key(client, chain, key)
    with tls_server(context) as server:
        handshake(client, server.port)
    assert seen == [tuple(c.public_bytes(serialization.Encoding.DER) for c in chain)]


def test_too_many_certificates(tmp_path, monkeypatch):
    monkeypatch.setattr(tlsverify, "MAX_CERTIFICATES", 1)
    context = empty_context()
    on_peer_chain(context, lambda chain: None)
    with (
        tls_server(PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3, client_auth=False)) as server,
        pytest.raises(TrustError) as caught,
        surfacing(),
    ):
        handshake(context, server.port)
    assert caught.value.code == "tls.chain-too-long"


def test_checks_die_with_their_context():
    class Check:
        def __call__(self, chain):
            raise AssertionError

    gc.collect()
    before = len(tlsverify._checks)
    check = Check()
    gone = weakref.ref(check)
    for _ in range(100):
        on_peer_chain(empty_context(), check)
    del check
    gc.collect()
    assert len(tlsverify._checks) == before
    assert gone() is None


def test_interrupts_come_out_too(tmp_path):
    context = empty_context()

    def interrupt(chain):
        raise KeyboardInterrupt

    on_peer_chain(context, interrupt)
    with (
        tls_server(PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_2, client_auth=False)) as server,
        pytest.raises(KeyboardInterrupt),
        surfacing(),
    ):
        handshake(context, server.port)


def test_surfacing_keeps_the_first_error_and_forgets_old_ones():
    keep(ValueError("old"))
    with surfacing():
        pass
    first = TrustError("chain.expired")

    def fail() -> None:
        keep(first)
        keep(ValueError("a consequence"))
        raise ssl.SSLError("cryptic")

    with pytest.raises(TrustError) as caught, surfacing():
        fail()
    assert caught.value is first
    with pytest.raises(TrustError), surfacing():
        keep(first)
    with pytest.raises(OSError, match="plain"), surfacing():
        raise OSError("plain")
    assert last_error() is None
