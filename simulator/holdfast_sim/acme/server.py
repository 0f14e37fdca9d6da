"""The ACME server: which resource a path names, and what it does (RFC 8555 §7)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID

from holdfast.wire.acme.ari import certificate_id
from holdfast.wire.acme.challenges import DEVICE_ATTEST_01
from holdfast.wire.acme.jose import b64, jwk, unb64
from holdfast.wire.device_names import hardware_module_name, permanent_identifier
from holdfast.wire.errors import HoldfastError
from holdfast.wire.model import HttpRequest, HttpResponse, KeyAlgorithm
from holdfast_sim import ca
from holdfast_sim.acme.orders import (
    DEVICE_KINDS,
    answer_challenge,
    authorization_document,
    order_document,
    parse_csr,
    parse_identifiers,
)
from holdfast_sim.acme.requests import Problem, Signed, answer, check_binding, check_key_change, verify
from holdfast_sim.acme.state import Account, AuthorizationState, ChallengeState, OrderState
from holdfast_sim.answers import path_of
from holdfast_sim.ca import Validity
from holdfast_sim.domain import general_names
from holdfast_sim.faults import FaultPlan
from holdfast_sim.world import World

ROOT: Final = "/acme/"


def operation(request: HttpRequest) -> str:
    """The name that a fault uses for the resource of *request*: ``acme-new-order`` and so on."""
    return f"acme-{path_of(request).removeprefix(ROOT).partition('/')[0]}"


def handle(world: World, plan: FaultPlan, request: HttpRequest, origin: str) -> HttpResponse:
    """The answer to *request*, which came to *origin* (``https://host:port``)."""
    server = _Server(world, plan, origin)
    try:
        return server.route(request)
    except Problem as problem:
        found = problem.response()
        return HttpResponse(found.status, (*found.headers, ("Replay-Nonce", server.nonce())), found.body)


class _Server:
    """One request's view of the world."""

    def __init__(self, world: World, plan: FaultPlan, origin: str) -> None:
        self._world = world
        self._state = world.acme
        self._plan = plan
        self._base = origin + ROOT

    def nonce(self) -> str:
        """A nonce that will be taken once."""
        fresh = b64(self._world.random(16))
        self._state.nonces.add(fresh)
        return fresh

    def route(self, request: HttpRequest) -> HttpResponse:
        name, _, rest = path_of(request).removeprefix(ROOT).partition("/")
        if request.method in ("GET", "HEAD"):
            return self._unsigned(name, rest)
        if request.method != "POST":
            raise Problem("malformed", "only POST is served here", 405)
        if self._plan.due(f"acme-{name}", "bad-nonce"):
            raise Problem("badNonce", "refused (a simulated fault)")
        signed = verify(self._state, request, self._base.removesuffix(ROOT) + request.target)
        handlers: dict[str, Callable[[Signed, str], HttpResponse]] = {
            "new-account": self._new_account,
            "key-change": self._key_change,
            "revoke-cert": self._revoke,
            "account": self._account,
            "new-order": self._new_order,
            "order": self._order,
            "finalize": self._finalize,
            "authz": self._authorization,
            "challenge": self._challenge,
            "certificate": self._certificate,
        }
        if name not in handlers:
            raise Problem("malformed", "no such resource", 404)
        if signed.account is None and name not in ("new-account", "revoke-cert"):
            raise Problem("malformed", "this needs an account (kid)")
        return handlers[name](signed, rest)

    # --- what needs no signature ---------------------------------------------------------------------

    def _unsigned(self, name: str, rest: str) -> HttpResponse:
        if name == "directory":
            return answer(self._state, self._directory(), self.nonce())
        if name == "new-nonce":
            return HttpResponse(204, (("Replay-Nonce", self.nonce()), ("Cache-Control", "no-store")))
        if name == "renewal-info":
            return self._renewal_info(rest)
        raise Problem("malformed", "reading is POST-as-GET", 405)

    def _directory(self) -> dict[str, Any]:
        names = {
            "newNonce": "new-nonce",
            "newAccount": "new-account",
            "newOrder": "new-order",
            "revokeCert": "revoke-cert",
            "keyChange": "key-change",
            "renewalInfo": "renewal-info",
        }
        policy = self._state.policy
        meta = {"externalAccountRequired": bool(policy.external), "profiles": dict(policy.profiles)}
        return {**{k: self._base + v for k, v in names.items()}, "meta": meta}

    def _renewal_info(self, identifier: str) -> HttpResponse:
        life = self._state.by_ari.get(identifier)
        if life is None:
            raise Problem("malformed", "no such certificate", 404)
        begin, end = life
        first, last = self._state.policy.window
        if self._plan.due("acme-renewal-info", "window-now"):
            first, last = -0.2, -0.1
        window = {"start": _text(begin + (end - begin) * first), "end": _text(begin + (end - begin) * last)}
        return answer(self._state, {"suggestedWindow": window}, self.nonce(), ("Retry-After", "21600"))

    # --- accounts ------------------------------------------------------------------------------------

    def _new_account(self, signed: Signed, _rest: str) -> HttpResponse:
        payload = signed.json()
        for account in self._state.accounts.values():
            if jwk(account.key) == jwk(signed.key):
                if account.status != "valid":
                    raise Problem("unauthorized", "the account is deactivated")
                return self._told(account, 200)
        if payload.get("onlyReturnExisting"):
            raise Problem("accountDoesNotExist", "no account has this key")
        external = None
        if self._state.policy.external:
            binding = payload.get("externalAccountBinding")
            external = check_binding(self._state, binding, signed.key, signed.url)
        contacts = tuple(str(c) for c in payload.get("contact", ()))
        account = Account(self._fresh("account"), signed.key, contacts=contacts, external=external)
        self._state.accounts[account.url] = account
        return self._told(account, 201)

    def _account(self, signed: Signed, _rest: str) -> HttpResponse:
        account = self._own(signed, signed.url)
        if signed.payload and signed.json().get("status") == "deactivated":
            account.status = "deactivated"
        return self._told(account, 200)

    def _key_change(self, signed: Signed, _rest: str) -> HttpResponse:
        assert signed.account is not None
        signed.account.key = check_key_change(signed, signed.url)
        return self._told(signed.account, 200)

    def _told(self, account: Account, status: int) -> HttpResponse:
        value = {"status": account.status, "contact": list(account.contacts)}
        return answer(self._state, value, self.nonce(), ("Location", account.url), status=status)

    def _own(self, signed: Signed, url: str) -> Account:
        if signed.account is None or signed.account.url != url:
            raise Problem("unauthorized", "this is another account's")
        return signed.account

    # --- orders --------------------------------------------------------------------------------------

    def _new_order(self, signed: Signed, _rest: str) -> HttpResponse:
        assert signed.account is not None
        payload = signed.json()
        profile = payload.get("profile")
        if profile is not None and profile not in self._state.policy.profiles:
            raise Problem("invalidProfile", f"no profile {profile!r}"[:100])
        replaces = payload.get("replaces")
        if replaces is not None and replaces in self._state.replaced:
            raise Problem("alreadyReplaced", "this certificate has a successor", 409)
        identifiers = parse_identifiers(payload)
        authorizations = tuple(self._authorize(identifier) for identifier in identifiers)
        order = OrderState(
            self._fresh("order"), signed.account.url, identifiers, authorizations, replaces, profile
        )
        self._state.orders[order.url] = order
        return self._shown(order, status=201)

    def _authorize(self, identifier: tuple[str, str]) -> str:
        device = identifier[0] in DEVICE_KINDS
        kinds = (DEVICE_ATTEST_01,) if device else self._state.policy.kinds
        url = self._fresh("authz")
        number = url.rpartition("/")[2]
        challenges = [
            ChallengeState(kind, f"{self._base}challenge/{number}/{kind}", b64(self._world.random(32)))
            for kind in kinds
        ]
        self._state.authorizations[url] = AuthorizationState(url, identifier, challenges)
        return url

    def _order(self, signed: Signed, _rest: str) -> HttpResponse:
        order = self._order_of(signed, signed.url)
        if order.status == "processing" and not self._plan.due("acme-order", "stuck"):
            order.polls -= 1
            if order.polls <= 0:
                self._issue(order)
        return self._shown(order)

    def _order_of(self, signed: Signed, url: str) -> OrderState:
        order = self._state.orders.get(url)
        if order is None:
            raise Problem("malformed", "no such order", 404)
        self._own(signed, order.account)
        self._refresh(order)
        return order

    def _refresh(self, order: OrderState) -> None:
        if order.status != "pending":
            return
        states = {self._state.authorizations[url].status for url in order.authorizations}
        if states == {"valid"}:
            order.status = "ready"
        elif "invalid" in states:
            order.status = "invalid"

    def _shown(self, order: OrderState, *, status: int = 200) -> HttpResponse:
        finalize = f"{self._base}finalize/{order.url.rpartition('/')[2]}"
        headers = [("Location", order.url)]
        if order.status == "processing":
            headers.append(("Retry-After", str(self._state.policy.retry_after)))
        value = order_document(order, finalize)
        return answer(self._state, value, self.nonce(), *headers, status=status)

    def _authorization(self, signed: Signed, _rest: str) -> HttpResponse:
        found = self._state.authorizations.get(signed.url)
        if found is None:
            raise Problem("malformed", "no such authorization", 404)
        return answer(self._state, authorization_document(found), self.nonce())

    def _challenge(self, signed: Signed, rest: str) -> HttpResponse:
        number, _, kind = rest.partition("/")
        found = self._state.authorizations.get(f"{self._base}authz/{number}")
        challenge = next((c for c in found.challenges if c.kind == kind), None) if found else None
        if found is None or challenge is None:
            raise Problem("malformed", "no such challenge", 404)
        attested = answer_challenge(self._state, found, challenge, signed)
        if attested is not None:
            for order in self._state.orders.values():
                if found.url in order.authorizations:
                    order.attested = attested
        shown = {
            "type": challenge.kind,
            "url": challenge.url,
            "status": challenge.status,
            "token": challenge.token,
        }
        return answer(self._state, shown, self.nonce())

    # --- certificates --------------------------------------------------------------------------------

    def _finalize(self, signed: Signed, rest: str) -> HttpResponse:
        order = self._order_of(signed, f"{self._base}order/{rest}")
        if order.status != "ready":
            raise Problem("orderNotReady", f"the order is {order.status}", 403)
        order.csr = parse_csr(signed.json(), order)
        order.status, order.polls = "processing", self._state.policy.polls
        if order.polls == 0 and not self._plan.due("acme-order", "stuck"):
            self._issue(order)
        return self._shown(order)

    def _issue(self, order: OrderState) -> None:
        assert order.csr is not None
        domain, now = self._world.domain, self._world.now().replace(microsecond=0)
        key = order.csr.public_key()
        if self._plan.due("acme-finalize", "key-mismatch"):
            key = ca.new_key(KeyAlgorithm.P256).public_key()
        issuing = (
            self._world.impostor.issuing if self._plan.due("acme-finalize", "foreign-ca") else domain.issuing
        )
        san = _san(order)
        if self._plan.due("acme-finalize", "other-names"):
            san = general_names(["elsewhere.example"])
        usages = ca.end_entity(ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH, san=san)
        life = Validity(now, now + self._state.policy.life)
        leaf = issuing.sign(ca.name(order.identifiers[0][1][:60]), _accepted(key), life, usages)
        url = self._fresh("certificate")
        self._state.chains[url] = (leaf, issuing.certificate)
        self._state.by_ari[certificate_id(leaf)] = (leaf.not_valid_before_utc, leaf.not_valid_after_utc)
        if order.replaces is not None:
            self._state.replaced.add(order.replaces)
        self._world.note_issued(leaf, "acme", order.account)
        order.status, order.certificate = "valid", url

    def _certificate(self, signed: Signed, _rest: str) -> HttpResponse:
        chain = self._state.chains.get(signed.url)
        if chain is None:
            raise Problem("malformed", "no such certificate", 404)
        body = b"".join(each.public_bytes(Encoding.PEM) for each in chain)
        headers = (("Content-Type", "application/pem-certificate-chain"), ("Replay-Nonce", self.nonce()))
        return HttpResponse(200, headers, body)

    def _revoke(self, signed: Signed, _rest: str) -> HttpResponse:
        payload = signed.json()
        try:
            certificate = x509.load_der_x509_certificate(unb64(str(payload.get("certificate", ""))))
        except (ValueError, HoldfastError) as error:
            raise Problem("malformed", "no certificate") from error
        if signed.account is None and jwk(_accepted(certificate.public_key())) != jwk(signed.key):
            raise Problem("unauthorized", "signed by another key than the certificate's")
        if certificate.serial_number in self._state.revoked:
            raise Problem("alreadyRevoked", "it is revoked already")
        self._state.revoked[certificate.serial_number] = payload.get("reason")
        self._world.revoked.add(certificate.serial_number)
        return HttpResponse(200, (("Replay-Nonce", self.nonce()),), b"{}")

    def _fresh(self, kind: str) -> str:
        self._state.counter += 1
        return f"{self._base}{kind}/{self._state.counter}"


def _san(order: OrderState) -> tuple[x509.GeneralName, ...]:
    names: list[x509.GeneralName] = []
    for kind, value in order.identifiers:
        if kind in DEVICE_KINDS:
            identifier, _, oid = value.partition("/")
            hardware = kind == "hardware-module"
            names.append(
                hardware_module_name(identifier, oid)
                if hardware
                else permanent_identifier(identifier, oid or None)
            )
        else:
            names += general_names([value])
    return tuple(names)


def _accepted(key: object) -> ca.PublicKey:
    assert isinstance(key, ca.PublicKey)
    return key


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
