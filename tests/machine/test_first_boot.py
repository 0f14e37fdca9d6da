"""A gateway is switched on for the first time."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from machine import timeline
from machine.autopsy import assert_whole, examine
from machine.broker import CONNACK, greet
from machine.owner import SERIAL, Town, free_port

pytestmark = [pytest.mark.machine, pytest.mark.timeout(900)]

Note = Callable[[str, object], None]
SANDBOX = "/proc/$(systemctl show --property MainPID --value holdfast.service)"


@pytest.mark.parametrize("interface", ["tpm-crb", pytest.param("tpm-tis", marks=pytest.mark.full)])
def test_it_enrolls_and_its_broker_serves_with_the_key_in_the_tpm(
    town: Town, interface: str, tmp_path: Path, record_property: Note
) -> None:
    hardware = replace(town.unpack(clock="trusted", interface=interface), port=free_port())
    with town.power_on(hardware) as gateway:
        gateway.settled()
        gateway.unit_started("mosquitto.service")

        found = greet(town, hardware.port, tmp_path)
        assert found.answer == CONNACK
        assert found.server == town.running.world.issued[-1].certificate
        assert SERIAL in found.server.subject.rfc4514_string()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            greet(town, hardware.port, tmp_path, credential=False)

        # The TPM through the kernel's resource manager, by an agent without any privilege.
        assert gateway.ask("stat -c %U:%G:%a /dev/tpmrm0") == "tss:tss:660"
        status = gateway.ask(f"grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' {SANDBOX}/status")
        user = gateway.ask("id -u holdfast")
        assert dict(line.split(":\t", 1) for line in status.splitlines()) == {
            "Uid": "\t".join([user] * 4),
            "CapEff": "0000000000000000",
            "NoNewPrivs": "1",
            "Seccomp": "2",
        }
        assert gateway.run("test -w /var/lib/holdfast -a -w /etc").status == 0  # of us, who are root
        assert "TSS2 PRIVATE KEY" in gateway.ask("cat /var/lib/holdfast/identities/ldevid/current/key.pem")
        assert gateway.ask("systemctl --failed --no-legend") == ""

        timeline.read(gateway).record(record_property)
        gateway.shut_down()
    assert_whole(examine(hardware), town.shipped)


def test_a_clock_at_1970_and_no_time_server_do_not_stop_it(town: Town) -> None:
    hardware = replace(town.unpack(), rtc="1970-01-01T00:00:00")
    with town.power_on(hardware) as gateway:
        gateway.settled()
        shown = datetime.fromtimestamp(int(gateway.ask("date +%s")), UTC)
        issued = town.running.world.issued[-1].certificate
        assert (
            shown < issued.not_valid_before_utc
        )  # systemd moves the clock to its own build time, no further
        assert gateway.holdfast("status")["identities"][0]["credential"]["state"] == "active"
        gateway.shut_down()
    assert_whole(examine(hardware), town.shipped)


def test_a_slow_and_lossy_network_does_not_stop_it(town: Town, record_property: Note) -> None:
    hardware = town.unpack(clock="trusted")
    with town.power_on(hardware, append="gateway.slow") as gateway:
        active = gateway.enrolled()
        gateway.settled()
        shaped = json.loads(gateway.ask("tc -s -j qdisc show"))
        queues = [q for q in shaped if q["kind"] == "netem"]
        assert len(queues) == 2, shaped  # one each way
        for queue in queues:
            assert queue["options"]["delay"]["delay"] == pytest.approx(0.3)
            assert queue["options"]["loss-random"]["loss"] == pytest.approx(0.05)
            assert queue["packets"] > 0
        record_property("slow network: packets", sum(q["packets"] for q in queues))
        record_property("slow network: lost packets", sum(q["drops"] for q in queues))
        took = active.host - gateway.powered_on
        record_property("slow network: power-on to LDevID ms", round(took * 1000))
        gateway.shut_down()
    assert_whole(examine(hardware), town.shipped)
