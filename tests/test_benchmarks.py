"""The benchmark of every data set: its measures, its arithmetic and one small run."""

import csv
import json

import numpy as np
import pytest
import xarray as xr

from benchmarks import graphs, kinds, speed, unstructured
from benchmarks.data import climate, models, moved, signals
from benchmarks.data.climate import Case
from benchmarks.evaluate import evaluate
from benchmarks.floor import floor, water_filling
from benchmarks.measure import files
from benchmarks.measure.curves import mean_psnr, paid_after, psnr, rate_at
from benchmarks.measure.klt import Klt, blocks_of, signal_of
from benchmarks.measure.quality import dssim, spectral_error
from benchmarks.report import kinds as report_of_kinds
from benchmarks.report.kinds import FLOOR, OURS
from benchmarks.rivals import RIVALS
from benchmarks.rivals.base import by_level
from benchmarks.table import run, summary
from vcinr.config import Evaluate, Inr, Meta, Params, Quantiser, preset
from vcinr.inr.model import save_model
from vcinr.signals import write_signals
from vcinr.signals.graph import Graph

RNG = np.random.default_rng(0)
WAVES = np.add.outer(np.sin(np.arange(30) / 5), np.cos(np.arange(40) / 7))


def test_quality_of_the_same_and_of_worse_maps():
    maps = np.stack([WAVES, 2 * WAVES])
    assert dssim(maps, maps) == pytest.approx(1.0) and spectral_error(maps, maps) == 0.0
    noisy = [maps + s * RNG.standard_normal(maps.shape) for s in (0.01, 0.1)]
    assert 1.0 > dssim(maps, noisy[0]) > dssim(maps, noisy[1])
    assert 0.0 < spectral_error(maps, noisy[0]) < spectral_error(maps, noisy[1])


def test_water_filling_is_the_gaussian_bound():
    assert water_filling(np.array([4.0]), 1.0) == pytest.approx(1.0)  # log2(4 / 1) / 2
    assert water_filling(np.array([4.0, 4.0]), 2.0) == pytest.approx(2.0)
    assert water_filling(np.array([4.0, 0.25]), 0.5) == pytest.approx(0.5 * np.log2(4.0 / 0.25))
    assert water_filling(np.array([1.0, 1.0]), 2.0) == 0.0
    assert water_filling(np.array([1.0]), 0.0) == float("inf")


def test_the_floor_falls_with_the_quality_asked_for():
    maps = RNG.standard_normal((60, 1, 1)) * WAVES + 0.1 * RNG.standard_normal((60, *WAVES.shape))
    found = [floor(maps[:40], maps[40:], q) for q in (24.0, 28.0, 34.0)]
    assert found[0] < found[1] < found[2]


@pytest.mark.parametrize(
    ("shape", "block"), [((21, 30, 3), (8, 8)), ((50,), (16,)), ((9, 10, 17), (4, 4, 4)), ((16, 16), (8, 8))]
)
def test_blocks_become_the_signal_again(shape, block):
    signal = RNG.standard_normal(shape).astype("f4")
    blocks = blocks_of(signal, block)
    assert blocks.shape[1] == np.prod(block) * (shape[2] if len(shape) > len(block) else 1)
    np.testing.assert_array_equal(signal_of(blocks, block, shape), signal)


def test_the_linear_floor_is_the_entropy_of_what_it_quantises():
    learned, tested = (RNG.standard_normal((n, 64)).astype("f4") for n in (4000, 1000))
    klt = Klt.fit(learned)
    found = [klt.code(list(tested), (64,), step, classes=1) for step in (1.0, 0.5)]
    # A Gaussian of unit variance has h = log2(2 pi e) / 2 = 2.05 bits, less log2(step) where steps are small.
    bits = [total / tested.size for total, _ in found]
    assert bits[1] == pytest.approx(2.047 + 1.0, abs=0.06) and bits[0] == pytest.approx(2.1, abs=0.06)
    errors = [np.square(np.array(decoded) - tested).mean() for _, decoded in found]
    assert errors[1] == pytest.approx(0.25 / 12, rel=0.02) and errors[0] == pytest.approx(1 / 12, rel=0.02)


