"""How a protocol plugs in: one that needs no TLS enrolls and renews by the same rules as EST."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.host.config import IdentitySettings
from holdfast.keys.api import KeyRef, KeySpec
from holdfast.life.record import CredentialState, DeviceRecord, Provenance
from holdfast.wire.errors import ConfigError
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.http import HttpCredentials
from holdfast.wire.model import (
    CsrTemplate,
    EnrollmentRequest,
    Exchange,
    KeyAlgorithm,
    KeyDemand,
    Moment,
    Moved,
    Offer,
    Outcome,
    Purpose,
    RandomBytes,
    TlsInfo,
)
from holdfast.worker import step
from holdfast.worker.enrollment import Enrollment
from holdfast.worker.links import Endpoint
from holdfast.worker.rungs import Rung
from holdfast_sim.world import VoucherPolicy
from lifecycle.device import Device
from lifecycle.soft_keys import SoftKey

AUTHENTICATED = TlsInfo("https://registrar.example:8443", "TLSv1.3", (), True)


@dataclass(frozen=True)
class Letters:
    """Stands for a protocol that protects its messages itself. It borrows EST's, and a password."""

    name: ClassVar[str] = "letters"

    est: EstProtocol
    seen: list[tuple[TlsInfo | None, EnrollmentRequest]]
    authentic: bool = False
    only: KeyAlgorithm | None = None
    decrypt: bool = False

    def key_demand(self, algorithm: KeyAlgorithm) -> KeyDemand:
        if self.only not in {None, algorithm}:
            raise ConfigError("letters.key", f"needs {self.only.value}, not {algorithm.value}")
        return KeyDemand(decrypt=self.decrypt)

    def read_wishes(self, wishes: bytes) -> CsrTemplate:
        return self.est.read_wishes(wishes)

    def discover(self, tls: TlsInfo | None, now: Moment) -> Exchange[Offer | Moved]:
        offer = yield from self.est.discover(AUTHENTICATED, now)
        return replace(offer, authentic=self.authentic)

    def enroll(self, req: EnrollmentRequest, tls: TlsInfo | None, now: Moment) -> Exchange[Outcome]:
        self.seen.append((tls, req))
        return (yield from self.est.enroll(req, AUTHENTICATED, now))

    def resume(
        self, req: EnrollmentRequest, token: bytes, tls: TlsInfo | None, now: Moment
    ) -> Exchange[Outcome]:
        self.seen.append((tls, req))
        return (yield from self.est.resume(req, token, AUTHENTICATED, now))


def by_letters(device: Device, monkeypatch: pytest.MonkeyPatch, **options: object) -> Letters:
    """Makes every rung of *device* one of letters over plain HTTP."""
    device.world.est = replace(
        device.world.est, scheme="basic", users={"gw": "pass"}, polls=device.world.est.polls
    )
    est = EstProtocol(credentials=HttpCredentials("gw", "pass"), random=bytes)
    letters = Letters(est, [], **options)

    def rung_of(
        _settings: IdentitySettings, name: str, _record: DeviceRecord, _random: RandomBytes, **_more: object
    ) -> Rung:
        return Rung(name, letters, Endpoint.of_url("http://registrar.example:8443/pki"))

    monkeypatch.setattr(step, "rung_of", rung_of)
    monkeypatch.setattr(Enrollment, "_told_by_registrar", lambda *_: None)  # the letters alone
    return letters


def test_plain_http_enrolls_with_a_signer_and_without_a_tls_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    letters = by_letters(device, monkeypatch)
    device.live_until_active()
    ((tls, request),) = letters.seen
    assert tls is None
    assert request.signer is not None
    assert request.signer[0] == device.factory.chain
    assert request.current is None
    leaf = device.record.identity("ldevid").credential.chain[0]
    device.step(renew=["ldevid"])  # EST's server wants TLS for this; what it was asked is the point
    _, renewal = letters.seen[1]
    assert renewal.purpose is Purpose.REKEY
    assert renewal.signer == renewal.current
    assert renewal.signer is not None
    assert renewal.signer[0][0].public_bytes(Encoding.DER) == leaf


def test_a_pending_request_is_resumed_without_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path)
    device.world.est = replace(device.world.est, polls=2)
    letters = by_letters(device, monkeypatch)
    device.live_until_active()
    assert [tls for tls, _ in letters.seen] == [None, None, None]
    assert len({request.transaction for _, request in letters.seen}) == 1


def test_an_offer_that_anybody_could_have_made_brings_no_anchor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.world.est = replace(device.world.est, polls=9, retry_after=3600)
    by_letters(device, monkeypatch)
    device.step()
    first = device.record.domain
    assert [a.provenance for a in first.anchors] == [Provenance.VOUCHER]
    assert len(first.intermediates) == 1
    liar = Device(tmp_path / "liar", faults=["cacerts:foreign-anchor"])
    by_letters(liar, monkeypatch)
    report = liar.step()
    assert "OfferTaken" in {trace.result for trace in report.traces}
    assert all(a.provenance is Provenance.VOUCHER for a in liar.record.domain.anchors)
    assert liar.identity.credential.state is CredentialState.NONE


def test_an_offer_whose_signer_was_verified_brings_anchors_beside_the_voucher_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    device.world.vouchers = VoucherPolicy(pin="registrar")
    by_letters(device, monkeypatch, authentic=True)
    device.live_until_active()
    anchors = device.record.domain.anchors
    assert [a.provenance for a in anchors] == [Provenance.CACERTS, Provenance.VOUCHER]
    assert anchors[0].certificate == device.world.domain.root.certificate.public_bytes(Encoding.DER)


def test_a_key_that_the_protocol_cannot_use_is_refused_before_it_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    by_letters(device, monkeypatch, only=KeyAlgorithm.RSA2048)
    device.step()
    trouble = device.identity.schedule.trouble
    assert trouble is not None
    assert trouble.code == "letters.key"
    assert device.keys.made == 0
    assert device.identity.credential.state is CredentialState.NONE


def test_a_key_that_must_decrypt_is_made_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(
        tmp_path, identities="  - name: ldevid\n    protocols: [{est: {}}]\n    key: {algorithm: rsa2048}\n"
    )
    by_letters(device, monkeypatch, only=KeyAlgorithm.RSA2048, decrypt=True)
    made: list[KeySpec] = []
    generate: Callable[[KeyRef, KeySpec], SoftKey] = device.keys.generate

    def noted(ref: KeyRef, spec: KeySpec) -> SoftKey:
        made.append(spec)
        return generate(ref, spec)

    monkeypatch.setattr(device.keys, "generate", noted)
    device.live_until_active()
    assert [spec.decrypt for spec in made] == [True]


def test_a_request_whose_rung_left_the_configuration_is_given_up(tmp_path: Path) -> None:
    device = Device(tmp_path, identities="  - name: ldevid\n    protocols: [{est: {name: old}}]\n")
    device.world.est = replace(device.world.est, polls=9, retry_after=3600)
    device.step()
    key = device.identity.transaction.key
    (device.directory / "holdfast.yaml").write_text(
        (device.directory / "holdfast.yaml").read_text().replace("name: old", "name: new")
    )
    device.reload()
    device.world.est = replace(device.world.est, polls=0)
    device.pass_time(device.identity.schedule.due - device.clock.now)
    device.step()
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code == "ladder.rung-gone"
    assert key not in device.keys.refs()
    device.live_until_active()
