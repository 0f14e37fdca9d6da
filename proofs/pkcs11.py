"""``make proof-pkcs11``: tokens are equals of the TPM."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, Final

from demo.__main__ import perform
from holdfast_factory.softhsm import MODULES
from proofs.runner import FailedError, prove, pytests

POWER_CUTS: Final = "tests/lifecycle/test_power_cuts.py"


def main() -> int:
    """Run all parts in order."""
    return prove(
        "pkcs11",
        [
            ("what it ran against", peers),
            ("demonstration on a token, the same JSON as on a TPM", demonstration),
            ("contract of key stores: TPM", pytests("tests/keys/test_tpm_contract.py", workers=True)),
            (
                "contract of key stores: SoftHSM2, and tpm2-pkcs11 on a TPM without leaked slots",
                pytests("tests/keys/test_pkcs11_contract.py", workers=True),
            ),
            (
                "PKCS#11 URIs: examples of RFC 7512, each refusal, fuzzing",
                pytests("tests/keys/test_pkcs11_uri.py", "tests/fuzz/test_fuzz_pkcs11_uri.py"),
            ),
            (
                "one object, one token, one try of a PIN; lost, full and forked",
                pytests(
                    "tests/keys/test_pkcs11_store.py",
                    "tests/keys/test_pkcs11_faults.py",
                    "tests/keys/test_rsaoaep.py",
                ),
            ),
            (
                "configuration of tokens, each rule broken once; factory-fresh devices on tokens",
                pytests("tests/host/test_config_tokens.py", "tests/factory/test_token_device.py"),
            ),
            (
                "pkcs11-tool and p11tool see what is documented; deployed files, PIN and orphans end to end",
                pytests("tests/lifecycle/test_token_life.py"),
            ),
            (
                "kill -9 at every commit, message and change of an object: no orphan on the token",
                pytests(
                    f"{POWER_CUTS}::test_first_boot[pkcs11]",
                    f"{POWER_CUTS}::test_renewal[pkcs11]",
                    workers=True,
                    apart=True,
                ),
            ),
            (
                "curl and openssl use the deployed reference, by engine and by provider",
                pytests("tests/interop/test_token_users.py"),
            ),
        ],
    )


def peers() -> dict[str, Any]:
    """Modules, tools and their versions."""
    names = (
        "softhsm2",
        "libtpm2-pkcs11-1",
        "tpm2-abrmd",
        "swtpm",
        "opensc",
        "gnutls-bin",
        "libengine-pkcs11-openssl",
        "curl",
        "openssl",
    )
    if not any(module.is_file() for module in MODULES):
        raise FailedError("SoftHSM2 is missing")
    asked = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *names]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FailedError(done.stderr.strip())
    return dict(line.split(" ", 1) for line in done.stdout.splitlines())


def demonstration() -> dict[str, Any]:
    """The main job itself, twice."""
    on_token = perform(lambda text: print(text, flush=True), "pkcs11")
    in_tpm = perform(lambda _text: None, "tpm")
    if on_token.keys() != in_tpm.keys() or on_token["ldevid"].keys() != in_tpm["ldevid"].keys():
        raise FailedError(f"not the same JSON: {sorted(on_token)} and {sorted(in_tpm)}")
    return {
        "ok": on_token["ok"] and in_tpm["ok"],
        "renewed": on_token["renewed"],
        "key": on_token["ldevid"]["key"],
        "milliseconds": round(sum(step["ms"] for step in on_token["steps"][1:])),
        "milliseconds_tpm": round(sum(step["ms"] for step in in_tpm["steps"][1:])),
    }


if __name__ == "__main__":
    sys.exit(main())
