"""A unit whose key lives on a PKCS#11 token, and who judges it: the same steps, without a TPM's evidence.

A token proves that it has a key, by a request that the key signs. That the key cannot leave it, and which
token it is, one has to take from whoever made it: the line holds it in its hands.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from holdfast.keys import pkcs11_objects as objects
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11_objects import Which
from holdfast.keys.pkcs11_pin import Pin
from holdfast.keys.pkcs11_session import TokenSession
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire import csr
from holdfast.wire.algorithms import accepted_key, digest_for, sign_data, spki, verify
from holdfast.wire.errors import ConfigError, KeyStoreError, TrustError
from holdfast.wire.model import RandomBytes, SigningKey
from holdfast_factory.token_device import LABEL, TokenPlace, provide_key
from holdfast_factory.unit import (
    Certificates,
    Endorsement,
    ProvedKeys,
    ReadBack,
    SealedSecret,
    Shown,
    unit_of,
)

_PIN_LIMIT: Final = 1024


class TokenUnit:
    """See :class:`~holdfast_factory.unit.Unit`. *directory* remembers a PIN that was refused."""

    def __init__(self, token: TokenPlace, directory: Path) -> None:
        self.place = token.uri.of_token.text()
        self._token = token
        self._directory = directory
        self._session = TokenSession(token.module, token.uri, Pin(token.pin, directory), directory)

    def endorsement(self) -> Endorsement:
        """The token's own words: manufacturer, model, serial number."""
        return Endorsement(token=self._session.run("look at the token", _words))

    def keys(self, model: str, serial: str) -> Shown:
        """Raises KeyStoreError of the token."""
        self._session.run("make the IDevID key", lambda s: provide_key(s, self._session.manufacturer))
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, model),
                x509.NameAttribute(NameOID.SERIAL_NUMBER, serial),
            ]
        )
        with self._store() as store:
            signer = store.idevid(self._token.idevid).signer()
            return Shown(csr.build(signer, subject), spki(signer))

    def activate(self, secret: SealedSecret) -> bytes:
        """Raises KeyStoreError ``key.activation``: a token opens nothing."""
        del secret
        raise KeyStoreError("key.activation", "a token has no endorsement key")

    def install(self, certificates: Certificates) -> None:
        """Raises KeyStoreError ``factory.token-taken`` if another certificate is beside the key."""
        wanted = x509.load_der_x509_certificate(certificates.idevid)

        def put(session: Any) -> None:
            present = objects.certificates(session, Which.ours(LABEL))
            if any(each != wanted for each in present):
                raise KeyStoreError("factory.token-taken", "the token holds another IDevID certificate")
            if not present:
                objects.put_certificate(session, LABEL, wanted)

        self._session.run("write the IDevID", put)

    def read_back(self, challenge: bytes) -> ReadBack:
        """Through another login than the one that wrote."""
        with self._store() as store:
            key: SigningKey = store.idevid(self._token.idevid).signer()
            signature = sign_data(key, challenge, digest_for(key))
            held = self._session.run("read the IDevID", lambda s: objects.certificates(s, Which.ours(LABEL)))
        der = held[0].public_bytes(Encoding.DER) if held else b""
        return ReadBack(der, b"", signature)

    def lock(self) -> tuple[str, ...]:
        """Nothing: who may write to a token its PINs decide."""
        return ()

    def close(self) -> None:
        """Log out. Idempotent."""
        self._session.close()

    def _store(self) -> Any:
        return open_store(
            Pkcs11Settings(self._token.module, self._token.uri, self._directory, self._token.pin)
        )


class TokenExaminer:
    """See :class:`~holdfast_factory.unit.Examiner`."""

    def identify(self, shown: Endorsement) -> str:
        """Raises TrustError ``token.unnamed``."""
        if not shown.token.strip(" /"):
            raise TrustError("token.unnamed", "the token tells neither manufacturer nor serial number")
        return unit_of(shown.token.encode())

    def endorsement(self, shown: Endorsement, now: datetime) -> None:
        """There is no maker's certificate to judge, only a name to have."""
        del now
        self.identify(shown)

    def keys(self, shown: Shown, endorsement: Endorsement, model: str, serial: str) -> ProvedKeys:
        """Raises TrustError ``csr.pop``, ``devid.swapped``, ``devid.serial``, ``devid.model``, ``key.*``."""
        del endorsement
        request = csr.parse(shown.request)
        if spki(request) != shown.idevid:
            raise TrustError("devid.swapped", "the request is for another key than the token shows")
        for oid, wanted, name in (
            (NameOID.SERIAL_NUMBER, serial, "serial"),
            (NameOID.ORGANIZATIONAL_UNIT_NAME, model, "model"),
        ):
            found = [each.value for each in request.subject.get_attributes_for_oid(oid)]
            if found != [wanted]:
                raise TrustError(f"devid.{name}", f"the request is for {found!r:.80}, not for {wanted!r}")
        return ProvedKeys(spki(request))

    def seal(
        self, keys: ProvedKeys, endorsement: Endorsement, random: RandomBytes
    ) -> tuple[SealedSecret, bytes] | None:
        """None: a token has nothing to which a secret could be sealed."""
        del keys, endorsement, random
        return None

    def read_back(self, read: ReadBack, installed: Certificates, challenge: bytes) -> None:
        """Raises TrustError ``inspection.certificate``, ``signature.invalid``."""
        if read.idevid != installed.idevid:
            raise TrustError("inspection.certificate", "the token does not hold the IDevID certificate")
        key = accepted_key(x509.load_der_x509_certificate(installed.idevid))
        verify(key, read.signature, challenge, digest_for(key))


def token_at(text: str) -> TokenUnit:
    """The token that a URI names, with ``module-path`` and ``pin-source``.

    Raises KeyStoreError ``key.uri``, ConfigError ``factory.place``.
    """
    uri = parse(text)
    if uri.module_path is None or uri.pin_file is None:
        raise ConfigError("factory.place", "a token needs module-path and pin-source=file:...")
    file = Path(uri.pin_file)

    def pin() -> bytes:
        try:
            with file.open("rb") as opened:
                return opened.read(_PIN_LIMIT).removesuffix(b"\n")
        except OSError as error:
            raise ConfigError("factory.place", f"{file}: {error.strerror}") from error

    return TokenUnit(TokenPlace(Path(uri.module_path), uri.of_token, pin), file.parent)


def _words(session: Any) -> str:
    token = session.token
    serial = token.serial
    text = serial.decode("ascii", "replace") if isinstance(serial, bytes) else str(serial)
    return "/".join(each.strip() for each in (token.manufacturer_id, token.model, text))
