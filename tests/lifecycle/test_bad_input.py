"""Every server endpoint times every kind of bad input: a named error, no trace in the credential, recovery.

The same faults over real TLS links give the same codes: ``tests/sim/test_link_equals_tls.py``.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from holdfast.life.record import Credential, CredentialState, DomainState
from holdfast.wire.model import CsrTemplate, KeyAlgorithm
from holdfast_sim.world import EstPolicy
from lifecycle.device import Device

BAD = (
    "truncated",
    "oversized:size=2000000",
    "endless:size=2000000",
    "non-der",
    "wrong-type",
    "no-type",
    "garbage",
    "garbage-json",
    "empty",
    "cut-der",
    "drop-before",
    "drop-after",
    "slow:seconds=600",
    "status:code=500",
    "status:code=418",
    "redirect",
)
TELEMETRY = ("voucher_status", "enrollstatus")
FIRST_BOOT = ("requestvoucher", "cacerts", "csrattrs", "simpleenroll")
# What a fault cannot spoil: an empty csrattrs says that there are no wishes, as 418 does to nobody.
HARMLESS = {("csrattrs", "empty")}
CODES = (
    "transport.", "http.", "network.", "voucher.", "registrar.", "est.", "cms.", "chain.", "certificate.",
    "brski.",
)  # fmt: skip


def named(code: str) -> bool:
    return code.startswith(CODES) and code.split(".", 1)[1] != ""


def device_with_wishes(directory: Path, faults: list[str]) -> Device:
    device = Device(directory, faults=faults)
    device.world.est = EstPolicy(template=CsrTemplate(key=KeyAlgorithm.P384))
    return device


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("endpoint", FIRST_BOOT)
def test_a_first_boot_meets_it(tmp_path: Path, endpoint: str, kind: str) -> None:
    device = device_with_wishes(tmp_path, [f"{endpoint}:{kind}"])
    device.step()
    if (endpoint, kind) in HARMLESS:
        assert device.active
        return
    assert not device.active
    trouble = device.identity.schedule.trouble or device.record.schedule.trouble
    assert trouble is not None
    assert named(trouble.code), trouble
    assert device.identity.credential == Credential()
    assert device.keys.refs() <= device.record.key_refs()
    device.reface([])
    device.live_until_active()
    assert device.keys.refs() == {device.identity.credential.key}


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("endpoint", TELEMETRY)
@pytest.mark.parametrize("times", [1, 0], ids=["once", "for-ever"])
def test_an_answer_to_telemetry_decides_nothing_about_trust(
    tmp_path: Path, endpoint: str, kind: str, times: int
) -> None:
    name, _, arguments = kind.partition(":")
    device = device_with_wishes(tmp_path, [f"{endpoint}:{name}:{times}:{arguments}".rstrip(":")])
    device.live_until_active()
    assert device.keys.refs() == {device.identity.credential.key}
    assert device.record.domain.state is DomainState.VOUCHED


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("endpoint", ["cacerts", "csrattrs", "simplereenroll"])
def test_a_renewal_meets_it(tmp_path: Path, endpoint: str, kind: str) -> None:
    device = device_with_wishes(tmp_path, [])
    device.step()
    held = device.identity.credential
    device.reface([f"{endpoint}:{kind}"])
    device.step(renew=["ldevid"])
    if (endpoint, kind) in HARMLESS:
        assert device.identity.credential.generation == 2
        return
    assert device.identity.credential == held
    assert device.identity.credential.state is CredentialState.ACTIVE
    assert device.record.domain.state is DomainState.VOUCHED
    trouble = device.identity.schedule.trouble
    assert trouble is not None
    assert named(trouble.code), trouble
    assert device.keys.refs() <= device.record.key_refs()
    assert held.key in device.keys.refs()
    device.reface([])
    for _ in range(4):
        device.clock.now = device.identity.schedule.due or device.clock.now
        device.step(renew=["ldevid"])
        if device.identity.credential.generation == 2:
            break
    assert device.identity.credential.generation == 2
    assert device.keys.refs() == {device.identity.credential.key}
