"""What this host can say of itself for the names in a certificate: its host name and an Ethernet address."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from holdfast.wire.errors import ConfigError

NETWORK: Final = Path("/sys/class/net")
_ETHERNET: Final = "1"  # ARPHRD_ETHER
_ADDRESS: Final = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")


class HostFacts:
    """Facts by name, each looked up when it is asked for. Raises ConfigError ``config.fact``."""

    def __init__(
        self,
        interface: str | None = None,
        *,
        network: Path = NETWORK,
        hostname: Callable[[], str] = socket.gethostname,
    ) -> None:
        """*interface* is whose address ``mac`` is; None: the first one, by name, that is hardware."""
        self._interface = interface
        self._network = network
        self._hostname = hostname

    def __getitem__(self, name: str) -> str:
        match name:
            case "hostname":
                return self._host()
            case "mac":
                return self._mac()
            case _:
                raise KeyError(name)

    def _host(self) -> str:
        name = self._hostname().strip().rstrip(".")
        if not name or name == "localhost":
            raise ConfigError("config.fact", "{hostname}: this host has no name of its own yet")
        return name

    def _mac(self) -> str:
        """Twelve hexadecimal digits, which fit into a host name too."""
        names = [self._interface] if self._interface else self._hardware()
        for name in names:
            address = self._read(name, "address")
            if _ADDRESS.fullmatch(address) and address != "00:00:00:00:00:00":
                return address.replace(":", "")
        where = self._interface or "any network interface"
        raise ConfigError("config.fact", f"{{mac}}: {where} has no Ethernet address")

    def _hardware(self) -> list[str]:
        try:
            found = sorted(p.name for p in self._network.iterdir() if (p / "device").exists())
        except OSError:
            return []
        return [name for name in found if self._read(name, "type") == _ETHERNET]

    def _read(self, interface: str, what: str) -> str:
        try:
            return (self._network / interface / what).read_text("ascii").strip().lower()
        except (OSError, UnicodeDecodeError):
            return ""
