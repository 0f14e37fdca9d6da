"""What a command that only looks needs: settings, record and time. No lock, no write, no TPM, no network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from holdfast.host.clock import BUILD_TIME, SystemClock, believed
from holdfast.host.config import IdentitySettings, Settings, load
from holdfast.host.store import StateStore
from holdfast.life.record import DeviceRecord
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Moment


@dataclass(frozen=True, slots=True)
class View:
    """``note`` says what was odd about the record on disk, or is empty."""

    settings: Settings
    record: DeviceRecord
    note: str
    now: Moment


def look(config: Path) -> View:
    """Raises ConfigError or StateError."""
    settings = load(config)
    loaded = StateStore(settings.state_directory).peek()
    record = loaded.record or DeviceRecord(floor=BUILD_TIME)
    return View(settings, record, loaded.note, now(settings, record))


def now(settings: Settings, record: DeviceRecord) -> Moment:
    """The time as a step would see it."""
    return believed(SystemClock(policy=settings.clock), record.proven, record.time_floor)


def chosen(settings: Settings, name: str | None) -> tuple[IdentitySettings, ...]:
    """The identity *name*, or all of them. Raises ConfigError that lists what there is."""
    if name is None:
        return settings.identities
    found = tuple(i for i in settings.identities if i.name == name)
    if not found:
        known = ", ".join(sorted(i.name for i in settings.identities))
        raise ConfigError("cli.identity", f"no identity {name}; there are: {known}")
    return found
