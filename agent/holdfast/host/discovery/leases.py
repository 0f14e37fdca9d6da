"""What systemd-networkd wrote down of this host's DHCP leases: ``/run/systemd/netif/leases/<index>``.

Its lines are ``KEY=value``. Of use are ``DOMAINNAME`` and ``DOMAIN_SEARCH_LIST`` (options 15 and 119) and
``OPTION_<n>``, the private options 224 to 254 in hexadecimal. networkd calls the format its own; what does
not fit it is passed over. The names of resolved come from its ``resolv.conf``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from holdfast.wire.discovery.announced import usable_name

LEASES: Final = Path("/run/systemd/netif/leases")
RESOLVED: Final = Path("/run/systemd/resolve/resolv.conf")
RESOLV_CONF: Final = Path("/etc/resolv.conf")
_MOST_OCTETS: Final = 16 * 1024
_MOST_FILES: Final = 16
_MOST_NAMES: Final = 8


@dataclass(frozen=True, slots=True)
class Hints:
    """DNS domains of this network, and what the site's own DHCP option says (text, and the interface)."""

    domains: tuple[str, ...] = ()
    named: tuple[tuple[str, str], ...] = ()


def hints(
    option: int | None, *, leases: Path = LEASES, resolvers: tuple[Path, ...] = (RESOLVED, RESOLV_CONF)
) -> Hints:
    """What the files say; files that are not there say nothing."""
    domains: list[str] = []
    named: list[tuple[str, str]] = []
    for interface, lease in _leases(leases):
        domains += lease.get("DOMAINNAME", "").split()
        domains += lease.get("DOMAIN_SEARCH_LIST", "").split()
        if option is not None:
            text = _text_of(lease.get(f"OPTION_{option}", ""))
            named += [(text, interface)] if text else []
    for file in resolvers:
        domains += _search_domains(_read(file))
    usable = (usable_name(each) for each in domains)
    kept = dict.fromkeys(each for each in usable if each is not None and each not in {"local", "localdomain"})
    return Hints(tuple(kept)[:_MOST_NAMES], tuple(named))


def _leases(directory: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        files = sorted(directory.iterdir())[:_MOST_FILES]
    except OSError:
        return
    for file in files:
        pairs = (line.split("=", 1) for line in _read(file).splitlines() if "=" in line and line[0] != "#")
        yield file.name, {key.strip(): value.strip() for key, value in pairs}


def _search_domains(text: str) -> list[str]:
    lines = (line.split() for line in text.splitlines())
    return [word for line in lines if line[:1] in (["search"], ["domain"]) for word in line[1:]]


def _read(file: Path) -> str:
    try:
        with file.open("rb") as opened:
            return opened.read(_MOST_OCTETS).decode("utf-8", "replace")
    except OSError:
        return ""


def _text_of(hexadecimal: str) -> str:
    try:
        text = bytes.fromhex(hexadecimal.replace(":", "")).decode("ascii")
    except ValueError:
        return ""
    return text.rstrip("\0").strip()