def test_classes_pay_where_blocks_differ():
    blocks = RNG.standard_normal((3000, 16)) * np.where(RNG.random((3000, 1)) < 0.5, 0.01, 5.0)
    klt = Klt.fit(blocks[:2000].astype("f4"))
    alone, classed = (klt.code(list(blocks[2000:]), (16,), 1.0, classes)[0] for classes in (1, 16))
    assert classed < 0.9 * alone


def test_rates_are_interpolated_and_never_extrapolated():
    curve = [{"psnr_db": 34.0, "rate": 4.0}, {"psnr_db": 30.0, "rate": 1.0}, {"psnr_db": 36.0, "rate": 0.0}]
    assert rate_at(curve, 32.0) == pytest.approx(2.0) and rate_at(curve, 34.0) == pytest.approx(4.0)
    assert rate_at(curve, 29.0) is None and rate_at(curve, 35.0) is None and rate_at(curve, 32.0, "net_rate") is None
    assert paid_after(1000, 1.0, 3.0) == 4000 and paid_after(1000, 3.0, 1.0) is None and paid_after(1, None, 1) is None


def test_psnr_is_a_mean_over_signals():
    zero, one = np.zeros(10, np.uint8), np.full(10, 16, np.uint8)
    assert psnr(zero, one, 255) == pytest.approx(24.05, abs=0.01)
    assert mean_psnr([zero, zero], [one, zero], 255, most=100) == pytest.approx((24.05 + 100) / 2, abs=0.01)


def test_splits_depend_on_names_and_contents_alone():
    names = [f"clip-{i}.ogg" for i in range(4000)]
    kept = [name for name in names if signals.is_test_clip(name)]
    assert len(kept) == pytest.approx(500, rel=0.15) and kept[:2] == ["clip-12.ogg", "clip-24.ogg"]
    image = np.arange(70 * 100 * 3).reshape(70, 100, 3)
    cut = signals.tiles(image, 32)
    assert cut.shape == (6, 32, 32, 3)
    np.testing.assert_array_equal(cut[4], image[32:64, 32:64])
    flat = np.concatenate([np.full((1, 32, 32, 3), 7), cut])
    np.testing.assert_array_equal(signals.structured(flat), cut)


def test_tables_of_kinds_have_every_codec_and_the_ratio_to_the_floor():
    curves = {
        name: [{"psnr_db": p, "rate": s * p, "net_rate": s * p / 2} for p in (20.0, 50.0)]
        for name, s in ((OURS, 1.0), (FLOOR, 2.0), ("JPEG", 4.0))
    }
    spec = kinds.BENCHMARKS["photo32"].spec
    part = {"title": "t", "units": 10240, "signals": 10, "model": {"bytes": 640}, "curves": curves}
    part["at"] = files.at_targets(curves, spec.targets)
    part["paid"] = files.payback(part, spec, 640)
    assert {row["rival"] for row in part["paid"]} == {"JPEG"}
    assert part["paid"][0]["count"] == pytest.approx(8 * 640 / (3 * part["at"][0]["rate"]) / 1024)
    result = {"kind": "image", "unit": "pixel", "plural": "tiles", "targets": spec.targets, "sets": [part]}
    tables = dict(report_of_kinds.lines_of(result, lambda v: "-" if v is None else f"{v:.3f}"))
    assert len(tables) == 2
    for lines in tables.values():
        heads = [OURS, FLOOR, "JPEG", f"{OURS} / best rival", f"{OURS} / {FLOOR}"]
        assert [line[0] for line in lines[1:]] == heads
        assert lines[-2][1:] == ["0.250"] * 5 and lines[-1][1:] == ["0.500"] * 5
    text = report_of_kinds.table("photo32", result | {"data": {"train": "a", "test": "b"}})
    assert "640 bytes" in text and "JPEG" in text


