"""CRLs and the places to ask: one violation a test (RFC 5280 §5, §6.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID

import wire_pki as pki
from holdfast.wire.errors import HoldfastError, RemoteProtocolError, TrustError
from holdfast.wire.model import ClockState, HttpResponse, Moment
from holdfast.wire.revocation import crl
from holdfast.wire.revocation.sources import MOST, Place, crl_places, ocsp_places
from holdfast.wire.revocation.standing import Standing

DAY = timedelta(days=1)
URL = "http://crl.example/ca.crl"
CA = pki.ca("Issuer")
TWIN = pki.ca("Issuer")
OTHER = pki.ca("Other Issuer")


def uri(text: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(text)


def points(*urls: str, **more: Any) -> x509.DistributionPoint:
    return x509.DistributionPoint([uri(u) for u in urls], None, more.get("reasons"), more.get("crl_issuer"))


def leaf(*extensions: x509.ExtensionType) -> x509.Certificate:
    return pki.end_entity("gateway", CA, more=[(e, False) for e in extensions]).certificate


LEAF = leaf(x509.CRLDistributionPoints([points(URL)]))


def scope(**only: Any) -> x509.IssuingDistributionPoint:
    fields: dict[str, Any] = {
        "full_name": None,
        "relative_name": None,
        "only_contains_user_certs": False,
        "only_contains_ca_certs": False,
        "only_some_reasons": None,
        "indirect_crl": False,
        "only_contains_attribute_certs": False,
    }
    return x509.IssuingDistributionPoint(**fields | only)


@dataclass(frozen=True)
class List:
    """An honest list that names nobody."""

    issuer: x509.Name = CA.certificate.subject
    signer: pki.Identity = CA
    begins: datetime = pki.NOW - DAY
    ends: datetime = pki.NOW + DAY
    revoked: tuple[int, ...] = ()
    reason: x509.ReasonFlags | None = None
    more: tuple[tuple[x509.ExtensionType, bool], ...] = ()

    def der(self, encoding: Encoding = Encoding.DER) -> bytes:
        builder = x509.CertificateRevocationListBuilder().issuer_name(self.issuer)
        builder = builder.last_update(self.begins).next_update(self.ends)
        for serial in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(self.begins)
            if self.reason is not None:
                entry = entry.add_extension(x509.CRLReason(self.reason), critical=False)
            builder = builder.add_revoked_certificate(entry.build())
        for value, critical in self.more:
            builder = builder.add_extension(value, critical)
        return builder.sign(self.signer.key, hashes.SHA256()).public_bytes(encoding)


def judged(made: List, now: Moment = pki.TRUSTED) -> Standing:
    return crl.judge(made.der(), LEAF, CA.certificate, now)


@pytest.mark.parametrize(
    "made",
    [
        List(),
        List(revoked=(LEAF.serial_number + 1,)),
        List(more=((x509.CRLNumber(7), False),)),
        List(more=((scope(only_contains_user_certs=True), True),)),
        List(more=((scope(full_name=[uri(URL)]), True),)),
        List(revoked=(LEAF.serial_number,), reason=x509.ReasonFlags.remove_from_crl),
    ],
)
def test_a_list_without_us_says_good(made: List) -> None:
    assert judged(made) == Standing(revoked=False, until=pki.NOW + DAY)


def test_a_list_with_us_says_revoked() -> None:
    made = List(revoked=(5, LEAF.serial_number, 9), reason=x509.ReasonFlags.key_compromise)
    wanted = Standing(revoked=True, at=pki.NOW - DAY, reason="keyCompromise", until=pki.NOW + DAY)
    assert judged(made) == wanted
    assert crl.judge(made.der(Encoding.PEM), LEAF, CA.certificate, pki.TRUSTED) == wanted
    assert judged(List(revoked=(LEAF.serial_number,))).reason == ""


REVOKED = (LEAF.serial_number,)
VIOLATIONS: dict[str, tuple[Callable[[], List], type[HoldfastError], str]] = {
    "another CA's": (lambda: List(OTHER.certificate.subject, OTHER), TrustError, "crl.issuer"),
    "in the issuer's name": (lambda: List(signer=TWIN), TrustError, "crl.signature"),
    "an old one": (lambda: List(begins=pki.NOW - 9 * DAY, ends=pki.NOW - DAY), TrustError, "crl.stale"),
    "one of tomorrow": (
        lambda: List(begins=pki.NOW + DAY, ends=pki.NOW + 2 * DAY),
        TrustError,
        "crl.not-yet",
    ),
    "a delta": (
        lambda: List(more=((x509.DeltaCRLIndicator(1), True),)),
        RemoteProtocolError,
        "crl.extension",
    ),
    "for CAs only": (
        lambda: List(more=((scope(only_contains_ca_certs=True), True),)),
        RemoteProtocolError,
        "crl.scope",
    ),
    "for attribute certificates only": (
        lambda: List(more=((scope(only_contains_attribute_certs=True), True),)),
        RemoteProtocolError,
        "crl.scope",
    ),
    "for some reasons only": (
        lambda: List(more=((scope(only_some_reasons=frozenset({x509.ReasonFlags.key_compromise})), True),)),
        RemoteProtocolError,
        "crl.scope",
    ),
    "indirect": (lambda: List(more=((scope(indirect_crl=True), True),)), RemoteProtocolError, "crl.scope"),
    "of another place": (
        lambda: List(more=((scope(full_name=[uri("http://crl.example/other.crl")]), True),)),
        RemoteProtocolError,
        "crl.scope",
    ),
}


@pytest.mark.parametrize("name", VIOLATIONS)
def test_a_list_that_breaks_one_rule_says_nothing(name: str) -> None:
    make, kind, code = VIOLATIONS[name]
    with pytest.raises(kind) as caught:
        judged(make())
    assert caught.value.code == code
    assert caught.value.clause


def test_an_issuer_that_may_not_sign_lists() -> None:
    key = pki.new_key()
    extensions = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
        (pki.key_usage("key_cert_sign"), True),
    ]
    mute = pki.certificate("Issuer", key, None, extensions=extensions)
    with pytest.raises(TrustError) as caught:
        crl.judge(List(signer=mute).der(), LEAF, mute.certificate, pki.TRUSTED)
    assert caught.value.code == "crl.issuer"


@pytest.mark.parametrize("revoked", [(), REVOKED])
def test_no_flipped_bit_is_believed(revoked: tuple[int, ...]) -> None:
    der = List(revoked=revoked).der()
    for at in range(0, len(der), 3):
        changed = der[:at] + bytes([der[at] ^ 4]) + der[at + 1 :]
        try:
            standing = crl.judge(changed, LEAF, CA.certificate, pki.TRUSTED)
        except HoldfastError:
            continue
        assert standing.revoked == bool(revoked), at


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"garbage", b"-----BEGIN X509 CRL-----\n"])
def test_bytes_that_are_no_list(der: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        crl.judge(der, LEAF, CA.certificate, pki.TRUSTED)
    assert caught.value.code == "crl.syntax"


def test_without_a_trusted_clock_only_the_floor_ends_a_list() -> None:
    floor_only = Moment(pki.NOW + 99 * DAY, pki.NOW, ClockState.FLOOR_ONLY)
    assert not judged(List(), floor_only).revoked
    with pytest.raises(TrustError):
        judged(List(), Moment(pki.NOW + 3 * DAY, pki.NOW + 2 * DAY, ClockState.FLOOR_ONLY))


def test_the_exchange_gets_and_judges() -> None:
    exchange = crl.exchange(LEAF, CA.certificate, "/ca.crl", pki.TRUSTED)
    request = next(exchange)
    assert (request.method, request.target) == ("GET", "/ca.crl")
    with pytest.raises(StopIteration) as done:
        exchange.send(HttpResponse(200, (), List().der()))
    assert not done.value.value.revoked


@pytest.mark.parametrize(
    ("response", "code"),
    [(HttpResponse(404), "crl.status"), (HttpResponse(200, (), bytes((1 << 20) + 1)), "crl.too-large")],
)
def test_an_http_answer_that_is_none(response: HttpResponse, code: str) -> None:
    with pytest.raises(RemoteProtocolError) as caught:
        crl.read(response)
    assert caught.value.code == code


# --- the places --------------------------------------------------------------------------------------


def access(*urls: str) -> x509.AuthorityInformationAccess:
    kinds = AuthorityInformationAccessOID
    return x509.AuthorityInformationAccess(
        [
            x509.AccessDescription(kinds.CA_ISSUERS, uri("http://ca.example/ca.cer")),
            *(x509.AccessDescription(kinds.OCSP, uri(u)) for u in urls),
        ]
    )


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("http://ocsp.example", Place("ocsp.example", 80, "/")),
        ("HTTP://ocsp.example:8080/a?b=c", Place("ocsp.example", 8080, "/a?b=c")),
        ("http://[2001:db8::1]:99/x", Place("2001:db8::1", 99, "/x")),
    ],
)
def test_a_place_is_read(url: str, place: Place) -> None:
    assert ocsp_places(leaf(access(url))) == (place,)
    assert crl_places(leaf(x509.CRLDistributionPoints([points(url)]))) == (place,)


@pytest.mark.parametrize(
    "url",
    [
        "https://ocsp.example/",
        "ldap://ocsp.example/cn=ca",
        "file:///etc/passwd",
        "http://user@ocsp.example/",
        "http:///nowhere",
        "http://ocsp.example:99999/",
        "http://ocsp.example/a b",
        "http://ocsp.example/\r\nHost:x",
        "http://" + "x" * 2000,
    ],
)
def test_what_is_no_plain_place_is_left_out(url: str) -> None:
    assert ocsp_places(leaf(access(url))) == ()
    assert crl_places(leaf(x509.CRLDistributionPoints([points(url)]))) == ()


def test_few_places_are_enough_and_each_is_asked_once() -> None:
    many = [f"http://ocsp{n}.example/" for n in range(40)]
    assert len(ocsp_places(leaf(access(*many)))) == MOST
    assert len(ocsp_places(leaf(access(*many[:2], *many[:2])))) == 2
    assert ocsp_places(leaf()) == crl_places(leaf()) == ()


def test_partial_and_indirect_points_are_left_out() -> None:
    some = frozenset({x509.ReasonFlags.key_compromise})
    by_others = [x509.DirectoryName(OTHER.certificate.subject)]
    found = x509.CRLDistributionPoints([points(URL, reasons=some), points(URL, crl_issuer=by_others)])
    assert crl_places(leaf(found)) == ()
