"""Telling other programs that their files changed: hooks, without a shell and bounded in time.

A hook sees the variables that :func:`environment` names and no others, the root directory, no input, and our
standard error for its output, which is the journal of a service.
"""

from __future__ import annotations

import grp
import os
import pwd
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from holdfast.host.config_model import DeploySettings, HookSettings
from holdfast.host.credentials import UNCHANGED, Access
from holdfast.wire.errors import ConfigError, HoldfastError

AFTER_KILL_SECONDS: Final = 5.0


class HookError(HoldfastError):
    """A hook failed: ``deploy.hook-missing``, ``-denied``, ``-failed``, ``-killed`` or ``-timeout``."""


def access(settings: DeploySettings) -> Access:
    """Owner, group and modes as numbers, asked of the host now. Raises ConfigError ``config.owner``."""
    return Access(
        uid=_number(settings.owner, lambda name: pwd.getpwnam(name).pw_uid),
        gid=_number(settings.group, lambda name: grp.getgrnam(name).gr_gid),
        mode=settings.mode,
        key_mode=settings.key_mode,
    )


def environment(identity: str, generation: int, directory: Path) -> Mapping[str, str]:
    """All that a hook finds in its environment. *directory* is the path of ``current``."""
    return {
        "HOLDFAST_IDENTITY": identity,
        "HOLDFAST_GENERATION": str(generation),
        "HOLDFAST_DIRECTORY": str(directory),
        "HOLDFAST_CHAIN": str(directory / "chain.pem"),
        "HOLDFAST_ANCHORS": str(directory / "anchors.pem"),
        "HOLDFAST_KEY": str(directory / "key.pem"),
    }


def run_hook(hook: HookSettings, variables: Mapping[str, str]) -> None:
    """Run *hook* to its end. Raises HookError; what it started is killed when its time is over."""
    name = hook.argv[0]
    try:
        process = _start(hook.argv, variables)
    except FileNotFoundError:
        raise HookError("deploy.hook-missing", f"there is no program {name}") from None
    except OSError as error:
        raise HookError("deploy.hook-denied", f"{name} cannot be started: {error.strerror}") from None
    except ValueError as error:
        raise HookError("deploy.hook-denied", f"{name} cannot be started: {error}") from None
    try:
        status = process.wait(hook.timeout_seconds)
    except subprocess.TimeoutExpired:
        raise HookError(
            "deploy.hook-timeout", f"{_shown(hook.argv)} did not end within {hook.timeout_seconds:g} s"
        ) from None
    finally:
        if process.returncode is None:
            _kill(process)
    if status < 0:
        raise HookError("deploy.hook-killed", f"{_shown(hook.argv)} was ended by signal {-status}")
    if status > 0:
        raise HookError("deploy.hook-failed", f"{_shown(hook.argv)} ended with status {status}")


def _start(argv: Sequence[str], variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(  # noqa: S603 - an argument list of the configuration, no shell
        argv,
        env=dict(variables),
        stdin=subprocess.DEVNULL,
        stdout=_journal(),
        stderr=_journal(),
        cwd="/",
        start_new_session=True,
    )


def _journal() -> int:
    """Our standard error, if there is one: standard output may carry a report."""
    try:
        descriptor = sys.__stderr__.fileno() if sys.__stderr__ is not None else -1
        os.fstat(descriptor)
    except (OSError, ValueError):
        return subprocess.DEVNULL
    return descriptor


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The whole session of the hook: it may have started others."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    except PermissionError:  # it became another user, and is not ours to kill
        process.poll()
        return
    try:
        process.wait(AFTER_KILL_SECONDS)
    except subprocess.TimeoutExpired:
        return


def _shown(argv: Sequence[str]) -> str:
    """Program and first arguments; an argument may hold anything, so not all of it."""
    return " ".join(argv)[:120]


def _number(name: str | None, ask: Callable[[str], int]) -> int:
    if name is None:
        return UNCHANGED
    if name.isdigit():
        return int(name)
    try:
        return ask(name)
    except KeyError:
        raise ConfigError("config.owner", f"this host knows no user or group {name!r}") from None
