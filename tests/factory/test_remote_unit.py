"""Units at the other end of a shell: two pseudo-terminals are the serial line, a real shell the console."""

from __future__ import annotations

import base64
import contextlib
import os
import pty
import select
import subprocess
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from factory.chips import Maker
from factory.test_tpm_unit import whole
from holdfast.wire.errors import ConfigError, KeyStoreError, KeyStoreUnavailable
from holdfast_factory.chips import commands
from holdfast_factory.chips.dialogue import Dialogue, hold
from holdfast_factory.chips.remote import HELPER, ShellLink, over_serial, program, typed
from holdfast_factory.places import examiner_for, open_unit
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer
from holdfast_factory.tpm_unit import TpmUnit

pytestmark = pytest.mark.tpm


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture
def chip(maker: Maker, request: pytest.FixtureRequest) -> Iterator[Swtpm]:
    with maker.chip(request.node.name.replace("/", "-").replace("[", "-").replace("]", "")) as running:
        yield running


def tcp(chip: Swtpm) -> str:
    """The chip, as the helper reaches it."""
    return f"tcp:127.0.0.1:{chip.port}"


class Cable:
    """A null-modem cable between two pseudo-terminals. ``ours`` and ``far`` are their devices; *spoil* may
    change what comes from the unit, piece by piece."""

    def __init__(self, spoil: Callable[[bytes], bytes] = lambda data: data) -> None:
        self._masters: list[int] = []
        self._slaves: list[int] = []
        for _ in range(2):
            master, slave = pty.openpty()
            self._masters.append(master)
            self._slaves.append(slave)
        self.ours, self.far = map(os.ttyname, self._slaves)
        self._stop, self._wake = os.pipe()
        self._spoil = spoil
        self._thread = threading.Thread(target=self._carry)
        self._thread.start()

    def _carry(self) -> None:
        near, far = self._masters
        while True:
            ready, _, _ = select.select([near, far, self._stop], [], [])
            if self._stop in ready:
                return
            for source, sink, change in ((near, far, bytes), (far, near, self._spoil)):
                if source in ready:
                    os.write(sink, change(os.read(source, 4096)))

    def close(self) -> None:
        os.write(self._wake, b"x")
        self._thread.join()
        for each in (*self._masters, *self._slaves, self._stop, self._wake):
            os.close(each)


@contextmanager
def console(cable: Cable, *shell: str) -> Iterator[subprocess.Popen[bytes]]:
    """A shell at the far end of *cable*, as on the console of an image for production: with echo."""
    end = os.open(cable.far, os.O_RDWR | os.O_NOCTTY)
    process = subprocess.Popen(
        ["setsid", "-c", *(shell or ("bash", "--norc", "-i"))], stdin=end, stdout=end, stderr=end
    )
    os.close(end)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.kill()
        process.wait()


@pytest.fixture
def cable() -> Iterator[Cable]:
    made = Cable()
    try:
        yield made
    finally:
        made.close()


def test_whole_flow_over_a_serial_console(maker: Maker, chip: Swtpm, cable: Cable) -> None:
    place = f"serial:{cable.ours}?tpm={tcp(chip)}"
    with console(cable):
        opened = open_unit(place)
        assert isinstance(opened, TpmUnit)
        try:
            whole(opened, TpmExaminer(maker.roots))
        finally:
            opened.close()
    assert isinstance(examiner_for(place, maker.roots), TpmExaminer)


def test_round_trips_are_few(maker: Maker, chip: Swtpm, cable: Cable) -> None:
    with console(cable):
        link = over_serial(cable.ours, tcp(chip))
        with TpmUnit(link, "bench") as opened:
            whole(opened, TpmExaminer(maker.roots))
    assert link.round_trips == 12
    assert link.repeated == 0


def test_shell_with_short_lines_takes_the_program() -> None:
    assert max(map(len, typed("/dev/tpmrm0").split(b"\n"))) < 1000


def test_station_that_died_leaves_a_helper_that_the_next_one_sends_away(
    maker: Maker, chip: Swtpm, cable: Cable
) -> None:
    with console(cable):
        first = over_serial(cable.ours, tcp(chip))
        assert hold(first, look_at_it, "ask") == ()
        with TpmUnit(over_serial(cable.ours, tcp(chip)), "bench") as opened:
            whole(opened, TpmExaminer(maker.roots))
        first._channel.close()


