"""Keys on a PKCS#11 token: a smart card, a secure element, an HSM, or a TPM behind tpm2-pkcs11.

References: ``pkcs11:object=holdfast-ldevid-3;id=%68...;type=private``. They name the objects and not the
token, which is the configuration's affair: it may be described anew without making every key an orphan.
"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cryptography import x509

from holdfast.keys import pkcs11_objects as objects
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.pkcs11_key import Pkcs11Key
from holdfast.keys.pkcs11_objects import Labels, Which
from holdfast.keys.pkcs11_pin import Pin, Secret
from holdfast.keys.pkcs11_session import TokenSession
from holdfast.keys.pkcs11_uri import Pkcs11Uri
from holdfast.wire.errors import KeyNotFound, KeyStoreError
from holdfast.wire.model import KeyAlgorithm

PREFIX: Final = "holdfast"


class Pkcs11Store:
    """A :class:`~holdfast.keys.api.KeyStore` on the one token that *uri* describes, reached by *module*.

    *pin* gives the user PIN when it is needed; *directory* remembers a PIN that was refused. *prefix* starts
    the labels of our objects; without *certificates* none are put beside the keys. No hardware is touched
    before the first use. Use it in a ``with`` block, or call :meth:`close`.
    """

    def __init__(
        self,
        module: Path,
        uri: Pkcs11Uri,
        directory: Path,
        *,
        pin: Secret | None = None,
        prefix: str = PREFIX,
        certificates: bool = True,
    ) -> None:
        self._token = TokenSession(module, uri, Pin(pin, directory), directory)
        self._labels = Labels(prefix)
        self._certificates = certificates

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def plan(self, identity: str, generation: int) -> KeyRef:
        """Raises KeyStoreError(``key.reference``)."""
        return objects.reference(self._labels.label(identity, generation))

    def generate(self, ref: KeyRef, spec: KeySpec) -> Pkcs11Key:
        """Destroys first what stands at *ref*, so that never two objects answer to it.

        Raises KeyStoreError ``key.cannot-decrypt``, ``key.exportable``, ``key.unsupported``, and
        KeyStoreUnavailable(``key.token-full``).
        """
        label = self._labels.of(ref)
        if spec.decrypt and spec.algorithm in {KeyAlgorithm.P256, KeyAlgorithm.P384}:
            raise KeyStoreError("key.cannot-decrypt", "an EC key does not decrypt; ask for RSA")

        def make(session: Any) -> None:
            objects.destroy(session, label)
            objects.generate(session, label, spec, self._token.manufacturer)

        self._token.run("make a key", make)
        return self.load(ref)

    def load(self, ref: KeyRef) -> Pkcs11Key:
        """Raises KeyNotFound, KeyLocked, and KeyStoreError ``key.ambiguous``, ``key.corrupt``."""
        label = self._labels.of(ref)
        return self._key(
            ref, Which.ours(label), self._token.uri.with_object(label, label.encode(), "private")
        )

    def destroy(self, ref: KeyRef) -> None:
        """Remove the key pair and its certificate."""
        label = self._labels.of(ref)
        self._token.run("remove a key", lambda session: objects.destroy(session, label))

    def refs(self) -> frozenset[KeyRef]:
        found = self._token.run("list keys", lambda session: objects.own_labels(session, self._labels))
        return frozenset(map(objects.reference, found))

    def close(self) -> None:
        self._token.close()

    def hold_certificate(self, ref: KeyRef, certificate: x509.Certificate) -> None:
        """As :class:`~holdfast.keys.api.HoldsCertificates`; does nothing where it is not wanted."""
        label = self._labels.of(ref)
        if self._certificates:
            self._token.run(
                "store a certificate", lambda session: objects.put_certificate(session, label, certificate)
            )

    def idevid(self, uri: Pkcs11Uri) -> Pkcs11Key:
        """The maker's key: the one private key that *uri* describes. Raises KeyNotFound, KeyStoreError."""
        return self._key(KeyRef(uri.text()), _which(uri), uri)

    def idevid_certificate(self, uri: Pkcs11Uri) -> x509.Certificate:
        """The maker's certificate: the one with the ``CKA_ID`` of its key.

        Raises KeyNotFound(``key.no-certificate``), KeyStoreError(``key.ambiguous``, ``key.idevid-mismatch``).
        """

        def look(session: Any) -> x509.Certificate:
            which = _which(uri)
            private = objects.private_key(session, which)
            beside = objects.beside(private, which)
            found = objects.certificates(session, beside)
            if not found:
                raise KeyNotFound("key.no-certificate", f"the token has no certificate {beside}")
            if len(found) > 1:
                raise KeyStoreError("key.ambiguous", f"{len(found)} certificates on the token are {beside}")
            if objects.key_of(found[0]) != objects.public_key(session, private, beside):
                raise KeyStoreError("key.idevid-mismatch", f"the certificate {beside} is not for its key")
            return found[0]

        return self._token.run("read the IDevID certificate", look)

    def _key(self, ref: KeyRef, which: Which, uri: Pkcs11Uri) -> Pkcs11Key:
        def look(session: Any) -> Any:
            private = objects.private_key(session, which)
            return objects.public_key(session, private, objects.beside(private, which))

        public = self._token.run("find a key", look)
        return Pkcs11Key(ref, self._token, which, public, uri.text())


def _which(uri: Pkcs11Uri) -> Which:
    if uri.object is None and uri.id is None:
        raise KeyStoreError("key.reference", "the URI of a key must name its object or its id")
    if uri.type not in {None, "private"}:
        raise KeyStoreError("key.reference", f"the URI names a {uri.type} object, not a private key")
    return Which(uri.object, uri.id)
