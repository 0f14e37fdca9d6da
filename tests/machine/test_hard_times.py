"""What an enrolled gateway may meet: so far, a certificate that expired while it was off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from machine.autopsy import assert_whole, examine
from machine.gateway import Hardware
from machine.owner import LIFE, Town

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

Note = Callable[[str, object], None]


@pytest.fixture
def later(town: Town) -> Iterator[None]:
    """Four lives of a certificate have passed, for the servers and for the battery-backed clock."""
    town.clock.ahead = LIFE * 4
    yield
    town.clock.ahead = timedelta()


def test_a_certificate_that_expired_while_it_was_off(town: Town, enrolled: Hardware, later: None) -> None:
    hardware = replace(town.twin(enrolled), rtc=town.clock.rtc)
    old = examine(hardware)
    assert old.leaf.not_valid_after_utc < town.clock()
    with town.power_on(hardware) as gateway:
        gateway.enrolled(generation=2)
        gateway.settled()
        gateway.shut_down()
    new = examine(hardware)
    assert_whole(new, town.shipped)
    assert new.leaf.not_valid_after_utc > town.clock()
    assert new.leaf == town.running.world.issued[-1].certificate
