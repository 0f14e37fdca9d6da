"""Orders, authorizations and challenges: the server's side of RFC 8555 §7.1.6 and §8."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

from cryptography import x509

from holdfast.wire import csr as pkcs10
from holdfast.wire.acme.attest import judge, read_object, require_same_key
from holdfast.wire.acme.challenges import DEVICE_ATTEST_01, Task
from holdfast.wire.acme.jose import b64, jwk, unb64
from holdfast.wire.acme.objects import Identifier
from holdfast.wire.errors import HoldfastError
from holdfast.wire.tpm.public import TpmPublic
from holdfast_sim.acme.requests import Problem, Signed
from holdfast_sim.acme.state import AcmeState, AuthorizationState, ChallengeState, OrderState

_OID: Final = re.compile(r"[0-2](\.(0|[1-9][0-9]{0,9})){1,20}")
DEVICE_KINDS: Final = frozenset({"permanent-identifier", "hardware-module"})


def order_document(order: OrderState, finalize: str) -> dict[str, Any]:
    """The order as JSON shows it (RFC 8555 §7.1.3)."""
    found: dict[str, Any] = {
        "status": order.status,
        "identifiers": [{"type": t, "value": v} for t, v in order.identifiers],
        "authorizations": list(order.authorizations),
        "finalize": finalize,
    }
    if order.certificate is not None:
        found["certificate"] = order.certificate
    if order.error is not None:
        found["error"] = order.error
    if order.profile is not None:
        found["profile"] = order.profile
    return found


def authorization_document(found: AuthorizationState) -> dict[str, Any]:
    """RFC 8555 §7.1.4."""
    kind, value = found.identifier
    challenges = []
    for each in found.challenges:
        shown: dict[str, Any] = {
            "type": each.kind,
            "url": each.url,
            "status": each.status,
            "token": each.token,
        }
        if each.error is not None:
            shown["error"] = each.error
        challenges.append(shown)
    return {"status": found.status, "identifier": {"type": kind, "value": value}, "challenges": challenges}


def parse_identifiers(payload: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """The identifiers of a newOrder. Raises Problem."""
    found = payload.get("identifiers")
    if not isinstance(found, list) or not 1 <= len(found) <= 20:
        raise Problem("malformed", "identifiers: a list of 1 to 20")
    pairs = []
    for each in found:
        if not isinstance(each, dict) or not isinstance(each.get("value"), str):
            raise Problem("malformed", "an identifier has a type and a value")
        kind, value = str(each.get("type")), each["value"]
        if kind not in DEVICE_KINDS | {"dns", "ip"}:
            raise Problem("unsupportedIdentifier", f"no certificates for {kind}")
        if kind in DEVICE_KINDS and (not value or value.count("/") > 1):
            raise Problem("malformed", "a device identifier has at most one slash, before its OID")
        if kind == "hardware-module" and not _OID.fullmatch(value.partition("/")[2]):
            raise Problem("malformed", "a hardware-module has a slash and the OID of its type")
        pairs.append((kind, value))
    return tuple(pairs)


def answer_challenge(
    state: AcmeState, found: AuthorizationState, challenge: ChallengeState, signed: Signed
) -> TpmPublic | None:
    """Look at what the client claims, and settle challenge and authorization. Returns an attested key."""
    if challenge.status != "pending":
        return None
    kind, value = found.identifier
    task = Task(
        challenge.kind, Identifier(kind, value), challenge.token, key_authorization(challenge, signed)
    )
    attested: TpmPublic | None = None
    try:
        if challenge.kind == DEVICE_ATTEST_01:
            attested = _attested(state, task, signed)
        else:
            _see(state, task)
    except Problem as problem:
        challenge.status, challenge.error = "invalid", problem.document()
        found.status = "invalid"
        return None
    challenge.status = found.status = "valid"
    return attested


def key_authorization(challenge: ChallengeState, signed: Signed) -> str:
    """Token and account key's thumbprint (RFC 8555 §8.1), computed here by hand from the JWK."""
    members = jwk(signed.key)
    canonical = "{" + ",".join(f'"{name}":"{members[name]}"' for name in sorted(members)) + "}"
    return f"{challenge.token}.{b64(hashlib.sha256(canonical.encode()).digest())}"


def _see(state: AcmeState, task: Task) -> None:
    wanted = task.dns_value if task.kind == "dns-01" else task.key_authorization
    seen = state.probe(task)
    if seen is None:
        raise Problem("connection", f"nothing answers for {task.identifier.value}")
    if seen.strip() != wanted:
        raise Problem("unauthorized", f"found {seen[:60]!r} for {task.identifier.value}")


def _attested(state: AcmeState, task: Task, signed: Signed) -> TpmPublic:
    serial = task.identifier.value.partition("/")[0]
    devices = state.policy.devices
    try:
        statement = read_object(unb64(str(signed.json().get("attObj", ""))))
        attested = judge(
            statement,
            task.key_authorization,
            state.policy.attestation_anchors,
            state.moment(),
            identifier=serial,
        )
    except HoldfastError as error:
        raise Problem("badAttestationStatement", str(error)) from error
    if devices is not None and serial not in devices:
        raise Problem("rejectedIdentifier", f"{serial} is no device of this owner", 403)
    return attested.public


def parse_csr(payload: dict[str, Any], order: OrderState) -> x509.CertificateSigningRequest:
    """The CSR of a finalize request, held against the order. Raises Problem ``badCSR``."""
    try:
        request = pkcs10.parse(unb64(str(payload.get("csr", ""))))
        if order.attested is not None:
            require_same_key(order.attested, request)
    except HoldfastError as error:
        raise Problem("badCSR", str(error)) from error
    return request
