"""A line chart as SVG. A few dozen lines of our own are less to install and to review than a plotting
library, and their output changes only with the data, so that a stale picture can be told from a fresh one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 230
LEFT, RIGHT, TOP, BOTTOM = 50, 20, 34, 40
COLOURS: Final = ("#0b6e99", "#c2571a", "#4b8b3b")


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves over [0, ``width``] in the units of ``below``, and dashed lines with a name at some heights."""

    title: str
    below: str
    width: float
    top: float
    curves: Sequence[tuple[str, Sequence[tuple[float, float]]]]
    lines: Sequence[tuple[str, float]]


def svg(panels: Sequence[Panel]) -> str:
    """The *panels* under each other."""
    height = HEIGHT * len(panels)
    drawn = "".join(
        f'<g transform="translate(0,{n * HEIGHT})">{_panel(p)}</g>\n' for n, p in enumerate(panels)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="11">\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n'
        f"{drawn}</svg>\n"
    )


def _panel(panel: Panel) -> str:
    across, up = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def place(x: float, y: float) -> str:
        return f"{LEFT + across * x / panel.width:.1f},{TOP + up * (1 - y / panel.top):.1f}"

    parts = [_text(LEFT, 18, panel.title, size=13)]
    parts.append(_text(LEFT + across / 2, HEIGHT - 8, panel.below, anchor="middle"))
    for step in range(5):
        x, y = panel.width * step / 4, panel.top * step / 4
        parts.append(_text(LEFT + across * step / 4, HEIGHT - BOTTOM + 15, f"{x:g}", anchor="middle"))
        parts.append(_text(LEFT - 6, TOP + up * (1 - step / 4) + 4, f"{y:g}", anchor="end"))
        parts.append(f'<path d="M{place(0, y)} L{place(panel.width, y)}" stroke="#ddd"/>')
    for name, y in panel.lines:
        parts.append(
            f'<path d="M{place(0, y)} L{place(panel.width, y)}" stroke="#a00" stroke-dasharray="5 4"/>'
        )
        parts.append(
            _text(WIDTH - RIGHT, TOP + up * (1 - y / panel.top) - 4, name, anchor="end", fill="#a00")
        )
    for number, (name, points) in enumerate(panel.curves):
        colour = COLOURS[number % len(COLOURS)]
        path = " ".join(place(x, y) for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.3"/>')
        parts.append(_text(LEFT + 8 + 90 * number, TOP + 12, name, fill=colour))
    return "\n".join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11, fill: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}">'
        f"{escape(text)}</text>"
    )
