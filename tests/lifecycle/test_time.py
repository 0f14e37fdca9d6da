"""Whole lives under wrong clocks: no RTC, late NTP, jumps by decades, leap seconds, the end of time.

FIELD-LESSONS 1 and 2: no state is destroyed for a time error, and no jump skips a renewal. The servers' clock
is always right here; only the device's own is wrong.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from fake_clock import FakeClock
from holdfast.host.clock import BUILD_TIME, SystemClock, believed
from holdfast.life.record import CredentialState, DomainState
from holdfast.wire.model import ClockState
from holdfast_sim.world import World
from lifecycle.device import T0, Device

DECADES = timedelta(days=30 * 365)
EPOCH = datetime(1970, 1, 1, 0, 2, tzinfo=UTC)


class Twin:
    """A device whose clock may be wrong, among servers whose clock is right."""

    def __init__(self, directory: Path) -> None:
        self.real = T0
        world = World.create(lambda: self.real, secrets.token_bytes)
        self.device = Device(directory, world=world)
        self.clock: FakeClock = self.device.clock

    def right(self) -> None:
        """NTP sets the clock."""
        self.clock.now, self.clock.state = self.real, ClockState.TRUSTED

    def wrong(self, now: datetime, state: ClockState) -> None:
        self.clock.now, self.clock.state = now, state

    def pass_time(self, by: timedelta) -> None:
        self.real += by
        self.clock.now += by

    def live(self, span: timedelta) -> None:
        """As ``holdfast run`` does: steps when they are due, at the latest every six hours."""
        end = self.real + span
        while self.real < end:
            report = self.device.step()
            wait = min(max(report.wait, timedelta(minutes=1)), timedelta(hours=6), end - self.real)
            self.pass_time(wait)

    @property
    def generation(self) -> int:
        return self.device.identity.credential.generation


@pytest.fixture
def twin(tmp_path: Path) -> Twin:
    return Twin(tmp_path)


def well(twin: Twin) -> None:
    """Active, with a certificate that is valid by the right time, and nothing lost."""
    device = twin.device
    assert device.active
    assert device.identity_end > twin.real
    assert device.record.domain.state is DomainState.VOUCHED
    assert device.keys.refs() == {device.identity.credential.key}


# --- no clock at boot --------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [ClockState.FLOOR_ONLY, ClockState.TRUSTED])
def test_each_boot_in_1970_until_ntp_comes(twin: Twin, state: ClockState) -> None:
    """No RTC: half a year of daily boots, each at the epoch, with the network's time an hour later."""
    twin.right()
    twin.device.step()
    made = twin.device.keys.made
    for _ in range(180):
        twin.wrong(EPOCH, state)
        twin.device.step()
        assert twin.device.active, "an unset clock ends nothing"
        twin.pass_time(timedelta(hours=1))
        twin.right()
        twin.live(timedelta(hours=23))
        well(twin)
    assert 2 <= twin.generation <= 6
    assert twin.device.keys.made - made == twin.generation - 1


def test_a_first_boot_without_any_clock_and_ntp_much_later(twin: Twin) -> None:
    twin.wrong(EPOCH, ClockState.FLOOR_ONLY)
    twin.device.live_until_active()
    held = twin.device.identity.credential
    twin.pass_time(timedelta(days=2))
    twin.right()
    twin.device.step()
    assert twin.device.identity.credential == held
    well(twin)


# --- a trusted clock that was wrong -------------------------------------------------------------------


@pytest.mark.parametrize("stay", [timedelta(minutes=1), timedelta(hours=3), timedelta(days=20)])
def test_a_trusted_clock_decades_ahead_does_not_brick(twin: Twin, stay: timedelta) -> None:
    """ADR 13: a GPS week rollover, a broken NTP server. What was believed then is taken back."""
    twin.right()
    twin.device.step()
    held = twin.device.identity.credential
    twin.wrong(twin.real + DECADES, ClockState.TRUSTED)
    twin.live(stay)
    assert twin.device.identity.credential.state is CredentialState.EXPIRED
    assert twin.device.identity.credential.chain == held.chain, "taken as ended, and kept"
    assert held.key in twin.device.keys.refs()
    twin.right()
    twin.live(timedelta(days=2))
    well(twin)
    if stay < timedelta(hours=1):
        assert twin.device.identity.credential.chain == held.chain, "it lives again"
        assert twin.device.keys.made == 1
    assert twin.device.record.time_floor <= twin.real


