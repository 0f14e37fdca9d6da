"""SCEP clients that others wrote, at our simulator."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from holdfast.wire.scep.authority import fingerprint
from holdfast_sim import scep
from holdfast_sim.scep_authority import CAPABILITIES, ScepPolicy
from holdfast_sim.serve import running_server
from holdfast_sim.world import World
from interop import cmp_table as tables
from interop.est_peers import DebianRoot, run
from interop.scep_peers import program

pytestmark = pytest.mark.interop

CHALLENGE = "one-time-secret"
TABLE, PAGE = "scep-clients", tables.DOCS / "scep.md"
STRONGSWAN, MICROMDM = "strongSwan pki 6.0.1", "micromdm scepclient 2.3.0, built with AES"
GET_ONLY = tuple(word for word in CAPABILITIES if word not in {"POSTPKIOperation", "SCEPStandard"})


@contextmanager
def simulator(**policy: Any) -> Iterator[tuple[World, str]]:
    """Serve SCEP over plain HTTP; yields the world and the URL."""
    world = World.create(lambda: datetime.now(UTC), secrets.token_bytes)
    world.scep = ScepPolicy(challenges={CHALLENGE: None, "another": None}, **policy)
    with running_server(world) as running:
        yield world, f"{running.addresses.plain_url}{world.scep.path}"


def only(world: World, count: int = 1) -> x509.Certificate:
    assert len(world.issued) == count
    return world.issued[-1].certificate


# strongSwan's pki


def strongswan_authorities(debian: DebianRoot, world: World) -> list[str]:
    """The RA's and the CA's certificates as files, and the options that name them."""
    authority = scep.authority(world)
    files = {
        "enc.der": authority.recipient.certificate,
        "sig.der": authority.signer.certificate,
        "ca.der": authority.issuing.certificate,
        "root.der": world.domain.root.certificate,
    }
    for name, certificate in files.items():
        (debian.outside / name).write_bytes(certificate.public_bytes(Encoding.DER))
    cas = ["--cacert", "ca.der", "--cacert", "root.der"]
    return ["--cacert-enc", "enc.der", "--cacert-sig", "sig.der", *cas]


def strongswan(debian: DebianRoot, url: str, result: str, *options: str) -> int:
    command = f'pki --scep --url {url} --outform pem "$@" > {result}'
    return debian.run("sh", "-c", command, "sh", *options).returncode


def strongswan_key(debian: DebianRoot, name: str) -> None:
    made = debian.run("sh", "-c", f"pki --gen --type rsa --size 2048 --outform pem > {name}")
    assert made.returncode == 0


@pytest.mark.parametrize("mode", ["ra", "split-ra", "ca"])
def test_strongswan_reads_our_certificates(debian: DebianRoot, mode: str) -> None:
    with simulator(mode=mode) as (world, url):
        got = ["--caout", "ca", "--raout", "ra", "--outform", "der", "--force"]
        assert debian.run("pki", "--scepca", "--url", url, *got).returncode == 0
        wanted = {each.public_bytes(Encoding.DER) for each in scep.authority(world).chain}
    found = {path.read_bytes() for path in debian.outside.iterdir() if path.name.startswith(("ca", "ra"))}
    assert wanted <= found
    tables.note(TABLE, f"GetCACert ({mode})", STRONGSWAN, "yes")


@pytest.mark.parametrize("mode", ["ra", "split-ra", "ca"])
def test_strongswan_enrolls_and_renews(debian: DebianRoot, mode: str) -> None:
    strongswan_key(debian, "key.pem")
    strongswan_key(debian, "new.pem")
    with simulator(mode=mode) as (world, url):
        authorities = strongswan_authorities(debian, world)
        first = ["--in", "key.pem", "--dn", "CN=gateway, serialNumber=SN-17", "--password", CHALLENGE]
        assert strongswan(debian, url, "first.pem", *first, *authorities) == 0
        issued = only(world)
        again = ["--in", "new.pem", "--cert", "first.pem", "--key", "key.pem"]
        assert strongswan(debian, url, "second.pem", *again, *authorities) == 0
        renewed = only(world, 2)
    assert (debian.outside / "first.pem").read_bytes() == pki.pem(issued)
    assert (debian.outside / "second.pem").read_bytes() == pki.pem(renewed)
    assert issued.subject == renewed.subject
    assert issued.public_key() != renewed.public_key()
    tables.note(TABLE, f"PKCSReq by POST ({mode})", STRONGSWAN, "yes")
    tables.note(TABLE, f"RenewalReq by POST ({mode})", STRONGSWAN, "yes")


@pytest.mark.xfail(strict=True, reason="pki sends a GET without Host, which the HTTP library refuses")
def test_strongswan_by_get(debian: DebianRoot) -> None:
    strongswan_key(debian, "key.pem")
    with simulator(capabilities=GET_ONLY) as (world, url):
        options = ["--in", "key.pem", "--dn", "CN=gateway", "--password", CHALLENGE]
        done = strongswan(debian, url, "first.pem", *options, *strongswan_authorities(debian, world))
        tables.note(TABLE, "PKCSReq by GET (ra)", STRONGSWAN, "no: it sends no Host" if done else "yes")
        assert done == 0


def test_strongswan_polls(debian: DebianRoot) -> None:
    strongswan_key(debian, "key.pem")
    with simulator(polls=2) as (world, url):
        authorities = strongswan_authorities(debian, world)
        options = ["--in", "key.pem", "--dn", "CN=gateway", "--password", CHALLENGE, "--interval", "1"]
        assert strongswan(debian, url, "first.pem", *options, *authorities) == 0
        assert (debian.outside / "first.pem").read_bytes() == pki.pem(only(world))
    tables.note(TABLE, "PENDING twice, CertPoll", STRONGSWAN, "yes")


def test_strongswan_with_a_wrong_challenge(debian: DebianRoot) -> None:
    strongswan_key(debian, "key.pem")
    with simulator() as (world, url):
        authorities = strongswan_authorities(debian, world)
        options = ["--in", "key.pem", "--dn", "CN=gateway", "--password", "guess"]
        assert strongswan(debian, url, "first.pem", *options, *authorities) != 0
        assert world.issued == []
    tables.note(TABLE, "a wrong challenge", STRONGSWAN, "refused by us")


# micromdm's scepclient


def scepclient(directory: Path, url: str, challenge: str, *options: str) -> int:
    command = [program("scepclient"), "-server-url", url, "-challenge", challenge, "-cn", "gateway"]
    files = ["-private-key", str(directory / "client.key"), "-certificate", str(directory / "client.pem")]
    return run([*command, *files, *options]).returncode


@pytest.mark.parametrize("mode", ["ra", "split-ra", "ca"])
@pytest.mark.parametrize("capabilities", [CAPABILITIES, GET_ONLY], ids=["post", "get"])
def test_scepclient_enrolls(tmp_path: Path, mode: str, capabilities: tuple[str, ...]) -> None:
    with simulator(mode=mode, capabilities=capabilities, sha1=True) as (world, url):  # all that it signs with
        ra = scep.authority(world).recipient.certificate
        options = () if mode == "ca" else ("-ca-fingerprint", fingerprint(ra).hex())
        assert scepclient(tmp_path, url, CHALLENGE, *options) == 0
        assert (tmp_path / "client.pem").read_bytes().strip() == pki.pem(only(world)).strip()
    method = "POST" if capabilities == CAPABILITIES else "GET"
    tables.note(TABLE, f"PKCSReq by {method} ({mode})", MICROMDM, "yes, signed with SHA-1")


def test_scepclient_with_a_wrong_challenge(tmp_path: Path) -> None:
    with simulator(mode="ca", sha1=True) as (world, url):
        assert scepclient(tmp_path, url, "guess") != 0
        assert world.issued == []
    tables.note(TABLE, "a wrong challenge", MICROMDM, "refused by us")


def test_the_page_says_what_ran() -> None:
    """Last in this file, for it needs what the others saw."""
    if {column for table, _, column in tables.SEEN if table == TABLE} != {STRONGSWAN, MICROMDM}:
        pytest.skip("run with all the tests of this file")
    tables.check(TABLE, (STRONGSWAN, MICROMDM), PAGE)
