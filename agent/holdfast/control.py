"""``io.holdfast.Agent``: what a client of the control socket may ask, and the answers (ADR 19).

Reading is for members of the agent's group, changes are for root; the kernel says who asks. There is no way
to sign anything.
"""

from __future__ import annotations

import grp
import os
import time
from collections.abc import Callable
from typing import Any, Final

from holdfast.host.journal import Log
from holdfast.resident.agent import Agent, Waiter, Want
from holdfast.resident.interface import DESCRIPTION, NAME, SERVICE_DESCRIPTION
from holdfast.resident.messages import CHANGE_ASKED
from holdfast.resident.reports import IdentityTold, Progress, Refusal, Report, Settings, Trouble
from holdfast.resident.varlink import SERVICE, Call, Handler

MAX_CHAIN: Final = 64 << 10
NOBODY: Final = -1


class Control:
    """The methods. *changers* are the users that may do all; our group, or the configured one, may read."""

    def __init__(
        self,
        agent: Agent,
        log: Log,
        reload: Callable[[], None],
        *,
        changers: frozenset[int] = frozenset({0}),
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._agent = agent
        self._log = log
        self._reload = reload
        self._readers = os.getegid()
        self._changers = changers
        self._wall = wall
        self._monotonic = monotonic
        agent.configured.append(self._configured)
        self._watching: dict[Call, int] = {}
        self._status: tuple[int, dict[str, Any]] = (-1, {})

    def handlers(self) -> dict[str, Handler]:
        """Full method names and what serves them."""
        return {
            f"{SERVICE}.GetInfo": self._get_info,
            f"{SERVICE}.GetInterfaceDescription": self._get_description,
            f"{NAME}.GetStatus": self._reading(self._get_status),
            f"{NAME}.Watch": self._reading(self._watch),
            f"{NAME}.GetCertificate": self._reading(self._get_certificate),
            f"{NAME}.Renew": self._changing(self._renew),
            f"{NAME}.Step": self._changing(self._step),
            f"{NAME}.Reload": self._changing(self._do_reload),
        }

    def tick(self) -> None:
        """Tell those who watch what is new; who has not taken the last news yet gets the newest later."""
        for call, told in tuple(self._watching.items()):
            if call.ended:
                del self._watching[call]
            elif told != self._agent.serial and call.clear:
                self._watching[call] = self._agent.serial
                call.reply({"status": self.status()}, continues=True)

    def status(self) -> dict[str, Any]:
        """The Varlink type Status."""
        serial, told = self._status
        if serial != self._agent.serial:
            told = self._make_status()
            self._status = (self._agent.serial, told)
        return told

    def _configured(self, settings: Settings) -> None:
        """A group that does not exist (any more) leaves reading to root."""
        try:
            self._readers = grp.getgrnam(settings.group).gr_gid if settings.group else os.getegid()
        except KeyError:
            self._readers = NOBODY

    # --- who may what --------------------------------------------------------------------------------

    def _reading(self, handler: Handler) -> Handler:
        def guarded(call: Call) -> None:
            if call.peer.uid in self._changers or self._readers in call.peer.groups:
                handler(call)
            else:
                call.error(f"{SERVICE}.PermissionDenied")

        return guarded

    def _changing(self, handler: Handler) -> Handler:
        def guarded(call: Call) -> None:
            if call.peer.uid in self._changers:
                self._log.event(
                    CHANGE_ASKED,
                    f"process {call.peer.pid} of user {call.peer.uid} asks: {call.method.rpartition('.')[2]}",
                    {"HOLDFAST_PEER_PID": str(call.peer.pid), "HOLDFAST_PEER_UID": str(call.peer.uid)},
                )
                handler(call)
            else:
                call.error(f"{SERVICE}.PermissionDenied")

        return guarded

    # --- org.varlink.service -------------------------------------------------------------------------

    def _get_info(self, call: Call) -> None:
        call.reply(
            {
                "vendor": "Holdfast",
                "product": "holdfastd",
                "version": self._agent.settings.version,
                "url": "",
                "interfaces": [SERVICE, NAME],
            }
        )

    def _get_description(self, call: Call) -> None:
        texts = {SERVICE: SERVICE_DESCRIPTION, NAME: DESCRIPTION}
        interface = call.parameters.get("interface")
        if not isinstance(interface, str):
            call.invalid("interface")
        elif interface in texts:
            call.reply({"description": texts[interface]})
        else:
            call.error(f"{SERVICE}.InterfaceNotFound", {"interface": interface})

    # --- reading -------------------------------------------------------------------------------------

    def _get_status(self, call: Call) -> None:
        call.reply({"status": self.status()})

    def _watch(self, call: Call) -> None:
        if not call.more:
            call.error(f"{SERVICE}.ExpectedMore")
            return
        self._watching[call] = self._agent.serial
        call.on_close = lambda: self._stop_watching(call)
        call.reply({"status": self.status()}, continues=True)

    def _stop_watching(self, call: Call) -> None:
        self._watching.pop(call, None)

    def _get_certificate(self, call: Call) -> None:
        name = self._identity(call)
        if name is None:
            return
        path = next(i.chain for i in self._agent.settings.identities if i.name == name)
        chain = _read_chain(path)
        if chain is None:
            call.error(f"{NAME}.NoCertificate", {"identity": name})
        else:
            call.reply({"chain": chain})

    # --- changes -------------------------------------------------------------------------------------

    def _renew(self, call: Call) -> None:
        name = self._identity(call)
        if name is not None:
            self._ask(call, Want(frozenset({name})))

    def _step(self, call: Call) -> None:
        self._ask(call, Want(hasten=True))

    def _do_reload(self, call: Call) -> None:
        self._reload()
        self._ask(call, Want())

    def _ask(self, call: Call, want: Want) -> None:
        waiter = self._waiter(call)
        call.on_close = lambda: self._agent.forget(waiter)
        self._agent.ask(want, waiter)

    def _waiter(self, call: Call) -> Waiter:
        def heard(told: Progress | Report | Refusal) -> None:
            match told:
                case Progress():
                    if call.more and call.clear:
                        call.reply({"progress": _progress(told)}, continues=True)
                case Report():
                    call.reply({"status": self.status()})
                case Refusal(trouble):
                    call.error(f"{NAME}.Failed", {"code": trouble.code, "detail": trouble.detail})

        return heard

    def _identity(self, call: Call) -> str | None:
        """The name that the call gives, or None after the answer that there is no such identity."""
        name = call.parameters.get("identity")
        if not isinstance(name, str):
            call.invalid("identity")
        elif name not in {i.name for i in self._agent.settings.identities}:
            call.error(f"{NAME}.NoSuchIdentity", {"identity": name[:64]})
        else:
            return name
        return None

    # --- the status ----------------------------------------------------------------------------------

    def _make_status(self) -> dict[str, Any]:
        agent = self._agent
        report, progress = agent.report, agent.progress
        trouble = agent.refusal.trouble if agent.refusal else report.trouble if report else None
        return _without_none(
            {
                "version": self._agent.settings.version,
                "state": report.state if report else "starting",
                "due_at": int(self._wall() + agent.seconds_to_due(self._monotonic())),
                "clock": report.clock or None if report else None,
                "working": _progress(progress) if progress else None,
                "identities": [_identity(i) for i in report.identities] if report else [],
                "trouble": _trouble(trouble) if trouble else None,
            }
        )


def _progress(progress: Progress) -> dict[str, Any]:
    return _without_none(
        {
            "doing": progress.doing,
            "identity": progress.identity or None,
            "allow_seconds": float(progress.allow),
        }
    )


def _identity(told: IdentityTold) -> dict[str, Any]:
    return _without_none(
        {
            "name": told.name,
            "state": told.state,
            "generation": told.generation,
            "not_after": int(told.not_after) or None,
            "transaction": told.transaction,
            "protocol": told.protocol or None,
            "attempts": told.attempts,
        }
    )


def _trouble(trouble: Trouble) -> dict[str, Any]:
    return _without_none({**trouble._asdict(), "at": trouble.at or None})


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _read_chain(path: str) -> str | None:
    """The chain in the file, which is public; None where there is none that could be one."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = os.read(descriptor, MAX_CHAIN + 1)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return data.decode("ascii", "replace") if 0 < len(data) <= MAX_CHAIN else None