def look_at_it() -> Dialogue[tuple[int, ...]]:
    (answer,) = yield (commands.handles(0x80000000, 1),)
    return commands.listed(answer)


def test_kernel_messages_and_lost_lines_do_no_harm(maker: Maker, chip: Swtpm) -> None:
    """Noise before, between and inside of answers: what is spoilt is asked again, and not done twice."""
    lines = 0

    def spoil(data: bytes) -> bytes:
        nonlocal lines
        lines += data.count(b"HF1 ")
        if lines % 3 == 0 and b"HF1 " in data:
            at = data.index(b"HF1 ") + 20
            return data[:at] + b"[  12.3] usb 1-1: new device\r\n" + data[at:]
        return b"[  12.4] random: crng init done\r\n" + data

    cable = Cable(spoil)
    try:
        with console(cable):
            link = over_serial(cable.ours, tcp(chip), patience=2.0)
            with TpmUnit(link, "bench") as opened:
                whole(opened, TpmExaminer(maker.roots))
        assert link.repeated > 0
    finally:
        cable.close()


def test_no_shell_is_said(cable: Cable) -> None:
    with pytest.raises(KeyStoreUnavailable) as caught:
        over_serial(cable.ours, "/dev/tpmrm0", starting=0.1)
    assert caught.value.code == "factory.unit-silent"


def test_no_line_is_said() -> None:
    with pytest.raises(KeyStoreUnavailable) as caught:
        over_serial("/nonexistent/ttyS0", "/dev/tpmrm0")
    assert caught.value.code == "factory.unit-gone"


def test_no_tpm_is_said(cable: Cable) -> None:
    with console(cable):
        link = over_serial(cable.ours, "/nonexistent/tpm")
        with pytest.raises(KeyStoreUnavailable) as caught:
            hold(link, look_at_it, "ask")
        link.close()
    assert caught.value.code == "key.tpm-unreachable"


@pytest.mark.parametrize(
    "place",
    [
        "",
        "tcti:",
        "usb:1",
        "serial:/dev/ttyS0?baud=12345",
        "serial:/dev/ttyS0?speed=9600",
        "ssh:-oProxyCommand=x",
    ],
)
def test_wrong_place_is_refused(place: str) -> None:
    with pytest.raises(ConfigError):
        open_unit(place)


# -- the line's own form


class Talk:
    """A channel at whose end the test answers."""

    def __init__(self, *answers: bytes) -> None:
        self.sent = b""
        self._answers = [b"HF1 ready\n", *answers]

    def send(self, data: bytes) -> None:
        self.sent += data

    def receive(self, timeout: float) -> bytes:
        if not self._answers:
            return b""
        answer = self._answers.pop(0)
        asked = self.sent.split()
        return answer.replace(b"NUMBER", asked[-3]) if len(asked) > 2 else answer

    def close(self) -> None:
        pass


def framed(text: bytes) -> Callable[[bytes], bytes]:
    return lambda number: b"HF1 %s %08x %s\n" % (number, zlib.crc32(number + text), text)


def test_answer_to_another_question_is_passed_over() -> None:
    link = ShellLink(Talk(framed(b"AAAA")(b"12")), "bench", patience=0.01)
    with pytest.raises(KeyStoreUnavailable):
        link.exchange((b"x",))
    assert link.repeated == 2


@pytest.mark.parametrize("text", [b"****", base64.b64encode(b"\x80\x01\0\0\0\x63")])
def test_answer_that_is_none_is_refused(text: bytes) -> None:
    class Fixed(Talk):
        def receive(self, timeout: float) -> bytes:
            asked = self.sent.split()
            return framed(text)(asked[1]) if asked else b"HF1 ready\n"

    with pytest.raises(KeyStoreError) as caught:
        ShellLink(Fixed(), "bench", patience=0.1).exchange((b"x",))
    assert caught.value.code == "factory.unit-answer"


def test_program_is_the_helper() -> None:
    assert zlib.decompress(base64.b64decode(program())) == HELPER.read_bytes()
