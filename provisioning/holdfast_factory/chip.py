"""What the factory does inside a TPM: the IDevID key, the storage root key, certificates in NV.

Handles, templates and attributes follow the TCG's practice as keylime, swtpm and openconfig show it
(PROTOCOLS §9). The IDevID key is a primary key of the endorsement hierarchy, so clearing the owner does not
lose it; it is persistent, so nobody needs to agree on the details of its template.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self

from cryptography.hazmat.primitives.asymmetric import ec

from holdfast.wire.errors import KeyLocked, KeyStoreError, KeyStoreUnavailable

os.environ.setdefault("TSS2_LOG", "all+NONE")  # failures reach the caller as errors, not as lines on stderr

from tpm2_pytss import (
    ESAPI,
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_ECC,
    TPM2B_NV_PUBLIC,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_NV,
    TPMA_OBJECT,
    TPMS_ECC_PARMS,
    TPMS_NV_PUBLIC,
    TPMT_ECC_SCHEME,
    TPMT_KDF_SCHEME,
    TPMT_PUBLIC,
    TPMT_SYM_DEF_OBJECT,
    TPMU_PUBLIC_PARMS,
    TSS2_Exception,
)
from tpm2_pytss.cryptography import tpm_ecc_private_key
from tpm2_pytss.internal.crypto import public_to_key

IDEVID_HANDLE: Final = 0x81020000
SRK_HANDLE: Final = 0x81000001
IDEVID_NV: Final = 0x01C90200
EK_CERTIFICATES: Final = (
    0x01C00016,
    0x01C0000A,
    0x01C00002,
    0x01C00012,
)  # ECC P-384, P-256, RSA-2048 low, high

# The policy of the TCG's template; holdfast.wire.tpm.templates tells what it is made of.
_IDEVID_POLICY: Final = bytes.fromhex("ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea")
_FIXED: Final = TPMA_OBJECT.FIXEDTPM | TPMA_OBJECT.FIXEDPARENT | TPMA_OBJECT.SENSITIVEDATAORIGIN
_IDEVID: Final = _FIXED | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.ADMINWITHPOLICY | TPMA_OBJECT.SIGN_ENCRYPT
_SRK: Final = (
    _FIXED | TPMA_OBJECT.USERWITHAUTH | TPMA_OBJECT.NODA | TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.DECRYPT
)
_NV: Final = TPMA_NV.OWNERWRITE | TPMA_NV.OWNERREAD | TPMA_NV.AUTHREAD | TPMA_NV.NO_DA
# Properties that the bindings do not name: TPM_PT_NV_BUFFER_MAX, TPM_PT_MAX_AUTH_FAIL.
_NV_BUFFER_MAX: Final = 0x12C
_MAX_AUTH_FAIL: Final = 0x20F
LOCKOUT_TRIES: Final = 32
_LOCKOUT_RECOVERY: Final = (600, 86400)  # seconds: to forget one failure; after a wrong lockout password
_NV_LIMIT: Final = 8192
_AUTH_FAILURES: Final = frozenset({0x08E, 0x0A2, 0x921})  # AUTH_FAIL, BAD_AUTH, LOCKOUT


class Chip:
    """A TPM on the factory line, reached by a TCTI string. Use it in a ``with`` block.

    Every method raises only kinds of :class:`~holdfast.wire.errors.KeyStoreError`, and leaves no transient
    object behind.
    """

    def __init__(self, tcti: str) -> None:
        with _failures("opening the TPM"):
            self._esapi: Any = ESAPI(tcti)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._esapi.close()

    def provision_idevid(self) -> ec.EllipticCurvePublicKey:
        """Make the IDevID key and persist it, or keep the one that is there if it is the same key.

        Raises ``factory.handle-taken`` if the handle holds a key that this template does not make.
        """
        template = _ecc(_IDEVID, TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.NULL), _IDEVID_POLICY)
        template.publicArea.unique.ecc.x = b"IDEVID".ljust(32, b"\0")
        return self._persist(ESYS_TR.ENDORSEMENT, template, IDEVID_HANDLE)

    def provision_srk(self) -> ec.EllipticCurvePublicKey:
        """Make and persist the standard P-256 storage root key, or keep the same one that is there."""
        cipher = TPMT_SYM_DEF_OBJECT(algorithm=TPM2_ALG.AES)
        cipher.keyBits.aes = 128
        cipher.mode.aes = TPM2_ALG.CFB
        return self._persist(ESYS_TR.OWNER, _ecc(_SRK, cipher, b""), SRK_HANDLE)

    def provision_lockout(self) -> None:
        """Allow 32 failures before a lockout, one forgotten every ten minutes; leave a patient TPM alone.

        The IDevID's template subjects it to the dictionary-attack counter, and each power cut after its use
        counts as a failure: with a chip's first setting, often three, a gateway would lock itself out.
        """
        with _failures("setting the lockout parameters"):
            if self.lockout_tries() < LOCKOUT_TRIES:
                self._esapi.dictionary_attack_parameters(LOCKOUT_TRIES, *_LOCKOUT_RECOVERY)

    def lockout_tries(self) -> int:
        """How many failures this TPM takes before it locks out."""
        with _failures("reading the lockout parameters"):
            return self._property(_MAX_AUTH_FAIL)

    def signer(self, handle: int) -> ec.EllipticCurvePrivateKey:
        """The persistent P-256 key at *handle*; it signs in the TPM. Wrap its use in :meth:`using`."""
        with _failures(f"loading {handle:#x}"):
            key: ec.EllipticCurvePrivateKey = tpm_ecc_private_key(
                self._esapi, self._esapi.tr_from_tpmpublic(handle)
            )
            return key

    @contextmanager
    def using(self, what: str) -> Iterator[None]:
        """Gives TPM failures in its block, a signature for instance, the names of our error family."""
        with _failures(what):
            yield

    def public_key(self, handle: int) -> ec.EllipticCurvePublicKey | None:
        """The public key at the persistent *handle*, or None if nothing is there."""
        if not self._defined(handle):
            return None
        with _failures(f"reading {handle:#x}"):
            public, _, _ = self._esapi.read_public(self._esapi.tr_from_tpmpublic(handle))
            return _point(public)

    def read_nv(self, index: int) -> bytes | None:
        """The content of the NV *index*; None if it is not defined, empty if it was never written.

        What follows the first DER element is padding, which some manufacturers leave, and cut off.
        """
        if not self._defined(index):
            return None
        with _failures(f"reading NV {index:#x}"):
            handle = self._esapi.tr_from_tpmpublic(index)
            public, _ = self._esapi.nv_read_public(handle)
            if not public.nvPublic.attributes & TPMA_NV.WRITTEN:
                return b""
            size = min(int(public.nvPublic.dataSize), _NV_LIMIT)
            content = b""
            for start, part in self._parts(size):
                content += bytes(self._esapi.nv_read(handle, part, start, auth_handle=handle))
            return _without_padding(content)

    def write_nv(self, index: int, content: bytes) -> None:
        """Define *index* for exactly *content* and write it, replacing what was there."""
        with _failures(f"writing NV {index:#x}"):
            if self._defined(index):
                self._esapi.nv_undefine_space(self._esapi.tr_from_tpmpublic(index))
            space = TPMS_NV_PUBLIC(
                nvIndex=index, nameAlg=TPM2_ALG.SHA256, attributes=_NV, authPolicy=b"", dataSize=len(content)
            )
            handle = self._esapi.nv_define_space(None, TPM2B_NV_PUBLIC(nvPublic=space))
            for start, part in self._parts(len(content)):
                self._esapi.nv_write(handle, content[start : start + part], start, auth_handle=ESYS_TR.OWNER)

    def ek_certificate(self) -> bytes | None:
        """DER of the first EK certificate in the TCG's places, or None."""
        return next((found for index in EK_CERTIFICATES if (found := self.read_nv(index))), None)

    def transients(self) -> int:
        """How many transient objects are loaded; zero after a clean step."""
        with _failures("listing transient objects"):
            return len(self._handles(0x80000000))

    def _persist(self, hierarchy: int, template: Any, handle: int) -> ec.EllipticCurvePublicKey:
        with _failures(f"making the key for {handle:#x}"):
            transient, public, *_ = self._esapi.create_primary(
                TPM2B_SENSITIVE_CREATE(), template, primary_handle=hierarchy
            )
            try:
                made = _point(public)
                there = self.public_key(handle)
                if there is not None and there != made:
                    raise KeyStoreError(
                        "factory.handle-taken", f"{handle:#x} holds a key that this factory did not make"
                    )
                if there is None:
                    self._esapi.evict_control(ESYS_TR.OWNER, transient, handle)
            finally:
                self._esapi.flush_context(transient)
        return made

    def _parts(self, size: int) -> Iterator[tuple[int, int]]:
        """(start, length) of the pieces in which this TPM moves *size* octets of NV."""
        limit = self._property(_NV_BUFFER_MAX)
        for start in range(0, size, limit):
            yield start, min(limit, size - start)

    def _property(self, which: int) -> int:
        _, data = self._esapi.get_capability(TPM2_CAP.TPM_PROPERTIES, which, 1)
        return int(data.data.tpmProperties[0].value)

    def _defined(self, handle: int) -> bool:
        with _failures(f"looking for {handle:#x}"):
            return handle in self._handles(handle)

    def _handles(self, first: int) -> tuple[int, ...]:
        _, data = self._esapi.get_capability(TPM2_CAP.HANDLES, first, 64)
        return tuple(int(h) for h in data.data.handles)


