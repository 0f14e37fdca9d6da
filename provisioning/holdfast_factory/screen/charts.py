"""Two small charts as SVG: units an hour as columns, failures by cause as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

WIDTH: Final = 460
_COLUMN_HEIGHT: Final = 110
_BAR: Final = 24
_LABEL: Final = 250


def columns(title: str, values: Sequence[tuple[str, int]]) -> str:
    """One column for each (label, count), oldest first."""
    most = max((count for _, count in values), default=0) or 1
    step = (WIDTH - 10) / max(len(values), 1)
    drawn = []
    for number, (label, count) in enumerate(values):
        tall = _COLUMN_HEIGHT * count / most
        left = 5 + number * step
        drawn.append(
            f'<rect class="good" x="{left + 2:.1f}" y="{20 + _COLUMN_HEIGHT - tall:.1f}" '
            f'width="{max(step - 4, 1):.1f}" height="{tall:.1f}"/>'
            + _text(left + step / 2, 16 + _COLUMN_HEIGHT - tall, str(count) if count else "", "middle")
            + _text(left + step / 2, 34 + _COLUMN_HEIGHT, label, "middle")
        )
    return _svg(title, _COLUMN_HEIGHT + 42, drawn)


def bars(title: str, values: Mapping[str, int]) -> str:
    """One bar for each cause, the most frequent on top."""
    most = max(values.values(), default=0) or 1
    ordered = sorted(values.items(), key=lambda item: (-item[1], item[0]))
    drawn = []
    for number, (label, count) in enumerate(ordered):
        top = 4 + number * _BAR
        wide = (WIDTH - _LABEL - 50) * count / most
        drawn.append(
            _text(_LABEL - 6, top + 15, label, "end")
            + f'<rect class="bad" x="{_LABEL}" y="{top + 2}" width="{wide:.1f}" height="{_BAR - 6}"/>'
            + _text(_LABEL + wide + 6, top + 15, str(count), "start")
        )
    return _svg(title, 8 + _BAR * max(len(ordered), 1), drawn)


def _svg(title: str, height: int, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(drawn)}</svg>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
