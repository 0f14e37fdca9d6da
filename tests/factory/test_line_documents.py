"""What leaves the line and comes back: manifests for MASA and owner, and batches to and from a CA
elsewhere."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given
from hypothesis import strategies as st

from factory.ledgers import START, Clock, make_device, plant_in, unit_name
from holdfast.wire import cms, manifest, oids
from holdfast.wire.algorithms import spki
from holdfast.wire.errors import ConfigError, HoldfastError, KeyStoreError, TrustError
from holdfast_factory.authority import Authority, load_authority
from holdfast_factory.line import batch, issuing
from holdfast_factory.line.audit import audit
from holdfast_factory.line.book import Book
from holdfast_factory.line.database import Database
from holdfast_factory.line.export import export, read_checkpoint
from holdfast_factory.line.plant import CA_SIGNER, Plant, hand_out, open_plant
from holdfast_factory.unit import ProvedKeys, Purpose
from holdfast_sim import intake
from holdfast_sim.world import World


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with plant_in(tmp_path / "ca") as opened:
        yield opened


@pytest.fixture
def open_book(tmp_path: Path) -> Iterator[Callable[[str], Book]]:
    databases: list[Database] = []

    def make(name: str) -> Book:
        database = Database(f"sqlite:///{tmp_path}/{name}.db")
        database.prepare()
        databases.append(database)
        return Book(database, name, Clock())

    yield make
    for each in databases:
        each.close()


# --- manifests


@pytest.fixture
def exported(plant: Plant, open_book: Callable[[str], Book]) -> bytes:
    book = open_book("line")
    for number in range(3):
        make_device(book, plant, number)
    der, count = export(book, plant, START, audience="masa")
    assert count == 3
    return der


def test_a_manifest_tells_of_every_device(plant: Plant, exported: bytes) -> None:
    told = manifest.decode(exported, plant.signer.certificate)
    assert [device.serial for device in told.devices] == ["GW-000001", "GW-000002", "GW-000003"]
    assert {device.endorsement for device in told.devices} == {unit_name(n) for n in range(3)}
    assert (told.audience, told.organization) == ("masa", plant.product.organization)


def test_openssl_verifies_a_manifest(plant: Plant, exported: bytes, tmp_path: Path) -> None:
    (tmp_path / "m.der").write_bytes(exported)
    done = subprocess.run(
        ["openssl", "cms", "-verify", "-inform", "DER", "-in", tmp_path / "m.der", "-purpose", "any",
         "-CAfile", plant.directory / "manufacturer-root.pem"],
        capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["format"] == manifest.FORMAT


def test_a_manifest_is_a_checkpoint_too(
    plant: Plant, open_book: Callable[[str], Book], exported: bytes
) -> None:
    head = read_checkpoint(exported, plant.signer.certificate)
    audit(open_book("line").database, plant.issuer, (head,))


def test_an_owner_gets_only_what_was_sold(plant: Plant, open_book: Callable[[str], Book]) -> None:
    book = open_book("line")
    for number in range(3):
        make_device(book, plant, number)
    der, _ = export(book, plant, START, audience="owner", serials=frozenset({"GW-000002"}))
    assert [d.serial for d in manifest.decode(der, plant.signer.certificate).devices] == ["GW-000002"]
    with pytest.raises(HoldfastError) as caught:
        export(book, plant, START, audience="owner", serials=frozenset({"GW-000009"}))
    assert caught.value.code == "ledger.unknown"


def test_a_device_cannot_sign_a_manifest(plant: Plant, exported: bytes) -> None:
    """Its certificate leads to the same root."""
    told = manifest.decode(exported, plant.signer.certificate)
    with plant_in(plant.directory.parent / "other") as other:
        forged = manifest.encode(told, other.signer.key, other.signer.certificate)
    with pytest.raises(TrustError) as caught:
        manifest.decode(forged, plant.signer.certificate)
    assert caught.value.code == "manifest.signer"


def _altered(plant: Plant, exported: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    content = json.loads(cms.open_signed(exported).content)
    change(content)
    signer = plant.signer
    return cms.sign(json.dumps(content).encode(), oids.CT_DATA, signer.key, signer.certificate)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c.update(format="holdfast-manifest-9"), "manifest.syntax"),
        (lambda c: c.pop("checkpoint"), "manifest.syntax"),
        (lambda c: c["devices"].append(c["devices"][0]), "manifest.duplicate"),
        (lambda c: c["devices"][0].update(serial="GW-9"), "manifest.syntax"),
        (lambda c: c["devices"][0].update(idevid="AAAA"), "manifest.syntax"),
    ],
)
def test_a_wrong_manifest_is_refused(
    plant: Plant, exported: bytes, change: Callable[[dict[str, Any]], None], code: str
) -> None:
    with pytest.raises(HoldfastError) as caught:
        manifest.decode(_altered(plant, exported, change), plant.signer.certificate)
    assert caught.value.code == code


@given(st.binary(max_size=300))
def test_hostile_octets_are_refused_by_name(octets: bytes) -> None:
    signer = _SIGNER
    for der in (octets, cms.sign(octets, oids.CT_DATA, signer.key, signer.certificate)):
        with pytest.raises(HoldfastError):
            manifest.decode(der, signer.certificate)


def _software_signer() -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "signer")])
    end = datetime(2030, 1, 1, tzinfo=UTC)
    unsigned = x509.CertificateBuilder(name, name, key.public_key(), 1, START, end)
    return Authority(unsigned.sign(key, digest()), key)


def digest() -> Any:
    from cryptography.hazmat.primitives import hashes

    return hashes.SHA256()


_SIGNER = _software_signer()


def test_the_masa_takes_a_manifest_in(plant: Plant, exported: bytes) -> None:
    world = World.create(lambda: START, lambda n: bytes(n - 1) + b"\1")
    assert intake.take_in(world, exported, plant.signer.certificate) == 3
    assert set(world.ledger) == {"GW-000001", "GW-000002", "GW-000003"}
    world.ledger["GW-000001"] = "an owner"
    assert intake.take_in(world, exported, plant.signer.certificate) == 0
    assert world.ledger["GW-000001"] == "an owner"


def test_the_masa_notices_a_second_idevid(plant: Plant, exported: bytes) -> None:
    world = World.create(lambda: START, lambda n: bytes(n - 1) + b"\1")
    world.idevids["GW-000002"] = "0" * 64
    with pytest.raises(ConfigError) as caught:
        intake.take_in(world, exported, plant.signer.certificate)
    assert caught.value.code == "sim.manifest"
    assert not world.ledger


# --- batches


@pytest.fixture
def line(plant: Plant, tmp_path: Path) -> Iterator[Plant]:
    """The same factory without the CA's key."""
    hand_out(plant.directory, tmp_path / "handed")
    with open_plant(tmp_path / "handed") as opened:
        assert opened.issuing is None
        yield opened


