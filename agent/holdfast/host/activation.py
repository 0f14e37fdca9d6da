"""Tell the service manager which identities are active, without a privilege: by files that path units watch.

``/run/holdfast/identities/<name>/active`` stands there while other programs can use the identity. It makes
``holdfast-identity@<name>.path`` start ``holdfast-identity@<name>.target``, and that starts who waits for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from holdfast.host.durable import Directory, storage_errors

ACTIVE: Final = "active"
IDENTITIES: Final = "identities"
_MODE: Final = 0o755


def runtime_directory(environ: Mapping[str, str]) -> Path | None:
    """What systemd made for this service (``RuntimeDirectory=``); None without it."""
    first = environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(first) if first else None


def show_active(runtime: Path, active: Iterable[str]) -> None:
    """Let the files below *runtime* say that *active* are, and no others. Writes only what changed.

    Raises StateError ``activation.*``.
    """
    wanted = frozenset(active)
    with (
        storage_errors("activation", f"show active identities in {runtime}"),
        Directory.make(runtime, _MODE) as home,
        home.child(IDENTITIES, _MODE) as known,
    ):
        for name in sorted(known.names() | wanted):
            with known.child(name, _MODE) as identity:
                _show(identity, shown=name in wanted)


def _show(identity: Directory, *, shown: bool) -> None:
    there = ACTIVE in identity.names()
    if shown and not there:
        identity.write(ACTIVE, b"", 0o644)
    elif there and not shown:
        identity.remove(ACTIVE)
