"""Figures, the terminal table and the HTML page."""

from __future__ import annotations

import re
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from benchmarks.report import figures
from benchmarks.report.page import Section, html_report
from benchmarks.report.tables import aligned, markdown, summary_table
from vcinr.errors import InputError

PNG = b"\x89PNG\r\n"


def row(codec: str, fraction: float | None, bits: float, psnr: float | None = 45.0, **more: object) -> dict:
    return {
        "codec": codec,
        "bound_fraction": fraction,
        "bits_per_value": bits,
        "bits_per_value_with_model": bits + 0.5,
        "psnr_db": psnr,
        "bound_ratio": None if fraction is None else 0.98765,
        **more,
    }


ROWS = [
    row("SZ3", 0.1, 0.0672, 30.5),
    row("SZ3", 0.01, 1.3008, 45.8),
    row("EOF 16", 0.1, 0.0021, 33.7, family="EOF", model_bytes=9000),
    row("EOF 64", 0.1, 0.0035, 34.7, family="EOF", model_bytes=9000),
    row("EOF 64", 0.01, 0.4729, 47.9, family="EOF", model_bytes=9000),
    row("vcinr", 0.1, 0.0019, 39.7, ours=True, model_bytes=5000),
    row("vcinr", 0.01, 0.4111, 51.6, ours=True, model_bytes=5000),
]


def assert_png(path):
    assert path.read_bytes().startswith(PNG) and path.stat().st_size > 5000


def test_figures_are_written_and_reproducible(tmp_path):
    one = figures.bounded_figure(ROWS, tmp_path / "new" / "bounded.png")
    assert_png(one)
    assert one.read_bytes() == figures.bounded_figure(ROWS, tmp_path / "again.png").read_bytes()
    assert_png(figures.rate_distortion_figure([*ROWS, row("lossless", None, 9.0, None)], tmp_path / "rd.png"))
    history = [{"step": s, "train_psnr_db": 30 + s / 10} for s in range(20)]
    history[10]["valid_psnr_db"] = 29.0
    assert_png(figures.learning_figure(history, tmp_path / "learning.png"))


@pytest.mark.parametrize("shape", [(12, 20), (3, 12, 20), (4, 200)])
def test_maps_of_planes_and_volumes(tmp_path, shape):
    values = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    values[..., 0, 0] = np.nan
    axes = [np.linspace(60, -60, n) for n in shape]  # a latitude often falls
    dims = ("level", "latitude", "longitude")[-len(shape) :]
    assert_png(figures.maps_figure(values, values * 1.01, axes, dims, "a field", "K", tmp_path / "maps.png"))


def test_maps_draw_an_exact_reconstruction_and_refuse_a_line(tmp_path):
    flat, axes = np.ones((5, 6)), [np.arange(5.0), np.arange(6.0)]
    assert_png(figures.maps_figure(flat, flat, axes, ("y", "x"), "constant", "1", tmp_path / "m.png"))
    with pytest.raises(InputError, match="cannot draw"):
        figures.maps_figure(flat[0], flat[0], axes[1:], ("x",), "line", "1", tmp_path / "l.png")


def test_summary_table_holds_the_numbers_aligned():
    broken = row("loose", 0.01, 0.3, None) | {"bound_ratio": 1.25}
    text = summary_table([*ROWS, broken], bounds=[0.01])
    lines = text.splitlines()
    assert [line.split()[1] for line in lines[2:]] == ["loose", "vcinr", "EOF", "SZ3"]
    assert "vcinr *" in text and "0.4111" in text and "0.9111" in text and "51.60" in text and "0.9877" in text
    assert "1.2500 !" in text and "lossless" in text
    assert "MB/s" not in text and "0.0672" not in text
    start = lines[0].index("codec")
    assert all(line[start - 1] == " " and line[start] != " " for line in lines)


def test_summary_table_without_bounds_or_rows():
    assert summary_table([]) == "no rows"
    text = summary_table([row("EOF", None, 0.25)])
    assert "max error" not in text and "0.2500" in text


def test_cells_as_text_and_as_markdown():
    assert aligned([["codec", "bits"], ["a", "1"], ["longer one", "2"]]).splitlines() == [
        "codec       bits", "a           1", "longer one  2"
    ]  # fmt: skip
    assert markdown(["codec", "bits"], [["a", "**1.5**"], ["b", "-2"]]).splitlines() == [
        "| codec | bits |", "| --- | --: |", "| a | **1.5** |", "| b | -2 |"
    ]  # fmt: skip


def test_html_page_needs_nothing_else(tmp_path):
    image = figures.bounded_figure(ROWS, tmp_path / "b.png")
    section = Section(
        "Bounds & <errors>",
        ["A paragraph with <b>markup</b> in it."],
        summary_table(ROWS),
        [{"codec": "SZ3", "bits": 1.25, "ok": True}, {"codec": "vcinr", "bits": None, "ok": False}],
        [(image, 'Rate "against" bound')],
    )
    page = html_report(tmp_path / "out" / "report.html", "A <title>", [section]).read_text()
    without_images = re.sub(r"data:image/png;base64,[A-Za-z0-9+/=]+", "", page)
    assert "http" not in without_images and "<script" not in page and "<link" not in page
    assert page.count('src="data:image/png;base64,') == page.count("<img") == 1
    assert "A &lt;title&gt;" in page and "&lt;b&gt;markup" in page and "1.25" in page and "0.4111" in page


def test_importing_the_report_does_not_import_matplotlib():
    code = "import sys, benchmarks.report.figures; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_curves_and_points(tmp_path):
    curve = figures.Curve("one", [1, 2, 4], [30.0, 35.0, 36.0], [29.0, 34.0, 35.5], [31.0, 36.0, 36.5])
    other = figures.Curve("two", [1, 2, 4], [28.0, 33.0, 37.0], reference=True)
    path = figures.curves_figure(
        {"left": [curve, other], "right": [other]}, "latents", "dB", tmp_path / "c.png", log_x=True
    )
    assert_png(path)
    alone = figures.curves_figure({"": [curve]}, "latents", "dB", tmp_path / "one.png")
    assert alone.read_bytes() != path.read_bytes()
    points = np.random.default_rng(0).normal(size=(12, 2))
    labels = [str(k % 6) for k in range(12)]
    assert_png(figures.scatter_figure({"a": (points, labels), "b": (points, labels)}, 2, tmp_path / "s.png"))
