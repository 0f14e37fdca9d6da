"""The maker's key and certificate."""

from __future__ import annotations

import warnings

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.utils import CryptographyDeprecationWarning
from hypothesis import given
from hypothesis import strategies as st
from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_NV,
    TPMA_OBJECT,
    TPMS_NV_PUBLIC,
    TPMS_SENSITIVE_CREATE,
)

from holdfast.keys.api import KeySpec
from holdfast.keys.tlskey import surfacing, use_key
from holdfast.keys.tpm import TpmStore
from holdfast.keys.tpm_nv import _certificate_length, parse_certificate
from holdfast.keys.tpm_templates import signing_key
from holdfast.wire import csr
from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError
from holdfast.wire.model import KeyAlgorithm
from keys.contract import PKI
from keys.pki import certificate, handshake, name, tls_server

pytestmark = pytest.mark.tpm

HANDLE, INDEX = 0x81020000, 0x01C90000
READABLE = TPMA_NV.OWNERWRITE | TPMA_NV.AUTHREAD | TPMA_NV.OWNERREAD | TPMA_NV.NO_DA


def make_key(tcti, handle=HANDLE, template=None, auth=b""):
    """A primary key of the endorsement hierarchy at *handle*, as a factory makes it."""
    public = TPM2B_PUBLIC(publicArea=template or signing_key(KeySpec()))
    sensitive = TPM2B_SENSITIVE_CREATE(sensitive=TPMS_SENSITIVE_CREATE(userAuth=auth))
    with ESAPI(tcti) as esapi:
        esys, *_ = esapi.create_primary(sensitive, public, ESYS_TR.ENDORSEMENT)
        esapi.evict_control(ESYS_TR.OWNER, esys, handle)
        esapi.flush_context(esys)


def write_nv(tcti, data, index=INDEX, attributes=READABLE, size=None):
    public = TPMS_NV_PUBLIC(
        nvIndex=index,
        nameAlg=TPM2_ALG.SHA256,
        attributes=attributes,
        authPolicy=b"",
        dataSize=size or len(data),
    )
    with ESAPI(tcti) as esapi:
        esys = esapi.nv_define_space(None, TPM2B_NV_PUBLIC(nvPublic=public))
        for at in range(0, len(data), 512):
            esapi.nv_write(esys, data[at : at + 512], at, auth_handle=ESYS_TR.OWNER)


def idevid(tcti, size=0):
    """Key, and a certificate of at least *size* octets for it."""
    make_key(tcti)
    with TpmStore(tcti, None) as store:
        public = store.idevid(HANDLE).signer().public_key()
    made = certificate("idevid " + "x" * size, public, "maker", PKI.root_key)
    return made, made.public_bytes(Encoding.DER)


def code_of(tcti, index=INDEX, **settings) -> str:
    with TpmStore(tcti, None, **settings) as store:
        store.idevid(HANDLE)
        with pytest.raises(KeyStoreError) as caught:
            store.idevid_certificate(index)
    return caught.value.code


def test_the_key_signs_and_shakes_hands(swtpm, tmp_path):
    make_key(swtpm.tcti)
    with TpmStore(swtpm.tcti, tmp_path) as store:
        key = store.idevid(HANDLE)
        assert key.ref == f"tpm2:{HANDLE:#x}"
        assert key.reference_pem() is None
        csr.parse(csr.build(key.signer(), name("device")))
        context = PKI.client_context()
        from keys.contract import VERSIONS

        use_key(context, PKI.chain(key.signer().public_key()), key.signer())
        with tls_server(PKI.server_context(tmp_path, VERSIONS[0])) as server, surfacing():
            handshake(context, server.port)


@pytest.mark.parametrize("padding", [0, 700])
@pytest.mark.parametrize(
    "attributes", [READABLE, TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD], ids=["auth", "owner"]
)
def test_certificate_with_and_without_padding(swtpm, meter, padding, attributes):
    made, der = idevid(swtpm.tcti)
    write_nv(swtpm.tcti, der + b"\xff" * padding, attributes=attributes)
    with TpmStore(meter.tcti, None) as store:
        store.idevid(HANDLE)
        meter.take()
        assert store.idevid_certificate(INDEX) == made
        assert len(meter.take()) <= 4
        assert store.idevid_certificate(INDEX, handle=HANDLE) == made


