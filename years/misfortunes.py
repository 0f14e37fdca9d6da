"""What can befall a device and its servers in ten years."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import PurePath
from random import Random
from typing import Final, Literal

from holdfast.wire.model import CsrTemplate, KeyAlgorithm
from holdfast_sim.faults import KINDS, Fault

from .appointments import CUSTOM_OF, SCENES, Custom, Meeting, Scene, Town
from .clocks import EPOCH, Time
from .disk import File
from .estate import Estate, Policies
from .gateway import Gateway
from .house import STATE

SECOND, MINUTE, HOUR = timedelta(seconds=1), timedelta(minutes=1), timedelta(hours=1)
DAY, YEAR = timedelta(days=1), timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Misfortune:
    """It begins, and after ``lasts`` it ends. ``reboots``: the power goes with it, and comes back soon.

    ``wakes``: the host notices both, as it does when its clock is set (timerfd), and steps.
    ``forgets``: the record that the disk then has may be an older one, or none. ``damages``: one load may
    find that no record is whole. ``strangers``: device and owner may have to meet anew.
    """

    name: str
    lasts: timedelta
    begin: Callable[[], None]
    end: Callable[[], None] = lambda: None
    reboots: bool = False
    wakes: bool = False
    forgets: bool = False
    damages: bool = False
    strangers: bool = False

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    def along(self, other: Misfortune) -> Misfortune:
        """This one together with *other*, which lasts as long and is of the servers, too."""

        def begin() -> None:
            self.begin()
            other.begin()

        def end() -> None:
            self.end()
            other.end()

        return replace(self, name=f"{self.name}, {other.name}", begin=begin, end=end)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Draws misfortunes for one device. ``rare`` is the share of those that last about as long as a
    certificate."""

    time: Time
    chance: Random
    estate: Estate
    gateway: Gateway
    life: timedelta
    rare: float

    def draw(self) -> Misfortune:
        kinds = tuple(_WEIGHTS)
        kind = self.chance.choices(kinds, tuple(_WEIGHTS.values()))[0]
        return kind(self)

    def between(self, shortest: timedelta, longest: timedelta) -> timedelta:
        """A span whose order of magnitude is drawn evenly."""
        low, high = math.log(shortest.total_seconds()), math.log(longest.total_seconds())
        return timedelta(seconds=math.exp(self.chance.uniform(low, high)))

    # --- network and servers -------------------------------------------------------------------------

    def outage(self) -> Misfortune:
        """Minutes to weeks; now and then longer than a certificate lives."""
        lasts = self.between(MINUTE, 21 * DAY)
        if self.chance.random() < self.rare:
            lasts = self.life * self.chance.uniform(0.4, 1.3)

        return self._cut_off(self.chance.choice(_REACH), lasts)

    def _cut_off(self, towns: tuple[Town, ...], lasts: timedelta) -> Misfortune:
        return Misfortune(
            f"outage: of {' and '.join(towns)}",
            lasts,
            lambda: self.estate.cut_off.update(towns),
            lambda: self.estate.cut_off.subtract(towns),
        )

    def fault(self) -> Misfortune:
        """Any fault of the simulator at what the device uses, a few times or for a while. One below the top
        of the ladder comes with an outage above it more often than not, or nobody would meet it."""
        ladder = self.estate.house.ladder
        uses = {"est", *(way.partition("-")[0] for way in ladder)}
        uses |= {"standing"} if self.estate.house.told else set()
        what = self.chance.choices(sorted(uses), [_USE[use] for use in sorted(uses)])[0]
        town: Town = "annex"
        if what == "est":
            town = self.chance.choice(("main", "main", "annex")) if "est-2" in ladder else "main"
        elif what == "cmp" and "cmp-ae" in ladder:
            town = "main"
        made = self.fault_at(what, town)
        below = what != "standing" and town == "annex" and ladder[0] == "est"
        return (
            made.along(self._cut_off(("main",), made.lasts)) if below and self.chance.random() < 0.6 else made
        )

    def first_meeting(self) -> Misfortune:
        """A fault where a device meets an owner: of the registrar, or of the MASA behind it."""
        return self.fault_at("brski", "main")

    def fault_at(self, what: str, town: Town) -> Misfortune:
        where, kind = self.chance.choice([(w, k) for w in _PLACES[what] for k in sorted(KINDS[w])])
        times, after = self.chance.choice((1, 1, 1, 2, 5, 0)), self.chance.choice(("0", "0", "1"))
        made = Fault(where, kind, times, self._arguments(kind, after))
        return self._of_server(made, town, self.between(MINUTE, 4 * DAY))

    def appointment(self, meeting: Meeting, scene: Scene) -> Misfortune:
        """The fault that this life must meet, once, and what else it takes."""
        where, kind = meeting
        fault = Fault(where, kind, 1, self._arguments(kind, "0"))
        made = self._of_server(fault, scene.town, 1.2 * self.estate.house.interval if scene.told else DAY)
        custom = CUSTOM_OF.get(kind, scene.custom)
        return made.along(self._custom(custom)) if custom else made

    def _custom(self, name: Custom) -> Misfortune:
        usual = self.estate.usual
        match name:
            case "implicit":
                return self._policy(name, replace(usual, cmp=replace(usual.cmp, implicit_confirm=True)))
            case "confirm":
                return self._policy(name, replace(usual, cmc=replace(usual.cmc, confirm=True)))
            case _:
                return self.approval()

    def _arguments(self, kind: str, after: str) -> tuple[tuple[str, str], ...]:
        args = [("after", after)]
        if kind in {"status", "pending", "pending-date"} and self.chance.random() < 0.5:
            args.append(("retry-after", self.chance.choice(("0", "30", "3600", "90000", "99999999"))))
        if kind in {"status", "redirect", "refuse"}:
            args.append(("code", self.chance.choice(_CODES[kind])))
        return tuple(args)

    def _of_server(self, made: Fault, town: Town, lasts: timedelta) -> Misfortune:
        return Misfortune(
            f"fault: {made}",
            lasts,
            lambda: self.estate.begin_fault(made, town),
            lambda: self.estate.end_fault(made, town),
        )

    def server_restart(self) -> Misfortune:
        return Misfortune("server restart", timedelta(0), self.estate.restart)

    def approval(self) -> Misfortune:
        """Somebody must look at each request."""
        polls, wait = self.chance.randint(1, 4), self.chance.choice((1, 60, 3600, 86400))
        usual = self.estate.usual
        busy = Policies(
            replace(usual.est, polls=polls, retry_after=wait),
            replace(usual.cmp, polls=polls, check_after=wait),
            replace(usual.scep, polls=polls),
            replace(usual.cmc, polls=polls, check_after=wait),
            replace(usual.acme, polls=polls, retry_after=wait),
        )
        return self._policy("approval", busy)

    def wishes(self) -> Misfortune:
        """The CA wants another kind of request."""
        template: CsrTemplate | Literal["absent"] = self.chance.choice(
            (CsrTemplate(key=KeyAlgorithm.P384), CsrTemplate(link_tls_unique=True), "absent")
        )
        usual = self.estate.usual
        return self._policy("wishes", replace(usual, est=replace(usual.est, template=template)))

    def _policy(self, name: str, policies: Policies) -> Misfortune:
        world, usual = self.estate.world, self.estate.usual
        lasts = self.between(HOUR, 30 * DAY)
        return Misfortune(name, lasts, lambda: policies.rule(world), lambda: usual.rule(world))

    def registrar_expired(self) -> Misfortune:
        return Misfortune(
            "registrar expired",
            self.between(HOUR, 14 * DAY),
            self.estate.let_registrar_expire,
            self.estate.mend_registrar,
        )

    def revoked(self) -> Misfortune:
        """The owner revokes the certificate that the device holds."""
        return Misfortune("revoked", timedelta(0), self.estate.revoke, strangers=True)

    # --- power and clock -----------------------------------------------------------------------------

    def power_cut(self) -> Misfortune:
        """At some point of the next steps."""
        after = round(math.exp(self.chance.uniform(0, math.log(400))))
        fuse = self.gateway.fuse
        return Misfortune("power cut", self.between(MINUTE, DAY), lambda: fuse.arm(after), fuse.disarm)

    def switched_off(self) -> Misfortune:
        """For hours to months; now and then for longer than a certificate lives."""
        lasts = self.between(MINUTE, 60 * DAY)
        if self.chance.random() < self.rare:
            lasts = self.life * self.chance.uniform(0.4, 1.3)
        return Misfortune("switched off", lasts, lambda: None, reboots=True)

    def clock_jump(self) -> Misfortune:
        """By hours or by decades, until a time server is heard."""
        by = self.between(HOUR, 60 * YEAR)
        earliest = EPOCH - self.time.now
        error = max(-by, earliest) if self.chance.random() < 0.5 else by
        clock = self.gateway.clock
        return Misfortune(
            "clock jump",
            self.between(MINUTE, 21 * DAY),
            lambda: clock.set_wrong(error),
            clock.set_right,
            wakes=True,
        )

    def false_time(self) -> Misfortune:
        """A time server lies, and is believed until another is heard."""
        by = self.between(HOUR, 30 * YEAR)
        error = max(-by, EPOCH - self.time.now) if self.chance.random() < 0.5 else by
        clock = self.gateway.clock
        return Misfortune(
            "false time",
            self.between(MINUTE, 7 * DAY),
            lambda: clock.set_falsely(error),
            clock.set_right,
            wakes=True,
        )

    # --- TPM and disk --------------------------------------------------------------------------------

    def tpm_cleared(self) -> Misfortune:
        """By a firmware update, so the device boots."""
        return Misfortune("TPM cleared", MINUTE, self.gateway.keys.clear, reboots=True, strangers=True)

    def tpm_absent(self) -> Misfortune:
        return self._tpm("TPM absent", "absent", self.between(MINUTE, 2 * DAY))

    def tpm_locked(self) -> Misfortune:
        return self._tpm("TPM locked", "locked", self.between(MINUTE, 2 * DAY))

    def _tpm(self, name: str, mood: str, lasts: timedelta) -> Misfortune:
        keys = self.gateway.keys

        def begin() -> None:
            keys.mood = mood  # type: ignore[assignment]

        def end() -> None:
            keys.mood = "well"

        return Misfortune(name, lasts, begin, end, wakes=True)

    def disk_full(self) -> Misfortune:
        disk = self.gateway.disk

        def switch(*, full: bool) -> None:
            disk.full = full

        lasts = self.between(MINUTE, 3 * HOUR)
        return Misfortune("disk full", lasts, lambda: switch(full=True), lambda: switch(full=False))

    def disk_read_only(self) -> Misfortune:
        disk = self.gateway.disk

        def switch(*, read_only: bool) -> None:
            disk.read_only = read_only

        lasts = self.between(MINUTE, 3 * HOUR)
        return Misfortune(
            "disk read-only", lasts, lambda: switch(read_only=True), lambda: switch(read_only=False)
        )

    def rotten_record(self) -> Misfortune:
        """A flipped bit: the record before it is used."""
        return Misfortune("rotten record", MINUTE, lambda: self._rot("record"), forgets=True, reboots=True)

    def rotten_records(self) -> Misfortune:
        def begin() -> None:
            self._rot("record")
            self._rot("record.previous")

        return Misfortune(
            "rotten records", MINUTE, begin, forgets=True, damages=True, reboots=True, strangers=True
        )

    def _rot(self, name: str) -> None:
        file = self.gateway.disk.find(PurePath(STATE / name))
        if isinstance(file, File) and file.data:
            at = self.chance.randrange(len(file.data))
            file.data = (
                file.data[:at] + bytes([file.data[at] ^ 1 << self.chance.randrange(8)]) + file.data[at + 1 :]
            )
            file.safe = file.data

    def state_lost(self) -> Misfortune:
        """The state directory is gone, and with it the files of the keys."""

        def begin() -> None:
            root = self.gateway.disk.root
            root.entries.pop(STATE.name, None)
            root.past = [dict(root.entries)]
            self.gateway.keys.keys.clear()

        return Misfortune("state lost", MINUTE, begin, forgets=True, reboots=True, strangers=True)

    def key_lost(self) -> Misfortune:
        def begin() -> None:
            keys = self.gateway.keys.keys
            if keys:
                keys.pop(self.chance.choice(sorted(keys)))

        return Misfortune("key lost", MINUTE, begin, reboots=True)


