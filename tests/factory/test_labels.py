"""Labels: an independent reader finds in the code what we put there."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.wire.errors import ConfigError
from holdfast_factory.labels import SCHEMES, content, lines, render, scanned_serial, zpl
from holdfast_factory.unit import Label
from tests.tools import need

LABEL = Label(
    serial="GW7-000042",
    model="GW-7",
    organization="Example Gateways",
    unit="cd" * 32,
    idevid="ab" * 32,
    masa_url="masa.example:9443",
    made=datetime(2026, 3, 1, tzinfo=UTC),
)
PRINTABLE = st.text(
    st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" "), max_size=60
)


def read_code(directory: Path, png: bytes) -> str:
    picture = directory / "label.png"
    picture.write_bytes(png)
    done = subprocess.run(
        [need("zbarimg", "zbar-tools"), "--quiet", "--raw", "-Sdisable", "-Sqrcode.enable", picture],
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize("serial", ["GW7-000042", "a;b\\c:d", "ÄÖ 7"])
def test_a_scanner_reads_the_code(tmp_path: Path, serial: str) -> None:
    label = replace(LABEL, serial=serial)
    seen = read_code(tmp_path, render(label, "png"))
    assert seen == content(label)
    assert scanned_serial(seen) == serial


@given(serial=PRINTABLE, model=PRINTABLE)
def test_any_serial_comes_back_from_the_code(serial: str, model: str) -> None:
    label = replace(LABEL, serial=serial, model=model)
    assert scanned_serial(content(label)) == serial


@given(st.text(max_size=300))
def test_a_scan_of_anything_is_some_text(text: str) -> None:
    assert len(scanned_serial(text)) <= len(text)


@pytest.mark.parametrize("typed", ["GW7-000042", " GW7-000042\r\n", "idevid:s:GW7-000042;m:GW-7;;"])
def test_what_a_keyboard_scanner_types(typed: str) -> None:
    assert scanned_serial(typed) == "GW7-000042"


def test_a_code_without_a_serial_is_no_serial() -> None:
    assert scanned_serial("IDEVID:M:GW-7;;") == "IDEVID:M:GW-7;;"


def test_the_picture_for_a_page_is_well_formed() -> None:
    root = ElementTree.fromstring(render(LABEL, "svg"))
    assert root.tag.endswith("svg")
    assert "GW7-000042" in "".join(root.itertext())


def test_the_words() -> None:
    text = render(LABEL, "txt").decode()
    assert text.splitlines() == list(lines(LABEL))
    assert "S/N GW7-000042" in text


@pytest.mark.parametrize("hostile", ["^XA", "~JR", "_5E", "^FS^XZ^XA"])
def test_no_serial_is_a_command_to_the_printer(hostile: str) -> None:
    label = replace(LABEL, serial=hostile)
    plain = replace(LABEL, serial="X")
    assert zpl(label).count("^") == zpl(plain).count("^")
    assert "~" not in zpl(label)


@pytest.mark.parametrize("form", sorted(SCHEMES))
@pytest.mark.parametrize("serial", ["x" * 256, "a\nb", "a\x00"])
def test_no_field_is_too_long_or_has_control_characters(form: str, serial: str) -> None:
    with pytest.raises(ConfigError, match="serial"):
        render(replace(LABEL, serial=serial), form)


def test_the_longest_label_fits() -> None:
    longest = replace(LABEL, organization="o" * 255, model="m" * 255, serial="s" * 255, masa_url="a" * 255)
    assert render(longest, "png").startswith(b"\x89PNG")


def test_an_unknown_form_is_named() -> None:
    with pytest.raises(ConfigError, match="'gif' is none of png, svg, txt, zpl"):
        render(LABEL, "gif")
