"""What a worker tells the resident process beside its report (read there by ``holdfast.resident.reports``).

Plain values, ready for JSON, without a secret: the few settings that the agent needs, what the step is at,
and numbers about identities, clock and TPM.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata
from typing import Any

from holdfast.host.config import Settings
from holdfast.host.credentials import CHAIN
from holdfast.keys.api import Metered
from holdfast.life.record import CredentialState, DeviceRecord, Identity
from holdfast.wire.errors import HoldfastError
from holdfast.worker.agenda import leaf_of
from holdfast.worker.ports import Doing, Environment


def settings_told(settings: Settings, files: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """The line ``settings``. *files*: each identity's name and the directory of its files."""
    agent = settings.agent
    port = agent.metrics_port
    return {
        "settings": {
            "version": metadata.version("holdfast"),
            "identities": [{"name": name, "chain": f"{directory}/{CHAIN}"} for name, directory in files],
            "group": agent.group,
            "metrics_file": str(agent.metrics_file) if agent.metrics_file is not None else None,
            "metrics_listen": {"host": "127.0.0.1", "port": port} if port is not None else None,
            "worker_seconds": agent.worker_seconds,
        }
    }


def progress_told(doing: Doing) -> dict[str, Any]:
    """The line ``progress``."""
    return {"progress": {"doing": doing.name, "identity": doing.identity, "allow": doing.allow}}


def numbers_told(env: Environment, record: DeviceRecord) -> dict[str, Any]:
    """The member ``agent`` of the report. A TPM that this step did not use is not asked anything either."""
    told: dict[str, Any] = {
        "identities": [_identity(record.identity(s.name)) for s in env.settings.identities],
        "clock": env.clock.moment(record.time_floor).state.value,
    }
    keys = env.keys
    if isinstance(keys, Metered) and keys.usage.commands:
        told["tpm_commands"] = keys.usage.commands
        told["tpm_seconds"] = keys.usage.seconds
        try:
            told["lockout"] = keys.lockout_counter()
        except HoldfastError:
            told["lockout"] = None  # the step has said already what is wrong with the TPM
    return told


def usable(env: Environment, record: DeviceRecord) -> frozenset[str]:
    """Names of the identities that other programs can use: active, and their files are in place."""
    return frozenset(
        s.name
        for s in env.settings.identities
        if record.identity(s.name).credential.state is CredentialState.ACTIVE
        and env.files(s.name).current() is not None
    )


def _identity(entry: Identity) -> dict[str, Any]:
    credential, transaction = entry.credential, entry.transaction
    return {
        "name": entry.name,
        "state": credential.state.value,
        "generation": credential.generation,
        "not_after": leaf_of(entry).not_valid_after_utc.timestamp() if credential.chain else None,
        "transaction": transaction.state.value,
        "transaction_id": transaction.id,
        "protocol": transaction.protocol,
        "attempts": entry.schedule.attempts,
    }
