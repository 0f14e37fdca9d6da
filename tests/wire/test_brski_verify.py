"""The voucher checklist: in each test the MASA or the registrar breaks one item, and nothing is trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from asn1crypto import cms as asn1_cms
from cryptography import x509

from holdfast.wire import oids
from holdfast.wire.algorithms import spki
from holdfast.wire.brski.client import Attempt
from holdfast.wire.brski.messages import Voucher, aki
from holdfast.wire.brski.verify import CLOCK_SKEW, VOUCHER_LIMIT, Vouched, VoucherTrust, verify_voucher
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, Moment, TlsInfo
from wire.brski_parties import NOW, REGISTRAR_USAGES, SERIAL, TRUSTED, UNKNOWN, Parties, issue

DAY = timedelta(days=1)
FLOOR_ONLY = replace(TRUSTED, state=ClockState.FLOOR_ONLY)
ALL_CLOCKS = pytest.mark.parametrize(
    "now", [TRUSTED, FLOOR_ONLY, UNKNOWN], ids=["trusted", "floor", "unknown"]
)


@pytest.fixture(scope="module")
def world() -> Parties:
    return Parties()


def judge(
    world: Parties,
    voucher: bytes | Callable[[Attempt], Any],
    *,
    now: Moment = TRUSTED,
    trust: VoucherTrust | None = None,
    tls: TlsInfo | None = None,
) -> Vouched:
    attempt = world.attempt(now)
    said = voucher if isinstance(voucher, bytes) else voucher(attempt)
    return verify_voucher(
        world.sign(said) if isinstance(said, Voucher) else said,
        nonce=attempt.nonce,
        trust=trust or world.trust,
        peer_chain=(tls or world.tls).peer_chain,
        now=now,
    )


def refusal(*args: Any, **kwargs: Any) -> HoldfastError:
    with pytest.raises((TrustError, RemoteProtocolError)) as caught:
        judge(*args, **kwargs)
    return caught.value


@ALL_CLOCKS
def test_an_honest_voucher_makes_the_domain_known(world: Parties, now: Moment) -> None:
    vouched = judge(world, world.voucher, now=now)
    assert vouched.pinned == world.domain.certificate
    assert vouched.registrar_chain[0] == world.registrar.certificate
    assert vouched.registrar_chain[-1] == world.domain.certificate
    assert vouched.created_on == NOW


# --- 1, 2: the CMS, its signature, its signer ----------------------------------------------------------


@pytest.mark.parametrize("garbage", [b"", b"\x30", b"{}", b"\x30\x80" * 50, b"\x00" * 1000])
def test_no_cms(world: Parties, garbage: bytes) -> None:
    assert refusal(world, garbage).code == "voucher.cms"


def test_too_large_a_cms(world: Parties) -> None:
    assert refusal(world, b"\x30" * (VOUCHER_LIMIT + 1)).code == "voucher.cms"


def test_changed_content(world: Parties) -> None:
    error = refusal(world, lambda a: world.sign(world.voucher(a)).replace(SERIAL.encode(), b"HF-0099"))
    assert (type(error), error.code) == (TrustError, "voucher.signature")


def test_no_signed_attributes(world: Parties) -> None:
    def stripped(attempt: Attempt) -> bytes:
        whole = asn1_cms.ContentInfo.load(world.sign(world.voucher(attempt)))
        info = whole["content"]["signer_infos"][0]
        made = asn1_cms.SignerInfo(
            {name: info[name] for name in ("version", "sid", "digest_algorithm", "signature_algorithm")}
            | {"signature": b"\x30\x06\x02\x01\x01\x02\x01\x01"}
        )
        whole["content"]["signer_infos"] = [made]
        encoded: bytes = whole.dump(force=True)
        return encoded

    error = refusal(world, stripped)
    assert error.code == "voucher.cms"
    assert "cms.attributes" in error.detail


def test_another_content_type(world: Parties) -> None:
    error = refusal(world, lambda a: world.sign(world.voucher(a), content_type="1.2.840.113549.1.9.16.1.4"))
    assert error.code == "voucher.content-type"


def test_id_data_is_accepted_as_early_masas_send_it(world: Parties) -> None:
    vouched = judge(world, lambda a: world.sign(world.voucher(a), content_type=oids.CT_DATA))
    assert vouched.pinned == world.domain.certificate


def test_a_signer_of_another_maker(world: Parties) -> None:
    other = issue("Maker MASA", world.stranger_ca)
    error = refusal(
        world, lambda a: world.sign(world.voucher(a), other, chain=(world.stranger_ca.certificate,))
    )
    assert (type(error), error.code) == (TrustError, "voucher.signer-chain")


def test_a_signer_issued_by_a_namesake_of_the_makers_authority(world: Parties) -> None:
    namesake = issue("Maker CA", ca=True)
    error = refusal(world, lambda a: world.sign(world.voucher(a), issue("Maker MASA", namesake)))
    assert error.code == "voucher.signer-chain"


def test_an_expired_signer_under_a_trusted_clock(world: Parties) -> None:
    expired = issue("Maker MASA", world.vendor, start=NOW - 100 * DAY, end=NOW - DAY)
    error = refusal(world, lambda a: world.sign(world.voucher(a), expired))
    assert error.code == "voucher.signer-chain"
    assert "expired" in error.detail
    assert judge(world, lambda a: world.sign(world.voucher(a), expired), now=UNKNOWN)


def test_a_masa_below_an_intermediate_that_is_embedded(world: Parties) -> None:
    line = issue("Maker MASA CA", world.vendor, ca=True)
    masa = issue("Maker MASA", line)
    assert judge(world, lambda a: world.sign(world.voucher(a), masa, chain=(line.certificate,)))
    assert refusal(world, lambda a: world.sign(world.voucher(a), masa)).code == "voucher.signer-chain"


def test_a_signer_that_is_not_pinned(world: Parties) -> None:
    pin = hashlib.sha256(spki(world.masa.certificate)).digest()
    pinning = replace(world.trust, signer_pins=frozenset({pin}))
    assert judge(world, world.voucher, trust=pinning)
    colleague = issue("Maker Support", world.vendor)
    error = refusal(world, lambda a: world.sign(world.voucher(a), colleague), trust=pinning)
    assert (type(error), error.code) == (TrustError, "voucher.signer-pin")


def test_a_sister_device_signs_a_voucher(world: Parties) -> None:
    error = refusal(world, lambda a: world.sign(world.voucher(a), world.sister))
    assert (type(error), error.code) == (TrustError, "voucher.signer-is-device")


def test_signed_content_that_is_no_voucher(world: Parties) -> None:
    assert refusal(world, lambda a: world.sign(b"[]")).code == "voucher.json"
    assert (
        refusal(world, lambda a: world.sign(b'{"ietf-voucher-request:voucher":{}}')).code == "voucher.wrapper"
    )


# --- 3 to 5: for us, now, from our issuer ---------------------------------------------------------------


@pytest.mark.parametrize("serial", ["HF-0043", "hf-0042", "HF-0042 ", "HF-0042\x00"])
def test_another_serial_number(world: Parties, serial: str) -> None:
    error = refusal(world, lambda a: world.voucher(a, serial_number=serial))
    assert (type(error), error.code) == (TrustError, "voucher.serial-number")


@ALL_CLOCKS
def test_another_nonce(world: Parties, now: Moment) -> None:
    error = refusal(world, lambda a: world.voucher(a, nonce="AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), now=now)
    assert (type(error), error.code) == (TrustError, "voucher.nonce")


def test_the_same_octets_written_otherwise_are_another_nonce(world: Parties) -> None:
    assert refusal(world, lambda a: world.voucher(a, nonce=a.nonce + "====")).code == "voucher.nonce"


def nonceless(world: Parties, expires: datetime = NOW + DAY) -> Callable[[Attempt], Voucher]:
    return lambda attempt: world.voucher(attempt, nonce=None, expires_on=expires)


@ALL_CLOCKS
def test_nonceless_without_policy(world: Parties, now: Moment) -> None:
    error = refusal(world, nonceless(world), now=now)
    assert (type(error), error.code) == (TrustError, "voucher.nonceless")


def test_nonceless_by_policy_needs_a_trusted_clock(world: Parties) -> None:
    lenient = replace(world.trust, allow_nonceless=True)
    assert judge(world, nonceless(world), trust=lenient)
    for now in (UNKNOWN, FLOOR_ONLY):
        assert refusal(world, nonceless(world), trust=lenient, now=now).code == "voucher.nonceless-clock"
        reckless = replace(lenient, allow_nonceless_without_clock=True)
        assert judge(world, nonceless(world), trust=reckless, now=now)


def test_neither_nonce_nor_expiry(world: Parties) -> None:
    lenient = replace(world.trust, allow_nonceless=True)
    error = refusal(world, lambda a: world.voucher(a, nonce=None), trust=lenient)
    assert error.code == "voucher.freshness"


def test_both_nonce_and_expiry(world: Parties) -> None:
    assert refusal(world, lambda a: world.voucher(a, expires_on=NOW + DAY)).code == "voucher.freshness"


def test_another_idevid_issuer(world: Parties) -> None:
    other = aki(issue("d", world.stranger_ca).certificate)
    error = refusal(world, lambda a: world.voucher(a, idevid_issuer=other))
    assert (type(error), error.code) == (TrustError, "voucher.idevid-issuer")
    assert judge(world, lambda a: world.voucher(a, idevid_issuer=world.trust.aki))


def test_every_reading_of_rfc_8366_on_the_idevid_issuer(world: Parties) -> None:
    value = world.trust.aki
    assert value is not None
    assert value[:4] == b"\x30\x16\x80\x14"
    for form in (value, b"\x04\x18" + value, value[4:]):
        assert judge(world, lambda a, form=form: world.voucher(a, idevid_issuer=form))
    for other in (value[:-1], value[2:], b"\x04\x18" + value[:-1], value + b"\x00", b"\x00" * 20):
        error = refusal(world, lambda a, other=other: world.voucher(a, idevid_issuer=other))
        assert error.code == "voucher.idevid-issuer"


def test_an_empty_authority_key_identifier_is_no_wildcard(world: Parties) -> None:
    vague = replace(world.trust, aki=b"\x30\x00")
    error = refusal(world, lambda a: world.voucher(a, idevid_issuer=world.trust.aki), trust=vague)
    assert error.code == "voucher.idevid-issuer"


def test_an_idevid_issuer_for_a_device_that_knows_none(world: Parties) -> None:
    anonymous = replace(world.trust, aki=None)
    error = refusal(world, lambda a: world.voucher(a, idevid_issuer=world.trust.aki), trust=anonymous)
    assert error.code == "voucher.idevid-issuer"


# --- 6: time ----------------------------------------------------------------------------------------------


def test_an_expired_voucher(world: Parties) -> None:
    lenient = replace(world.trust, allow_nonceless=True)
    error = refusal(world, nonceless(world, NOW - timedelta(seconds=1)), trust=lenient)
    assert (type(error), error.code) == (TrustError, "voucher.expired")


@pytest.mark.parametrize("now", [UNKNOWN, FLOOR_ONLY], ids=["unknown", "floor"])
def test_without_a_trusted_clock_expiry_is_compared_with_the_floor(world: Parties, now: Moment) -> None:
    reckless = replace(world.trust, allow_nonceless=True, allow_nonceless_without_clock=True)
    assert judge(world, nonceless(world, now.floor + DAY), trust=reckless, now=now)
    error = refusal(world, nonceless(world, now.floor - DAY), trust=reckless, now=now)
    assert error.code == "voucher.expired"


def test_a_voucher_from_the_future(world: Parties) -> None:
    ahead = NOW + CLOCK_SKEW
    assert judge(world, lambda a: world.voucher(a, created_on=ahead))
    error = refusal(world, lambda a: world.voucher(a, created_on=ahead + timedelta(seconds=1)))
    assert (type(error), error.code) == (TrustError, "voucher.created-on")
    assert judge(world, lambda a: world.voucher(a, created_on=NOW + 300 * DAY), now=UNKNOWN)


def test_a_signature_from_the_future(world: Parties) -> None:
    def late(attempt: Attempt) -> bytes:
        return world.sign(world.voucher(attempt), signing_time=NOW + DAY)

    assert refusal(world, late).code == "voucher.created-on"
    assert judge(world, late, now=UNKNOWN)


# --- 7 to 9: assertion, pinned certificate, demands -------------------------------------------------------


@pytest.mark.parametrize("assertion", ["agent-proximity", "Proximity", "anything", None])
def test_an_assertion_that_is_not_accepted(world: Parties, assertion: str | None) -> None:
    error = refusal(world, lambda a: world.voucher(a, assertion=assertion))
    assert (type(error), error.code) == (TrustError, "voucher.assertion")


def test_policy_narrows_the_assertions(world: Parties) -> None:
    strict = replace(world.trust, assertions=frozenset({"proximity", "verified"}))
    assert judge(world, world.voucher, trust=strict)
    assert (
        refusal(world, lambda a: world.voucher(a, assertion="logged"), trust=strict).code
        == "voucher.assertion"
    )


def test_a_demand_for_revocation_checks_cannot_be_met(world: Parties) -> None:
    error = refusal(world, lambda a: world.voucher(a, domain_cert_revocation_checks=True))
    assert error.code == "voucher.domain-cert-revocation-checks"
    assert judge(world, lambda a: world.voucher(a, domain_cert_revocation_checks=False))


def test_no_pinned_certificate(world: Parties) -> None:
    error = refusal(world, lambda a: world.voucher(a, pinned_domain_cert=None))
    assert (type(error), error.code) == (TrustError, "voucher.pinned-domain-cert")


@pytest.mark.parametrize("garbage", [b"\x30\x00", b"words", b"\x00" * 20_000])
def test_a_pinned_certificate_that_is_none(world: Parties, garbage: bytes) -> None:
    error = refusal(world, lambda a: world.voucher(a, pinned_domain_cert=garbage))
    assert error.code == "voucher.pinned-domain-cert"


def test_too_large_a_pinned_certificate(world: Parties) -> None:
    padding = tuple(x509.DNSName(f"{number:060}.example") for number in range(260))
    huge = issue("Domain Root", ca=True, san=padding)
    error = refusal(world, lambda a: world.voucher(a, pinned_domain_cert=huge.der))
    assert error.code == "voucher.pinned-domain-cert"
    assert "at most" in error.detail


def test_trailing_octets_after_the_pinned_certificate(world: Parties) -> None:
    error = refusal(world, lambda a: world.voucher(a, pinned_domain_cert=world.domain.der + b"\x00"))
    assert error.code == "voucher.pinned-domain-cert"


# --- 10: the chain of the provisional connection ----------------------------------------------------------


def test_the_pinned_certificate_may_be_root_intermediate_or_the_registrars_own(world: Parties) -> None:
    for pinned in (world.domain, world.ra_ca, world.registrar):
        vouched = judge(world, lambda a, p=pinned: world.voucher(a, pinned_domain_cert=p.der))
        assert vouched.pinned == pinned.certificate
        assert vouched.registrar_chain[0] == world.registrar.certificate


def test_the_pinned_key_counts_not_its_certificate(world: Parties) -> None:
    twin = issue("the same key elsewhere", world.stranger_ca, key=world.registrar.key)
    vouched = judge(world, lambda a: world.voucher(a, pinned_domain_cert=twin.der))
    assert vouched.pinned == twin.certificate
    assert vouched.registrar_chain == (world.registrar.certificate,)


def test_a_registrar_of_another_domain(world: Parties) -> None:
    foreign = world.connection(world.stranger, world.stranger_ca)
    error = refusal(world, world.voucher, tls=foreign)
    assert (type(error), error.code) == (TrustError, "voucher.registrar-chain")


def test_the_registrars_root_in_its_own_chain_is_no_anchor(world: Parties) -> None:
    foreign = world.connection(world.stranger, world.stranger_ca, world.domain)
    assert refusal(world, world.voucher, tls=foreign).code == "voucher.registrar-chain"


def test_a_domain_namesake(world: Parties) -> None:
    namesake = issue("Domain Root", ca=True)
    imposter = issue("registrar.domain.example", namesake, usages=REGISTRAR_USAGES)
    tls = world.connection(imposter, namesake)
    assert refusal(world, world.voucher, tls=tls).code == "voucher.registrar-chain"


def test_a_missing_intermediate(world: Parties) -> None:
    assert (
        refusal(world, world.voucher, tls=world.connection(world.registrar)).code == "voucher.registrar-chain"
    )


def test_another_pinned_certificate(world: Parties) -> None:
    error = refusal(world, lambda a: world.voucher(a, pinned_domain_cert=world.stranger_ca.der))
    assert error.code == "voucher.registrar-chain"


def test_a_leaf_of_the_domain_that_issues_a_registrar(world: Parties) -> None:
    member = issue("a mere device", world.domain)
    imposter = issue("registrar.domain.example", member, usages=REGISTRAR_USAGES)
    tls = world.connection(imposter, member)
    assert refusal(world, world.voucher, tls=tls).code == "voucher.registrar-chain"


def test_an_expired_registrar_under_a_trusted_clock(world: Parties) -> None:
    old = issue("registrar.domain.example", world.ra_ca, usages=REGISTRAR_USAGES, end=NOW - DAY)
    tls = world.connection(old, world.ra_ca)
    error = refusal(world, world.voucher, tls=tls)
    assert error.code == "voucher.registrar-chain"
    assert "expired" in error.detail
    assert judge(world, world.voucher, tls=tls, now=UNKNOWN)


@pytest.mark.parametrize("chain", [(), (b"",), (b"\x30\x00",)])
def test_a_chain_that_is_none(world: Parties, chain: tuple[bytes, ...]) -> None:
    tls = replace(world.tls, peer_chain=chain)
    assert refusal(world, world.voucher, tls=tls).code == "voucher.registrar-chain"


def test_too_long_a_chain(world: Parties) -> None:
    tls = replace(world.tls, peer_chain=world.tls.peer_chain * 6)
    assert refusal(world, world.voucher, tls=tls).code == "voucher.registrar-chain"


# --- order ------------------------------------------------------------------------------------------------


def test_the_first_broken_item_is_the_one_that_is_named(world: Parties) -> None:
    """A voucher wrong in every way: mending item after item brings up the next code in order."""
    trust = replace(world.trust, allow_nonceless=True)
    wrong: dict[str, Any] = {
        "serial_number": "HF-0043",
        "idevid_issuer": b"\x30\x00",
        "created_on": NOW + 9 * DAY,
        "assertion": "none",
        "domain_cert_revocation_checks": True,
        "pinned_domain_cert": b"none",
    }
    mended = iter(wrong)
    seen = [refusal(world, lambda a: world.sign(world.voucher(a, **wrong), world.sister), trust=trust).code]
    left = dict(wrong)
    while left:
        seen.append(refusal(world, lambda a: world.voucher(a, **left), trust=trust).code)
        del left[next(mended)]
    assert seen == [
        "voucher.signer-is-device",
        "voucher.serial-number",
        "voucher.idevid-issuer",
        "voucher.created-on",
        "voucher.assertion",
        "voucher.domain-cert-revocation-checks",
        "voucher.pinned-domain-cert",
    ]
