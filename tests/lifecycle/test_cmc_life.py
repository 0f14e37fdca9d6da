"""A whole device that enrolls by CMC: over EST, plain HTTP, by a secret, waiting, confirming, power cuts."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from holdfast.life.record import CredentialState, TransactionState
from holdfast.wire import cms
from holdfast.wire.cmc import vocabulary as words
from holdfast.wire.cmc.messages import read_data
from holdfast_sim.cmc_desk import CmcPolicy
from holdfast_sim.site import Server, Site
from lifecycle.cuts import PowerCut, cut_after
from lifecycle.device import Device

PLAIN = "http://registrar.example:8080/cmc"
SECRET = b"sixteen bean rows"


def ladder(text: str) -> str:
    return f"  - name: ldevid\n    protocols: [{text}]\n"


class Gateway(Device):
    """A device whose rung is CMC, over the registrar's EST unless *text* says otherwise."""

    def __init__(self, directory: Path, text: str = "{cmc: {}}", **options: Any) -> None:
        policy = options.pop("policy", CmcPolicy())
        super().__init__(directory, identities=ladder(text), **options)
        self.servers["registrar.example", 8080] = "plain"
        self.world.cmc = policy

    @property
    def leaf(self) -> x509.Certificate:
        return x509.load_der_x509_certificate(self.identity.credential.chain[0])


def test_first_boot_and_renewal_over_est(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path)
    gateway.live_until_active()
    assert gateway.targets().count("/.well-known/est/fullcmc") == 1
    first = gateway.leaf
    assert [r.operation for r in gateway.world.issued] == ["cmc"]
    gateway.step(renew=["ldevid"])
    assert gateway.leaf == gateway.world.issued[-1].certificate != first
    assert gateway.identity.transaction.state is TransactionState.NONE


def test_plain_http_will_do_because_messages_protect_themselves(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, f"{{cmc: {{url: '{PLAIN}', request: crmf}}}}")
    gateway.live_until_active()
    gateway.step(renew=["ldevid"])
    assert [r.operation for r in gateway.world.issued] == ["cmc", "cmc"]


