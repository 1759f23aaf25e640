"""Tables of `benchmarks.kinds`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.report.figures import rate_distortion_figure
from benchmarks.report.page import Section, html_report
from benchmarks.report.tables import aligned

OURS, FLOOR = "vcinr", "KLT floor"
BESIDE = "H.264 veryslow 4:4:4"
"""The rival beside which parts of a set are shown."""
BOUNDS = (0.1, 0.05, 0.01, 0.001)
"""Largest errors, as fractions of the range."""

Result = Mapping[str, Any]


def lines_of(result: Result, number: Callable[[float | None], str]) -> Iterator[tuple[str, list[list[str]]]]:
    """Yield tables of a kind: a title, and lines of cells, the first of which is the head.

    Parameters
    ----------
    result : dict
        What `run` returns.
    number : callable
        Writes a rate, or that there is none.
    """
    for part in result["sets"]:
        for key, what in (("rate", "whole files"), ("net_rate", "net of a flat signal; of vcinr the streams")):
            if key == "net_rate" and result["kind"] not in ("image", "video"):
                continue
            lines = [["codec", *(f"{t:g} dB" for t in result["targets"])]]
            for codec in part["curves"]:
                rates = [row[key] for row in part["at"] if row["codec"] == codec]
                lines.append([codec, *map(number, rates)])
            ours = [row[key] for row in part["at"] if row["codec"] == OURS]
            for name, codecs in (("best rival", _rivals(part["curves"])), (FLOOR, _floors(part["curves"]))):
                least = [_least(part["at"], "psnr_db", target, codecs, key) for target in result["targets"]]
                lines.append([f"{OURS} / {name}", *map(number, map(_ratio, ours, least))])
            yield f"{part['title']}, bits per {result['unit']}, {what}", lines
        if "parts" in part:
            lines = [["signals and codec", *(f"{t:g} dB" for t in result["targets"])]]
            for own in part["parts"]:
                of_codec = {
                    codec: [row["net_rate"] for row in own["at"] if row["codec"] == codec] for codec in (OURS, BESIDE)
                }
                name = f"{own['title']} ({own['about']})"
                lines += [[f"{name}, {codec}", *map(number, rates)] for codec, rates in of_codec.items()]
                lines.append([f"{name}, ratio", *map(number, map(_ratio, of_codec[OURS], of_codec[BESIDE]))])
            yield f"{part['title']}, bits per {result['unit']}, net, each with an archive of its own", lines
        if "bounds" in part:
            bounded = dict.fromkeys(row["codec"] for row in part["bounds"])
            lines = [["codec", *(f"{100 * b:g} %" for b in BOUNDS)]]
            for codec in bounded:
                at = {row["bound"]: row["rate"] for row in part["bounds"] if row["codec"] == codec}
                lines.append([codec, *(number(at.get(b)) for b in BOUNDS)])
            for codec in (OURS, f"{OURS}, no model"):
                own = [_least(part["bounds"], "bound", bound, {codec}, "rate") for bound in BOUNDS]
                least = [_least(part["bounds"], "bound", bound, _rivals(bounded), "rate") for bound in BOUNDS]
                lines.append([f"{codec} / best rival", *map(number, map(_ratio, own, least))])
            yield f"{part['title']}, bits per voxel at a bound", lines


def _rivals(codecs: Iterable[str]) -> set[str]:
    return {codec for codec in codecs if not codec.startswith((OURS, FLOOR))}


def _floors(codecs: Iterable[str]) -> set[str]:
    return {codec for codec in codecs if codec.startswith(FLOOR)}


def _least(rows: Sequence[Result], where: str, value: float, codecs: set[str], key: str) -> float | None:
    """The smallest rate of some codecs at a PSNR or a bound."""
    rates = (row[key] for row in rows if row["codec"] in codecs and row[where] == value)
    return min((rate for rate in rates if rate), default=None)


def _ratio(own: float | None, other: float | None) -> float | None:
    return own / other if own and other else None


def table(name: str, result: Result) -> str:
    """Return the tables of a kind as text."""
    parts = [f"{name}: trained on {result['data']['train']}; tested on {result['data']['test']}"]
    for title, lines in lines_of(result, lambda v: "-" if v is None else f"{v:.4g}"):
        parts.append(f"{title}\n{aligned(lines)}")
    for part in result["sets"]:
        paid = ", ".join(
            f"{row['psnr_db']:g} dB: " + ("never" if row["count"] is None else f"{row['count']:.3g}")
            + f" (beside {row['rival']})" for row in part["paid"]
        )  # fmt: skip
        size = part["model"]["bytes"]
        parts.append(f"{part['title']}: model {size:,} bytes; won back after {result['plural']}: {paid}")
    return "\n\n".join(parts)


def sections_of(result: Result, pictures: Path, drawings: Path, text: str) -> list[Section]:
    """Return the sections of a page: tables, curves, pictures.

    Parameters
    ----------
    result : dict
        What was measured.
    pictures : Path
        Folder of the pictures that it names.
    drawings : Path
        Folder for those of the curves.
    text : str
        The tables.
    """
    about = (
        f"Measured {result['date']} on {result['machine']['cpu']}, {result['machine']['cores']} cores. Trained on "
        f"{result['data']['train']}; tested on {result['data']['test']}. Bytes are real, of signals decoded again, and "
        "without the model, which is inside every archive."
    )
    sections = [Section("Summary", (about,), preformatted=text)]
    for part in result["sets"]:
        rows = [
            {"codec": codec, "ours": codec == OURS, "bits_per_value": row["rate"], "psnr_db": row["psnr_db"]}
            for codec, curve in part["curves"].items() for row in curve
        ]  # fmt: skip
        curves = rate_distortion_figure(rows, drawings / f"curves-{part['title']}.png", result["unit"])
        figures = [(curves, f"PSNR against the rate: {part['title']}.")]
        figures += [(pictures / file, caption) for file, caption in part["pictures"]]
        sections.append(Section(part["title"], figures=figures))
    return sections


def page(name: str, result: Result, pictures: Path, path: Path) -> Path:
    """Write the page of a benchmark, with everything inside, and return its path."""
    with tempfile.TemporaryDirectory() as folder:
        sections = sections_of(result, pictures, Path(folder), table(name, result))
        return html_report(path, f"vcinr: {name}", sections)
