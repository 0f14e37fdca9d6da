"""What a life remembers of paths is what it would have found anew: at every time, for good and for bad."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

import pytest

from holdfast.wire import chain
from holdfast.wire.chain import Rule
from holdfast.wire.errors import TrustError
from holdfast.wire.model import ClockState, KeyAlgorithm, Moment
from holdfast_sim.domain import Domain
from years.keys import private_key
from years.life import BEGIN
from years.memo import STOCK, remembering

HALF = timedelta(seconds=0.5)


@pytest.fixture(scope="module")
def domain() -> Domain:
    return Domain.create("Owner", BEGIN, secrets.token_bytes)


def moments(domain: Domain) -> list[Moment]:
    """Around each date of a path, for a clock that is trusted and for one that knows a floor."""
    path = domain.registrar.chain
    bounds = {c.not_valid_before_utc for c in path} | {c.not_valid_after_utc for c in path}
    steps = (-timedelta(days=400), -2 * HALF, -HALF, timedelta(0), HALF, 2 * HALF, timedelta(days=400))
    times = [bound + step for bound in sorted(bounds) for step in steps]
    return [Moment(at, at, state) for state in (ClockState.TRUSTED, ClockState.FLOOR_ONLY) for at in times]


def verdict(domain: Domain, at: Moment, rule: Rule) -> object:
    try:
        return chain.validate(domain.registrar.chain[:2], domain.anchors, at, rule)
    except TrustError as error:
        return error.code, error.detail, error.clause


def test_a_path_is_judged_as_it_would_be_anew(domain: Domain) -> None:
    rules = (Rule.tls_server_any_name(), Rule.client(), Rule.tls_server("elsewhere", allow_cmcra=False))
    asked = [(at, rule) for at in moments(domain) for rule in rules]
    anew = [verdict(domain, at, rule) for at, rule in asked]
    with remembering():
        assert [verdict(domain, at, rule) for at, rule in asked] == anew
        assert [verdict(domain, at, rule) for at, rule in reversed(asked)] == anew[::-1]
    assert len({type(v) for v in anew}) == 1 or {len(v) for v in anew if isinstance(v, tuple)} == {3}
    assert any(isinstance(v, tuple) and v[0] == "chain.expired" for v in anew)
    assert any(isinstance(v, tuple) and v[0] != "chain.expired" for v in anew)


def test_rsa_keys_come_from_a_stock_that_lasts_for_a_while() -> None:
    with remembering():
        keys = [private_key(KeyAlgorithm.RSA2048) for _ in range(STOCK + 1)]
    assert len({key.public_key().public_numbers() for key in keys}) == STOCK
    assert keys[0] is keys[-1]


def test_nothing_is_remembered_elsewhere(domain: Domain) -> None:
    before = chain._prove
    with remembering():
        assert chain._prove is not before
    assert chain._prove is before


def test_a_moment_between_two_dates_is_remembered(domain: Domain, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = chain._prove, list[datetime]()

    def counted(*args: object) -> object:
        calls.append(args[2].now)  # type: ignore[attr-defined]
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(chain, "_prove", counted)
    with remembering():
        for hours in range(1, 20):
            at = BEGIN + timedelta(hours=hours)
            verdict(domain, Moment(at, at, ClockState.TRUSTED), Rule.client())
        at = BEGIN + timedelta(days=9999)
        verdict(domain, Moment(at, at, ClockState.TRUSTED), Rule.client())
    assert len(calls) == 2
