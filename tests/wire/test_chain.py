"""Path validation: each test breaks one thing in a chain that is otherwise good."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

import wire_pki as pki
from holdfast.wire import oids
from holdfast.wire.algorithms import spki
from holdfast.wire.chain import MAX_CHAIN, Rule, validate
from holdfast.wire.errors import TrustError
from holdfast.wire.model import Chain, ClockState, Moment

DAY = timedelta(days=1)
HARDWARE_NAME = x509.OtherName(
    x509.ObjectIdentifier(oids.HARDWARE_MODULE_NAME), bytes.fromhex("300a06052b0601040104013f")
)

ROOT = pki.ca("Root")
SUB = pki.ca("Sub", ROOT, path_length=0)
SERVER = pki.end_entity("server", SUB, san=pki.dns("est.example"), eku=[pki.SERVER_AUTH])
DEVICE = pki.end_entity(pki.name("device", "SN-1"), SUB)
ANCHORS = (ROOT.certificate,)


def refused(chain: Chain, rule: Rule, anchors: Chain = ANCHORS, at: Moment = pki.TRUSTED) -> str:
    with pytest.raises(TrustError) as caught:
        validate(chain, anchors, at, rule)
    assert caught.value.detail
    return caught.value.code


def without_clock(floor_days: int, state: ClockState = ClockState.UNKNOWN) -> Moment:
    floor = pki.NOW + floor_days * DAY
    return Moment(floor, floor, state)


# --- the path ---


def test_a_good_chain_returns_its_path() -> None:
    assert validate(
        SERVER.chain, ANCHORS, pki.TRUSTED, Rule.tls_server("est.example", allow_cmcra=False)
    ) == (
        SERVER.certificate,
        SUB.certificate,
        ROOT.certificate,
    )


def test_order_duplicates_and_strangers_do_not_matter() -> None:
    stranger = pki.end_entity("stranger", pki.ca("Elsewhere"))
    mixed = (DEVICE.certificate, *stranger.chain, ROOT.certificate, SUB.certificate, SUB.certificate)
    path = validate(mixed, ANCHORS, pki.TRUSTED, Rule.client())
    assert path == (DEVICE.certificate, SUB.certificate, ROOT.certificate)


def test_the_root_need_not_be_sent() -> None:
    assert len(validate(DEVICE.chain[:2], ANCHORS, pki.TRUSTED, Rule.client())) == 3


@pytest.mark.parametrize("depth", [0, 1])
def test_an_anchor_may_be_the_leaf_or_an_intermediate(depth: int) -> None:
    anchor = DEVICE.chain[depth]
    assert validate(DEVICE.chain, (anchor,), pki.TRUSTED, Rule.client()) == DEVICE.chain[: depth + 1]


def test_a_pinned_end_entity_does_not_issue() -> None:
    child = pki.certificate("child", pki.new_key(), DEVICE)
    assert refused(child.chain, Rule.client(), (DEVICE.certificate,)) == "chain.untrusted"


def test_a_pinned_leaf_is_still_dated() -> None:
    old = pki.end_entity("old", SUB, not_after=pki.NOW - DAY)
    assert refused(old.chain, Rule.client(), (old.certificate,)) == "chain.expired"


def test_nothing_sent_and_nothing_trusted() -> None:
    assert refused((), Rule.client()) == "chain.empty"
    with pytest.raises(TrustError, match="no anchor"):
        validate(DEVICE.chain, (), pki.TRUSTED, Rule.client())


def test_too_many_certificates() -> None:
    assert refused((DEVICE.certificate,) * (MAX_CHAIN + 1), Rule.client()) == "chain.too-long"


def test_a_chain_deeper_than_eight_issuers() -> None:
    def deep(length: int) -> Chain:
        issuer = ROOT
        for level in range(length):
            issuer = pki.ca(f"level {level}", issuer)
        return pki.end_entity("deep", issuer).chain

    assert len(validate(deep(8), ANCHORS, pki.TRUSTED, Rule.client())) == 10
    assert refused(deep(9), Rule.client()) == "chain.untrusted"


def test_a_missing_intermediate() -> None:
    assert refused((DEVICE.certificate,), Rule.client()) == "chain.untrusted"


def test_another_root_of_the_same_name() -> None:
    assert refused(DEVICE.chain, Rule.client(), (pki.ca("Root").certificate,)) == "chain.bad-signature"


def test_an_unknown_root() -> None:
    assert refused(DEVICE.chain, Rule.client(), (pki.ca("Other").certificate,)) == "chain.untrusted"


def test_a_self_signed_leaf_is_not_its_own_anchor() -> None:
    alone = pki.certificate("alone", pki.new_key(), None)
    assert refused(alone.chain, Rule.client()) == "chain.untrusted"


def test_a_flipped_signature() -> None:
    der = bytearray(pki.der(DEVICE.certificate))
    der[-1] ^= 1
    broken = x509.load_der_x509_certificate(bytes(der))
    assert refused((broken, *DEVICE.above), Rule.client()) == "chain.bad-signature"


@pytest.mark.parametrize(
    ("extensions", "why"),
    [
        ([(pki.key_usage("key_cert_sign"), True)], "no basicConstraints"),
        ([(x509.BasicConstraints(ca=False, path_length=None), True)], "cA false"),
        (
            [(x509.BasicConstraints(ca=True, path_length=None), True), (pki.key_usage("crl_sign"), True)],
            "no keyCertSign",
        ),
        (
            [
                (x509.BasicConstraints(ca=True, path_length=None), True),
                (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True),
            ],
            "unknown critical extension",
        ),
    ],
)
def test_an_issuer_that_may_not_issue(extensions: list[tuple[x509.ExtensionType, bool]], why: str) -> None:
    issuer = pki.certificate("not a CA", pki.new_key(), ROOT, extensions=extensions)
    assert refused(pki.end_entity("leaf", issuer).chain, Rule.client()) == "chain.untrusted", why


def test_path_length_is_held_of_anchors_too() -> None:
    below = pki.ca("Below", SUB)
    assert refused(pki.end_entity("leaf", below).chain, Rule.client()) == "chain.untrusted"
    short = pki.ca("Short", path_length=0)
    leaf = pki.end_entity("leaf", pki.ca("Between", short))
    assert refused(leaf.chain, Rule.client(), (short.certificate,)) == "chain.untrusted"


def test_an_unknown_critical_extension_in_the_leaf() -> None:
    odd = (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00"), True)
    assert refused(pki.end_entity("leaf", SUB, more=[odd]).chain, Rule.client()) == "chain.untrusted"


def constrained(
    *, permitted: x509.GeneralName | None = None, excluded: x509.GeneralName | None = None
) -> Chain:
    constraints = x509.NameConstraints([permitted] if permitted else None, [excluded] if excluded else None)
    issuer = pki.ca("Constrained", ROOT, more=[(constraints, True)])
    return pki.end_entity("server", issuer, san=pki.dns("est.example"), eku=[pki.SERVER_AUTH]).chain


def test_name_constraints_are_applied() -> None:
    rule = Rule.tls_server("est.example", allow_cmcra=False)
    assert len(validate(constrained(permitted=x509.DNSName("example")), ANCHORS, pki.TRUSTED, rule)) == 3
    assert refused(constrained(permitted=x509.DNSName("other")), rule) == "chain.untrusted"
    assert refused(constrained(excluded=x509.DNSName("est.example")), rule) == "chain.untrusted"


def test_name_constraints_that_cannot_be_applied_refuse() -> None:
    rule = Rule.tls_server("est.example", allow_cmcra=False)
    assert refused(constrained(excluded=x509.DirectoryName(pki.name("x"))), rule) == "chain.untrusted"
    assert (
        refused(constrained(permitted=x509.UniformResourceIdentifier(".example")), rule) == "chain.untrusted"
    )


# --- algorithms ---


@pytest.mark.parametrize("kind", ["p256", "p384", "p521", "rsa2048", "rsa3072"])
def test_accepted_keys(kind: pki.KeyKind) -> None:
    issuer = pki.ca("CA", kind=kind)
    leaf = pki.end_entity("leaf", issuer, kind=kind)
    assert len(validate(leaf.chain, (issuer.certificate,), pki.TRUSTED, Rule.client())) == 2


def test_weak_keys() -> None:
    assert refused(pki.end_entity("leaf", SUB, kind="rsa1024").chain, Rule.client()) == "key.weak"
    weak = pki.ca("Weak", ROOT, kind="rsa1024")
    assert refused(pki.end_entity("leaf", weak).chain, Rule.client()) == "chain.weak"


def test_sha1_is_refused_except_on_the_anchor(tmp_path: Path) -> None:
    key, root_file = tmp_path / "key", tmp_path / "root"  # the library itself no longer signs with SHA-1
    key.write_bytes(pki.key_pem(pki.new_key("rsa2048")))
    made = pki.openssl("req", "-x509", "-sha1", "-key", str(key), "-subj", "/CN=Old", "-days", "9")
    root_file.write_bytes(made.stdout)
    old = x509.load_pem_x509_certificate(made.stdout)
    at = Moment(old.not_valid_before_utc, old.not_valid_before_utc, ClockState.UNKNOWN)
    good = pki.end_entity("leaf", pki.Identity(old, pki.new_key("rsa2048"), ()))
    assert len(validate(good.chain, (old,), at, Rule.client())) == 2
    extensions = tmp_path / "extensions"
    extensions.write_text("keyUsage = digitalSignature")
    request = pki.openssl("req", "-new", "-key", str(key), "-subj", "/CN=weak").stdout
    signing = ("x509", "-req", "-CA", str(root_file), "-CAkey", str(key), "-extfile", str(extensions))
    for digest in ("-sha1", "-sha224", "-sha256"):
        made = pki.openssl(*signing, "-set_serial", "7", digest, data=request)
        chain = (x509.load_pem_x509_certificate(made.stdout),)
        if digest == "-sha256":
            assert validate(chain, (old,), at, Rule.client())
        else:
            assert refused(chain, Rule.client(), (old,), at) == "chain.weak"


# --- time ---


def test_dates_with_a_trusted_clock() -> None:
    old = pki.end_entity("old", SUB, not_after=pki.NOW - DAY)
    young = pki.end_entity("young", SUB, not_before=pki.NOW + DAY)
    assert refused(old.chain, Rule.client()) == "chain.expired"
    assert refused(young.chain, Rule.client()) == "chain.not-yet-valid"


@pytest.mark.parametrize("level", ["sub", "root"])
def test_issuers_are_dated_too(level: str) -> None:
    ended = pki.NOW - DAY
    root = pki.ca("R", not_after=ended if level == "root" else pki.END)
    sub = pki.ca("S", root, not_after=ended if level == "sub" else pki.END)
    leaf = pki.end_entity("leaf", sub)
    assert refused(leaf.chain, Rule.client(), (root.certificate,)) == "chain.expired"
    assert refused(leaf.chain, Rule.client(), (root.certificate,), without_clock(0)) == "chain.expired"


def test_the_second_of_not_after_is_still_good() -> None:
    leaf = pki.end_entity("leaf", SUB, not_after=pki.NOW)
    assert validate(leaf.chain, ANCHORS, pki.TRUSTED, Rule.client())
    late = Moment(pki.NOW + timedelta(seconds=1), pki.NOW, ClockState.TRUSTED)
    assert refused(leaf.chain, Rule.client(), at=late) == "chain.expired"


@pytest.mark.parametrize("state", [ClockState.UNKNOWN, ClockState.FLOOR_ONLY])
def test_without_a_trusted_clock_only_the_floor_counts(state: ClockState) -> None:
    young = pki.end_entity("young", SUB, not_before=pki.NOW + 5 * DAY, not_after=pki.NOW + 9 * DAY)
    assert validate(young.chain, ANCHORS, without_clock(-20000, state), Rule.client())
    assert validate(young.chain, ANCHORS, without_clock(9, state), Rule.client())
    assert refused(young.chain, Rule.client(), at=without_clock(10, state)) == "chain.expired"
    running_ahead = Moment(pki.NOW + 4000 * DAY, pki.NOW, state)
    assert validate(young.chain, ANCHORS, running_ahead, Rule.client())


def test_certificates_that_were_never_valid_together() -> None:
    gone = pki.ca("Gone", ROOT, not_after=pki.NOW + DAY)
    later = pki.end_entity("later", gone, not_before=pki.NOW + 2 * DAY)
    assert refused(later.chain, Rule.client(), at=without_clock(0)) == "chain.untrusted"


def test_a_later_stranger_does_not_spoil_the_time() -> None:
    stranger = pki.certificate("s", pki.new_key(), None, not_before=pki.NOW + 300 * DAY).certificate
    short = pki.end_entity("short", SUB, not_before=pki.NOW + DAY, not_after=pki.NOW + 2 * DAY)
    assert validate((*short.chain, stranger), ANCHORS, without_clock(0), Rule.client())


def test_an_idevid_of_the_year_9999_with_a_critical_hardware_name() -> None:
    root = pki.ca("Maker", not_after=pki.FOREVER)
    idevid = pki.certificate(
        pki.name("device", "SN-1"),
        pki.new_key(),
        root,
        extensions=[(x509.SubjectAlternativeName([HARDWARE_NAME]), True)],
        not_after=pki.FOREVER,
    )
    for at in (pki.TRUSTED, without_clock(0)):
        assert validate(idevid.chain, (root.certificate,), at, Rule.client())


# --- rules ---

CMC_SERVER = pki.end_entity("registrar", SUB, san=pki.dns("other.example"), eku=[pki.CMC_RA])


@pytest.mark.parametrize(
    ("names", "host", "good"),
    [
        (["est.example"], "est.example", True),
        (["est.example"], "EST.Example.", True),
        (["est.example"], "est.example.org", False),
        (["est.example"], "example", False),
        (["*.example.org"], "est.example.org", True),
        (["*.example.org"], "a.est.example.org", False),
        (["*.example.org"], "example.org", False),
        (["*.org"], "example.org", False),
        (["e*.example.org"], "est.example.org", False),
        (["a.*.org"], "a.example.org", False),
        (["*.*.org"], "a.example.org", False),
        (["*"], "localhost", False),
        (["192.0.2.1"], "192.0.2.1", False),
        ([], "server", False),
    ],
)
def test_dns_names(names: list[str], host: str, good: bool) -> None:
    chain = pki.end_entity("server", SUB, san=pki.dns(*names), eku=[pki.SERVER_AUTH]).chain
    rule = Rule.tls_server(host, allow_cmcra=True)
    if good:
        assert validate(chain, ANCHORS, pki.TRUSTED, rule)
    else:
        assert refused(chain, rule) == "chain.name"


def test_ip_addresses_match_ip_names_only() -> None:
    names = [x509.IPAddress(ipaddress.ip_address(each)) for each in ("192.0.2.1", "2001:db8::1")]
    chain = pki.end_entity("server", SUB, san=names).chain
    for host in ("192.0.2.1", "2001:DB8:0::1", "[2001:db8::1]"):
        assert validate(chain, ANCHORS, pki.TRUSTED, Rule.tls_server(host, allow_cmcra=False))
    assert refused(chain, Rule.tls_server("192.0.2.2", allow_cmcra=False)) == "chain.name"


def test_the_common_name_is_no_name() -> None:
    chain = pki.end_entity("est.example", SUB, eku=[pki.SERVER_AUTH]).chain
    assert refused(chain, Rule.tls_server("est.example", allow_cmcra=False)) == "chain.name"


def test_cmcra_stands_in_for_the_name_only_where_allowed() -> None:
    assert validate(CMC_SERVER.chain, ANCHORS, pki.TRUSTED, Rule.tls_server("est.example", allow_cmcra=True))
    assert refused(CMC_SERVER.chain, Rule.tls_server("est.example", allow_cmcra=False)) == "chain.usage"
    both = pki.end_entity("r", SUB, san=pki.dns("other.example"), eku=[pki.CMC_RA, pki.SERVER_AUTH])
    assert refused(both.chain, Rule.tls_server("est.example", allow_cmcra=False)) == "chain.name"


MASA_URL = (x509.UnrecognizedExtension(x509.ObjectIdentifier(oids.MASA_URL), b"\x16\x01a"), False)
PINS = frozenset({hashlib.sha256(spki(DEVICE.certificate)).digest()})


def leaf(**options: object) -> Callable[[], Chain]:
    return lambda: pki.end_entity("leaf", SUB, **options).chain  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rule", "chain", "code"),
    [
        (
            Rule.tls_server("a.b", allow_cmcra=False),
            leaf(san=pki.dns("a.b"), eku=[pki.CLIENT_AUTH]),
            "chain.usage",
        ),
        (Rule.tls_server("a.b", allow_cmcra=False), leaf(san=pki.dns("a.b")), None),
        (Rule.tls_server_any_name(), leaf(), "chain.usage"),
        (Rule.tls_server_any_name(), leaf(eku=[pki.SERVER_AUTH]), None),
        (Rule.tls_server_any_name(), leaf(eku=[pki.CMC_RA]), None),
        (Rule.tls_server_any_name(), leaf(eku=[pki.CLIENT_AUTH]), "chain.usage"),
        (Rule.tls_server_any_name(), leaf(usage=pki.key_usage("key_agreement")), "chain.usage"),
        (Rule.registrar(), leaf(eku=[pki.CMC_RA]), None),
        (Rule.registrar(), leaf(), "chain.usage"),
        (Rule.registrar(), leaf(eku=[pki.SERVER_AUTH, pki.CLIENT_AUTH]), "chain.usage"),
        (Rule.registrar(), leaf(eku=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]), "chain.usage"),
        (Rule.client(), leaf(), None),
        (Rule.client(), leaf(usage=None), None),
        (Rule.client(), leaf(eku=[pki.CLIENT_AUTH, pki.SERVER_AUTH]), None),
        (Rule.client(), leaf(eku=[pki.SERVER_AUTH]), "chain.usage"),
        (Rule.issued(), leaf(eku=[pki.CLIENT_AUTH]), None),
        (Rule.issued(), leaf(), None),
        (Rule.issued(), leaf(eku=[pki.SERVER_AUTH]), "chain.usage"),
        (Rule.issued(), leaf(usage=pki.key_usage("key_encipherment")), "chain.usage"),
        (Rule.issued(), leaf(usage=pki.key_usage("digital_signature", "key_cert_sign")), "chain.is-ca"),
        (Rule.voucher_signer(), leaf(), None),
        (Rule.voucher_signer(), leaf(usage=pki.key_usage("content_commitment")), None),
        (Rule.voucher_signer(), leaf(usage=pki.key_usage("key_encipherment")), "chain.usage"),
        (Rule.voucher_signer(), lambda: DEVICE.chain, "chain.device"),
        (Rule.voucher_signer(), leaf(more=[MASA_URL]), "chain.device"),
        (Rule.voucher_signer(), leaf(san=[HARDWARE_NAME]), "chain.device"),
        (Rule.voucher_signer(PINS), lambda: DEVICE.chain, None),
        (Rule.voucher_signer(PINS), leaf(), "chain.pin"),
    ],
)
def test_rules(rule: Rule, chain: Callable[[], Chain], code: str | None) -> None:
    if code is None:
        assert validate(chain(), ANCHORS, pki.TRUSTED, rule)[0].issuer == SUB.certificate.subject
    else:
        assert refused(chain(), rule) == code


@pytest.mark.parametrize(
    "rule", [Rule.client(), Rule.issued(), Rule.tls_server_any_name(), Rule.voucher_signer()]
)
def test_a_ca_in_the_place_of_the_leaf(rule: Rule) -> None:
    authority = pki.certificate(
        "authority",
        pki.new_key(),
        ROOT,
        extensions=[(x509.BasicConstraints(ca=True, path_length=None), True)],
    )
    assert refused(authority.chain, rule) == "chain.is-ca"


def test_a_pinned_ca_may_serve_but_is_never_issued_to_us() -> None:
    usage = (pki.key_usage("digital_signature", "key_cert_sign"), True)
    both = pki.certificate(
        "both",
        pki.new_key(),
        None,
        extensions=[(x509.BasicConstraints(ca=True, path_length=None), True), usage],
    )
    assert validate(both.chain, both.chain, pki.TRUSTED, Rule.tls_server_any_name()) == both.chain
    assert refused(both.chain, Rule.issued(), both.chain) == "chain.is-ca"


def test_an_issuer_restricted_to_clients_makes_no_servers() -> None:
    clients = pki.ca("Clients", ROOT, eku=[pki.CLIENT_AUTH])
    server = pki.end_entity("s", clients, san=pki.dns("a.b"), eku=[pki.SERVER_AUTH, pki.CMC_RA])
    assert refused(server.chain, Rule.tls_server("a.b", allow_cmcra=True)) == "chain.untrusted"
    assert refused(server.chain, Rule.registrar()) == "chain.untrusted"
    device = pki.end_entity("d", clients, eku=[pki.CLIENT_AUTH])
    assert validate(device.chain, ANCHORS, pki.TRUSTED, Rule.issued())
    anything = pki.ca("Any", ROOT, eku=[ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    assert validate(pki.end_entity("d", anything).chain, ANCHORS, pki.TRUSTED, Rule.issued())


# --- a second opinion ---


@pytest.mark.parametrize("case", ["good", "expired", "path-length", "bad-signature", "no-ca"])
def test_openssl_agrees(case: str, tmp_path: Path) -> None:
    ended = pki.NOW - DAY
    issuer = {
        "good": lambda: SUB,
        "expired": lambda: SUB,
        "path-length": lambda: pki.ca("Below", SUB),
        "bad-signature": lambda: SUB,
        "no-ca": lambda: DEVICE,
    }[case]()
    made = pki.end_entity("leaf", issuer, not_after=ended if case == "expired" else pki.END)
    chain = made.chain
    if case == "bad-signature":
        der = pki.der(made.certificate)
        chain = (x509.load_der_x509_certificate(der[:-1] + bytes([der[-1] ^ 1])), *made.above)
    for file, content in (("leaf", chain[:1]), ("chain", chain[1:]), ("root", ANCHORS)):
        (tmp_path / file).write_bytes(pki.pem(*content))
    paths = {each: str(tmp_path / each) for each in ("leaf", "chain", "root")}
    done = pki.openssl(
        "verify", "-attime", str(int(pki.NOW.timestamp())), "-purpose", "sslclient",
        "-CAfile", paths["root"], "-untrusted", paths["chain"], paths["leaf"], check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == (case == "good"), done.stderr
    if case == "good":
        assert validate(chain, ANCHORS, pki.TRUSTED, Rule.client())
    else:
        assert refused(chain, Rule.client()).startswith("chain.")
