"""The maker's cloud registrar (draft-ietf-anima-brski-cloud-16): redirects in a row, vouchers that name an
EST server, and what each lie on the way comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from secrets import token_bytes

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from holdfast.life.record import DomainState, Provenance
from holdfast.life.search import Source
from holdfast.wire.discovery.announced import Announced, Role
from holdfast.worker.bootstrap import MOST_REDIRECTS
from holdfast_sim.cloud import Cloud
from holdfast_sim.faults import Fault
from holdfast_sim.site import Site
from holdfast_sim.world import VoucherPolicy, World
from lifecycle.cuts import power_cuts
from lifecycle.device import REGISTRAR, SECOND, T0, Device
from lifecycle.test_found import Finder

MAKER = "maker.example"
EST = "est.owner.example"
RESELLERS = tuple(f"reseller-{n}.example" for n in range(MOST_REDIRECTS + 2))
KNOWN = (Source.CLOUD, Announced(MAKER, 443, Role.CLOUD, "cloud"))


class Sold(Finder):
    """A device that knows its maker's cloud alone. EST is the owner's server at est.owner.example."""

    def __init__(
        self,
        directory: Path,
        cloud: Cloud,
        *faults: str,
        names: Sequence[str] = (MAKER, *RESELLERS, EST),
        pin: VoucherPolicy | None = None,
    ) -> None:
        world = World.create(lambda: T0, token_bytes, names=names, vouchers=pin)
        super().__init__(Device(directory, world=world), KNOWN)
        self.device.site = Site(world, [Fault.parse(f) for f in faults], cloud=cloud)
        self.device.servers = {
            ("registrar.example", 8443): "registrar",
            (EST, 443): "registrar",
            (MAKER, 443): "cloud",
            **{(host, 443): "cloud" for host in RESELLERS},
            ("stranger.example", 443): "cloud",
        }
        file = directory / "cloud.pem"
        file.write_bytes(world.masa_tls.chain[-1].public_bytes(Encoding.PEM))
        maker = replace(self.device.settings.manufacturer, cloud_registrar=f"{MAKER}:443", cloud_anchors=file)
        self.device.settings = replace(self.device.settings, manufacturer=maker)

    def refusal(self) -> str:
        """The code by which the only step was refused, with nothing enrolled."""
        self.step()
        assert not self.device.active
        assert self.device.world.issued == []
        assert (
            self.device.record.domain.state is not DomainState.VOUCHED
            or not self.device.record.search.refusals
        )
        (refusal,) = self.device.record.search.refusals
        assert refusal.endpoint == f"{MAKER}:443"
        return refusal.code


def chain_of(*hosts: str, last: str) -> Cloud:
    urls = [*(f"https://{host}/" for host in hosts[1:]), last]
    return Cloud(dict(zip(hosts, urls, strict=True)))


def asked(device: Device) -> list[str]:
    return [entry.target.rpartition("/")[2] for entry in device.site.transcript if entry.server == "cloud"]


def test_resellers_in_a_row_lead_to_the_owner(tmp_path: Path) -> None:
    sold = Sold(tmp_path, chain_of(MAKER, *RESELLERS[:3], last=f"https://{REGISTRAR}/"))
    sold.step()
    assert sold.device.active
    assert sold.device.record.domain.registrar == REGISTRAR
    assert asked(sold.device) == ["requestvoucher"] * 4


def test_each_redirect_is_followed_with_a_new_nonce(tmp_path: Path) -> None:
    sold = Sold(tmp_path, chain_of(MAKER, RESELLERS[0], last=f"https://{REGISTRAR}/"))
    sold.step()
    said = [e.request_body for e in sold.device.site.transcript if e.target.endswith("/requestvoucher")]
    cloud = [body for body in said if body]
    assert len(set(cloud)) == len(cloud) == 3


@pytest.mark.parametrize(
    ("cloud", "code"),
    [
        (chain_of(MAKER, RESELLERS[0], last=f"https://{MAKER}/"), "brski.redirect-loop"),
        (chain_of(MAKER, RESELLERS[0], RESELLERS[1], last=f"https://{RESELLERS[0]}/"), "brski.redirect-loop"),
        (chain_of(MAKER, *RESELLERS[:-1], last=f"https://{REGISTRAR}/"), "brski.redirect-limit"),
        (chain_of(MAKER, "stranger.example", last=f"https://{REGISTRAR}/"), "brski.redirect-unvalidated"),
        (chain_of(MAKER, last=f"http://{REGISTRAR}/"), "network.captive-portal"),
        (chain_of(MAKER, last=f"ftp://{REGISTRAR}/"), "http.location"),
        (chain_of(MAKER, last=f"https://user@{REGISTRAR}/"), "http.location"),
        (chain_of(MAKER, last=""), "registrar.unauthorized"),
    ],
)
def test_a_way_that_leads_nowhere_is_refused(tmp_path: Path, cloud: Cloud, code: str) -> None:
    assert Sold(tmp_path, cloud).refusal() == code


@pytest.mark.parametrize("status", [301, 302, 308])
def test_a_cloud_sends_the_device_on_with_307_alone(tmp_path: Path, status: int) -> None:
    fault = f"requestvoucher:redirect:1:to=https://{REGISTRAR}/:code={status}"
    assert Sold(tmp_path, Cloud(), fault).refusal() == "brski.redirect-status"


def test_303_is_no_way_for_a_post(tmp_path: Path) -> None:
    fault = f"requestvoucher:redirect:1:to=https://{REGISTRAR}/:code=303"
    assert Sold(tmp_path, Cloud(), fault).refusal() == "voucher.status"


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_registrar_that_is_no_cloud_may_use_each_of_them_once(tmp_path: Path, status: int) -> None:
    """RFC 8995 §5.6 speaks of 3xx. The request is sent again as it was, with a nonce of its own."""
    device = Device(tmp_path, faults=[f"requestvoucher:redirect:1:to=https://{SECOND}/:code={status}"])
    device.servers["second.example", 8443] = "registrar"
    device.step()
    assert device.record.domain.registrar == SECOND
    posted = [e for e in device.site.transcript if e.target.endswith("/requestvoucher")]
    assert [e.method for e in posted] == ["POST", "POST"]
    assert posted[0].request_body != posted[1].request_body


# --- power cuts ----------------------------------------------------------------------------------------


def test_power_cuts_on_the_way_through_the_clouds(tmp_path: Path) -> None:
    """Around each commit and each request: the next steps end at the owner's registrar, and no cloud on the
    way is taken for a loop because it was met before the cut."""
    way = chain_of(MAKER, *RESELLERS[:2], last=f"https://{REGISTRAR}/")
    for cut in power_cuts():
        sold = Sold(tmp_path / str(cut.point), way)
        with cut.awaited():
            sold.step()
        if cut.happened:
            sold.step()
        assert sold.device.active, cut.point
        assert sold.device.record.domain.registrar == REGISTRAR, cut.point
        assert sold.device.record.search.refusals == (), cut.point
    assert cut.point > 15
    assert not cut.happened


def test_the_owners_registrar_may_not_send_the_device_on(tmp_path: Path) -> None:
    """It was met provisionally: nobody has vouched for it yet."""
    fault = "requestvoucher:redirect:0:to=https://reseller-0.example/:code=307:after=1"
    sold = Sold(tmp_path, chain_of(MAKER, last=f"https://{REGISTRAR}/"), fault)
    assert sold.refusal() == "brski.redirect-unvalidated"


# --- a voucher that names an EST server ----------------------------------------------------------------


@pytest.mark.parametrize("said", [EST, f"https://{EST}", f"https://{EST}:443/"])
def test_a_voucher_leads_to_the_owners_est_server(tmp_path: Path, said: str) -> None:
    sold = Sold(tmp_path, Cloud(est_domain=said))
    sold.step()
    record = sold.device.record
    assert sold.device.active
    assert (record.domain.registrar, record.domain.est_domain) == (f"{EST}:443", True)
    assert asked(sold.device) == ["requestvoucher", "voucher_status"]
    est = [e.target for e in sold.device.site.transcript if e.server == "registrar"]
    assert any(target.endswith("simpleenroll") for target in est)
    assert not any(target.endswith("requestvoucher") for target in est)


def test_resellers_may_vouch_too(tmp_path: Path) -> None:
    cloud = replace(chain_of(MAKER, last=f"https://{RESELLERS[0]}/"), est_domain=EST)
    sold = Sold(tmp_path, cloud)
    sold.step()
    assert sold.device.active
    assert sold.device.record.domain.registrar == f"{EST}:443"


def test_the_very_certificate_of_the_est_server_needs_no_name(tmp_path: Path) -> None:
    """An address in the place of a name can only be met so."""
    sold = Sold(tmp_path, Cloud(est_domain="192.0.2.7"), names=(MAKER,), pin=VoucherPolicy("registrar"))
    sold.device.servers["192.0.2.7", 443] = "registrar"
    sold.step()
    assert sold.device.active
    assert sold.device.record.domain.registrar == "192.0.2.7:443"


def test_an_est_server_under_a_pinned_ca_must_have_the_name_that_the_voucher_says(tmp_path: Path) -> None:
    sold = Sold(tmp_path, Cloud(est_domain=EST), names=(MAKER,))
    sold.step()
    assert not sold.device.active
    assert sold.device.world.issued == []
    trouble = sold.device.identity.schedule.trouble
    assert trouble is not None
    assert trouble.code == "chain.name"
    assert not any(e.server == "registrar" for e in sold.device.site.transcript)


def test_an_est_server_of_another_domain_gets_nothing(tmp_path: Path) -> None:
    sold = Sold(tmp_path, Cloud(est_domain=EST), "requestvoucher:wrong-pin")
    sold.step()
    assert not sold.device.active
    assert sold.device.world.issued == []
    assert not any(e.server == "registrar" for e in sold.device.site.transcript)


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        ("requestvoucher:no-est-domain", "voucher.registrar-chain"),
        ("requestvoucher:est-domain:0:value=http://est.owner.example/", "voucher.est-domain"),
        ("requestvoucher:est-domain:0:value=", "voucher.est-domain"),
        ("requestvoucher:est-domain:0:value=https://user@est.owner.example/", "voucher.est-domain"),
        ("requestvoucher:est-domain:0:value=https://est.owner.example/path", "voucher.est-domain"),
        ("requestvoucher:est-domain:0:value=est.owner.example:99999", "voucher.est-domain"),
        ("requestvoucher:foreign-signer", "voucher.signer-chain"),
        ("requestvoucher:wrong-nonce", "voucher.nonce"),
        ("requestvoucher:wrong-serial", "voucher.serial-number"),
        ("requestvoucher:tampered", "voucher.signature"),
        ("requestvoucher:no-pin", "voucher.pinned-domain-cert"),
    ],
)
def test_a_false_voucher_of_the_cloud_is_refused(tmp_path: Path, fault: str, code: str) -> None:
    assert Sold(tmp_path, Cloud(est_domain=EST), fault).refusal() == code


def test_an_owners_registrar_cannot_send_the_device_to_another_est_server(tmp_path: Path) -> None:
    """Its voucher pins the registrar itself, and there the device enrolls."""
    fault = "requestvoucher:est-domain:0:value=est.owner.example"
    sold = Sold(tmp_path, chain_of(MAKER, last=f"https://{REGISTRAR}/"), fault)
    sold.step()
    record = sold.device.record
    assert sold.device.active
    assert (record.domain.registrar, record.domain.est_domain) == (REGISTRAR, False)
    assert record.domain.anchors[0].provenance is not Provenance.CONFIGURED


def test_a_voucher_of_an_unknown_reseller_is_held_to_his_own_chain(
    tmp_path: Path,
) -> None:
    cloud = replace(chain_of(MAKER, last="https://stranger.example/"), est_domain=EST)
    assert Sold(tmp_path, cloud).refusal() == "voucher.registrar-chain"
