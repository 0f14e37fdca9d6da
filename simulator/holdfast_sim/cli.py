"""``holdfast-sim``: the owner's network and the manufacturer on loopback, for any client."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import secrets
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import yaml
from cryptography import x509

from holdfast.wire.discovery.grasp import AN_JOIN_REGISTRAR, AN_PROXY
from holdfast.wire.errors import ConfigError, HoldfastError
from holdfast.wire.model import KeyAlgorithm

from . import directory as pki
from . import intake
from .acme.probe import look
from .cmc_desk import CmcPolicy
from .faults import Fault, load
from .manufacturer import Manufacturer
from .scep_authority import ScepPolicy
from .serve import LOOPBACK, Addresses, serving
from .site import Site
from .world import DEFAULT_LIFE, EstPolicy, VoucherPolicy, World

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
SERIAL_NUMBER = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", re.ASCII)  # it becomes a file name


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_serve(options))
    except (HoldfastError, OSError) as error:
        print(f"holdfast-sim: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="holdfast-sim", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run registrar + EST, MASA and an application until stopped")
    serve.add_argument(
        "--directory", type=Path, help="write anchors and keys here (default: a temporary one)"
    )
    serve.add_argument("--manufacturer", type=Path, help="take the manufacturer from a factory's directory")
    serve.add_argument(
        "--manifest",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="devices that the factory exported for its MASA; then no others get a voucher",
    )
    serve.add_argument(
        "--device", action="append", default=[], metavar="SERIAL", help="make a software device"
    )
    serve.add_argument("--validity", default=None, metavar="1h", help="life of LDevIDs: 10m, 1h, 90d, never")
    serve.add_argument(
        "--user", action="append", default=[], metavar="NAME:FILE", help="HTTP user, password file"
    )
    serve.add_argument("--auth", choices=("basic", "digest"), default="digest", help="scheme for --user")
    serve.add_argument("--label", action="append", default=[], help="an EST label that exists")
    serve.add_argument("--fault", action="append", default=[], metavar="WHERE:KIND[:TIMES][:NAME=VALUE]...")
    serve.add_argument("--faults", type=Path, metavar="FILE", help="a YAML or JSON list of faults")
    serve.add_argument(
        "--attestation-anchors",
        type=Path,
        metavar="FILE",
        help="attestation CAs that the ACME server believes",
    )
    serve.add_argument(
        "--http-01-port", type=int, metavar="PORT", help="where ACME looks for http-01, on loopback"
    )
    serve.add_argument("--rsa", action="store_true", help="RSA keys for all certification authorities")
    serve.add_argument("--host", default=LOOPBACK, help="address to listen on")
    serve.add_argument("--port", type=int, default=0, help="port of registrar and EST (default: any)")
    serve.add_argument(
        "--announce",
        action="append",
        default=[],
        choices=("mdns", "grasp"),
        help="make the registrar known on the link of --announce-on",
    )
    serve.add_argument("--announce-on", metavar="INTERFACE", help="where to announce")
    serve.add_argument(
        "--announce-address",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="address to announce (default: that of --host)",
    )
    serve.add_argument(
        "--announce-as", choices=("registrar", "proxy"), default="registrar", help="what it claims to be"
    )
    serve.add_argument("--announce-name", default="registrar", metavar="NAME", help="name to announce")
    serve.add_argument(
        "--announce-every", type=float, default=60.0, metavar="SECONDS", help="time between GRASP floods"
    )
    serve.add_argument("--transcript", type=Path, metavar="FILE", help="write JSON lines there at the end")
    serve.add_argument("--json", action="store_true", help="print one JSON line")
    return parser


async def _serve(options: argparse.Namespace) -> int:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    site = Site(_world(options), _faults(options))
    with _place(options.directory) as place:
        pki.write(site.world, place)
        for serial in options.device:
            pki.write_device(site.world, place, serial)
        async with (
            serving(site, options.host, port=options.port) as addresses,
            _made_known(options, addresses),
        ):
            print(_announcement(addresses, place, as_json=options.json), flush=True)
            await stop.wait()
    if options.transcript:
        site.transcript.save(options.transcript)
    return 0


@contextlib.asynccontextmanager
async def _made_known(options: argparse.Namespace, addresses: Addresses) -> AsyncIterator[None]:
    """What nobody asked for is not announced."""
    if not options.announce:
        yield
        return
    if not options.announce_on:
        raise ConfigError("sim.announce", "--announce needs --announce-on")
    from .announce import Announcement, announced  # noqa: PLC0415 - most servers are configured at clients

    what = Announcement(
        addresses.registrar[1],
        tuple(options.announce_address) or (options.host,),
        options.announce_on,
        options.announce_name,
        tuple(dict.fromkeys(options.announce)),
        options.announce_every,
        AN_PROXY if options.announce_as == "proxy" else AN_JOIN_REGISTRAR,
    )
    async with announced(what, secrets.token_bytes):
        yield


@contextlib.contextmanager
def _place(given: Path | None) -> Iterator[Path]:
    """Where the PKI is written; what nobody asked for is gone at the end."""
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="holdfast-sim-") as temporary:
        yield Path(temporary)


def _world(options: argparse.Namespace) -> World:
    names = tuple(dict.fromkeys(("localhost", "127.0.0.1", options.host, *options.announce_address)))
    if bad := [serial for serial in options.device if not SERIAL_NUMBER.fullmatch(serial)]:
        raise ConfigError("sim.device", f"no usable serial number: {bad[0]!r}")
    world = World.create(
        lambda: datetime.now(UTC),
        secrets.token_bytes,
        manufacturer=Manufacturer.load(options.manufacturer, secrets.token_bytes)
        if options.manufacturer
        else None,
        names=names,
        algorithm=KeyAlgorithm.RSA2048 if options.rsa else KeyAlgorithm.P256,
        est=EstPolicy(
            life=duration(options.validity) if options.validity else DEFAULT_LIFE,
            labels=frozenset(options.label),
            scheme=options.auth if options.user else None,
            users=dict(map(_user, options.user)),
        ),
        # Without a manifest nobody sells these devices: whoever shows an IDevID of the manufacturer is a new
        # device of ours.
        vouchers=VoucherPolicy(open_ledger=not options.manifest),
    )
    for path in options.manifest:
        if options.manufacturer is None:
            raise ConfigError("sim.manifest", "--manifest needs --manufacturer")
        intake.load(world, path, options.manufacturer)
    if options.attestation_anchors is not None:
        anchors = tuple(x509.load_pem_x509_certificates(options.attestation_anchors.read_bytes()))
        world.acme.policy = replace(world.acme.policy, attestation_anchors=anchors)
    if options.http_01_port is not None:
        world.acme.probe = partial(look, port=options.http_01_port)
    return world


def duration(text: str) -> timedelta | None:
    """``90s``, ``10m``, ``1h``, ``90d``, or ``never`` (None). Raises ConfigError ``sim.duration``."""
    if text == "never":
        return None
    match = re.fullmatch(r"([1-9][0-9]{0,7})([smhd])", text, re.ASCII)
    if not match:
        raise ConfigError("sim.duration", f"{text!r} is not like 90s, 10m, 1h, 90d or never")
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def _user(text: str) -> tuple[str, str]:
    name, colon, file = text.partition(":")
    if not colon:
        raise ConfigError("sim.user", "a user is NAME:FILE, the password stands in the file")
    return name, Path(file).read_text(encoding="utf-8").strip()


def _faults(options: argparse.Namespace) -> tuple[Fault, ...]:
    declared = tuple(map(Fault.parse, options.fault))
    if options.faults is None:
        return declared
    try:
        listed = yaml.safe_load(options.faults.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("sim.fault", f"{options.faults}: {error}") from error
    return declared + load(listed)


def _announcement(addresses: Addresses, place: Path, *, as_json: bool) -> str:
    facts = {
        "registrar": "{}:{}".format(*addresses.registrar),
        "est": addresses.est_url,
        "brski": addresses.brski_url,
        "masa": addresses.masa_url,
        "application": "https://{}:{}/".format(*addresses.application),
        "acme": "https://{}:{}/acme/directory".format(*addresses.registrar),
        "cmc": f"{addresses.plain_url}{CmcPolicy().path}",
        "scep": f"{addresses.plain_url}{ScepPolicy().path}",
        "directory": str(place),
        "anchors": str(place / pki.ANCHORS),
        "manufacturer_anchors": str(place / "manufacturer-root.pem"),
    }
    if as_json:
        return json.dumps(facts)
    return "\n".join(f"{name:21}{value}" for name, value in facts.items())


if __name__ == "__main__":
    sys.exit(main())
