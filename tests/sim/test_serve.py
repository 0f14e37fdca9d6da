"""The TLS shell, asked by curl and by the standard library: nothing here shares code with the servers."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.wire import cms
from holdfast.wire.brski.messages import MEDIA_TYPE, Voucher
from holdfast.wire.model import HttpRequest, HttpResponse, KeyAlgorithm
from holdfast_sim import directory as pki
from holdfast_sim import registrar
from holdfast_sim.answers import Peer, Refused
from holdfast_sim.faults import Fault
from holdfast_sim.manufacturer import Manufacturer
from holdfast_sim.serve import Running, running_server
from holdfast_sim.tls import key_pem, pem
from sim.actors import SERIAL, START, Bench, Time, make_world

PKI = tuple[Running, Path, Bench]


@pytest.fixture
def bench() -> Bench:
    """curl goes by the clock of this machine."""
    return Bench.make(at=datetime.now(UTC))


@pytest.fixture
def live(bench: Bench, tmp_path: Path) -> Iterator[PKI]:
    with running_server(bench.world) as running:
        pki.write(bench.world, tmp_path)
        store(tmp_path, "device", bench.device)
        yield running, tmp_path, bench


def store(directory: Path, name: str, credential: object) -> None:
    (directory / f"{name}.pem").write_text("".join(map(pem, credential.chain)))  # type: ignore[attr-defined]
    (directory / f"{name}-key.pem").write_text(key_pem(credential))  # type: ignore[arg-type]


def curl(live: PKI, url: str, *options: str, client: str | None = None) -> subprocess.CompletedProcess[bytes]:
    directory = live[1]
    command = ["curl", "--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--disable"]
    command += ["--cacert", str(directory / pki.ANCHORS)]
    if client:
        command += ["--cert", str(directory / f"{client}.pem"), "--key", str(directory / f"{client}-key.pem")]
    return subprocess.run([*command, *options, url], capture_output=True, timeout=30, check=False)


def test_curl_gets_the_ca_certificates(live: PKI) -> None:
    running, _, bench = live
    got = curl(live, f"{running.addresses.est_url}/cacerts", "--include")
    head, _, body = got.stdout.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n"), got
    assert b"Content-Type: application/pkcs7-mime\r\n" in head
    der = base64.b64decode(body)
    shown = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-print_certs"], input=der, capture_output=True, check=True
    )
    names = {c.subject for c in x509.load_pem_x509_certificates(shown.stdout)}
    assert names == {c.subject for c in bench.world.domain.cacerts}


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_curl_enrolls_renews_and_says_hello(live: PKI, version: str) -> None:
    running, directory, bench = live
    request = directory / "request.b64"
    request.write_bytes(base64.encodebytes(bench.csr()))
    tls = ["--tlsv1.2", "--tls-max", version]
    post = ["--data-binary", f"@{request}", "--header", "Content-Type: application/pkcs10"]
    enrolled = curl(live, f"{running.addresses.est_url}/simpleenroll", *tls, *post, client="device")
    ldevid = one_certificate(enrolled.stdout)
    (directory / "ldevid.pem").write_text(pem(ldevid))  # no intermediate: the server knows its own
    (directory / "ldevid-key.pem").write_text(key_pem(type(bench.device)((ldevid,), bench.key)))
    renewed = curl(live, f"{running.addresses.est_url}/simplereenroll", *tls, *post, client="ldevid")
    assert one_certificate(renewed.stdout).subject == ldevid.subject
    host, port = running.addresses.application
    hello = curl(live, f"https://{host}:{port}/", *tls, client="ldevid")
    assert json.loads(hello.stdout)["serial"] == format(ldevid.serial_number, "x")
    command = ["openssl", "verify", "-no_check_time", "-CAfile", str(directory / pki.ANCHORS)]
    command += ["-untrusted", str(directory / "domain-chain.pem"), "-purpose", "sslclient"]
    verified = subprocess.run([*command, str(directory / "ldevid.pem")], capture_output=True, check=False)
    assert verified.stdout.endswith(b": OK\n"), verified


def one_certificate(body: bytes) -> x509.Certificate:
    shown = subprocess.run(
        ["openssl", "pkcs7", "-inform", "DER", "-print_certs"],
        input=base64.b64decode(body, validate=False),
        capture_output=True,
        check=True,
    )
    (certificate,) = x509.load_pem_x509_certificates(shown.stdout)
    return certificate


def test_a_stranger_is_refused_in_words(live: PKI) -> None:
    running = live[0]
    url = f"{running.addresses.est_url}/simplereenroll"
    options = [
        "--data-binary",
        "x",
        "--header",
        "Content-Type: application/pkcs10",
        "--write-out",
        "%{http_code}",
    ]
    assert curl(live, url, *options).stdout.endswith(b"\n401")
    host, port = running.addresses.application
    answer = curl(live, f"https://{host}:{port}/", client="device")
    assert b"no identity of this domain" in answer.stdout


def test_a_foreign_device_gets_no_handshake(live: PKI) -> None:
    running, directory, bench = live
    foreign = Manufacturer.create(START, bench.world.random).device(SERIAL, START)
    store(directory, "foreign", foreign)
    answer = curl(live, f"{running.addresses.est_url}/cacerts", client="foreign")
    assert answer.returncode != 0
    assert len(running.transcript) == 0


def test_an_expired_client_is_judged_by_the_worlds_clock(live: PKI) -> None:
    running, directory, bench = live
    store(directory, "ldevid", bench.ldevid())
    host, port = running.addresses.application
    bench.time.now += timedelta(days=91)
    answer = curl(live, f"https://{host}:{port}/", "--write-out", "%{http_code}", client="ldevid")
    assert answer.stdout.endswith(b"403")
    assert b"chain.expired" in answer.stdout


def connect(running: Running, client: Path | None = None, **versions: ssl.TLSVersion) -> HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if client:
        context.load_cert_chain(client, client.with_name(f"{client.stem}-key.pem"))
    if "maximum" in versions:
        context.maximum_version = versions["maximum"]
    connection = HTTPSConnection(*running.addresses.registrar, context=context, timeout=20)
    connection.connect()
    return connection


def test_tls_unique_links_the_request_to_its_connection(live: PKI) -> None:
    running, directory, bench = live
    answers = []
    for spoil in (b"", b"\x00"):
        connection = connect(running, directory / "device.pem", maximum=ssl.TLSVersion.TLSv1_2)
        unique = connection.sock.get_channel_binding("tls-unique") + spoil
        csr = bench.csr(challenge=base64.b64encode(unique).decode())
        headers = {"Content-Type": "application/pkcs10"}
        body = base64.encodebytes(csr)
        connection.request("POST", "/.well-known/est/simpleenroll", body, headers)
        answers.append(connection.getresponse().status)
        connection.close()
    assert answers == [200, 400]


def test_a_swapped_certificate_is_shown_from_the_second_connection_on(bench: Bench) -> None:
    with running_server(bench.world, [Fault.parse("registrar:swap-certificate:after=1")]) as running:
        shown = []
        for _ in range(3):
            connection = connect(running)
            shown.append(x509.load_der_x509_certificate(connection.sock.getpeercert(True)))
            connection.close()
    honest, other = bench.world.domain.registrar.certificate, bench.world.impostor.registrar.certificate
    assert shown == [honest, other, other]


def test_client_certificates_still_count_on_a_swapped_connection(bench: Bench, tmp_path: Path) -> None:
    store(tmp_path, "device", bench.device)
    with running_server(bench.world, [Fault.parse("registrar:swap-certificate")]) as running:
        connection = connect(running, tmp_path / "device.pem")
        connection.request("GET", "/.well-known/est/cacerts")
        assert connection.getresponse().status == 200
        connection.close()
        (entry,) = running.transcript
    assert SERIAL in entry.client


def wire(running: Running, path: str = "/.well-known/est/cacerts") -> bytes:
    """Every byte that the server sends for one GET, until it closes or is silent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    received = b""
    raw = socket.create_connection(running.addresses.registrar, timeout=20)
    with raw, context.wrap_socket(raw) as tls:
        tls.sendall(f"GET {path} HTTP/1.1\r\nHost: sim\r\nConnection: close\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            while data := tls.recv(65536):
                received += data
    return received


def test_bytes_on_the_wire_under_faults(bench: Bench) -> None:
    with running_server(bench.world) as running:
        length = int(wire(running).split(b"Content-Length: ")[1].split(b"\r\n")[0])

        def under(text: str) -> tuple[bytes, bytes]:
            running.faults.clear()
            running.faults.add(Fault.parse(text))
            head, _, body = wire(running).partition(b"\r\n\r\n")
            return head, body

        head, body = under("cacerts:truncated:keep=10")
        assert f"Content-Length: {length}".encode() in head
        assert len(body) == 10
        assert under("cacerts:drop-before") == (b"", b"")
        assert under("cacerts:drop-after") == (b"", b"")
        head, body = under("cacerts:oversized:size=3000000")
        assert f"Content-Length: {length + 3000000}".encode() in head
        assert len(body) == length + 3000000
        head, body = under("cacerts:endless:size=3000000")
        assert b"Transfer-Encoding: chunked" in head
        assert b"Content-Length" not in head
        assert len(body) > 3000000
        head, _ = under("cacerts:no-type")
        assert b"content-type" not in head.lower()
        head, body = under("cacerts:status:code=503:retry-after=7")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 7" in head
        head, body = under("cacerts:slow:seconds=0")
        assert len(body) == length
    assert len(running.transcript) == 9


def test_silence_ends_with_the_server(bench: Bench) -> None:
    """A client that is kept waiting is let go when the server stops."""
    with running_server(bench.world, [Fault.parse("cacerts:slow:seconds=3600")]) as running:
        connection = connect(running)
        connection.request("GET", "/.well-known/est/cacerts")
    with pytest.raises(OSError):  # noqa: PT012
        connection.getresponse()
        raise AssertionError("an answer came")
    connection.close()


def test_a_body_beyond_the_limit_is_not_read(bench: Bench) -> None:
    with running_server(bench.world) as running:
        connection = connect(running)
        connection.request("POST", "/.well-known/est/simpleenroll", b"A" * 300_000)
        assert connection.getresponse().status == 413
        connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_command_serves_until_it_is_told_to_stop(tmp_path: Path, number: signal.Signals) -> None:
    command = [sys.executable, "-m", "holdfast_sim.cli", "serve", "--json", "--directory", str(tmp_path)]
    command += ["--device", "CLI-1", "--validity", "10m", "--fault", "csrattrs:status:code=503"]
    command += ["--transcript", str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        try:
            assert process.stdout is not None
            facts = json.loads(process.stdout.readline())
            options = ["curl", "-sS", "--noproxy", "*", "--cacert", facts["anchors"], "-w", "%{http_code}"]
            options += ["--cert", str(tmp_path / "CLI-1.pem"), "--key", str(tmp_path / "CLI-1-key.pem")]
            for operation, code in (("cacerts", b"200"), ("csrattrs", b"503")):
                got = subprocess.run(
                    [*options, f"{facts['est']}/{operation}"], capture_output=True, timeout=30, check=False
                )
                assert got.stdout.endswith(code), got
        finally:
            process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (0, b"")
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert [line["status"] for line in lines] == [200, 503]
    assert (tmp_path / "masa-key.pem").stat().st_mode & 0o777 == 0o600


def test_rsa_everywhere(tmp_path: Path) -> None:
    world = make_world(Time(), algorithm=KeyAlgorithm.RSA2048)
    with running_server(world) as running:
        connection = connect(running)
        connection.request("GET", "/.well-known/est/cacerts")
        assert connection.getresponse().status == 200
        connection.close()


def test_the_masa_answers_a_registrar_from_elsewhere(live: PKI) -> None:
    running, directory, bench = live
    claim = captured_claim(bench)
    (directory / "rvr").write_bytes(claim)
    options = ["--cacert", str(directory / "masa-tls-root.pem"), "--data-binary", f"@{directory / 'rvr'}"]
    options += ["--header", f"Content-Type: {MEDIA_TYPE}"]
    answer = curl(live, f"{running.addresses.masa_url}/requestvoucher", *options, client="registrar")
    assert Voucher.decode(cms.open_signed(answer.stdout).content).serial_number == SERIAL
    log = curl(live, f"{running.addresses.masa_url}/requestauditlog", *options)
    assert len(json.loads(log.stdout)["events"]) == 1


def captured_claim(bench: Bench) -> bytes:
    """What our registrar would send to the MASA for the device."""
    sent: list[bytes] = []

    def masa(request: HttpRequest, _: Peer) -> HttpResponse:
        sent.append(request.body)
        return HttpResponse(404)

    headers = (("Content-Type", MEDIA_TYPE),)
    request = HttpRequest("POST", "/.well-known/brski/requestvoucher", headers, bench.pvr())
    with pytest.raises(Refused):
        registrar.handle(bench.world, masa, request, bench.peer())
    return sent[0]


def test_the_command_speaks_to_people_too(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("s3cret\n")
    (tmp_path / "faults.yaml").write_text("[{where: cacerts, kind: status, times: 1, args: {code: 500}}]")
    command = [sys.executable, "-m", "holdfast_sim.cli", "serve", "--faults", str(tmp_path / "faults.yaml")]
    command += ["--user", f"op:{tmp_path / 'password'}", "--auth", "basic", "--label", "iot"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            # To the last line's end, which an unbuffered Python writes apart: of what follows a line
            # that was read, communicate() sees only what had not come with it.
            lines = [line.decode() for line in itertools.islice(process.stdout, 11)]
            facts = dict(line.split(maxsplit=1) for line in lines)
            assert list(facts)[-1] == "manufacturer_anchors"
            anchors = Path(facts["anchors"].strip())
            assert x509.load_pem_x509_certificates(anchors.read_bytes())
            csr = tmp_path / "csr"
            csr.write_bytes(base64.encodebytes(Bench.make().csr()))
            curl_command = ["curl", "-sS", "--disable", "--noproxy", "*", "-w", "%{http_code}"]
            curl_command += ["--cacert", str(anchors)]
            est = facts["est"].strip()
            post = [
                "--user",
                "op:s3cret",
                "-H",
                "Content-Type: application/pkcs10",
                "--data-binary",
                f"@{csr}",
            ]
            orders = [[f"{est}/cacerts"], [f"{est}/cacerts"], [*post, f"{est}/iot/simpleenroll"]]
            codes = [
                subprocess.run([*curl_command, *order], capture_output=True, timeout=30, check=False).stdout[
                    -3:
                ]
                for order in orders
            ]
        finally:
            process.terminate()
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, b"", b"")
    assert codes == [b"500", b"200", b"200"]
    assert not anchors.exists(), "what nobody asked for is gone"


def test_an_address_that_is_not_ours(bench: Bench) -> None:
    with pytest.raises(OSError), running_server(bench.world, host="203.0.113.7"):  # RFC 5737
        raise AssertionError("it listens")
