"""A certificate in the TPM's non-volatile storage, as a device maker leaves it there."""

from __future__ import annotations

from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tpm2_pytss import ESYS_TR, TPMA_NV, TSS2_Exception

from holdfast.keys.tpm_faults import HANDLE, NV_RANGE, VALUE, is_code
from holdfast.wire.errors import KeyNotFound, KeyStoreError

MAX_CERTIFICATE: Final = 16 * 1024
_CHUNKS: Final = (1024, 512, 256)  # what a chip returns in one NV_Read differs; most allow 1024
_HEADER: Final = 4  # tag and length of a certificate: 30 82 xx xx
_NV_AUTH_UNSET: Final = 0x14A


def read_certificate(esapi: Any, index: int, owner_auth: bytes) -> bytes:
    """The DER certificate at *index*, without the padding behind it.

    Costs one NV_ReadPublic and one NV_Read for each KiB. Raises TSS2_Exception, KeyNotFound
    (``key.no-certificate``) and KeyStoreError (``key.certificate``).
    """
    try:
        esys = esapi.tr_from_tpmpublic(index)
    except TSS2_Exception as error:
        if is_code(error.rc, HANDLE):
            raise KeyNotFound("key.no-certificate", f"the TPM has no NV index {index:#010x}") from error
        raise
    try:
        size, reader = _area(esapi, index, esys, owner_auth)
        return _read(esapi, index, esys, reader, size)
    finally:
        esapi.tr_close(esys)


def parse_certificate(der: bytes, index: int) -> tuple[x509.Certificate, bytes]:
    """The certificate and its SubjectPublicKeyInfo. Raises KeyStoreError(``key.certificate``)."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        public = certificate.public_key()
        return certificate, public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
        raise _bad(index, f"it does not parse: {error}") from error


def _bad(index: int, why: str) -> KeyStoreError:
    return KeyStoreError(
        "key.certificate", f"the certificate in NV index {index:#010x} cannot be used: {why}"
    )


def _area(esapi: Any, index: int, esys: Any, owner_auth: bytes) -> tuple[int, Any]:
    """Size of the index, and who may read it: the index by its own empty authorisation, or the owner."""
    public, _ = esapi.nv_read_public(esys)
    attributes = public.nvPublic.attributes
    size = int(public.nvPublic.dataSize)
    if attributes & TPMA_NV.AUTHREAD:
        return size, esys
    if attributes & TPMA_NV.OWNERREAD:
        esapi.tr_set_auth(ESYS_TR.OWNER, owner_auth)
        return size, ESYS_TR.OWNER
    raise _bad(index, "neither its own authorisation nor the owner's may read it")


def _read(esapi: Any, index: int, esys: Any, reader: Any, size: int) -> bytes:
    data = b""
    wanted = min(size, MAX_CERTIFICATE)
    for chunk in _CHUNKS:
        try:
            while len(data) < wanted:
                data += bytes(
                    esapi.nv_read(esys, min(chunk, wanted - len(data)), len(data), auth_handle=reader)
                )
                wanted = _certificate_length(data, index, size)
        except TSS2_Exception as error:
            if chunk != _CHUNKS[-1] and (is_code(error.rc, VALUE) or is_code(error.rc, NV_RANGE)):
                continue
            if is_code(error.rc, _NV_AUTH_UNSET):
                raise KeyNotFound(
                    "key.no-certificate", f"NV index {index:#010x} was never written"
                ) from error
            raise
        return data[:wanted]
    raise AssertionError  # the last chunk size returns or raises


def _certificate_length(data: bytes, index: int, size: int) -> int:
    """Octets of the certificate that *data* starts with, by its DER header."""
    if data[:2] != b"\x30\x82":
        raise _bad(index, "it does not start like a DER certificate")
    length = _HEADER + int.from_bytes(data[2:_HEADER], "big")
    if length > min(size, MAX_CERTIFICATE):
        raise _bad(
            index, f"it claims {length} octets in an index of {size}; at most {MAX_CERTIFICATE} are read"
        )
    return length
