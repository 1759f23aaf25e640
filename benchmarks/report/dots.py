"""A dot plot on a logarithmic axis as an SVG text of a few kilobytes. Equal input gives equal text."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, LEFT, RIGHT, ROW, HEAD, FOOT = 820, 210, 24, 19, 74, 44


@dataclass(frozen=True)
class Mark:
    """How the dots of one name look; a hollow one is a ring."""

    colour: str
    radius: float = 4.5
    hollow: bool = False


@dataclass(frozen=True)
class Line:
    """A line of the plot: its label, and a number for each name. `group` is written above the first of a group."""

    group: str
    label: str
    numbers: Mapping[str, float]


def dot_plot(title: str, axis: str, lines: Sequence[Line], marks: Mapping[str, Mark], ticks: Sequence[float]) -> str:
    """Draw a dot plot.

    Parameters
    ----------
    title, axis : str
        What is shown, and what the axis means.
    lines : sequence of Line
        From top to bottom.
    marks : mapping of str to Mark
        By name, in the order of the legend; later ones are drawn on top.
    ticks : sequence of float
        Numbers of the axis; the first and the last are its ends.

    Returns
    -------
    str
        The SVG.
    """
    groups = len({line.group for line in lines})
    height = HEAD + ROW * (len(lines) + groups) + FOOT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        _text(16, 24, title, weight="bold", size=15),
        *_legend(marks),
        *_axis(axis, ticks, height),
        *_dots(lines, marks, ticks),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _place(number: float, ticks: Sequence[float]) -> float:
    share = math.log(number / ticks[0]) / math.log(ticks[-1] / ticks[0])
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _legend(marks: Mapping[str, Mark]) -> Iterator[str]:
    x = 22.0
    for name, mark in marks.items():
        yield _dot(x, 46, mark)
        yield _text(x + 10, 50.5, name, "#222222")
        x += 32 + 7.2 * len(name)


def _axis(title: str, ticks: Sequence[float], height: int) -> Iterator[str]:
    bottom = height - FOOT
    for tick in ticks:
        x = _place(tick, ticks)
        yield f'<line x1="{x:.1f}" y1="{HEAD - 6}" x2="{x:.1f}" y2="{bottom}" stroke="#e4e4e4"/>'
        yield _text(x, bottom + 16, f"{tick:g}", "#555555", anchor="middle", size=12)
    yield _text((LEFT + WIDTH - RIGHT) / 2, bottom + 34, title, "#555555", anchor="middle", size=12)


def _dots(lines: Sequence[Line], marks: Mapping[str, Mark], ticks: Sequence[float]) -> Iterator[str]:
    y, group = float(HEAD), ""
    for line in lines:
        if line.group != group:
            group = line.group
            yield _text(16, y + 9, group, weight="bold")
            y += ROW
        yield _text(LEFT - 16, y + 4.5, line.label, "#555555", anchor="end", size=12)
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#f0f0f0"/>'
        for name, mark in reversed(list(marks.items())):
            if name in line.numbers:
                yield _dot(_place(line.numbers[name], ticks), y, mark)
        y += ROW


def _dot(x: float, y: float, mark: Mark) -> str:
    fill = "#ffffff" if mark.hollow else mark.colour
    return (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{mark.radius}" fill="{fill}" stroke="{mark.colour}" stroke-width="2"/>'
    )


def _text(
    x: float, y: float, text: str, fill: str = "#111111", anchor: str = "start", weight: str = "normal", size: int = 13
) -> str:
    style = f'fill="{fill}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(text)}</text>'
