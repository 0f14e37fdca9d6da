"""A token as bad as one can be, played by a double: SoftHSM2 neither locks itself nor fills up."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pkcs11
import pytest
from pkcs11 import TokenFlag

from holdfast.keys import pkcs11_module
from holdfast.keys.api import KeySpec
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11_faults import fault
from holdfast.keys.pkcs11_pin import REFUSED
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.errors import KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable, Retry

READY = TokenFlag.LOGIN_REQUIRED | TokenFlag.TOKEN_INITIALIZED | TokenFlag.USER_PIN_INITIALIZED
LOW, FINAL, LOCKED = (
    READY | flag
    for flag in (TokenFlag.USER_PIN_COUNT_LOW, TokenFlag.USER_PIN_FINAL_TRY, TokenFlag.USER_PIN_LOCKED)
)
PIN = "1234"


class Double:
    """Module, slot, token and session in one. It takes PINs until ``tries`` of them were wrong."""

    manufacturer_id = "Test"
    library_description = slot_description = model = ""
    library_version = (1, 0)
    label, serial = "gateway", b"0001"

    def __init__(self) -> None:
        self.slot_id = 1
        self.flags = READY
        self.pin = PIN
        self.logins: list[str] = []
        self.opened_in: list[int] = []
        self.faults: list[Exception] = []
        self.present = True

    @property
    def slot(self) -> Double:
        return self

    def get_slots(self, *, token_present: bool) -> list[Double]:
        assert token_present
        return [self] if self.present else []

    def get_token(self) -> Double:
        return self

    def open(self, *, rw: bool, user_pin: str | None = None) -> Double:
        assert rw
        if user_pin is not None:
            self.logins.append(user_pin)
            if user_pin != self.pin:
                self.flags = {READY: LOW, LOW: FINAL, FINAL: LOCKED}[self.flags]
                raise pkcs11.PinIncorrect
            self.flags = READY
        self.opened_in.append(self.slot_id)
        return self

    def close(self) -> None:
        """As sessions do."""

    def finalize(self) -> None:
        """As modules do."""

    def get_objects(self, attributes: object) -> list[object]:
        if self.faults:
            raise self.faults.pop(0)
        return []


@pytest.fixture
def token(monkeypatch: pytest.MonkeyPatch) -> Double:
    double = Double()
    monkeypatch.setattr(pkcs11_module, "_load", lambda _path: double)
    return double


def step(directory: Path, pin: str = PIN):
    """What one process does: open, list, close."""
    settings = Pkcs11Settings(Path("/m.so"), parse("pkcs11:token=gateway"), directory, pin.encode)
    with open_store(settings) as store:
        return store.refs()


def locked(directory: Path, pin: str = PIN) -> KeyLocked:
    with pytest.raises(KeyLocked) as caught:
        step(directory, pin)
    assert caught.value.retry is Retry.OPERATOR
    return caught.value


def test_a_wrong_pin_costs_one_try_however_often_the_agent_comes_back(token: Double, tmp_path: Path) -> None:
    assert locked(tmp_path, "0000").code == "key.pin-wrong"
    for _ in range(5):
        assert locked(tmp_path, "0000").code == "key.pin-refused"
    assert token.logins == ["0000"]
    assert step(tmp_path) == frozenset()


def test_the_tries_that_are_left_are_told(token: Double, tmp_path: Path) -> None:
    assert "more than one try is left" in locked(tmp_path, "0001").detail
    assert "one try is left before it locks itself" in locked(tmp_path, "0002").detail


@pytest.mark.parametrize(("flags", "code"), [(FINAL, "key.pin-final-try"), (LOCKED, "key.pin-locked")])
def test_the_last_try_is_left_to_a_person(token: Double, tmp_path: Path, flags: TokenFlag, code: str) -> None:
    token.flags = flags
    assert locked(tmp_path).code == code
    assert token.logins == []


def test_a_try_on_a_token_that_counts_is_remembered_before_it_is_made(token: Double, tmp_path: Path) -> None:
    """A power cut between the token's no and our note of it must not buy a second try."""
    token.flags = LOW
    seen = []
    original = token.open

    def power_cut(*, rw: bool, user_pin: str | None = None) -> Double:
        seen.append((tmp_path / REFUSED).exists())
        raise KeyboardInterrupt

    token.open = power_cut  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        step(tmp_path, "0000")
    token.open = original  # type: ignore[method-assign]
    assert seen == [True]
    assert locked(tmp_path, "0000").code == "key.pin-refused"
    assert token.logins == []
    assert step(tmp_path) == frozenset()
    assert not (tmp_path / REFUSED).exists()


