"""SCEP with keys in hardware: the agent, a process of its own, reads replies with a key in a TPM or token."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from demo.stage import Stage
from keys.token_home import need

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(
    params=[pytest.param("tpm", marks=pytest.mark.tpm), pytest.param("pkcs11", marks=pytest.mark.pkcs11)]
)
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    need("softhsm2-util:softhsm2") if request.param == "pkcs11" else need("swtpm:swtpm")
    with Stage(keys=request.param, protocol="scep") as stage:
        yield stage


def taken(stage: Stage, *arguments: str) -> tuple[x509.Certificate, list[str]]:
    """The certificate after a step, and the TPM commands that it took (none are seen on a token)."""
    stage.hardware.take()
    run = stage.agent("step", "--json", *arguments)
    assert run.status == 0, run.output + run.errors
    commands = [command.name for command in stage.hardware.take()]
    current = stage.state / "identities" / "ldevid" / "current" / "chain.pem"
    return x509.load_pem_x509_certificates(current.read_bytes())[0], commands


def keys_of(stage: Stage) -> dict[str, Any]:
    credential: dict[str, Any] = stage.agent("status", "--json").told["identities"][0]["credential"]
    return credential


def test_an_rsa_key_signs_and_decrypts_in_its_hardware(stage: Stage) -> None:
    for arguments in ((), ("--renew", "ldevid")):
        leaf, commands = taken(stage, *arguments)
        assert isinstance(leaf.public_key(), rsa.RSAPublicKey)
        if commands and arguments:  # at first, TLS takes one more: the registrar hears of the success
            assert commands.count("RSA_Decrypt") == 1, commands


def test_an_ec_key_has_an_rsa_key_beside_it_until_the_certificate_is_there(stage: Stage) -> None:
    alone = stage.config.read_text()
    changed = alone.replace("key: {algorithm: rsa2048}", "decryption: transport-key")
    assert changed != alone
    stage.config.write_text(changed)
    for generation, arguments in ((1, ()), (2, ("--renew", "ldevid"))):
        leaf, commands = taken(stage, *arguments)
        assert isinstance(leaf.public_key(), ec.EllipticCurvePublicKey)
        assert keys_of(stage)["generation"] == generation
        if commands:
            assert commands.count("RSA_Decrypt") == 1, commands
    kept = [path.name for path in (stage.state / "keys").glob("*transport*")]
    assert kept == [], "the transport keys are gone"
