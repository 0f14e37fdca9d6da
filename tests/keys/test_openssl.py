"""The guards before any pointer is used, and DER in and out of OpenSSL."""

from __future__ import annotations

import ctypes
import gc
import ssl
import subprocess
import sys
import types

import pytest
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from holdfast.keys import openssl
from holdfast.keys.tlskey import use_key
from holdfast.keys.tlsverify import on_peer_chain
from holdfast.wire.errors import KeyStoreError
from keys.pki import Pki, soft_hardware

PKI = Pki()


def context() -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    return made


@pytest.fixture
def fresh():
    """Guards decide once a process; here each test decides anew."""
    openssl.library.cache_clear()
    openssl._layout_holds.cache_clear()
    yield
    openssl.library.cache_clear()
    openssl._layout_holds.cache_clear()


def refused(operation=lambda: openssl.context_pointer(context())) -> str:
    with pytest.raises(KeyStoreError) as caught:
        operation()
    assert caught.value.code == "tls.unsupported-python"
    return caught.value.detail


def test_it_is_the_library_of_the_ssl_module():
    version = ctypes.CDLL(sys.modules["_ssl"].__file__).OpenSSL_version
    version.restype = ctypes.c_char_p
    assert version(0).decode() == ssl.OPENSSL_VERSION


def test_pointers_differ_by_context_and_stay():
    first, second = context(), context()
    assert openssl.context_pointer(first) != openssl.context_pointer(second)
    assert openssl.context_pointer(first) == openssl.context_pointer(first)

    class Subclass(ssl.SSLContext):
        extra = 1

    assert openssl.context_pointer(Subclass(ssl.PROTOCOL_TLS_CLIENT))


def test_another_python(fresh, monkeypatch):
    monkeypatch.setattr(sys, "implementation", types.SimpleNamespace(name="pypy"))
    assert "pypy" in refused()


@pytest.mark.parametrize(
    ("text", "number"),
    [("OpenSSL 1.1.1w  11 Sep 2023", (1, 1, 1, 23, 15)), ("LibreSSL 3.8.2", (3, 8)), ("AWS-LC 1.2", (3, 0))],
)
def test_another_library(fresh, monkeypatch, text, number):
    monkeypatch.setattr(ssl, "OPENSSL_VERSION", text)
    monkeypatch.setattr(ssl, "OPENSSL_VERSION_INFO", number)
    assert text in refused()


def test_a_built_in_ssl_module(fresh, monkeypatch):
    monkeypatch.delattr(sys.modules["_ssl"], "__file__")
    assert "built into" in refused()


def test_a_library_without_what_is_needed(fresh, monkeypatch):
    monkeypatch.setitem(openssl._SIGNATURES, "EC_KEY_METHOD_gone", (None, ()))
    assert "EC_KEY_METHOD_gone" in refused()


def test_a_file_that_is_no_library(fresh, monkeypatch, tmp_path):
    (tmp_path / "_ssl.so").write_bytes(b"no library")
    monkeypatch.setattr(sys.modules["_ssl"], "__file__", str(tmp_path / "_ssl.so"))
    refused()


def test_a_context_whose_pointer_belongs_to_another(fresh, monkeypatch):
    """What another object layout would look like: a valid SSL_CTX, but not of this context."""
    stranger = context()
    stranger.options |= ssl.OP_NO_TICKET
    pointer = openssl._read_pointer(stranger)
    ours = context()
    openssl.context_pointer(ours)
    monkeypatch.setattr(openssl, "_read_pointer", lambda _context: pointer)
    assert "options" in refused(lambda: openssl.context_pointer(ours))
    stranger.options = ours.options
    stranger.verify_mode = ssl.CERT_NONE
    assert "verify mode" in refused(lambda: openssl.context_pointer(ours))


def test_a_layout_that_agrees_by_chance_only(fresh, monkeypatch):
    """Equal to a default context in all that is compared, but deaf to changes."""
    stranger = context()
    pointer = openssl._read_pointer(stranger)
    monkeypatch.setattr(openssl, "_read_pointer", lambda _context: pointer)
    refused(openssl._layout_holds)


@pytest.mark.parametrize("value", [0, 0x1001])
def test_no_pointer_where_one_is_expected(monkeypatch, value):
    class Memory:
        @staticmethod
        def from_address(_address):
            return ctypes.c_void_p(value)

    monkeypatch.setattr(openssl, "_P", Memory)
    monkeypatch.setattr(openssl.c, "sizeof", lambda _type: 8)
    assert "does not start" in refused(lambda: openssl._read_pointer(context()))


def test_only_contexts():
    with pytest.raises(TypeError):
        openssl.context_pointer(object())


def test_every_entry_point_refuses(fresh, monkeypatch):
    monkeypatch.delattr(sys.modules["_ssl"], "__file__")
    key = soft_hardware(PKI.server_key)
    refused(lambda: use_key(context(), PKI.server_chain, key))
    refused(lambda: on_peer_chain(context(), lambda chain: None))


def test_certificates_come_back_as_they_went_in():
    der = PKI.root.public_bytes(Encoding.DER)
    pointer = openssl.decode("d2i_X509", der)
    assert openssl.certificate_der(pointer) == der
    openssl.call("X509_free", pointer)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_certificate(data):
    with pytest.raises(KeyStoreError) as caught:
        openssl.decode("d2i_X509", data)
    assert caught.value.code == "tls.der"
    assert openssl.drain_errors() == "no reason given", "nothing stays in the queue"


def test_nothing_leaks():
    """Resident memory stays level over thousands of contexts (a context alone is some 10 KiB)."""
    script = """
import gc, resource, ssl
from keys.pki import Pki, soft_hardware
from holdfast.keys.tlskey import use_key
from holdfast.keys.tlsverify import on_peer_chain
pki = Pki()
key, chain = soft_hardware(pki.server_key), pki.server_chain
def some(n):
    for _ in range(n):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        use_key(context, chain, key)
        on_peer_chain(context, print)
    gc.collect()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
some(300)
before = some(300)
print(some(2000) - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={"PYTHONPATH": ":".join(p for p in sys.path if p)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2048, f"{done.stdout} KiB more after 2000 contexts"
    gc.collect()
