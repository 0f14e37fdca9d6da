"""``holdfast show``: a certificate in words."""

from __future__ import annotations

import argparse
import json
import warnings
from pathlib import Path
from typing import Any, Final

from cryptography import x509

from holdfast.cli.certificate_words import describe, values
from holdfast.cli.exits import EXIT_OK
from holdfast.cli.view import chosen, look
from holdfast.cli.words import shown
from holdfast.host.clock import BUILD_TIME, SystemClock
from holdfast.host.config import Settings, load
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import Chain

MAX_BYTES: Final = 1 << 20
MAX_SHOWN: Final = 64


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser(
        "show", help="a certificate in words: an identity's, a file's or the IDevID's"
    )
    command.add_argument(
        "what",
        nargs="?",
        metavar="IDENTITY|FILE",
        help="an identity, or a PEM or DER file (default: all identities)",
    )
    command.add_argument(
        "--idevid", action="store_true", help="the maker's certificate, read from the key store"
    )
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Shows chains leaf first. A word with ``/`` or ``.`` is a file, any other an identity."""
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # what a strange certificate makes the library warn of is no news here
        return _show(arguments)


def _show(arguments: argparse.Namespace) -> int:
    if arguments.idevid:
        chains = {"idevid": _idevid(load(arguments.config))}
    elif arguments.what and ("/" in arguments.what or "." in arguments.what):
        chains = {arguments.what: certificates(Path(arguments.what))}
    else:
        chains = _held(arguments.config, arguments.what)
    moment = SystemClock().moment(BUILD_TIME).now
    if arguments.json:
        told = {name: [values(c, moment) for c in chain] for name, chain in chains.items()}
        print(json.dumps({"certificates": told}))
        return EXIT_OK
    for name, chain in chains.items():
        for place, certificate in enumerate(chain):
            print(shown(name if not place else f"{name}, {place} above it"))
            for label, value in describe(certificate, moment):
                print(shown(f"  {label:<10} {value}"))
    return EXIT_OK


def certificates(path: Path) -> Chain:
    """What is in a PEM or DER file, bounded. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError("cli.file", f"{path}: {error.strerror}") from error
    if len(data) > MAX_BYTES:
        raise ConfigError("cli.file", f"{path}: more than {MAX_BYTES} bytes")
    try:
        if b"-----BEGIN" in data:
            return tuple(x509.load_pem_x509_certificates(data))[:MAX_SHOWN]
        return (x509.load_der_x509_certificate(data),)
    except ValueError as error:
        raise ConfigError("cli.file", f"{path}: no certificate: {error}") from error


def _held(config: Path, name: str | None) -> dict[str, Chain]:
    view = look(config)
    told: dict[str, Chain] = {}
    for settings in chosen(view.settings, name):
        chain = view.record.identity(settings.name).credential.chain
        if chain:
            told[settings.name] = tuple(map(x509.load_der_x509_certificate, chain))
        elif name is not None:
            raise ConfigError("cli.no-certificate", f"{name} has no certificate yet: holdfast why {name}")
    if not told:
        raise ConfigError("cli.no-certificate", "no identity has a certificate yet: holdfast why")
    return told


def _idevid(settings: Settings) -> Chain:
    from holdfast.keys.open import open_store  # noqa: PLC0415 - the key store: only where it is asked
    from holdfast.worker.assemble import key_settings  # noqa: PLC0415
    from holdfast.worker.factory import factory_identity, makers_store  # noqa: PLC0415

    keys = open_store(key_settings(settings))
    try:
        with makers_store(settings, keys) as maker:
            return factory_identity(settings, maker).chain
    finally:
        keys.close()
