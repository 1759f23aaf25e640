"""One HTML page with everything inside."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Row


@dataclass(frozen=True)
class Section:
    """A part of the HTML page: a heading, paragraphs, preformatted text, a table and figures, each optional.

    ``paragraphs`` and ``preformatted`` are plain text; ``table`` is rows that share their keys; ``figures``
    are (path of a PNG, caption).
    """

    title: str
    paragraphs: Sequence[str] = ()
    preformatted: str = ""
    table: Sequence[Row] = ()
    figures: Sequence[tuple[str | Path, str]] = ()


_CSS = """
:root { color-scheme: light dark;
  --text: #1c1c1c; --soft: #5a5a5a; --page: #fdfdfc; --line: #d9d9d6; --panel: #f3f3f0; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e8e6e1; --soft: #a5a29b; --page: #17181a; --line: #3a3c40; --panel: #212327; }
}
body { margin: 2.5rem auto; padding: 0 1.25rem; max-width: 60rem; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin-bottom: 1.5rem; }
h2 { font-size: 1.2rem; margin-top: 2.5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p { max-width: 44rem; }
figure { margin: 1.2rem 0; }
figure img { max-width: 100%; height: auto; background: #fff; border-radius: 6px; }
figcaption { color: var(--soft); font-size: .9rem; max-width: 44rem; }
pre { background: var(--panel); padding: .9rem 1rem; border-radius: 6px; overflow-x: auto;
  font-size: .82rem; line-height: 1.4; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line);
  text-align: right; white-space: nowrap; }
th { color: var(--soft); font-weight: 600; }
th.text, td.text { text-align: left; }
"""


def html_report(path: str | Path, title: str, sections: Sequence[Section]) -> Path:
    """Write one HTML page with its figures inside, so that it needs nothing else, and return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    safe = html.escape(title)
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{safe}</title><style>{_CSS}</style></head><body>\n<h1>{safe}</h1>",
        *(_section(section) for section in sections),
        "</body></html>\n",
    ]
    path.write_text("\n".join(parts), encoding="utf-8")
    return path


def _section(section: Section) -> str:
    parts = [f"<section><h2>{html.escape(section.title)}</h2>"]
    parts += [f"<p>{html.escape(text)}</p>" for text in section.paragraphs]
    if section.table:
        parts.append(_html_table(section.table))
    if section.preformatted:
        parts.append(f"<pre>{html.escape(section.preformatted)}</pre>")
    for image, caption in section.figures:
        data = base64.b64encode(Path(image).read_bytes()).decode("ascii")
        safe = html.escape(caption)
        parts.append(f'<figure><img alt="{safe}" src="data:image/png;base64,{data}">')
        parts.append(f"<figcaption>{safe}</figcaption></figure>")
    return "\n".join([*parts, "</section>"])


def _html_table(rows: Sequence[Row]) -> str:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {k: all(isinstance(row.get(k), int | float | None) for row in rows) for k in keys}
    kind = {k: "" if numeric[k] else ' class="text"' for k in keys}
    head = "".join(f"<th{kind[k]}>{html.escape(str(k))}</th>" for k in keys)
    body = "\n".join(
        "<tr>" + "".join(f"<td{kind[k]}>{html.escape(_shown(row.get(k)))}</td>" for k in keys) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
