"""Who may what at the control socket, and what is answered."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from daemon.test_agent import IDENTITY, Heard, Stage, report
from holdfast.control import Control
from holdfast.resident.interface import DESCRIPTION, NAME, SERVICE_DESCRIPTION
from holdfast.resident.messages import CHANGE_ASKED
from holdfast.resident.reports import IdentityFiles, Progress, Refusal, Settings, Trouble
from holdfast.resident.varlink import SERVICE, Call, Peer

ROOT = Peer(10, 0, frozenset({0}))
READER = Peer(11, 1000, frozenset({1000, os.getegid() + 7000}))
STRANGER = Peer(12, 1001, frozenset({1001}))


class Asked(Call):
    """A call whose answers stay here."""

    def __init__(self, method: str, peer: Peer, parameters: Any, more: bool) -> None:
        self.method = method
        self.parameters = parameters
        self.more = more
        self.oneway = False
        self.ended = False
        self.on_close = None
        self.from_whom = peer
        self.is_clear = True
        self.answers: list[dict[str, Any]] = []

    @property
    def peer(self) -> Peer:
        return self.from_whom

    @property
    def clear(self) -> bool:
        return self.is_clear

    def _send(self, message: Any, *, last: bool) -> None:
        assert not self.ended
        self.ended = last
        self.answers.append(dict(message))


class House:
    """An agent with one identity, and its control."""

    def __init__(self, tmp_path: Path) -> None:
        self.stage = Stage()
        self.agent = self.stage.agent
        self.log = Heard()
        self.reloads = 0
        self.chain = tmp_path / "chain.pem"
        self.control = Control(self.agent, self.log, self._reload, wall=lambda: 1.8e9, monotonic=lambda: 0.0)
        self.control._readers = os.getegid() + 7000
        self.agent.settings = Settings((IdentityFiles("ldevid", str(self.chain)),), version="1.2.3")
        self.agent.tick(0.0)
        self.stage.end(report(identities=(IDENTITY,)))

    def _reload(self) -> None:
        self.reloads += 1

    def ask(self, method: str, peer: Peer = ROOT, more: bool = False, **parameters: Any) -> Asked:
        full = method if "." in method else f"{NAME}.{method}"
        call = Asked(full, peer, parameters, more)
        self.control.handlers()[full](call)
        return call


@pytest.fixture
def house(tmp_path: Path) -> House:
    return House(tmp_path)


READING = {"GetStatus": {}, "Watch": {}, "GetCertificate": {"identity": "ldevid"}}
CHANGING = {"Renew": {"identity": "ldevid"}, "Step": {}, "Reload": {}}
DENIED = [{"error": f"{SERVICE}.PermissionDenied", "parameters": {}}]


def test_every_method_that_is_described_is_served_and_no_other(house: House) -> None:
    described = {
        f"{NAME}.{line.split('(')[0].split()[1]}"
        for line in DESCRIPTION.splitlines()
        if line[:7] == "method "
    }
    assert described == {m for m in house.control.handlers() if m.startswith(NAME)}
    assert described == {f"{NAME}.{m}" for m in (*READING, *CHANGING)}


@pytest.mark.parametrize("method", READING)
def test_the_group_and_root_may_read_and_nobody_else(house: House, method: str) -> None:
    for peer, denied in ((ROOT, False), (READER, False), (STRANGER, True)):
        answers = house.ask(method, peer, more=True, **READING[method]).answers
        assert (answers == DENIED) == denied


@pytest.mark.parametrize("method", CHANGING)
def test_only_root_may_change(house: House, method: str) -> None:
    for peer in (READER, STRANGER, ROOT._replace(uid=1), Peer(13, 1000, frozenset({0}))):
        assert house.ask(method, peer, **CHANGING[method]).answers == DENIED
    assert house.reloads == 0
    house.agent.tick(0.0)
    assert len(house.stage.workers) == 1, "nothing was started"
    assert house.log.events == []
    house.ask(method, ROOT, **CHANGING[method])
    assert house.log.kinds() == [CHANGE_ASKED]
    house.agent.tick(0.0)
    assert len(house.stage.workers) == 2


def test_everybody_may_ask_what_this_is(house: House) -> None:
    (info,) = house.ask(f"{SERVICE}.GetInfo", STRANGER).answers
    assert info["parameters"]["interfaces"] == [SERVICE, NAME]
    assert info["parameters"]["version"] == "1.2.3"
    for name, text in ((NAME, DESCRIPTION), (SERVICE, SERVICE_DESCRIPTION)):
        (answer,) = house.ask(f"{SERVICE}.GetInterfaceDescription", STRANGER, interface=name).answers
        assert answer["parameters"] == {"description": text}
    (unknown,) = house.ask(f"{SERVICE}.GetInterfaceDescription", interface="x.y").answers
    assert unknown["error"] == f"{SERVICE}.InterfaceNotFound"
    (missing,) = house.ask(f"{SERVICE}.GetInterfaceDescription").answers
    assert missing == {"error": f"{SERVICE}.InvalidParameter", "parameters": {"parameter": "interface"}}


def test_the_status(house: House) -> None:
    (answer,) = house.ask("GetStatus").answers
    status = answer["parameters"]["status"]
    assert status == {
        "version": "1.2.3",
        "state": "all is well",
        "due_at": 1_800_000_060,
        "identities": [
            {
                "name": "ldevid",
                "state": "active",
                "generation": 1,
                "not_after": 2_000_000_000,
                "transaction": "none",
                "attempts": 0,
            }
        ],
    }


def test_the_status_shows_trouble_of_the_last_attempt_and_what_was_known_before(house: House) -> None:
    house.agent.tick(1e6)
    house.stage.end(Refusal(Trouble("worker.crashed", "it fell")))
    (answer,) = house.ask("GetStatus").answers
    status = answer["parameters"]["status"]
    assert status["trouble"] == {
        "code": "worker.crashed",
        "detail": "it fell",
        "clause": "",
        "retry": "backoff",
    }
    assert status["state"] == "all is well"


def test_a_watcher_hears_each_change_once_and_a_slow_one_only_the_newest(house: House) -> None:
    quick, slow = house.ask("Watch", more=True), house.ask("Watch", READER, more=True)
    slow.is_clear = False
    house.control.tick()
    house.control.tick()
    assert len(quick.answers) == len(slow.answers) == 1
    for n in range(3):
        house.agent.tick(1e6)
        house.stage.end(report(state=f"state {n}"))
        house.control.tick()
    assert [a["parameters"]["status"]["state"] for a in quick.answers[1:]] == [f"state {n}" for n in range(3)]
    assert all(a["continues"] for a in quick.answers)
    assert len(slow.answers) == 1
    slow.is_clear = True
    house.control.tick()
    assert [a["parameters"]["status"]["state"] for a in slow.answers[1:]] == ["state 2"]


def test_a_watcher_that_left_is_forgotten(house: House) -> None:
    call = house.ask("Watch", more=True)
    call.close()
    house.agent.serial += 1
    house.control.tick()
    assert house.control._watching == {}


def test_watching_needs_more_than_one_answer(house: House) -> None:
    assert house.ask("Watch").answers == [{"error": f"{SERVICE}.ExpectedMore", "parameters": {}}]


def test_a_renewal_tells_its_progress_to_who_wants_it_and_its_end_to_all(house: House) -> None:
    brief, full = house.ask("Renew", identity="ldevid"), house.ask("Renew", more=True, identity="ldevid")
    house.agent.tick(0.0)
    worker = house.stage.workers[-1]
    assert worker.want.renew == {"ldevid"}
    for waiter in tuple(house.agent._served):
        waiter(Progress("Enroll", "ldevid", 30.0))
    assert brief.answers == []
    assert full.answers == [
        {
            "parameters": {"progress": {"doing": "Enroll", "identity": "ldevid", "allow_seconds": 30.0}},
            "continues": True,
        }
    ]
    house.stage.end(report(state="renewed"))
    for call in (brief, full):
        assert call.answers[-1]["parameters"]["status"]["state"] == "renewed"
        assert call.ended


def test_a_step_that_fails_is_told_with_its_reason(house: House) -> None:
    call = house.ask("Step")
    house.agent.tick(0.0)
    house.stage.end(Refusal(Trouble("config.invalid", "line 3", retry="operator")))
    assert call.answers == [
        {"error": f"{NAME}.Failed", "parameters": {"code": "config.invalid", "detail": "line 3"}}
    ]


@pytest.mark.parametrize("name", ["vpn", "--config=/etc/shadow", "", "x" * 10000])
def test_an_identity_that_is_not_configured_reaches_no_worker(house: House, name: str) -> None:
    for method in ("Renew", "GetCertificate"):
        (answer,) = house.ask(method, identity=name).answers
        assert answer == {"error": f"{NAME}.NoSuchIdentity", "parameters": {"identity": name[:64]}}
    (answer,) = house.ask("Renew", identity=7).answers
    assert answer["error"] == f"{SERVICE}.InvalidParameter"
    house.agent.tick(0.0)
    assert len(house.stage.workers) == 1


def test_certificates_are_read_when_they_are_asked_for(house: House) -> None:
    def ask() -> dict[str, Any]:
        return house.ask("GetCertificate", READER, identity="ldevid").answers[0]

    nothing = {"error": f"{NAME}.NoCertificate", "parameters": {"identity": "ldevid"}}
    assert ask() == nothing
    house.chain.write_text("-----BEGIN CERTIFICATE-----\n")
    assert ask() == {"parameters": {"chain": "-----BEGIN CERTIFICATE-----\n"}}
    house.chain.write_text("x" * 100_000)
    assert ask() == nothing
    house.chain.unlink()
    os.mkfifo(house.chain)
    assert ask() == nothing
    house.chain.unlink()
    house.chain.mkdir()
    assert ask() == nothing


def test_a_reload_is_made_before_the_step_that_it_answers_with(house: House) -> None:
    call = house.ask("Reload")
    assert house.reloads == 1
    house.agent.tick(0.0)
    house.stage.end(report(state="anew"))
    assert call.answers[0]["parameters"]["status"]["state"] == "anew"


def test_a_group_that_does_not_exist_lets_nobody_in(house: House) -> None:
    for configured in house.agent.configured:
        configured(Settings(group="no-such-group-here"))
    assert house.ask("GetStatus", Peer(1, 5, frozenset({0, 1, os.getegid()}))).answers == DENIED
    for configured in house.agent.configured:
        configured(Settings())
    assert house.ask("GetStatus", Peer(1, 5, frozenset({os.getegid()}))).answers != DENIED
