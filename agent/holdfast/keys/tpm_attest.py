"""What a TPM states about its keys: an attestation key (AK), certification, credential activation.

The AK is a restricted primary key of the endorsement hierarchy: it signs only what its own TPM made,
clearing the owner does not change it, and its template is all that is needed to have it again. It is kept
at a persistent handle, so that using it takes one command. TPM 2.0 Part 1 §24 (activation), Part 3 §18.2
(Certify)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from tpm2_pytss import (
    ESYS_TR,
    TPM2_ALG,
    TPM2_CAP,
    TPM2_SE,
    TPM2B_DATA,
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_PUBLIC,
    TPM2B_SENSITIVE_CREATE,
    TPMA_OBJECT,
    TPMT_SIG_SCHEME,
    TPMT_SYM_DEF,
    TSS2_Exception,
)
from tpm2_pytss.utils import NoSuchIndex, NVReadEK, create_ek_template

from holdfast.keys.api import EndorsementKey, Evidence, Key
from holdfast.keys.tpm_faults import HANDLE, NV_DEFINED, is_code
from holdfast.keys.tpm_key import TpmKey
from holdfast.keys.tpm_objects import Objects
from holdfast.keys.tpm_parent import Secret, secret_value
from holdfast.keys.tpm_templates import attestation_key
from holdfast.wire.errors import KeyNotFound, KeyStoreError
from holdfast.wire.model import KeyAlgorithm

AK_HANDLES: Final = {KeyAlgorithm.P256: 0x81010180, KeyAlgorithm.RSA2048: 0x81010181}
"""Behind the range of the agent's own persistent keys; the TCG's IAK at 0x81020001 is the factory's."""

EK_KINDS: Final = ("EK-HIGH-ECC256", "EK-ECC256", "EK-HIGH-ECC384", "EK-HIGH-RSA2048", "EK-RSA2048")
"""Elliptic curves first: an RSA primary key takes a chip seconds."""

_CHAIN_FIRST: Final = 0x01C00100
_CHAIN_COUNT: Final = 0x100
_CHAIN_LIMIT: Final = 16 * 1024