def test_a_wrong_clock_for_an_hour_costs_neither_the_domain_nor_a_key(twin: Twin) -> None:
    twin.right()
    twin.device.step()
    held = twin.device.record
    twin.wrong(twin.real + DECADES, ClockState.TRUSTED)
    twin.live(timedelta(hours=1))
    twin.right()
    twin.live(timedelta(hours=1))
    assert twin.device.record.domain.anchors == held.domain.anchors
    assert twin.device.identity.credential.key == held.identity("ldevid").credential.key
    assert len(twin.device.world.audit) == 1
    well(twin)


def test_a_clock_that_nobody_set_does_not_take_a_floor_back(twin: Twin) -> None:
    """Only a trusted clock may: else a boot in 1970 would undo the floor each time."""
    twin.right()
    twin.device.step()
    twin.pass_time(timedelta(days=50))
    twin.device.step(renew=["ldevid"])
    floor = twin.device.record.time_floor
    twin.wrong(T0 + timedelta(days=1), ClockState.FLOOR_ONLY)
    twin.device.step(renew=["ldevid"])
    assert twin.device.record.time_floor >= floor


def test_no_clock_takes_back_what_the_domain_has_signed(twin: Twin) -> None:
    twin.right()
    twin.device.step()
    twin.pass_time(timedelta(days=60))
    twin.device.step(renew=["ldevid"])
    proven = twin.device.record.proven
    assert proven > T0 + timedelta(days=59)
    twin.wrong(T0 + timedelta(days=30), ClockState.TRUSTED)
    moment = believed(twin.clock, proven, twin.device.record.time_floor)
    assert moment.state is ClockState.UNKNOWN
    twin.device.step(renew=["ldevid"])
    assert twin.device.record.time_floor >= proven


@pytest.mark.parametrize(
    ("state", "now", "proven", "floor", "wanted"),
    [
        (ClockState.TRUSTED, 10, 0, 30, (10, ClockState.TRUSTED)),  # a wrong floor is taken back
        (ClockState.TRUSTED, 10, 20, 30, (30, ClockState.UNKNOWN)),  # not below what is signed
        (ClockState.FLOOR_ONLY, 10, 0, 30, (30, ClockState.UNKNOWN)),  # not by a clock that nobody set
        (ClockState.FLOOR_ONLY, 40, 0, 30, (40, ClockState.FLOOR_ONLY)),
        (ClockState.TRUSTED, 40, 0, 30, (40, ClockState.TRUSTED)),
        (ClockState.UNKNOWN, 40, 0, 30, (40, ClockState.UNKNOWN)),
    ],
)
def test_what_is_believed(
    state: ClockState, now: int, proven: int, floor: int, wanted: tuple[int, ClockState]
) -> None:
    def day(number: int) -> datetime:
        return T0 + timedelta(days=number)

    moment = believed(FakeClock(day(now), state), day(proven), day(floor))
    assert (moment.now, moment.state) == (day(wanted[0]), wanted[1])
    assert moment.now >= moment.floor


def test_the_build_bounds_a_trusted_clock_from_below() -> None:
    clock = SystemClock(policy="trusted", wall=lambda: 0.0)
    assert believed(clock, EPOCH, EPOCH).now == BUILD_TIME
    floor = BUILD_TIME + timedelta(days=9)
    assert believed(clock, EPOCH, floor).now == floor


