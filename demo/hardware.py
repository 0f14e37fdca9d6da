"""The key hardware of the staged device: a software TPM behind a meter, or a software PKCS#11 token."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from holdfast.keys.pkcs11_uri import parse
from holdfast_factory.authority import Factory
from holdfast_factory.device import Device, make_device
from holdfast_factory.ek import EK_AUTHORITY
from holdfast_factory.softhsm import SoftToken, make_token
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.token_device import TokenPlace, make_token_device
from holdfast_factory.tpm_meter import Command, TpmMeter

PIN: Final = "pin-of-the-demonstration"

_IN_TPM: Final = """\
keys:
  tcti: "{tcti}"
  storage: {storage}
idevid:
"""
_ON_TOKEN: Final = """\
keys:
  pkcs11:
    uri: "{uri}"
    module: {module}
    pin-file: {pin}
idevid:
  uri: "{idevid}"
"""


class Hardware(Protocol):
    """Where a device keeps its keys."""

    def provision(self, factory: Factory, serial: str, out: Path, now: datetime) -> Device:
        """Make it factory-fresh."""
        ...

    def settings(self) -> str:
        """The sections ``keys`` and ``idevid`` of the configuration; more lines of ``idevid`` may follow."""
        ...

    def take(self) -> tuple[Command, ...]:
        """The TPM commands since the last call; none where there is no TPM to watch."""
        ...


class MeteredTpm:
    """swtpm, and the meter through which the agent reaches it. ``opened`` closes both."""

    def __init__(self, state: Path, factory: Factory, storage: str, opened: ExitStack) -> None:
        authority = factory.directory / EK_AUTHORITY
        self.tpm = opened.enter_context(Swtpm(state, ek=True, ek_authority=authority))
        self.meter = opened.enter_context(TpmMeter(self.tpm.port))
        self._storage = storage

    def provision(self, factory: Factory, serial: str, out: Path, now: datetime) -> Device:
        return make_device(factory, self.meter.tcti, serial, out, now)

    def settings(self) -> str:
        return _IN_TPM.format(tcti=self.meter.tcti, storage=self._storage)

    def take(self) -> tuple[Command, ...]:
        return self.meter.take()


class Token:
    """SoftHSM2 with one token, seen by this process and those that it starts."""

    def __init__(self, directory: Path) -> None:
        self.token: SoftToken = make_token(directory, "gateway", PIN)
        self.token.see()
        self._idevid = ""

    def provision(self, factory: Factory, serial: str, out: Path, now: datetime) -> Device:
        place = TokenPlace(self.token.module, parse(self.token.uri), PIN.encode)
        made = make_token_device(factory, place, serial, out, now)
        self._idevid = made.idevid_uri
        return made

    def settings(self) -> str:
        token = self.token
        return _ON_TOKEN.format(uri=token.uri, module=token.module, pin=token.pin_file, idevid=self._idevid)

    def take(self) -> tuple[Command, ...]:
        return ()
