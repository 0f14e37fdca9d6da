"""The label of a unit: what a person reads, and a QR code that an owner's intake scans.

The code's text is built like Wi-Fi Alliance's DPP URIs, which every scanner app handles:
``IDEVID:S:<serial>;M:<model>;A:<MASA>;F:<SHA-256 of the IDevID certificate, hex>;;``. None of it is secret.
"""

from __future__ import annotations

from io import BytesIO
from typing import Final
from urllib.parse import quote

import segno

from holdfast.wire.errors import ConfigError
from holdfast_factory.unit import Label

PREFIX: Final = "IDEVID:"
MAX_FIELD: Final = 255
"""Characters: four fields of this length still fit into one code."""

SCHEMES: Final = {"png": "image/png", "svg": "image/svg+xml", "zpl": "application/zpl", "txt": "text/plain"}
"""The forms of a label, by file name extension, with their media types."""

_PNG_SCALE: Final = 6
_DOTS_A_LINE: Final = 34


def render(label: Label, form: str) -> bytes:
    """The *label* in one of the SCHEMES.

    Raises ConfigError ``factory.label``: a form that is none, a field too long or with a control character.
    """
    for name in ("organization", "model", "serial", "masa_url", "idevid"):
        value = getattr(label, name)
        if len(value) > MAX_FIELD or not value.isprintable():
            raise ConfigError("factory.label", f"{name}: at most {MAX_FIELD} printable characters")
    if form == "txt":
        return ("\n".join(lines(label)) + "\n").encode()
    if form == "zpl":
        return zpl(label).encode()
    if form not in SCHEMES:
        raise ConfigError("factory.label", f"{form!r} is none of {', '.join(sorted(SCHEMES))}")
    drawn = BytesIO()
    text = content(label)
    # Without the ECI mark readers guess the encoding, and some guess Shift-JIS; of ASCII all make the same.
    code = segno.make_qr(text, error="m", encoding="utf-8", eci=not text.isascii())
    if form == "svg":
        code.save(drawn, kind="svg", scale=_PNG_SCALE, title=f"{label.model} {label.serial}", light="#fff")
    else:
        code.save(drawn, kind="png", scale=_PNG_SCALE)
    return drawn.getvalue()


def file_name(serial: str, form: str) -> str:
    """A file for that label: a serial number may hold a slash (PrintableString), a file name may not."""
    return f"{quote(serial, safe='')}.{form}"


def lines(label: Label) -> tuple[str, ...]:
    """The words beside the code."""
    return (
        label.organization,
        f"Model {label.model}",
        f"S/N {label.serial}",
        f"MASA {label.masa_url}",
        f"IDevID {' '.join(label.idevid[n : n + 8] for n in range(0, 32, 8))}",
        f"{label.made:%Y-%m-%d}",
    )


def content(label: Label) -> str:
    """The text in the code."""
    parts = (("S", label.serial), ("M", label.model), ("A", label.masa_url), ("F", label.idevid))
    return PREFIX + "".join(f"{name}:{_escaped(value)};" for name, value in parts) + ";"


def scanned_serial(text: str) -> str:
    """The serial number in what a scanner typed: a label's code, or the number itself.

    A scanner adds blanks or a line end, and a keyboard layout may change the case of the prefix.
    """
    text = text.strip()
    if text[: len(PREFIX)].upper() != PREFIX:
        return text
    for field in _fields(text[len(PREFIX) :]):
        if field[:2].upper() == "S:":
            return field[2:]
    return text


def zpl(label: Label) -> str:
    """The label for a printer that speaks ZPL II: 8 dots a mm, 60 x 40 mm; it draws the code itself."""
    words = "".join(
        f"^FO220,{30 + n * _DOTS_A_LINE}^A0N,24,24^FH^FD{_zpl_text(line)}^FS"
        for n, line in enumerate(lines(label))
    )
    return f"^XA^CI28^PW480^LL320^FO20,30^BQN,2,3^FH^FDMA,{_zpl_text(content(label))}^FS{words}^XZ\n"


def _zpl_text(text: str) -> str:
    """``^`` and ``~`` begin commands, and ``_`` an escape after ``^FH``: all three as hexadecimal."""
    return "".join(f"_{ord(c):02X}" if c in "^~_" else c for c in text)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(";", "\\;")


def _fields(text: str) -> list[str]:
    fields, current, escaped = [], "", False
    for character in text:
        if escaped:
            current, escaped = current + character, False
        elif character == "\\":
            escaped = True
        elif character == ";":
            fields.append(current)
            current = ""
        else:
            current += character
    return [*fields, current]
