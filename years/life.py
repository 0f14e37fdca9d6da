"""Ten years of one device, from event to event."""

from __future__ import annotations

import heapq
import itertools
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Final

from . import appointments
from .clocks import Time
from .disk import mounted
from .estate import Estate
from .gateway import Gateway, Woken
from .house import House
from .judge import CURED_WITHIN, Judge, Violation, in_words
from .memo import remembering
from .misfortunes import DAY, HOUR, MINUTE, SECOND, YEAR, Catalogue, Misfortune
from .power import Fuse
from .tally import Tally

BEGIN: Final = datetime(2027, 6, 1, 12, tzinfo=UTC)
YEARS: Final = 10


@dataclass(frozen=True, slots=True)
class Profile:
    """``life`` of the certificates, how often a renewal meets ``trouble``, and how often the owner is in a
    ``hurry`` and cuts devices off until their certificates end, which costs a life with long ones hundreds of
    attempts."""

    name: str
    life: timedelta
    trouble: float
    hurry: float


PROFILES: Final = {
    p.name: p
    for p in (
        Profile("week", timedelta(days=7), trouble=0.15, hurry=0.3),
        Profile("year", timedelta(days=365), trouble=0.8, hurry=0.10),
    )
}


class Life:
    """One seed is one life. ``tell`` hears of everything that happens."""

    def __init__(
        self,
        profile: Profile,
        seed: int,
        *,
        years: int = YEARS,
        house: House | None = None,
        tell: Callable[[datetime, str], None] = lambda _at, _what: None,
    ) -> None:
        self.profile, self.seed = profile, seed
        self._tell = tell
        self.chance = Random(f"{profile.name} {seed}")
        self.time = Time(BEGIN)
        self._end = BEGIN + years * YEAR
        fuse = Fuse()
        appointed = None if house else appointments.appointed(seed)
        self._scene = appointed[0] if appointed else None
        self._to_meet = deque(appointed[1] if appointed else ())
        house = house or House.draw(self.chance, profile.life, self._scene)
        self.estate = Estate(self.time, self.chance, fuse, profile.life, house)
        self.gateway = Gateway(self.time, self.chance, self.estate, fuse)
        self.judge = Judge(self.time, self.estate, self.gateway)
        self.catalogue = Catalogue(
            self.time, self.chance, self.estate, self.gateway, profile.life, profile.hurry / 8
        )
        self.tally = Tally(lives=1)
        self._events: list[tuple[datetime, int, str, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._wake: datetime | None = BEGIN
        self._active = 0
        self._quiet_since: datetime | None = BEGIN
        self._ill_since: datetime | None = BEGIN
        self._excused_until = BEGIN
        self._planned_for = -1

    def run(self) -> Tally:
        """Live it. A rule that did not hold ends it, and so does a crash; the tally tells."""
        try:
            with mounted(self.gateway.disk), remembering():
                self._plan_cas()
                if self._scene is not None and self._scene.first:
                    for _ in range(len(self._to_meet)):
                        self._keep_appointment(BEGIN)
                elif self.chance.random() < 0.3:
                    self.expect(self.catalogue.first_meeting(), BEGIN)
                while self._next():
                    pass
        except Violation as violation:
            self._blame(str(violation))
        except Exception:  # noqa: BLE001 - whatever it is, the agent let it through
            self._blame(traceback.format_exc())
        self.tally.lived = self.time.now - BEGIN
        self.tally.requests = self.estate.requests
        self.tally.most_steps_a_day = self.judge.most_steps
        self.tally.faults = self.estate.applied
        return self.tally

    def _blame(self, what: str) -> None:
        replay = f"python -m years --profile {self.profile.name} --seed {self.seed} --tell"
        self.tally.violations.append(f"{self.time.now:%Y-%m-%d %H:%M:%S}: {what}\n    replay: {replay}")

    # --- events --------------------------------------------------------------------------------------

    def at(self, moment: datetime, name: str, action: Callable[[], None]) -> None:
        """Let *action* happen at *moment*."""
        heapq.heappush(self._events, (moment, next(self._numbers), name, action))

    def _after(self, span: timedelta, name: str, action: Callable[[], None]) -> None:
        self.at(self.time.now + span, name, action)

    def _next(self) -> bool:
        """The next event or step; False at the end of the life."""
        event = self._events[0][0] if self._events else self._end
        wake = self._wake if self._wake is not None else self._end
        if min(event, wake) >= self._end:
            self.time.reach(self._end)
            return False
        if event <= wake:
            moment, _, name, action = heapq.heappop(self._events)
            self.time.reach(moment)
            if name:
                self._tell(self.time.now, name)
            action()
        else:
            self.time.reach(wake)
            self._step()
        return True

    # --- steps ---------------------------------------------------------------------------------------

    def _step(self) -> None:
        before = self.judge.certificates
        woken = self.gateway.step()
        self.tally.steps += 1
        if woken.cut:
            self._tell(self.time.now, f"step: the power failed at {woken.cut}")
            self.tally.cuts += 1
            self._lose_power(self.catalogue.between(10 * SECOND, 2 * DAY))
            return
        quiet = self._quiet_since
        self.judge.look(woken, calm=quiet is not None and self.time.now - quiet > CURED_WITHIN)
        if woken.report is not None:
            self.judge.scheduled()
            self.tally.bootstraps += sum(t.name == "PrepareAttempt" for t in woken.report.traces)
        self.tally.renewals += max(self.judge.certificates - before, 0)
        wait = self.gateway.wait_after(woken)
        self._tell_of(woken, wait)
        self._wake = self.time.now + wait
        self.tally.without += self.judge.check_wait(self._wake)
        self._note_health()
        self._note_excuse()
        if woken.report is not None:
            self._plan_trouble(self.gateway.next_turn(woken.report.record))

    def _note_health(self) -> None:
        if self._ill_since is not None and self._quiet_since is not None and self.judge.well():
            self.tally.longest_cure = max(self.tally.longest_cure, self.time.now - self._ill_since)
            self._ill_since = None
        elif self.judge.stranded:
            self._ill_since = None  # what the owner did is no measure of the device

    def _tell_of(self, woken: Woken, wait: timedelta) -> None:
        ended = f"; ended by {woken.error}" if woken.error else ""
        state = in_words(self.judge.record)
        self._tell(self.time.now, f"step: {state}; next in {wait}{ended}")

    # --- misfortunes ---------------------------------------------------------------------------------

    def _plan_trouble(self, wait: timedelta | None) -> None:
        """Around the next renewal, which comes after *wait*, once for each certificate."""
        if wait is None or wait < HOUR or self.judge.certificates == self._planned_for:
            return
        self._planned_for, due = self.judge.certificates, self.time.now + wait
        self._keep_appointment(due - SECOND)
        while self.chance.random() < self.profile.trouble:
            misfortune = self.catalogue.draw()
            if self.chance.random() < 0.7:
                lead = misfortune.lasts * self.chance.random()
                moment = max(due - min(lead, HOUR) - SECOND, self.time.now)
            else:
                moment = self.time.now + (due - self.time.now) * self.chance.random()
            self.expect(misfortune, moment)
            if self.chance.random() < 0.4:
                return

    def _keep_appointment(self, moment: datetime) -> None:
        """Let the next fault that this life must meet wait for it from *moment* on."""
        met = self.estate.applied
        while self._to_meet and self._scene is not None:
            meeting = self._to_meet.popleft()
            if not met[":".join(meeting)]:
                self._to_meet.append(meeting)
                self.expect(self.catalogue.appointment(meeting, self._scene), moment)
                return

    def expect(self, misfortune: Misfortune, moment: datetime) -> None:
        """Let *misfortune* happen at *moment*."""
        text = f"begins: {misfortune.name} for {misfortune.lasts}"
        self.at(moment, text, lambda: self._begin(misfortune))
        if misfortune.strangers and self.chance.random() < 0.7:
            self.expect(self.catalogue.first_meeting(), moment)

    def _begin(self, misfortune: Misfortune) -> None:
        self.tally.misfortunes[misfortune.kind] += 1
        misfortune.begin()
        if misfortune.forgets:
            self.judge.forget(damaged=misfortune.damages)
        if misfortune.reboots:
            self._lose_power(misfortune.lasts)
        if misfortune.wakes:
            self._look()
        self._trouble_begins()
        self._after(misfortune.lasts, f"ends: {misfortune.name}", lambda: self._finish(misfortune))

    def _finish(self, misfortune: Misfortune) -> None:
        misfortune.end()
        if misfortune.wakes:
            self._look()
        self._trouble_ends()

    def _trouble_begins(self) -> None:
        self._active += 1
        self._quiet_since = None

    def _trouble_ends(self) -> None:
        self._active -= 1
        if not self._active:
            self._quiet_since = self._ill_since = self.time.now
            self._call_the_judge()
            self._note_health()

    def _call_the_judge(self) -> None:
        """If this quiet lasts, the device must be well soon."""
        self._note_excuse()
        since = self._quiet_since
        self._after(CURED_WITHIN, "", lambda: self._reckon(since))

    def _note_excuse(self) -> None:
        if self._quiet_since is not None and (until := self.judge.excused_until(self._quiet_since)):
            self._excused_until = max(self._excused_until, until)

    def _reckon(self, since: datetime | None) -> None:
        if since is None or self._quiet_since != since:
            return
        self._note_excuse()
        moment = self._excused_until + CURED_WITHIN
        if moment > self.time.now:
            self.at(moment, "", lambda: self._reckon(since))
        else:
            self.judge.check_cured()

    # --- power and clock -----------------------------------------------------------------------------

    def _lose_power(self, lasts: timedelta) -> None:
        if not self.gateway.powered:
            return
        self.gateway.lose_power()
        self._wake = None
        self._trouble_begins()
        self._after(lasts, "boots", self._boot)

    def _boot(self) -> None:
        self.gateway.boot()
        self._wake = self.time.now
        self._after(self.catalogue.between(5 * SECOND, 10 * DAY), "a time server is heard", self._synchronise)

    def _synchronise(self) -> None:
        self.gateway.clock.set_right()
        self._look()
        self._trouble_ends()

    def _look(self) -> None:
        if self.gateway.powered:
            self._wake = self.time.now

    # --- CAs -----------------------------------------------------------------------------------------

    def _plan_cas(self) -> None:
        """A new issuing CA every year or two, a new root twice. An operator in a hurry gives no overlap."""
        moment = BEGIN
        while (moment := moment + YEAR * self.chance.uniform(1.2, 2.5)) < self._end:
            self.plan(moment, "new issuing CA", self.estate.new_issuing_ca)
        for early, late in ((2.5, 4.5), (6, 8)):
            moment = BEGIN + YEAR * self.chance.uniform(early, late)
            self.plan(moment, "new root", self.estate.new_root)
            overlap = MINUTE if self.chance.random() < self.profile.hurry else self.profile.life + 30 * DAY
            self.plan(moment + overlap, "servers of the new CA", self.estate.new_servers)
            self.plan(moment + 2 * overlap + self.profile.life, "old CAs retired", self.estate.retire_old_cas)

    def plan(self, moment: datetime, name: str, change: Callable[[], None]) -> None:
        """A change that the owner makes, for better or worse."""

        def happens() -> None:
            change()
            self._call_the_judge()

        self.at(moment, name, happens)
