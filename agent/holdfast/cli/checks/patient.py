"""What the checks look at, each thing read once and only when a check asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from holdfast.cli.checks.finding import UnmetError
from holdfast.cli.view import now
from holdfast.host.clock import BUILD_TIME
from holdfast.host.config import Settings, load
from holdfast.host.store import Loaded, StateStore
from holdfast.keys.open import open_store
from holdfast.keys.tpm import TpmStore
from holdfast.keys.tpm_health import TpmHealth
from holdfast.life.record import DeviceRecord
from holdfast.wire.errors import ConfigError, HoldfastError, KeyStoreError, StateError
from holdfast.wire.model import Moment
from holdfast.worker.assemble import key_settings

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
        self.read_tpm = cache(lambda: self._tpm_store().health())
        self._opened: TpmStore | None = None
        self._broken: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._opened is not None:
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
        return "tpm" if self.settings.keys.tcti else ""

    @property
    def now(self) -> Moment:
        return now(self.settings, self.record)

    @property
    def keys(self) -> TpmStore:
        """The key store, which answers."""
        self._needed("tpm", self.read_tpm, KeyStoreError)
        return self.open_keys()

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

    def _tpm_store(self) -> TpmStore:
        return self.open_keys()

    def _open_keys(self) -> TpmStore:
        self._opened = open_store(key_settings(self.settings))
        return self._opened
