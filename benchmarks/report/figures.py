"""Figures as PNG files. Equal figures give equal bytes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.report import Row
from vcinr.errors import InputError

# Okabe and Ito's colours, distinguishable under the common colour-vision deficiencies. Ours is the vermilion.
OURS_COLOURS = ("#D55E00", "#000000")
RIVAL_COLOURS = ("#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F7F7F", "#8C6D31", "#5E4FA2")
MARKERS = "osD^vP*X"
TRAIN_COLOUR, VALID_COLOUR = "#0072B2", "#D55E00"


@dataclass(frozen=True)
class Curve:
    """A line `y` over `x` with, where they are given, a band from `low` to `high`; a reference is drawn dashed."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    reference: bool = False


def bounded_figure(rows: Sequence[Row], path: str | Path) -> Path:
    """Draw bits per value against the maximum error asked for, log-log; dashed: with the model's bytes counted."""
    rows = [row for row in rows if row.get("bound_fraction")]
    figure, axes = _plot("maximum error / data range", "bits per value")
    axes.set(xscale="log", yscale="log")
    ends = []
    for family, colour, marker, ours in _styles(rows):
        settings = [row for row in rows if _family(row) == family]
        x, y = _smallest(settings, "bits_per_value")
        _line(axes, x, y, colour, marker, ours)
        ends.append((x[-1], y[-1], family, colour, ours))
        if any(row.get("model_bytes") for row in settings):
            axes.plot(*_smallest(settings, "bits_per_value_with_model"), "--", color=colour, linewidth=1.0)
    bounds = sorted({row["bound_fraction"] for row in rows})
    axes.set_xticks(bounds, [f"{b:.3g}" for b in bounds])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")
    if any(row.get("model_bytes") for row in rows):
        axes.set_title("dashed: with the model's bytes", fontsize=8, color="#555555", loc="left")
    _label_ends(figure, axes, ends)
    return _save(figure, path)


