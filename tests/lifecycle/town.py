"""Several EST servers of one domain, each with faults of its own, and servers that nobody reaches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from holdfast.host.transport import Channel, Link
from holdfast.wire.errors import TransportError
from holdfast.worker.ports import Environment
from holdfast_sim.faults import Fault
from holdfast_sim.link import InProcessTransport
from holdfast_sim.site import Site
from holdfast_sim.world import World
from lifecycle.device import Device

A = "https://a.example"
B = "https://b.example"
C = "https://c.example"


class Town(Device):
    """A device whose ladder is EST at a.example, then b.example, then any *more*; the registrar is apart.

    ``down`` names hosts that nobody reaches. ``asked`` lists (host, operation) in order.
    """

    def __init__(
        self,
        directory: Path,
        *,
        faults: Mapping[str, Sequence[str]] | None = None,
        rungs: Sequence[str] = (A, B),
        identities: str = "",
        world: World | None = None,
    ) -> None:
        ladder = ", ".join(f"{{est: {{url: '{url}'}}}}" for url in rungs)
        super().__init__(
            directory,
            identities=identities or f"  - name: ldevid\n    protocols: [{ladder}]\n",
            world=world,
        )
        self.down: set[str] = set()
        self.asked: list[tuple[str, str]] = []
        self.sites: dict[str, Site] = {}
        self.rebuild(faults or {})

    def rebuild(self, faults: Mapping[str, Sequence[str]]) -> None:
        """The same servers, with other faults by host."""
        self.sites = {
            host: Site(self.world, [Fault.parse(f) for f in faults.get(host, ())])
            for host in ("registrar.example", "a.example", "b.example", "c.example")
        }

    def open(self, channel: Channel) -> Link:
        """The transport of this town."""
        if channel.host in self.down or channel.host not in self.sites:
            raise TransportError("transport.unreachable", f"{channel.host}: connection refused")
        transport = InProcessTransport(
            self.sites[channel.host],
            {(channel.host, channel.port): "registrar"},
            on_request=lambda r: self.asked.append((channel.host, r.target.rpartition("/")[2])),
        )
        return transport.open(channel)

    @property
    def environment(self) -> Environment:
        return replace(super().environment, transport=self)

    def enrollments(self) -> list[str]:
        """The hosts that were asked to enroll or renew, in order."""
        return [host for host, what in self.asked if what in {"simpleenroll", "simplereenroll"}]
