"""All sources of one search, in the order of the configuration."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

from holdfast.host.config import DiscoverySettings, Settings
from holdfast.host.config_formats import registrar
from holdfast.host.discovery.gathering import Findings
from holdfast.host.discovery.interfaces import Interface, listening
from holdfast.host.discovery.leases import Hints, hints
from holdfast.host.discovery.neighbours import listen
from holdfast.host.discovery.unicast import QUESTION_SECONDS, Ask, look, resolver
from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Announced, Role
from holdfast.wire.model import RandomBytes

_ON_LINKS = frozenset({Source.MDNS, Source.GRASP})


@dataclass(frozen=True, slots=True)
class World:
    """What a search asks of this host."""

    random: RandomBytes
    monotonic: Callable[[], float]
    hints: Callable[[int | None], Hints] = hints
    ask: Ask | None = None
    interfaces: Callable[[tuple[str, ...]], tuple[Interface, ...]] = listening


def search(settings: Settings, seconds: float, refused: Collection[str], world: World) -> Findings:
    """Look everywhere that *settings* names, listening for *seconds* on the links.

    Nobody is listened to while a source before them names a place that is not among the *refused*. Raises
    nothing: a source that fails is one that brought nothing.
    """
    discovery = settings.discovery or DiscoverySettings()
    places: list[tuple[Source, Announced]] = []
    silent: list[str] = []
    known = world.hints(discovery.dhcp_option)
    heard = False
    for source in discovery.order:
        if source in _ON_LINKS:
            if heard:
                continue
            if any(each.endpoint not in refused for _, each in places):
                return Findings(tuple(places), tuple(silent))
            heard = True
            for one, told, nothing in _neighbours(discovery, seconds, world):
                places += ((one, each) for each in told)
                silent += () if told else (f"{one.value}: {nothing}",)
            continue
        found, why = _quick(source, settings, discovery, known, world)
        places += ((source, each) for each in found)
        if not found:
            silent.append(f"{source.value}: {why}")
    return Findings(tuple(places), tuple(silent))


def _quick(
    source: Source, settings: Settings, discovery: DiscoverySettings, known: Hints, world: World
) -> tuple[tuple[Announced, ...], str]:
    match source:
        case Source.LIST:
            listed = enumerate(settings.registrars)
            return tuple(_parsed(r, Role.REGISTRAR, "list", n) for n, r in listed), "no registrars configured"
        case Source.CLOUD:
            cloud = settings.manufacturer.cloud_registrar
            clouds = () if cloud is None else (cloud,)
            found = tuple(_parsed(each, Role.CLOUD, "cloud") for each in clouds)
            return found, "no manufacturer.cloud-registrar configured"
        case Source.DHCP:
            if discovery.dhcp_option is None:
                return (), "no discovery.dhcp-option configured"
            return tuple(_named(known)), f"no lease has option {discovery.dhcp_option} with host:port"
        case _:
            domains = tuple(dict.fromkeys((*discovery.domains, *known.domains)))
            if not domains:
                return (), "the network names no DNS domain"
            found = look(domains, world.ask or resolver(QUESTION_SECONDS))
            return found, f"nothing under {', '.join(domains)}"


def _parsed(endpoint: str, role: Role, announcer: str, priority: int = 0) -> Announced:
    parts = urlsplit(f"//{endpoint}")
    return Announced(parts.hostname or "", parts.port or 443, role, announcer, priority)


def _named(known: Hints) -> Iterator[Announced]:
    for text, interface in known.named:
        try:
            yield _parsed(registrar(text), Role.REGISTRAR, f"dhcp {interface}")
        except ValueError:
            continue


def _neighbours(
    discovery: DiscoverySettings, seconds: float, world: World
) -> Iterator[tuple[Source, tuple[Announced, ...], str]]:
    sources = tuple(each for each in discovery.order if each in _ON_LINKS)
    if not sources:
        return
    interfaces = world.interfaces(discovery.interfaces)
    if not interfaces:
        yield from ((each, (), "no interface is up that has multicast") for each in sources)
        return
    try:
        gathered = listen(sources, interfaces, seconds, world.random, world.monotonic)
    except OSError as error:
        yield from ((each, (), f"{error.strerror or error}") for each in sources)
        return
    names = ", ".join(each.name for each in interfaces)
    for source, gathering in gathered.items():
        yield source, gathering.places, f"nobody answered in {seconds:g} s at {names}"
