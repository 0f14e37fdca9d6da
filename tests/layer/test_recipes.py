"""The recipes against the project that they build, and against the style guide."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from layer.recipes import LAYER, ROOT, Recipe, recipes

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OURS = {r.name: r for r in recipes() if r.name.startswith("holdfast") and r.version not in {"", "1.0"}}
SERIES = ("scarthgap", "wrynose")
LEFT_OUT = ("psycopg",)
RECIPE_OF = {"pyyaml": "python3-pyyaml", "python-pkcs11": "python3-pkcs11"}


def fetched(recipe: Recipe) -> list[str]:
    """Parts of the checkout that a recipe takes."""
    words = " ".join(recipe.all("SRC_URI")).split()
    return [w.removeprefix("file://").split(";")[0] for w in words if ";subdir=" in w]


@pytest.mark.parametrize("release", SERIES)
def test_the_style_guide_has_nothing_to_say(release: str, tmp_path: Path) -> None:
    tool = Path(sys.executable).with_name("oelint-adv")
    # A copy: below any directory called machine or distro the tool takes layer.conf for another kind of file.
    layer = shutil.copytree(LAYER, tmp_path / LAYER.name)
    files = [*layer.rglob("*.bb"), *layer.rglob("*.bbappend"), layer / "conf/layer.conf"]
    # The one rule that is left out asks whether a home page answers, which is no property of a recipe.
    options = ["--quiet", "--hide", "info", "--suppress", "oelint.vars.homepageping", "--release", release]
    done = subprocess.run([tool, *options, *files], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_all_three_parts_have_a_recipe_of_this_version() -> None:
    assert set(OURS) == {"holdfast", "holdfast-factory", "holdfast-sim"}
    assert {r.version for r in OURS.values()} == {PROJECT["version"]}


@pytest.mark.parametrize("name", OURS)
def test_the_licence_is_the_one_that_is_declared(name: str) -> None:
    md5 = hashlib.md5((ROOT / "LICENSE").read_bytes()).hexdigest()
    assert OURS[name].one("LIC_FILES_CHKSUM") == f"file://LICENSE;md5={md5}"
    assert OURS[name].one("LICENSE") == PROJECT["license"]


@pytest.mark.parametrize("name", OURS)
def test_what_is_fetched_exists(name: str) -> None:
    assert fetched(OURS[name])
    assert all((ROOT / part).exists() for part in fetched(OURS[name]))


@pytest.mark.parametrize(
    ("name", "inside"),
    [("holdfast", "holdfast"), ("holdfast-factory", "holdfast_factory"), ("holdfast-sim", "holdfast_sim")],
)
def test_a_wheel_of_what_is_fetched_holds_that_part_alone(name: str, inside: str, tmp_path: Path) -> None:
    """As do_unpack and do_compile: nothing but what SRC_URI names is there to be built."""
    source = tmp_path / "source"
    source.mkdir()
    for part in fetched(OURS[name]):
        place = ROOT / part
        if place.is_dir():
            shutil.copytree(place, source / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(place, source / part)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path, source]
    subprocess.run(pip, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    top = {n.split("/")[0] for n in zipfile.ZipFile(wheel).namelist()}
    assert {t for t in top if "." not in t} == {inside}


def bound(recipe: Recipe, package: str) -> str | None:
    """The lower bound that *recipe* puts on a package."""
    told = " ".join([*recipe.all("RDEPENDS:${PN}"), *re.findall(r"^PACKAGECONFIG\[.*", recipe.text, re.M)])
    found = re.search(rf"(?<![\w-]){re.escape(package)} \(>= ([\d.]+)\)", told)
    return found[1] if found else None


@pytest.mark.parametrize(
    ("name", "text"),
    [("holdfast", r) for r in PROJECT["dependencies"]]
    + [("holdfast", r) for e in ("tpm", "pkcs11", "acme") for r in PROJECT["optional-dependencies"][e]]
    + [("holdfast-sim", r) for r in PROJECT["optional-dependencies"]["simulator"]]
    + [
        ("holdfast-factory", r)
        for r in PROJECT["optional-dependencies"]["factory"]
        if not r.startswith((*LEFT_OUT, "tpm2-pytss", "python-pkcs11"))
    ],
)
def test_every_dependency_is_asked_for_with_its_bound(name: str, text: str) -> None:
    need = Requirement(text)
    package = RECIPE_OF.get(need.name.lower(), f"python3-{need.name.lower()}")
    told = bound(OURS[name], package)
    assert told is not None
    assert need.specifier.contains(told)
    assert Version(told) == Version(next(iter(need.specifier)).version)


@pytest.mark.parametrize("release", SERIES)
def test_what_a_series_gets_instead_of_its_own_is_not_given_unasked(release: str) -> None:
    wanted = (LAYER / f"conf/include/holdfast-{release}.inc").read_text()
    chosen = dict(re.findall(r'^PREFERRED_VERSION_(\S+) \?= "(.*)"$', wanted, re.MULTILINE))
    shy = {
        r.name: r.version
        for r in recipes()
        if f"for-{release}" in r.path.parts and r.all("DEFAULT_PREFERENCE") == ["-1"]
    }
    assert shy
    assert {n: v for n, v in chosen.items() if not n.endswith("-native")} == shy


def test_without_a_configuration_of_the_product_none_is_installed() -> None:
    (conf,) = [r for r in recipes() if r.name == "holdfast-conf"]
    assert conf.one("SRC_URI") == "file://holdfast.yaml.example"
