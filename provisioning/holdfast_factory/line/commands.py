"""The commands of the line and their options: ``run``, ``verify``, ``export``, ``audit`` and ``ca``."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

from holdfast_factory.authority import MODEL, ORGANIZATION


def add(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the line's commands to *commands*; each names what it does in ``cli`` as ``act``."""
    run = _with_ledger(commands.add_parser("run", help="take units from bare board to sealed device"))
    run.add_argument("--station", default=socket.gethostname(), metavar="NAME", help="this station's name")
    run.add_argument(
        "--at",
        action="append",
        required=True,
        metavar="PLACE",
        dest="places",
        help="where a unit is: tcti:..., ssh:..., serial:..., pkcs11:...; repeatable",
    )
    run.add_argument(
        "--makers", action="append", default=[], type=Path, metavar="FILE", help="roots of TPM makers (PEM)"
    )
    run.add_argument(
        "--issue-ek",
        type=Path,
        metavar="FILE",
        help="certify endorsement keys whose maker did not, by this CA (PEM: certificate and key)",
    )
    run.add_argument("--units", type=int, metavar="N", help="stop after N sealed units (default: never)")
    run.add_argument("--once", action="store_true", help="one unit at each place, then stop")
    run.add_argument("--poll", type=float, default=0.2, metavar="S", help="seconds between looks for a unit")
    run.add_argument("--numbers", default="GW-{:06d}", metavar="PATTERN", help="how serial numbers are made")
    run.add_argument("--scan", action="store_true", help="read each serial number from standard input")
    run.add_argument("--labels", type=Path, metavar="DIR", help="write labels here")
    run.add_argument("--json", action="store_true", help="one JSON line a unit instead of a progress bar")
    run.set_defaults(act="run")
    verify = _with_ledger(commands.add_parser("verify", help="all that is known of a device, checked"))
    verify.add_argument("serial", metavar="SERIAL", help="its serial number, or that of a certificate")
    verify.add_argument("--json", action="store_true")
    verify.set_defaults(act="verify")
    export = _with_ledger(commands.add_parser("export", help="a signed manifest for the MASA or an owner"))
    export.add_argument("--for", dest="audience", choices=("masa", "owner"), default="masa")
    export.add_argument("--serial", action="append", default=[], help="only these devices; repeatable")
    export.add_argument("--out", type=Path, required=True, metavar="FILE")
    export.set_defaults(act="export")
    audit = _with_ledger(commands.add_parser("audit", help="check the ledger from its first entry on"))
    audit.add_argument(
        "--checkpoint",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="a manifest or checkpoint that left the line before; repeatable",
    )
    audit.add_argument(
        "--sign", type=Path, metavar="FILE", help="sign a new checkpoint, and write it here, too"
    )
    audit.add_argument("--json", action="store_true")
    audit.set_defaults(act="audit")
    _add_ca(commands.add_parser("ca", help="the CA that issues IDevIDs"))


def _with_ledger(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("--factory", required=True, type=Path, metavar="DIR", help="made by ca init")
    parser.add_argument("--ledger", metavar="URL", help="postgresql://..., or sqlite:///FILE (in DIR)")
    return parser


def _add_ca(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="ca", required=True)
    init = commands.add_parser("init", help="make the manufacturer's PKI in DIR, CA keys in an HSM if named")
    init.add_argument("directory", metavar="DIR", type=Path)
    init.add_argument("--masa-url", required=True, metavar="HOST:PORT", help="the MASA that IDevIDs name")
    init.add_argument("--organization", default=ORGANIZATION)
    init.add_argument("--model", default=MODEL)
    init.add_argument("--token", metavar="URI", help="the HSM's token, such as pkcs11:token=factory")
    init.add_argument("--module", type=Path, help="its PKCS#11 module")
    init.add_argument("--pin-file", type=Path, metavar="FILE", help="its user PIN")
    init.set_defaults(act="ca_init")
    line = commands.add_parser("line", help="write what a line needs that works without the CA's key")
    line.add_argument("directory", metavar="DIR", type=Path)
    line.add_argument("--out", type=Path, required=True, metavar="DIR")
    line.set_defaults(act="ca_line")
    for name, says in (
        ("ask", "on the line: write what waits for certificates"),
        ("answer", "at the CA: answer a batch of requests"),
        ("take", "on the line: take in an answer, all of it or nothing"),
    ):
        batch = _with_ledger(commands.add_parser(name, help=says))
        if name != "ask":
            batch.add_argument("--in", dest="source", type=Path, required=True, metavar="FILE")
        if name != "take":
            batch.add_argument("--out", type=Path, required=True, metavar="FILE")
        batch.set_defaults(act=f"ca_{name}")
