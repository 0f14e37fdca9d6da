"""EST clients that others wrote, at our simulator."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509

import wire_pki as pki
from holdfast.wire import oids
from holdfast.wire.model import CsrTemplate
from holdfast_sim.serve import running_server
from holdfast_sim.world import EstPolicy, World
from interop.est_peers import PASSWORD, USER, DebianRoot, globalsign, run

pytestmark = pytest.mark.interop


@dataclass(frozen=True)
class Served:
    """The simulator, and where a client finds it."""

    world: World
    port: int

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"

    @property
    def issued(self) -> list[tuple[str, str, x509.Certificate]]:
        """(operation, common name of the subject, certificate), in order."""
        return [
            (each.operation, common_name(each.certificate), each.certificate) for each in self.world.issued
        ]

    @property
    def operations(self) -> list[str]:
        return [operation for operation, _, _ in self.issued]


def common_name(certificate: x509.Certificate) -> str:
    value = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)[0].value
    assert isinstance(value, str)
    return value


@contextmanager
def simulator(
    directory: Path,
    scheme: Literal["basic", "digest"] = "basic",
    template: CsrTemplate | None = None,
    labels: frozenset[str] = frozenset(),
) -> Iterator[Served]:
    """Serve EST; the domain's anchor stands in *directory* as ``anchor.pem``."""
    policy = EstPolicy(template=template, scheme=scheme, users={USER: PASSWORD}, labels=labels)
    world = World.create(lambda: datetime.now(UTC), secrets.token_bytes, est=policy)
    (directory / "anchor.pem").write_bytes(pki.pem(*world.domain.anchors))
    with running_server(world) as running:
        yield Served(world, running.addresses.registrar[1])


def certificates(pem: bytes) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(pem)


# strongSwan's pki


def strongswan_request(debian: DebianRoot) -> None:
    """A key and a CSR, both made by strongSwan: ``key.pem``, ``request.der``."""
    make_key = "pki --gen --type ecdsa --size 256 --outform pem > key.pem"
    make_request = "pki --req --type ecdsa --in key.pem --dn 'CN=gateway, serialNumber=SN-17' > request.der"
    assert debian.run("sh", "-c", f"{make_key} && {make_request}").returncode == 0


def strongswan_enroll(debian: DebianRoot, served: Served, result: str, *options: str) -> int:
    command = (
        f'pki --est --url {served.url} --cacert anchor.pem --in request.der --outform pem "$@" > {result}'
    )
    return debian.run("sh", "-c", command, "sh", *options).returncode


def test_strongswan_reads_our_authorities(debian: DebianRoot) -> None:
    with simulator(debian.outside) as served:
        fetch = ["pki", "--estca", "--url", served.url, "--cacert", "anchor.pem", "--caout", "got.pem"]
        done = debian.run(*fetch, "--outform", "pem", "--force")
    assert done.returncode == 0
    got = {*certificates((debian.outside / "got.pem").read_bytes())}
    got |= {*certificates((debian.outside / "got-1.pem").read_bytes())}
    assert got == set(served.world.domain.cacerts)


def test_strongswan_enrolls_and_renews(debian: DebianRoot) -> None:
    strongswan_request(debian)
    with simulator(debian.outside) as served:
        password = ("--userpass", f"{USER}:{PASSWORD}")
        assert strongswan_enroll(debian, served, "first.pem", *password) == 0
        current = ("--cert", "first.pem", "--key", "key.pem")
        assert strongswan_enroll(debian, served, "second.pem", *current) == 0
    assert served.operations == ["simpleenroll", "simplereenroll"]
    for file, (_, name, certificate) in zip(("first.pem", "second.pem"), served.issued, strict=True):
        assert certificates((debian.outside / file).read_bytes()) == [certificate]
        assert name == "gateway"


def test_strongswan_under_a_label(debian: DebianRoot) -> None:
    strongswan_request(debian)
    with simulator(debian.outside, labels=frozenset({"gateways"})) as served:
        options = ("--label", "gateways", "--userpass", f"{USER}:{PASSWORD}")
        assert strongswan_enroll(debian, served, "first.pem", *options) == 0
    assert served.operations == ["simpleenroll"]


def test_strongswan_with_a_wrong_password_gets_nothing(debian: DebianRoot) -> None:
    strongswan_request(debian)
    with simulator(debian.outside) as served:
        assert strongswan_enroll(debian, served, "first.pem", "--userpass", f"{USER}:wrong") != 0
    assert served.issued == []
    assert (debian.outside / "first.pem").read_bytes() == b""


# libest's estclient, which returns 0 on failure: only its files and our records tell


def libest_client(debian: DebianRoot, served: Served, *options: str) -> str:
    where = ["-s", "localhost", "-p", str(served.port), "-o", "."]
    return debian.run("estclient", *options, *where, "--pem-output", EST_OPENSSL_CACERT="anchor.pem").stdout


PASSWORD_OPTIONS = ("-u", USER, "-h", PASSWORD)


