"""``holdfast-factory``: set up a manufacturer, make devices, run a line of them."""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.errors import ConfigError, HoldfastError
from holdfast_factory.authority import MODEL, ORGANIZATION, Factory, Product, init_factory, open_factory
from holdfast_factory.ek import EK_AUTHORITY
from holdfast_factory.line import commands as line
from holdfast_factory.screen import commands as screen
from holdfast_factory.swtpm import Swtpm

if TYPE_CHECKING:
    from holdfast_factory.device import Device


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused or failed (standard error, or the unit's line, says why), 2 wrong
    usage."""
    options = _parser().parse_args(arguments)
    try:
        if act := getattr(options, "act", ""):
            return _line(act, options)
        if options.command == "init":
            _init(options)
        elif options.command == "attestation-ca":
            _attestation_ca(options)
        else:
            _make_device(options)
    except HoldfastError as error:
        print(f"holdfast-factory: {error}", file=sys.stderr)
        return 1
    return 0


def _line(act: str, options: argparse.Namespace) -> int:
    try:
        if act in screen.ACTS:
            return screen.ACTS[act](options)
        from holdfast_factory.line.acts import ACTS  # noqa: PLC0415 (init needs no database library)
        from holdfast_factory.line.work import run  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("factory.extra", f"install holdfast[factory]: {error}") from error
    return run(options) if act == "run" else ACTS[act](options)


def _init(options: argparse.Namespace) -> None:
    product = Product(options.masa_url, options.organization, options.model)
    factory = init_factory(options.directory, product, _now())
    print(f"{factory.directory}: {product.organization}, {product.model}, MASA {product.masa_url}")


def _make_device(options: argparse.Namespace) -> None:
    from holdfast_factory.device import make_device  # noqa: PLC0415 (init needs no TPM library)

    factory = open_factory(options.factory)
    if options.token or options.token_state:
        device = _on_token(factory, options)
    elif options.tcti:
        device = make_device(factory, options.tcti, options.serial, options.out, _now())
    else:
        with Swtpm(options.tpm_state, ek=True, ek_authority=factory.directory / EK_AUTHORITY) as tpm:
            device = make_device(factory, tpm.tcti, options.serial, options.out, _now())
    if options.json:
        print(msgspec.json.encode(asdict(device)).decode())
    else:
        state = "made" if device.new else "was made before"
        place = device.idevid_uri or device.idevid_handle
        print(f"{device.serial}: {state}; IDevID at {place}, files in {options.out}")


def _on_token(factory: Factory, options: argparse.Namespace) -> Device:
    from holdfast_factory.softhsm import make_token  # noqa: PLC0415 (nor the library for tokens)
    from holdfast_factory.token_device import TokenPlace, make_token_device  # noqa: PLC0415

    if options.token_state:
        made = make_token(options.token_state, "gateway", secrets.token_hex(8))
        made.see()
        token, module, pin_file = made.uri, made.module, made.pin_file
    elif options.module and options.pin_file:
        token, module, pin_file = options.token, options.module, options.pin_file
    else:
        raise ConfigError("factory.token", "--token needs --module and --pin-file")

    def pin() -> bytes:
        try:
            return bytes(pin_file.read_bytes().removesuffix(b"\n"))
        except OSError as error:
            raise ConfigError("factory.token", f"{pin_file}: {error.strerror}") from error

    place = TokenPlace(module, parse(token), pin)
    return make_token_device(factory, place, options.serial, options.out, _now())


def _attestation_ca(options: argparse.Namespace) -> None:
    from holdfast_factory import attestation_service as service  # noqa: PLC0415 (aiohttp is for this alone)

    factory = open_factory(options.factory)
    trusted = service.makers(tuple(options.makers))
    ca = service.build(factory, trusted, listed=not options.any_device, now=_now())

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with service.serving(ca, factory, options.host, options.port) as here:
            told = {
                "url": here.url,
                "anchors": str(here.anchors),
                "server_anchors": str(here.server_anchors),
            }
            text = "\n".join(f"{name:16}{value}" for name, value in told.items())
            print(json.dumps(told) if options.json else text, flush=True)
            await stop.wait()

    try:
        asyncio.run(run())
    except OSError as error:
        raise ConfigError("akca.listen", f"{options.host} port {options.port}: {error}") from error


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="holdfast-factory", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    init = commands.add_parser("init", help="make the manufacturer's PKI in DIR")
    init.add_argument("directory", metavar="DIR", type=Path)
    init.add_argument("--masa-url", required=True, metavar="HOST:PORT", help="the MASA that IDevIDs name")
    init.add_argument("--organization", default=ORGANIZATION)
    init.add_argument("--model", default=MODEL)
    make = commands.add_parser("make-device", help="give a TPM or a PKCS#11 token its IDevID")
    make.add_argument("--factory", required=True, metavar="DIR", type=Path)
    tpm = make.add_mutually_exclusive_group(required=True)
    tpm.add_argument("--tpm-state", metavar="DIR", type=Path, help="a software TPM with its state here")
    tpm.add_argument("--tcti", help="a TPM that runs already, such as device:/dev/tpmrm0")
    tpm.add_argument("--token-state", metavar="DIR", type=Path, help="a software token with its state here")
    tpm.add_argument("--token", metavar="URI", help="a token that is there, such as pkcs11:token=gateway")
    make.add_argument("--module", type=Path, help="the PKCS#11 module of --token")
    make.add_argument("--pin-file", metavar="FILE", type=Path, help="the user PIN of --token")
    make.add_argument("--serial", required=True)
    make.add_argument("--out", required=True, metavar="DIR", type=Path, help="what ships with the device")
    make.add_argument("--json", action="store_true")
    line.add(commands)
    screen.add(commands)
    attest = commands.add_parser("attestation-ca", help="certify attestation keys of TPMs until stopped")
    attest.add_argument("--factory", required=True, metavar="DIR", type=Path)
    attest.add_argument(
        "--makers",
        required=True,
        action="append",
        metavar="FILE",
        type=Path,
        help="roots of TPM makers (PEM)",
    )
    attest.add_argument(
        "--any-device",
        action="store_true",
        help="serve every TPM of these makers, under its endorsement key's fingerprint, not only our devices",
    )
    attest.add_argument("--host", default="127.0.0.1", help="address to listen on")
    attest.add_argument("--port", type=int, default=0, help="port to listen on (default: any)")
    attest.add_argument("--json", action="store_true", help="print one JSON line")
    return parser


if __name__ == "__main__":
    sys.exit(main())
