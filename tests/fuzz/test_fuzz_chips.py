"""Whatever a chip, a helper or a console says, only errors of our family come out of the line's acts."""

from __future__ import annotations

import base64
import contextlib
import zlib

from hypothesis import given, settings
from hypothesis import strategies as st

from effort import at_least
from holdfast.wire.errors import HoldfastError, KeyStoreError
from holdfast_factory.chips.commands import Command, parse_answer
from holdfast_factory.chips.remote import ShellLink
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.tpm_unit import TpmUnit
from holdfast_factory.unit import Certificates, Endorsement, SealedSecret, Shown

EXAMINER = TpmExaminer(())
ACTS = {
    "endorsement": lambda unit: unit.endorsement(),
    "keys": lambda unit: unit.keys("M", "S"),
    "activate": lambda unit: unit.activate(SealedSecret(b"a", b"b")),
    "install": lambda unit: unit.install(Certificates(b"one", b"two", b"")),
    "read back": lambda unit: unit.read_back(b"challenge"),
    "lock": lambda unit: unit.lock(),
}
codes = st.sampled_from([0, 0, 0, 0, 0x101, 0x18B, 0x902, 0x921, 0x922, 0x9A2])
numbers = st.integers(0, 2).map(lambda n: n.to_bytes(4, "big"))
parameters = st.lists(numbers | st.binary(max_size=24), max_size=6).map(b"".join)


def framed(rc: int, body: bytes, *, sessions: bool) -> bytes:
    tag = 0x8002 if sessions else 0x8001
    body = b"" if rc else body
    return tag.to_bytes(2, "big") + (10 + len(body)).to_bytes(4, "big") + rc.to_bytes(4, "big") + body


class Babble:
    """A chip that answers anything, in the form of an answer most of the time."""

    def __init__(self, data: st.DataObject) -> None:
        self._data = data

    def exchange(self, batch: tuple[bytes, ...]) -> tuple[bytes, ...]:
        answers: list[bytes] = []
        for _ in batch:
            draw = self._data.draw
            rc, body = draw(codes), draw(parameters)
            answers.append(framed(rc, body, sessions=draw(st.booleans())))
            if rc:
                break
        return tuple(answers)

    def close(self) -> None:
        pass


@settings(max_examples=at_least(60))
@given(st.data(), st.sampled_from(sorted(ACTS)))
def test_babbling_chip(data: st.DataObject, act: str) -> None:
    unit = TpmUnit(Babble(data), "babble")
    with contextlib.suppress(KeyStoreError):
        ACTS[act](unit)


@settings(max_examples=at_least(200))
@given(st.binary(max_size=64), st.booleans())
def test_answers(data: bytes, handle: bool) -> None:
    with contextlib.suppress(KeyStoreError):
        parse_answer(Command(0x131, gives_handle=handle), data)


@settings(max_examples=at_least(200))
@given(st.binary(max_size=80), st.binary(max_size=80), st.binary(max_size=80))
def test_examiner(first: bytes, second: bytes, third: bytes) -> None:
    endorsement = Endorsement(first, (second,))
    for judge in (
        lambda: EXAMINER.identify(endorsement),
        lambda: EXAMINER.keys(Shown(first, second, third), endorsement, "M", "S"),
    ):
        with contextlib.suppress(HoldfastError):
            judge()


class Console:
    """Says anything, now and then in the form of an answer."""

    def __init__(self, said: list[bytes]) -> None:
        self._said = [b"HF1 ready\n", *said]
        self._name = b"0"

    def send(self, data: bytes) -> None:
        self._name = data.split()[1] if data.startswith(b"HF1 ") and b"bye" not in data else self._name

    def receive(self, timeout: float) -> bytes:
        del timeout
        if not self._said:
            raise KeyStoreError("test.end")
        said = self._said.pop(0)
        if said[:1] != b"!":
            return said
        text = base64.b64encode(said[1:])
        return b"HF1 %s %08x %s\n" % (self._name, zlib.crc32(self._name + text), text)

    def close(self) -> None:
        pass


@settings(max_examples=at_least(100))
@given(st.lists(st.binary(max_size=60) | st.binary(max_size=40).map(lambda b: b"!" + b), max_size=4))
def test_console(said: list[bytes]) -> None:
    with contextlib.suppress(KeyStoreError):
        ShellLink(Console(said), "fuzz").exchange((b"x",))