def test_films_have_rows_of_their_own():
    """Rates of a film are those of its clips alone, by codecs that tell of each clip."""
    spec = kinds.BENCHMARKS["video"].spec
    clips = {f"{name}-{k}": kinds.dataset_of(spec, np.zeros((2, 8, 8, 3), "u1")) for name in "ab" for k in range(2)}
    each = [[(90, 80, 30.0), (90, 80, 34.0), (20, 10, 28.0), (20, 10, 36.0)],
            [(200, 190, 36.0), (200, 190, 36.0), (40, 30, 36.0), (40, 30, 36.0)]]  # fmt: skip
    curves = {"H.264 veryslow 4:4:4": [{"each": e} for e in each], FLOOR: [{"bytes": 1, "psnr_db": 1}]}
    ours = [{"bytes": b, "stream_bytes": b - 4, "psnr_db": p} for b, p in ((36, 32), (68, 36))]
    part = {"title": "b", "about": "still", **files._part(spec, clips, "b", ours, curves)}
    assert part["signals"] == 2 and {row["codec"] for row in part["at"]} == {OURS, "H.264 veryslow 4:4:4"}
    at = {row["codec"]: row["net_rate"] for row in part["at"] if row["psnr_db"] == 32}
    assert at == {OURS: pytest.approx(1.0), "H.264 veryslow 4:4:4": pytest.approx(0.625)}
    result = {"kind": "video", "unit": "pixel", "targets": spec.targets,
              "sets": [{"title": "video", "curves": {}, "at": [], "parts": [part]}]}  # fmt: skip
    tables = dict(report_of_kinds.lines_of(result, lambda v: "-" if v is None else f"{v:.3f}"))
    (lines,) = (lines for title, lines in tables.items() if "each with an archive of its own" in title)
    assert lines[-1][:3] == ["b (still), ratio", "-", "1.600"]


def test_clips_are_made_from_photographs():
    from PIL import Image

    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (240, 320, 3), np.uint8)) for _ in range(3)]
    clips = moved.clips(pictures, 2, 5, 32)
    assert clips.shape == (6, 5, 32, 32, 3) and np.array_equal(clips, moved.clips(pictures, 2, 5, 32))
    still = (np.diff(clips.astype(int), axis=1) == 0).all(-1).mean((1, 2, 3))
    assert still.min() < 0.1 and clips.std((1, 2, 3, 4)).min() > 10


def test_rivals_by_level_round_trip():
    values = (WAVES * RNG.standard_normal((5, 3, 1, 1))).astype(np.float32)
    for rival in map(by_level, RIVALS["SZ3"]):
        back = rival.decode(rival.encode(values, 0.01), values.shape, values.dtype)
        assert np.abs(back - values).max() <= 0.01


def test_scattered_points_are_measured_and_summed_up(tmp_path):
    y, x = np.mgrid[0:20, 0:30]
    north, east = (xr.Variable(("y", "x"), v * 1.0 + 0.1 * np.sin(x + y)) for v in (y, x))
    values = np.where(x > 20, np.nan, np.sin(y / 5) + np.cos(x / 6)) * np.ones((3, 1, 1))
    case = unstructured._case("CAM-SE T850", values, ("time", "y", "x"), north, east)
    about = {"field": case.name, "values": int(np.isfinite(values).sum()), "bound_fraction": 0.1, "target": 0.5}
    rows = [unstructured.ours(case, 0.1, tmp_path, located=located) for located in (True, False)]
    rows = [{**about, **row} for row in (*rows, *unstructured.rivals(case, 0.1))]
    assert [row["codec"] for row in rows] == ["vcinr", "vcinr without positions", *unstructured.FAMILIES]
    assert all(row["held"] for row in rows[:2]) and rows[0]["coordinate_bytes"] > rows[1]["coordinate_bytes"] == 0
    assert 0 < rows[0]["bits_without_mask"] < rows[0]["bits_per_value"] and "order" in rows[2]["setting"]
    assert unstructured.table(rows).count("CAM-SE") == 1
    assert set(unstructured.by_codec(rows)[0]) == {row["codec"] for row in rows}


