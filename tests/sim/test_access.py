"""HTTP authentication, checked with RFC 7616's own numbers' formula and with curl's client."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from holdfast.wire.model import HttpResponse
from holdfast_sim import directory as pki
from holdfast_sim.serve import running_server
from holdfast_sim.world import EstPolicy
from sim.actors import Bench

USERS = {"operator": "s3cret:with colon"}


def with_users(scheme: str, **more: object) -> Bench:
    return Bench.make(est=EstPolicy(scheme=scheme, users=USERS, **more), at=datetime.now(UTC))  # type: ignore[arg-type]


def say(bench: Bench, value: str) -> HttpResponse:
    return bench.enroll(bench.csr(), bench.stranger, "simpleenroll", ("Authorization", value))


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_basic() -> None:
    bench = with_users("basic")
    challenge = bench.enroll(peer=bench.stranger)
    assert challenge.status == 401
    assert (challenge.header("WWW-Authenticate") or "").startswith("Basic realm=")
    assert say(bench, basic("operator", USERS["operator"])).status == 200
    assert bench.world.issued[-1].client == "operator"
    refused = [
        basic("operator", "wrong"),
        basic("nobody", ""),
        "Basic ???",
        "Digest x=y",
        "Basic " + "b3BlcmF0b3I=",
    ]
    assert [say(bench, value).status for value in refused] == [401] * len(refused)


def digest(bench: Bench, *, nc: str = "00000001", **changes: str) -> tuple[str, str]:
    """An authorization made by hand, and the nonce that it answers."""
    challenge = bench.enroll(peer=bench.stranger)
    first = challenge.header_all("WWW-Authenticate")[0]
    found = re.search(r'nonce="([^"]+)"', first)
    assert found
    assert "SHA-256" in first
    nonce = changes.get("nonce", found[1])
    password = changes.get("password", USERS["operator"])

    def h(text: str) -> str:
        return hashlib.sha256(text.encode()).hexdigest()

    uri = "/.well-known/est/simpleenroll"
    secret, what = h(f"operator:estrealm:{password}"), h(f"POST:{uri}")
    response = h(f"{secret}:{nonce}:{nc}:abc:auth:{what}")
    named = changes.get("uri", uri)
    value = (
        f'Digest username="operator", realm="estrealm", uri="{named}", algorithm=SHA-256, nonce="{nonce}", '
    )
    return value + f'nc={nc}, cnonce="abc", qop=auth, response="{response}"', nonce


def test_digest() -> None:
    bench = with_users("digest")
    value, _ = digest(bench)
    assert say(bench, value).status == 200
    assert say(bench, value).status == 401, "the same count again"
    again, _ = digest(bench, password="wrong")
    assert say(bench, again).status == 401
    assert say(bench, digest(bench, nonce="invented")[0]).status == 401
    assert say(bench, digest(bench, uri="/elsewhere")[0]).status == 401
    assert say(bench, digest(bench, nc="0000ffff")[0]).status == 401, "beyond the uses of one nonce"
    assert say(bench, "Digest garbage").status == 401


def test_only_what_was_offered_is_accepted() -> None:
    bench = with_users("digest")
    answered, _ = digest(bench)
    bench.world.est = replace(bench.world.est, algorithms=("MD5",))
    assert say(bench, answered).status == 401
    offers = bench.enroll(peer=bench.stranger).header_all("WWW-Authenticate")
    assert ["algorithm=MD5" in offer for offer in offers] == [True]


def test_nonces_are_bounded() -> None:
    bench = with_users("digest")
    for _ in range(300):
        bench.enroll(peer=bench.stranger)
    assert len(bench.world.nonces) == 256


def test_users_can_be_demanded_beside_the_certificate() -> None:
    bench = with_users("basic", users_only=True)
    assert bench.enroll().status == 401
    header = ("Authorization", basic("operator", USERS["operator"]))
    assert bench.enroll(bench.csr(), bench.peer(), "simpleenroll", header).status == 200
    assert bench.world.issued[-1].client == bench.device.certificate.subject.rfc4514_string()


@pytest.mark.parametrize("scheme", ["basic", "digest"])
def test_curl_authenticates(tmp_path: Path, scheme: str) -> None:
    bench = with_users(scheme)
    pki.write(bench.world, tmp_path)
    (tmp_path / "csr").write_bytes(base64.encodebytes(bench.csr()))
    with running_server(bench.world) as running:
        command = ["curl", "-sS", "--disable", "--noproxy", "*", "--cacert", str(tmp_path / pki.ANCHORS)]
        command += [f"--{scheme}", "--data-binary", f"@{tmp_path / 'csr'}", "-w", "%{http_code}"]
        command += ["-H", "Content-Type: application/pkcs10", f"{running.addresses.est_url}/simpleenroll"]
        codes = []
        for password in (USERS["operator"], "wrong"):
            got = subprocess.run(
                [*command, "--user", f"operator:{password}"], capture_output=True, check=False
            )
            codes.append(got.stdout[-3:])
        log = str([vars_of(entry) for entry in running.transcript])
    assert codes == [b"200", b"401"]
    assert USERS["operator"] not in log
    assert base64.b64encode(f"operator:{USERS['operator']}".encode()).decode() not in log
    assert "(redacted)" in log


def vars_of(entry: object) -> list[object]:
    return [getattr(entry, name) for name in entry.__slots__]  # type: ignore[attr-defined]