def _wait_for_certificates(book: Book, plant: Plant, number: int) -> None:
    keys = ProvedKeys(*(spki(ec.generate_private_key(ec.SECP256R1())) for _ in range(2)), b"name")
    book.meet(unit_name(number), b"ek", "GW-{:06d}".format, "")
    book.reserve(issuing.wanted(unit_name(number), keys, plant.issuer, _random, START))


def _random(size: int) -> bytes:
    import os

    return os.urandom(size)


@pytest.fixture
def books(line: Plant, open_book: Callable[[str], Book]) -> tuple[Book, Book]:
    """The ledger of the line, where two units wait, and that of the CA's office."""
    book = open_book("line")
    for number in (1, 2):
        _wait_for_certificates(book, line, number)
    return book, open_book("office")


def _office(plant: Plant) -> Authority:
    return load_authority(plant.directory, CA_SIGNER)


def _answered(plant: Plant, line: Plant, books: tuple[Book, Book], name: str = "ab") -> bytes:
    asked, count = batch.ask(books[0], line, name, START)
    assert count == 4
    answer, given = batch.answer(books[1], plant, _office(plant), asked, START)
    assert given == 4
    return answer


def test_requests_go_out_and_certificates_come_in(
    plant: Plant, line: Plant, books: tuple[Book, Book]
) -> None:
    assert batch.take_in(books[0], line, _answered(plant, line, books)) == 4
    assert audit(books[0].database, line.issuer).certificates == 4
    assert audit(books[1].database, line.issuer).certificates == 4
    state = books[0].state(unit_name(1))
    assert state is not None
    assert set(state.certificates) == {Purpose.IDEVID, Purpose.IAK}
    with pytest.raises(ConfigError) as caught:
        batch.ask(books[0], line, "cd", START)
    assert caught.value.code == "factory.nothing-waits"


