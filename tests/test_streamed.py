"""Signals that stay in their store: what is learned of them is what is learned of signals in memory."""

import filecmp
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

from tests.conftest import ROOT, Stop, small, stop_at
from vcinr.config import Selection, Source
from vcinr.datasets import ingest as ingesting
from vcinr.datasets.ingest import ingest
from vcinr.errors import InputError
from vcinr.meta.extract import extract_modulations
from vcinr.meta.outer import meta_train
from vcinr.quantise.train import train_quantiser
from vcinr.signals import read_signals, store
from vcinr.signals.stored import SHA256, Stored, sha256_of

SHORT = {"steps": 16, "validate_every": 8}


@pytest.fixture
def pieces(monkeypatch) -> None:
    """Pieces, chunks and shards of a few signals of 143 points."""
    monkeypatch.setattr(ingesting, "_PIECE", 4000)
    monkeypatch.setattr(store, "_CHUNK", 1200)
    monkeypatch.setattr(store, "_SHARD", 5000)


@pytest.fixture
def source(tiny_maps, tmp_path) -> Source:
    """Two files of two variables, of different types and with different gaps, some of them whole maps."""
    maps = tiny_maps.splits["train"].features[..., 0].copy()
    axes = dict(zip(("lat", "lon"), tiny_maps.axes, strict=True))
    maps[:, 2:4, 3:7] = np.nan
    maps[3], maps[21, 8:] = np.nan, np.nan
    for name, part, kind in (("a", maps[:23], "f4"), ("b", maps[23:], "f8")):
        t = xr.DataArray(part.astype(kind), dims=("time", "lat", "lon"), coords=axes)
        p = xr.DataArray(np.stack([part, 2 * part], 1), dims=("time", "level", "lat", "lon"), coords=axes)
        xr.Dataset({"t": t, "p": p}).to_netcdf(tmp_path / f"{name}.nc")
    train = tuple(Selection(path=str(tmp_path / f"{name}.nc")) for name in "ab")
    return Source(kind="grid", variables=("t", "p"), train=train, archive=train[1:], valid_every=7)


@pytest.fixture
def signals(source, pieces, tmp_path) -> Path:
    ingest(source, tmp_path, tmp_path / "signals.zarr")
    return tmp_path / "signals.zarr"


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def trained(signals: Path, folder: Path, memory: float | None, **changes) -> dict:
    """The stages of training; all that they return."""
    p = small(**{"quantiser": {"steps": 20}, **changes})
    model, phi = folder / "m" / "model.vcinr", folder / "phi.zarr"
    summary = meta_train(
        signals, p.inr, p.meta, seed=0, threads=1, out=folder / "m", checkpoint=folder / "c", memory=memory
    )
    extract_modulations(signals, model, phi, threads=1, memory=memory)
    whole = train_quantiser(
        signals, model, phi, p.quantiser, seed=0, threads=1, out=folder / "f.vcinr", history=folder / "h.csv",
        memory=memory,
    )  # fmt: skip
    return {"meta": summary["sha256"], "model": whole["sha256"]}


# --- Ingestion


def test_data_larger_than_memory_become_the_same_store(source, signals, tmp_path):
    seen = []
    summary = ingest(source, tmp_path, tmp_path / "again.zarr", lambda p: seen.append(p.stage), memory=0.0)
    assert seen == ["scan train"] * 2 + ["scan test"] + ["ingest train"] * 2 + ["ingest test"]
    assert summary == ingest(source, tmp_path, tmp_path / "whole.zarr", memory=1.0)
    assert summary["left_out"] == {"training": 3, "test": 0} and summary["masked_share"]["train"] > 0
    assert json.dumps(summary)
    names = files(signals)
    assert files(tmp_path / "again.zarr") == names and len(names) > 20, "arrays have several shards"
    assert filecmp.cmpfiles(signals, tmp_path / "again.zarr", names, shallow=False)[0] == names


