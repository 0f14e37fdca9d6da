"""How many TPM commands each operation costs, counted between the key store and a software TPM.

    python bench/tpm_commands.py          a table
    python bench/tpm_commands.py --json   the figures as one JSON object

Exits with 1 if a budget of ARCHITECTURE section 6 is exceeded.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from holdfast.keys.api import KeyRef, KeySpec
from holdfast.keys.tlskey import surfacing, use_key
from holdfast.keys.tpm import Storage, TpmStore
from holdfast.wire import csr
from holdfast.wire.model import Chain, KeyAlgorithm, SigningKey
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_meter import TpmMeter

REF: Final = KeyRef("tpm2:blob:bench-1")
DEVICE: Final = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "device")])


@dataclass(frozen=True, slots=True)
class Row:
    """One operation: commands in order, time inside the software TPM, and the most that it may cost."""

    operation: str
    commands: tuple[str, ...]
    milliseconds: float
    budget: int | None = None

    @property
    def ok(self) -> bool:
        return self.budget is None or len(self.commands) <= self.budget


class Authority:
    """A CA in software, and a TLS server that wants a certificate of it."""

    def __init__(self, directory: Path) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "bench")])
        self._certificate = self.issue(self._key, ca=True)
        self._file = directory / "ca.pem"
        self._file.write_bytes(
            self._certificate.public_bytes(Encoding.PEM)
            + self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )

    def issue(self, key: SigningKey, *, ca: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = self._name if ca else DEVICE
        builder = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
        builder = builder.add_extension(x509.BasicConstraints(ca, None), critical=True)
        return builder.sign(self._key, hashes.SHA256())

    def handshake(self, chain: Chain, key: SigningKey) -> None:
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.load_verify_locations(self._file)
        use_key(client, chain, key)
        with (
            self._server() as port,
            surfacing(),
            socket.create_connection(("127.0.0.1", port), 20) as raw,
            client.wrap_socket(raw) as tls,
        ):
            if tls.recv(2) != b"ok":
                raise ConnectionError("the server refused the handshake")

    @contextmanager
    def _server(self) -> Iterator[int]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._file)
        context.load_verify_locations(self._file)
        context.verify_mode = ssl.CERT_REQUIRED
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                raw, _ = listener.accept()
                with raw, context.wrap_socket(raw, server_side=True) as tls:
                    tls.sendall(b"ok")

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            yield listener.getsockname()[1]
            thread.join(20)


def measure(directory: Path) -> list[Row]:
    """Every row of the table, on a software TPM of its own under *directory*."""
    authority = Authority(directory)
    rows: list[Row] = []
    with Swtpm(directory / "tpm") as tpm, TpmMeter(tpm.port) as meter:

        def row(
            operation: str,
            run: Callable[[TpmStore], object],
            budget: int | None = None,
            storage: Storage = "blob",
        ) -> None:
            meter.take()
            with TpmStore(meter.tcti, directory / "keys", storage=storage) as store:
                run(store)
            taken = meter.take()
            rows.append(
                Row(operation, tuple(c.name for c in taken), sum(c.milliseconds for c in taken), budget)
            )

        def enroll(store: TpmStore, ref: KeyRef, spec: KeySpec) -> None:
            key = store.generate(ref, spec).signer()
            csr.build(key, DEVICE)
            authority.handshake((authority.issue(key),), key)

        def connect(store: TpmStore, ref: KeyRef) -> None:
            key = store.load(ref).signer()
            authority.handshake((authority.issue(key),), key)

        row("first use of a TPM: root key and a new key", lambda s: s.generate(REF, KeySpec()))
        for algorithm in KeyAlgorithm:
            row(
                f"new {algorithm.value} key + CSR + handshake",
                lambda s, a=algorithm: enroll(s, REF, KeySpec(a)),  # type: ignore[misc]
                5,
            )
        row("wrapped key of an earlier process: handshake", lambda s: connect(s, REF))
        row("remove a wrapped key", lambda s: s.destroy(REF))
        row(
            "new persistent p256 key + CSR + handshake",
            lambda s: enroll(s, s.plan("ldevid", 1), KeySpec()),
            storage="persistent",
        )
        row(
            "persistent key of an earlier process: handshake",
            lambda s: connect(s, s.plan("ldevid", 1)),
            2,
            storage="persistent",
        )
    return rows


def table(rows: list[Row]) -> list[str]:
    """The rows for a person; an exceeded budget is marked."""
    lines = []
    for row in rows:
        mark = " " if row.ok else "!"
        budget = f"of {row.budget}" if row.budget is not None else ""
        count = f"{len(row.commands):>2} {budget:<5}"
        lines.append(f"{mark} {row.operation:<50} {count} {row.milliseconds:7.1f} ms")
        lines.append(f"    {', '.join(row.commands)}")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    wants_json: bool = parser.parse_args().json
    with tempfile.TemporaryDirectory() as directory:
        rows = measure(Path(directory))
    ok = all(row.ok for row in rows)
    if wants_json:
        print(json.dumps({"ok": ok, "rows": [asdict(r) | {"count": len(r.commands)} for r in rows]}))
        return 0 if ok else 1
    print("\n".join(table(rows)))
    print("every budget holds" if ok else "A BUDGET IS EXCEEDED")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