def test_the_same_request_gets_the_same_certificates(
    plant: Plant, line: Plant, books: tuple[Book, Book]
) -> None:
    asked, _ = batch.ask(books[0], line, "ab", START)
    first, second = (batch.answer(books[1], plant, _office(plant), asked, START)[0] for _ in range(2))
    assert cms.open_signed(first).content == cms.open_signed(second).content
    again, _ = batch.ask(books[0], line, "cd", START)  # a line that lost the answer asks anew
    third, _ = batch.answer(books[1], plant, _office(plant), again, START)
    taken = [json.loads(cms.open_signed(each).content)["certificates"] for each in (first, third)]
    assert taken[0] == taken[1]


def test_an_answer_is_taken_in_once(plant: Plant, line: Plant, books: tuple[Book, Book]) -> None:
    answer = _answered(plant, line, books)
    batch.take_in(books[0], line, answer)
    _refused(books[0], line, answer, "batch.replay")


def _refused(book: Book, line: Plant, answer: bytes, code: str) -> None:
    before = audit(book.database, line.issuer)
    with pytest.raises(HoldfastError) as caught:
        batch.take_in(book, line, answer)
    assert caught.value.code == code
    assert audit(book.database, line.issuer) == before  # nothing of it was entered


def _resigned(plant: Plant, answer: bytes, change: Callable[[dict[str, Any]], None]) -> bytes:
    content = json.loads(cms.open_signed(answer).content)
    change(content)
    office = _office(plant)
    return cms.sign(json.dumps(content).encode(), oids.CT_DATA, office.key, office.certificate)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda c: c["certificates"].pop(), "batch.partial"),
        (lambda c: c["certificates"].append(c["certificates"][0]), "batch.partial"),
        (lambda c: c["certificates"][0].update(unit="f" * 64), "batch.partial"),
        (lambda c: _swap(c["certificates"]), "factory.certificate"),
        (lambda c: c["certificates"][0].update(certificate="AAAA"), "factory.certificate"),
        (lambda c: c.update(batch="cd"), "batch.unasked"),
        (lambda c: c.update(request="0" * 64), "batch.unasked"),
        (lambda c: c.update(format="x"), "batch.syntax"),
        (lambda c: c.pop("certificates"), "batch.syntax"),
    ],
)
def test_a_wrong_answer_is_refused_as_a_whole(
    plant: Plant,
    line: Plant,
    books: tuple[Book, Book],
    change: Callable[[dict[str, Any]], None],
    code: str,
) -> None:
    _refused(books[0], line, _resigned(plant, _answered(plant, line, books), change), code)


def _swap(answers: list[dict[str, Any]]) -> None:
    answers[0]["certificate"], answers[2]["certificate"] = (
        answers[2]["certificate"],
        answers[0]["certificate"],
    )


def test_an_answer_of_somebody_else_is_refused(plant: Plant, line: Plant, books: tuple[Book, Book]) -> None:
    content = cms.open_signed(_answered(plant, line, books)).content
    forged = cms.sign(content, oids.CT_DATA, line.signer.key, line.signer.certificate)
    _refused(books[0], line, forged, "batch.signer")


def test_a_tampered_answer_is_refused(plant: Plant, line: Plant, books: tuple[Book, Book]) -> None:
    answer = bytearray(_answered(plant, line, books))
    answer[answer.index(b"holdfast-certificates")] ^= 1
    _refused(books[0], line, bytes(answer), "cms.digest")


