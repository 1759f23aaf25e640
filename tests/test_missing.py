"""The runs on data with missing cells: how outcomes are judged, and that vcinr's own rows hold."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("imagecodecs", reason="needs the extra vcinr[bench]")
pytest.importorskip("pysz", reason="needs the extra vcinr[bench]")
pytest.importorskip("zfpy", reason="needs the extra vcinr[bench]")

from benchmarks import missing, positions
from benchmarks.measure.missing import BROKE, HELD, MOVED, judge
from benchmarks.missing import FILL, OURS, RAW, best, cases, measure, run_process, table, through_archive
from vcinr.errors import InputError

BOUND = 0.05


def ocean() -> tuple[np.ndarray, np.ndarray]:
    """A smooth field ``[3, 20, 28]`` and where it has no value."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:20, 0:28] / 20
    values = 15 + 5 * np.sin(3 * x) * np.cos(2 * y) + np.arange(3)[:, None, None] + 0.02 * rng.normal(size=(3, 20, 28))
    return values.astype(np.float32), np.broadcast_to((x - 0.7) ** 2 + (y - 0.4) ** 2 < 0.1, values.shape)


VALUES, MISSING = ocean()
CASES = {case.name: case for case in cases(VALUES, MISSING)}


def test_a_field_takes_four_forms():
    assert list(CASES) == ["NaN", "fill 1e20", "one +Inf", "complete"]
    assert np.array_equal(CASES["NaN"].missing, MISSING)
    assert np.array_equal(CASES["fill 1e20"].missing, MISSING)
    assert CASES["one +Inf"].missing.sum() == 1 and CASES["one +Inf"].missing[1, 10, 14]
    assert not CASES["complete"].missing.any()
    assert all(case.values.dtype == np.float32 for case in CASES.values())


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_values_within_the_bound_hold(case):
    decoded = np.where(case.missing, case.values, case.values + np.float32(0.9 * BOUND))
    found = judge(case.values, decoded, BOUND, (FILL,))
    assert found["outcome"] == HELD and found["outside"] == 0 and found["positions_exact"]
    assert 0.85 < found["bound_ratio"] < 0.95


@pytest.mark.parametrize(("value", "not_finite"), [(3 * BOUND, 0), (np.nan, 1), (np.inf, 1)])
def test_one_valid_value_outside_breaks_the_bound(value, not_finite):
    decoded = CASES["NaN"].values.copy()
    at = tuple(np.argwhere(~MISSING)[7])
    decoded[at] += value
    found = judge(CASES["NaN"].values, decoded, BOUND)
    assert (found["outcome"], found["outside"], found["not_finite"]) == (BROKE, 1, not_finite)
    assert found["positions_exact"] == (not_finite == 0)
    assert found["bound_ratio"] == pytest.approx(0 if not_finite else 3, rel=1e-4)


@pytest.mark.parametrize(
    ("name", "value", "kind"),
    [("NaN", 0.0, "nan"), ("one +Inf", 3e38, "+inf"), ("one +Inf", -np.inf, "-inf"), ("fill 1e20", 1.0001e20, "fill")],
)
def test_a_missing_cell_that_changes_is_seen(name, value, kind):
    case = CASES[name]
    decoded = case.values.copy()
    decoded[tuple(np.argwhere(case.missing)[0])] = value
    found = judge(case.values, decoded, BOUND, (FILL,))
    assert found["outcome"] == MOVED and found["outside"] == 0 and not found["positions"][kind]


def test_a_valid_value_that_becomes_the_fill_value_is_seen():
    original = np.array([[0, 1, 2, 0]], np.int16)
    found = judge(original, np.array([[0, 0, 2, 0]], np.int16), 1, (0,))
    assert found["outcome"] == MOVED and not found["positions"]["fill"]


def test_another_shape_or_dtype_is_an_error():
    assert judge(VALUES, VALUES[:2], BOUND)["outcome"] == "error"
    assert judge(VALUES, VALUES.astype(np.float64), BOUND)["outcome"] == "error"


@pytest.mark.parametrize(
    ("code", "outcome", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "crash (signal 11)", ""),
        ("import os; os.abort()", "crash (signal 6)", ""),
        ("raise ValueError('no such bound')", "error", "ValueError: no such bound"),
        ("import time; time.sleep(60)", "timeout", "not done after 1 s"),
    ],
)
def test_a_process_that_fails_is_reported(code, outcome, message, tmp_path):
    assert run_process([sys.executable, "-S", "-c", code], 1, tmp_path) == {"outcome": outcome, "message": message}


def test_a_process_that_ends_well_is_not(tmp_path):
    assert run_process([sys.executable, "-S", "-c", "print('done')"], 10, tmp_path) == {}


def test_vcinr_holds_in_a_process_of_its_own():
    row = measure(OURS, CASES["fill 1e20"], BOUND)
    assert row["outcome"] == HELD, row
    assert row["positions_exact"] and row["bound_ratio"] <= 1
    assert 0 < row["bits_per_value"] < 16 and row["missing"] == MISSING.sum()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_vcinr_holds(case, tmp_path):
    size, decoded = through_archive(case.values, BOUND, case.fill, tmp_path / "archive.zarr")
    assert judge(case.values, decoded, BOUND, () if case.fill is None else (case.fill,))["outcome"] == HELD
    assert 0 < size < case.values.nbytes / 2


@pytest.mark.parametrize("codec", RAW)
def test_a_rival_holds_on_a_complete_field(codec):
    values = CASES["complete"].values
    _, encode, decode = RAW[codec]
    found = judge(values, decode(encode(values, BOUND), values.shape, values.dtype), 1.01 * BOUND)
    assert found["outcome"] == HELD


