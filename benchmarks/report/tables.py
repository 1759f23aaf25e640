"""Tables as plain text and as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.report import Row

_COLUMNS = (
    ("max error / range", "bound_fraction", "{:.4g}"),
    ("codec", "codec", "{}"),
    ("bits/value", "bits_per_value", "{:.4f}"),
    ("with model", "bits_per_value_with_model", "{:.4f}"),
    ("PSNR dB", "psnr_db", "{:.2f}"),
    ("max error / bound", "bound_ratio", "{:.4f}"),
    ("encode MB/s", "encode_mbs", "{:.3g}"),
    ("decode MB/s", "decode_mbs", "{:.3g}"),
)


def summary_table(rows: Sequence[Row], bounds: Sequence[float] | None = None) -> str:
    """Return a plain-text table of the codecs at each bound, the fewest bits per value first.

    Ours carry an asterisk, and an error beyond the bound an exclamation mark.

    Parameters
    ----------
    rows : sequence of mapping
        Rows of `benchmarks.measure.rows`.
    bounds : sequence of float, optional
        Bounds to show, as fractions of the range; by default all.
    """
    if bounds is not None:
        rows = [r for r in rows if any(math.isclose(r.get("bound_fraction") or -1, b, rel_tol=1e-6) for b in bounds)]
    if not rows:
        return "no rows"
    rows = sorted(rows, key=lambda row: (-(row.get("bound_fraction") or 0), row["bits_per_value"]))
    body = [[_cell(row, key, form) for _, key, form in _COLUMNS] for row in rows]
    keep = [i for i in range(len(_COLUMNS)) if any(line[i] != "-" for line in body)]
    head = [_COLUMNS[i][0] for i in keep]
    body = [[line[i] for i in keep] for line in body]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(keep))]
    names = head.index("codec")
    lines = []
    previous = body[0][0]
    for line in [head, *body]:
        if line is not head and names > 0 and line[0] != previous:
            lines.append("")
            previous = line[0]
        cells = [c.ljust(w) if i == names else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True))]
        lines.append("  ".join(cells).rstrip())
        if line is head:
            lines.append("  ".join("-" * w for w in widths))
    return "\n".join(lines)


def _cell(row: Row, key: str, form: str) -> str:
    value = row.get(key)
    if key == "psnr_db" and value is None and key in row:
        return "lossless"
    if value is None:
        return "-"
    text = form.format(value)
    if key == "codec" and row.get("ours"):
        text += " *"
    if key == "bound_ratio" and value > 1:
        text += " !"
    return text


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text with columns of one width."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; a column of numbers is flush right."""
    numbers = [all(cell.strip("*")[:1] in "-–0123456789" for cell in column) for column in zip(*lines, strict=True)]
    rule = ["--:" if number else "---" for number in numbers]
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, rule, *lines))