def _without_padding(content: bytes) -> bytes:
    if content[:2] == b"\x30\x82":
        return content[: 4 + int.from_bytes(content[2:4], "big")]
    return content


def _ecc(attributes: int, cipher: Any, policy: bytes) -> Any:
    parameters = TPMS_ECC_PARMS(
        symmetric=cipher,
        scheme=TPMT_ECC_SCHEME(scheme=TPM2_ALG.NULL),
        curveID=TPM2_ECC.NIST_P256,
        kdf=TPMT_KDF_SCHEME(scheme=TPM2_ALG.NULL),
    )
    return TPM2B_PUBLIC(
        publicArea=TPMT_PUBLIC(
            type=TPM2_ALG.ECC,
            nameAlg=TPM2_ALG.SHA256,
            objectAttributes=attributes,
            authPolicy=policy,
            parameters=TPMU_PUBLIC_PARMS(eccDetail=parameters),
        )
    )


def _point(public: Any) -> ec.EllipticCurvePublicKey:
    key = public_to_key(public.publicArea)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise KeyStoreError("factory.handle-taken", "the handle holds a key that is not on an elliptic curve")
    return key


@contextmanager
def _failures(what: str) -> Iterator[None]:
    try:
        yield
    except TSS2_Exception as error:
        code = int(error.rc)
        detail = f"{what}: {error} ({code:#x})"
        if code >> 16:  # a layer above the TPM: TCTI, ESAPI
            raise KeyStoreUnavailable("tpm.unavailable", detail) from error
        if code in _AUTH_FAILURES or int(error.error) in _AUTH_FAILURES:
            raise KeyLocked("tpm.auth", detail) from error
        raise KeyStoreError("tpm.command", detail) from error
