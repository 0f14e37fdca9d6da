"""``holdfast-factory``: set up a manufacturer, make devices."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from holdfast.wire.errors import HoldfastError
from holdfast_factory.authority import MODEL, ORGANIZATION, Product, init_factory, open_factory
from holdfast_factory.ek import EK_AUTHORITY
from holdfast_factory.swtpm import Swtpm


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 done, 1 refused or failed (one line on standard error says why), 2 wrong usage."""
    options = _parser().parse_args(arguments)
    try:
        if options.command == "init":
            _init(options)
        else:
            _make_device(options)
    except HoldfastError as error:
        print(f"holdfast-factory: {error}", file=sys.stderr)
        return 1
    return 0


def _init(options: argparse.Namespace) -> None:
    product = Product(options.masa_url, options.organization, options.model)
    factory = init_factory(options.directory, product, _now())
    print(f"{factory.directory}: {product.organization}, {product.model}, MASA {product.masa_url}")


def _make_device(options: argparse.Namespace) -> None:
    from holdfast_factory.device import make_device  # noqa: PLC0415 (init needs no TPM library)

    factory = open_factory(options.factory)
    if options.tcti:
        device = make_device(factory, options.tcti, options.serial, options.out, _now())
    else:
        with Swtpm(options.tpm_state, ek=True, ek_authority=factory.directory / EK_AUTHORITY) as tpm:
            device = make_device(factory, tpm.tcti, options.serial, options.out, _now())
    if options.json:
        print(msgspec.json.encode(asdict(device)).decode())
    else:
        state = "made" if device.new else "was made before"
        print(f"{device.serial}: {state}; IDevID at {device.idevid_handle}, files in {options.out}")


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
    make = commands.add_parser("make-device", help="give a TPM its IDevID")
    make.add_argument("--factory", required=True, metavar="DIR", type=Path)
    tpm = make.add_mutually_exclusive_group(required=True)
    tpm.add_argument("--tpm-state", metavar="DIR", type=Path, help="a software TPM with its state here")
    tpm.add_argument("--tcti", help="a TPM that runs already, such as device:/dev/tpmrm0")
    make.add_argument("--serial", required=True)
    make.add_argument("--out", required=True, metavar="DIR", type=Path, help="what ships with the device")
    make.add_argument("--json", action="store_true")
    return parser