def rate_distortion_figure(rows: Sequence[Row], path: str | Path, unit: str = "value") -> Path:
    """Draw PSNR against bits per value or other unit; of each codec's points, those that none of its others beats."""
    rows = [row for row in rows if row.get("psnr_db") is not None and row["bits_per_value"] > 0]
    figure, axes = _plot(f"bits per {unit}", "PSNR (dB)")
    axes.set(xscale="log")
    axes.xaxis.set_major_formatter("{x:g}")
    lines = []
    for family, colour, marker, ours in _styles(rows):
        points = sorted((row["bits_per_value"], row["psnr_db"]) for row in rows if _family(row) == family)
        front = [p for i, p in enumerate(points) if all(p[1] > q[1] for q in points[:i])]
        lines.append(_line(axes, [p[0] for p in front], [p[1] for p in front], colour, marker, ours))
        lines[-1].set_label(family)
    own = [row["psnr_db"] for row in rows if row.get("ours")]
    if own:  # what lies far above every point of ours is no comparison
        axes.set_ylim(top=min(axes.get_ylim()[1], max(own) + 15))
    # Several lines end at one place, so names go beside the plot, the line that starts leftmost first.
    order = sorted(lines, key=lambda line: min(line.get_xdata()))
    legend = axes.legend(handles=order, loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    for text, line in zip(legend.get_texts(), order, strict=True):
        text.set(color=line.get_color(), fontweight="bold" if line.get_linewidth() > 2 else "normal")
    return _save(figure, path)


def learning_figure(history: Sequence[Row], path: str | Path) -> Path:
    """Draw training and held-out PSNR against the step; records may lack either."""
    figure, axes = _plot("training step", "PSNR (dB)")
    ends = []
    for key, name, colour in (
        ("train_psnr_db", "training", TRAIN_COLOUR),
        ("valid_psnr_db", "held out", VALID_COLOUR),
    ):
        known = [(row["step"], row[key]) for row in history if row.get(key) is not None]
        if known:
            x, y = zip(*known, strict=True)
            axes.plot(x, y, color=colour, linewidth=2 if key == "valid_psnr_db" else 1)
            ends.append((x[-1], y[-1], name, colour, key == "valid_psnr_db"))
    _label_ends(figure, axes, ends)
    return _save(figure, path)


def curves_figure(
    panels: Mapping[str, Sequence[Curve]], x_label: str, y_label: str, path: str | Path, log_x: bool = False
) -> Path:
    """Draw curves with bands, a panel for each title; a name has one colour in all panels."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(curve.name for curves in panels.values() for curve in curves))
    palette = (OURS_COLOURS[0], *RIVAL_COLOURS)
    with _style():
        figure = Figure(figsize=(7.2 if len(panels) == 1 else 5.2 * len(panels), 4.6), layout="constrained")
        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for curve in curves:
                k = names.index(curve.name)
                colour = palette[k % len(palette)]
                many = len(curve.x) > 12
                line = "--" if curve.reference else "-"
                axes.plot(
                    curve.x, curve.y, line, color=colour, marker="" if many else MARKERS[k % len(MARKERS)],
                    linewidth=1.3 if curve.reference else 1.8, label=curve.name,
                )  # fmt: skip
                if len(curve.low):
                    axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
            if log_x:
                ticks = sorted({x for curve in curves for x in curve.x})
                axes.set_xscale("log")
                if len(ticks) <= 8:
                    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
                    axes.minorticks_off()
            axes.set(xlabel=x_label, ylabel=y_label, title=title)
            axes.legend(frameon=False, fontsize=9)
        return _save(figure, path)


def scatter_figure(panels: Mapping[str, tuple[np.ndarray, Sequence[str]]], columns: int, path: str | Path) -> Path:
    """Draw points ``[N, 2]`` coloured by their labels, a panel for each title, `columns` in a row."""
    from matplotlib.figure import Figure

    rows = math.ceil(len(panels) / columns)
    with _style():
        figure = Figure(figsize=(4.2 * columns, 3.6 * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for axes, (title, (points, labels)) in zip(places, panels.items(), strict=False):
            names = sorted(set(labels))
            palette = (*RIVAL_COLOURS, *OURS_COLOURS)
            for k, name in enumerate(names):
                members = points[[label == name for label in labels]]
                axes.scatter(
                    *members[:, :2].T, s=22, color=palette[k % len(palette)], marker=MARKERS[k % len(MARKERS)],
                    label=name, alpha=0.85, linewidth=0,
                )  # fmt: skip
            axes.set(title=title, xticks=[], yticks=[])
            below = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0), "ncols": min(5, len(names))}
            axes.legend(frameon=False, fontsize=8, handletextpad=0.1, columnspacing=1.0, **below)
        for axes in places[len(panels) :]:
            axes.set_axis_off()
        return _save(figure, path)


def maps_figure(
    original: np.ndarray,
    reconstruction: np.ndarray,
    axes: Sequence[np.ndarray],
    dims: Sequence[str],
    title: str,
    units: str,
    path: str | Path,
) -> Path:
    """Draw original, reconstruction and their difference side by side.

    Parameters
    ----------
    original, reconstruction : np.ndarray
        Maps; of a volume the middle slice is drawn. The difference has a diverging scale, symmetric about zero.
    axes : sequence of np.ndarray
        Coordinates of the dimensions, evenly spaced.
    dims : sequence of str
        Names of the dimensions.
    title, units : str
        Of the figure and of the values.
    path : path
        The PNG to write.

    Raises
    ------
    InputError
        If the arrays have one dimension, or different shapes.
    """
    if original.shape != reconstruction.shape or original.ndim < 2 or original.ndim != len(axes):
        raise InputError(f"cannot draw maps of shapes {original.shape} and {reconstruction.shape}")
    while original.ndim > 2:
        middle = original.shape[0] // 2
        title += f", {dims[0]} {axes[0][middle]:.4g}"
        original, reconstruction = original[middle], reconstruction[middle]
        axes, dims = axes[1:], dims[1:]
    difference = reconstruction.astype(np.float64) - original.astype(np.float64)
    finite = original[np.isfinite(original)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    largest = float(np.nanmax(np.abs(difference), initial=0.0)) or 1.0
    extent = [*_edges(axes[1]), *_edges(axes[0])]
    wide, tall = abs(extent[1] - extent[0]), abs(extent[3] - extent[2])
    alike = 0.25 <= wide / tall <= 4  # axes of one kind, such as degrees: draw them to one scale
    from matplotlib.figure import Figure

    height = 3.4 * (tall / wide if alike else 0.7)
    with _style():
        figure = Figure(figsize=(11, height + 1.6), layout="constrained")
        panels = figure.subplots(1, 3, sharex=True, sharey=True)
        images = []
        for panel, (name, values, colours, least, most) in zip(
            panels,
            (
                ("original", original, "viridis", low, high),
                ("reconstruction", reconstruction, "viridis", low, high),
                ("reconstruction − original", difference, "RdBu_r", -largest, largest),
            ),
            strict=True,
        ):
            images.append(
                panel.imshow(
                    values,
                    extent=extent,
                    origin="lower",
                    cmap=colours,
                    vmin=least,
                    vmax=most,
                    aspect="equal" if alike else "auto",
                    interpolation="nearest",
                )
            )
            panel.set(xlim=sorted(extent[:2]), ylim=sorted(extent[2:]), xlabel=dims[1], title=name)
            panel.grid(False)
            panel.set_facecolor("#dddddd")  # missing values
        panels[0].set_ylabel(dims[0])
        for image, below, share in ((images[0], list(panels[:2]), 0.5), (images[2], [panels[2]], 1.0)):
            bar = figure.colorbar(image, ax=below, location="bottom", shrink=share, aspect=36)
            bar.set_label(units)
            bar.outline.set_visible(False)
            bar.ax.locator_params(nbins=5)
        figure.suptitle(title)
        return _save(figure, path)


def _style() -> Any:
    import matplotlib

    return matplotlib.rc_context(
        {
            "font.size": 10,
            "axes.titlesize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.edgecolor": "#444444",
            "axes.grid": True,
            "axes.axisbelow": True,
            "grid.color": "#e4e4e4",
            "grid.linewidth": 0.7,
            "xtick.color": "#444444",
            "ytick.color": "#444444",
        }
    )


def _plot(x_label: str, y_label: str) -> tuple[Any, Any]:
    # A Figure of its own draws with Agg and leaves pyplot's state and backend alone, so threads may draw.
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(7.2, 4.6))
        figure.subplots_adjust(left=0.1, right=0.78, bottom=0.13, top=0.93)
        axes = figure.add_subplot()
    axes.set(xlabel=x_label, ylabel=y_label)
    return figure, axes


def _save(figure: Any, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the version in the file, equal metrics give equal bytes.
    figure.savefig(path, format="png", dpi=160, metadata={"Software": None}, facecolor="white")
    return path


def _family(row: Row) -> str:
    return str(row.get("family", row["codec"]))


def _styles(rows: Sequence[Row]) -> list[tuple[str, str, str, bool]]:
    """(family, colour, marker, ours) of each family, rivals first so that ours is drawn on top."""
    families = {_family(row): bool(row.get("ours")) for row in rows}
    rivals = [name for name, ours in families.items() if not ours]
    own = [name for name, ours in families.items() if ours]
    return [
        (name, palette[i % len(palette)], MARKERS[i % len(MARKERS)], ours)
        for group, palette, ours in ((rivals, RIVAL_COLOURS, False), (own, OURS_COLOURS, True))
        for i, name in enumerate(group)
    ]


def _line(axes: Any, x: Sequence[float], y: Sequence[float], colour: str, marker: str, ours: bool) -> Any:
    (line,) = axes.plot(
        x,
        y,
        color=colour,
        marker=marker,
        markersize=6 if ours else 4,
        linewidth=2.6 if ours else 1.3,
        zorder=4 if ours else 3,
    )
    return line


def _smallest(rows: Sequence[Row], key: str) -> tuple[list[float], list[float]]:
    """At each bound, in rising order, the smallest rate of a family's settings."""
    best: dict[float, float] = {}
    for row in rows:
        bound, rate = row["bound_fraction"], row[key]
        best[bound] = min(rate, best.get(bound, math.inf))
    bounds = sorted(best)
    return bounds, [best[b] for b in bounds]


def _label_ends(figure: Any, axes: Any, ends: Iterable[tuple[float, float, str, str, bool]]) -> None:
    """Names beside the last points of the lines, moved apart vertically where they would overlap."""
    height = 13.0  # of a label, in points
    axes.autoscale_view()
    ordered = sorted(ends, key=lambda end: end[1])
    at = [axes.transData.transform((x, y))[1] * 72 / figure.dpi for x, y, *_ in ordered]
    placed = list(at)
    for _ in range(100):  # neighbours that overlap share the move, which leaves a group centred on its points
        for i in range(len(placed) - 1):
            overlap = height - (placed[i + 1] - placed[i])
            if overlap > 0.01:
                placed[i] -= overlap / 2
                placed[i + 1] += overlap / 2
    for (x, y, name, colour, bold), point, label in zip(ordered, at, placed, strict=True):
        axes.annotate(
            name,
            (x, y),
            xytext=(8, label - point),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=10 if bold else 9,
            fontweight="bold" if bold else "normal",
            annotation_clip=False,
        )


def _edges(axis: np.ndarray) -> tuple[float, float]:
    """Outer edges of the first and the last cell of an evenly spaced axis."""
    axis = np.asarray(axis, np.float64)
    half = (axis[-1] - axis[0]) / (len(axis) - 1) / 2 if len(axis) > 1 else 0.5
    return float(axis[0] - half), float(axis[-1] + half)
