"""What archives cost to check and to write back: memory of a few chunks, one fetch of each, no decoding to skip."""

import threading
import tracemalloc
from collections import Counter

import netCDF4
import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

import vcinr
from vcinr.archive import contents, models, spool, work, zarr_codec
from vcinr.archive.plan import plan
from vcinr.archive.spool import Spool
from vcinr.bulk.done import is_made_of
from vcinr.bulk.drive import compress
from vcinr.bulk.engines import engine_of
from vcinr.bulk.request import Request
from vcinr.codec.decode import decode
from vcinr.errors import CorruptError, InputError, one_line
from vcinr.places import is_url, stem, suffix, written_aside

CHUNK = 4 * 128 * 128 * 4  # bytes


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A variable of 128 chunks and its archive, in a file that is read as it is asked for."""
    folder = tmp_path_factory.mktemp("large")
    with netCDF4.Dataset(folder / "in.nc", "w") as file:
        for name, n in (("t", None), ("y", 128), ("x", 128)):
            file.createDimension(name, n)
        variable = file.createVariable("v", "f4", ("t", "y", "x"), fill_value=np.float32(1e20))
        variable.units = "K"
        smooth = np.sin(np.linspace(0, 6, 128))[:, None] * np.cos(np.linspace(0, 9, 128))
        for i in range(512):
            variable[i] = 280 + (i % 7) * smooth
    groups = vcinr.open_groups(folder / "in.nc")
    vcinr.compress(groups, folder / "a.zarr", abs_error=0.5, chunk=4, effort="fast")
    vcinr.compress({"": groups[""].isel(t=slice(8))}, folder / "small.zarr", abs_error=0.5, chunk=4, effort="fast")
    return folder


def peak(function):
    """The most memory that Python and NumPy held while it ran, after it ran once on a small archive."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_verify_holds_a_few_chunks(large):
    vcinr.verify(large / "small.zarr")
    groups = vcinr.open_groups(large / "in.nc")
    used = peak(lambda: vcinr.verify(large / "a.zarr", groups))
    assert vcinr.verify(large / "a.zarr", groups)[0] == [] and groups[""]["v"].nbytes == 128 * CHUNK
    assert used < 24 * CHUNK, f"{used / CHUNK:.1f} chunks"


def test_decompress_holds_a_few_chunks(large):
    vcinr.decompress(large / "small.zarr", large / "small.nc")
    used = peak(lambda: vcinr.decompress(large / "a.zarr", large / "back.nc"))
    assert used < 24 * CHUNK, f"{used / CHUNK:.1f} chunks"
    with netCDF4.Dataset(large / "in.nc") as old, netCDF4.Dataset(large / "back.nc") as new:
        assert new.dimensions["t"].isunlimited() and new["v"].getncattr("_FillValue").dtype == np.float32
        assert new["v"].shape == old["v"].shape and new["v"].units == "K"
        assert np.abs(new["v"][:] - old["v"][:]).max() <= 0.5


def test_every_chunk_is_fetched_once(large, monkeypatch):
    fetched, real = Counter(), contents.fetch
    monkeypatch.setattr(contents, "fetch", lambda s, key, crc32: fetched.update([key]) or real(s, key, crc32))
    zarr_reads, get = Counter(), contents._OneFile.get

    async def counted(self, key, prototype=None, byte_range=None):
        zarr_reads.update([key] if key != self.key else [])
        return await get(self, key, prototype, byte_range)

    monkeypatch.setattr(contents._OneFile, "get", counted)
    assert vcinr.verify(large / "a.zarr")[0] == []
    chunks = {key: n for key, n in fetched.items() if key.startswith("v/c/")}
    assert len(chunks) == 128 and set(chunks.values()) == {1}
    assert not [key for key in zarr_reads if key.startswith("v/c/")]


def test_an_interrupted_netcdf_file_is_not_there(large, monkeypatch, tmp_path):
    real, calls = decode, []

    def failing(*arguments, **options):
        calls.append(1)
        if len(calls) == 9:
            raise CorruptError("the disk has gone")
        return real(*arguments, **options)

    monkeypatch.setattr(zarr_codec, "decode", failing)
    with pytest.raises(CorruptError, match=r"v/c/.*the disk has gone"):
        vcinr.decompress(large / "a.zarr", tmp_path / "back.nc")
    assert list(tmp_path.iterdir()) == []


def test_skipping_decodes_nothing(large, monkeypatch, tmp_path):
    source, target = str(large / "in.nc"), str(tmp_path / "a.zarr")
    engine = engine_of("serial")
    compress(source, target, Request(abs_error=0.5, chunk=64, effort="fast"), engine).check(1)
    monkeypatch.setattr(zarr_codec, "decode", None)
    assert compress(source, target, Request(abs_error=0.5), engine).archives[target]["skipped"]
    chunk = next(p for p in (tmp_path / "a.zarr/v/c/1").rglob("*") if p.is_file())
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"?")
    groups = vcinr.open_groups(source)
    assert not is_made_of(contents.open_contents(target), groups), "it is damaged"


def test_a_plan_is_made_without_encoding_or_writing(large, monkeypatch, tmp_path):
    monkeypatch.setattr(work, "encode", None)
    monkeypatch.chdir(tmp_path)
    groups = {p: g for p, g in vcinr.open_groups(large / "in.nc").items()}
    (array,) = plan(groups, abs_error=0.5, chunk=4)
    assert array.counts == (128, 1, 1) and array.codec.bound == ("absolute", 0.5) and list(tmp_path.iterdir()) == []