class TpmAttestor:
    """Attestation by the TPM behind *objects*. The hierarchies' authorisation values come from the
    callables."""

    def __init__(
        self,
        objects: Objects,
        *,
        algorithm: KeyAlgorithm = KeyAlgorithm.P256,
        owner_auth: Secret | None = None,
        endorsement_auth: Secret | None = None,
    ) -> None:
        self._objects = objects
        if algorithm not in AK_HANDLES:
            raise KeyStoreError("key.unsupported", f"no attestation key of kind {algorithm.value}")
        self.algorithm = algorithm
        self._handle = AK_HANDLES[algorithm]
        self._owner_auth = owner_auth
        self._endorsement_auth = endorsement_auth

    def attestation_public(self) -> bytes:
        """TPMT_PUBLIC of the AK, which is made if the TPM has none at its handle yet.

        Raises KeyStoreError ``key.attestation-handle`` if something else stands there.
        """
        return bytes(self._objects.run("find the attestation key", self._attestation_key).public.marshal())

    def certify(self, certified: Key, qualifying: bytes) -> Evidence:
        """The AK's statement about the key *certified*, with *qualifying* data (at most 64 octets).

        Raises KeyStoreError ``key.not-here`` for a key of another store.
        """
        if not isinstance(certified, TpmKey):
            raise KeyStoreError("key.not-here", f"{certified.ref} is no key of this TPM")
        locate = certified.locate

        def whole(esapi: Any) -> Evidence:
            ak = self._attestation_key(esapi)
            key = locate(esapi)
            public, _, _ = esapi.read_public(key)
            scheme = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)
            statement, signature = esapi.certify(
                key, ak.esys, TPM2B_DATA(qualifying), scheme, ESYS_TR.PASSWORD, ESYS_TR.PASSWORD
            )
            return Evidence(
                statement=bytes(statement),
                signature=bytes(signature.marshal()),
                public=bytes(public.publicArea.marshal()),
            )

        return self._objects.run("certify a key", whole)

    def endorsement_key(self) -> EndorsementKey:
        """The first EK of :data:`EK_KINDS` that has a certificate in NV, else the first that can be made."""

        def whole(esapi: Any) -> EndorsementKey:
            kind, certificate = self._endorsement_kind(esapi)
            with self._endorsement(esapi, kind) as (_, public):
                area = bytes(public.publicArea.marshal())
            return EndorsementKey(area, certificate, _chain(esapi))

        return self._objects.run("read the endorsement key", whole)

    def activate(self, id_object: bytes, encrypted_secret: bytes) -> bytes:
        """The secret that was sealed for this TPM and the AK.

        Raises KeyStoreError ``key.activation``: it is for another TPM or another key.
        """

        def whole(esapi: Any) -> bytes:
            ak = self._attestation_key(esapi)
            kind, _ = self._endorsement_kind(esapi)
            with self._endorsement(esapi, kind) as (ek, public), self._ek_session(esapi, public) as session:
                found = esapi.activate_credential(
                    ak.esys,
                    ek,
                    TPM2B_ID_OBJECT(id_object),
                    TPM2B_ENCRYPTED_SECRET(encrypted_secret),
                    session1=ESYS_TR.PASSWORD,
                    session2=session,
                )
            return bytes(found)

        try:
            return self._objects.run("activate a credential", whole)
        except KeyStoreError as error:
            if error.code in _NOT_OURS:
                detail = "the challenge was made for another TPM or another attestation key"
                raise KeyStoreError("key.activation", detail) from error
            raise

    def _attestation_key(self, esapi: Any) -> Any:
        try:
            found = self._objects.persistent(esapi, self._handle)
        except TSS2_Exception as error:
            if not is_code(error.rc, HANDLE):
                raise
            self._make(esapi)
            found = self._objects.persistent(esapi, self._handle)
        wanted = TPMA_OBJECT.RESTRICTED | TPMA_OBJECT.SIGN_ENCRYPT
        if found.public.objectAttributes & wanted != wanted:
            detail = f"the object at {self._handle:#010x} is no attestation key"
            raise KeyStoreError("key.attestation-handle", detail)
        return found

    def _make(self, esapi: Any) -> None:
        esapi.tr_set_auth(ESYS_TR.ENDORSEMENT, secret_value(self._endorsement_auth))
        esapi.tr_set_auth(ESYS_TR.OWNER, secret_value(self._owner_auth))
        self._objects.make_place(esapi)
        public = TPM2B_PUBLIC(publicArea=attestation_key(self.algorithm))
        made, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), public, ESYS_TR.ENDORSEMENT)
        try:
            esapi.evict_control(ESYS_TR.OWNER, made, self._handle)
        except TSS2_Exception as error:
            if not is_code(error.rc, NV_DEFINED):  # else another process made the same key first
                raise
        finally:
            esapi.flush_context(made)

    def _endorsement_kind(self, esapi: Any) -> tuple[str, bytes | None]:
        reader = NVReadEK(esapi)
        makeable = []
        for kind in EK_KINDS:
            try:
                certificate, _ = create_ek_template(kind, reader)
            except (ValueError, NoSuchIndex):  # a high-range EK without a certificate is none
                continue
            if certificate is not None:
                return kind, bytes(certificate)
            makeable.append(kind)
        if not makeable:
            raise KeyNotFound("key.no-endorsement-key", "this TPM has no endorsement key that we know")
        return makeable[0], None

    @contextmanager
    def _endorsement(self, esapi: Any, kind: str) -> Iterator[tuple[Any, Any]]:
        """The EK of *kind*, loaded while the block runs, and its public area."""
        esapi.tr_set_auth(ESYS_TR.ENDORSEMENT, secret_value(self._endorsement_auth))
        self._objects.make_place(esapi)
        _, template = create_ek_template(kind, NVReadEK(esapi))
        ek, public, *_ = esapi.create_primary(TPM2B_SENSITIVE_CREATE(), template, ESYS_TR.ENDORSEMENT)
        try:
            yield ek, public
        finally:
            esapi.flush_context(ek)

    @contextmanager
    def _ek_session(self, esapi: Any, public: Any) -> Iterator[Any]:
        """How an EK is used: by its (empty) password where it allows that, else by PolicySecret."""
        if public.publicArea.objectAttributes & TPMA_OBJECT.USERWITHAUTH:
            yield ESYS_TR.PASSWORD
            return
        session = esapi.start_auth_session(
            tpm_key=ESYS_TR.NONE,
            bind=ESYS_TR.NONE,
            session_type=TPM2_SE.POLICY,
            symmetric=TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL),
            auth_hash=public.publicArea.nameAlg,
        )
        try:
            esapi.policy_secret(ESYS_TR.ENDORSEMENT, session, b"", b"", b"", 0)
            yield session
        finally:
            esapi.flush_context(session)


def _chain(esapi: Any) -> bytes:
    """The EK certificate's issuers, as the maker left them in NV: concatenated DER, often none."""
    reader = NVReadEK(esapi)
    found = b""
    _, capability = esapi.get_capability(TPM2_CAP.HANDLES, _CHAIN_FIRST, _CHAIN_COUNT)
    for handle in (int(h) for h in capability.data.handles):
        if _CHAIN_FIRST <= handle < _CHAIN_FIRST + _CHAIN_COUNT and len(found) < _CHAIN_LIMIT:
            found += bytes(reader(handle))
    return found[:_CHAIN_LIMIT]


_NOT_OURS: Final = frozenset({"key.integrity", "key.tpm"})