def test_pieces_are_small(source, pieces, tmp_path, monkeypatch):
    real, most = ingesting._values, []
    monkeypatch.setattr(ingesting, "_values", lambda data, *a: most.append(data.nbytes) or real(data, *a))
    ingest(source, tmp_path, tmp_path / "s.zarr", memory=0.0)
    assert max(most) <= 4000 and len(most) > 40


def test_errors_are_those_of_data_in_memory(source, tmp_path):
    with pytest.raises(InputError, match=r"a\.nc: no variable 'q'"):
        ingest(source.model_copy(update={"variables": ("q",)}), tmp_path, tmp_path / "s.zarr", memory=0.0)
    both = source.model_copy(update={"train": source.archive, "archive": source.train, "variables": ()})
    xr.open_dataset(source.archive[0].path).load()[["t"]].to_netcdf(tmp_path / "c.nc")
    lacking = both.model_copy(update={"train": (Selection(path=str(tmp_path / "c.nc")),)})
    for memory in (0.0, None):
        with pytest.raises(InputError, match="variable 'p' is not in the training data"):
            ingest(lacking, tmp_path, tmp_path / "s.zarr", memory=memory)
    assert not (tmp_path / "s.zarr").exists()


# --- Reading


def test_rows_are_those_of_the_array(signals):
    array = zarr.open_array(signals / "train" / "features", mode="r")
    rows, whole = Stored(array), array[...]
    assert (rows.shape, rows.dtype, len(rows), rows.nbytes) == (whole.shape, whole.dtype, len(whole), whole.nbytes)
    for index in (
        slice(None),
        slice(3, 40, 2),
        slice(5, 5),
        np.array([7, 8, 9]),
        np.array([50, 2, 31]),
        -1,
        whole[:, 0, 0, 0] > 0,
    ):
        assert np.array_equal(rows[index], whole[index])
    assert np.array_equal(np.concatenate(list(rows.blocks())), whole)
    assert rows.sha256 == array.attrs[SHA256] == sha256_of(whole) == sha256_of(rows)


def test_what_is_read_ahead_is_taken_only_if_it_was_asked_for(signals, monkeypatch):
    array = zarr.open_array(signals / "train" / "features", mode="r")
    rows, whole, reads = Stored(array), array[...], []
    real = Stored._read
    monkeypatch.setattr(Stored, "_read", lambda self, r: reads.append(r.tolist()) or real(self, r))
    rows.read_ahead(np.array([4, 9]))
    assert np.array_equal(rows[np.array([4, 9])], whole[[4, 9]]) and reads == [[4, 9]]
    rows.read_ahead(np.array([1, 2]))
    assert np.array_equal(rows[np.array([4, 9])], whole[[4, 9]]) and reads.count([4, 9]) == 2
    assert np.array_equal(rows[np.array([1, 2])], whole[1:3])


def test_signals_are_streamed_where_they_are_too_large(signals):
    size = sum(zarr.open_array(p.parent, mode="r").nbytes for p in signals.glob("*/[fm]*/zarr.json"))
    assert not read_signals(signals).splits["train"].streamed
    assert not read_signals(signals, 1.01e-9 * size).splits["train"].streamed
    streamed = read_signals(signals, 0.99e-9 * size)
    assert streamed.splits["train"].streamed and streamed.splits["test"].streamed
    there = read_signals(signals)
    for split in ("train", "valid"):
        assert np.array_equal(streamed.known_points(split), there.known_points(split))
        assert np.array_equal(streamed.splits[split].known_share, there.splits[split].known_share)
        for index in (slice(2, 5), np.array([0, 4, 5])):
            for one, other in zip(streamed.normalised(split, index), there.normalised(split, index), strict=True):
                assert np.array_equal(one, other)
            pair = (data.sampled(split, index, data.known_points(split)[::3]) for data in (streamed, there))
            (y, weight), (expected, weight_there) = pair
            assert np.array_equal(y, expected) and y.strides == expected.strides
            assert (weight is None) == (weight_there is None) and (
                weight is None or np.array_equal(weight, weight_there)
            )


