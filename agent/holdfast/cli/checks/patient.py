"""What the checks look at, each thing read once and only when a check asks for it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from holdfast.cli.checks.finding import UnmetError
from holdfast.cli.view import now
from holdfast.host.clock import BUILD_TIME
from holdfast.host.config import Settings, load
from holdfast.host.store import Loaded, StateStore
from holdfast.keys.api import KeyRef, KeyStore
from holdfast.keys.open import open_store
from holdfast.life.record import DeviceRecord
from holdfast.wire.errors import ConfigError, HoldfastError, KeyStoreError, StateError
from holdfast.wire.model import Moment
from holdfast.worker.assemble import key_settings
from holdfast.worker.factory import key_directory, makers_store

if TYPE_CHECKING:  # only one of the two kinds of hardware needs to have its library
    from holdfast.keys.tpm import TpmStore
    from holdfast.keys.tpm_health import TpmHealth

T = TypeVar("T")


class Patient:
    """One device as ``holdfast doctor`` examines it. Use it in a ``with`` block: it closes the key store.

    The properties raise UnmetError, with the check that tells of it, where the thing itself is broken.
    """

    def __init__(self, config: Path) -> None:
        self.config = config
        self.read_settings = cache(lambda: load(config))
        self.read_record = cache(self._read_record)
        self.open_keys = cache(self._open_keys)
        self.open_tpm = cache(self._open_tpm)
        self.open_maker = cache(self._open_maker)
        self.read_tpm = cache(lambda: self.open_tpm().health())
        self.read_token = cache(lambda: self.open_keys().refs())
        self._opened = ExitStack()
        self._broken: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened.close()

    @property
    def settings(self) -> Settings:
        return self._needed("config", self.read_settings, ConfigError)

    @property
    def record(self) -> DeviceRecord:
        """A fresh one where the device has none yet."""
        return self._needed("state", self.read_record, StateError).record or DeviceRecord(floor=BUILD_TIME)

    @property
    def store(self) -> str:
        """The kind of key store that the configuration names."""
        return "pkcs11" if self.settings.keys.token else "tpm"

    @property
    def now(self) -> Moment:
        return now(self.settings, self.record)

    @property
    def keys(self) -> KeyStore:
        """The key store, which answers."""
        if self.store == "pkcs11":
            self._needed("token", self.read_token, KeyStoreError)
        else:
            self._needed("tpm", self.read_tpm, KeyStoreError)
        return self.open_keys()

    @property
    def parents(self) -> dict[KeyRef, bytes]:
        """The name of the storage root key that each of our wrapped keys in the TPM needs."""
        self._needed("tpm", self.read_tpm, KeyStoreError)
        return self.open_tpm().parents()

    @property
    def maker(self) -> KeyStore:
        """The key store with the IDevID; if it is ours, it answers."""
        return self.keys if self.open_maker() is self.open_keys() else self.open_maker()

    @property
    def tpm(self) -> TpmHealth:
        return self._needed("tpm", self.read_tpm, KeyStoreError)

    def _needed(self, check: str, read: Callable[[], T], kind: type[HoldfastError]) -> T:
        """What *read* gives; what failed once is not tried again."""
        if check in self._broken:
            raise UnmetError(check)
        try:
            return read()
        except kind as error:
            self._broken.add(check)
            raise UnmetError(check) from error

    def _read_record(self) -> Loaded:
        return StateStore(self.settings.state_directory).peek()

    def _open_keys(self) -> KeyStore:
        if self.settings.keys.token is None:
            return self.open_tpm()
        store = open_store(key_settings(self.settings))
        self._opened.callback(store.close)
        return store

    def _open_tpm(self) -> TpmStore:
        store = open_store(self.settings.keys.tpm_settings(key_directory(self.settings)))
        self._opened.callback(store.close)
        return store

    def _open_maker(self) -> KeyStore:
        return self._opened.enter_context(makers_store(self.settings, self.open_keys()))
