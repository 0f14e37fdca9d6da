"""Nobody gets an IDevID who is not a TPM of a known maker: one lie a test, each refused with its reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding

import wire_pki as pki
from factory.chips import MODEL, SERIAL, Forger, Maker, area_of, unit
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import HoldfastError, KeyStoreError, RemoteProtocolError, TrustError
from holdfast.wire.tpm import ek_profile
from holdfast.wire.tpm.public import parse_public
from holdfast.wire.tpm.templates import Level, iak
from holdfast_factory.chips import commands
from holdfast_factory.chips.dialogue import TpmRefusal, hold
from holdfast_factory.chips.keys import IAK_HANDLE
from holdfast_factory.chips.links import TctiLink
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer, require_activated
from holdfast_factory.unit import Certificates, Endorsement, ReadBack, Shown

pytestmark = pytest.mark.tpm
NOW = datetime.now(UTC) + timedelta(hours=1)  # the chips are made after this module was read
RESTRICTED = 1 << 16
IDEVID_ATTRIBUTES, IAK_ATTRIBUTES = 0x000400F2, 0x000500F2
EXTENDED, NAMES, USAGE = "2.5.29.37", "2.5.29.17", "2.5.29.15"


@dataclass(frozen=True)
class Shows:
    """What one chip shows for MODEL and SERIAL."""

    chip: Swtpm
    endorsement: Endorsement
    keys: Shown


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def first(maker: Maker) -> Iterator[Shows]:
    with maker.chip("first") as chip:
        yield shows(chip)


@pytest.fixture(scope="module")
def second(maker: Maker) -> Iterator[Shows]:
    with maker.chip("second") as chip:
        yield shows(chip)


@pytest.fixture(scope="module")
def examiner(maker: Maker, first: Shows) -> TpmExaminer:
    return TpmExaminer(maker.roots)


def shows(chip: Swtpm) -> Shows:
    with unit(chip) as opened:
        return Shows(chip, opened.endorsement(), opened.keys(MODEL, SERIAL))


def code_of(caught: pytest.ExceptionInfo[HoldfastError]) -> str:
    return caught.value.code


def leaf(shown: Shows) -> x509.Certificate:
    return x509.load_der_x509_certificate(shown.endorsement.certificates[0])


def test_genuine_chip_is_believed(examiner: TpmExaminer, first: Shows) -> None:
    examiner.endorsement(first.endorsement, NOW)
    proved = examiner.keys(first.keys, first.endorsement, MODEL, SERIAL)
    assert proved.idevid == spki(parse_public(first.keys.idevid).key)
    assert proved.iak == spki(parse_public(first.keys.iak).key)
    sealed, secret = examiner.seal(proved, first.endorsement, os.urandom)
    with unit(first.chip) as opened:
        require_activated(opened.activate(sealed), secret)


def test_unit_is_named_by_its_endorsement_key(examiner: TpmExaminer, first: Shows, second: Shows) -> None:
    names = {examiner.identify(first.endorsement), examiner.identify(second.endorsement)}
    assert len(names) == 2
    assert examiner.identify(shows(first.chip).endorsement) in names


# -- the endorsement key


def test_ek_of_an_unknown_maker_is_refused(first: Shows) -> None:
    with pytest.raises(TrustError) as caught:
        TpmExaminer((pki.ca("Another maker").certificate,)).endorsement(first.endorsement, NOW)
    assert code_of(caught) == "chain.untrusted"


def test_ek_without_certificate_is_refused(examiner: TpmExaminer, first: Shows) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.endorsement(replace(first.endorsement, certificates=()), NOW)
    assert code_of(caught) == "ek.no-certificate"


def test_certificate_of_another_ek_is_refused(examiner: TpmExaminer, first: Shows, second: Shows) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.endorsement(replace(first.endorsement, certificates=second.endorsement.certificates), NOW)
    assert code_of(caught) == "ek.key-mismatch"


LIES = {
    "no usage": ({EXTENDED: None}, "ek.usage"),
    "usage of an attestation key": (
        {EXTENDED: x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.3")])},
        "chain.usage",
    ),
    "no names": ({NAMES: None}, "ek.names"),
    "names of no TPM": ({NAMES: x509.SubjectAlternativeName([x509.DNSName("tpm.example")])}, "ek.names"),
    "a key that only signs": (
        {USAGE: x509.KeyUsage(True, *[False] * 8)},
        "ek.usage",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_certificate_of_the_wrong_profile_is_refused(
    maker: Maker, examiner: TpmExaminer, first: Shows, lie: str
) -> None:
    changes, code = LIES[lie]
    made = maker.certify(leaf(first), **changes)
    with pytest.raises(TrustError) as caught:
        examiner.endorsement(replace(first.endorsement, certificates=(made,)), NOW)
    assert code_of(caught) == code


def test_usage_of_another_key_is_no_endorsement(maker: Maker, first: Shows) -> None:
    """Also where no path is judged."""
    changes, _ = LIES["usage of an attestation key"]
    with pytest.raises(TrustError) as caught:
        ek_profile.read(x509.load_der_x509_certificate(maker.certify(leaf(first), **changes)))
    assert code_of(caught) == "ek.usage"


def test_the_same_certificate_made_anew_is_accepted(
    maker: Maker, examiner: TpmExaminer, first: Shows
) -> None:
    made = maker.certify(leaf(first))
    examiner.endorsement(replace(first.endorsement, certificates=(made,)), NOW)


def test_ek_certificate_of_the_future_is_refused(examiner: TpmExaminer, first: Shows) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.endorsement(first.endorsement, leaf(first).not_valid_before_utc - timedelta(days=1))
    assert code_of(caught) == "chain.not-yet-valid"


def test_software_key_with_a_makers_certificate_is_refused(
    maker: Maker, examiner: TpmExaminer, first: Shows
) -> None:
    """A maker that certifies anything: the attributes still say that the key can leave its TPM."""
    key = ec.generate_private_key(ec.SECP256R1())
    loose = area_of(iak(Level.H2), key.public_key(), 0x00020040)
    made = maker.certify(leaf(first), key=key.public_key())
    with pytest.raises(TrustError) as caught:
        examiner.endorsement(Endorsement(loose, (made,)), NOW)
    assert code_of(caught) == "ek.attributes"


# -- software keys


def test_forgery_is_consistent_and_cannot_be_activated(examiner: TpmExaminer, first: Shows) -> None:
    """Software keys that state whatever they like: only the secret, sealed for a real EK, unmasks them."""
    shown = Forger().shown(first.endorsement.certificates[0])
    proved = examiner.keys(shown, first.endorsement, MODEL, SERIAL)
    sealed, secret = examiner.seal(proved, first.endorsement, os.urandom)
    with unit(first.chip) as opened, pytest.raises(KeyStoreError) as caught:
        opened.activate(sealed)
    assert code_of(caught) == "key.activation"
    with pytest.raises(TrustError) as guessed:
        require_activated(bytes(32), secret)
    assert code_of(guessed) == "activation.secret"


def test_software_idevid_beside_a_real_iak_is_refused(examiner: TpmExaminer, first: Shows) -> None:
    """The forger has the public part of a real IAK, but not its signature over his own key."""
    forger = Forger()
    forger.attesting = Public(parse_public(first.keys.iak).key)  # type: ignore[assignment]
    forger.states_with = forger.signing
    with pytest.raises(TrustError) as caught:
        examiner.keys(forger.shown(first.endorsement.certificates[0]), first.endorsement, MODEL, SERIAL)
    assert code_of(caught) == "attest.signature"


class Public:
    """As much of a key as one has who has it not."""

    def __init__(self, key: ec.EllipticCurvePublicKey | rsa.RSAPublicKey) -> None:
        self._key = key

    def public_key(self) -> ec.EllipticCurvePublicKey | rsa.RSAPublicKey:
        return self._key


def test_real_iak_signs_no_forged_statement(first: Shows) -> None:
    """A restricted key signs outside data only if it does not begin as a TPM's own (Part 1 §25.1.3)."""
    forged = b"\xffTCG\x80\x17" + bytes(80)
    link = TctiLink(first.chip.tcti)
    try:
        with pytest.raises(KeyStoreError) as caught:
            hold(link, lambda: _sign_as_iak(forged), "sign a forgery")
        assert isinstance(caught.value.__cause__, TpmRefusal)
    finally:
        link.close()


