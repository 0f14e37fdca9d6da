"""What this terminal can do: how wide it is, whether it shows colour, whether anybody watches."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from typing import Final

NARROWEST: Final = 40
WIDEST: Final = 100
_COLOURS: Final = {"green": "32", "yellow": "33", "red": "31", "dim": "2", "bold": "1"}


def watched() -> bool:
    """Whether standard output is a terminal that can go back to the start of a line."""
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}


def width() -> int:
    """Columns to fill. Neither a very narrow nor a very wide terminal makes a paragraph easier to read."""
    return min(max(shutil.get_terminal_size((80, 24)).columns, NARROWEST), WIDEST)


def coloured(text: str, colour: str) -> str:
    """*text* in *colour* where that is welcome (https://no-color.org)."""
    if not watched() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def paragraph(text: str, indent: str = "") -> str:
    """*text* filled to the width; names and dates stay whole."""
    return textwrap.fill(
        text,
        width(),
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
