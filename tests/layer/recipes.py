"""What the layer's recipes say, read as text: the few forms that we write, and no more."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAYER = ROOT / "yocto/meta-holdfast"
_LINE = re.compile(r"^([\w:$\{\}.\[\]-]+)\s*(\+=|\?\?=|\?=|=)\s*\"(.*)\"$")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One ``.bb`` with what it requires from this layer."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        return self.path.stem.split("_")[0]

    @property
    def version(self) -> str:
        return self.path.stem.partition("_")[2]

    def all(self, variable: str) -> list[str]:
        """Every value that is given to *variable*, in order."""
        joined = self.text.replace("\\\n", " ")
        found = filter(None, map(_LINE.match, joined.splitlines()))
        return [" ".join(m[3].split()) for m in found if m[1] == variable]

    def one(self, variable: str) -> str:
        """The only value of *variable*."""
        (value,) = self.all(variable)
        return value

    @property
    def from_pypi(self) -> bool:
        return re.search(r"^inherit .*\bpypi\b", self.text, re.MULTILINE) is not None

    @property
    def archive(self) -> str:
        """Name of the source on PyPI, without its suffix."""
        project = (self.all("PYPI_PACKAGE") or [self.name.removeprefix("python3-")])[0]
        return f"{project}-{self.version}"


def _whole(path: Path) -> str:
    def included(found: re.Match[str]) -> str:
        name = found[1].replace("${BPN}", path.stem.split("_")[0])
        near, far = path.parent / name, LAYER / name
        return _whole(near if near.exists() else far)

    return re.sub(r"^require (\S+)$", included, path.read_text(), flags=re.MULTILINE)


def recipes() -> Iterator[Recipe]:
    """All of the layer, every series'."""
    for path in sorted(LAYER.rglob("*.bb")):
        yield Recipe(path, _whole(path))