def test_libest_reads_our_authorities_and_wishes(debian: DebianRoot) -> None:
    with simulator(debian.outside, template=CsrTemplate(link_tls_unique=True)) as served:
        assert "Get CA Cert success" in libest_client(debian, served, "-g", "-v")
        said = libest_client(debian, served, "-a", "-v")
    authorities = (debian.outside / "cacert-0-0.pem").read_bytes()
    assert set(certificates(authorities)) == set(served.world.domain.cacerts)
    # What our parser could read by symmetry only: base64 and DER that libest took apart without complaint.
    assert "CSR attributes are(" in said
    assert "Get CSR attribues failed" not in said  # its own spelling


ONE_CHALLENGE = pytest.mark.xfail(reason="libest reads the first Digest challenge only, and knows only MD5")


@pytest.mark.parametrize("scheme", ["basic", pytest.param("digest", marks=ONE_CHALLENGE)])
def test_libest_enrolls_by_password(debian: DebianRoot, scheme: Literal["basic", "digest"]) -> None:
    with simulator(debian.outside, scheme) as served:
        libest_client(debian, served, "-e", *PASSWORD_OPTIONS, "--common-name", "gateway")
    ((operation, name, certificate),) = served.issued
    assert (operation, name) == ("simpleenroll", "gateway")
    assert certificates((debian.outside / "cert-0-0.pem").read_bytes()) == [certificate]


def test_libest_with_a_wrong_password_gets_nothing(debian: DebianRoot) -> None:
    with simulator(debian.outside) as served:
        libest_client(debian, served, "-e", "-u", USER, "-h", "wrong", "--common-name", "gateway")
    assert served.issued == []
    assert not (debian.outside / "cert-0-0.pem").exists()


def test_libest_proves_possession(debian: DebianRoot) -> None:
    with simulator(debian.outside, template=CsrTemplate(link_tls_unique=True)) as served:
        libest_client(debian, served, "-e", "-z", *PASSWORD_OPTIONS, "--common-name", "gateway")
    assert served.operations == ["simpleenroll"]


def test_libest_renews(debian: DebianRoot) -> None:
    with simulator(debian.outside) as served:
        libest_client(debian, served, "-e", *PASSWORD_OPTIONS, "--common-name", "gateway")
        (debian.outside / "cert-0-0.pem").rename(debian.outside / "current.pem")
        libest_client(debian, served, "-r", "-c", "current.pem", "-k", "key-x-x.pem")
    assert served.operations == ["simpleenroll", "simplereenroll"]
    assert certificates((debian.outside / "cert-0-0.pem").read_bytes()) == [served.issued[1][2]]


# GlobalSign's estclient


@dataclass(frozen=True)
class GlobalSignClient:
    directory: Path
    served: Served

    def __call__(self, command: str, *options: str) -> str | None:
        """Its output, None if it failed."""
        where = ["-server", f"localhost:{self.served.port}", "-explicit", str(self.directory / "anchor.pem")]
        done = run([globalsign("estclient"), command, *where, *options])
        return done.stdout if done.returncode == 0 else None

    def file(self, name: str) -> str:
        return str(self.directory / name)


def globalsign_files(directory: Path) -> None:
    """``key.pem`` and ``request.pem``, made by openssl."""
    key, request = str(directory / "key.pem"), str(directory / "request.pem")
    pki.openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", key)
    pki.openssl("req", "-new", "-key", key, "-subj", "/CN=gateway/serialNumber=SN-17", "-out", request)


def test_globalsign_reads_our_authorities_and_wishes(tmp_path: Path) -> None:
    with simulator(tmp_path, template=CsrTemplate(link_tls_unique=True)) as served:
        client = GlobalSignClient(tmp_path, served)
        assert client("cacerts", "-out", client.file("got.pem")) is not None
        wishes = client("csrattrs")
    assert set(certificates((tmp_path / "got.pem").read_bytes())) == set(served.world.domain.cacerts)
    assert wishes is not None
    assert oids.CSR_INFO_TEMPLATE in wishes


def test_globalsign_enrolls_and_renews(tmp_path: Path) -> None:
    globalsign_files(tmp_path)
    with simulator(tmp_path) as served:
        client = GlobalSignClient(tmp_path, served)
        request = ("-csr", client.file("request.pem"))
        password = ("-user", USER, "-pass", PASSWORD)
        assert client("enroll", *request, *password, "-out", client.file("first.pem")) is not None
        current = ("-certs", client.file("first.pem"), "-key", client.file("key.pem"))
        assert client("reenroll", *request, *current, "-out", client.file("second.pem")) is not None
    assert served.operations == ["simpleenroll", "simplereenroll"]
    for file, (_, name, certificate) in zip(("first.pem", "second.pem"), served.issued, strict=True):
        assert certificates((tmp_path / file).read_bytes()) == [certificate]
        assert name == "gateway"


def test_globalsign_with_a_wrong_password_gets_nothing(tmp_path: Path) -> None:
    globalsign_files(tmp_path)
    with simulator(tmp_path) as served:
        client = GlobalSignClient(tmp_path, served)
        assert client("enroll", "-csr", client.file("request.pem"), "-user", USER, "-pass", "wrong") is None
    assert served.issued == []
