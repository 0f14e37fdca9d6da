"""A CA says when it would like to see a renewal: it can bring one forward, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509

from holdfast.host.config import IdentitySettings
from holdfast.life.renewal import HINT_REST
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TransportError, TrustError
from holdfast.wire.est.client import EstProtocol
from holdfast.wire.model import Exchange, HttpRequest, Moment, RenewalHint, TlsInfo
from holdfast.worker import step
from holdfast.worker.rungs import Rung, rung_of
from lifecycle.device import T0, Device

ASKING = "  - name: ldevid\n    protocols: [{est: {}}]\n    renew: {ask-server: true}\n"


@dataclass(frozen=True)
class WishfulEst(EstProtocol):
    """EST whose server has wishes: *says* is what it answers, one after another, the last for ever."""

    says: tuple[RenewalHint | HoldfastError | None, ...] = ()
    asked: tuple[list[x509.Certificate]] = ([],)

    def renewal_hint(
        self, current: x509.Certificate, tls: TlsInfo | None, now: Moment
    ) -> Exchange[RenewalHint | None]:
        assert tls is not None
        assert tls.authenticated
        self.asked[0].append(current)
        yield HttpRequest("GET", "/.well-known/est/cacerts")
        said = self.says[min(len(self.asked[0]), len(self.says)) - 1]
        if isinstance(said, HoldfastError):
            raise said
        return said


def wishful(
    device: Device, monkeypatch: pytest.MonkeyPatch, *says: RenewalHint | HoldfastError | None
) -> Sequence[x509.Certificate]:
    asked: list[x509.Certificate] = []

    def with_wishes(settings: IdentitySettings, name: str, *rest: object, **options: object) -> Rung:
        rung = rung_of(settings, name, *rest, **options)  # type: ignore[arg-type]
        return replace(rung, protocol=WishfulEst(says=says, asked=(asked,)))

    monkeypatch.setattr(step, "rung_of", with_wishes)
    return asked


def window(days: float, length: float = 1, again: timedelta = timedelta(hours=6)) -> RenewalHint:
    return RenewalHint(T0 + timedelta(days=days), T0 + timedelta(days=days + length), again)


def leaf(device: Device) -> x509.Certificate:
    return x509.load_der_x509_certificate(device.identity.credential.chain[0])


def test_nobody_is_asked_unless_the_configuration_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path)
    asked = wishful(device, monkeypatch, window(1))
    device.step()
    assert asked == []
    assert device.identity.hint is None


def test_a_wish_brings_the_renewal_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path, identities=ASKING)
    asked = wishful(device, monkeypatch, window(1), None)
    report = device.step()
    assert list(asked) == [leaf(device)]
    assert report.due == T0 + timedelta(hours=6), "and asks again when it was told to"
    device.clock.now = T0 + timedelta(days=2)
    device.step()
    assert device.identity.credential.generation == 2
    assert device.identity.hint is not None
    assert device.identity.hint.start is None, "the wish was for the old certificate"


def test_a_wish_puts_no_renewal_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(tmp_path, identities=ASKING)
    wishful(device, monkeypatch, window(3650))
    device.step()
    device.clock.now = T0 + timedelta(days=89)
    device.step()
    assert device.identity.credential.generation == 2


def test_a_server_that_always_says_now_does_not_make_a_device_renew_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = Device(tmp_path, identities=ASKING)
    wishful(device, monkeypatch, window(-10, again=timedelta(0)))
    device.step()
    while device.clock.now < T0 + timedelta(hours=6):
        device.pass_time(timedelta(minutes=5))
        device.step()
    assert device.identity.credential.generation <= 1 + timedelta(hours=6) / HINT_REST


@pytest.mark.parametrize(
    "error",
    [
        TransportError("transport.closed"),
        RemoteProtocolError("ari.window"),
        TrustError("chain.untrusted"),
    ],
)
def test_a_question_that_fails_costs_nothing_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: HoldfastError
) -> None:
    device = Device(tmp_path, identities=ASKING)
    wishful(device, monkeypatch, window(30), error)
    device.step()
    before = device.identity
    device.pass_time(timedelta(hours=6))
    device.step()
    after = device.identity
    assert before.hint is not None
    assert after.hint is not None
    assert (after.hint.start, after.hint.end) == (before.hint.start, before.hint.end)
    assert after.hint.trouble is not None
    assert after.hint.trouble.code == error.code
    assert after.hint.ask > device.clock.now
    assert after.credential == before.credential
    assert after.schedule == before.schedule


def test_a_protocol_without_wishes_is_not_asked(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=ASKING)
    report = device.step()
    assert device.identity.hint is not None
    assert device.identity.hint.start is None
    assert report.due > device.clock.now
