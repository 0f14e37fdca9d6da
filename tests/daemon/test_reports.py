"""What workers tell is read with suspicion: either it has its meaning, or it is unusable; nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from daemon.workers import REPORT, SETTINGS
from holdfast.resident.reports import (
    LONGEST_WAIT,
    MAX_IDENTITIES,
    MAX_LINE,
    MAX_TEXT,
    Progress,
    Refusal,
    Report,
    Settings,
    UnusableError,
    read_line,
)


def line(value: Any) -> bytes:
    return json.dumps(value).encode()


def test_settings() -> None:
    told = read_line(line(SETTINGS))
    assert isinstance(told, Settings)
    assert [i.name for i in told.identities] == ["ldevid"]
    assert told.metrics_listen is None
    told = read_line(
        line({"settings": {**SETTINGS["settings"], "metrics_listen": {"host": "::1", "port": 9}}})
    )
    assert isinstance(told, Settings)
    assert told.metrics_listen == ("::1", 9)


def test_a_report() -> None:
    trouble = {"code": "est.x", "detail": "d", "clause": "c", "retry": "operator", "at": None}
    told = read_line(
        line({**REPORT, "trouble": trouble, "steps": [{"name": "Enroll", "began": 2, "ended": 3.5}]})
    )
    assert isinstance(told, Report)
    assert told.trouble is not None
    assert (told.trouble.code, told.trouble.retry, told.trouble.at) == ("est.x", "operator", "")
    assert told.effects[0].seconds == 1.5
    assert (told.tpm_commands, told.tpm_seconds, told.lockout, told.clock) == (5, 0.25, 0, "trusted")


def test_numbers_and_texts_are_bounded() -> None:
    told = read_line(line({**REPORT, "wait_seconds": 1e12, "state": "x" * 100_000}))
    assert isinstance(told, Report)
    assert (told.wait, len(told.state)) == (LONGEST_WAIT, MAX_TEXT)
    told = read_line(line({**REPORT, "wait_seconds": -5}))
    assert isinstance(told, Report)
    assert told.wait == 0.0


def test_an_error_and_progress() -> None:
    assert isinstance(read_line(b'{"ok": false, "error": {"code": "a.b"}}'), Refusal)
    assert read_line(b'{"progress": {"doing": "x", "allow": 5}}') == Progress("x", "", 5.0)


@pytest.mark.parametrize(
    "told",
    [
        None,
        7,
        "text",
        [],
        {},
        {"settings": []},
        {"settings": {"worker_seconds": "long"}},
        {"settings": {**SETTINGS["settings"], "identities": [{"name": "x"}]}},
        {
            "settings": {
                **SETTINGS["settings"],
                "identities": [{"name": "x", "chain": ""}] * (MAX_IDENTITIES + 1),
            }
        },
        {"progress": {"doing": "x"}},
        {"progress": {"doing": 5, "allow": 5}},
        {"progress": {"doing": "x", "allow": True}},
        {"error": {"detail": "no code"}},
        {**REPORT, "agent": None},
        {**REPORT, "steps": {}},
        {**REPORT, "steps": [7]},
        {**REPORT, "wait_seconds": "soon"},
        {**REPORT, "trouble": "bad"},
        {**REPORT, "agent": {"tpm_commands": "many"}},
        {**REPORT, "agent": {"identities": [{"name": "x"}]}},
    ],
)
def test_what_is_not_as_described_is_unusable(told: Any) -> None:
    with pytest.raises(UnusableError):
        read_line(line(told))


def test_a_line_has_an_end() -> None:
    with pytest.raises(UnusableError):
        read_line(b" " * (MAX_LINE + 1))