def _sign_as_iak(data: bytes):  # type: ignore[no-untyped-def]
    """TPM2_Hash gives a ticket for what is safe to sign; for this it gives an empty one."""
    hashing = commands.Command(
        0x17D, (), len(data).to_bytes(2, "big") + data + b"\x00\x0b" + bytes.fromhex("4000000b")
    )
    (answer,) = yield (hashing,)
    octets = answer.read()
    digest, ticket = octets.sized(), octets.rest
    body = len(digest).to_bytes(2, "big") + digest + b"\x00\x10" + ticket
    yield (commands.Command(0x15D, (IAK_HANDLE,), body, (None,)),)


FORGED = {
    "IDevID may leave": (Forger(idevid_attributes=IDEVID_ATTRIBUTES & ~0x2), "devid.attributes"),
    "IDevID came from outside": (Forger(idevid_attributes=IDEVID_ATTRIBUTES & ~0x20), "devid.attributes"),
    "IDevID decrypts": (Forger(idevid_attributes=IDEVID_ATTRIBUTES | 0x20000), "devid.template"),
    "IAK may leave": (Forger(iak_attributes=IAK_ATTRIBUTES & ~0x2), "devid.attributes"),
    "IAK signs anything": (Forger(iak_attributes=IAK_ATTRIBUTES & ~RESTRICTED), "devid.attributes"),
    "statement not by a TPM": (Forger(magic=0x12345678), "attest.magic"),
    "statement of another key": (Forger(name=b"\x00\x0b" + bytes(32)), "attest.name"),
    "statement for another device": (Forger(extra=bytes(32)), "attest.extra-data"),
    "statement by another key": (
        Forger(states_with=ec.generate_private_key(ec.SECP256R1())),
        "attest.signature",
    ),
    "IAK of another hierarchy": (Forger(signer=b"\x00\x0b" + bytes(32)), "devid.hierarchy"),
    "request signed by another": (
        Forger(signs_with=ec.generate_private_key(ec.SECP256R1())),
        "attest.signature",
    ),
}