def test_a_token_that_locks_itself_in_the_login(token: Double, tmp_path: Path) -> None:
    def lock(*, rw: bool, user_pin: str | None = None) -> Double:
        raise pkcs11.PinLocked

    token.open = lock  # type: ignore[method-assign]
    assert locked(tmp_path).code == "key.pin-locked"


def test_a_token_without_login_is_asked_for_none(token: Double, tmp_path: Path) -> None:
    token.flags = TokenFlag.TOKEN_INITIALIZED
    assert step(tmp_path, "any") == frozenset()
    assert token.logins == []


@pytest.mark.parametrize(
    "lost",
    [
        pkcs11.SessionHandleInvalid,
        pkcs11.SessionClosed,
        pkcs11.DeviceRemoved,
        pkcs11.TokenNotPresent,
        pkcs11.OperationActive,
        pkcs11.UserNotLoggedIn,
    ],
)
def test_a_lost_session_is_opened_anew_where_the_token_is_now(
    token: Double, tmp_path: Path, lost: type[Exception]
) -> None:
    settings = Pkcs11Settings(Path("/m.so"), parse("pkcs11:token=gateway"), tmp_path, PIN.encode)
    with open_store(settings) as store:
        assert store.refs() == frozenset()
        token.slot_id = 7
        token.faults = [lost()]
        assert store.refs() == frozenset()
        assert token.opened_in == [1, 1, 7, 7]
        assert token.logins == [PIN, PIN]


def test_a_session_that_stays_lost_is_given_up(token: Double, tmp_path: Path) -> None:
    token.faults = [pkcs11.SessionHandleInvalid() for _ in range(2)]
    with pytest.raises(KeyStoreUnavailable, match=r"key\.token-lost") as caught:
        step(tmp_path)
    assert caught.value.retry is Retry.BACKOFF


def test_a_pin_changed_while_the_token_was_away_is_tried_once(token: Double, tmp_path: Path) -> None:
    settings = Pkcs11Settings(Path("/m.so"), parse("pkcs11:token=gateway"), tmp_path, PIN.encode)
    with open_store(settings) as store:
        store.refs()
        token.pin = "9999"
        token.faults = [pkcs11.DeviceRemoved()]
        with pytest.raises(KeyLocked, match=r"key\.pin-wrong"):
            store.refs()
        for _ in range(3):
            with pytest.raises(KeyLocked, match=r"key\.pin-refused"):
                store.refs()
    assert token.logins == [PIN, PIN]


def test_a_full_token_says_so(token: Double, tmp_path: Path) -> None:
    settings = Pkcs11Settings(Path("/m.so"), parse("pkcs11:"), tmp_path, PIN.encode)
    with open_store(settings) as store:
        token.create_domain_parameters = lambda *_, **__: SimpleNamespace(generate_keypair=full)  # type: ignore[attr-defined]
        with pytest.raises(KeyStoreUnavailable, match=r"key\.token-full") as caught:
            store.generate(store.plan("ldevid", 1), KeySpec())
    assert "DeviceMemory" in caught.value.detail


def full(**_: object) -> None:
    raise pkcs11.DeviceMemory


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (pkcs11.UserPinNotInitialized, KeyLocked, "key.pin-unset"),
        (pkcs11.PinExpired, KeyLocked, "key.pin-wrong"),
        (pkcs11.TokenWriteProtected, KeyStoreUnavailable, "key.token-write-protected"),
        (pkcs11.SessionCount, KeyStoreUnavailable, "key.token-busy"),
        (pkcs11.ObjectHandleInvalid, KeyNotFound, "key.not-found"),
        (pkcs11.MechanismInvalid, KeyStoreError, "key.unsupported"),
        (pkcs11.DomainParamsInvalid, KeyStoreError, "key.unsupported"),
        (pkcs11.GeneralError, KeyStoreError, "key.token"),
        (pkcs11.HostMemory, KeyStoreError, "key.token"),
    ],
)
def test_meanings(error: type[pkcs11.PKCS11Error], kind: type[KeyStoreError], code: str) -> None:
    meant = fault(error("said so"), "sign")
    assert (type(meant), meant.code) == (kind, code)
    assert meant.detail.startswith(f"sign: {error.__name__} (said so)")