_CODES: Final = {
    "status": ("400", "401", "403", "404", "418", "429", "500", "501", "503"),
    "redirect": ("301", "303", "307", "308"),
    "refuse": ("400", "401", "403", "503"),
}

_PLACES: Final[dict[str, tuple[str, ...]]] = {
    use: tuple(place for scene in SCENES if scene.name.startswith(name) for place in scene.places)
    for use, name in (
        ("est", "EST"),
        ("brski", "BRSKI"),
        ("cmp", "CMP"),
        ("scep", "SCEP"),
        ("cmc", "CMC"),
        ("acme", "ACME"),
        ("standing", "own certificate"),
    )
}
"""Where servers can misbehave, by what the device does there."""

_USE: Final = {"est": 4, "cmp": 3, "scep": 3, "cmc": 3, "acme": 3, "standing": 1}
"""How often a fault is drawn where the device does this."""

_REACH: Final[tuple[tuple[Town, ...], ...]] = (("main", "annex"), ("main", "annex"), ("main",), ("annex",))
"""What one outage may keep the device from."""

_WEIGHTS: Final[dict[Callable[[Catalogue], Misfortune], float]] = {
    Catalogue.fault: 40,
    Catalogue.outage: 15,
    Catalogue.power_cut: 25,
    Catalogue.switched_off: 4,
    Catalogue.clock_jump: 6,
    Catalogue.server_restart: 3,
    Catalogue.approval: 4,
    Catalogue.wishes: 3,
    Catalogue.registrar_expired: 2,
    Catalogue.revoked: 0.5,
    Catalogue.false_time: 1,
    Catalogue.tpm_cleared: 1.5,
    Catalogue.tpm_absent: 2,
    Catalogue.tpm_locked: 1.5,
    Catalogue.disk_full: 3,
    Catalogue.disk_read_only: 2,
    Catalogue.rotten_record: 1.5,
    Catalogue.rotten_records: 1,
    Catalogue.state_lost: 1,
    Catalogue.key_lost: 1,
}
