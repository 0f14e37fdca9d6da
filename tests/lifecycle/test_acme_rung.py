"""An identity whose certificate comes by ACME: whole steps, with and without a TPM's word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.keys.api import KeyRef
from holdfast.life.record import CredentialState, DomainState, TransactionState
from holdfast.wire.acme.challenges import Task
from lifecycle.device import IDENTITY, Device

URL = "https://registrar.example:8443/acme/directory"
BY_NAME = f"""\
  - name: ldevid
    san: {{dns: [gateway.example]}}
    protocols: [{{acme: {{url: "{URL}", challenges: [http-01]}}}}]
"""


class Board:
    """Where the in-process server looks for http-01."""

    def __init__(self) -> None:
        self.pages: dict[str, str] = {}

    @property
    def kinds(self) -> frozenset[str]:
        return frozenset({"http-01"})

    def present(self, task: Task) -> None:
        self.pages[task.token] = task.key_authorization

    def withdraw(self, task: Task) -> None:
        self.pages.pop(task.token, None)

    def probe(self, task: Task) -> str | None:
        return self.pages.get(task.token)


class AcmeDevice(Device):
    """A device whose network is the board."""

    def __init__(self, directory: Path, *, identities: str = BY_NAME, faults: Sequence[str] = ()) -> None:
        super().__init__(directory, identities=identities, faults=faults)
        self.board = Board()
        self.world.acme.probe = self.board.probe

    @property
    def environment(self):  # type: ignore[no-untyped-def]
        return replace(super().environment, solver=lambda _settings: self.board)


@pytest.fixture
def device(tmp_path: Path) -> AcmeDevice:
    return AcmeDevice(tmp_path)


def account(device: Device) -> KeyRef:
    return device.identity.account


def test_a_certificate_comes_and_is_renewed_under_one_account(device: AcmeDevice) -> None:
    device.live_until_active()
    first = device.identity.credential
    held = account(device)
    assert device.keys.refs() == {first.key, held}
    device.step(renew=[IDENTITY])
    for _ in range(8):
        device.clock.now = max(device.clock.now, device.identity.schedule.due or device.clock.now)
        device.step()
    assert device.identity.credential.generation == first.generation + 1
    assert account(device) == held
    assert len(device.world.acme.accounts) == 1
    assert device.keys.refs() == {device.identity.credential.key, held}
    assert device.board.pages == {}


def test_the_order_is_in_the_record_before_its_challenge_is_met(device: AcmeDevice) -> None:
    seen: list[str] = []

    def probe(task: Task) -> str | None:
        seen.append(device.identity.transaction.resume.decode())
        return device.board.probe(task)

    device.world.acme.probe = probe
    device.live_until_active()
    (order,) = device.world.acme.orders
    assert seen
    assert all(order in token for token in seen)


@pytest.mark.parametrize(
    ("fault", "code"),
    {
        "acme-finalize:key-mismatch": "acme.key-mismatch",
        "acme-finalize:other-names": "acme.names",
        "acme-finalize:foreign-ca": "chain.untrusted",
        "acme-new-order:garbage": "acme.syntax",
        "acme-certificate:wrong-type": "acme.type",
        "acme-order:oversized:size=2000000": "http.too-large",
    }.items(),
)
def test_a_server_that_breaks_a_rule_gives_no_credential(tmp_path: Path, fault: str, code: str) -> None:
    device = AcmeDevice(tmp_path, faults=[fault])
    for _ in range(3):
        device.step()
        if device.identity.schedule.trouble is not None:
            break
        device.clock.now = max(device.clock.now, device.identity.schedule.due or device.clock.now)
    assert not device.active
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code == code
    assert device.identity.schedule.due is not None
    device.reface([])
    device.live_until_active()


def test_the_server_says_when_to_renew_and_hears_what_was_replaced(tmp_path: Path) -> None:
    """RFC 9773: a window that has passed brings the renewal forward to now, after an hour of rest."""
    device = AcmeDevice(tmp_path, identities=BY_NAME + "    renew: {ask-server: true}\n")
    device.live_until_active()
    device.step()
    hint = device.identity.hint
    assert hint is not None
    assert hint.start is not None
    first = device.identity.credential
    device.reface(["acme-renewal-info:window-now"])
    for _ in range(12):
        device.clock.now += timedelta(hours=7)
        device.step()
        if device.identity.credential.generation > first.generation:
            break
    assert device.identity.credential.generation == first.generation + 1
    begin = x509.load_der_x509_certificate(first.chain[0]).not_valid_before_utc
    assert device.clock.now < begin + timedelta(days=5)  # of thirty
    assert len(device.world.acme.replaced) == 1


def test_a_challenge_that_fails_begins_again_with_a_new_order(device: AcmeDevice) -> None:
    device.world.acme.probe = lambda _task: None
    for _ in range(3):
        device.step()
        device.clock.now = max(device.clock.now, device.identity.schedule.due or device.clock.now)
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code == "acme.challenge-failed"
    assert device.record.domain.state is DomainState.VOUCHED
    device.world.acme.probe = device.board.probe
    device.live_until_active()
    assert len(device.world.acme.orders) > 1


def test_another_trust_for_a_server_outside_the_domain(tmp_path: Path) -> None:
    """What such a server shows is judged by the operator's anchors alone, and loses nobody an owner."""
    made = AcmeDevice(tmp_path)
    foreign = tmp_path / "foreign.pem"
    foreign.write_bytes(b"".join(c.public_bytes(Encoding.PEM) for c in made.world.impostor.anchors))
    identities = BY_NAME.replace("challenges:", f"anchors-file: {foreign}, challenges:")
    (tmp_path / "second").mkdir()
    device = AcmeDevice(tmp_path / "second", identities=identities)
    device.step()
    assert not device.active
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code.startswith("chain.")
    assert device.record.domain.state is DomainState.VOUCHED


def test_an_account_key_that_is_gone_is_made_again(device: AcmeDevice) -> None:
    device.live_until_active()
    device.keys.destroy(account(device))
    device.step(renew=[IDENTITY])
    for _ in range(8):
        device.clock.now = max(device.clock.now, device.identity.schedule.due or device.clock.now)
        device.step()
    assert device.identity.credential.generation == 2
    assert len(device.world.acme.accounts) == 2


def test_a_key_store_without_attestation_says_so(tmp_path: Path) -> None:
    identities = (
        f'  - name: ldevid\n    protocols: [{{acme: {{url: "{URL}", '
        'attestation: {ca-url: "https://attest.example"}}}]\n'
    )
    device = AcmeDevice(tmp_path, identities=identities)
    device.step()
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code == "key.no-attestation"
    assert device.identity.credential.state is CredentialState.NONE
    assert device.identity.transaction.state in {TransactionState.REQUESTED, TransactionState.NONE}
