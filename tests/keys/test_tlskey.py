"""use_key against a plain stdlib TLS server."""

from __future__ import annotations

import gc
import socket
import ssl
import threading
import weakref

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from holdfast.keys import tlskey
from holdfast.keys.tlskey import last_error, surfacing, use_key
from holdfast.wire.errors import KeyLocked, KeyStoreError
from keys.pki import Pki, handshake, soft_hardware, tls_server

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
PKI = Pki()
SOFT = {
    "p256": ec.generate_private_key(ec.SECP256R1()),
    "p384": ec.generate_private_key(ec.SECP384R1()),
    "rsa2048": rsa.generate_private_key(65537, 2048),
    "rsa3072": rsa.generate_private_key(65537, 3072),
}


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("kind", SOFT)
@pytest.mark.parametrize("hardware", [True, False], ids=["callback", "software"])
def test_client_authentication_and_intermediate_sent(tmp_path, kind, version, hardware):
    key = soft_hardware(SOFT[kind]) if hardware else SOFT[kind]
    chain = PKI.chain(key.public_key())
    context = PKI.client_context()
    use_key(context, chain, key)
    with tls_server(PKI.server_context(tmp_path, version)) as server, surfacing():
        assert handshake(context, server.port) == {0x303: "TLSv1.2", 0x304: "TLSv1.3"}[version]
        handshake(context, server.port)
    from cryptography import x509

    # The server holds the root only, so it accepted us because the intermediate came along.
    assert [x509.load_der_x509_certificate(p) for p in server.peers] == [chain[0]] * 2
    assert not server.errors
    if hardware:
        calls = key.signer.calls
        assert (calls if isinstance(calls, int) else len(calls)) == 2, "one private operation a handshake"


def test_server_side_key(tmp_path):
    key = soft_hardware(SOFT["p256"])
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    use_key(context, PKI.chain(key.public_key()), key)
    with tls_server(context) as server:
        assert handshake(PKI.client_context(), server.port) == "TLSv1.3"
    assert key.signer.calls == 1


@pytest.mark.parametrize("version", VERSIONS, ids=str)
@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_the_real_exception_comes_out(tmp_path, kind, version):
    key = soft_hardware(SOFT[kind])
    key.signer.fault = KeyLocked("key.auth-failed", "wrong PIN")
    context = PKI.client_context()
    use_key(context, PKI.chain(key.public_key()), key)
    with tls_server(PKI.server_context(tmp_path, version)) as server:
        with pytest.raises(KeyLocked) as caught, surfacing():
            handshake(context, server.port)
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        assert last_error() is None
        with pytest.raises(ssl.SSLError):
            handshake(context, server.port)
        assert last_error() is key.signer.fault
        # It is the handshake that fails: a signature that was never made is not sent, not even empty.
        with socket.create_connection(("127.0.0.1", server.port)) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname="localhost")
    assert not server.peers, "no connection was ever authenticated"


def test_an_overlong_signature_never_reaches_the_buffer(tmp_path):
    key = soft_hardware(SOFT["p256"])
    key.signer.sign_digest = lambda digest: bytes(5000)
    context = PKI.client_context()
    use_key(context, PKI.chain(key.public_key()), key)
    with (
        tls_server(PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3)) as server,
        pytest.raises(KeyStoreError, match=r"key\.bad-signature"),
        surfacing(),
    ):
        handshake(context, server.port)


def test_errors_belong_to_their_thread(tmp_path):
    good, bad = soft_hardware(SOFT["p256"]), soft_hardware(SOFT["p384"])
    bad.signer.fault = KeyLocked("key.auth-failed")
    seen = {}

    def run(label, key, port):
        context = PKI.client_context()
        use_key(context, PKI.chain(key.public_key()), key)
        try:
            with surfacing():
                seen[label] = handshake(context, port)
        except KeyLocked as error:
            seen[label] = error.code

    with tls_server(PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3)) as server:
        jobs = [("good", good), ("bad", bad)]
        threads = [threading.Thread(target=run, args=(n, k, server.port)) for n, k in jobs]
        [t.start() for t in threads]
        [t.join() for t in threads]
    assert seen == {"good": "TLSv1.3", "bad": "key.auth-failed"}


def test_mismatch_and_empty_chain():
    key = soft_hardware(SOFT["p256"])
    with pytest.raises(KeyStoreError) as caught:
        use_key(PKI.client_context(), PKI.chain(SOFT["p384"].public_key()), key)
    assert caught.value.code == "tls.key-mismatch"
    with pytest.raises(KeyStoreError) as caught:
        use_key(PKI.client_context(), (), key)
    assert caught.value.code == "tls.certificate"


def test_a_certificate_that_openssl_refuses_leaves_nothing_behind():
    weak = rsa.generate_private_key(65537, 1024)
    key = soft_hardware(weak)
    gc.collect()
    held = len(tlskey._rsa_signers)
    with pytest.raises(KeyStoreError, match="too small") as caught:
        use_key(PKI.client_context(), PKI.chain(weak.public_key()), key)
    assert caught.value.code == "tls.certificate"
    assert len(tlskey._rsa_signers) == held


def test_a_second_key_replaces_the_first(tmp_path):
    first, second = soft_hardware(SOFT["p256"]), soft_hardware(ec.generate_private_key(ec.SECP256R1()))
    context = PKI.client_context()
    use_key(context, PKI.chain(first.public_key()), first)
    use_key(context, PKI.chain(second.public_key()), second)
    with tls_server(PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3)) as server:
        handshake(context, server.port)
    assert (first.signer.calls, second.signer.calls) == (0, 1)


@pytest.mark.parametrize("kind", ["p256", "rsa2048"])
def test_contexts_die_and_signers_with_them(kind):
    key = soft_hardware(SOFT[kind])
    chain = PKI.chain(key.public_key())
    gc.collect()
    before = len(tlskey._ec_signers) + len(tlskey._rsa_signers)
    for _ in range(200):
        use_key(PKI.client_context(), chain, key)
    gc.collect()
    assert len(tlskey._ec_signers) + len(tlskey._rsa_signers) == before
    gone = weakref.ref(key)
    del key
    gc.collect()
    assert gone() is None


def test_a_connection_outlives_its_context_name(tmp_path):
    key = soft_hardware(SOFT["p256"])
    context = PKI.client_context()
    use_key(context, PKI.chain(key.public_key()), key)
    inward, outward = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(inward, outward, server_hostname="localhost")
    gone = weakref.ref(context)
    del context
    gc.collect()
    server_in, server_out = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = PKI.server_context(tmp_path, ssl.TLSVersion.TLSv1_3).wrap_bio(
        server_in, server_out, server_side=True
    )
    done = set()
    for _ in range(6):
        for side, out, peer in ((client, outward, server_in), (server, server_out, inward)):
            try:
                side.do_handshake()
                done.add(side)
            except ssl.SSLWantReadError:
                pass
            peer.write(out.read())
    assert done == {client, server}
    assert key.signer.calls == 1
    del client, side, done
    gc.collect()
    assert gone() is None


def test_a_key_that_can_neither_sign_nor_be_exported():
    real = SOFT["p256"]

    class Odd:
        def public_key(self):
            return real.public_key()

        def private_bytes(self, *_):
            raise NotImplementedError

    with pytest.raises(KeyStoreError) as caught:
        use_key(PKI.client_context(), PKI.chain(real.public_key()), Odd())
    assert caught.value.code == "tls.key-unsupported"
