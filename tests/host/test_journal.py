"""Events: bytes as the journal's native protocol wants them, lines for a person otherwise."""

from __future__ import annotations

import array
import fcntl
import io
import os
import socket
from pathlib import Path

from holdfast.host.journal import (
    INFO,
    WARNING,
    JournalLog,
    Message,
    TerminalLog,
    encode,
    leads_to_journal,
    log_for,
)

F_GET_SEALS = 1034
MESSAGE = Message("0" * 32, INFO)
ALARM = Message("1" * 32, WARNING)


def parse(entry: bytes) -> dict[str, bytes]:
    """An independent reading of the protocol."""
    fields: dict[str, bytes] = {}
    while entry:
        line, _, rest = entry.partition(b"\n")
        if b"=" in line:
            name, _, value = line.partition(b"=")
        else:
            length = int.from_bytes(rest[:8], "little")
            name, value, rest = line, rest[8 : 8 + length], rest[8 + length :]
            assert rest[:1] == b"\n"
            rest = rest[1:]
        fields[name.decode()] = value
        entry = rest
    return fields


def test_values_with_lines_carry_their_length() -> None:
    assert encode({"A": "b=c", "D": "", "E": "f\ng"}) == b"A=b=c\nE\n\x03\0\0\0\0\0\0\0f\ng\n"


def test_no_value_becomes_another_field() -> None:
    assert parse(encode({"MESSAGE": "x\nPRIORITY=0", "Z": "1"})) == {"MESSAGE": b"x\nPRIORITY=0", "Z": b"1"}


def test_an_entry_is_one_datagram_and_a_large_one_a_sealed_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(str(tmp_path / "journal"))
        journal.settimeout(60)
        log = JournalLog(str(tmp_path / "journal"))
        log.event(MESSAGE, "hello", {"HOLDFAST_STATE": "well", "HOLDFAST_REASON": ""})
        assert parse(journal.recv(1 << 16)) == {
            "MESSAGE": b"hello",
            "MESSAGE_ID": b"0" * 32,
            "PRIORITY": b"6",
            "SYSLOG_IDENTIFIER": b"holdfastd",
            "HOLDFAST_STATE": b"well",
        }
        log.event(MESSAGE, "x" * 500_000)
        data, control, *_ = journal.recvmsg(16, socket.CMSG_LEN(4))
        assert data == b""
        (descriptor,) = array.array("i", control[0][2])
        with os.fdopen(descriptor, "rb") as file:
            file.seek(0)
            assert parse(file.read())["MESSAGE"] == b"x" * 500_000
            assert fcntl.fcntl(descriptor, F_GET_SEALS) == 0b1111, "the journal takes no other"
        log._socket.close()


def test_a_journal_that_is_not_there_stops_nobody(tmp_path: Path) -> None:
    log = JournalLog(str(tmp_path / "nothing"))
    log.event(MESSAGE, "hello")
    log.event(MESSAGE, "x" * 500_000)
    log._socket.close()


def test_a_person_reads_one_line_and_no_control_character() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    log = TerminalLog(stream)
    log.event(ALARM, "evil\x1b[2J\nname \u2026", {"HOLDFAST_STATE": "x"})
    log.event(MESSAGE, "well")
    stream.seek(0)
    first, second = stream.read().splitlines()
    assert first[8:] == r" ! evil [2J name \u2026"
    assert second[8:] == " well"
    stream.close()
    log.event(MESSAGE, "too late")


def test_the_journal_is_chosen_where_standard_error_leads_there(tmp_path: Path) -> None:
    with (tmp_path / "err").open("w") as stream:
        status = os.fstat(stream.fileno())
        there = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert leads_to_journal(there, stream)
        log = log_for(there, stream)
        assert isinstance(log, JournalLog)
        log._socket.close()
        for elsewhere in ({}, {"JOURNAL_STREAM": "1:2"}, {"JOURNAL_STREAM": "x"}):
            assert isinstance(log_for(elsewhere, stream), TerminalLog)
    assert not leads_to_journal({}, io.StringIO())