def test_a_case_is_measured_and_summed_up():
    values = (WAVES * RNG.standard_normal((12, 2, 1, 1)) + 0.01 * RNG.standard_normal((12, 2, 30, 40))).astype("f4")
    field = xr.DataArray(values[6:], dims=("time", "level", "y", "x"), name="v")
    case = Case("none", "v", "0", field, values[:6], float(np.ptp(field.values)))
    rows = run(case, (0.1, 0.01), (40.0,), slow=False)
    ours = [r for r in rows if r["codec"] == "vcinr, no model"]
    assert [r["bound_ratio"] <= 1 for r in ours if r["bound_ratio"] is not None] == [True, True]
    assert [r["psnr_db"] >= 40.0 for r in ours if r["bound_fraction"] is None] == [True]
    text = summary(rows)
    assert "none v" in text and "geometric mean of gains" in text and "SPERR" in text


def test_models_are_trained_as_planned_and_used(tmp_path, monkeypatch):
    values = (WAVES[:, ::2] * RNG.standard_normal((40, 2, 1, 1)) + 0.01 * RNG.standard_normal((40, 2, 30, 20))).astype(
        "f4"
    )
    field = xr.DataArray(values, dims=("time", "level", "y", "x"), name="v")
    params = Params(
        inr=Inr(width=24, depth=3, latent=3), meta=Meta(steps=150, batch=4, validate_every=50),
        quantiser=Quantiser(lambdas=(10.0, 1000.0), steps=60),
    )  # fmt: skip
    plan = models.Plan("columns", ("v",), ("level", "y", "x"), params)
    monkeypatch.setattr(models, "MODELS", tmp_path)
    monkeypatch.setitem(climate.DATASETS, "none", lambda: iter([(field[:30], field[30:])]))
    monkeypatch.setitem(models.PLANS, "none", (plan,))
    case = Case("none", "v", "0", field[30:], values[:30], float(np.ptp(values)))
    assert models.models_of(case) == {}
    models.train_models(["none"], 1)
    assert models.models_of(case)["columns"].dims == ("level", "y", "x")
    (row,) = [r for r in run(case, (0.1,), (), slow=False) if r.get("model") == "columns"]
    assert row["codec"] == "vcinr" and row["model_bytes"] == (tmp_path / "columns.vcinr").stat().st_size
    assert row["bound_ratio"] <= 1.0


def test_bytes_of_models_are_shared_out_over_a_year():
    def row(variable: str, codec: str, bits: float, **rest) -> dict:
        where = {"dataset": "speedy", "variable": variable, "part": "0", "bound_fraction": 0.1, "values": 8000}
        return where | {"codec": codec, "bytes": int(1000 * bits), "bound_ratio": 1.0, "ours": False, **rest}

    rows = [row(v, name, b) for v in "ab" for name, b in (("SZ3", 4.0), ("vcinr, no model", 2.0))]
    gain = "speedy         0.1: geometric mean of gains"
    assert f"{gain} 2.000, least 2.000\n" in summary(rows)
    rows += [row(v, "vcinr", 0.5, model="small", model_bytes=12_000) for v in "ab"]  # 0.5 bits a value of the year
    assert f"{gain} 4.000, least 4.000; bits per value of models: vcinr small 0.5000" in summary(rows)
    rows += [row("a", "vcinr", 0.25, model="large", model_bytes=120_000)]  # 10 bits a value: not worth it
    assert f"{gain} 4.000, least 4.000; bits per value of models: vcinr small 0.5000\n" in summary(rows)
    assert "speedy a" in summary(rows) and "0.2500" in summary(rows)  # the smallest where none is counted


def test_speeds_are_measured_beside_the_rivals():
    values = (WAVES * RNG.standard_normal((6, 1, 1))).astype("f4")
    field = xr.DataArray(values, dims=("time", "y", "x"), name="v")
    rows = list(speed.run(Case("none", "v", "0", field, values, float(np.ptp(values))), (0.1,), 1))
    assert {r["codec"] for r in rows} == {"SZ3", "SPERR", "vcinr fast, no model", "vcinr best, no model"}
    assert all(r["encode_mbs"] > 0 and r["decode_mbs"] > 0 for r in rows)
    assert "1.000" in speed.table(rows)
    rows = [
        {"dataset": "d", "variable": str(v), "codec": name, "bound_fraction": 0.1, "encode_mbs": way, "decode_mbs": way}
        for v in range(3) for name, way in (("SZ3", 2.0), ("SPERR", 1.0), ("vcinr fast", 1.0 + v))
    ]  # fmt: skip
    assert speed.medians(rows) == (
        "0.1, vcinr fast, median of 3 variables: encode / SPERR 2.000 (least 1.000), decode / SZ3 1.000 (least 0.500)"
    )


