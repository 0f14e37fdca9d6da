"""From a pending order to a ready one: each authorization in turn (RFC 8555 §7.5)."""

from __future__ import annotations

from collections.abc import Sequence

from holdfast.wire.acme.challenges import DEVICE_ATTEST_01, Attest, Solver, Task, task_for
from holdfast.wire.acme.jose import b64
from holdfast.wire.acme.objects import Authorization, Challenge, Order, read_authorization
from holdfast.wire.acme.session import Session
from holdfast.wire.errors import LocalProtocolError, RemoteProtocolError
from holdfast.wire.http import printable
from holdfast.wire.model import Exchange


class ChallengeFailed(RemoteProtocolError):
    """The server tried a challenge and did not find what it wanted. The order is lost; a new one may do."""


def authorize(
    session: Session, order: Order, *, prefer: Sequence[str], solver: Solver | None, attest: Attest | None
) -> Exchange[bool]:
    """Meet every challenge that is open. True if nothing is left to wait for.

    Answering again what was answered before a power cut is harmless: the server ignores it. Raises
    ChallengeFailed; RemoteProtocolError ``acme.no-challenge``, ``acme.authorization``; LocalProtocolError
    ``acme.solver`` where the configuration named a kind that nobody here can meet.
    """
    done = True
    for url in order.authorizations:
        found = read_authorization((yield from session.post(url, None)))
        if found.status == "valid":
            continue
        if found.status != "pending":
            raise _failed(found)
        challenge = choose(found, prefer)
        task = task_for(challenge, found.identifier, session.key)
        if challenge.status == "pending":
            payload = _answer(challenge, task, solver, attest)
            yield from session.post(challenge.url, payload)
        elif challenge.status == "processing" and solver is not None and challenge.type != DEVICE_ATTEST_01:
            solver.present(task)
        again = read_authorization((yield from session.post(url, None)))
        if again.status == "valid":
            if solver is not None and challenge.type != DEVICE_ATTEST_01:
                solver.withdraw(task)
        elif again.status == "pending" and not _spoiled(again, prefer):
            done = False
        else:
            raise _failed(again)
    return done


def tell_failure(session: Session, order: Order) -> Exchange[None]:
    """Raise ChallengeFailed for the authorization that spoiled *order*, if one did: it says more than the
    order."""
    for url in order.authorizations:
        found = read_authorization((yield from session.post(url, None)))
        if found.status not in ("valid", "pending"):
            raise _failed(found)


def choose(found: Authorization, prefer: Sequence[str]) -> Challenge:
    """The challenge to meet: one that is under way, else the first of *prefer* that the server offers."""
    usable = [c for c in found.challenges if c.type in prefer and c.status in ("pending", "processing")]
    if not usable and _spoiled(found, prefer):
        raise _failed(found)
    if not usable:
        offered = ", ".join(printable(c.type, 40) for c in found.challenges) or "nothing"
        name = printable(found.identifier.value, 80)
        detail = f"for {name} the server offers {offered}; here: {', '.join(prefer)}"
        raise RemoteProtocolError("acme.no-challenge", detail, clause="RFC 8555 §7.5.1")
    return min(usable, key=lambda c: (c.status != "processing", list(prefer).index(c.type)))


def _spoiled(found: Authorization, prefer: Sequence[str]) -> bool:
    """Whether nothing that we can meet is left, though the authorization says that it is pending: step-ca
    leaves it so after a failed challenge (RFC 8555 §7.1.6 would have it invalid)."""
    ours = [c for c in found.challenges if c.type in prefer]
    return bool(ours) and all(c.status == "invalid" for c in ours)


def _answer(challenge: Challenge, task: Task, solver: Solver | None, attest: Attest | None) -> dict[str, str]:
    """What is sent to the challenge's URL, after the world can see what it asks for."""
    if not challenge.token:
        raise RemoteProtocolError("acme.token", f"{challenge.type} without a token", clause="RFC 8555 §8")
    if challenge.type == DEVICE_ATTEST_01:
        if attest is None:
            raise LocalProtocolError("acme.solver", "this key store cannot attest a key")
        return {"attObj": b64(attest(task.key_authorization.encode()))}
    if solver is None or challenge.type not in solver.kinds:
        raise LocalProtocolError("acme.solver", f"nothing here can meet {challenge.type}")
    solver.present(task)
    return {}


def _failed(found: Authorization) -> ChallengeFailed:
    errors = [f"{c.type}: {c.error}" for c in found.challenges if c.error is not None]
    kinds = [c.error.kind for c in found.challenges if c.error is not None]
    code = "acme.bad-attestation-statement" if "badAttestationStatement" in kinds else "acme.challenge-failed"
    said = "; ".join(errors) or "the server does not say why"
    detail = f"{printable(found.identifier.value, 80)} is {found.status}: {said}"
    return ChallengeFailed(code, detail, clause="RFC 8555 §7.1.6")
