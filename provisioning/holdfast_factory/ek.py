"""What the chip maker does: endorsement keys and their certificates in a fresh software TPM.

swtpm_setup makes the keys and calls swtpm_localca for the certificates. Both are pointed at a CA of
our own directory, so nothing outside it is read or written and no network is needed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from holdfast.wire.errors import KeyStoreUnavailable

EK_AUTHORITY: Final = "ek-authority"
_STATE_FILE: Final = "tpm2-00.permall"
_TIME_LIMIT: Final = 120.0
_PACKAGES: Final = {"swtpm_setup": "swtpm-tools", "swtpm_localca": "swtpm-tools", "certtool": "gnutls-bin"}


def manufacture_ek(state_dir: Path, authority: Path) -> None:
    """Give the TPM in *state_dir* its EKs and EK certificates, signed by the CA in *authority*.

    *state_dir* exists. A state in it is left alone: a chip is manufactured once. Raises
    :class:`~holdfast.wire.errors.KeyStoreUnavailable` with what swtpm_setup said.
    """
    if (state_dir / _STATE_FILE).exists():
        return
    for tool, package in _PACKAGES.items():
        if shutil.which(tool) is None:
            raise KeyStoreUnavailable(
                "tpm.swtpm-missing", f"{tool} is not installed: apt-get install {package}"
            )
    setup = _configure(authority)
    # Made apart and moved into place by one rename: a chip is manufactured wholly or not at all.
    with tempfile.TemporaryDirectory(dir=state_dir, prefix="manufacture.") as workshop:
        _run_setup(["--tpmstate", workshop, "--config", str(setup)])
        (Path(workshop) / _STATE_FILE).replace(state_dir / _STATE_FILE)


def _run_setup(places: list[str]) -> None:
    command = ["swtpm_setup", "--tpm2", "--create-ek-cert", *places]
    try:
        done = subprocess.run(  # noqa: S603 (fixed words and our own paths, no shell)
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TIME_LIMIT, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise KeyStoreUnavailable("tpm.ek", f"swtpm_setup ran longer than {_TIME_LIMIT:g} s") from error
    if done.returncode != 0:
        said = (done.stdout + done.stderr).decode(errors="replace").strip()
        raise KeyStoreUnavailable("tpm.ek", f"swtpm_setup failed ({done.returncode}): {said[-1500:]}")


def _configure(authority: Path) -> Path:
    """Write the three configuration files of swtpm_setup and swtpm_localca; return the first."""
    home = authority.absolute()
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    (home / "localca.conf").write_text(
        f"statedir = {home}\nsigningkey = {home}/signkey.pem\n"
        f"issuercert = {home}/issuercert.pem\ncertserial = {home}/certserial\n"
    )
    (home / "localca.options").write_text(
        "--platform-manufacturer Holdfast\n--platform-version 1.0\n--platform-model Gateway\n"
    )
    setup = home / "setup.conf"
    setup.write_text(
        f"create_certs_tool = {shutil.which('swtpm_localca')}\n"
        f"create_certs_tool_config = {home}/localca.conf\n"
        f"create_certs_tool_options = {home}/localca.options\nactive_pcr_banks = sha256\n"
    )
    return setup