# --- Training


@pytest.mark.parametrize("changes", [
    {"method": "basis", "meta": {**SHORT, "batch": 8}, "quantiser": {"steps": 20, "joint_steps": 3}},
    {"method": "mscn", "meta": {**SHORT, "batch": 5, "micro_batch": 2, "inner_rate": 0.1}},
    {"method": "vcinr", "meta": SHORT},
], ids=lambda c: c["method"])  # fmt: skip
def test_what_is_learned_is_the_same(signals, tmp_path, changes):
    assert trained(signals, tmp_path / "a", None, **changes) == trained(signals, tmp_path / "b", 0.0, **changes)


def test_a_run_goes_on_from_a_checkpoint_of_signals_in_memory(signals, tmp_path):
    p = small(meta={"steps": 30, "validate_every": 10})
    run = {"seed": 0, "threads": 1, "out": tmp_path / "m", "checkpoint": tmp_path / "c"}
    with pytest.raises(Stop):
        meta_train(signals, p.inr, p.meta, **run, watch=stop_at(20))
    seen = []
    found = meta_train(signals, p.inr, p.meta, **run, memory=0.0, watch=lambda q: seen.append(q.step))
    whole = meta_train(signals, p.inr, p.meta, **{**run, "checkpoint": tmp_path / "d"})
    assert seen[0] == 10 and found["sha256"] == whole["sha256"]


def test_the_next_signals_are_read_while_these_are_learned(signals, tmp_path, monkeypatch):
    """Every batch but the first was asked for ahead."""
    taken = {True: 0, False: 0}
    real = Stored.__getitem__

    def get(self, index):
        if isinstance(index, np.ndarray) and len(index) == 4:
            taken[self._ahead is not None and np.array_equal(self._ahead[0], index)] += 1
        return real(self, index)

    monkeypatch.setattr(Stored, "__getitem__", get)
    p = small(meta={"steps": 12, "validate_every": 12})
    meta_train(signals, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c", memory=0.0)
    assert taken[True] == 2 * 11 and taken[False] == 2, "features and masks"


MEMORY = """
import resource, sys
from pathlib import Path
import numpy as np, xarray as xr
from vcinr.config import Selection, Source, parse
from vcinr.datasets import ingest as ingesting
from vcinr.meta.outer import meta_train
from vcinr.signals import store

ingesting._PIECE, store._SHARD = 1 << 22, 1 << 23
folder = Path(sys.argv[1])
p = parse({"method": "basis", "inr": {"width": 8, "latent": 4}, "meta": {"steps": 4, "validate_every": 2,
           "batch": 2, "points": 64}}, "test")

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def learned(count):
    rng, name = np.random.default_rng(0), folder / f"{count}.nc"
    with __import__("h5netcdf").File(name, "w") as file:
        file.dimensions = {"time": count, "y": 512, "x": 512}
        v = file.create_variable("v", ("time", "y", "x"), "f4", chunks=(1, 512, 512))
        for i in range(count):
            v[i] = rng.integers(0, 3, (512, 512)).astype("f4")
    selection = (Selection(path=str(name)),)
    source = Source(variables=("v",), train=selection, archive=selection, test={"time": (0, 2)}, valid_every=2)
    ingesting.ingest(source, folder, folder / f"{count}.zarr", memory=0.001)
    meta_train(folder / f"{count}.zarr", p.inr, p.meta, seed=0, threads=1, out=folder / f"{count}", memory=0.001,
               checkpoint=folder / f"{count}.c")

learned(20)
before = peak()
learned(int(sys.argv[2]))
print(before, peak())
"""


def test_memory_does_not_grow_with_the_data(tmp_path):
    """200 maps of 1 MiB each need no more than 20, but for the 32 that are held out."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path, "200"], capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = map(float, done.stdout.split())
    assert after - before < 130, f"{before:.0f} MiB, then {after:.0f} MiB"
