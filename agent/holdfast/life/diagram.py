"""The tables as diagrams for the documentation (``make docs``); a test finds a stale ``docs/life.md``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from holdfast.life.impossible import DOMAIN_NEVER, IDENTITY_NEVER
from holdfast.life.machine import DOMAIN_TABLE, IDENTITY_TABLE
from holdfast.life.record import CredentialState, DomainState, TransactionState

HEAD: Final = """\
# The life of an identity

Generated from the tables of `agent/holdfast/life/machine.py` by `make docs`: do not edit.

An event that a state does not show cannot happen there; meeting it is our own bug and raises. The last
section says why for each, from `agent/holdfast/life/impossible.py`.
Events that change no state are left out: a failed attempt stays where it is and comes back at its due time.
"""


def document() -> str:
    """All of ``docs/life.md``."""
    domain = {
        (s.value, (row.target or s).value, row.event.__name__) for row in DOMAIN_TABLE for s in row.sources
    }
    transaction = {
        (t.value, (row.transaction or t).value, row.event.__name__)
        for row in IDENTITY_TABLE
        for t in row.transactions
    }
    credential = {
        (c.value, (row.credential or c).value, row.event.__name__)
        for row in IDENTITY_TABLE
        for c in row.credentials
    }
    parts = (
        ("The domain: whose device is this?", domain),
        ("An identity's transaction: what is under way", transaction),
        ("An identity's credential: what it holds", credential),
    )
    return (
        HEAD + "".join(f"\n## {title}\n\n{_diagram(edges)}" for title, edges in parts) + _matrix() + _never()
    )


def _diagram(edges: Iterable[tuple[str, str, str]]) -> str:
    moves: dict[tuple[str, str], list[str]] = {}
    for source, target, event in sorted(edges):
        if source != target:
            moves.setdefault((source, target), []).append(event)
    lines = [f"    {a} --> {b}: {', '.join(names)}" for (a, b), names in moves.items()]
    return "```mermaid\nstateDiagram-v2\n    [*] --> none\n" + "\n".join(lines) + "\n```\n"


def _matrix() -> str:
    """Which events each pair of credential and transaction knows."""
    lines = ["\n## Every pair\n", "| credential | transaction | events |", "|---|---|---|"]
    for credential in CredentialState:
        for transaction in TransactionState:
            known = [
                row.event.__name__
                for row in IDENTITY_TABLE
                if credential in row.credentials and transaction in row.transactions
            ]
            lines.append(f"| {credential.value} | {transaction.value} | {', '.join(known)} |")
    return "\n".join(lines) + "\n"


def _never() -> str:
    """What cannot happen, and why."""
    lines = ["\n## What cannot happen\n", "| event | while | because |", "|---|---|---|"]
    lines += [f"| {n.event.__name__} | domain {_either(n.states)} | {n.why} |" for n in DOMAIN_NEVER]
    for n in IDENTITY_NEVER:
        parts = []
        if n.credentials != frozenset(CredentialState):
            parts.append(f"credential {_either(n.credentials)}")
        if n.transactions != frozenset(TransactionState):
            parts.append(f"transaction {_either(n.transactions)}")
        lines.append(f"| {n.event.__name__} | {', '.join(parts)} | {n.why} |")
    return "\n".join(lines) + "\n"


def _either(states: frozenset[CredentialState] | frozenset[TransactionState] | frozenset[DomainState]) -> str:
    return " or ".join(sorted(s.value for s in states))