def test_a_shared_secret_stands_in_for_the_idevid_and_is_kept_nowhere(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    secret.chmod(0o600)
    text = f"{{cmc: {{url: '{PLAIN}', identification: gateway-7, secret-file: {secret}}}}}"
    gateway = Gateway(tmp_path / "device", text, policy=CmcPolicy(secrets={"gateway-7": SECRET}))
    gateway.live_until_active()
    assert gateway.world.issued[-1].client == "secret gateway-7"
    gateway.step(renew=["ldevid"])
    assert "gateway-7" not in gateway.world.issued[-1].client, "a renewal needs no secret"
    kept = [f.read_bytes() for f in (tmp_path / "device" / "state").rglob("*") if f.is_file()]
    assert kept
    assert not [data for data in kept if SECRET in data]


def test_waiting_survives_from_step_to_step(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, policy=CmcPolicy(polls=3, check_after=3600))
    gateway.step()
    assert gateway.identity.transaction.state is TransactionState.PENDING
    began = gateway.clock.now
    gateway.live_until_active(steps=20)
    assert gateway.clock.now - began >= timedelta(hours=3)
    assert len(gateway.world.cmc_desk.transactions) == 1
    assert len(gateway.world.issued) == 1


def test_a_certificate_to_be_confirmed(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, policy=CmcPolicy(confirm=True))
    gateway.live_until_active()
    (transaction,) = gateway.world.cmc_desk.transactions.values()
    assert transaction.confirmed


# --- the ladder -----------------------------------------------------------------------------------------


def test_where_there_is_no_cmc_the_ladder_goes_down(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, "{cmc: {}}, {est: {}}", faults=["cmc:status:code=501"])
    gateway.live_until_active()
    assert gateway.world.issued[-1].operation == "simpleenroll"


def test_what_is_not_supported_is_a_reason_to_go_down(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, "{cmc: {}}, {est: {}}", faults=["cmc-enroll:no-support"])
    gateway.live_until_active()
    assert gateway.world.issued[-1].operation == "simpleenroll"


def test_the_ladder_goes_down_to_cmc_and_up_again(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, "{est: {}}, {cmc: {}}", faults=["cacerts:status:1:code=501"])
    gateway.live_until_active()
    assert gateway.world.issued[-1].operation == "cmc"
    gateway.step(renew=["ldevid"])
    assert gateway.world.issued[-1].operation == "simplereenroll"


@pytest.mark.parametrize("fault", ["foreign-signer", "unsigned", "wrong-nonce"])
def test_a_lie_is_no_reason_to_go_down(tmp_path: Path, fault: str) -> None:
    gateway = Gateway(tmp_path, "{cmc: {}}, {est: {}}", faults=[f"cmc:{fault}"])
    for _ in range(4):
        report = gateway.step()
        gateway.clock.now = max(gateway.clock.now, report.due)
    assert gateway.identity.credential.state is CredentialState.NONE
    assert not [t for t in gateway.targets() if t.endswith("enroll")]


# --- power cuts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [CmcPolicy(), CmcPolicy(polls=1), CmcPolicy(confirm=True)])
def test_a_power_cut_at_any_point_of_a_first_boot(tmp_path: Path, policy: CmcPolicy) -> None:
    """Before and after every commit and every message: the same transaction goes on, and issues once."""
    cuts = 0
    for point in range(200):
        gateway = Gateway(tmp_path / str(point), f"{{cmc: {{url: '{PLAIN}'}}}}", policy=policy)
        with pytest.MonkeyPatch.context() as patch:
            cut_after(patch, [point])
            try:
                gateway.live_until_active(steps=20)
            except PowerCut:
                cuts += 1
            else:
                break
        gateway.live_until_active(steps=20)
        assert len(gateway.world.issued) == 1, point
        (transaction,) = gateway.world.cmc_desk.transactions.values()
        assert transaction.confirmed == policy.confirm, point
        assert gateway.keys.refs() == {gateway.identity.credential.key}, point
    assert cuts > 20


def test_the_renewal_is_signed_by_what_it_renews(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, f"{{cmc: {{url: '{PLAIN}'}}}}")
    gateway.live_until_active()
    before = gateway.leaf
    said: list[bytes] = []
    answer = Site.answer

    def listen(site: Site, server: Server, request: Any, peer: Any) -> Any:
        if request.target == "/cmc":
            said.append(request.body)
        return answer(site, server, request, peer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Site, "answer", listen)
        gateway.step(renew=["ldevid"])
    opened = cms.open_signed(said[0])
    assert opened.signer == before
    assert read_data(opened.content).control(words.TRANSACTION_ID) is not None


CACERTS = "/.well-known/est/cacerts"
BY_PLAIN_HTTP = f"{{cmc: {{url: '{PLAIN}'}}}}"


def anchors(gateway: Gateway) -> int:
    return len(gateway.record.domain.anchors)


def test_whom_est_does_not_enroll_asks_it_for_ca_certificates_after_the_voucher(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, BY_PLAIN_HTTP)
    gateway.live_until_active()
    targets = gateway.targets()
    assert targets.count(CACERTS) == 1
    assert targets.index("/.well-known/brski/requestvoucher") < targets.index(CACERTS)
    assert [r.operation for r in gateway.world.issued] == ["cmc"]


@pytest.mark.parametrize("fault", ["cacerts:status:code=404", "cacerts:garbage", "cacerts:drop-before"])
def test_no_useful_answer_from_est_holds_up_nobody(tmp_path: Path, fault: str) -> None:
    gateway = Gateway(tmp_path, BY_PLAIN_HTTP, faults=[fault])
    gateway.live_until_active()
    assert gateway.targets().count(CACERTS) == 1
    assert anchors(gateway) == 1


def test_a_new_root_that_cmc_does_not_tell_of_is_heard_from_est(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, BY_PLAIN_HTTP)
    gateway.live_until_active()
    gateway.world.roll_over()
    gateway.step(renew=["ldevid"])
    assert gateway.leaf.issuer == gateway.world.domain.issuing.certificate.subject
    assert gateway.identity.transaction.state is TransactionState.NONE
    assert anchors(gateway) == 2


@pytest.mark.parametrize("fault", ["cacerts:garbage", "cacerts:drop-before"])
def test_a_new_root_of_which_nobody_tells_stays_unknown(tmp_path: Path, fault: str) -> None:
    gateway = Gateway(tmp_path, BY_PLAIN_HTTP, faults=[fault])
    gateway.live_until_active()
    first = gateway.leaf
    gateway.world.roll_over()
    gateway.step(renew=["ldevid"])
    assert gateway.leaf == first
    assert gateway.identity.schedule.trouble is not None
    assert gateway.identity.schedule.trouble.code == "chain.untrusted"
    assert anchors(gateway) == 1
