"""What a CA finds on this host while a challenge is open, and what strangers find."""

from __future__ import annotations

import http.client
import secrets
import socket
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.host.acme.dns_01 import DnsProgram
from holdfast.host.acme.errors import SolverError
from holdfast.host.acme.http_01 import HttpPages
from holdfast.host.acme.solver import Solvers
from holdfast.host.acme.tls_alpn_01 import AlpnServer
from holdfast.host.acme.ways import solvers
from holdfast.host.config_model import AcmeSettings, DnsSettings
from holdfast.wire.acme.challenges import ACME_IDENTIFIER, Task
from holdfast.wire.acme.objects import Identifier
from holdfast.wire.model import ClockState, Moment

NOW = datetime(2026, 11, 1, tzinfo=UTC)
MOMENT = Moment(NOW, NOW, ClockState.TRUSTED)
NAME = Identifier("dns", "gateway.example")


def task(kind: str, token: str = "token") -> Task:
    return Task(kind, NAME, token, f"{token}.thumbprint")


@pytest.fixture
def pages() -> Iterator[HttpPages]:
    found = HttpPages(0, "127.0.0.1")
    yield found
    found.close()


@pytest.fixture
def alpn() -> Iterator[AlpnServer]:
    found = AlpnServer(0, lambda: MOMENT, secrets.token_bytes, "127.0.0.1")
    yield found
    found.close()


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_page_is_there_from_presenting_to_withdrawing(pages: HttpPages) -> None:
    first, second = task("http-01"), task("http-01", "other")
    pages.present(first)
    pages.present(second)
    assert get(pages.port, first.http_target) == (200, b"token.thumbprint")
    assert get(pages.port, second.http_target) == (200, b"other.thumbprint")
    pages.withdraw(first)
    assert get(pages.port, first.http_target)[0] == 404
    pages.withdraw(first)  # again: harmless


@pytest.mark.parametrize("path", ["/", "/.well-known/acme-challenge/", "/../etc/passwd", "/" + "x" * 5000])
def test_nothing_else_is_there(pages: HttpPages, path: str) -> None:
    pages.present(task("http-01"))
    assert get(pages.port, path) == (404, b"")


def test_strangers_that_send_garbage_or_nothing_hold_up_nobody(pages: HttpPages) -> None:
    first = task("http-01")
    pages.present(first)
    with ExitStack() as idle:
        for number in range(8):
            stranger = idle.enter_context(socket.create_connection(("127.0.0.1", pages.port), 20))
            stranger.sendall(b"\x16\x03\x01" * number)
        assert get(pages.port, first.http_target)[0] == 200


def test_after_the_end_nobody_listens(pages: HttpPages) -> None:
    pages.present(task("http-01"))
    port = pages.port
    pages.close()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 20)


def test_a_port_that_is_taken_is_named(pages: HttpPages) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for way, code in (
            (HttpPages(port, "127.0.0.1"), "acme.http-port"),
            (AlpnServer(port, lambda: MOMENT, secrets.token_bytes, "127.0.0.1"), "acme.tls-port"),
        ):
            with pytest.raises(SolverError) as caught:
                way.present(task("x"))
            assert caught.value.code == code
            assert str(port) in caught.value.detail


def shown(port: int, name: str, *protocols: str) -> tuple[x509.Certificate, str | None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(list(protocols))
    with (
        socket.create_connection(("127.0.0.1", port), 20) as raw,
        context.wrap_socket(raw, server_hostname=name) as tls,
    ):
        der = tls.getpeercert(binary_form=True)
        assert der is not None
        return x509.load_der_x509_certificate(der), tls.selected_alpn_protocol()


def test_the_certificate_of_tls_alpn_is_as_rfc_8737_wants_it(alpn: AlpnServer) -> None:
    wanted = task("tls-alpn-01")
    alpn.present(wanted)
    certificate, protocol = shown(alpn.port, "gateway.example", "acme-tls/1")
    assert protocol == "acme-tls/1"
    san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.DNSName) == ["gateway.example"]
    proof = certificate.extensions.get_extension_for_oid(ACME_IDENTIFIER)
    assert proof.critical
    assert isinstance(proof.value, x509.UnrecognizedExtension)
    assert proof.value.value == b"\x04\x20" + wanted.digest


def test_other_names_are_shown_nothing(alpn: AlpnServer) -> None:
    alpn.present(task("tls-alpn-01"))
    with pytest.raises((ssl.SSLError, OSError)):
        shown(alpn.port, "elsewhere.example", "acme-tls/1")
    alpn.withdraw(task("tls-alpn-01"))
    with pytest.raises((ssl.SSLError, OSError)):
        shown(alpn.port, "gateway.example", "acme-tls/1")


def test_no_key_of_a_challenge_stays_on_disk(
    alpn: AlpnServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    alpn.present(task("tls-alpn-01"))
    assert list(tmp_path.iterdir()) == []


def script(path: Path, text: str) -> tuple[str, ...]:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return (str(path),)


def test_a_dns_command_is_told_what_to_do(tmp_path: Path) -> None:
    told = tmp_path / "told"
    way = DnsProgram(script(tmp_path / "hook", f'echo "$@" >> {told}'), 20)
    wanted = task("dns-01")
    way.present(wanted)
    way.withdraw(wanted)
    name = "_acme-challenge.gateway.example"
    assert told.read_text() == f"present {name} {wanted.dns_value}\nwithdraw {name} {wanted.dns_value}\n"


@pytest.mark.parametrize("text", ["exit 3", "exec 1>&-; while :; do :; done"], ids=["fails", "hangs"])
def test_a_dns_command_that_does_not_work_is_named(tmp_path: Path, text: str) -> None:
    way = DnsProgram(script(tmp_path / "hook", text), 0.3)
    with pytest.raises(SolverError) as caught:
        way.present(task("dns-01"))
    assert caught.value.code == "acme.dns-command"
    with pytest.raises(SolverError):
        DnsProgram((str(tmp_path / "nothing"),), 20).present(task("dns-01"))


def test_tasks_go_to_the_way_that_knows_them(pages: HttpPages) -> None:
    ways = Solvers([pages])
    assert ways.kinds == {"http-01"}
    ways.present(task("http-01"))
    with pytest.raises(SolverError) as caught:
        ways.present(task("dns-01"))
    assert caught.value.code == "acme.solver"


def test_settings_open_nothing_before_a_challenge() -> None:
    dns = DnsSettings(command=("/bin/true",))
    settings = AcmeSettings(
        "https://x", "/d", challenges=("http-01", "tls-alpn-01", "dns-01"), http_port=1, dns=dns
    )
    with ExitStack() as life:
        of = solvers(lambda: MOMENT, secrets.token_bytes, life)
        found = of(settings)
        assert found is not None
        assert found.kinds == {"http-01", "tls-alpn-01", "dns-01"}
        assert of(settings) is found
