"""``holdfast plan``: what the next steps will be, without doing them. No network, no write, no TPM."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from holdfast.cli import terminal
from holdfast.cli.exits import EXIT_OK
from holdfast.cli.view import View, chosen, look
from holdfast.cli.words import shown, timestamp, when
from holdfast.life import events as ev
from holdfast.life.ladder import candidates
from holdfast.life.record import TransactionState
from holdfast.wire.model import Purpose
from holdfast.worker.candidates import whom_to_ask
from holdfast.worker.forecast import Foreseen, foresee


def register(commands: Any) -> None:
    """Add the subcommand to argparse's collection of subparsers."""
    command = commands.add_parser("plan", help="what the next steps will be, without doing them")
    command.add_argument("identity", nargs="?", metavar="IDENTITY", help="only this identity (default: all)")
    command.add_argument("--json", action="store_true", help="one JSON object instead of text")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Exit status 0."""
    view = look(arguments.config)
    identities = chosen(view.settings, arguments.identity)
    planned = foresee(view.record, view.settings, identities, view.now)
    if arguments.json:
        print(json.dumps({"plan": [values(view, p) for p in planned], "note": view.note}))
    else:
        for each in planned:
            _print(view, each)
    return EXIT_OK


def values(view: View, planned: Foreseen) -> dict[str, Any]:
    """Ready for JSON."""
    return {
        "part": planned.identity or "domain",
        "at": timestamp(planned.at),
        "steps": [{"effect": type(e).__name__, "words": words(view, planned, e)} for e in planned.effects],
    }


def _print(view: View, planned: Foreseen) -> None:
    moment = "now" if planned.at <= view.now.now else when(planned.at, view.now.now)
    print(f"{planned.identity or 'domain':<11} {moment}")
    for effect in planned.effects:
        print(terminal.paragraph(shown(words(view, planned, effect)), indent="  "))


def words(view: View, planned: Foreseen, effect: ev.Effect) -> str:
    """What *effect* does, for a person."""
    match effect:
        case ev.SeekRegistrars():
            return f"look for registrars: {_sources(view)}"
        case ev.PrepareAttempt():
            registrar = whom_to_ask(view.record, view.settings) or "the best that was found"
            return f"connect to {registrar}, trusting it with nothing yet, and sign a voucher request"
        case ev.RequestVoucher():
            registrar = view.record.domain.registrar or whom_to_ask(view.record, view.settings) or "it"
            return f"ask {registrar} for a voucher that says whose device this is"
        case ev.Discover(purpose):
            return f"read the CA's certificates and wishes{_rungs(view, planned)}, {_AS[purpose]}"
        case ev.MakeRequest():
            return f"{_key(view, planned)} and sign a certificate request"
        case _:
            return _ALWAYS[type(effect)]


def _sources(view: View) -> str:
    """Where is looked, and what is known from before."""
    search, discovery = view.record.search, view.settings.discovery
    if search.good is not None and search.refusal_of(search.good.endpoint) is None:
        return f"{search.good.endpoint} was good before"
    said = ", then ".join(source.value for source in discovery.order) if discovery else ""
    refused = [each.endpoint for each in search.refusals if each.distrusted]
    return f"{said}; distrusted: {', '.join(refused)}" if refused else said


_ALWAYS: Mapping[type[ev.Effect], str] = {
    ev.MeetRegistrar: "see whether the place that was found is our domain's registrar",
    ev.Enroll: "send the request and check the certificate that comes",
    ev.Resume: "ask again for the answer to the request that was sent",
    ev.ProveCredential: "use the new certificate in a real connection; only then it replaces the old",
    ev.Deploy: "see that other programs have the certificate, its anchors and the reference to its key",
    ev.RunHook: "tell other programs, by the hooks that did not run yet",
    ev.CheckStanding: "ask the certificate's issuer whether it is revoked",
    ev.AskHint: "ask the CA when it would like to see a renewal",
    ev.RetireKeys: "destroy the key that is no longer used",
}

_AS = {
    Purpose.INITIAL: "as the maker's identity (IDevID)",
    Purpose.RENEW: "with the present certificate, to renew it with the same key",
    Purpose.REKEY: "with the present certificate, to renew it with a new key",
}


def _rungs(view: View, planned: Foreseen) -> str:
    """Which protocols are tried in which order, where there is a choice."""
    settings = next(i for i in view.settings.identities if i.name == planned.identity)
    ladder = view.record.identity(planned.identity).ladder
    tried = candidates(settings.rungs, ladder, planned.at)
    return f" by {', else by '.join(tried)}" if len(settings.rungs) > 1 else ""


def _key(view: View, planned: Foreseen) -> str:
    """Whether a key is made for the request, as far as the record or the plan says."""
    transaction = view.record.identity(planned.identity).transaction
    discovered = next((e.purpose for e in planned.effects if isinstance(e, ev.Discover)), None)
    under_way = transaction.state is not TransactionState.NONE
    purpose = discovered or (transaction.purpose if under_way else Purpose.INITIAL)
    return "take the present key" if purpose is Purpose.RENEW else "make a new key"
