"""Where archives lie and how they are read: folders, zip files, URLs; zarr, xarray and dask; sharded arrays."""

import itertools
import os
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor

import fsspec
import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from tests.test_archive import waves
from vcinr.archive import models, store, work, zarr_codec
from vcinr.archive.sharding import VcinrSharding
from vcinr.archive.zarr_codec import VcinrCodec, encode_axis
from vcinr.errors import CorruptError, InputError, ModelError


@pytest.fixture
def data():
    values = np.random.default_rng(0).standard_normal((12, 9, 8)).cumsum(1).cumsum(2).astype("f4")
    values[3, 2:5] = np.nan
    return xr.Dataset({"v": (("t", "y", "x"), values), "name": ("t", np.array(list("abcdefghijkl"), object))})


@pytest.fixture(autouse=True)
def clean_memory():
    yield
    memory = fsspec.filesystem("memory")
    memory.store.clear()
    memory.pseudo_dirs[:] = [""]


def plain(place):
    """As a user opens it, without vcinr's own functions."""
    if str(place).endswith(".zip") and "://" in str(place):  # fsspec before 2026.9 cannot be asked for another format
        return xr.open_zarr(f"zip::{place}", chunks=None, zarr_format=3)
    if str(place).endswith(".zip"):
        return xr.open_zarr(zarr.storage.ZipStore(place, mode="r"), chunks=None)
    return xr.open_zarr(place, chunks=None)


@pytest.mark.parametrize(
    "name", ["{}/a.zarr", "{}/a.zip", "{}/a.zarr.zip", "file://{}/a.zarr", "memory://a.zarr", "memory://b/a.zip"]
)
def test_targets(name, data, tmp_path):
    place = name.format(tmp_path)
    facts = vcinr.compress(data, place, abs_error=0.1, chunk=5)
    with plain(place) as back:
        assert float(np.abs(back["v"] - data["v"]).max()) <= 0.1 and list(back["name"].values) == list("abcdefghijkl")
        assert np.array_equal(np.isnan(back["v"]), np.isnan(data["v"]))
    assert (
        vcinr.verify(place, data)[0] == []
        and vcinr.info(place) == facts
        and facts["total_bytes"] > facts["variables"]["v"]["bytes"]
    )
    with pytest.raises(InputError, match="exists already"):
        vcinr.compress(data, place, abs_error=0.2)
    vcinr.compress(data, place, abs_error=0.2, overwrite=True)
    assert vcinr.info(place)["variables"]["v"]["bound"]["value"] == 0.2 and vcinr.verify(place, data)[0] == []
    vcinr.decompress(place, tmp_path / "back.nc")
    assert not store.workplace(place).exists()


def test_equal_inputs_make_equal_zip_files(data, tmp_path):
    for name in ("a.zip", "b.zip"):
        vcinr.compress(data, tmp_path / name, abs_error=0.1)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert archive.testzip() is None
        deflated = {i.filename for i in archive.infolist() if i.compress_type != zipfile.ZIP_STORED}
        assert deflated == {n for n in archive.namelist() if n.endswith("zarr.json")}, "a chunk is a part of the file"