def test_a_long_certificate_is_read_in_parts(swtpm):
    make_key(swtpm.tcti)
    with TpmStore(swtpm.tcti, None) as store:
        public = store.idevid(HANDLE).signer().public_key()
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes

        from keys.pki import NOT_AFTER, NOT_BEFORE

        made = (
            x509.CertificateBuilder()
            .subject_name(name("idevid"))
            .issuer_name(name("maker"))
            .public_key(public)
            .serial_number(5)
            .not_valid_before(NOT_BEFORE)
            .not_valid_after(NOT_AFTER)
            .add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), bytes(1400)), critical=False
            )
            .sign(PKI.root_key, hashes.SHA256())
        )
        der = made.public_bytes(Encoding.DER)
        assert len(der) > 1500
        write_nv(swtpm.tcti, der)
        assert store.idevid_certificate(INDEX) == made


def test_a_chip_with_a_small_buffer(swtpm, monkeypatch):
    made, der = idevid(swtpm.tcti)
    write_nv(swtpm.tcti, der)
    real = ESAPI.nv_read

    def small(self, nv_index, size, offset=0, **rest):
        from tpm2_pytss import TSS2_Exception

        if size > 256:
            raise TSS2_Exception(0x1C4)
        return real(self, nv_index, size, offset, **rest)

    monkeypatch.setattr(ESAPI, "nv_read", small)
    with TpmStore(swtpm.tcti, None) as store:
        store.idevid(HANDLE)
        assert store.idevid_certificate(INDEX) == made


def test_certificate_of_another_key(swtpm):
    make_key(swtpm.tcti)
    other = certificate("idevid", PKI.server_key.public_key(), "maker", PKI.root_key)
    write_nv(swtpm.tcti, other.public_bytes(Encoding.DER))
    assert code_of(swtpm.tcti) == "key.idevid-mismatch"


def test_no_key_to_compare_with(swtpm):
    _, der = idevid(swtpm.tcti)
    write_nv(swtpm.tcti, der)
    with TpmStore(swtpm.tcti, None) as store, pytest.raises(KeyStoreError) as caught:
        store.idevid_certificate(INDEX)
    assert caught.value.code == "key.idevid-mismatch"


def test_what_is_not_there(swtpm):
    with TpmStore(swtpm.tcti, None) as store:
        with pytest.raises(KeyNotFound):
            store.idevid(HANDLE)
        for handle in (0x80000000, 0x40000001, -1, 1 << 40):
            with pytest.raises(KeyStoreError) as caught:
                store.idevid(handle)
            assert caught.value.code == "key.reference"
        make_key(swtpm.tcti)
        store.idevid(HANDLE)
        with pytest.raises(KeyNotFound) as caught:
            store.idevid_certificate(INDEX)
        assert caught.value.code == "key.no-certificate"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"\x30\x82\xff\xff" + bytes(100), "claims 65539 octets"),
        (b"\x30\x82\x00\x67" + bytes(100), "claims 107 octets in an index of 104"),
        (b"garbage " * 20, "does not start like"),
        (b"\x30\x82\x00\x10" + bytes(200), "does not parse"),
        (b"\x30\x82", "claims 4 octets"),
        (bytes(900), "does not start like"),
    ],
)
def test_content_that_is_no_certificate(swtpm, content, why):
    make_key(swtpm.tcti)
    write_nv(swtpm.tcti, content)
    with TpmStore(swtpm.tcti, None) as store:
        store.idevid(HANDLE)
        with pytest.raises(KeyStoreError, match=why) as caught:
            store.idevid_certificate(INDEX)
        assert caught.value.code == "key.certificate"


