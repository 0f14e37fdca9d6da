"""Who may use the line screen: passwords, roles, sessions, and their bounds."""

from __future__ import annotations

import itertools
import stat
from pathlib import Path

import pytest

from holdfast.wire.errors import ConfigError, StateCorrupt
from holdfast_factory.screen import people
from holdfast_factory.screen.people import Role
from holdfast_factory.screen.sessions import (
    LIFETIME,
    MAX_FAILURES,
    MAX_SESSIONS,
    PAUSE,
    Sessions,
    same_token,
)

PASSWORD = "correct horse battery"


def test_a_person_is_known_by_name_and_password(tmp_path: Path) -> None:
    people.admit(tmp_path, "ada", Role.OPERATOR, PASSWORD)
    people.admit(tmp_path, "grace", Role.SUPERVISOR, PASSWORD + "!")
    found = people.known(tmp_path, "grace", PASSWORD + "!")
    assert found is not None
    assert found.role is Role.SUPERVISOR
    assert people.known(tmp_path, "grace", PASSWORD) is None
    assert people.known(tmp_path, "nobody", PASSWORD) is None


def test_the_file_is_private_and_holds_no_password(tmp_path: Path) -> None:
    people.admit(tmp_path, "ada", Role.OPERATOR, PASSWORD)
    path = tmp_path / people.FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert PASSWORD.encode() not in path.read_bytes()


def test_equal_passwords_have_unequal_hashes(tmp_path: Path) -> None:
    people.admit(tmp_path, "ada", Role.OPERATOR, PASSWORD)
    people.admit(tmp_path, "grace", Role.OPERATOR, PASSWORD)
    both = people.people(tmp_path)
    assert both["ada"].hash != both["grace"].hash


def test_admitting_again_replaces(tmp_path: Path) -> None:
    people.admit(tmp_path, "ada", Role.OPERATOR, PASSWORD)
    people.admit(tmp_path, "ada", Role.SUPERVISOR, PASSWORD + "!")
    assert people.known(tmp_path, "ada", PASSWORD) is None
    assert people.people(tmp_path)["ada"].role is Role.SUPERVISOR


def test_the_dismissed_are_gone(tmp_path: Path) -> None:
    people.admit(tmp_path, "ada", Role.OPERATOR, PASSWORD)
    people.dismiss(tmp_path, "ada")
    assert people.known(tmp_path, "ada", PASSWORD) is None
    with pytest.raises(ConfigError, match="'ada' is nobody here"):
        people.dismiss(tmp_path, "ada")


@pytest.mark.parametrize("name", ["", "Ada", "a b", "x" * 33, "-a", "ada\n"])
def test_names_are_plain(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        people.admit(tmp_path, name, Role.OPERATOR, PASSWORD)


@pytest.mark.parametrize("password", ["", "ninechars", "x" * 1025])
def test_passwords_have_bounds(tmp_path: Path, password: str) -> None:
    with pytest.raises(ConfigError, match="password: 10 to 1024"):
        people.admit(tmp_path, "ada", Role.OPERATOR, password)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'[{"name":"a"}]', b'[{"name":"a","role":"root","salt":"","hash":""}]']
)
def test_a_spoilt_file_lets_nobody_in(tmp_path: Path, content: bytes) -> None:
    (tmp_path / people.FILE).write_bytes(content)
    with pytest.raises(StateCorrupt, match=r"factory\.people"):
        people.known(tmp_path, "ada", PASSWORD)


@pytest.fixture
def seconds() -> FakeSeconds:
    return FakeSeconds()


class FakeSeconds:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def sessions(seconds: FakeSeconds) -> Sessions:
    count = itertools.count()
    return Sessions(seconds, lambda size: f"random-{size}-{next(count)}")


def test_a_session_ends_after_a_shift(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    cookie = held.begin("ada", Role.OPERATOR)
    seconds.now += LIFETIME - 1
    assert held.find(cookie) is not None
    seconds.now += 1
    assert held.find(cookie) is None


def test_logging_out_ends_it(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    cookie = held.begin("ada", Role.OPERATOR)
    held.end(cookie)
    assert held.find(cookie) is None
    assert held.find("") is None


def test_the_token_of_another_session_is_refused(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    one, other = (held.find(held.begin(name, Role.OPERATOR)) for name in ("ada", "grace"))
    assert one is not None
    assert other is not None
    assert same_token(one, one.form_token)
    assert not same_token(one, other.form_token)
    assert not same_token(one, "é")


def test_the_number_of_sessions_is_bounded(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    cookies = [held.begin("ada", Role.OPERATOR) for _ in range(MAX_SESSIONS + 1)]
    assert held.find(cookies[0]) is None
    assert held.find(cookies[1]) is not None


def test_guessing_has_to_wait(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    for _ in range(MAX_FAILURES):
        assert held.wait("ada") == 0
        held.failed("ada")
    assert held.wait("ada") == PAUSE
    assert held.wait("grace") == 0
    seconds.now += PAUSE
    assert held.wait("ada") == 0
    held.failed("ada")
    assert held.wait("ada") == 0, "the count begins anew"


def test_a_good_login_forgets_the_failures(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    for _ in range(MAX_FAILURES - 1):
        held.failed("ada")
    held.begin("ada", Role.OPERATOR)
    held.failed("ada")
    assert held.wait("ada") == 0


def test_names_that_fail_do_not_fill_the_memory(seconds: FakeSeconds) -> None:
    held = sessions(seconds)
    for _ in range(MAX_FAILURES):
        held.failed("first")
    for number in range(1000):
        held.failed(f"n{number}")
    assert held.wait("first") == 0, "the oldest made room"
