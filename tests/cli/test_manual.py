"""The manual pages: made of the program itself, and without a word from a strict reader of mdoc."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from holdfast.cli.commands import tree
from holdfast.cli.exits import MEANING
from holdfast.cli.main import parser
from holdfast.cli.manual import completions, pages
from holdfast.cli.mdoc import from_markdown

DOCS = Path(__file__).parents[2] / "docs"
PAGES = pages(DOCS)


def mandoc(*arguments: str, page: str) -> str:
    tool = shutil.which("mandoc")
    if tool is None:
        if os.environ.get("CI"):
            pytest.fail("mandoc is missing: apt-get install mandoc")
        pytest.skip("mandoc is missing: apt-get install mandoc")
    done = subprocess.run([tool, *arguments], input=page, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def text(page: str) -> str:
    """*page* as a reader sees it, on one line and without overstrikes."""
    return " ".join(re.sub(".\b", "", mandoc("-T", "utf8", "-O", "width=500", page=page)).split())


@pytest.mark.parametrize("name", PAGES)
def test_a_strict_reader_has_nothing_to_say(name: str) -> None:
    assert mandoc("-T", "lint", "-W", "warning", page=PAGES[name]) == ""


def test_the_page_of_the_program_has_every_command_option_and_exit_status() -> None:
    told = text(PAGES["holdfast.1"])
    for command in tree(parser()).walk():
        assert " ".join(command.path) in told
        assert all(
            name in told for option in command.options for name in option.names if name.startswith("--")
        )
    for code, meaning in MEANING.items():
        assert f"{code} {meaning[0].upper()}{meaning[1:]}." in told


def test_the_page_of_the_configuration_has_all_that_the_documentation_has() -> None:
    told = text(PAGES["holdfast.yaml.5"]).replace(" ", "")
    source = (DOCS / "configuration.md").read_text(encoding="utf-8")
    words = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", source, flags=re.DOTALL))
    assert len(words) > 80
    missing = [w for w in words if w.replace(" ", "") not in told]
    assert missing == []
    assert "identities[].key.algorithm" in told


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("# T\n\n.Sh is no request.\n", ".Sh is no request."),
        ("# T\n\na\n'quoted' line\n", "'quoted' line"),
        ("# T\n\nback\\slash and `c:\\d`\n", "back\\slash and c:\\d"),
        ("# T\n\n```\n.dot\n\n'x\n```\n", ".dot"),
        ("# T\n\n| a | b |\n|---|---|\n| `Fl` | see `x` |\n", "Fl See x."),
        ("# T\n\n- one\n  more\n- two\n", "one more"),
        ("# T\n\n## Part one\n\nText. More text.\n", "PART ONE Text. More text."),
    ],
)
def test_markdown_that_could_be_taken_for_a_request(source: str, seen: str) -> None:
    head = ".Dd November 1, 2026\n.Dt T 1\n.Os\n.Sh NAME\n.Nm t\n.Nd test\n"
    page = head + "\n".join(from_markdown(source)) + "\n"
    assert mandoc("-T", "lint", "-W", "warning", page=page) == ""
    assert seen in text(page)


def test_there_is_a_completion_for_each_shell() -> None:
    assert set(completions()) == {"holdfast", "_holdfast", "holdfast.fish"}


@pytest.mark.parametrize(("folder", "made"), [("man", PAGES), ("completion", completions())])
def test_what_is_stored_is_what_the_program_says_now(folder: str, made: dict[str, str]) -> None:
    for name, content in made.items():
        assert (DOCS / folder / name).read_text(encoding="utf-8") == content, "stale: run make docs"
    assert {p.name for p in (DOCS / folder).iterdir()} == set(made)


def test_packages_take_along_every_page_and_completion() -> None:
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text(encoding="utf-8"))
    taken = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    stored = {
        f"docs/{folder}/{p.name}" for folder in ("man", "completion") for p in (DOCS / folder).iterdir()
    }
    assert set(taken) == stored
