"""Compression in bulk: any engine, any cut, any order and any interruption give the archives of `vcinr compress`."""

import filecmp
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr.bulk import batch as batch_module
from vcinr.bulk import drive
from vcinr.bulk.engines import engine_of
from vcinr.bulk.request import Request
from vcinr.errors import InputError

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


def test_engines_and_cuts_and_interruptions_do_not_show(inputs, tmp_path):
    vcinr.compress(inputs / "b.nc", tmp_path / "plain.zarr", abs_error=0.05, chunk=3, effort="fast")
    request = Request(abs_error=0.05, chunk=3, effort="fast")
    for engine in (engine_of("threads", workers=3), engine_of("processes", workers=2)):
        target = tmp_path / f"{engine.name}.zarr"
        drive.compress(str(inputs / "b.nc"), str(target), request, engine, batch_seconds=0.0)
        assert same(tmp_path / "plain.zarr", target)


def test_many_inputs_become_an_archive_each(inputs, tmp_path):
    request = Request(abs_error=0.05, effort="fast")
    found = drive.compress(str(inputs / "*.nc"), str(tmp_path / "out"), request, SERIAL)
    assert sorted(os.listdir(tmp_path / "out")) == ["a.zarr", "b.zarr", "c.zarr"] and len(found.archives) == 3
    again = drive.compress(str(inputs / "*.nc"), str(tmp_path / "out"), request, SERIAL)
    assert all(facts["skipped"] for facts in again.archives.values())
    again = drive.compress(str(inputs / "*.nc"), str(tmp_path / "out"), request, SERIAL, batch_seconds=0.0)
    assert all(facts["skipped"] for facts in again.archives.values())
    other = drive.compress(str(inputs / "*.nc"), str(tmp_path / "out"), Request(abs_error=0.1), SERIAL)
    assert len(other.failed) == 3 and "overwrite" in next(iter(other.failed.values()))


def test_parts_and_commit(inputs, tmp_path):
    request = Request(abs_error=0.05, chunk=2, effort="fast")
    place, target = str(inputs / "a.nc"), tmp_path / "out.zarr"
    vcinr.compress(place, tmp_path / "plain.zarr", abs_error=0.05, chunk=2, effort="fast")
    drive.compress(place, str(target), request, SERIAL, batch_seconds=0.0, part=(1, 2))
    assert not target.exists()
    assert not drive.commit(str(target)).failed
    assert same(tmp_path / "plain.zarr", target) and sorted(os.listdir(tmp_path)) == ["out.zarr", "plain.zarr"]
    with pytest.raises(InputError, match="nothing was begun"):
        drive.commit(str(target))


@pytest.fixture
def memory():
    yield fsspec.filesystem("memory")
    fsspec.filesystem("memory").store.clear()


@pytest.mark.parametrize("name", ["memory://bucket/a.zarr", "memory://bucket/a.zip"])
def test_a_url_gets_the_same_archive(inputs, tmp_path, memory, name):
    vcinr.compress(inputs / "a.nc", tmp_path / "plain.zarr", abs_error=0.05, chunk=2, effort="fast")
    request = Request(abs_error=0.05, chunk=2, effort="fast")
    for overwrite in (False, True):
        found = drive.compress(str(inputs / "a.nc"), name, request, SERIAL, batch_seconds=0.0, overwrite=overwrite)
        assert not found.failed and vcinr.verify(name, vcinr.open_groups(inputs / "a.nc"))[0] == []
        request = Request(abs_error=0.06, chunk=3, effort="fast")
    if name.endswith(".zarr"):
        drive.compress(str(inputs / "a.nc"), name, Request(abs_error=0.05, chunk=2, effort="fast"), SERIAL,
                       batch_seconds=0.0, overwrite=True)  # fmt: skip
        held = {k.removeprefix("/bucket/a.zarr/"): v.getvalue() for k, v in memory.store.items()}
        assert held == files(tmp_path / "plain.zarr")


def test_files_are_joined(inputs, tmp_path):
    whole = xr.concat([dataset(i).assign_coords(t=np.arange(12.0) + 12 * i) for i in range(3)], "t")
    (tmp_path / "in").mkdir()
    for i in range(3):
        whole.isel(t=slice(12 * i, 12 * i + 12)).to_netcdf(tmp_path / f"in/{i}.nc", unlimited_dims=["t"])
    request = Request(abs_error=0.05, chunk=5, effort="fast", concat="t")
    found = drive.compress(str(tmp_path / "in/*.nc"), str(tmp_path / "all.zarr"), request, SERIAL, batch_seconds=0.0)
    assert not found.failed
    with xr.open_zarr(tmp_path / "all.zarr") as back:
        assert back.sizes["t"] == 36 and float(abs(back["u"] - whole["u"]).max()) <= 0.05
        assert list(back["name"].values) == list(whole["name"].values)


def test_a_poison_input_fails_alone(inputs, tmp_path):
    (tmp_path / "in").mkdir()
    for i in range(5):
        (tmp_path / f"in/{i}.nc").write_bytes((inputs / "a.nc").read_bytes() if i != 3 else b"junk")
    request = Request(abs_error=0.05, effort="fast")
    for seconds in (60.0, 0.0):
        out = str(tmp_path / f"out{seconds}")
        found = drive.compress(str(tmp_path / "in/*.nc"), out, request, SERIAL, batch_seconds=seconds)
        assert list(found.failed) == [str(tmp_path / "in/3.nc")] and len(found.archives) == 4
        with pytest.raises(InputError, match=r"1 of 5 inputs failed: .*3\.nc"):
            found.check(5)


def test_damage_between_batch_and_commit_is_named_and_mended(inputs, tmp_path, monkeypatch):
    request, target = Request(abs_error=0.05, chunk=2, effort="fast"), tmp_path / "out.zarr"
    vcinr.compress(inputs / "a.nc", tmp_path / "plain.zarr", abs_error=0.05, chunk=2, effort="fast")
    arguments = (str(inputs / "a.nc"), str(target), request, SERIAL)

    def damaged(pattern):
        file = sorted((tmp_path / ".out.zarr.bulk").glob(pattern))[3]
        file.write_bytes(file.read_bytes()[:-3] + b"???")
        return file

    for pattern, named in (("chunks/*/u/c/*/0/0", "chunk u/c/"), ("receipts/*.json", "receipt")):
        drive.compress(*arguments, batch_seconds=0.0, part=(0, 1))
        damaged(pattern)
        found = drive.commit(str(target))
        assert named in next(iter(found.failed.values())) and not target.exists()
    counted, real = [], batch_module.encode_chunk
    monkeypatch.setattr(batch_module, "encode_chunk", lambda *a: counted.append(a[1]) or real(*a))
    drive.compress(*arguments, batch_seconds=0.0)
    assert len(counted) == 1 and same(tmp_path / "plain.zarr", target)
