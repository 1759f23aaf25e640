"""The command line as a user meets it: a new data set without code, one-line errors, nothing half written."""

import contextlib
import io
import json
import logging
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import yaml

from vcinr import cli

VCINR = [sys.executable, "-m", "vcinr.cli"]


def run(*arguments, fails=False, cwd=None):
    done = subprocess.run([*VCINR, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done


def error(*arguments, cwd=None) -> str:
    """The single line that a failing command ends with, run in this process: starting one takes two seconds."""
    handlers, level = logging.root.handlers[:], logging.getLogger("vcinr").level
    argv, sys.argv = sys.argv, ["vcinr", *map(str, arguments)]
    try:
        with (
            contextlib.chdir(cwd or "."),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()) as written,
            pytest.raises(SystemExit) as ended,
        ):
            cli.main()
    finally:
        sys.argv, logging.root.handlers[:] = argv, handlers
        logging.getLogger("vcinr").setLevel(level)
    lines = written.getvalue().strip().splitlines()
    assert ended.value.code not in (0, None) and lines[-1].startswith("vcinr: "), written.getvalue()
    assert sum(line.startswith("vcinr: ") for line in lines) == 1
    return lines[-1]


@pytest.fixture
def pressure(tmp_path):
    """A global field of another variable and grid than any default: packed integers, cells missing, CF times."""
    rng = np.random.default_rng(0)
    lat, lon = np.linspace(90, -90, 19), np.arange(0, 360, 10.0)
    wave = np.sin(np.deg2rad(lon))[None, None] * np.cos(np.deg2rad(lat))[None, :, None]
    fields = 101000 + 1500 * rng.standard_normal((24, 1, 1)) * wave + 300 * np.cos(2 * np.deg2rad(lat))[None, :, None]
    data = xr.Dataset(
        {"msl": (("time", "lat", "lon"), fields.astype("f4"), {"units": "Pa", "standard_name": "air_pressure"})},
        {"time": np.arange("2000-01", "2002-01", dtype="M8[M]").astype("M8[ns]"),
         "lat": ("lat", lat, {"units": "degrees_north"}), "lon": ("lon", lon, {"units": "degrees_east"})},
    )  # fmt: skip
    data["msl"][3, 4, 5] = np.nan
    path = tmp_path / "new.nc"
    data.to_netcdf(
        path, encoding={"msl": {"dtype": "i2", "scale_factor": 1.0, "add_offset": 101000, "_FillValue": -32767}}
    )
    return path


@pytest.fixture
def quick(tmp_path):
    """A params file with few steps; the command runs as well without."""
    params = {"threads": 1, "meta": {"steps": 60, "validate_every": 30, "points": 64}, "quantiser": {"steps": 60}}
    (tmp_path / "quick.yaml").write_text(yaml.safe_dump(params))
    return tmp_path / "quick.yaml"


def test_a_new_data_set_from_training_to_netcdf(pressure, quick, tmp_path):
    model, archive, back = tmp_path / "msl.vcinr", tmp_path / "out.zarr", tmp_path / "back.nc"
    done = run("train", pressure, "--var", "msl", "--out", model, "--params", quick)
    assert "meta-train 60/60" in done.stderr and "msl" in done.stdout
    assert not list(tmp_path.glob(".*work")), "the work folder is removed once the model is written"
    run("compress", pressure, archive, "--model", model, "--abs-error", 20)
    run("verify", archive, "--against", pressure)
    facts = json.loads(run("info", "--json", archive).stdout)
    msl = facts["variables"]["msl"]
    assert msl["values"] == 24 * 19 * 36 and msl["max_abs_error"] <= 20 and msl["bound"]["value"] == 20
    assert set(facts["model"]) == {"sha256", "bytes"} and facts["total_bytes"] > 0
    run("decompress", archive, back)
    with xr.open_dataset(pressure) as old, xr.open_dataset(back) as new, xr.open_zarr(archive) as lazy:
        for data in (new, lazy):
            assert float(np.abs(old["msl"] - data["msl"]).max()) <= 20
            assert np.array_equal(np.isnan(old["msl"]), np.isnan(data["msl"]))
            xr.testing.assert_equal(old.drop_vars("msl"), data.drop_vars("msl"))


def test_real_scenario(hadgem_run, tmp_path):
    archive = tmp_path / "out.zarr"
    run("compress", hadgem_run["a1b"], archive, "--model", hadgem_run["model"], "--abs-error", 0.5, "--chunk", 48)
    run("verify", archive, "--against", hadgem_run["a1b"])
    victim = archive / "air_temperature" / "c" / "2" / "0" / "0"
    data = bytearray(victim.read_bytes())
    data[40] ^= 16
    victim.write_bytes(data)
    done = run("verify", archive, fails=True)
    assert "air_temperature/c/2/0/0" in done.stderr and "c/1/0/0" not in done.stderr


def test_without_a_model_and_without_torch(pressure, tmp_path):
    """The light install: torch hidden, the fallback coders give the same guarantee."""
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from vcinr.cli import main\n"
        f"sys.argv = ['vcinr', 'compress', {str(pressure)!r}, {str(tmp_path / 'a.zarr')!r}, '--rel-error', '0.01']\n"
        "main()\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    run("verify", tmp_path / "a.zarr", "--against", pressure)


def test_a_model_needs_torch_to_compress(hadgem_run, tmp_path):
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from vcinr.cli import main\n"
        f"sys.argv = ['vcinr', 'compress', {str(hadgem_run['a1b'])!r}, {str(tmp_path / 'a.zarr')!r}, "
        f"'--model', {str(hadgem_run['model'])!r}, '--abs-error', '0.5']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "pip install 'vcinr[train]'" in done.stderr and "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_line(pressure, hadgem_run, quick, tmp_path):
    out = tmp_path / "out.zarr"
    assert "nothing.nc" in error("compress", tmp_path / "nothing.nc", out, "--abs-error", 1)
    (tmp_path / "broken.nc").write_bytes(b"CDF\x01 not really")
    assert "broken.nc" in error("compress", tmp_path / "broken.nc", out, "--abs-error", 1)
    assert "'mls'" in (line := error("compress", pressure, out, "--abs-error", 1, "--var", "mls")) and "new.nc" in line
    assert "msl" in line
    assert "no.vcinr" in error("compress", pressure, out, "--model", tmp_path / "no.vcinr", "--abs-error", 1)
    wrong = error("compress", pressure, out, "--model", hadgem_run["model"], "--abs-error", 1)
    assert "air_temperature" in wrong and "msl" in wrong
    xr.Dataset({"v": (("t", "x"), np.zeros((0, 3)))}).to_netcdf(tmp_path / "empty.nc")
    line = error("train", tmp_path / "empty.nc", "--out", tmp_path / "m.vcinr", "--var", "v", "--params", quick)
    assert "empty.nc" in line and "'t'" in line
    assert "'nope'" in error("train", pressure, "--out", tmp_path / "m.vcinr", "--var", "nope", "--params", quick)
    (tmp_path / "typo.yaml").write_text("meta: {stepz: 10}")
    line = error("train", pressure, "--out", tmp_path / "m.vcinr", "--params", tmp_path / "typo.yaml")
    assert "typo.yaml" in line and "meta.stepz" in line and "'steps'" in line
    (tmp_path / "type.yaml").write_text("inr: {width: wide}")
    line = error("train", pressure, "--out", tmp_path / "m.vcinr", "--params", tmp_path / "type.yaml")
    assert "type.yaml" in line and "inr.width" in line and "integer" in line
    assert "no such archive" in error("info", tmp_path / "none.zarr")
    assert "exists" in error("compress", pressure, tmp_path, "--abs-error", 1)
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"new.nc", "quick.yaml", "broken.nc", "empty.nc", "typo.yaml", "type.yaml"}


def test_no_space_leaves_no_archive_and_a_rerun_finishes(pressure, tmp_path):
    """A file-size limit stands in for a full disk: writing fails in the middle."""
    script = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "from vcinr.cli import main\n"
        "import vcinr.archive.write, vcinr.formats.open\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        f"sys.argv = ['vcinr', 'compress', {str(pressure)!r}, {str(tmp_path / 'a.zarr')!r}, '--abs-error', '1']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "a.zarr" in done.stderr and "cannot write" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "a.zarr").exists()
    assert {p.name for p in tmp_path.iterdir()} <= {"new.nc", ".a.zarr.part"}
    run("compress", pressure, tmp_path / "a.zarr", "--abs-error", 1)
    assert {p.name for p in tmp_path.iterdir()} == {"new.nc", "a.zarr"}


def test_help_names_every_command():
    text = run("--help").stdout
    assert all(name in text for name in ("train", "compress", "decompress", "verify", "info"))
