"""From bare TPM to sealed device: every step again and again, cut off anywhere, at every template."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

import wire_pki as pki
from factory.chips import MODEL, SERIAL, Maker, unit
from holdfast.keys.tpm_templates import storage_root
from holdfast.wire.errors import ConfigError, KeyStoreError, KeyStoreUnavailable, TrustError
from holdfast.wire.tpm.public import parse_public
from holdfast.wire.tpm.templates import Level
from holdfast_factory.chips import commands, nv
from holdfast_factory.chips.commands import OWNER, PLATFORM
from holdfast_factory.chips.dialogue import Batch, Dialogue, hold, sweep
from holdfast_factory.chips.ek_issue import issue, read_authority
from holdfast_factory.chips.keys import IDEVID_HANDLE, STORAGE_ROOT, storage_root_key
from holdfast_factory.chips.links import TctiLink
from holdfast_factory.places import examiner_for, open_unit
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_examiner import TpmExaminer, require_activated
from holdfast_factory.tpm_meter import TpmMeter
from holdfast_factory.tpm_unit import IAK_NV, IDEVID_NV, TpmUnit
from holdfast_factory.unit import Certificates

pytestmark = pytest.mark.tpm
NOW = datetime.now(UTC) + timedelta(hours=1)
ISSUER = pki.ca("Factory")
CHALLENGE = b"a challenge of the station"


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture
def chip(maker: Maker, request: pytest.FixtureRequest) -> Iterator[Swtpm]:
    with maker.chip(request.node.name.replace("/", "-")) as running:
        yield running


@dataclass
class Public:
    key: object

    def public_key(self) -> object:
        return self.key


@cache
def issued(idevid: bytes, iak: bytes) -> Certificates:
    """The same certificates each time, as a ledger would keep them."""
    ders = [
        pki.certificate("device", Public(parse_public(area).key), ISSUER).certificate.public_bytes(  # type: ignore[arg-type]
            Encoding.DER
        )
        for area in (idevid, iak)
    ]
    return Certificates(ders[0], ders[1], ISSUER.certificate.public_bytes(Encoding.DER))


def whole(opened: TpmUnit, examiner: TpmExaminer) -> Certificates:
    """All steps as a station takes them."""
    endorsement = opened.endorsement()
    examiner.endorsement(endorsement, NOW)
    shown = opened.keys(MODEL, SERIAL)
    proved = examiner.keys(shown, endorsement, MODEL, SERIAL)
    sealed, secret = examiner.seal(proved, endorsement, os.urandom)
    require_activated(opened.activate(sealed), secret)
    certificates = issued(shown.idevid, shown.iak)
    opened.install(certificates)
    examiner.read_back(opened.read_back(CHALLENGE), certificates, CHALLENGE)
    assert set(opened.lock()) == {"nv-idevid-platform", "nv-iak-platform", "lockout-32"}
    return certificates


@pytest.mark.parametrize("level", Level)
def test_every_template(maker: Maker, chip: Swtpm, level: Level) -> None:
    with unit(chip, level) as opened:
        whole(opened, TpmExaminer(maker.roots))
    assert left_in(chip) == 0


def test_places_open_it(maker: Maker, chip: Swtpm) -> None:
    place = f"tcti:{chip.tcti}"
    opened = open_unit(place)
    examiner = examiner_for(place, maker.roots)
    try:
        examiner.endorsement(opened.endorsement(), NOW)
        assert opened.place == place
    finally:
        opened.close()


def test_nothing_there_is_said(chip: Swtpm) -> None:
    chip.stop()
    with pytest.raises(KeyStoreUnavailable):
        open_unit(f"tcti:{chip.tcti}").endorsement()


def test_second_time_finds_everything_and_changes_nothing(maker: Maker, chip: Swtpm) -> None:
    examiner = TpmExaminer(maker.roots)
    with TpmMeter(chip.port) as meter:
        with TpmUnit(TctiLink(meter.tcti), "bench") as opened:
            first = whole(opened, examiner)
        meter.take()
        with TpmUnit(TctiLink(meter.tcti), "bench") as opened:
            assert whole(opened, examiner) == first
        again = {command.name for command in meter.take()}
    assert not again & {"CreatePrimary", "EvictControl", "NV_DefineSpace", "NV_Write", "NV_UndefineSpace"}


def test_cut_off_after_any_command(maker: Maker, chip: Swtpm) -> None:
    """The station dies after each command of the whole flow, one after the other, and begins again."""
    examiner = TpmExaminer(maker.roots)
    link = DyingLink(TctiLink(chip.tcti))
    deaths = 0
    while True:
        link.lives_for(deaths)
        opened = TpmUnit(link, "bench")
        try:
            certificates = whole(opened, examiner)
        except KeyStoreUnavailable:
            deaths += 1
            continue
        break
    opened.close()
    assert deaths > 25
    with unit(chip) as opened:
        examiner.read_back(opened.read_back(CHALLENGE), certificates, CHALLENGE)
    assert left_in(chip) <= 1  # a policy session, which a reset or the next lack of room takes away


class DyingLink:
    """A link whose other end does *count* more commands, and is then not heard of again."""

    def __init__(self, link: TctiLink) -> None:
        self._link = link
        self._left = 0

    def lives_for(self, count: int) -> None:
        self._left = count

    def exchange(self, batch: tuple[bytes, ...]) -> tuple[bytes, ...]:
        doable = batch[: self._left]
        self._left -= len(doable)
        answers = self._link.exchange(doable) if doable else ()
        if len(doable) < len(batch):
            raise KeyStoreUnavailable("test.cut-off")
        return answers

    def close(self) -> None:
        self._link.close()


def test_reset_between_steps(maker: Maker, chip: Swtpm) -> None:
    examiner = TpmExaminer(maker.roots)
    with unit(chip) as opened:
        opened.endorsement()
        opened.keys(MODEL, SERIAL)
    chip.restart(orderly=False)
    with unit(chip) as opened:
        whole(opened, examiner)


def test_full_tpm_is_emptied(maker: Maker, chip: Swtpm) -> None:
    """Objects and sessions of somebody who was killed leave no place."""

    def fill() -> Dialogue[None]:
        yield (storage_root_key(),) * 3
        yield (commands.start_policy(0x000B),) * 3

    link = TctiLink(chip.tcti)
    try:
        hold(link, fill, "fill")
    finally:
        link.close()
    with unit(chip) as opened:
        whole(opened, TpmExaminer(maker.roots))


def test_owner_can_neither_write_nor_remove_what_was_locked(maker: Maker, chip: Swtpm) -> None:
    with unit(chip) as opened:
        certificates = whole(opened, TpmExaminer(maker.roots))
    for forbidden in (
        commands.nv_write(OWNER, IDEVID_NV, b"x", 0),
        commands.nv_write(PLATFORM, IDEVID_NV, b"x", 0),
        commands.nv_write(IDEVID_NV, IDEVID_NV, b"x", 0),
        commands.nv_undefine(OWNER, IDEVID_NV),
        commands.nv_undefine(OWNER, IAK_NV),
    ):
        with pytest.raises(KeyStoreError):
            ask(chip, forbidden)
    chip.restart()
    with unit(chip) as opened:
        assert opened.read_back(CHALLENGE).idevid == certificates.idevid


def test_certificates_outlive_the_owners_clear_and_keys_come_back(maker: Maker, chip: Swtpm) -> None:
    """TPM2_Clear evicts the keys; the same templates make the same keys again, for the same certificates."""
    examiner = TpmExaminer(maker.roots)
    with unit(chip) as opened:
        certificates = whole(opened, examiner)
    ask(chip, commands.Command(0x126, (0x4000000A,), b"", (None,)))  # TPM2_Clear by the lockout authorisation
    with pytest.raises(KeyStoreError):
        ask(chip, commands.read_public(IDEVID_HANDLE))
    with unit(chip) as opened:
        shown = opened.keys(MODEL, SERIAL)
        examiner.read_back(opened.read_back(CHALLENGE), certificates, CHALLENGE)
        assert issued(shown.idevid, shown.iak) == certificates


def test_where_the_platform_is_closed_the_owner_defines(maker: Maker, chip: Swtpm) -> None:
    ask(chip, commands.hierarchy_control(PLATFORM))
    examiner = TpmExaminer(maker.roots)
    with unit(chip) as opened:
        endorsement = opened.endorsement()
        shown = opened.keys(MODEL, SERIAL)
        examiner.keys(shown, endorsement, MODEL, SERIAL)
        certificates = issued(shown.idevid, shown.iak)
        opened.install(certificates)
        examiner.read_back(opened.read_back(CHALLENGE), certificates, CHALLENGE)
        assert set(opened.lock()) == {"nv-idevid-owner", "nv-iak-owner", "lockout-32"}
    with pytest.raises(KeyStoreError):
        ask(chip, commands.nv_write(OWNER, IDEVID_NV, b"x", 0))


def test_other_content_is_replaced_until_it_is_locked(maker: Maker, chip: Swtpm) -> None:
    with unit(chip) as opened:
        opened.install(Certificates(b"half", b"half", b""))
        opened.install(Certificates(b"whole thing", b"another", b""))
        opened.keys(MODEL, SERIAL)
        read = opened.read_back(CHALLENGE)
        assert (read.idevid, read.iak) == (b"whole thing", b"another")
        opened.lock()
        with pytest.raises(KeyStoreError) as caught:
            opened.install(Certificates(b"third", b"another", b""))
        assert caught.value.code == "factory.nv-taken"


def test_key_of_somebody_else_at_the_handle_is_refused(chip: Swtpm) -> None:
    def foreign() -> Dialogue[None]:
        (made,) = yield (storage_root_key(),)
        yield (commands.evict(OWNER, made.handle, IDEVID_HANDLE), commands.flush(made.handle))

    link = TctiLink(chip.tcti)
    try:
        hold(link, foreign, "put a key there")
    finally:
        link.close()
    with unit(chip) as opened, pytest.raises(KeyStoreError) as caught:
        opened.keys(MODEL, SERIAL)
    assert caught.value.code == "factory.handle-taken"
    assert left_in(chip) == 0


def test_padding_behind_a_certificate_is_cut_off() -> None:
    assert nv.without_padding(b"\x30\x82\x00\x01a\xff\xff") == b"\x30\x82\x00\x01a"


def ask(chip: Swtpm, command: commands.Command) -> None:
    def once() -> Dialogue[None]:
        batch: Batch = (command,)
        yield batch

    link = TctiLink(chip.tcti)
    try:
        hold(link, once, "ask")
    finally:
        link.close()


def left_in(chip: Swtpm) -> int:
    """Transient objects and sessions that are loaded."""
    link = TctiLink(chip.tcti)
    try:
        return sweep(link)
    finally:
        link.close()


def test_storage_root_is_the_agents() -> None:
    assert bytes(storage_root().marshal()) == STORAGE_ROOT


def test_examiner_needs_no_tpm_software() -> None:
    """Whoever judges evidence elsewhere needs the wire alone."""
    code = "import sys, holdfast_factory.tpm_examiner; sys.exit('tpm2_pytss' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_endorsement_key_is_certified_on_the_spot_by_policy_only(tmp_path: Path) -> None:
    ca = pki.ca("EK CA", not_before=NOW - timedelta(days=1), not_after=NOW + timedelta(days=9))
    file = tmp_path / "ek-ca.pem"
    file.write_bytes(
        ca.certificate.public_bytes(Encoding.PEM)
        + ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    authority = read_authority(file)
    with Swtpm(tmp_path / "blank") as blank:
        place = f"tcti:{blank.tcti}"
        examiner = examiner_for(place, (ca.certificate,))
        bare = open_unit(place)
        with pytest.raises(TrustError) as caught:
            examiner.endorsement(bare.endorsement(), NOW)
        assert caught.value.code == "ek.no-certificate"
        bare.close()
        endorsed = open_unit(place, endorser=lambda ek, chip: issue(authority, ek, chip, NOW))
        shown = endorsed.endorsement()
        examiner.endorsement(shown, NOW)
        endorsed.close()
        after = open_unit(place)
        assert after.endorsement() == shown
        after.close()


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"])
def test_no_authority_in_the_file_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.pem").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_authority(tmp_path / "ca.pem")
    assert caught.value.code == "factory.issue-ek"