# --- jumps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("back", [timedelta(days=1), timedelta(days=40), DECADES])
@pytest.mark.parametrize("state", [ClockState.TRUSTED, ClockState.FLOOR_ONLY])
def test_a_jump_back_neither_ends_nor_skips_a_renewal(twin: Twin, back: timedelta, state: ClockState) -> None:
    twin.right()
    twin.device.step()
    twin.live(timedelta(days=30))
    before = twin.generation
    twin.wrong(twin.real - back, state)
    twin.live(timedelta(days=3))
    assert twin.device.active
    twin.right()
    twin.live(timedelta(days=60))
    well(twin)
    assert twin.generation > before


def test_a_jump_over_the_renewal_window_renews_at_once(twin: Twin) -> None:
    twin.right()
    report = twin.device.step()
    due = report.due
    twin.wrong(due - timedelta(days=20), ClockState.FLOOR_ONLY)
    twin.real = twin.device.identity_end - timedelta(days=1)
    twin.right()
    twin.device.step()
    assert twin.generation == 2
    well(twin)


def test_a_due_time_that_a_wrong_clock_wrote_is_not_waited_for(twin: Twin) -> None:
    twin.right()
    twin.device.step()
    twin.wrong(twin.real + DECADES, ClockState.TRUSTED)
    twin.device.reface(["cacerts:status:0:code=500"])
    twin.live(timedelta(hours=12))
    late = twin.device.identity.schedule.due
    assert late is not None
    assert late > twin.real + timedelta(days=9000)
    twin.device.reface([])
    twin.right()
    twin.device.step()
    twin.device.step()
    well(twin)


def test_ntp_that_comes_and_goes_for_a_year(twin: Twin) -> None:
    twin.right()
    twin.device.step()
    for day in range(365):
        match day % 4:
            case 0:
                twin.right()
            case 1:
                twin.clock.state = ClockState.FLOOR_ONLY
            case 2:
                twin.wrong(twin.real - timedelta(days=day), ClockState.FLOOR_ONLY)
            case 3:
                twin.wrong(twin.real - timedelta(hours=5), ClockState.FLOOR_ONLY)
        twin.live(timedelta(days=1))
        assert twin.device.active
    twin.right()
    twin.live(timedelta(days=1))
    well(twin)
    assert twin.device.keys.made == twin.generation


# --- leap seconds and the end of time ------------------------------------------------------------------


def test_a_leap_second_changes_nothing(twin: Twin) -> None:
    """The clock shows one second twice. Whoever waited for the second one has waited long enough."""
    twin.right()
    twin.real = datetime(2027, 6, 30, 23, 59, 59, 500_000, tzinfo=UTC)
    twin.right()
    report = twin.device.step()
    twin.device.reface(["cacerts:status:1:code=500"])
    twin.device.step(renew=["ldevid"])
    due = twin.device.identity.schedule.due
    assert due is not None
    twin.clock.now = due
    twin.clock.now -= timedelta(seconds=1)
    report = twin.device.step()
    assert timedelta(0) < report.wait <= timedelta(seconds=1)
    twin.clock.now = due
    twin.device.step()
    well(twin)


@pytest.mark.parametrize("state", ClockState)
def test_a_clock_at_the_end_of_time_is_survived(twin: Twin, state: ClockState) -> None:
    twin.right()
    twin.device.step()
    twin.wrong(datetime.max.replace(tzinfo=UTC), state)
    for _ in range(3):
        twin.device.step()
    twin.right()
    twin.device.step()
    twin.device.step()
    well(twin)


def test_a_domain_that_is_lost_takes_its_time_along(tmp_path: Path) -> None:
    """The wait before the next attempt counts from what the clock is worth then, not from a voucher."""
    world = World.create(lambda: T0, secrets.token_bytes)
    device = Device(tmp_path, world=world, faults=["simpleenroll:foreign-ca:1"])
    device.clock.now = datetime(1970, 1, 1, tzinfo=UTC)
    report = device.step()
    assert device.record.domain.state is DomainState.NONE
    assert device.record.schedule.trouble is not None
    assert report.wait < timedelta(hours=6)
    device.step()
    assert device.active
