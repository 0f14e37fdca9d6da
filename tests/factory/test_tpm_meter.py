"""The meter counts each command once, with its time and response code, whoever sent it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading

import pytest

from holdfast.wire.errors import KeyStoreError, KeyStoreUnavailable
from holdfast_factory.chip import Chip
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_commands import command_name
from holdfast_factory.tpm_meter import TpmMeter

pytestmark = pytest.mark.tpm


def test_names_every_command_in_order(tpm: Swtpm) -> None:
    with TpmMeter(tpm.port) as meter, Chip(meter.tcti) as chip:
        assert meter.take() == ()
        chip.write_nv(0x01C90200, b"x")
        commands = meter.take()
        assert [c.name for c in commands] == ["GetCapability", "NV_DefineSpace", "GetCapability", "NV_Write"]
        assert all(c.rc == 0 and c.milliseconds > 0 for c in commands)
        assert meter.take() == ()


def test_counts_for_other_processes_too(tpm: Swtpm) -> None:
    program = (
        "import sys; from holdfast_factory.chip import Chip\n"
        "with Chip(sys.argv[1]) as chip: print(chip.transients())"
    )
    with TpmMeter(tpm.port) as meter:
        done = subprocess.run(
            [sys.executable, "-c", program, meter.tcti], capture_output=True, text=True, check=True
        )
        assert done.stdout == "0\n"
        assert [c.name for c in meter.take()] == ["GetCapability"]


def test_records_the_response_code_of_a_refused_command(tpm: Swtpm) -> None:
    with TpmMeter(tpm.port) as meter, Chip(meter.tcti) as chip:
        with pytest.raises(KeyStoreError):
            chip.signer(0x81020000)  # nothing is there
        (command,) = meter.take()
        assert command.name == "ReadPublic"
        assert command.rc == 0x18B  # TPM_RC_HANDLE, handle 1


def test_latency_is_added_to_the_named_command_only(tpm: Swtpm) -> None:
    with TpmMeter(tpm.port, latency={"NV_Write": 0.2}) as meter, Chip(meter.tcti) as chip:
        chip.write_nv(0x01C90200, b"x")
        slow = {c.name for c in meter.take() if c.milliseconds >= 200}
        assert slow == {"NV_Write"}


def test_latency_for_all_commands(tpm: Swtpm) -> None:
    with TpmMeter(tpm.port, latency={"*": 0.05}) as meter, Chip(meter.tcti) as chip:
        chip.transients()
        assert all(c.milliseconds >= 50 for c in meter.take())


@pytest.mark.parametrize("executed", [True, False])
def test_a_lost_answer_is_an_io_error_whether_the_tpm_acted_or_not(tpm: Swtpm, executed: bool) -> None:
    with TpmMeter(tpm.port) as meter:
        with Chip(meter.tcti) as chip:
            chip.write_nv(0x01C90200, b"before")
            chip._defined(0x01C90200)
            meter.take()
        with Chip(meter.tcti) as chip:
            meter.lose_next(executed=executed)
            with pytest.raises(KeyStoreUnavailable):
                chip.transients()
        assert meter.take() == ()
        with Chip(meter.tcti) as chip:
            assert chip.read_nv(0x01C90200) == b"before"


def test_a_lost_answer_means_what_executed_says(tpm: Swtpm) -> None:
    undefine = bytes.fromhex(
        "8002 0000001f 00000122 40000001 01c90200 00000009 40000009 0000 00 0000".replace(" ", "")
    )
    for executed in (False, True):
        with TpmMeter(tpm.port) as meter:
            with Chip(meter.tcti) as chip:
                if chip.read_nv(0x01C90200) is None:
                    chip.write_nv(0x01C90200, b"x")
            meter.lose_next(executed=executed)
            with socket.create_connection(("127.0.0.1", meter.port)) as raw:
                raw.sendall(undefine)
                assert raw.recv(100) == b""
            with Chip(meter.tcti) as chip:
                assert (chip.read_nv(0x01C90200) is None) is executed


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0",
        b"\x80\x01\0\0\0\x03\0\0\1\x81",
        b"\x80\x01\xff\xff\xff\xff\0\0\1\x81",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_garbage_is_dropped_and_the_next_client_served(tpm: Swtpm, garbage: bytes) -> None:
    with TpmMeter(tpm.port) as meter:
        # The channel may be dropped before or after our own end of it.
        with socket.create_connection(("127.0.0.1", meter.port)) as raw, contextlib.suppress(OSError):
            raw.sendall(garbage)
            raw.shutdown(socket.SHUT_WR)
            assert raw.recv(100) == b""
        with Chip(meter.tcti) as chip:
            assert chip.transients() == 0


def test_close_leaves_no_thread_and_no_port(tpm: Swtpm) -> None:
    before = set(threading.enumerate())
    meter = TpmMeter(tpm.port)
    idle = socket.create_connection(("127.0.0.1", meter.port))
    with Chip(meter.tcti) as chip:
        chip.transients()
    meter.close()
    idle.close()
    assert set(threading.enumerate()) == before
    with pytest.raises(KeyStoreUnavailable):
        Chip(meter.tcti)


def test_a_dead_tpm_shows_as_a_closed_channel(tpm: Swtpm) -> None:
    with TpmMeter(tpm.port) as meter, Chip(meter.tcti) as chip:
        tpm.stop()
        with pytest.raises(KeyStoreUnavailable):
            chip.transients()


def test_command_names_agree_with_the_library() -> None:
    from tpm2_pytss.constants import TPM2_CC

    codes = {
        int(getattr(TPM2_CC, name)): name
        for name in dir(TPM2_CC)
        if name[0].isupper() and name not in ("FIRST", "LAST") and isinstance(getattr(TPM2_CC, name), int)
    }
    named = {code: name for code, name in codes.items() if code < 0x20000000}
    assert len(named) > 100
    assert {code: command_name(code) for code in named} == named
    assert command_name(0x200) == "0x200"
    assert command_name(0x123) == "0x123"


def test_importing_the_meter_loads_no_tpm_library() -> None:
    program = (
        "import sys, holdfast_factory.tpm_meter, holdfast_factory.swtpm; print('tpm2_pytss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
