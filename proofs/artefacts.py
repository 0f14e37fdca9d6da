"""``openssl`` reads what a real first boot produced: CSR, voucher request, voucher and chain."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from demo.stage import Stage
from holdfast.host.store import StateStore


class ArtefactError(Exception):
    """openssl does not accept an artefact; the text is what it said."""


def check(work: Path) -> dict[str, str]:
    """First boot and renewal; returns openssl's own words for each artefact. Raises ArtefactError."""
    transcript = work / "transcript.jsonl"
    with Stage(serve=("--transcript", str(transcript))) as stage:
        for arguments in (("step", "--json"), ("step", "--json", "--renew", "ldevid")):
            run = stage.agent(*arguments)
            if run.status != 0:
                raise ArtefactError(f"{arguments} failed: {run.output} {run.errors}")
        record = StateStore(stage.state).load().record
        assert record is not None
        anchors = work / "anchors.pem"
        anchors.write_bytes(b"".join(_pem(a.certificate) for a in record.domain.anchors))
        intermediates = work / "intermediates.pem"
        intermediates.write_bytes(b"".join(map(_pem, record.domain.intermediates)))
        leaf = work / "leaf.pem"
        leaf.write_bytes(_pem(record.identity("ldevid").credential.chain[0]))
        voucher = work / "voucher.der"
        voucher.write_bytes(record.domain.voucher)
        manufacturer = work / "manufacturer.pem"
        manufacturer.write_bytes((stage.device / "manufacturer-anchors.pem").read_bytes())
    said = {
        "voucher": _cms(voucher, manufacturer),
        "ldevid chain": _openssl(
            "verify", "-purpose", "sslclient", "-CAfile", anchors, "-untrusted", intermediates, leaf
        ),
    }
    entries = [json.loads(line) for line in transcript.read_text().splitlines()]
    for operation in ("simpleenroll", "simplereenroll"):
        request = work / f"{operation}.der"
        request.write_bytes(base64.b64decode(_body(entries, operation)))
        said[f"csr for {operation}"] = _openssl("req", "-inform", "DER", "-in", request, "-verify", "-noout")
    pvr = work / "pvr.der"
    pvr.write_bytes(bytes.fromhex(_body(entries, "requestvoucher").removeprefix("hex:")))
    said["voucher request"] = _cms(pvr, manufacturer)
    return said


def _body(entries: list[dict[str, Any]], operation: str) -> str:
    found = [e["request_body"] for e in entries if e["target"].endswith(f"/{operation}")]
    if not found:
        raise ArtefactError(f"the transcript has no {operation}")
    body: str = found[0]
    return body


def _cms(signed: Path, anchors: Path) -> str:
    return _openssl(
        "cms",
        "-verify",
        "-inform",
        "DER",
        "-in",
        signed,
        "-CAfile",
        anchors,
        "-purpose",
        "any",
        "-out",
        "/dev/null",
    )


def _openssl(*arguments: object) -> str:
    command = ["openssl", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (done.stdout + done.stderr).strip()
    if done.returncode != 0:
        raise ArtefactError(f"{' '.join(command)}: {said}")
    return said.splitlines()[-1].rpartition("/")[2]


def _pem(der: bytes) -> bytes:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)
