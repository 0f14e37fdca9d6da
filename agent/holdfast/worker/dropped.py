"""Identities that the configuration does not name any more.

They stop at once: no renewal, no request. What they hold stays for a while, because a line that is missing
may be a mistake. Then the files go first, so that no program is left with a reference to nothing, and the key
after them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from holdfast.host.config import Settings
from holdfast.host.credentials import CredentialFiles
from holdfast.life import events as ev
from holdfast.life.record import DeviceRecord, Identity
from holdfast.life.renewal import later
from holdfast.wire.errors import StateError
from holdfast.wire.model import Moment, RandomBytes
from holdfast.worker.agenda import waiting
from holdfast.worker.setbacks import next_attempt, trouble

GRACE: Final = timedelta(days=7)
"""How long a dropped identity can come back as it was. Counted by a trusted clock only."""


def settle(
    record: DeviceRecord,
    settings: Settings,
    now: Moment,
    random: RandomBytes,
    note: Callable[[ev.IdentityEvent, str], None],
) -> None:
    """See which identities of *record* were dropped or came back, and tell *note* what that means."""
    named = {s.name for s in settings.identities}
    for entry in record.identities:
        if entry.name in named:
            if entry.dropped is not None:
                note(ev.IdentityRestored(), entry.name)
        elif entry.dropped is None:
            note(ev.IdentityDropped(), entry.name)
        elif _over(entry, now) and not waiting(entry.schedule, now):
            note(_forget(entry, settings, now, random), entry.name)


def dropped_due(record: DeviceRecord) -> tuple[datetime, ...]:
    """When a step has something to do for the dropped identities."""
    return tuple(
        entry.schedule.due or later(entry.dropped, GRACE)
        for entry in record.identities
        if entry.dropped is not None
    )


def _over(entry: Identity, now: Moment) -> bool:
    return entry.dropped is not None and now.trusted and now.now >= later(entry.dropped, GRACE)


def _forget(entry: Identity, settings: Settings, now: Moment, random: RandomBytes) -> ev.IdentityEvent:
    directory = Path(entry.directory or settings.state_directory / "identities")
    try:
        CredentialFiles(directory, entry.name).remove()
    except StateError as error:
        return ev.AttemptFailed(trouble(error, now), next_attempt(entry.schedule, error, now, random))
    return ev.IdentityForgotten()