# --- errors in the variable's units, and what is no damage --------------------------------------------------


def test_errors_are_shown_in_the_units_of_the_variable(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 20, 20)).cumsum(1)
    data = xr.Dataset({"u": (("t", "y", "x"), np.round(values * 500).astype("i2"), {"scale_factor": 0.002})})
    seen = []
    facts = vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.5, chunk=2, watch=seen.append)
    worst = facts["variables"]["u"]["max_abs_error"]
    assert 0 < worst <= 0.5 and max(p.values["max_abs_error"] for p in seen) == pytest.approx(worst)
    seen.clear()
    problems, checked = vcinr.verify(tmp_path / "a.zarr", data, watch=seen.append)
    assert problems == [] and checked["u"]["max_abs_error"] == pytest.approx(worst)
    assert seen[-1].values["max_abs_error"] == pytest.approx(worst)
    data["u"][0, 0, 0] += 1000  # two units
    (problem,) = vcinr.verify(tmp_path / "a.zarr", data)[0]
    assert "outside the absolute bound 0.5, the largest error being" in problem
    assert 1 < float(problem.rpartition(" ")[2]) < 3


def test_info_speaks_of_a_model_only_where_there_is_one(large, tiny_maps, tiny_model, tmp_path, capsys):
    from tests.test_archive import waves
    from vcinr.cli import info

    info(str(large / "a.zarr"))
    assert "with the model" not in capsys.readouterr().out
    vcinr.compress(waves(tiny_maps), tmp_path / "m.zarr", model=tiny_model, abs_error=5.0)
    info(str(tmp_path / "m.zarr"))
    assert "with the model" in capsys.readouterr().out


@pytest.mark.parametrize("error", [MemoryError(), AssertionError("a bug"), NameError("a bug")])
def test_too_little_memory_and_bugs_are_not_called_damage(large, monkeypatch, tmp_path, error):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr(zarr_codec, "decode", failing)
    for call in (vcinr.verify, lambda path: vcinr.decompress(path, tmp_path / "b.nc")):
        with pytest.raises(type(error)):
            call(large / "small.zarr")


def test_a_foreign_error_keeps_its_type():
    assert one_line(KeyError("v")) == "KeyError: 'v'" and one_line(ValueError()) == "ValueError"
    assert one_line(InputError("no such\n file")) == "no such file"


# --- the spool and the models, by many at once ---------------------------------------------------------------


def test_a_lock_on_a_file_that_was_removed_is_none(tmp_path, monkeypatch):
    """A second process opens the lock's file, the first removes it and ends: the second must not hold a ghost."""
    first = Spool(tmp_path / "s", "request")
    first.__enter__()
    real = FileLock.acquire

    def between(self, *arguments, **options):
        monkeypatch.setattr(FileLock, "acquire", real)
        first.__exit__()  # after the probe was opened, before the lock is taken
        (tmp_path / "s.lock").touch()
        return real(self, *arguments, **options)

    monkeypatch.setattr(FileLock, "acquire", between)
    with Spool(tmp_path / "s", "request"):
        with pytest.raises(InputError, match="another process"), Spool(tmp_path / "s", "request"):
            pass
        assert (tmp_path / "s.lock").exists()
    assert list(tmp_path.iterdir()) == []


def test_a_short_write_is_written_on(tmp_path, monkeypatch):
    real = spool.os.write
    with Spool(tmp_path / "s", "request") as made:
        monkeypatch.setattr(spool.os, "write", lambda fd, data: real(fd, data[:7]))
        made.add("v/c/0", spool.digest_of(np.arange(3.0)), b"zero", {})
        monkeypatch.undo()
    with Spool(tmp_path / "s", "request") as again:
        assert again.find("v/c/0", np.arange(3.0)) == (b"zero", {})


def test_models_are_registered_by_many_threads(monkeypatch):
    class Fake:
        def __init__(self, name):
            self.sha256 = name

    monkeypatch.setattr(models, "_CACHE", {})
    failed = []

    def work(k):
        try:
            for i in range(2000):
                models.register(Fake(f"{k}-{i}"))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(models._CACHE) == models._LIMIT


# --- places --------------------------------------------------------------------------------------------------


def test_places(tmp_path):
    urls = ["https://x.org/a/t2m.nc?token=1.2", "zip::file.zip", "s3://b/a.zarr/"]
    assert all(map(is_url, urls)) and not is_url("C:/a.nc") and not is_url(tmp_path)
    assert [stem(u) for u in urls] == ["t2m", "zip", "a"] and suffix("s3://b/A.NC?x=.y") == ".nc"
    assert stem("what?.nc") == "what?", "only URLs have queries"
    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError), written_aside(tmp_path / "a") as aside:
        aside.write_text("half")
        1 / 0  # noqa: B018
    assert (tmp_path / "a").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a"]
    for _ in range(2):
        with written_aside(tmp_path / "new" / "folder") as aside:
            aside.mkdir()
            (aside / "x").write_text("new")
    assert (tmp_path / "new/folder/x").read_text() == "new" and len(list((tmp_path / "new").iterdir())) == 1
