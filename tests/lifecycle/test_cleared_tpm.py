"""A TPM that was cleared or whose storage hierarchy changed, for real (FIELD-LESSONS 12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tpm2_pytss import ESAPI, ESYS_TR, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE, TPMS_SENSITIVE_CREATE

from demo.application import hello
from demo.stage import SERIAL, Stage
from holdfast.host.store import StateStore
from holdfast.keys.tpm import SRK
from holdfast.keys.tpm_templates import storage_root
from holdfast.life.record import CredentialState, DeviceRecord

pytestmark = [pytest.mark.tpm, pytest.mark.timeout(300)]


@pytest.fixture(params=["blob", "persistent"])
def stage(request: pytest.FixtureRequest) -> Iterator[Stage]:
    with Stage(storage=request.param) as made:
        assert made.agent("step", "--json").status == 0
        yield made


def record(stage: Stage) -> DeviceRecord:
    loaded = StateStore(stage.state).load().record
    assert loaded is not None
    return loaded


def replace_storage_root(tcti: str) -> None:
    """Another storage root key at the same place, as a new storage seed would give; the IDevID stays."""
    with ESAPI(tcti) as esapi:
        old = esapi.tr_from_tpmpublic(SRK)
        esapi.evict_control(ESYS_TR.OWNER, old, SRK)
        template = storage_root()
        template.unique.ecc.x.buffer = b"another seed".ljust(32, b"\0")
        sensitive = TPM2B_SENSITIVE_CREATE(sensitive=TPMS_SENSITIVE_CREATE())
        made, *_ = esapi.create_primary(sensitive, TPM2B_PUBLIC(publicArea=template), ESYS_TR.OWNER)
        esapi.evict_control(ESYS_TR.OWNER, made, SRK)
        esapi.flush_context(made)


def test_another_storage_root_key_begins_anew_by_the_idevid(stage: Stage) -> None:
    before = record(stage)
    assert before.home
    replace_storage_root(stage.tpm.tcti)
    done = stage.agent("step", "--json")
    assert done.status == 0, done.output + done.errors
    after = record(stage)
    assert after.home not in {"", before.home}
    assert after.identity("ldevid").credential.state is CredentialState.ACTIVE
    assert (stage.state / "record.other-hardware-1").exists()
    assert SERIAL in hello(stage.config, stage.servers.addresses["application"])


def test_a_cleared_tpm_that_lost_its_idevid_says_so_and_keeps_trying(stage: Stage) -> None:
    with ESAPI(stage.tpm.tcti) as esapi:
        esapi.clear(ESYS_TR.LOCKOUT)
    for _ in range(2):
        done = stage.agent("step", "--json")
        assert done.status in {1, 2}, done.output + done.errors
        assert done.told["trouble"]["code"].startswith("key.")
        assert done.told["wait_seconds"] > 0
    assert (stage.state / "record.other-hardware-1").exists()
    why = stage.agent("why")
    assert "key." in why.output
    assert record(stage).schedule.due is not None
