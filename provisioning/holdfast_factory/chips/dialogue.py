"""A dialogue with a TPM: a generator that yields batches of commands and is sent their answers.

The commands of a batch do not depend on each other's answers, so one round trip carries them all, however
far the chip is. The unit runs them in order and stops at the first that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Final, Protocol, TypeVar

from holdfast.keys.tpm_faults import bare_code, fault
from holdfast.wire.errors import KeyStoreError, RemoteProtocolError
from holdfast_factory.chips import commands
from holdfast_factory.chips.commands import Answer, Command, parse_answer
from holdfast_factory.tpm_commands import command_name

Batch = tuple[Command, ...]
Answers = tuple[Answer, ...]
T = TypeVar("T")
Dialogue = Generator[Batch, Answers, T]

_TRANSIENT, _LOADED_SESSIONS = 0x80000000, 0x02000000
_MOST_LISTED: Final = 64


class Link(Protocol):
    """A wire to a TPM."""

    def exchange(self, batch: tuple[bytes, ...]) -> tuple[bytes, ...]:
        """Run the commands in order until one fails: one answer to each that ran.

        Raises KeyStoreUnavailable.
        """
        ...

    def close(self) -> None: ...


class TpmRefusal(Exception):
    """A command failed. ``rc`` is the TPM's response code, ``done`` the answers before it."""

    def __init__(self, command: Command, rc: int, done: Answers) -> None:
        super().__init__(command_name(command.code), hex(rc))
        self.command = command
        self.rc = rc
        self.done = done

    def is_code(self, *codes: int) -> bool:
        return bare_code(self.rc) in codes


def hold(link: Link, dialogue: Callable[[], Dialogue[T]], doing: str) -> T:
    """The result of *dialogue* over *link*. Raises kinds of KeyStoreError that say what was *doing*."""
    talk = dialogue()
    try:
        batch = next(talk)
        while True:
            try:
                answers = _run(link, batch)
            except (TpmRefusal, KeyStoreError) as error:
                batch = talk.throw(error)
            else:
                batch = talk.send(answers)
    except StopIteration as end:
        result: T = end.value
        return result
    except RemoteProtocolError as error:  # an answer that is cut off, or none at all
        raise KeyStoreError("tpm.answer", f"{doing}: {error.detail}") from error
    except TpmRefusal as refusal:
        name = command_name(refusal.command.code)
        raise fault(refusal.rc, f"{name} refused", doing) from refusal


def sweep(link: Link) -> int:
    """Flush every transient object and session; how many there were. For a unit that is ours alone."""

    def flush_all() -> Dialogue[int]:
        objects, sessions = yield (
            commands.handles(_TRANSIENT, _MOST_LISTED),
            commands.handles(_LOADED_SESSIONS, _MOST_LISTED),
        )
        found = (*commands.listed(objects), *commands.listed(sessions))
        if found:
            yield tuple(map(commands.flush, found))
        return len(found)

    return hold(link, flush_all, "flush what was left")


def leftovers(answer: Answer) -> int:
    """How many transient objects :func:`transients` found."""
    return len(commands.listed(answer))


def transients() -> Command:
    return commands.handles(_TRANSIENT, _MOST_LISTED)


def _run(link: Link, batch: Batch) -> Answers:
    received = link.exchange(tuple(command.octets for command in batch))
    if not received or len(received) > len(batch):
        raise KeyStoreError("tpm.answer", f"{len(received)} answers to {len(batch)} commands")
    done: list[Answer] = []
    for command, data in zip(batch, received, strict=False):
        answer = parse_answer(command, data)
        if answer.rc:
            raise TpmRefusal(command, answer.rc, tuple(done))
        done.append(answer)
    if len(done) < len(batch):
        raise KeyStoreError("tpm.answer", f"{len(done)} answers to {len(batch)} commands")
    return tuple(done)
