"""Other programs see one complete generation at every instant, whatever is cut off."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from holdfast.host import durable
from holdfast.host.credentials import CredentialFiles
from holdfast.wire.errors import LocalProtocolError, StateError
from host.power_cut import Dead, PowerCut

KEY = b"-----BEGIN TSS2 PRIVATE KEY-----\nreference\n-----END TSS2 PRIVATE KEY-----\n"


def certificate(name: str) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=9))
        .sign(key, hashes.SHA256())
    )


CHAINS = {n: (certificate(f"leaf {n}"), certificate("intermediate")) for n in range(1, 6)}
ANCHORS = (certificate("anchor"),)


def pem(chain: tuple[x509.Certificate, ...]) -> bytes:
    return b"".join(c.public_bytes(Encoding.PEM) for c in chain)


PEMS = {n: pem(chain) for n, chain in CHAINS.items()}


@pytest.fixture(autouse=True)
def no_waiting_for_the_medium(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an fsync would keep is PowerCut's business; the medium of this machine only costs time."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.fixture
def files(tmp_path: Path) -> CredentialFiles:
    return CredentialFiles(tmp_path / "identities", "ldevid")


def staged(files: CredentialFiles, generation: int, content: int | None = None) -> None:
    files.stage(generation, CHAINS[content or generation], ANCHORS, KEY)


def active(files: CredentialFiles, *generations: int) -> CredentialFiles:
    for each in generations:
        staged(files, each)
        files.promote(each)
    return files


def seen(files: CredentialFiles) -> int | None:
    """Which content other programs read: checks that the generation is complete."""
    directory = files.current_directory
    if not directory.is_symlink():
        return None
    chain = (directory / "chain.pem").read_bytes()
    assert (directory / "anchors.pem").read_bytes() == pem(ANCHORS)
    assert (directory / "key.pem").read_bytes() == KEY
    return next(n for n, known in PEMS.items() if known == chain)


def names(files: CredentialFiles) -> list[str]:
    return sorted(p.name for p in files.current_directory.parent.iterdir())


def test_staging_shows_nothing_to_other_programs(files: CredentialFiles) -> None:
    assert files.current() is None
    staged(files, 1)
    assert (files.current(), seen(files)) == (None, None)
    files.promote(1)
    assert (files.current(), seen(files)) == (1, 1)
    staged(files, 2)
    assert (files.current(), seen(files)) == (1, 1)


def test_modes_do_not_depend_on_the_umask(files: CredentialFiles) -> None:
    old = os.umask(0o077)
    try:
        active(files, 1)
    finally:
        os.umask(old)
    home = files.current_directory.parent
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (home, *home.glob("generation-1/*"))}
    assert modes == {"ldevid": 0o755, "chain.pem": 0o644, "anchors.pem": 0o644, "key.pem": 0o640}
    assert stat.S_IMODE((home / "generation-1").stat().st_mode) == 0o755


def test_openssl_reads_the_files(files: CredentialFiles) -> None:
    active(files, 1)
    out = subprocess.check_output(
        ["openssl", "crl2pkcs7", "-nocrl", "-certfile", files.current_directory / "chain.pem"]
    )
    text = subprocess.run(
        ["openssl", "pkcs7", "-print_certs", "-noout"], input=out, stdout=subprocess.PIPE, check=True
    ).stdout.decode()
    assert text.index("leaf 1") < text.index("intermediate")


def test_a_key_without_a_reference_has_no_key_file(files: CredentialFiles) -> None:
    files.stage(1, CHAINS[1], ANCHORS, None)
    files.promote(1)
    assert sorted(p.name for p in files.current_directory.iterdir()) == ["anchors.pem", "chain.pem"]


def test_the_generation_before_is_kept_and_older_ones_go(files: CredentialFiles) -> None:
    active(files, 1, 2, 3)
    assert names(files) == ["current", "generation-2", "generation-3", "previous"]
    assert files.rollback(3) == 2
    assert seen(files) == 2


def test_rolling_back_again_or_another_generation_does_nothing(files: CredentialFiles) -> None:
    active(files, 1, 2)
    assert files.rollback(1) == 2
    assert files.rollback(2) == 1
    assert files.rollback(2) == 1
    assert seen(files) == 1


def test_rolling_back_the_first_leaves_nothing_current(files: CredentialFiles) -> None:
    active(files, 1)
    assert files.rollback(1) is None
    assert seen(files) is None


def test_after_a_roll_back_the_next_promotion_keeps_the_proven_one(files: CredentialFiles) -> None:
    active(files, 1, 2)
    files.rollback(2)
    active(files, 3)
    assert names(files) == ["current", "generation-1", "generation-3", "previous"]
    assert files.rollback(3) == 1


def test_staging_and_promoting_again_changes_nothing(files: CredentialFiles) -> None:
    active(files, 1, 2)
    home = files.current_directory.parent
    before = {p: p.lstat().st_ino for p in home.rglob("*")}
    staged(files, 2)
    files.promote(2)
    assert {p: p.lstat().st_ino for p in home.rglob("*")} == before
    assert files.rollback(2) == 1


def test_staging_other_content_replaces_what_is_not_current(files: CredentialFiles) -> None:
    active(files, 1)
    staged(files, 2, content=3)
    staged(files, 2, content=4)
    files.promote(2)
    assert seen(files) == 4


def test_numbers_that_start_anew_do_not_disturb_the_programs(files: CredentialFiles) -> None:
    """After the record was lost, the first generation is 1 again while generation-1 is in use."""
    active(files, 1)
    staged(files, 1, content=5)
    assert seen(files) == 1
    assert files.current() is None, "what is in use is not the generation 1 that was staged"
    files.promote(1)
    assert (files.current(), seen(files)) == (1, 5)
    files.rollback(1)
    assert seen(files) == 1


def test_what_was_not_staged_is_not_promoted(files: CredentialFiles) -> None:
    active(files, 1)
    with pytest.raises(StateError) as caught:
        files.promote(2)
    assert caught.value.code == "credentials.not-staged"
    assert seen(files) == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", "A", "x" * 33])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(LocalProtocolError):
        CredentialFiles(tmp_path, name)


def test_a_link_in_the_place_of_a_directory_is_not_followed(tmp_path: Path, files: CredentialFiles) -> None:
    (tmp_path / "identities").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "identities" / "ldevid").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "generation-1.new").symlink_to(tmp_path)
    with pytest.raises(StateError):
        CredentialFiles(tmp_path, "elsewhere").stage(1, CHAINS[1], ANCHORS, KEY)


# --- power cuts -----------------------------------------------------------------------------------------

Act = Callable[[CredentialFiles], Any]
SCENES: dict[str, tuple[Callable[[CredentialFiles], Any], Act, set[int | None], int | None]] = {
    # name: (before, the act, contents that may be seen after a cut, content after the whole act)
    "first stage": (lambda f: None, lambda f: staged(f, 1), {None}, None),
    "first promote": (lambda f: staged(f, 1), lambda f: f.promote(1), {None, 1}, 1),
    "stage": (lambda f: active(f, 1, 2), lambda f: staged(f, 3), {2}, 2),
    "stage over a staged one": (
        lambda f: (active(f, 1), staged(f, 2, content=4)),
        lambda f: staged(f, 2),
        {1},
        1,
    ),
    "promote": (lambda f: (active(f, 1, 2), staged(f, 3)), lambda f: f.promote(3), {2, 3}, 3),
    "roll back": (lambda f: active(f, 1, 2), lambda f: f.rollback(2), {1, 2}, 1),
    "roll back the first": (lambda f: active(f, 1), lambda f: f.rollback(1), {None, 1}, None),
    "numbers anew": (lambda f: active(f, 1), lambda f: staged(f, 1, content=5), {1}, 1),
    "numbers anew, promoted": (
        lambda f: (active(f, 1), staged(f, 1, content=5)),
        lambda f: f.promote(1),
        {1, 5},
        5,
    ),
}


def cuts(tmp_path: Path, scene: str, *, data: bool, names: bool) -> Iterator[tuple[CredentialFiles, bool]]:
    """The scene, cut at its first operation, its second ... and last not at all (True)."""
    before, act, _, _ = SCENES[scene]
    k = 0
    while True:
        root = tmp_path / f"cut-{k}"
        (root / "identities").mkdir(parents=True)
        shadow = root / "shadow"
        shadow.mkdir()
        files = CredentialFiles(root / "identities", "ldevid")
        before(files)
        cut = PowerCut(root / "identities", shadow, at=k)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(durable, "os", cut)
            with suppress(Dead):
                act(files)
        cut.lose(data=data, names=names)
        yield files, not cut.dead
        shutil.rmtree(root)
        if not cut.dead:
            assert k >= 2
            return
        k += 1


@pytest.mark.crash
@pytest.mark.parametrize("scene", SCENES)
@pytest.mark.parametrize("data", [False, True], ids=["", "torn"])
@pytest.mark.parametrize("lost", [False, True], ids=["", "names-lost"])
def test_a_cut_at_every_operation_shows_a_complete_generation_and_can_be_repeated(
    tmp_path: Path, scene: str, data: bool, lost: bool
) -> None:
    _, act, allowed, final = SCENES[scene]
    for files, finished in cuts(tmp_path, scene, data=data, names=lost):
        assert seen(files) in ({final} if finished else allowed)
        act(files)
        assert seen(files) == final
        # And whatever was left over, life goes on.
        active(files, 3, 4)
        assert seen(files) == 4
        assert files.rollback(4) == 3
        assert seen(files) == 3
        assert {n for n in names(files) if n.startswith("generation")} == {"generation-3", "generation-4"}


@pytest.mark.parametrize(
    ("error", "code"), [(errno.ENOSPC, "credentials.full"), (errno.EROFS, "credentials.read-only")]
)
def test_a_disk_that_refuses_is_a_clear_error_and_changes_nothing(
    files: CredentialFiles, monkeypatch: pytest.MonkeyPatch, error: int, code: str
) -> None:
    active(files, 1)

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            def refuse(*_: Any, **__: Any) -> Any:
                raise OSError(error, os.strerror(error))

            return refuse if name in {"write", "rename", "symlink"} else getattr(os, name)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "os", Refusing())
        with pytest.raises(StateError) as caught:
            staged(files, 2)
    assert caught.value.code == code
    assert "stage generation 2" in caught.value.detail
    assert seen(files) == 1
    active(files, 2)
    assert seen(files) == 2


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "numbers-anew"])
def test_what_was_staged_and_promoted_is_durable_on_return(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, used: bool
) -> None:
    root, shadow = tmp_path / "identities", tmp_path / "shadow"
    root.mkdir()
    shadow.mkdir()
    files = CredentialFiles(root, "ldevid")
    if used:
        active(files, 1)
    for act, expected in (
        (lambda: staged(files, 1, content=5), 1 if used else None),
        (lambda: files.promote(1), 5),
    ):
        cut = PowerCut(root, shadow)
        with monkeypatch.context() as patch:
            patch.setattr(durable, "os", cut)
            act()
        cut.lose(data=True, names=True)
        assert seen(files) == expected
