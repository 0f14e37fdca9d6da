"""No silent stuck state: wherever the machine can get, and whatever went wrong there, ``why`` and ``status``
name the reason's code, the next attempt and what an operator can do.

The records are made by the machine itself: every record that :func:`decide` reaches from a fresh one, with a
failure of each kind and each class of error.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.cli.main import main
from holdfast.cli.reasons import Reason, explain
from holdfast.cli.report import device_report
from holdfast.cli.status import text
from holdfast.cli.words import timestamp
from holdfast.host.config import Settings, load
from holdfast.host.store import StateStore
from holdfast.keys.api import KeyRef
from holdfast.life import events as ev
from holdfast.life.machine import decide
from holdfast.life.record import Anchor, DeviceRecord, DomainState, Hint, Provenance, Trouble
from holdfast.wire import errors
from holdfast.wire.errors import HoldfastError, LocalProtocolError
from holdfast.wire.model import ClockState, KeyAlgorithm, Moment, Purpose
from holdfast.worker.forecast import foresee

T0 = datetime(2027, 1, 1, tzinfo=UTC)
NOW = Moment(T0, T0, ClockState.TRUSTED)
DUE = T0 + timedelta(hours=3)
CA = pki.ca("Owner Root")
LEAF = pki.end_entity("gateway", CA, eku=[pki.CLIENT_AUTH]).certificate.public_bytes(Encoding.DER)
ANCHOR = Anchor(CA.certificate.public_bytes(Encoding.DER), Provenance.CACERTS, T0)
NAME = "ldevid"
REGISTRAR = "registrar.example:443"


def classes(root: type[HoldfastError] = HoldfastError) -> Iterator[type[HoldfastError]]:
    for kind in root.__subclasses__():
        if kind.__module__ == errors.__name__:
            yield kind
            yield from classes(kind)


TROUBLES = tuple(
    Trouble(f"{area}.test-{kind.__name__}", f"detail of {kind.__name__}", "RFC 7030 §4", kind.retry.value, T0)
    for kind, area in zip(
        sorted(classes(), key=lambda k: k.__name__),
        (
            "config",
            "key",
            "key",
            "key",
            "key",
            "machine",
            "est",
            "state",
            "state",
            "state",
            "state",
            "transport",
            "voucher",
        ),
        strict=False,
    )
)


def happenings(trouble: Trouble) -> tuple[Any, ...]:
    """One event of each kind; those that tell of a failure tell *trouble*."""
    made = {
        ev.AttemptPrepared: ev.AttemptPrepared(REGISTRAR, "n", b"pvr", b"cert", T0 + timedelta(days=4)),
        ev.VoucherPending: ev.VoucherPending(DUE),
        ev.RegistrarMoved: ev.RegistrarMoved("other.example:443"),
        ev.RegistrarLost: ev.RegistrarLost(trouble),
        ev.CandidateRefused: ev.CandidateRefused(trouble, last=True),
        ev.RegistrarFound: ev.RegistrarFound("other.example:443"),
        ev.VoucherAccepted: ev.VoucherAccepted(b"voucher", ANCHOR, T0),
        ev.BootstrapFailed: ev.BootstrapFailed(trouble, DUE),
        ev.RenewalDue: ev.RenewalDue(Purpose.REKEY),
        ev.OfferTaken: ev.OfferTaken(
            Purpose.REKEY, "est", "est", KeyRef("k:new"), KeyAlgorithm.P256, 1, "ab", b"", (ANCHOR,), ()
        ),
        ev.CsrMade: ev.CsrMade(b"csr"),
        ev.EnrollmentPending: ev.EnrollmentPending(DUE, b"token", T0 + timedelta(days=30)),
        ev.HintHeard: ev.HintHeard(Hint(DUE)),
        ev.AnchorsChanged: ev.AnchorsChanged((ANCHOR,), ()),
        ev.CertificateIssued: ev.CertificateIssued((LEAF,), T0),
        ev.CredentialLapsed: ev.CredentialLapsed(),
        ev.StandingKnown: ev.StandingKnown(DUE),
        ev.FilesPlaced: ev.FilesPlaced("d1", anew=False),
        ev.HookRan: ev.HookRan(0),
        ev.HookFailed: ev.HookFailed(0, trouble, DUE),
        ev.HooksEnded: ev.HooksEnded(complete=True),
        ev.DeployFailed: ev.DeployFailed("d1", trouble, DUE),
        ev.RungForsaken: ev.RungForsaken(trouble, "est", Purpose.REKEY),
    }
    told = []
    for kind in (*get_args(ev.DomainEvent), *get_args(ev.IdentityEvent)):
        names = list(kind.__dataclass_fields__)
        if kind in made:
            told.append(made[kind])
        elif names == ["trouble", "due"]:
            told.append(kind(trouble, DUE))
        elif names == ["trouble"]:
            told.append(kind(trouble))
        else:
            told.append(kind())
    return tuple(told)


def shape(record: DeviceRecord) -> tuple[Any, ...]:
    """What tells two records apart here."""
    entry = record.identity(NAME)
    return (
        record.domain.state,
        bool(record.domain.polls),
        record.domain.redirected,
        entry.credential.state,
        entry.transaction.state,
        entry.deployment.stage,
        *(
            (s.due is None, min(s.attempts, 2), s.trouble and (s.trouble.code, s.trouble.retry))
            for s in (record.schedule, entry.schedule)
        ),
    )


@dataclass(frozen=True)
class Reached:
    records: tuple[DeviceRecord, ...]
    states: frozenset[tuple[Any, ...]]


def reach(trouble: Trouble) -> Reached:
    """Every record, up to :func:`shape`, that the machine makes of a fresh one."""
    fresh = DeviceRecord(T0)
    seen, todo = {shape(fresh): fresh}, deque([fresh])
    while todo:
        record = todo.popleft()
        for event in happenings(trouble):
            if not isinstance(event, ev.DomainEvent) and record.domain.state is not DomainState.VOUCHED:
                continue  # a step does nothing for identities before that
            try:
                after, _ = decide(record, event, NOW, identity=NAME)
            except LocalProtocolError:
                continue
            if shape(after) not in seen:
                seen[shape(after)] = after
                todo.append(after)
    return Reached(tuple(seen.values()), frozenset((s[0], s[3], s[4]) for s in seen))


REACHED = {trouble.code: reach(trouble) for trouble in TROUBLES}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("config")
    (home / "anchors.pem").write_bytes(CA.certificate.public_bytes(Encoding.PEM))
    path = home / "holdfast.yaml"
    path.write_text(
        f"state-directory: {home / 'state'}\n"
        f"registrars: ['{REGISTRAR}']\nmanufacturer: {{anchors: anchors.pem}}\n"
    )
    return path


@pytest.fixture(scope="module")
def settings(config: Path) -> Settings:
    return load(config)


def told(record: DeviceRecord, settings: Settings, now: Moment = NOW) -> tuple[tuple[Reason, ...], str]:
    """The reasons, and all that ``status`` prints."""
    reasons = explain(record, settings, settings.identities, now)
    return reasons, "\n".join(text(device_report(record, "", reasons, now)))


def test_every_class_of_error_and_most_states_are_met(record_property: Callable[[str, object], None]) -> None:
    assert {t.retry for t in TROUBLES} == {"never", "backoff", "operator"}
    assert len(TROUBLES) == len(set(classes()))
    states = frozenset().union(*(r.states for r in REACHED.values()))
    domain = {(d, c, t) for d, c, t in states}
    assert len(domain) >= 15
    record_property("states_explained", len(domain))
    record_property("records_explained", sum(len(r.records) for r in REACHED.values()))


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: t.code)
def test_no_state_is_silent(trouble: Trouble, settings: Settings) -> None:
    for record in REACHED[trouble.code].records:
        reasons, status = told(record, settings)
        assert {r.part for r in reasons} >= {NAME}
        # Something has a time to act, always.
        assert any(r.next_attempt is not None for r in reasons), shape(record)
        for reason in reasons:
            paragraph = reason.paragraph(T0)
            assert reason.because in paragraph
            if reason.next_attempt is not None:
                stamp = timestamp(reason.next_attempt)
                assert stamp in status
                assert stamp in paragraph or "due now" in paragraph
            if reason.trouble is not None:
                assert reason.trouble.code in paragraph
                assert reason.trouble.clause in paragraph
                assert "What you can do" in paragraph
                assert reason.trouble.code in status
                assert reason.advice in status
                assert reason.since is not None
                assert reason.stuck == (trouble.retry == "operator")
        failed = record.schedule.trouble or record.identity(NAME).schedule.trouble
        if failed is not None and (
            record.domain.state is not DomainState.VOUCHED or record.identity(NAME).schedule.trouble
        ):
            assert any(r.trouble is not None for r in reasons), shape(record)


@pytest.mark.parametrize("trouble", TROUBLES[:3], ids=lambda t: t.code)
def test_each_state_has_a_plan_that_ends_with_a_certificate_in_use(
    trouble: Trouble, settings: Settings
) -> None:
    for record in REACHED[trouble.code].records:
        planned = {p.identity: p for p in foresee(record, settings, settings.identities, NOW)}
        effects = [type(e) for e in planned[NAME].effects]
        assert ev.Deploy in effects, shape(record)
        asks = effects.index(ev.ProveCredential) if ev.ProveCredential in effects else -1
        assert asks < effects.index(ev.Deploy)
        if record.domain.state is not DomainState.VOUCHED:
            assert [type(e) for e in planned[""].effects][-1] is ev.RequestVoucher


@pytest.mark.parametrize("state", ClockState)
def test_without_a_clock_it_says_so(state: ClockState, settings: Settings) -> None:
    now = Moment(T0, T0, state)
    record = next(r for r in REACHED[TROUBLES[0].code].records if r.schedule.due is not None)
    reasons, status = told(record, settings, now)
    assert ("clock is not set" in reasons[0].because) == (state is ClockState.UNKNOWN)
    assert ("clock" in status) == (state is not ClockState.TRUSTED)


def test_the_commands_say_the_same_over_a_stored_record(
    config: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    record = next(
        r
        for r in REACHED[TROUBLES[-1].code].records
        if r.identity(NAME).schedule.trouble and r.identity(NAME).transaction.chain
    )
    StateStore(settings.state_directory).commit(replace(record, floor=T0))
    assert main(["--config", str(config), "why", "--json"]) == 1
    reason = json.loads(capsys.readouterr().out)["reasons"][0]
    assert reason["error"]["code"] == TROUBLES[-1].code
    assert reason["next_attempt"] == timestamp(record.identity(NAME).schedule.due)
    assert reason["advice"]
    assert main(["--config", str(config), "why", NAME]) == 1
    assert TROUBLES[-1].code in capsys.readouterr().out
    main(["--config", str(config), "status"])
    assert reason["advice"] in capsys.readouterr().out
    assert main(["--config", str(config), "plan"]) == 0
    assert "use the new certificate in a real connection" in " ".join(capsys.readouterr().out.split())


def test_every_code_in_the_agent_has_advice_of_its_own_or_of_its_area() -> None:
    import re

    from holdfast.cli.advice import known

    root = Path(errors.__file__).parents[1]
    raised = re.compile(
        r'(?:Error|Corrupt|TooNew|Locked|NotFound|Unavailable|Rejected|Full|Gone)\(\s*"([a-z0-9]+\.[a-z0-9.-]+)"'
    )
    codes = {code for p in root.rglob("*.py") for code in raised.findall(p.read_text(encoding="utf-8"))}
    assert len(codes) > 100
    assert sorted(c for c in codes if not known(c)) == []
