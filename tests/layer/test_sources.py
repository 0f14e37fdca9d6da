"""The sources that recipes fetch, as PyPI has them now."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen  # noqa: TID251 - no agent: it may follow the environment's proxy

import pytest

from layer.recipes import Recipe, recipes

FROM_PYPI = [r for r in recipes() if r.from_pypi]
pytestmark = pytest.mark.machine


def index() -> str:
    """Where pip looks."""
    said = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"],
        capture_output=True,
        text=True,
        check=False,
    )
    return (os.environ.get("PIP_INDEX_URL") or said.stdout.strip() or "https://pypi.org/simple").rstrip("/")


@pytest.fixture(scope="module", params=FROM_PYPI, ids=lambda r: f"{r.path.parts[-4]}/{r.path.stem}")
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path]:
    """A recipe and its archive."""
    recipe: Recipe = request.param
    project = re.sub(r"[-_.]+", "-", recipe.archive.rpartition("-")[0]).lower()
    page = f"{index()}/{project}/"
    with urlopen(page, timeout=60) as answer:
        links = re.findall(r'href="([^"#]*/([^/"#]+))[#"]', answer.read().decode())
    (link,) = {urljoin(page, url) for url, name in links if name == f"{recipe.archive}.tar.gz"}
    place = tmp_path_factory.mktemp("source") / f"{recipe.archive}.tar.gz"
    with urlopen(link, timeout=60) as answer:
        place.write_bytes(answer.read())
    return recipe, place


def read(archive: Path, name: str) -> bytes:
    """A file at the top of an archive."""
    with tarfile.open(archive) as tar:
        (member,) = [m for m in tar.getmembers() if m.name.partition("/")[2] == name]
        found = tar.extractfile(member)
        assert found is not None
        return found.read()


def test_the_checksum_is_that_of_the_archive(source: tuple[Recipe, Path]) -> None:
    recipe, archive = source
    assert recipe.one("SRC_URI[sha256sum]") == hashlib.sha256(archive.read_bytes()).hexdigest()


def test_the_licence_files_are_as_they_were_read(source: tuple[Recipe, Path]) -> None:
    recipe, archive = source
    told = [part.removeprefix("file://").split(";md5=") for part in recipe.one("LIC_FILES_CHKSUM").split()]
    assert told
    for name, md5 in told:
        assert hashlib.md5(read(archive, name)).hexdigest() == md5, name


def test_the_crates_are_those_of_the_lock(source: tuple[Recipe, Path]) -> None:
    recipe, archive = source
    if "crate://" not in recipe.text:
        assert recipe.name != "python3-cryptography"
        return
    lock = tomllib.loads(read(archive, "Cargo.lock").decode())["package"]
    wanted = {f"{c['name']}-{c['version']}": c["checksum"] for c in lock if "checksum" in c}
    told = dict(re.findall(r'^SRC_URI\[(\S+)\.sha256sum\] = "(\w+)"$', recipe.text, re.MULTILINE))
    assert told == wanted
    assert set(re.findall(r"crate://crates.io/(\S+)/(\S+)", recipe.text)) == {
        tuple(name.rsplit("-", 1)) if "+" not in name else tuple(name.split("-", 1)) for name in wanted
    }