def test_a_certificate_that_says_more_than_was_asked_is_refused(
    plant: Plant, line: Plant, books: tuple[Book, Book]
) -> None:
    """Signed by the right CA, for the right key, with the right serial numbers, and yet a CA's."""
    answer = _answered(plant, line, books)
    told = json.loads(cms.open_signed(answer).content)
    import base64

    asked = x509.load_der_x509_certificate(base64.b64decode(told["certificates"][0]["certificate"]))
    builder = x509.CertificateBuilder(
        asked.issuer, asked.subject, asked.public_key(), asked.serial_number, asked.not_valid_before_utc,
        asked.not_valid_after_utc, [*asked.extensions],
    )  # fmt: skip
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    assert plant.issuing is not None
    more = builder.sign(plant.issuing, digest()).public_bytes(Encoding.DER)

    def change(content: dict[str, Any]) -> None:
        content["certificates"][0]["certificate"] = base64.b64encode(more).decode()

    _refused(books[0], line, _resigned(plant, answer, change), "factory.certificate")


def test_the_office_answers_its_line_alone(plant: Plant, line: Plant, books: tuple[Book, Book]) -> None:
    asked, _ = batch.ask(books[0], line, "ab", START)
    content = cms.open_signed(asked).content
    office = _office(plant)
    forged = cms.sign(content, oids.CT_DATA, office.key, office.certificate)
    with pytest.raises(TrustError) as caught:
        batch.answer(books[1], plant, office, forged, START)
    assert caught.value.code == "batch.signer"


@pytest.mark.parametrize(
    ("change", "error", "code"),
    [
        (lambda r: replace(r, x509_serial="1f"), TrustError, "batch.changed"),
        (lambda r: replace(r, serial="GW-000009"), KeyStoreError, "factory.other-serial"),
        (lambda r: replace(r, unit="e" * 64), KeyStoreError, "factory.serial-used"),
    ],
)
def test_the_office_promises_no_unit_two_certificates(
    plant: Plant,
    line: Plant,
    books: tuple[Book, Book],
    change: Callable[[batch.Request], batch.Request],
    error: type[HoldfastError],
    code: str,
) -> None:
    _answered(plant, line, books)
    asked, _ = batch.ask(books[0], line, "cd", START)
    requests = msgspec.json.decode(cms.open_signed(asked).content, type=batch.Requests)
    for name in ("cd", "ef"):  # under a new name, and under one that was used
        changed = replace(requests, batch=name, requests=tuple(map(change, requests.requests)))
        signer = line.signer
        forged = cms.sign(msgspec.json.encode(changed), oids.CT_DATA, signer.key, signer.certificate)
        with pytest.raises(error) as caught:
            batch.answer(books[1], plant, _office(plant), forged, START)
        assert caught.value.code == code


def test_another_batch_under_a_used_name_is_refused(
    plant: Plant, line: Plant, books: tuple[Book, Book]
) -> None:
    _answered(plant, line, books)
    other = batch.Requests("holdfast-requests-1", "ab", issuing.issuer_id(plant.issuer), ())
    asked, _ = batch.ask(books[0], line, "cd", START)
    requests = msgspec.json.decode(cms.open_signed(asked).content, type=batch.Requests)
    content = msgspec.json.encode(replace(other, requests=requests.requests[:1]))
    forged = cms.sign(content, oids.CT_DATA, line.signer.key, line.signer.certificate)
    with pytest.raises(TrustError) as caught:
        batch.answer(books[1], plant, _office(plant), forged, START)
    assert caught.value.code == "batch.replay"


def test_what_is_handed_out_holds_no_key_of_the_ca(plant: Plant, line: Plant) -> None:
    assert plant.issuing is not None
    assert isinstance(plant.issuing, ec.EllipticCurvePrivateKey)
    secret = plant.issuing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    files = list(line.directory.iterdir())
    assert {f.name for f in files if "key" in f.name} == {"line-signer-key.pem"}
    assert all(secret not in f.read_bytes() for f in files)