def test_a_codec_that_fails_is_a_row(monkeypatch):
    monkeypatch.setattr(missing, "RAW", {**RAW, "none": ("none", *RAW["ZFP"][1:])})
    row = measure("none", CASES["NaN"], BOUND)  # not known to the other process
    assert (row["outcome"], row["stage"], row["bits_per_value"]) == ("error", "encode", None)
    assert "KeyError" in row["message"]


def row(**changes) -> dict:
    base = {"field": "f", "case": "NaN", "bound_fraction": 0.01, "codec": OURS, "variant": OURS, "bytes": 10}
    return {**base, "bits_per_value": 1.5, "positions_exact": True, "bound_ratio": 0.9, "outside": 0, **changes}


def test_the_best_setting_holds_before_it_is_small():
    rows = [row(outcome=BROKE, bytes=1), row(outcome=HELD, bytes=9), row(outcome=HELD, bytes=8)]
    assert best(rows)["bytes"] == 8
    assert best([row(outcome="timeout", bytes=None), row(outcome=BROKE)])["outcome"] == BROKE


@pytest.mark.parametrize(("outcome", "status"), [(HELD, 0), (BROKE, 1), ("crash (signal 11)", 1)])
def test_the_exit_status_is_that_of_vcinr(outcome, status, monkeypatch, tmp_path, capsys):
    rows = [row(outcome=outcome), row(codec="SPERR", outcome="crash (signal 11)", bits_per_value=None)]
    monkeypatch.setattr(missing, "read_fields", lambda raw: {})
    monkeypatch.setattr(missing, "compare", lambda fields, watch: rows)
    assert missing.main(["--out", str(tmp_path / "deep" / "missing.json")]) == status
    written = json.loads((tmp_path / "deep" / "missing.json").read_text())
    assert written["rows"] == rows and written["machine"]["python"]
    assert table(rows) in capsys.readouterr().out


# --- Positions ----------------------------------------------------------------------------------------------


@pytest.fixture
def stored(tmp_path):
    """A netCDF file with missing cells of several kinds, and a field without."""
    dims = ("time", "lat", "lon")
    packed = np.where(MISSING, np.int16(-32768), np.rint(VALUES * 100).astype(np.int16))
    fields = {
        "filled": xr.Variable(dims, CASES["fill 1e20"].values, {"_FillValue": np.float32(FILL)}),
        "named": xr.Variable(dims, CASES["fill 1e20"].values, {"missing_value": np.float32(FILL)}),
        "packed": xr.Variable(dims, packed, {"_FillValue": np.int16(-32768), "scale_factor": 0.01}),
        "holes": xr.Variable(dims, CASES["NaN"].values),
        "infinite": xr.Variable(dims, CASES["one +Inf"].values),
        "whole": xr.Variable(dims, VALUES),
        "line": xr.Variable("lon", np.full(28, np.nan)),
    }
    path = tmp_path / "stored.nc"
    xr.Dataset(fields).to_netcdf(path, encoding={n: {"_FillValue": None} for n in ("named", "holes", "infinite")})
    return path


def test_every_field_with_missing_cells_is_checked_and_holds(stored):
    rows = list(positions.check_file("package 1", stored, "stored.nc"))
    assert {r["variable"] for r in rows} == {"filled", "named", "packed", "holes", "infinite"}
    assert len(rows) == 2 * 5 and all(r["part"] is None for r in rows)
    assert [r for r in rows if r["outcome"] != HELD] == []
    assert all(r["decoded_positions_exact"] and not r["verify_problems"] for r in rows)
    kinds = {(r["variable"], r["form"]): {k for k, n in r["missing"].items() if n} for r in rows}
    assert kinds["filled", "stored"] == kinds["packed", "stored"] == {"fill"}
    assert kinds["filled", "decoded"] == kinds["packed", "decoded"] == {"nan"}
    assert kinds["infinite", "stored"] == {"+inf"}


def test_a_large_field_is_cut_and_says_so(tmp_path):
    data = xr.DataArray(CASES["NaN"].values, dims=("time", "lat", "lon"), name="holes")
    data.to_netcdf(tmp_path / "one.nc")
    rows = list(positions.check_file("package 1", tmp_path / "one.nc", "one.nc", limit=2 * 20 * 28))
    assert [(r["shape"], r["part"]) for r in rows] == 2 * [([2, 20, 28], "the first 1120 of 1680 values")]
    assert positions.first_values(data, 300) == {"time": slice(1), "lat": slice(10)}


def test_a_mismatch_is_seen_and_is_the_exit_status(stored, monkeypatch, tmp_path, capsys):
    (tmp_path / "damaged.nc").write_bytes(b"CDF\x01 no more")
    monkeypatch.setattr(positions, "fetch", lambda package, raw, watch: tmp_path)
    monkeypatch.setattr(positions, "PACKAGES", positions.PACKAGES[:1])
    monkeypatch.setattr(positions, "check_variable", lambda dataset, name, folder: {"outcome": MOVED})
    out = tmp_path / "positions.json"
    assert positions.main(["--out", str(out)]) == 1
    result = json.loads(out.read_text())
    assert result["summary"]["outcomes"] == {MOVED: 10} and result["summary"]["files_not_opened"] == 1
    assert result["unread"][0]["file"] == "damaged.nc" and "cut off" in result["unread"][0]["reason"]
    assert "1 .nc: " in capsys.readouterr().out


def test_a_package_that_cannot_be_fetched_is_listed(monkeypatch, tmp_path):
    def refuse(package, raw, watch):
        raise InputError("the download failed")

    monkeypatch.setattr(positions, "fetch", refuse)
    result = positions.check(tmp_path)
    assert result["rows"] == [] and len(result["unread"]) == len(positions.PACKAGES)
    assert "the download failed" in positions.table(result)