@pytest.mark.parametrize("what", FORGED)
def test_one_lie_is_enough(examiner: TpmExaminer, first: Shows, what: str) -> None:
    forger, code = FORGED[what]
    shown = forger.shown(first.endorsement.certificates[0])
    with pytest.raises(TrustError) as caught:
        examiner.keys(shown, first.endorsement, MODEL, SERIAL)
    assert code_of(caught) == code


def test_request_for_other_keys_is_refused(examiner: TpmExaminer, first: Shows) -> None:
    spoiled = replace(first.keys, idevid=first.keys.iak)
    with pytest.raises(TrustError) as caught:
        examiner.keys(spoiled, first.endorsement, MODEL, SERIAL)
    assert code_of(caught) == "devid.swapped"


# -- two chips


def test_iak_of_another_tpm_is_not_activated(examiner: TpmExaminer, first: Shows, second: Shows) -> None:
    """The second chip makes a request that names the first one's EK: it holds until the secret is sealed."""
    with unit(second.chip) as other:
        other.endorsement()
        assert other._ek is not None
        other._ek = replace(other._ek, certificates=first.endorsement.certificates)
        shown = other.keys(MODEL, SERIAL)
    proved = examiner.keys(shown, first.endorsement, MODEL, SERIAL)
    sealed, _ = examiner.seal(proved, first.endorsement, os.urandom)
    for chip in (first.chip, second.chip):
        with unit(chip) as opened, pytest.raises(KeyStoreError) as caught:
            opened.activate(sealed)
        assert code_of(caught) == "key.activation"


