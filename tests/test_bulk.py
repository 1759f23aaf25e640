"""Compression in bulk: any engine, any cut, any order and any interruption give the archives of `vcinr compress`."""

import filecmp
import json
import os
import shutil
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vcinr
from vcinr.archive import blocks, store
from vcinr.bulk import batch as batch_module
from vcinr.bulk import check, drive, source
from vcinr.bulk.engines import engine_of
from vcinr.bulk.estimate import estimate, table
from vcinr.bulk.plan import BulkPlan, plan
from vcinr.bulk.request import Request, models_of
from vcinr.cli import app
from vcinr.errors import InputError, ModelError

SERIAL = engine_of("serial")


def field(seed: int, shape: tuple[int, ...] = (12, 20, 30)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape).cumsum(1).cumsum(2).astype("f4")


def dataset(seed: int) -> xr.Dataset:
    """Two variables, one of them packed, with coordinates."""
    packed = np.round(field(seed + 100) * 50).astype("i2")
    return xr.Dataset(
        {
            "u": (("t", "y", "x"), field(seed), {"units": "m s-1"}),
            "p": (("t", "y", "x"), packed, {"scale_factor": 0.02, "_FillValue": np.int16(-9)}),
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
    for part in range(3):
        drive.compress(str(inputs / "*.nc"), str(tmp_path / "small"), request, SERIAL, part=(part, 3))
    assert len(drive.commit(str(tmp_path / "small")).archives) == 3
    assert sorted(os.listdir(tmp_path / "small")) == ["a.zarr", "b.zarr", "c.zarr"]


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


def test_many_joined_files_are_looked_into_by_several_processes(tmp_path, monkeypatch):
    paths = tuple(str(tmp_path / f"{i}.nc") for i in range(6))
    for i, path in enumerate(paths):
        dataset(i).isel(t=slice(2)).assign_coords(t=[2.0 * i, 2.0 * i + 1]).to_netcdf(path)
    one = source.joined(paths, "t")
    monkeypatch.setattr(source, "_LOOK", 1)
    assert source.joined(paths, "t") == one and one.lengths[""] == (2,) * 6
    Path(paths[3]).write_bytes(b"junk")
    Path(paths[4]).write_bytes(b"junk")
    with pytest.raises(InputError, match=r"3\.nc"):
        source.joined(paths, "t")


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


# --- verification, decompression, originals


@pytest.fixture(scope="module")
def archives(inputs, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("archives")
    drive.compress(str(inputs / "*.nc"), str(folder), Request(abs_error=0.05, chunk=2, effort="fast"), SERIAL)
    return folder


@pytest.mark.parametrize("name", ["serial", "threads"])
def test_verification_is_that_of_one_process(inputs, archives, name):
    expected = vcinr.verify(archives / "a.zarr", inputs / "a.nc")
    (pair,) = check.pairs(str(archives / "a.zarr"), str(inputs / "a.nc"))
    (verdict,) = check.verify([pair], engine_of(name), batch_seconds=0.0)
    assert (verdict.problems, verdict.facts) == expected and verdict.problems == []
    chunk = archives / "b.zarr/u/c/2/0/0"
    good = chunk.read_bytes()
    chunk.write_bytes(good[:-1] + b"?")
    try:
        found = list(check.verify(check.pairs(str(archives), str(inputs / "*.nc")), engine_of(name)))
        assert [bool(one.problems) for one in sorted(found, key=lambda v: v.archive)] == [False, True, False]
        assert any("u/c/2/0/0" in problem for one in found for problem in one.problems)
    finally:
        chunk.write_bytes(good)


@pytest.mark.parametrize("name", ["serial", "threads"])
def test_decompression_is_that_of_one_process(archives, tmp_path, name):
    vcinr.decompress(archives / "a.zarr", tmp_path / "one.nc")
    check.decompress(str(archives / "a.zarr"), tmp_path / "many.nc", engine_of(name))
    with xr.open_dataset(tmp_path / "one.nc") as one, xr.open_dataset(tmp_path / "many.nc") as many:
        assert one.identical(many)
    written = check.decompress_all(str(archives), tmp_path / "all", engine_of(name))
    assert sorted(os.listdir(tmp_path / "all")) == ["a.nc", "b.nc", "c.nc"] and set(written.values()) == {None}


def test_originals_go_only_when_their_archives_are_sound(inputs, tmp_path, capsys):
    def run(*words):
        return app([*map(str, words), "--engine", "serial"], standalone_mode=False)

    shutil.copytree(inputs, tmp_path / "in")
    pattern, out = tmp_path / "in/*.nc", f"{tmp_path}/out/"
    app(["compress", str(pattern), out, "--abs-error", "0.05", "--engine", "serial"], standalone_mode=False)
    xr.load_dataset(tmp_path / "in/b.nc", decode_cf=False).assign(u=lambda d: d["u"] + 1).to_netcdf(
        tmp_path / "in/b.nc"
    )
    words = ["verify", out, "--against", pattern, "--delete-originals"]
    run(*words, "--dry-run")
    assert "a.nc: would be removed" in capsys.readouterr().out and len(os.listdir(tmp_path / "in")) == 3
    assert run(*words) == 1
    said = capsys.readouterr()
    assert "a.nc: removed" in said.out and "b.nc: is kept" in said.err and os.listdir(tmp_path / "in") == ["b.nc"]
    with pytest.raises(InputError, match="--against"):
        app(["verify", out, "--delete-originals"], standalone_mode=False)


# --- the plan


def test_a_plan_reads_no_values_and_writes_nothing(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(batch_module, "encode_chunk", None)
    monkeypatch.setattr(blocks, "read_block", None)
    request = Request(abs_error=0.05, chunk=2, effort="fast", variables=("u",))
    made = plan(str(inputs / "*.nc"), str(tmp_path / "out"), request, batch_seconds=0.0)
    found = estimate(made)
    assert len(found["items"]) == 3 and {b["stage"] for b in found["batches"]} == {"encode"}
    assert all(b["memory"] > 0 and b["seconds"] > 0 for b in found["batches"])
    made = plan(str(inputs / "*.nc"), str(tmp_path / "out"), Request(rel_error=0.1), batch_seconds=0.0)
    assert [b.stage for b in made.scans()] == ["scan"] * 6 and "after a scan of p, u" in table(made)
    assert list(tmp_path.iterdir()) == [] and BulkPlan.from_node(json.loads(json.dumps(made.as_node()))) == made


def test_too_little_memory_is_refused_with_the_remedy(inputs, tmp_path):
    arguments = (str(inputs / "*.nc"), str(tmp_path / "out"))
    with pytest.raises(InputError, match="allow more"):
        plan(*arguments, Request(abs_error=0.05), memory=100 << 20)
    large = xr.Dataset({"v": (("t", "y", "x"), np.zeros((64, 256, 256), "f4"))})
    large.to_netcdf(tmp_path / "large.nc")
    with pytest.raises(InputError, match=r"'v' has chunks of 4,194,304 values.*--chunk"):
        plan(str(tmp_path / "large.nc"), str(tmp_path / "a.zarr"), Request(chunk=64), memory=600 << 20, batch_seconds=1)
    options = {"memory": 600 << 20, "batch_seconds": 1e4}
    found = drive.compress(str(tmp_path / "large.nc"), str(tmp_path / "a.zarr"), Request(chunk=64), SERIAL, **options)
    assert "4,194,304 values" in next(iter(found.failed.values())) and not (tmp_path / "a.zarr").exists()


def test_models_by_pattern(tiny_maps, tiny_model, tmp_path):
    from tests.test_archive import waves
    from vcinr.inr.model import save_model

    save_model(tiny_model, tmp_path / "t.vcinr")
    data = waves(tiny_maps).assign(other=lambda d: d["t"] + 1)
    data.to_netcdf(tmp_path / "in.nc")
    models = {"t": str(tmp_path / "t.vcinr"), "oth*": str(tmp_path / "t.vcinr")}
    vcinr.compress(tmp_path / "in.nc", tmp_path / "plain.zarr", model=models, abs_error=5.0, chunk=3)
    request = Request(models=models, abs_error=5.0, chunk=3)
    for seconds in (0.0, 60.0):
        target = tmp_path / f"bulk{seconds}.zarr"
        drive.compress(str(tmp_path / "in.nc"), str(target), request, SERIAL, batch_seconds=seconds).check(1)
        assert same(tmp_path / "plain.zarr", target)
    facts = vcinr.info(tmp_path / "plain.zarr")["variables"]
    assert facts["t"]["model"] == tiny_model.sha256 and facts["other"]["model"] is None
    with pytest.raises(ModelError):
        vcinr.compress(tmp_path / "in.nc", tmp_path / "x.zarr", model={"other": tmp_path / "t.vcinr"}, abs_error=5.0)


def test_models_are_named_in_words_or_in_a_file(tmp_path):
    assert models_of([]) is None and models_of(["a.vcinr"]) == "a.vcinr"
    assert models_of(["t2m=a.vcinr", "*=b.vcinr"]) == {"t2m": "a.vcinr", "*": "b.vcinr"}
    (tmp_path / "m.yaml").write_text("t2m: a.vcinr\n'*': sub/b.vcinr\n")
    assert models_of([str(tmp_path / "m.yaml")]) == {"t2m": f"{tmp_path}/a.vcinr", "*": f"{tmp_path}/sub/b.vcinr"}
    for wrong in (["a.vcinr", "b.vcinr"], ["t=a", "t=b"]):
        with pytest.raises(InputError, match="--model"):
            models_of(wrong)


# --- any cut, any parts, any order, any interruption


class Interrupted(Exception):
    """What a test raises in the place of a kill."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    xr.Dataset({n: (("t", "y", "x"), field(i, (7, 4, 5))) for i, n in enumerate("uv")}).to_netcdf(folder / "in.nc")
    vcinr.compress(folder / "in.nc", folder / "plain.zarr", rel_error=1e-3, chunk=1, effort="fast")
    return folder


@settings(max_examples=8)
@given(
    seconds=st.sampled_from([0.0, 1e-5, 3e-5]),
    parts=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 20)), max_size=4),
    seed=st.integers(0, 2**16),
)
def test_parts_orders_and_interruptions_do_not_show(tiny, tmp_path_factory, seconds, parts, seed):
    target = tmp_path_factory.mktemp("out") / "a.zarr"
    request = Request(rel_error=1e-3, chunk=1, effort="fast")
    rng, count, real_encode, real_encodes = (
        np.random.default_rng(seed),
        [0, 99],
        batch_module.encode_chunk,
        BulkPlan.encodes,
    )

    def interrupted(*arguments):
        count[0] += 1
        if count[0] > count[1]:
            raise Interrupted
        return real_encode(*arguments)

    def shuffled(self):
        batches = list(real_encodes(self))
        return iter([batches[i] for i in rng.permutation(len(batches))])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_module, "encode_chunk", interrupted)
        patch.setattr(BulkPlan, "encodes", shuffled)
        for part, most in parts:
            count[:] = [0, most]
            drive.compress(str(tiny / "in.nc"), str(target), request, SERIAL, batch_seconds=seconds, part=(part, 4))
            assert not target.exists()
        count[:] = [0, 99]
        drive.compress(str(tiny / "in.nc"), str(target), request, SERIAL, batch_seconds=seconds).check(1)
    assert same(tiny / "plain.zarr", target) and os.listdir(target.parent) == ["a.zarr"]


def test_an_icechunk_repository_gets_the_same_files(inputs, tmp_path):
    pytest.importorskip("icechunk")
    vcinr.compress(inputs / "a.nc", tmp_path / "plain.zarr", abs_error=0.05, chunk=2, effort="fast")
    target, source = f"icechunk:{tmp_path}/repo", str(inputs / "a.nc")
    request = Request(abs_error=0.05, chunk=2, effort="fast")
    drive.compress(source, target, Request(abs_error=0.1, effort="fast"), SERIAL, batch_seconds=0.0).check(1)
    assert drive.compress(source, target, request, SERIAL, batch_seconds=0.0).failed
    drive.compress(source, target, request, SERIAL, batch_seconds=0.0, overwrite=True).check(1)
    shutil.rmtree(tmp_path / ".repo.bulk", ignore_errors=True)
    assert drive.compress(source, target, request, SERIAL, batch_seconds=0.0).archives[target]["skipped"]
    assert vcinr.verify(target, inputs / "a.nc")[0] == []
    held = store.open_store(target)
    for key, data in files(tmp_path / "plain.zarr").items():
        found = store.get(held, key)
        assert json.loads(found) == json.loads(data) if key.endswith("zarr.json") else found == data
    with xr.open_zarr(held, consolidated=False) as back, xr.open_zarr(tmp_path / "plain.zarr") as plain:
        assert back.identical(plain)


# --- the command line


def test_the_command_line(inputs, tmp_path, capsys):
    words = ["compress", str(inputs / "*.nc"), str(tmp_path / "out"), "--abs-error", "0.1", "--engine", "serial"]

    def said(*more):
        code = app([*words, *more], standalone_mode=False)
        return code or 0, capsys.readouterr()

    assert "3 archives" in said("--dry-run")[1].out and not (tmp_path / "out").exists()
    assert len(json.loads(said("--dry-run", "--json")[1].out)["items"]) == 3
    assert "vcinr commit" in said("--part", "1/2")[1].out
    assert app(["commit", str(tmp_path / "out")], standalone_mode=False) in (0, None)
    capsys.readouterr()
    code, printed = said("--json")
    assert code == 0 and all(facts["skipped"] for facts in json.loads(printed.out)["archives"].values())
    for option, wrong in (("--part", "0/2"), ("--part", "x"), ("--memory", "much"), ("--memory", "1TB?")):
        with pytest.raises(InputError, match=option):
            said(option, wrong)
    with pytest.raises(InputError, match="give a folder"):
        app(["compress", str(inputs / "*.nc"), str(tmp_path / "one.zarr"), "--abs-error", "0.1"], standalone_mode=False)
