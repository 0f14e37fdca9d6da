"""The certificate of the attestation key, and what a server is shown with it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.config import AttestationSettings
from holdfast.host.drive import drive
from holdfast.host.durable import STATE_MODE, Directory, storage_errors
from holdfast.keys.api import Attesting, Attests, Key
from holdfast.keys.attest import application, attest_with
from holdfast.wire.errors import ConfigError, HoldfastError, KeyStoreError, RemoteProtocolError, TrustError
from holdfast.wire.model import Chain, Moment
from holdfast.wire.tpm import akca
from holdfast.wire.tpm.public import parse_public
from holdfast.worker.certificates import certificates_of, configured, read_certificates
from holdfast.worker.links import Connection, Endpoint, Ground
from holdfast.worker.ports import Environment

DIRECTORY: Final = "attestation"
MAX_CHAIN: Final = 64 * 1024
AHEAD: Final = timedelta(days=7)
"""A certificate that ends sooner is replaced before it is used."""


class AttestationError(HoldfastError):
    """The attestation CA did not give a certificate. It may later."""


class AttestationOffice:
    """Sees to the attestation key's certificate: from a file of the operator's, or from a CA and then kept.

    Asking the CA again is harmless: the attestation key stays the same, so nothing needs to be remembered
    before the question goes out.
    """

    def __init__(
        self, env: Environment, connection: Connection, settings: AttestationSettings, ground: Ground
    ) -> None:
        self._env = env
        self._connection = connection
        self._settings = settings
        self._ground = ground

    def attest(self, key: Key, now: Moment) -> Callable[[bytes], bytes]:
        """What makes the attestation object for *key*.

        Raises KeyStoreError ``key.no-attestation``, and AttestationError for what the attestation CA did:
        it is none of the domain's servers, so its faults say nothing about domain or transaction."""
        keys = self._env.keys
        if not isinstance(keys, Attests):
            raise KeyStoreError("key.no-attestation", "this key store cannot attest keys; a TPM can")
        attesting = keys.attesting(self._settings.algorithm)
        try:
            chain = self._chain(attesting, now)
        except (TrustError, RemoteProtocolError) as error:
            raise AttestationError(error.code, error.detail, clause=error.clause) from error
        return attest_with(attesting, key, chain)

    def _chain(self, attesting: Attesting, now: Moment) -> Chain:
        if self._settings.chain_file is not None:
            return read_certificates(self._settings.chain_file)
        if self._settings.ca_url is None:
            detail = "neither an attestation CA nor a certificate is configured"
            raise ConfigError("config.attestation", detail)
        kept = self._kept(attesting, now)
        return kept if kept else self._fetched(self._settings.ca_url, attesting, now)

    def _fetched(self, url: str, attesting: Attesting, now: Moment) -> Chain:
        shown = application(attesting, self._env.factory().serial_number)
        ground = self._ground
        if self._settings.anchors_file is not None:
            anchors = configured(self._settings.anchors_file)
            ground = Ground(anchors, certificates_of(anchors), ())
        link = self._connection.anchored(Endpoint.parse(url), None, ground, now, under="attestation")
        chain = drive(akca.apply(shown, attesting.activate), link)
        self._keep(chain)
        return chain

    def _kept(self, attesting: Attesting, now: Moment) -> Chain:
        """What an earlier step got, while it is for this very key and lasts."""
        path = self._env.settings.state_directory / DIRECTORY
        with storage_errors("attestation", f"read {path}"):
            try:
                directory = Directory.open(path)
            except FileNotFoundError:
                return ()
            with directory:
                data = directory.read(self._file, MAX_CHAIN)
        try:
            chain = tuple(x509.load_pem_x509_certificates(data or b""))
        except ValueError:
            return ()
        key = parse_public(attesting.attestation_public()).key
        lasts = chain[0].not_valid_after_utc > (now.now if now.trusted else now.floor) + AHEAD
        return chain if lasts and chain[0].public_key() == key else ()

    def _keep(self, chain: Chain) -> None:
        path = self._env.settings.state_directory / DIRECTORY
        pem = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
        with storage_errors("attestation", f"write {path}"), Directory.make(path, STATE_MODE) as directory:
            directory.write(f"{self._file}.new", pem, 0o600)
            directory.rename(f"{self._file}.new", self._file)
            directory.sync()

    @property
    def _file(self) -> str:
        """Each CA has a file of its own, for each kind of key."""
        told = f"{self._settings.ca_url} {self._settings.algorithm.value}"
        return hashlib.sha256(told.encode()).hexdigest()[:16] + ".pem"