def test_request_of_another_tpm_is_refused(examiner: TpmExaminer, first: Shows, second: Shows) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.keys(second.keys, first.endorsement, MODEL, SERIAL)
    assert code_of(caught) == "devid.other-tpm"


def test_swapped_request_is_refused(examiner: TpmExaminer, first: Shows, second: Shows) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.keys(replace(first.keys, request=second.keys.request), first.endorsement, MODEL, SERIAL)
    assert code_of(caught) == "devid.swapped"


@pytest.mark.parametrize(
    ("model", "serial", "code"), [(MODEL, "HF-0002", "devid.serial"), ("Switch", SERIAL, "devid.model")]
)
def test_request_for_another_device_is_refused(
    examiner: TpmExaminer, first: Shows, model: str, serial: str, code: str
) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.keys(first.keys, first.endorsement, model, serial)
    assert code_of(caught) == code


def test_replayed_activation_is_refused(examiner: TpmExaminer, first: Shows) -> None:
    proved = examiner.keys(first.keys, first.endorsement, MODEL, SERIAL)
    with unit(first.chip) as opened:
        old, _ = examiner.seal(proved, first.endorsement, os.urandom)
        earlier = opened.activate(old)
    _, secret = examiner.seal(proved, first.endorsement, os.urandom)
    with pytest.raises(TrustError) as caught:
        require_activated(earlier, secret)
    assert code_of(caught) == "activation.secret"


def test_garbage_request_is_refused(examiner: TpmExaminer, first: Shows) -> None:
    with pytest.raises(RemoteProtocolError):
        examiner.keys(replace(first.keys, request=b"\x30\x00"), first.endorsement, MODEL, SERIAL)


# -- what is read back


@dataclass(frozen=True)
class Installed:
    """Certificates in a chip, and what it gives for CHALLENGE."""

    certificates: Certificates
    read: ReadBack


CHALLENGE = b"a challenge of the station"


@pytest.fixture(scope="module")
def installed(maker: Maker) -> Iterator[Installed]:
    with maker.chip("installed") as chip:
        keys = shows(chip).keys
        issuer = pki.ca("Factory")
        made = [
            pki.certificate("device", Public(parse_public(area).key), issuer).certificate  # type: ignore[arg-type]
            for area in (keys.idevid, keys.iak)
        ]
        ders = [each.public_bytes(Encoding.DER) for each in made]
        certificates = Certificates(ders[0], ders[1], issuer.certificate.public_bytes(Encoding.DER))
        with unit(chip) as opened:
            opened.install(certificates)
            yield Installed(certificates, opened.read_back(CHALLENGE))


def test_what_was_written_is_read_back(examiner: TpmExaminer, installed: Installed) -> None:
    examiner.read_back(installed.read, installed.certificates, CHALLENGE)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"idevid": b""}, "inspection.certificate"),
        ({"iak": b"0"}, "inspection.certificate"),
        ({"leftovers": 1}, "inspection.leftovers"),
        ({"signature": b"0"}, "signature.invalid"),
    ],
)
def test_wrong_read_back_is_refused(
    examiner: TpmExaminer, installed: Installed, change: dict[str, object], code: str
) -> None:
    spoiled = replace(installed.read, **change)  # type: ignore[arg-type]
    with pytest.raises(TrustError) as caught:
        examiner.read_back(spoiled, installed.certificates, CHALLENGE)
    assert code_of(caught) == code


def test_signature_over_an_older_challenge_is_refused(examiner: TpmExaminer, installed: Installed) -> None:
    with pytest.raises(TrustError) as caught:
        examiner.read_back(installed.read, installed.certificates, b"another")
    assert code_of(caught) == "signature.invalid"