def test_a_trained_model_is_evaluated(tiny_maps, tiny_model, tmp_path):
    write_signals(tmp_path / "signals.zarr", tiny_maps)
    save_model(tiny_model, tmp_path / "model.vcinr")
    (tmp_path / "history.csv").write_text("step,train_psnr_db,valid_psnr_db\n1,20,19\n2,30,28\n")
    options = Evaluate(bounds=(0.1, 0.01), eof_components=(2,), max_values=2000)
    found = evaluate(
        tmp_path / "signals.zarr", tmp_path / "model.vcinr", tmp_path / "archives", tmp_path / "history.csv", options,
        tmp_path / "metrics/evaluate.json", tmp_path / "plots", tmp_path / "report",
    )  # fmt: skip
    assert found["date"] and found["machine"]["cores"] and found["command"].startswith("python")
    assert found["model"]["bytes"] == len(tiny_model.data) and set(found["test"]["t"]["bits_per_value"]) == {
        "0.1",
        "0.01",
    }
    assert json.loads((tmp_path / "metrics/evaluate.json").read_text()) == found
    with open(tmp_path / "plots/bounded.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert all(float(r["bound_ratio"]) <= 1 for r in rows if r["codec"].startswith("vcinr"))
    assert {p.name for p in (tmp_path / "report").iterdir()} == {
        "bounded-t.png", "rate-distortion-t.png", "maps-t.png", "learning.png", "side_by_side.json", "summary.txt",
        "index.html",
    }  # fmt: skip


def test_a_mesh_without_and_with_its_positions(tmp_path, monkeypatch):
    rows, columns = 9, 14
    y, x = (a.ravel() for a in np.meshgrid(np.linspace(0, 2, rows), np.linspace(0, 3, columns), indexing="ij"))
    depth, year = np.arange(12.0)[:, None] / 8, np.arange(2.0)[:, None, None]
    values = np.sin(y + x + depth + 0.1 * year) * np.exp(-depth) + 0.3 * np.cos(2 * x - depth)
    values[:, 6:, :20] = np.nan
    number = np.arange(rows * columns).reshape(rows, columns)
    sides = [(number[:, :-1], number[:, 1:]), (number[:-1], number[1:])]
    pairs = np.concatenate([np.stack([a.ravel(), b.ravel()], 1) for a, b in sides])
    ocean = graphs.Ocean(values.astype("f4"), Graph.of(rows * columns, pairs), 20 * y, 20 * x)
    monkeypatch.setattr(graphs, "ocean", lambda raw: ocean)
    monkeypatch.setattr(graphs, "LATENTS", (4,))
    monkeypatch.setattr(graphs, "BOUNDS", (0.05,))
    small = {"width": 24, "latent": 4}

    def method(latents: int, steps: int):
        params = preset("basis")
        meta = params.meta.model_copy(update={"steps": steps, "points": 126, "validate_every": 50})
        quantiser = params.quantiser.model_copy(update={"steps": 20})
        inr = params.inr.model_copy(update=small)
        return params.model_copy(update={"inr": inr, "meta": meta, "quantiser": quantiser, "threads": 1})

    monkeypatch.setattr(graphs, "method", method)
    found = graphs.measure(tmp_path, steps=100)
    assert found["signals"] == {"train": 12, "valid": 4, "test": 8} and found["edges"] == len(pairs)
    quality = {(r["coordinates"], r["latents"]): r["psnr_db"] for r in found["rows"]}
    assert set(quality) == {(n, 4) for n in (*graphs.NAMES, graphs.EOF)} | {(graphs.EOF, 0)}
    assert quality["EOF", 4] > quality["EOF", 0] and quality["spectral, 16", 4] > quality["EOF", 0] + 5
    assert [r["held"] for r in found["archives"]] == [True] * 4
    assert all(name in graphs.table(found) for name in (*graphs.NAMES, "EOF", "model, and positions"))
