"""CMC clients that others wrote, at our simulator: BouncyCastle's classes."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

import wire_pki as pki
from holdfast_sim.cmc_desk import CmcPolicy
from holdfast_sim.serve import running_server
from holdfast_sim.world import World
from interop.cmc_peers import (
    REFERENCE,
    SECRET,
    bouncy_castle_client,
    issued,
    write_identity,
)

pytestmark = pytest.mark.interop

SERIAL = "SN-17"
SUBJECT = f"CN=gateway,SERIALNUMBER={SERIAL}"
BAD_MESSAGE_CHECK, BAD_REQUEST, BAD_CERT_ID, BAD_IDENTITY, POP_FAILED = 1, 2, 4, 7, 9
BY_SECRET = {"by": "key", "identification": REFERENCE, "secret": SECRET, "subject": SUBJECT}
BY_DEVICE = {"by": "device", "subject": SUBJECT}


@contextmanager
def simulator(directory: Path, policy: CmcPolicy | None = None) -> Iterator[tuple[World, str]]:
    """Serve CMC over plain HTTP, for a client that lives in *directory*; yields the world and the URL."""
    world = World.create(lambda: datetime.now(UTC), secrets.token_bytes)
    world.cmc = policy or CmcPolicy(secrets={REFERENCE: SECRET.encode()})
    world.sell(SERIAL)
    device = world.manufacturer.device(SERIAL, world.now())
    write_identity(directory, "device", device.chain, device.key)
    write_identity(directory, "stranger", *stranger())
    (directory / "anchors.pem").write_bytes(pki.pem(*world.domain.anchors))
    (directory / "issuer.pem").write_bytes(pki.pem(world.domain.issuing.certificate))
    with running_server(world) as running:
        yield world, f"{running.addresses.plain_url}{world.cmc.path}"


def stranger() -> tuple[tuple[x509.Certificate, ...], pki.SigningKey]:
    made = pki.end_entity("stranger", pki.ca("nobody's CA"))
    return made.chain, made.key


def only(world: World, directory: Path, count: int = 1) -> x509.Certificate:
    """The last of *count* certificates, which is the one that the client took."""
    assert len(world.issued) == count
    certificate, _ = issued(directory)
    assert world.issued[-1].certificate == certificate
    return certificate


@pytest.mark.parametrize("form", ["tcr", "crm"])
@pytest.mark.parametrize("who", [BY_SECRET, BY_DEVICE], ids=["secret", "device"])
@pytest.mark.parametrize("authority", ["ra", "ca"])
def test_an_enrollment(tmp_path: Path, form: str, who: dict[str, str], authority: str) -> None:
    policy = CmcPolicy(secrets={REFERENCE: SECRET.encode()}, authority=authority)  # type: ignore[arg-type]
    with simulator(tmp_path, policy) as (world, url):
        said = bouncy_castle_client(tmp_path, url, do="enroll", form=form, dns="gateway.example", **who)

        assert (said.status, said.outcome) == (0, "success")
        certificate = only(world, tmp_path)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["gateway.example"]


@pytest.mark.parametrize(
    ("policy", "form", "step"),
    [
        (CmcPolicy(polls=2), "tcr", "pending"),
        (CmcPolicy(confirm=True), "crm", "confirming"),
        (CmcPolicy(), "decrypt", "decrypted"),
    ],
    ids=["pending", "confirm", "decrypt"],
)
def test_the_longer_ways(tmp_path: Path, policy: CmcPolicy, form: str, step: str) -> None:
    with simulator(tmp_path, policy) as (world, url):
        said = bouncy_castle_client(tmp_path, url, do="enroll", form=form, **BY_DEVICE)

        assert (said.status, said.outcome) == (0, "success")
        assert step in said.lines
        only(world, tmp_path)
        (transaction,) = world.cmc_desk.transactions.values()
    assert transaction.confirmed is policy.confirm


def test_a_renewal_and_its_revocation(tmp_path: Path) -> None:
    """Renewed by its own signature, handed out on request, revoked by its holder, and then on the CRL."""
    with simulator(tmp_path) as (world, url):
        assert bouncy_castle_client(tmp_path, url, do="enroll", form="tcr", **BY_DEVICE).status == 0
        renewed = bouncy_castle_client(tmp_path, url, do="enroll", form="crm", by="issued")
        assert renewed.outcome == "success"
        serial = f"{only(world, tmp_path, 2).serial_number:x}"

        fetched = bouncy_castle_client(tmp_path, url, do="getcert", by="device", serial=serial)
        refused = bouncy_castle_client(tmp_path, url, do="revoke", by="device", serial=serial)
        unknown = bouncy_castle_client(tmp_path, url, do="revoke", by="issued", serial="abcdef")
        revoked = bouncy_castle_client(tmp_path, url, do="revoke", by="issued", serial=serial)
        listed = bouncy_castle_client(tmp_path, url, do="getcrl", by="device")

        assert int(serial, 16) in world.revoked
    assert f"got {serial}" in fetched.lines
    assert refused.outcome == f"status 2 failInfo {BAD_IDENTITY}"
    assert unknown.outcome == f"status 2 failInfo {BAD_CERT_ID}"
    assert revoked.status == 0
    assert f"revoked {serial}" in listed.lines


def test_a_revocation_by_secret(tmp_path: Path) -> None:
    with simulator(tmp_path) as (world, url):
        assert bouncy_castle_client(tmp_path, url, do="enroll", form="tcr", **BY_DEVICE).status == 0
        serial = f"{only(world, tmp_path).serial_number:x}"

        wrong = bouncy_castle_client(tmp_path, url, do="revoke", by="device", serial=serial, passphrase="no")
        assert world.revoked == set()
        right = bouncy_castle_client(
            tmp_path, url, do="revoke", by="device", serial=serial, passphrase=SECRET
        )

        assert int(serial, 16) in world.revoked
    assert wrong.outcome == f"status 2 failInfo {BAD_IDENTITY}"
    assert right.status == 0


@pytest.mark.parametrize(
    ("wrong", "form", "who", "info"),
    [
        ("signature", "tcr", BY_DEVICE, BAD_MESSAGE_CHECK),
        ("signature", "tcr", BY_SECRET, BAD_MESSAGE_CHECK),
        ("pop", "tcr", BY_DEVICE, POP_FAILED),
        ("pop", "crm", BY_DEVICE, POP_FAILED),
        ("witness", "tcr", BY_SECRET, BAD_IDENTITY),
        ("link", "tcr", BY_SECRET, BAD_IDENTITY),
        ("link", "crm", BY_SECRET, BAD_IDENTITY),
        ("control", "tcr", BY_DEVICE, BAD_REQUEST),
        ("decryption", "decrypt", BY_DEVICE, POP_FAILED),
        ("", "tcr", {"by": "key", "subject": SUBJECT}, BAD_IDENTITY),
        ("", "tcr", {"by": "stranger", "subject": SUBJECT}, BAD_MESSAGE_CHECK),
    ],
)
def test_our_simulator_refuses(tmp_path: Path, wrong: str, form: str, who: dict[str, str], info: int) -> None:
    with simulator(tmp_path) as (world, url):
        said = bouncy_castle_client(tmp_path, url, do="enroll", form=form, wrong=wrong, **who)

        assert (said.status, said.outcome) == (1, f"status 2 failInfo {info}")
        assert "unechoed" not in said.lines
        assert world.issued == []


def test_est_carries_it_in_base64_under_tls(tmp_path: Path) -> None:
    with simulator(tmp_path) as (world, _), running_server(world) as running:
        url = f"{running.addresses.est_url}/fullcmc"
        said = bouncy_castle_client(
            tmp_path, url, do="enroll", form="tcr", est="yes", tls="device", **BY_DEVICE
        )

        assert said.outcome == "success"
        only(world, tmp_path)
