"""Faults: killed while writing, fuzzed bytes. Never a wrong value, a half archive or another kind of error."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import xarray as xr

import vcinr
from tests.fuzz import decoder


@pytest.fixture
def source(tmp_path):
    rng = np.random.default_rng(0)
    field = rng.standard_normal((40, 20, 30)).cumsum(1).cumsum(2).astype("f4")
    xr.Dataset({"v": (("t", "y", "x"), field)}).to_netcdf(tmp_path / "in.nc")
    return tmp_path / "in.nc"


def test_killed_at_any_moment_no_half_archive_passes_for_whole(source, tmp_path):
    target = tmp_path / "out.zarr"

    def command(out):
        words = ["-m", "vcinr.cli", "compress", source, out, "--abs-error", "0.05", "--chunk", "4"]
        return [sys.executable, *map(str, words)]

    whole = time.monotonic()
    subprocess.run(command(tmp_path / "timed.zarr"), check=True, capture_output=True)
    whole = time.monotonic() - whole
    rng, killed = np.random.default_rng(1), 0
    for _ in range(6):
        process = subprocess.Popen(command(target), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(rng.uniform(0.2, 1.0) * whole)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if target.exists():
            break
    if target.exists():  # it was renamed into place: then it is whole
        assert vcinr.verify(target, vcinr.open_dataset(source))[0] == []
    else:
        subprocess.run(command(target), check=True, capture_output=True)
        assert vcinr.verify(target, vcinr.open_dataset(source))[0] == []
    assert killed > 0
    assert not list(tmp_path.glob(".*part")), "what a killed run left is cleared by the next"
    timed, made = vcinr.info(tmp_path / "timed.zarr"), vcinr.info(target)
    assert made["variables"] == timed["variables"]


def test_decoders_survive_three_seconds_of_mutations(capsys):
    assert decoder.main(3.0, seed=7) == 0
    assert int(capsys.readouterr().out.split()[0]) > 100
