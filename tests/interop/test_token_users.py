"""Other programs use the key by what is deployed for them: curl and openssl, by engine and by provider."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from demo.hardware import PIN, Token
from demo.stage import Stage
from interop.est_peers import missing, peers_directory
from keys.token_home import need

pytestmark = [pytest.mark.interop, pytest.mark.pkcs11, pytest.mark.timeout(300)]

PROVIDER = """\
openssl_conf = init
[init]
providers = providers
[providers]
default = of_openssl
pkcs11 = of_the_token
[of_openssl]
activate = 1
[of_the_token]
activate = 1
pkcs11-module-path = /usr/lib/softhsm/libsofthsm2.so
pkcs11-module-token-pin = file:{directory}/pin
pkcs11-module-quirks = no-deinit
"""


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    need("softhsm2-util:softhsm2")
    with Stage(keys="pkcs11") as stage:
        for arguments in (("step", "--json"), ("step", "--json", "--renew", "ldevid")):
            run = stage.agent(*arguments)
            assert run.status == 0, run.output + run.errors
        yield stage


def current(stage: Stage) -> Path:
    return stage.state / "identities" / "ldevid" / "current"


def application(stage: Stage) -> str:
    return str(stage.servers.addresses["application"])


def leaf(stage: Stage) -> x509.Certificate:
    return x509.load_pem_x509_certificate((current(stage) / "chain.pem").read_bytes())


def asked_of_the_application(output: str, stage: Stage) -> None:
    """The application saw our certificate, so the handshake was made with our key."""
    told = json.loads(output)
    assert int(told["serial"], 16) == leaf(stage).serial_number
    assert told["hello"] == "CN=HF-2027-000042"


class TestEngine:
    """libp11's engine on this host's OpenSSL 3.0: programs get ``key.uri``."""

    def run(self, stage: Stage, *command: str, **more: str) -> subprocess.CompletedProcess[str]:
        assert isinstance(stage.hardware, Token)
        environment = {**os.environ, "PKCS11_MODULE_PATH": str(stage.hardware.token.module)}
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=60, **more
        )

    def uri(self, stage: Stage) -> str:
        assert isinstance(stage.hardware, Token)
        uri = (current(stage) / "key.uri").read_text().strip()
        return f"{uri}?pin-source=file:{stage.hardware.token.pin_file}"

    @pytest.fixture(autouse=True)
    def engine(self) -> None:
        if not any(Path("/usr/lib").glob("*/engines-3/pkcs11.so")):
            missing("libengine-pkcs11-openssl")

    def test_curl(self, stage: Stage) -> None:
        files = current(stage)
        done = self.run(
            stage,
            *("curl", "-sS", "--engine", "pkcs11", "--key-type", "ENG", "--key", self.uri(stage)),
            *("--cert", f"{files}/chain.pem", "--cacert", f"{files}/anchors.pem", application(stage)),
        )
        assert done.returncode == 0, done.stderr
        asked_of_the_application(done.stdout, stage)

    def test_openssl_signs_with_it(self, stage: Stage, tmp_path: Path) -> None:
        (tmp_path / "data").write_bytes(b"data")
        made = self.run(
            stage,
            *(
                "openssl",
                "dgst",
                "-sha256",
                "-engine",
                "pkcs11",
                "-keyform",
                "engine",
                "-sign",
                self.uri(stage),
            ),
            *("-out", f"{tmp_path}/signature", f"{tmp_path}/data"),
        )
        assert made.returncode == 0, made.stderr
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        (tmp_path / "public.pem").write_bytes(leaf(stage).public_key().public_bytes(*form))
        checked = self.run(
            stage,
            *("openssl", "dgst", "-sha256", "-verify", f"{tmp_path}/public.pem"),
            *("-signature", f"{tmp_path}/signature", f"{tmp_path}/data"),
        )
        assert checked.stdout.strip() == "Verified OK"


@dataclass(frozen=True)
class Root:
    """The Debian 13 root with a copy of the token and of the deployed files in ``outside``."""

    root: Path
    outside: Path

    @property
    def inside(self) -> Path:
        return Path("/") / self.outside.relative_to(self.root)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        settings = ("PATH=/usr/bin:/bin", f"OPENSSL_CONF={self.inside}/openssl.cnf")
        token = f"SOFTHSM2_CONF={self.inside}/softhsm2.conf"
        enter = ("chroot", str(self.root), "env", "-i", *settings, token)
        return subprocess.run([*enter, *command], capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture
def root(stage: Stage) -> Iterator[Root]:
    place = peers_directory() / "trixie-token"
    if os.geteuid() != 0 or not any(place.glob("usr/lib/*/ossl-modules/pkcs11.so")):
        missing("the Debian 13 root with pkcs11-provider")
    outside = place / "tmp" / f"holdfast-{secrets.token_hex(8)}"
    made = Root(place, outside)
    assert isinstance(stage.hardware, Token)
    shutil.copytree(stage.hardware.token.directory / "tokens", outside / "tokens")
    for name in ("chain.pem", "anchors.pem", "key.pem", "key.uri"):
        shutil.copy(current(stage) / name, outside / name)
    (outside / "pin").write_text(PIN)
    (outside / "softhsm2.conf").write_text(f"directories.tokendir = {made.inside}/tokens\n")
    (outside / "openssl.cnf").write_text(PROVIDER.format(directory=made.inside))
    try:
        yield made
    finally:
        shutil.rmtree(outside)


class TestProvider:
    """OpenSSL's pkcs11 provider on Debian 13's OpenSSL 3.5: programs get ``key.pem`` as if it were a key."""

    def test_curl(self, stage: Stage, root: Root) -> None:
        here = root.inside
        done = root.run(
            *("curl", "-sS", "--key", f"{here}/key.pem", "--cert", f"{here}/chain.pem"),
            *("--cacert", f"{here}/anchors.pem", application(stage)),
        )
        assert done.returncode == 0, done.stderr
        asked_of_the_application(done.stdout, stage)

    def test_openssl_reads_both_forms(self, stage: Stage, root: Root) -> None:
        form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        wanted = leaf(stage).public_key().public_bytes(*form).decode()
        for reference in (f"{root.inside}/key.pem", (root.outside / "key.uri").read_text().strip()):
            done = root.run("openssl", "pkey", "-in", reference, "-pubout")
            assert done.returncode == 0, done.stderr
            assert done.stdout == wanted
