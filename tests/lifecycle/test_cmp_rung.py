"""A whole device that enrolls by CMP: BRSKI-AE, plain HTTP, shared secrets, the ladder, power cuts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.life.record import CredentialState, Provenance, TransactionState
from holdfast.wire.cmp.message import Body, Message, parse
from holdfast.wire.model import CsrTemplate, HttpRequest, HttpResponse, KeyAlgorithm
from holdfast.worker.ports import Environment
from holdfast_sim.cmp_desk import CmpPolicy
from holdfast_sim.link import InProcessTransport
from lifecycle.device import Device

CMP = "  - name: ldevid\n    protocols: [{cmp: {}}]\n"
PLAIN = "  - name: ldevid\n    protocols: [{cmp: {url: 'http://registrar.example:8080'}}]\n"
LADDER = "  - name: ldevid\n    protocols: [{est: {}}, {cmp: {}}]\n"


class PowerCutError(BaseException):
    """The world ends here."""


class Watched(Device):
    """Keeps what it says by CMP. The power fails once, at a message of the kind ``cut``: before it leaves
    or after its answer came."""

    cut: tuple[Body, bool] | None = None

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.said: list[Message] = []

    @property
    def environment(self) -> Environment:
        def on_request(request: HttpRequest) -> None:
            if request.target == "/.well-known/cmp":
                self.said.append(parse(request.body))
                self._fail(request, before=True)
            self._latest = request

        def on_response(_: HttpResponse) -> None:
            if self._latest.target == "/.well-known/cmp":
                self._fail(self._latest, before=False)

        transport = InProcessTransport(
            self.site, self.servers, on_request=on_request, on_response=on_response
        )
        return replace(super().environment, transport=transport)

    def _fail(self, request: HttpRequest, *, before: bool) -> None:
        if self.cut == (parse(request.body).kind, before):
            self.cut = None
            raise PowerCutError

    @property
    def transactions(self) -> set[bytes]:
        return {m.header.transaction for m in self.said if m.kind is not Body.GENM}


def leaf(device: Device) -> x509.Certificate:
    return x509.load_der_x509_certificate(device.identity.credential.chain[0])


def test_a_first_boot_by_brski_and_cmp(tmp_path: Path) -> None:
    """RFC 9733: the voucher as ever, the certificate by CMP signed with the IDevID, and its telemetry."""
    device = Device(tmp_path, identities=CMP)
    device.live_until_active()
    assert device.targets() == [
        "/.well-known/brski/requestvoucher",
        "/.well-known/brski/voucher_status",
        "/.well-known/cmp",  # genm caCerts
        "/.well-known/cmp",  # genm certReqTemplate
        "/.well-known/cmp",  # ir
        "/.well-known/cmp",  # certConf
        "/.well-known/brski/enrollstatus",
    ]
    assert [r.status for r in device.world.reports] == [True, True]
    assert leaf(device) == device.world.issued[-1].certificate
    assert device.world.issued[-1].operation == "cmp-ir"
    anchors = device.record.domain.anchors
    assert [a.provenance for a in anchors] == [Provenance.CACERTS]


def test_a_renewal_by_cmp_is_signed_by_the_present_certificate(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=CMP)
    device.live_until_active()
    first = leaf(device)
    device.step(renew=["ldevid"])
    assert device.world.issued[-1].operation == "cmp-kur"
    assert leaf(device) == device.world.issued[-1].certificate != first
    assert device.identity.transaction.state is TransactionState.NONE


def test_plain_http_will_do_because_messages_protect_themselves(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=PLAIN)
    device.servers["registrar.example", 8080] = "plain"
    device.live_until_active()
    assert device.world.issued[-1].operation == "cmp-ir"


def test_a_shared_secret_stands_in_for_the_idevid(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("nine bean rows\n")
    secret.chmod(0o600)
    settings = f"{{reference: gateway-7, secret-file: {secret}, mac: pbmac1}}"
    device = Device(tmp_path, identities=f"  - name: ldevid\n    protocols: [{{cmp: {settings}}}]\n")
    device.world.cmp = CmpPolicy(secrets={"gateway-7": b"nine bean rows"})
    device.live_until_active()
    assert device.world.issued[-1].client == "secret gateway-7"
    device.step(renew=["ldevid"])
    assert device.world.issued[-1].operation == "cmp-kur"
    kept = [f.read_bytes() for f in (tmp_path / "state").rglob("*") if f.is_file()]
    assert kept
    assert not [data for data in kept if b"nine bean rows" in data]


def test_the_wishes_of_the_ca_decide_about_the_key(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=CMP)
    device.world.cmp = CmpPolicy(template=CsrTemplate(key=KeyAlgorithm.P384))
    device.live_until_active()
    assert leaf(device).public_key().key_size == 384  # type: ignore[union-attr]


def test_a_server_without_support_messages_is_no_obstacle(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=CMP, faults=["cmp-genm:refuse"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "cmp-ir"
    quiet = Device(
        tmp_path / "quiet", identities="  - name: ldevid\n    protocols: [{cmp: {support-messages: false}}]\n"
    )
    quiet.live_until_active()
    assert quiet.targets().count("/.well-known/cmp") == 2


# --- the ladder -----------------------------------------------------------------------------------------


def test_the_ladder_goes_down_to_cmp_where_there_is_no_est(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=LADDER, faults=["cacerts:status:code=404"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "cmp-ir"


def test_the_ladder_goes_up_again_to_est(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=LADDER, faults=["cacerts:status:1:code=501"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "cmp-ir"
    device.step(renew=["ldevid"])
    assert device.world.issued[-1].operation == "simplereenroll"


def test_a_lie_is_no_reason_to_go_down(tmp_path: Path) -> None:
    reverse = "  - name: ldevid\n    protocols: [{cmp: {}}, {est: {}}]\n"
    device = Device(tmp_path, identities=reverse, faults=["cmp:foreign-signer"])
    for _ in range(4):
        report = device.step()
        device.clock.now = max(device.clock.now, report.due)
    assert device.identity.credential.state is CredentialState.NONE
    assert not [t for t in device.targets() if "/est/" in t]
    assert device.identity.schedule.trouble is not None
    assert device.identity.schedule.trouble.code == "chain.untrusted"


def test_an_unprotected_error_is_no_reason_to_go_down(tmp_path: Path) -> None:
    reverse = "  - name: ldevid\n    protocols: [{cmp: {}}, {est: {}}]\n"
    device = Device(tmp_path, identities=reverse, faults=["cmp-ir:unprotected-error:1"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "cmp-ir"


def test_where_there_is_no_cmp_the_ladder_goes_down_to_est(tmp_path: Path) -> None:
    """How a pledge discovers support: by trying the well-known path (RFC 9733 §4.2.2)."""
    reverse = "  - name: ldevid\n    protocols: [{cmp: {}}, {est: {}}]\n"
    device = Device(tmp_path, identities=reverse, faults=["cmp:status:code=404"])
    device.live_until_active()
    assert device.world.issued[-1].operation == "simpleenroll"


# --- patience and power cuts --------------------------------------------------------------------------------


def test_a_device_polls_with_one_transaction_over_many_steps(tmp_path: Path) -> None:
    device = Watched(tmp_path, identities=CMP)
    device.world.cmp = CmpPolicy(polls=3, check_after=3600)
    device.live_until_active(steps=20)
    assert [m.kind for m in device.said].count(Body.POLL_REQ) == 4
    assert len(device.transactions) == 1


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("kind", [Body.IR, Body.CERT_CONF, Body.POLL_REQ])
def test_a_power_cut_at_any_message_ends_in_one_certificate_that_is_confirmed(
    tmp_path: Path, kind: Body, *, before: bool
) -> None:
    device = Watched(tmp_path, identities=CMP)
    device.world.cmp = CmpPolicy(polls=int(kind is Body.POLL_REQ))
    device.cut = kind, before
    with pytest.raises(PowerCutError):
        device.step()
    key = device.identity.transaction.key
    device.live_until_active()
    assert device.identity.credential.key == key
    assert leaf(device) == device.world.issued[-1].certificate
    assert [c.confirmed for c in device.world.cmp_desk.conversations.values()].count(True) == 1
    # Only where the answer to the ir itself was lost is there no way back into its transaction.
    assert len(device.transactions) == (2 if kind is Body.IR and not before else 1)


def test_a_certificate_that_nobody_confirmed_in_time_is_asked_for_anew(tmp_path: Path) -> None:
    """The server forgot the transaction while we were without power."""
    device = Watched(tmp_path, identities=CMP)
    device.cut = Body.CERT_CONF, True
    with pytest.raises(PowerCutError):
        device.step()
    assert device.identity.transaction.state is TransactionState.PENDING
    device.world.cmp_desk.conversations.clear()
    device.pass_time(timedelta(days=1))
    device.live_until_active()
    assert leaf(device) == device.world.issued[-1].certificate
    assert len(device.world.issued) == 2


def test_every_anchor_is_kept_with_its_provenance_after_a_rollover(tmp_path: Path) -> None:
    device = Device(tmp_path, identities=CMP)
    device.live_until_active()
    old = device.world.domain.root.certificate.public_bytes(Encoding.DER)
    device.world.roll_over()
    device.step(renew=["ldevid"])
    new = device.world.domain.root.certificate.public_bytes(Encoding.DER)
    assert {a.certificate for a in device.record.domain.anchors} == {old, new}
