"""A key that lives in a TPM, enrolled, used and renewed at servers that others wrote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from holdfast.keys.api import KeySpec
from holdfast.keys.tpm import TpmStore
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.model import KeyAlgorithm, Purpose
from holdfast_factory.swtpm import Swtpm
from interop.est_peers import DebianRoot, Domain, globalsign_server, libest_server
from interop.test_est_peers_servers import Device, issued, openssl_verifies, password

pytestmark = [pytest.mark.interop, pytest.mark.tpm]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[TpmStore]:
    with Swtpm(tmp_path / "tpm") as tpm, TpmStore(tpm.tcti, tmp_path / "keys") as opened:
        yield opened


def live(device: Device, store: TpmStore, domain: Domain, directory: Path) -> None:
    """First enrollment, then a new key of another kind with the certificate as TLS client."""
    first_key = store.generate(store.plan("ldevid", 1), KeySpec()).signer()
    first = issued(device.enroll(first_key))
    second_key = store.generate(store.plan("ldevid", 2), KeySpec(KeyAlgorithm.RSA2048)).signer()
    second = issued(device.holding(first, first_key).enroll(second_key, Purpose.REKEY))
    assert second.chain[0].public_key() == second_key.public_key()
    assert second.chain[0].serial_number != first.chain[0].serial_number
    for leaf in (first.chain[0], second.chain[0]):
        openssl_verifies(leaf, domain, directory)


def test_at_libest(debian: DebianRoot, domain: Domain, store: TpmStore, tmp_path: Path) -> None:
    with libest_server(debian, domain, "-o") as port:
        live(Device(port, domain.anchors, password()), store, domain, tmp_path)


def test_at_globalsign(domain: Domain, store: TpmStore, tmp_path: Path) -> None:
    with globalsign_server(tmp_path, domain) as port:
        live(Device(port, domain.anchors, EstProtocol()), store, domain, tmp_path)
