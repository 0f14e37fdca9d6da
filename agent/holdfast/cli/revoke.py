"""``holdfast revoke``: have the present certificate of an identity revoked by the CA that issued it."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Final

from holdfast.cli import terminal
from holdfast.cli.asked import add_socket_option
from holdfast.cli.exits import EXIT_FAILED, EXIT_OK
from holdfast.cli.owner import check_owner
from holdfast.cli.view import chosen, look, now
from holdfast.cli.words import shown
from holdfast.control_client import ControlClient, ControlError
from holdfast.host.config import IdentitySettings, load
from holdfast.life.record import CredentialState
from holdfast.wire.errors import ConfigError
from holdfast.wire.revocation.reason import Reason
from holdfast.worker.agenda import leaf_of
from holdfast.worker.assemble import environment
from holdfast.worker.links import Connection
from holdfast.worker.revoking import Revocation, Revoked

REASONS: Final = {
    reason.word: reason
    for reason in (
        Reason.UNSPECIFIED,
        Reason.KEY_COMPROMISE,
        Reason.AFFILIATION_CHANGED,
        Reason.SUPERSEDED,
        Reason.CESSATION_OF_OPERATION,
        Reason.PRIVILEGE_WITHDRAWN,
    )
}
"""What may be said of a device's own certificate; none of them can be taken back."""


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser(
        "revoke", help="have the present certificate of an identity revoked by its CA, for good"
    )
    command.add_argument(
        "identity", nargs="?", metavar="IDENTITY", help="whose certificate (needless if there is only one)"
    )
    command.add_argument(
        "--reason", choices=tuple(REASONS), default="unspecified", help="what the CA is told and publishes"
    )
    command.add_argument("--yes", action="store_true", help="do not ask whether it is meant")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text; needs --yes")
    add_socket_option(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0 if the CA has revoked it, 1 if it may work later or nobody confirmed, 2 if a person must
    act."""
    settings = load(arguments.config)
    identity = _identity(chosen(settings, arguments.identity))
    check_owner(settings.state_directory)
    if not arguments.yes and not _confirmed(arguments, identity):
        print("Nothing was done.")
        return EXIT_FAILED
    with environment(settings) as env:
        loaded = env.store.load().record
        if loaded is None:
            raise ConfigError("revoke.no-certificate", f"{identity.name} has no certificate in use")
        with Connection(env.transport) as connection:
            revocation = Revocation(env, connection, identity)
            done, _ = revocation.perform(loaded, REASONS[arguments.reason], now(settings, loaded))
    told = _tell_agent(arguments)
    _show(arguments, identity, done, told=told)
    return EXIT_OK


def _identity(identities: tuple[IdentitySettings, ...]) -> IdentitySettings:
    if len(identities) != 1:
        known = ", ".join(sorted(i.name for i in identities))
        raise ConfigError("cli.identity", f"name the identity whose certificate is meant: {known}")
    return identities[0]


def _confirmed(arguments: argparse.Namespace, identity: IdentitySettings) -> bool:
    """Whether a person says yes to just this certificate."""
    if arguments.json or not sys.stdin.isatty():
        raise ConfigError("revoke.unconfirmed", "nobody is here to be asked; say --yes if it is meant")
    entry = look(arguments.config).record.identity(identity.name)
    if entry.credential.state is not CredentialState.ACTIVE:
        detail = f"{entry.name} has no certificate in use: it is {entry.credential.state.value}"
        raise ConfigError("revoke.no-certificate", detail)
    leaf = leaf_of(entry)
    print(
        f"{identity.name}: {shown(leaf.subject.rfc4514_string())}, serial {leaf.serial_number:x},"
        f" valid until {leaf.not_valid_after_utc:%Y-%m-%d}"
    )
    print(
        terminal.paragraph(
            f"Its CA will revoke it ({arguments.reason}), which cannot be taken back. Whatever uses it stops"
            " working. Then this device asks for another one while its configuration names the identity."
        )
    )
    return input("Revoke it? [y/N] ").strip().lower() in {"y", "yes"}


def _tell_agent(arguments: argparse.Namespace) -> bool:
    """Let a running agent see to a new certificate now, and not at the old one's renewal."""
    try:
        with ControlClient(arguments.socket) as agent:
            for _ in agent.step():
                pass
    except ControlError:
        return False  # the certificate is revoked all the same; whoever steps next sees it
    return True


def _show(arguments: argparse.Namespace, identity: IdentitySettings, done: Revoked, *, told: bool) -> None:
    serial = f"{done.certificate.serial_number:x}"
    if arguments.json:
        facts = {
            "ok": True,
            "identity": identity.name,
            "serial": serial,
            "by": done.rung,
            "reason": arguments.reason,
            "notice": done.notice,
            "agent": told,
        }
        print(json.dumps(facts))
        return
    print(f"{identity.name}: certificate {serial} is revoked ({arguments.reason}), by {done.rung}")
    if done.notice:
        print(f"the CA says: {shown(done.notice)}")
    if not told:
        print("the next step asks for another certificate: holdfast step")
