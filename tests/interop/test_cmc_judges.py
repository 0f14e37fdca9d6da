"""The judges judged: BouncyCastle's client and server agree with each other, and refuse what is wrong.

A judge that takes everything proves nothing. Each refusal here is one that our own messages have to pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from interop.cmc_peers import (
    REFERENCE,
    SECRET,
    BouncyCastleServer,
    Realm,
    bouncy_castle_client,
    bouncy_castle_server,
    issued,
)

pytestmark = pytest.mark.interop

BAD_MESSAGE_CHECK, BAD_REQUEST, BAD_IDENTITY, POP_FAILED = 1, 2, 7, 9
BY_SECRET = {"by": "key", "identification": REFERENCE, "secret": SECRET, "subject": "CN=gateway"}
BY_DEVICE = {"by": "device", "subject": "CN=gateway"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("bc")
    Realm.create().write(directory)
    return directory


@pytest.fixture(scope="module")
def server(home: Path) -> Iterator[BouncyCastleServer]:
    with bouncy_castle_server(home) as running:
        yield running


@pytest.mark.parametrize("form", ["tcr", "crm"])
@pytest.mark.parametrize("who", [BY_SECRET, BY_DEVICE], ids=["secret", "device"])
def test_they_agree(home: Path, server: BouncyCastleServer, form: str, who: dict[str, str]) -> None:
    said = bouncy_castle_client(home, server.url("/cmc"), do="enroll", form=form, **who)

    assert (said.status, said.outcome) == (0, "success")
    certificate, _ = issued(home)
    assert certificate.subject.rfc4514_string() == "CN=gateway"
    assert f"issued {certificate.serial_number:x}" in server.log()


@pytest.mark.parametrize("path", ["/pending/cmc", "/confirm/cmc", "/cmc"])
def test_the_longer_ways(home: Path, server: BouncyCastleServer, path: str) -> None:
    """Pending and confirmation, and a key that only decrypts, which is challenged."""
    form = "decrypt" if path == "/cmc" else "tcr"

    said = bouncy_castle_client(home, server.url(path), do="enroll", form=form, **BY_DEVICE)

    assert said.status == 0
    step = {"/pending/cmc": "pending", "/confirm/cmc": "confirming", "/cmc": "decrypted"}[path]
    assert step in said.lines


@pytest.mark.parametrize(
    ("wrong", "form", "who", "info"),
    [
        ("signature", "tcr", BY_DEVICE, BAD_MESSAGE_CHECK),
        ("signature", "tcr", BY_SECRET, BAD_MESSAGE_CHECK),
        ("pop", "tcr", BY_DEVICE, POP_FAILED),
        ("pop", "crm", BY_DEVICE, POP_FAILED),
        ("witness", "tcr", BY_SECRET, BAD_IDENTITY),
        ("link", "tcr", BY_SECRET, POP_FAILED),
        ("link", "crm", BY_SECRET, POP_FAILED),
        ("part", "tcr", BY_DEVICE, BAD_REQUEST),
        ("control", "tcr", BY_DEVICE, BAD_REQUEST),
        ("decryption", "decrypt", BY_DEVICE, POP_FAILED),
        ("", "tcr", {"by": "key", "subject": "CN=gateway"}, BAD_IDENTITY),
        ("", "tcr", {"by": "ra", "subject": "CN=gateway"}, BAD_IDENTITY),
    ],
)
def test_the_server_refuses(
    home: Path, server: BouncyCastleServer, wrong: str, form: str, who: dict[str, str], info: int
) -> None:
    said = bouncy_castle_client(home, server.url("/cmc"), do="enroll", form=form, wrong=wrong, **who)

    assert (said.status, said.outcome) == (1, f"status 2 failInfo {info}")


def test_revocation_and_what_the_ca_hands_out(home: Path, server: BouncyCastleServer) -> None:
    assert bouncy_castle_client(home, server.url("/cmc"), do="enroll", form="tcr", **BY_DEVICE).status == 0
    serial = f"{issued(home)[0].serial_number:x}"

    fetched = bouncy_castle_client(home, server.url("/cmc"), do="getcert", by="device", serial=serial)
    refused = bouncy_castle_client(home, server.url("/cmc"), do="revoke", by="device", serial=serial)
    revoked = bouncy_castle_client(home, server.url("/cmc"), do="revoke", by="issued", serial=serial)
    listed = bouncy_castle_client(home, server.url("/cmc"), do="getcrl", by="device")

    assert f"got {serial}" in fetched.lines
    assert refused.outcome == f"status 2 failInfo {BAD_IDENTITY}"
    assert revoked.status == 0
    assert f"revoked {serial}" in listed.lines


def test_est_carries_it_in_base64_under_tls(home: Path) -> None:
    with bouncy_castle_server(home, tls=True) as server:
        url = server.url("/.well-known/est/fullcmc")
        said = bouncy_castle_client(home, url, do="enroll", form="tcr", est="yes", **BY_DEVICE)

    assert said.status == 0