def test_a_broken_upload_is_no_archive_and_goes_on(data, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    real, sent = store._put, []

    def failing(fs, path, name):
        sent.append(name)
        if len(sent) == 7:
            raise OSError("connection lost")
        real(fs, path, name)

    monkeypatch.setattr(store, "_put", failing)
    with pytest.raises(InputError, match="connection lost"):
        vcinr.compress(data, "memory://a.zarr", abs_error=0.1, chunk=3)
    with pytest.raises(InputError):
        vcinr.open("memory://a.zarr")
    monkeypatch.setattr(work, "encode", None)  # every chunk was finished: none is encoded again
    vcinr.compress(data, "memory://a.zarr", abs_error=0.1, chunk=3)
    assert vcinr.verify("memory://a.zarr", data)[0] == []


def test_overwriting_replaces_archives_alone(data, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    (tmp_path / "notes.zip").write_text("no zip")
    fsspec.filesystem("memory").pipe_file("/bucket/thesis.tex", b"years of work")
    for place in (tmp_path / "home", tmp_path / "notes.zip", "memory://bucket"):
        with pytest.raises(InputError, match="no archive"):
            vcinr.compress(data, place, abs_error=0.1, overwrite=True)
    assert (tmp_path / "home" / "thesis.tex").exists() and fsspec.filesystem("memory").exists("/bucket/thesis.tex")
    (tmp_path / "empty").mkdir()
    vcinr.compress(data, tmp_path / "empty", abs_error=0.1)
    assert vcinr.verify(tmp_path / "empty", data)[0] == []


def test_unknown_places(data, tmp_path):
    for place in ("nosuch://a/b.zarr", "memory://nothing.zarr", tmp_path / "none.zip"):
        with pytest.raises(InputError):
            vcinr.open(place)
    with pytest.raises(InputError, match="fsspec"):
        vcinr.compress(data, "nosuch://a/b.zarr", abs_error=0.1)
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(InputError, match="zip"):
        vcinr.info(tmp_path / "text.zip")


def test_dask_reads_lazily(data, tmp_path, monkeypatch):
    pytest.importorskip("dask.array")
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1, chunk=3)
    calls, real = [], zarr_codec.decode
    monkeypatch.setattr(zarr_codec, "decode", lambda *a, **k: calls.append(1) or real(*a, **k))
    with xr.open_zarr(tmp_path / "a.zarr") as back:
        assert back["v"].chunks == ((3, 3, 3, 3), (9,), (8,)) and calls == []
        part = back["v"][4:6].mean().compute()
        assert len(calls) == 1
        assert float(abs(part - data["v"][4:6].mean())) <= 0.1
        whole = [back["v"].compute(scheduler=s).values for s in ("threads", "sync")]
        whole.append(back["v"].compute(scheduler="processes", num_workers=2).values)
    assert all(w.tobytes() == whole[0].tobytes() for w in whole)


def test_any_order_and_any_number_of_threads_give_the_same_values(tiny_maps, tiny_model, tmp_path):
    vcinr.compress(waves(tiny_maps), tmp_path / "a.zarr", model=tiny_model, abs_error=8.0, chunk=3)
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["t"]
    whole = array[...]
    order = np.random.default_rng(0).permutation(12)
    assert np.array_equal(np.stack([array[i] for i in order]), whole[order])
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda i: array[i : i + 2, ::2], range(0, 12, 2)))
    assert np.array_equal(np.concatenate(parts), whole[:, ::2])
    script = (
        "import sys, numpy as np, xarray as xr\n"
        f"v = xr.open_zarr({str(tmp_path / 'a.zarr')!r}, chunks=None)['t'].values\n"
        "sys.stdout.write(v.tobytes().hex())\n"
    )
    for threads in ("1", "2", "4"):
        environment = {**os.environ, "OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment
        )
        assert done.stdout == whole.tobytes().hex(), threads


def test_same_input_model_and_seed_give_the_same_bytes(tiny_maps, tiny_model, tmp_path):
    for name in ("a.zip", "b.zip"):
        vcinr.compress(waves(tiny_maps), tmp_path / name, model=tiny_model, abs_error=1.0, chunk=5)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_shards_with_a_model(tiny_maps, tiny_model, tmp_path):
    values, axes = waves(tiny_maps)["t"], tuple(encode_axis(a) for a in tiny_maps.axes)
    root = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=3)
    models.put(root, tiny_model)
    inner = VcinrCodec("t", (1, 2), axes, tiny_model.sha256, tiny_model.scaling("t"), ("absolute", 5.0))
    names = dict(zip(("plain", "ours"), ("sharding_indexed", "vcinr_sharding"), strict=True))
    for name, sharding in (("plain", zarr.codecs.ShardingCodec), ("ours", VcinrSharding)):
        serializer = sharding(chunk_shape=(2, 11, 13), codecs=[inner])
        array = root.create_array(name, shape=values.shape, chunks=(6, 11, 13), dtype="f4", serializer=serializer,
                                  compressors=None, dimension_names=values.dims)  # fmt: skip
        array[...] = values.values
        assert array.metadata.to_dict()["codecs"][0]["name"] == names[name]
    assert (tmp_path / "a.zarr/plain/c/0/0/0").read_bytes() == (tmp_path / "a.zarr/ours/c/0/0/0").read_bytes()
    models._CACHE.clear()
    with pytest.raises(ModelError, match="vcinr_sharding"):
        zarr.open_group(tmp_path / "a.zarr", mode="r")["plain"][...]
    back = zarr.open_group(tmp_path / "a.zarr", mode="r")["ours"]
    assert np.abs(back[3] - values[3]).max() <= 5 and np.abs(back[...] - values).max() <= 5
    (tmp_path / "a.zarr/ours/c/1/0/0").unlink()
    with pytest.raises(CorruptError, match="missing"):
        back[7]


def test_every_selection(data, tmp_path):
    vcinr.compress(data, tmp_path / "a.zip", abs_error=0.1, chunk=5)
    array = zarr.open_group(zarr.storage.ZipStore(tmp_path / "a.zip", mode="r"), mode="r")["v"]
    whole = array[...]
    for index in itertools.product([3, slice(2, 9, 3), slice(None)], [slice(1, 8, 2), 0], [slice(None), -1]):
        assert np.array_equal(array[index], whole[index], equal_nan=True)
