"""How one device is set up: its identities, the ladder of each, whom it asks if it was revoked."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, Literal

from holdfast.host.config import Settings, load

from .appointments import Scene

REGISTRARS: Final = ("registrar.example:8443", "second.example:8443")
STATE: Final = Path("/state")
NAME: Final = "gateway.example"
FIRST: Final = "ldevid"
"""The identity that every device has."""

WAYS: Final = {
    "est": "est: {}",
    "est-2": "est: {url: 'https://annex.example'}",
    "cmp": "cmp: {url: 'http://annex.example:8080'}",
    "cmp-ae": "cmp: {}",
    "scep": "scep: {url: 'http://annex.example:8080/scep', key: {algorithm: rsa2048}}",
    "cmc": "cmc: {url: 'http://annex.example:8080/cmc'}",
    "acme": "acme: {url: 'https://annex.example/acme/directory', challenges: [http-01]}",
}
"""The rungs, as the configuration has them. ``est`` and ``cmp-ae`` (RFC 9733) are at the registrar, the
others on a server of their own, the annex."""

IN_ANNEX: Final = frozenset({"est-2", "cmp", "scep", "cmc", "acme"})

LADDERS: Final[dict[tuple[str, ...], float]] = {
    ("est",): 40,
    ("est", "est-2"): 18,
    ("est", "cmp"): 8,
    ("est", "scep"): 6,
    ("cmp", "est"): 8,
    ("scep", "est"): 6,
    ("cmp-ae", "est"): 6,
    ("cmc", "est"): 4,
    ("est", "cmc"): 4,
    ("acme", "est"): 4,
    ("est", "acme"): 4,
    ("est", "est-2", "cmp", "scep"): 8,
}
"""With how often they are drawn."""


@dataclass(frozen=True, slots=True)
class House:
    """``more`` identities have EST alone, beside the first, which has the ``ladder``. ``told``: the CA
    publishes what it revoked, certificates say where, and the device asks every ``interval`` (the
    configuration's default is a day, but then this would be most of what a life costs)."""

    ladder: tuple[str, ...] = ("est",)
    registrars: int = 1
    more: int = 0
    same_key: bool = False
    told: bool = False
    told_by: Literal["", "ocsp", "crl"] = ""
    interval: timedelta = timedelta(days=30)

    @property
    def names(self) -> tuple[str, ...]:
        """The identities."""
        return (FIRST, *(f"other-{n}" for n in range(1, self.more + 1)))

    @staticmethod
    def draw(chance: Random, life: timedelta, scene: Scene | None = None) -> House:
        """For certificates that live for *life*, and where *scene* can be played."""
        ladders = [ladder for ladder in LADDERS if scene is None or ladder[0] == scene.top]
        (ladder,) = chance.choices(ladders, [LADDERS[ladder] for ladder in ladders])
        same_key = chance.random() < 0.2 and ladder[0] != "scep"
        return House(
            ladder,
            registrars=chance.choice((1, 2)),
            more=chance.choices((0, 1, 2), (80, 15, 5))[0],
            same_key=same_key,
            told=chance.random() < 0.15 or bool(scene and scene.told),
            told_by=scene.told if scene else "",
            interval=timedelta(days=30) if life > timedelta(days=90) else timedelta(days=6),
        )


def settings_for(house: House) -> Settings:
    """The settings of one device, read by the agent's own reader once."""
    settings = _settings(house.ladder, house.names, house.registrars, house.interval)
    identities = tuple(
        replace(i, renew=replace(i.renew, same_key=house.same_key)) for i in settings.identities
    )
    return replace(settings, state_directory=STATE, identities=identities)


@cache
def _settings(
    ladder: tuple[str, ...], names: tuple[str, ...], registrars: int, interval: timedelta
) -> Settings:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "anchors.pem").write_bytes(b"")
        config = directory / "holdfast.yaml"
        lines = [
            f"state-directory: {directory}",
            f"manufacturer: {{anchors: {directory / 'anchors.pem'}}}",
            f"registrars: [{', '.join(REGISTRARS[:registrars])}]",
            "identities:",
        ]
        for identity in names:
            ways = ladder if identity == FIRST else ("est",)
            rungs = ", ".join(f"{{{WAYS[way]}}}" for way in ways)
            lines += [f"  - name: {identity}", f"    protocols: [{rungs}]"]
            lines += [f"    san: {{dns: [{NAME}]}}"] if "acme" in ways else []
            lines += [f"    revocation: {{interval-hours: {interval / timedelta(hours=1):g}}}"]
        config.write_text("\n".join(lines) + "\n")
        return load(config)