def test_an_index_that_was_never_written_and_one_that_nobody_may_read(swtpm):
    make_key(swtpm.tcti)
    write_nv(swtpm.tcti, b"", size=600)
    assert code_of(swtpm.tcti) == "key.no-certificate"
    write_nv(swtpm.tcti, b"", index=INDEX + 1, attributes=TPMA_NV.OWNERWRITE | TPMA_NV.POLICYREAD, size=60)
    assert code_of(swtpm.tcti, INDEX + 1) == "key.certificate"


def test_owner_authorisation_for_nv(swtpm):
    made, der = idevid(swtpm.tcti)
    write_nv(swtpm.tcti, der, attributes=TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD)
    with ESAPI(swtpm.tcti) as esapi:
        esapi.hierarchy_change_auth(ESYS_TR.OWNER, b"owner")
    assert code_of(swtpm.tcti) == "key.auth-failed"
    with TpmStore(swtpm.tcti, None, owner_auth=lambda: b"owner") as store:
        store.idevid(HANDLE)
        assert store.idevid_certificate(INDEX) == made


def test_authorisation_of_the_key(swtpm):
    make_key(swtpm.tcti, auth=b"right")
    with TpmStore(swtpm.tcti, None) as store:
        csr.build(store.idevid(HANDLE, lambda: b"right").signer(), name("device"))
        for auth in (None, lambda: b"wrong"):
            with TpmStore(swtpm.tcti, None) as other, pytest.raises(KeyLocked):
                csr.build(other.idevid(HANDLE, auth).signer(), name("device"))


def test_restricted_and_storage_keys_are_refused(swtpm):
    restricted = signing_key(KeySpec())
    restricted.objectAttributes |= TPMA_OBJECT.RESTRICTED
    restricted.parameters.eccDetail.scheme.scheme = TPM2_ALG.ECDSA
    restricted.parameters.eccDetail.scheme.details.anySig.hashAlg = TPM2_ALG.SHA256
    make_key(swtpm.tcti, template=restricted)
    decrypting = signing_key(KeySpec(KeyAlgorithm.RSA2048))
    decrypting.objectAttributes &= ~int(TPMA_OBJECT.SIGN_ENCRYPT)
    make_key(swtpm.tcti, HANDLE + 1, decrypting)
    with TpmStore(swtpm.tcti, None) as store:
        for handle, code in ((HANDLE, "key.restricted"), (HANDLE + 1, "key.no-signing")):
            with pytest.raises(KeyStoreError) as caught:
                store.idevid(handle)
            assert caught.value.code == code


def test_an_rsa_key_that_only_signs(swtpm, tmp_path):
    from keys.contract import VERSIONS

    template = signing_key(KeySpec(KeyAlgorithm.RSA2048))
    template.objectAttributes &= ~int(TPMA_OBJECT.DECRYPT)
    make_key(swtpm.tcti, template=template)
    with TpmStore(swtpm.tcti, None) as store:
        key = store.idevid(HANDLE).signer()
        assert isinstance(key, rsa.RSAPrivateKey)
        csr.parse(csr.build(key, name("device")))
        with pytest.raises(KeyStoreError) as caught:
            key.decrypt(bytes(256), PKCS1v15())
        assert caught.value.code == "key.cannot-decrypt"
        context = PKI.client_context()
        use_key(context, PKI.chain(key.public_key()), key)
        with (
            tls_server(PKI.server_context(tmp_path, VERSIONS[1])) as server,
            pytest.raises(KeyStoreError) as caught,
            surfacing(),
        ):
            handshake(context, server.port)
        assert caught.value.code == "key.no-raw-rsa"


GOOD = certificate("idevid", ec.generate_private_key(ec.SECP256R1()).public_key(), "maker", PKI.root_key)
GOOD_DER = GOOD.public_bytes(Encoding.DER)


@given(st.data())
def test_mutated_certificates_raise_nothing_else(data):
    damaged = bytearray(GOOD_DER)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for der in (bytes(damaged), cut):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            try:
                length = _certificate_length(der, INDEX, 2000)
                parse_certificate(der, INDEX)
            except KeyStoreError as error:
                raised = error.code
            else:
                raised = None
        assert raised in {None, "key.certificate"}
        assert raised or 4 <= length <= 2000
