"""Compression in bulk: any engine, any cut, any order and any interruption give the archives of `vcinr compress`."""

import filecmp
import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr.bulk import drive
from vcinr.bulk.engines import engine_of
from vcinr.bulk.request import Request

SERIAL = engine_of("serial")


def field(seed: int, shape: tuple[int, ...] = (12, 20, 30)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).cumsum(1).cumsum(2).astype("f4")


def dataset(seed: int) -> xr.Dataset:
    """Two variables, one of them packed, with coordinates and a text."""
    packed = np.round(field(seed + 100) * 50).astype("i2")
    return xr.Dataset(
        {
            "u": (("t", "y", "x"), field(seed), {"units": "m s-1"}),
            "p": (("t", "y", "x"), packed, {"scale_factor": 0.02, "_FillValue": np.int16(-9)}),
            "name": ("t", np.array([f"run {i}" for i in range(12)], object)),
        },
        {"t": np.arange(12.0), "y": np.linspace(-60, 60, 20)},
        {"title": "a test"},
    )


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs")
    for i in range(3):
        dataset(i).to_netcdf(folder / f"{'abc'[i]}.nc")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def same(one: Path, other: Path) -> bool:
    if one.is_file():
        return filecmp.cmp(one, other, shallow=False)
    return files(one) == files(other)


BOUNDS = [{"abs_error": 0.05}, {"rel_error": 1e-3}, {"psnr": 50.0}, {}]


@pytest.mark.parametrize("bound", BOUNDS, ids=lambda b: next(iter(b), "lossless"))
@pytest.mark.parametrize("target", ["out.zarr", "out.zip"])
@pytest.mark.parametrize("seconds", [0.0, 0.02, 60.0])
def test_archives_are_those_of_compress(inputs, tmp_path, bound, target, seconds):
    vcinr.compress(inputs / "a.nc", tmp_path / f"plain-{target}", chunk=2, effort="fast", **bound)
    request = Request(chunk=2, effort="fast", **bound)
    found = drive.compress(str(inputs / "a.nc"), str(tmp_path / target), request, SERIAL, batch_seconds=seconds)
    assert not found.failed
    assert same(tmp_path / f"plain-{target}", tmp_path / target)
    assert found.archives[str(tmp_path / target)]["variables"] == vcinr.info(tmp_path / f"plain-{target}")["variables"]
    assert sorted(os.listdir(tmp_path)) == sorted([target, f"plain-{target}"]), "nothing is left behind"
