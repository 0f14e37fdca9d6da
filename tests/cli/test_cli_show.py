"""``show``, ``config``, ``log``: certificates, files and journal entries in words, whatever is in them."""

from __future__ import annotations

import importlib.resources
import json
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

import wire_pki as pki
from holdfast.cli.certificate_words import describe, values
from holdfast.cli.log import entries, line
from holdfast.cli.main import main

CA = pki.ca("Owner Root", path_length=1)
LEAF = pki.end_entity(
    "gateway",
    CA,
    san=[*pki.dns("gw.example"), x509.UniformResourceIdentifier("urn:dev:7")],
    eku=[pki.CLIENT_AUTH, x509.ObjectIdentifier("1.2.3.4")],
)


def test_a_leaf_and_its_ca_in_words() -> None:
    told = dict(describe(LEAF.certificate, pki.NOW))
    assert told["subject"] == "CN=gateway"
    assert told["names"] == "gw.example and urn:dev:7"
    assert told["purpose"] == "TLS client and 1.2.3.4"
    assert told["usage"] == "signatures"
    assert told["key"] == "EC, secp256r1"
    assert told["signed"] == "over sha256"
    assert "92% of its life" in told[""]
    assert "CA" not in told
    authority = dict(describe(CA.certificate, pki.NOW))
    assert authority["CA"] == "yes, with at most 1 below it"
    assert authority["usage"] == "issuing certificates and issuing revocation lists"


def test_a_devices_serial_number_has_a_word() -> None:
    device = pki.end_entity(pki.name("gateway", "GW-1"), CA)
    assert dict(describe(device.certificate, pki.NOW))["subject"] == "serialNumber=GW-1,CN=gateway"


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (pki.BEGIN - timedelta(days=2), "begins in 2 d"),
        (pki.END + timedelta(days=3), "ended 3 d ago"),
    ],
)
def test_dates_that_are_not_now(moment: Any, said: str) -> None:
    assert said in dict(describe(LEAF.certificate, moment))[""]


def test_a_certificate_without_an_end() -> None:
    forever = pki.end_entity("gateway", CA, not_after=pki.FOREVER)
    assert "no end" in dict(describe(forever.certificate, pki.NOW))[""]


@pytest.mark.filterwarnings("ignore")
def test_any_certificate_of_the_vectors_can_be_told() -> None:
    home = importlib.resources.files("cryptography_vectors") / "x509"
    seen = 0
    for place in (home, home / "custom", home / "PKITS_data" / "certs"):
        for file in place.iterdir():
            if not file.name.endswith((".pem", ".der", ".crt")):
                continue
            data = file.read_bytes()
            try:
                load = x509.load_pem_x509_certificate if b"-----" in data else x509.load_der_x509_certificate
                certificate = load(data)
                certificate.subject, certificate.issuer, certificate.not_valid_after_utc  # noqa: B018 - may raise
            except (ValueError, TypeError, x509.InvalidVersion):
                continue
            told = values(certificate, pki.NOW)
            assert json.dumps(told)
            assert told["sha256"]
            seen += 1
    assert seen > 500


@pytest.mark.parametrize("form", ["pem", "der"])
def test_files_of_both_forms(tmp_path: Path, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / f"chain.{form}"
    path.write_bytes(
        pki.pem(LEAF.certificate, CA.certificate) if form == "pem" else pki.der(LEAF.certificate)
    )
    assert main(["show", str(path)]) == 0
    out = capsys.readouterr().out
    assert "CN=gateway" in out
    assert ("1 above it" in out) == (form == "pem")
    assert main(["show", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["certificates"][str(path)]
    assert told[0]["valid"]["not_after"] == pki.END.strftime("%Y-%m-%dT%H:%M:%SZ")


@given(st.binary(max_size=400))
def test_any_file_is_shown_or_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pem"
    path.write_bytes(data)
    assert main(["show", str(path)]) == 2


def test_an_endless_file_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "/dev/zero"]) == 2
    assert "more than 1048576 bytes" in capsys.readouterr().err


# --- config --------------------------------------------------------------------------------------------


def test_config_check_says_valid_or_every_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "anchors.pem").write_bytes(pki.pem(CA.certificate))
    path = tmp_path / "holdfast.yaml"
    path.write_text("registrars: ['a.example:1']\nmanufacturer: {anchors: anchors.pem}\n")
    assert main(["--config", str(path), "config", "check"]) == 0
    assert capsys.readouterr().out == f"{path}: valid; identities: ldevid\n"
    path.write_text("registrars: ['a.example:1']\nmanufacturer: {anchors: none.pem}\nclok: auto\n")
    assert main(["--config", str(path), "config", "check"]) == 2
    err = capsys.readouterr().err
    assert "none.pem" in err
    assert f"{path}:3: clok" in err


# --- log -----------------------------------------------------------------------------------------------


ENTRIES = [
    {
        "MESSAGE": "step done: active",
        "PRIORITY": "6",
        "__REALTIME_TIMESTAMP": "1798761600000000",
        "_PID": "7",
    },
    {"MESSAGE": "worker killed\x1b[2J", "PRIORITY": "3", "HOLDFAST_CODE": "worker.hung"},
    {"MESSAGE": [1, 2, 3]},
    {"PRIORITY": "3"},
]


def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A journalctl that is *script*, before any other."""
    fake = tmp_path / "bin" / "journalctl"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")


def test_log_tells_our_entries_and_drops_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = tmp_path / "entries"
    stored.write_text("\n".join([*map(json.dumps, ENTRIES), "not JSON", "[]"]) + "\n")
    journal(tmp_path, monkeypatch, f'echo "$@" > {tmp_path}/asked; cat {stored}')
    assert main(["log", "--lines", "9", "--since=-1h"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2027-01-01T00:00:00Z step done: active",
        "1970-01-01T00:00:00Z worker killed [2J",
    ]
    asked = (tmp_path / "asked").read_text()
    assert "--lines=9" in asked
    assert "--since=-1h" in asked
    assert "--identifier=holdfastd" in asked
    assert main(["log", "--json"]) == 0
    told = [json.loads(text) for text in capsys.readouterr().out.splitlines()]
    assert told[1]["HOLDFAST_CODE"] == "worker.hung"
    assert "_PID" not in told[0]


def test_log_without_a_journal_or_with_a_broken_one_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    journal(tmp_path, monkeypatch, "echo 'No journal files were opened' >&2; exit 1")
    assert main(["log"]) == 2
    assert "No journal files were opened" in capsys.readouterr().err
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["log"]) == 2
    assert "this host has no journal" in capsys.readouterr().err


@given(
    st.dictionaries(st.sampled_from(["MESSAGE", "PRIORITY", "__REALTIME_TIMESTAMP", "HOLDFAST_X"]), st.text())
)
def test_any_entry_is_one_line(entry: dict[str, str]) -> None:
    import io

    for told in entries(io.StringIO(json.dumps(entry) + "\n")):
        assert line(told).isprintable()


def test_a_strange_certificate_is_shown_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    home = importlib.resources.files("cryptography_vectors") / "x509" / "custom"
    path = tmp_path / "strange.pem"
    path.write_bytes((home / "bad_country.pem").read_bytes())
    assert main(["show", str(path)]) == 0
    assert "C=too long" in capsys.readouterr().out
    assert list(recwarn) == []
