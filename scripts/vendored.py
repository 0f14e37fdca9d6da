"""What a Debian release has of what Holdfast imports, and what must come from PyPI beside it.

``python scripts/vendored.py SUITE PYTHON DIRECTORY < CANDIDATES`` writes agent, servers, source and build.txt
in DIRECTORY for one release (``scripts/deb.sh --lock``). CANDIDATES are lines ``package version`` of it.
A project comes from Debian if its version there satisfies every bound that anything in the closure puts on
it; otherwise it is pinned, with the hashes of its wheels for each machine type that we build packages for.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).resolve().parent.parent
MACHINES: Final = ("x86_64", "aarch64")

SOURCE_ONLY: Final = {"tpm2-pytss": ["cffi>=1.0.0", "cryptography>=47.0.0", "packaging"]}
"""Projects that PyPI has as source only: compiled against the release's libraries, and what they import."""

BACKENDS: Final = (
    "hatchling>=1.25",
    "setuptools>=77",
    "setuptools-scm[toml]>=3.4.3",
    "pkgconfig",
    "pycparser",
)
"""What builds Holdfast's wheel, and the ones of SOURCE_ONLY."""

DEBIAN: Final = {
    "attrs": "python3-attr",
    "cffi": "python3-cffi-backend",
    "python-pkcs11": "python3-pkcs11",
    "pyyaml": "python3-yaml",
}
"""Packages that are not called python3-PROJECT."""

INSTEAD: Final = {"psycopg-binary": "libpq5"}
"""Projects that only carry a library which every release has."""

Report = dict[str, Any]


def debian_name(project: str) -> str:
    """The Debian package that holds *project*, if one does."""
    return DEBIAN.get(project, f"python3-{project}")


def upstream(version: str) -> str:
    """A Debian version without epoch, revision and what was repacked."""
    return re.sub(r"^\d+:|[+~](dfsg|ds|really).*|-[^-]*$", "", version)


def report(requirements: Iterable[str], python: str, machine: str) -> dict[str, Report]:
    """What pip would install, by project."""
    platforms = [f"--platform=manylinux_2_{minor}_{machine}" for minor in (35, 34, 31, 28, 27, 24, 17)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--report=-",
         "--only-binary=:all:", "--implementation=cp", f"--python-version={python}", *platforms,
         f"--platform=manylinux2014_{machine}", "--target=/nonexistent", *requirements],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)["install"]
    return {canonicalize_name(item["metadata"]["name"]): item for item in found}


def needs(item: Report, python: str, extras: Iterable[str]) -> Iterator[Requirement]:
    """What one project needs on a device, with its *extras*."""
    release = {"python_full_version": f"{python}.0", "python_version": python}
    for text in item["metadata"].get("requires_dist", []):
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({**release, "extra": extra}) for extra in ("", *extras)):
            yield requirement


class Plan:
    """Who gives what: filled by :meth:`walk`."""

    def __init__(self, python: str, closure: dict[str, Report], candidates: dict[str, str]) -> None:
        self.python, self.closure, self.candidates = python, closure, candidates
        self.bounds: dict[str, list[Requirement]] = {}
        self.extras: dict[str, set[str]] = {}
        self.debian: dict[str, str] = {}
        self.vendored: list[str] = []

    def needed(self, project: str) -> list[Requirement]:
        """What *project* needs, however it comes."""
        if project in SOURCE_ONLY:
            return [Requirement(text) for text in SOURCE_ONLY[project]]
        return list(needs(self.closure[project], self.python, self.extras.get(project, ())))

    def gather(self, requirements: Iterable[Requirement]) -> None:
        """All bounds on all projects."""
        for requirement in requirements:
            name = canonicalize_name(requirement.name)
            extras = self.extras.setdefault(name, set())
            known = name in self.bounds and requirement.extras <= extras
            extras |= requirement.extras
            self.bounds.setdefault(name, []).append(requirement)
            if not known:
                self.gather(self.needed(name))

    def walk(self, names: Iterable[str]) -> tuple[list[str], list[str]]:
        """For *names*: projects to vendor, and Debian's packages. Those of earlier calls are left out."""
        before, given = len(self.vendored), len(self.debian)
        todo = [canonicalize_name(name) for name in names]
        while todo:
            name = todo.pop(0)
            if name in self.vendored or name in self.debian:
                continue
            if name in INSTEAD:
                self.debian[name] = INSTEAD[name]
                continue
            version = self.candidates.get(debian_name(name))
            if version and all(b.specifier.contains(upstream(version)) for b in self.bounds[name]):
                self.debian[name] = f"{debian_name(name)} (>= {upstream(version)})"
                continue
            self.vendored.append(name)
            todo += [canonicalize_name(r.name) for r in self.needed(name)]
        return self.vendored[before:], list(self.debian.values())[given:]


def pins(names: Iterable[str], reports: Iterable[dict[str, Report]]) -> str:
    """Lines of a requirements file with hashes."""
    lines = []
    for name in sorted(names):
        items = [r[name] for r in reports if name in r]
        versions = {item["metadata"]["version"] for item in items}
        if len(versions) != 1:
            raise SystemExit(f"{name}: {sorted(versions)} on different machines")
        hashes = sorted({item["download_info"]["archive_info"]["hashes"]["sha256"] for item in items})
        told = "".join(f" \\\n    --hash=sha256:{value}" for value in hashes)
        lines.append(f"{name}=={versions.pop()}{told}\n")
    return "".join(lines)


def source_pin(requirement: str) -> str:
    """The newest source of a project, with its hash; read by pip without building it."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps",
         "--report=-", "--no-binary=:all:", requirement],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    (item,) = json.loads(done.stdout)["install"]
    value = item["download_info"]["archive_info"]["hashes"]["sha256"]
    name, version = canonicalize_name(item["metadata"]["name"]), item["metadata"]["version"]
    return f"{name}=={version} --hash=sha256:{value}\n"


def main() -> None:
    """Write the files of one release."""
    suite, python, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    candidates = dict(line.split() for line in sys.stdin if len(line.split()) == 2)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    agent = [*project["dependencies"], *extras["tpm"], *extras["pkcs11"], *extras["acme"]]
    servers = [*extras["simulator"], *extras["factory"]]

    def wheels(requirements: Iterable[str]) -> list[str]:
        return [r for r in requirements if canonicalize_name(Requirement(r).name) not in SOURCE_ONLY]

    asked = wheels([*agent, *servers, *(n for needed in SOURCE_ONLY.values() for n in needed)])
    reports = [report(asked, python, machine) for machine in MACHINES]
    plan = Plan(python, reports[0], candidates)
    plan.gather(Requirement(r) for r in [*agent, *servers])
    groups = {
        "agent": plan.walk(Requirement(r).name for r in agent),
        "servers": plan.walk(Requirement(r).name for r in servers),
    }
    sources = [name for name in SOURCE_ONLY if name in plan.vendored]
    for title, (names, given) in groups.items():
        text = "".join(f"# debian: {line}\n" for line in sorted(given))
        text += pins([n for n in names if n not in SOURCE_ONLY], reports)
        (directory / f"{title}.txt").write_text(text)
    needed = [r for r in agent if canonicalize_name(Requirement(r).name) in sources]
    (directory / "source.txt").write_text(
        f"# compiled against the libraries of {suite}\n" + "".join(source_pin(r) for r in needed)
    )
    backends = [report(BACKENDS, python, machine) for machine in MACHINES]
    (directory / "build.txt").write_text("# only while building\n" + pins(backends[0], backends))


if __name__ == "__main__":
    main()
