"""What ``why``, ``plan`` and ``doctor`` say of a search: who waits, who is distrusted, that nobody came."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from holdfast.cli.checks.finding import Verdict
from holdfast.cli.checks.registrar import _searched, _sought
from holdfast.cli.plan import words as planned
from holdfast.cli.reasons import explain
from holdfast.cli.words import timestamp
from holdfast.host.store import StateStore
from holdfast.life import events as ev
from holdfast.life.record import DeviceRecord
from holdfast.life.search import REST, Candidate, Search, Source
from holdfast.wire.discovery.announced import Role
from lifecycle.device import REGISTRAR, Device
from lifecycle.test_found import GOOD, LIAR, Finder, Moving, vouched_and_left


def told(finder: Finder, record: DeviceRecord) -> tuple[str, str, list[tuple[Verdict, str, str, str]]]:
    """``why`` of the domain, ``plan``'s search, and ``doctor``'s findings."""
    device, settings = finder.device, finder.device.settings
    now = device.world.moment()
    view: Any = SimpleNamespace(record=record, settings=settings, now=now)
    why = explain(record, settings, settings.identities, now)[0].paragraph(now.now)
    plan = planned(view, view, ev.SeekRegistrars())
    return why, plan, [(f.verdict, f.said, f.advice, f.about) for f in _searched(view)]


def test_nobody_found(tmp_path: Path) -> None:
    finder = Finder(Device(tmp_path))
    finder.step()
    why, plan, doctor = told(finder, finder.device.record)
    assert "looks for its owner on the network (list, dhcp, dns-sd, mdns, grasp, cloud)" in why
    assert "The last error was discovery.nothing-found: mdns: nobody (RFC 8995 §4.1)" in why
    assert "Nobody was found by mdns: nobody." in why
    assert "What you can do: Check that this device is on the owner's network" in why
    assert plan == "look for registrars: list, then dhcp, then dns-sd, then mdns, then grasp, then cloud"
    assert doctor == [(Verdict.OK, "nobody by mdns: nobody", "", "")]


def test_a_distrusted_candidate(tmp_path: Path) -> None:
    finder = Finder(Device(tmp_path, faults=["requestvoucher:foreign-signer"]), GOOD)
    finder.step()
    why, plan, doctor = told(finder, finder.device.record)
    assert f"Found and refused: {REGISTRAR}: voucher.signer-chain." in why
    assert plan.endswith(f"; distrusted: {REGISTRAR}")
    ((verdict, said, advice, about),) = doctor
    assert (verdict, about) == (Verdict.WARN, REGISTRAR)
    assert "and refused: " in said
    assert said.endswith("(voucher.signer-chain)")
    assert "Check that the maker knows this device as sold to this owner" in advice


def test_candidates_that_wait(tmp_path: Path) -> None:
    finder = Finder(Device(tmp_path))
    finder.step()
    here, there = (Candidate(e, Role.PROXY, Source.MDNS) for e in ("here.example:1", "there.example:2"))
    search = Search(trying=here, waiting=(there,), at=finder.device.clock.now)
    why, plan, doctor = told(finder, replace(finder.device.record, search=search))
    assert "looks for its owner at here.example:1 or there.example:2" in why
    assert "Nobody was found" not in why
    assert "distrusted" not in plan
    assert doctor == []


def words(moving: Moving) -> tuple[str, list[tuple[Verdict, str, str]]]:
    """``why`` of the identity, and what ``doctor`` finds of the search."""
    device, settings = moving.device, moving.device.settings
    now = device.world.moment()
    view: Any = SimpleNamespace(record=device.record, settings=settings, now=now)
    why = explain(device.record, settings, settings.identities, now)[0].paragraph(now.now)
    return why, [(f.verdict, f.said, f.about) for f in _sought(view)]


def test_a_registrar_that_is_sought_again_and_a_liar_beside_it(tmp_path: Path) -> None:
    moving = vouched_and_left(tmp_path)
    moving.at = {LIAR: moving.liar}
    moving.announce(LIAR)
    moving.device.pass_time(timedelta(minutes=11))
    moving.live(1)
    why, doctor = words(moving)
    at = moving.device.record.domain.sought
    assert at is not None
    assert f"Its registrar {REGISTRAR} was sought on the network (list, dhcp, dns-sd, mdns, grasp) at" in why
    assert f"in vain; found and refused: {LIAR}:8443: chain." in why
    assert f"It is sought again from {timestamp(at + REST)} on, if it does not answer." in why
    (here, there) = doctor
    assert (here[0], here[2]) == (Verdict.WARN, REGISTRAR)
    assert "in vain" in here[1]
    assert (there[0], there[2]) == (Verdict.WARN, f"{LIAR}:8443")


def test_places_where_it_may_be_now(tmp_path: Path) -> None:
    """As a power cut leaves it."""
    moving = vouched_and_left(tmp_path)
    moving.found = ()
    moving.device.pass_time(timedelta(minutes=11))
    moving.live(1)
    here = Candidate("here.example:1", Role.PROXY, Source.MDNS)
    store, record = StateStore(moving.device.settings.state_directory), moving.device.record
    store.commit(replace(record, search=replace(record.search, waiting=(here,))))
    assert f"Its registrar {REGISTRAR} is being sought: at here.example:1." in words(moving)[0]
    store.commit(replace(record, search=replace(record.search, at=None)))
    assert f"Its registrar {REGISTRAR} is being sought on the network" in words(moving)[0]


def test_nothing_is_said_of_a_search_that_is_over(tmp_path: Path) -> None:
    moving = vouched_and_left(tmp_path)
    moving.move("later.example")
    moving.announce("later.example")
    moving.device.pass_time(timedelta(minutes=11))
    moving.live()
    assert moving.device.active
    assert moving.device.record.domain.sought is not None
    why, doctor = words(moving)
    assert "sought" not in why
    assert doctor == []


def test_one_that_was_good_before_and_no_search_yet(tmp_path: Path) -> None:
    finder = Finder(Device(tmp_path))
    finder.step()
    good = Search(good=Candidate(REGISTRAR, Role.REGISTRAR, Source.DNS_SD))
    _, plan, doctor = told(finder, replace(finder.device.record, search=good))
    assert plan == f"look for registrars: {REGISTRAR} was good before"
    assert doctor == [(Verdict.WARN, "no search for registrars was made yet", "Start one: holdfast step", "")]
