"""Archives: what xarray reads back, random access, damage, models, metadata, nothing half written."""

import contextlib
import os
import pickle
import shutil
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from vcinr import config
from vcinr.archive import metadata, models, store, work, zarr_codec
from vcinr.archive.manifest import Manifest
from vcinr.archive.plan import plan
from vcinr.archive.zarr_codec import VcinrCodec, decode_axis, encode_axis, evenly_spaced
from vcinr.codec.chunk import describe
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.errors import CorruptError, InputError, ModelError
from vcinr.inr.model import load_model
from vcinr.training import train


@pytest.fixture
def dataset() -> xr.Dataset:
    t, y, x = np.meshgrid(np.arange(10), np.linspace(0, 3, 12), np.linspace(0, 3, 9), indexing="ij")
    sea = (280 + 10 * np.sin(x + 0.1 * t) * np.cos(y)).astype("f4")
    sea[:, :4, :3] = 1e20
    packed = np.where(sea > 1e10, -9999, np.round((np.minimum(sea, 300) - 270) / 0.01))
    return xr.Dataset(
        {
            "sst": (("time", "lat", "lon"), sea, {"units": "K", "_FillValue": np.float32(1e20), "long_name": "sea"}),
            "packed": (
                ("time", "lat", "lon"), packed.astype("i2"),
                {"scale_factor": 0.01, "add_offset": 270.0, "_FillValue": np.int16(-9999)},
            ),
            "name": (("time",), np.array([f"step {i}" for i in range(10)], object)),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
        },
        {
            "time": ("time", np.arange(10), {"units": "days since 2000-01-01", "calendar": "noleap"}),
            "lat": ("lat", np.linspace(-60, 60, 12), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(0, 40, 9), {"units": "degrees_east"}),
        },
        {"title": "test", "history": "made"},
    )  # fmt: skip


@pytest.fixture
def archive(dataset, tmp_path):
    vcinr.compress(dataset, tmp_path / "a.zarr", abs_error={"sst": 0.1, "packed": 0.1}, chunk=4)
    return tmp_path / "a.zarr"


def chunks(archive, name):
    return sorted(p for p in (archive / name / "c").rglob("*") if p.is_file())


@pytest.mark.parametrize("effort", ["best", "fast"])
def test_the_bytes_do_not_depend_on_the_threads(dataset, tmp_path, monkeypatch, effort):
    for cores in (1, 3):
        monkeypatch.setattr(work, "cores", lambda cores=cores: cores)
        target = tmp_path / f"{cores}.zarr"
        vcinr.compress(dataset, target, abs_error=0.1, variables=["sst", "packed"], chunk=2, effort=effort)
        assert vcinr.verify(target, dataset)[0] == []
    one, three = ({p.relative_to(tmp_path / f"{n}.zarr"): p.read_bytes() for p in (tmp_path / f"{n}.zarr").rglob("*")
                   if p.is_file()} for n in (1, 3))  # fmt: skip
    assert one == three and len(one) > 10


def test_tasks_can_be_sent_to_another_process(tiny_maps, tiny_model):
    groups = {"": metadata.stored(waves(tiny_maps))}
    (array,) = [a for a in plan(groups, model=tiny_model, abs_error=1.0, chunk=3) if a.job.asked]
    task = work.Task(array.codec.field(array.shape, tiny_model), array.job.stored_bound, array.shape, "fast")
    index, key = next(array.chunks())
    sent = pickle.loads(pickle.dumps((task, key, array.block(index))))
    assert work.encode_chunk(*sent) == work.encode_chunk(task, key, array.block(index))


def test_plain_xarray_reads_it(archive, dataset):
    with xr.open_zarr(archive) as back:
        assert float(np.abs(back["sst"] - xr.decode_cf(dataset)["sst"]).max()) <= 0.1
        assert np.array_equal(np.isnan(back["sst"]), dataset["sst"] > 1e10)
        assert float(np.abs(back["packed"] - xr.decode_cf(dataset)["packed"]).max()) <= 0.1 + 1e-9
        assert back["sst"].attrs["units"] == "K" and back["sst"].attrs["vcinr_bound_value"] == 0.1
        assert back["sst"].attrs["vcinr_max_abs_error"] <= 0.1
        assert back.attrs["title"] == "test" and back.attrs["history"].startswith("made\n")
        assert list(back["name"].values) == list(dataset["name"].values)
        assert "pip install vcinr" in back.attrs["vcinr_requires"]


def test_everything_else_is_identical(archive, dataset):
    back = vcinr.open(archive, decode=False).load()
    kept = dataset.drop_vars(["sst", "packed"])
    xr.testing.assert_equal(back.drop_vars(["sst", "packed"]), kept)
    for name in kept.variables:
        assert back[name].attrs == kept[name].attrs
    for name in ("sst", "packed"):
        attrs = {k: v for k, v in back[name].attrs.items() if not k.startswith("vcinr_")}
        assert attrs == dataset[name].attrs


def test_round_trip_to_netcdf(archive, dataset, tmp_path):
    vcinr.decompress(archive, tmp_path / "back.nc")
    with xr.open_dataset(tmp_path / "back.nc") as back:
        assert float(np.abs(back["sst"] - xr.decode_cf(dataset)["sst"]).max()) <= 0.1
        assert back["time"].dtype.kind == "O" and back["packed"].encoding["scale_factor"] == 0.01
    with pytest.raises(InputError, match="exists"):
        vcinr.decompress(archive, tmp_path / "back.nc")


def test_any_selection_reads_what_the_whole_holds(archive):
    array = zarr.open_group(archive, mode="r")["sst"]
    whole = array[...]
    for selection in [(3,), (slice(2, 9), 5), (slice(None), slice(1, 8, 3), 2), (slice(None, None, 4),), (9, 11, 8)]:
        assert np.array_equal(array[selection], whole[selection])
    assert np.array_equal(array.oindex[[1, 8], :, [0, 5]], whole[np.ix_([1, 8], range(12), [0, 5])])
    assert np.array_equal(array.vindex[[1, 8], [2, 3], [0, 5]], whole[[1, 8], [2, 3], [0, 5]])


def test_one_value_reads_one_chunk(archive, monkeypatch):

    calls = []
    real = decode
    with xr.open_zarr(archive) as back:
        monkeypatch.setattr(zarr_codec, "decode", lambda *a, **k: calls.append(1) or real(*a, **k))
        float(back["sst"][7, 8, 8])
    assert len(calls) <= 2  # the second is the inner call of a chunk that reaches beyond the array


def test_a_flipped_byte_names_its_chunk_and_spares_the_others(archive, dataset):
    files = chunks(archive, "sst")
    assert len(files) == 3
    for victim in files:
        good = victim.read_bytes()
        damaged = bytearray(good)
        damaged[len(good) // 2] ^= 1
        victim.write_bytes(damaged)
        key = "sst/" + str(victim.relative_to(archive / "sst"))
        problems, _ = vcinr.verify(archive)
        assert len(problems) == 1 and key in problems[0]
        index = int(victim.relative_to(archive / "sst" / "c").parts[0])
        array = zarr.open_group(archive, mode="r")["sst"]
        for i in range(3):
            part = slice(4 * i, min(4 * i + 4, 10))
            if i == index:
                with pytest.raises(CorruptError, match=key):
                    array[part]
                with pytest.raises(CorruptError, match=key):
                    xr.open_zarr(archive)["sst"][part].load()
            else:
                assert np.abs(array[part] - dataset["sst"].values[part]).max() <= 0.1
        victim.write_bytes(good)
    assert vcinr.verify(archive, dataset)[0] == []


def test_a_changed_digit_in_the_metadata_is_caught(tiny_maps, tiny_model, tmp_path):
    """Coordinates, scaling and fill lie in zarr.json as text; no change of them may give other values."""
    archive, data = tmp_path / "a.zarr", waves(tiny_maps)
    data["t"].attrs["_FillValue"] = np.float32(1e20)
    vcinr.compress(data, archive, model=tiny_model, abs_error=5.0)
    for path in (archive / "t" / "zarr.json", archive / "zarr.json"):
        good = path.read_text()
        for old, new in (
            ('"stop":60.0', '"stop":61.0'),
            ("1.00000002004", "2.00000002004"),
            ('"scaling"', '"scalings"'),
        ):
            assert old in good
            path.write_text(good.replace(old, new))
            with contextlib.suppress(InputError, CorruptError):
                assert vcinr.verify(archive)[0]
            with pytest.raises((CorruptError, InputError)):
                vcinr.open(archive)["t"].load()
                zarr.open_array(archive / "t", mode="r")[...]
        path.write_text(good)
        assert vcinr.verify(archive)[0] == []


def test_a_changed_attribute_is_seen(archive):
    """Plain xarray cannot know, but verify does, and so does vcinr.open."""
    for path in (archive / "packed" / "zarr.json", archive / "zarr.json"):
        good = path.read_text()
        path.write_text(good.replace('"scale_factor":0.01', '"scale_factor":0.02'))
        assert vcinr.verify(archive)[0]
        path.write_text(good)
    path.write_text(good.replace('"scale_factor":0.01', '"scale_factor":0.02'))
    with pytest.raises(CorruptError, match="metadata"):
        vcinr.open(archive)


def test_a_flipped_byte_in_a_coordinate_is_caught(archive):
    victim = chunks(archive, "lat")[0]
    damaged = bytearray(victim.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    victim.write_bytes(damaged)
    problems, _ = vcinr.verify(archive)
    assert any("lat" in p for p in problems)


def test_a_missing_chunk_is_an_error_not_a_fill_value(archive):
    chunks(archive, "sst")[1].unlink()
    with pytest.raises(CorruptError, match="missing"):
        zarr.open_group(archive, mode="r")["sst"][4:8]
    assert "missing" in vcinr.verify(archive)[0][0]


def test_exchanged_chunks_are_seen(archive):
    """Each is a sound chunk of this array, only not of this place."""
    first, second, _ = chunks(archive, "sst")
    one, two = first.read_bytes(), second.read_bytes()
    first.write_bytes(two)
    second.write_bytes(one)
    problems, _ = vcinr.verify(archive)
    assert len(problems) == 2 and "sst/c/0/0/0" in problems[0] and "manifest" in problems[0]


def test_the_error_of_every_chunk_is_recorded(archive, dataset):
    recorded = Manifest.read(store.open_store(archive)).errors("sst", (3, 1, 1))
    back = vcinr.open(archive, decode=False)["sst"].values
    error = np.abs(back.astype("f8") - dataset["sst"].values)
    found = [error[i : i + 4].max() for i in range(0, 10, 4)]
    assert recorded.shape == (3,) and np.allclose(recorded, found)


def test_verify_sees_a_broken_bound(archive, dataset):
    other = dataset.copy(deep=True)
    other["sst"][6, 8, 8] += 0.5
    problems, _ = vcinr.verify(archive, other)
    assert len(problems) == 1 and "sst/c/1/0/0" in problems[0] and "outside" in problems[0]
    other = dataset.copy(deep=True)
    other["sst"][0, 0, 0] = 280
    assert "masked" in " ".join(vcinr.verify(archive, other)[0]) or "outside" in " ".join(
        vcinr.verify(archive, other)[0]
    )
    other = dataset.copy(deep=True)
    other["name"][0] = "another"
    assert "name/c/0" in vcinr.verify(archive, other)[0][0]
    assert "'more'" in vcinr.verify(archive, dataset.assign(more=dataset["sst"]))[0][0]


def test_info(archive):
    facts = vcinr.info(archive)
    sst = facts["variables"]["sst"]
    assert sst["values"] == 10 * 12 * 9 and sst["bytes"] == sum(f.stat().st_size for f in chunks(archive, "sst"))
    assert sst["bits_per_value"] == pytest.approx(8 * sst["bytes"] / sst["values"])
    assert sst["bound"] == {"kind": "absolute", "value": 0.1} and sst["max_abs_error"] <= 0.1 and sst["psnr_db"] > 40
    assert facts["model"] == {"sha256": None, "bytes": 0}
    assert facts["total_bytes"] == sum(f.stat().st_size for f in archive.rglob("*") if f.is_file())


def test_relative_bound_lossless_and_best_effort(dataset, tmp_path, tiny_model):
    vcinr.compress(dataset, tmp_path / "rel", rel_error=0.01, variables=["sst"])
    span = float(xr.decode_cf(dataset)["sst"].max() - xr.decode_cf(dataset)["sst"].min())
    assert vcinr.info(tmp_path / "rel")["variables"]["sst"]["bound"]["value"] == pytest.approx(0.01 * span, rel=1e-6)
    vcinr.compress(dataset, tmp_path / "exact", variables=["sst", "packed"])
    assert vcinr.info(tmp_path / "exact")["variables"]["sst"]["bound"]["kind"] == "lossless"
    assert vcinr.verify(tmp_path / "exact", dataset)[0] == []
    xr.testing.assert_equal(vcinr.open(tmp_path / "exact", decode=False)["packed"].load(), dataset["packed"])


def test_flags_are_left_alone_unless_named(dataset, tmp_path):
    dataset["basin"] = (("lat", "lon"), np.random.default_rng(0).integers(0, 10**6, (12, 9), "i4"))
    facts = vcinr.compress(dataset, tmp_path / "a", abs_error=5.0)
    assert set(facts["variables"]) == {"sst", "packed"}
    assert np.array_equal(vcinr.open(tmp_path / "a")["basin"], dataset["basin"])
    facts = vcinr.compress(dataset, tmp_path / "b", abs_error=5.0, variables=["basin"])
    assert facts["variables"]["basin"]["max_abs_error"] > 0


def test_other_kinds_of_bound(dataset, tmp_path):
    data = xr.decode_cf(dataset)["sst"].values
    kept = np.isfinite(data)
    spread = data[kept].max() - data[kept].min()

    def errors(name, **bound):
        vcinr.compress(dataset, tmp_path / name, variables=["sst"], **bound)
        assert vcinr.verify(tmp_path / name, dataset)[0] == []
        back = xr.open_zarr(tmp_path / name)["sst"].values
        assert np.array_equal(np.isfinite(back), kept)
        return vcinr.info(tmp_path / name)["variables"]["sst"], np.abs(back - data)[kept].astype("f8")

    _, e = errors("pointwise", point_rel_error=1e-4)
    assert (e <= 1e-4 * np.abs(data[kept])).all() and e.max() > 0
    facts, e = errors("psnr", psnr=50.0)
    found = -10 * np.log10((e**2).mean() / spread**2)
    assert 50.0 <= found < 53.0 and facts["psnr_db"] == pytest.approx(found, abs=0.01)
    facts, e = errors("rate", rate=4.0)
    assert 2.0 < facts["bits_per_value"] <= 4.0 and facts["bound"] == {"kind": "rate", "value": 4.0}


def waves(tiny_maps) -> xr.Dataset:
    axes = dict(zip(tiny_maps.dims, tiny_maps.axes, strict=True))
    return xr.Dataset({"t": (("run", *tiny_maps.dims), tiny_maps.splits["test"].features[..., 0])}, axes)


def test_model_travels_inside(tiny_maps, tiny_model, tmp_path):
    data = waves(tiny_maps)
    vcinr.compress(data, tmp_path / "a.zarr", model=tiny_model, abs_error=5.0, chunk=5)
    facts = vcinr.info(tmp_path / "a.zarr")
    assert facts["model"] == {"sha256": tiny_model.sha256, "bytes": len(tiny_model.data)}
    # Another process, which has never seen the model, and the archive under another name.
    shutil.move(tmp_path / "a.zarr", tmp_path / "moved.zarr")
    script = (
        "import sys, numpy, xarray\n"
        f"back = xarray.open_zarr({str(tmp_path / 'moved.zarr')!r})['t'].values\n"
        "numpy.save(sys.argv[1], back)\n"
        "heavy = {'torch', 'prefect', 'dvc', 'pydantic', 'typer'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "back.npy")], check=True)
    assert np.abs(np.load(tmp_path / "back.npy") - data["t"].values).max() <= 5.0


def test_a_missing_or_replaced_model_is_named(tiny_maps, tiny_model, tmp_path):
    vcinr.compress(waves(tiny_maps), tmp_path / "a.zarr", model=tiny_model, chunk=5)
    key = tmp_path / "a.zarr" / "vcinr" / "models" / tiny_model.sha256 / "c" / "0"
    good = key.read_bytes()
    for damage in (lambda: key.write_bytes(good[:-9] + bytes(9)), key.unlink):
        damage()
        models._CACHE.clear()
        assert any(tiny_model.sha256 in p for p in vcinr.verify(tmp_path / "a.zarr")[0])
        with pytest.raises(ModelError, match=tiny_model.sha256):
            xr.open_zarr(tmp_path / "a.zarr")["t"].load()


def test_wrong_model_is_refused(dataset, tiny_model, hadgem_run, tmp_path):
    with pytest.raises(ModelError, match="sst"):
        vcinr.compress(dataset, tmp_path / "a.zarr", model=tiny_model, variables=["sst"], abs_error=1.0)
    with pytest.raises(ModelError, match="none of which"):
        vcinr.compress(dataset, tmp_path / "a.zarr", model=load_model(hadgem_run["model"]), abs_error=1.0)
    assert list(tmp_path.iterdir()) == []


def test_same_input_same_archive(dataset, tmp_path):
    for name in ("a", "b"):
        vcinr.compress(dataset, tmp_path / name, abs_error=0.1)
    for file in sorted((tmp_path / "a").rglob("*")):
        if file.is_file():
            assert file.read_bytes() == (tmp_path / "b" / file.relative_to(tmp_path / "a")).read_bytes(), file


def test_nothing_half_written(dataset, tmp_path, monkeypatch):

    real, calls = encode, []

    def fail(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        return real(*args, **kwargs)

    monkeypatch.setattr(work, "encode", fail)
    with pytest.raises(InputError, match=r"a\.zarr.*no space left") as caught:
        vcinr.compress(dataset, tmp_path / "a.zarr", abs_error=0.1, chunk=3)
    assert [p.name for p in tmp_path.iterdir()] == [".a.zarr.part"], "what is finished waits for the next run"
    assert "goes on from there" in str(caught.value)
    monkeypatch.undo()
    calls.clear()
    monkeypatch.setattr(work, "encode", lambda *a, **k: calls.append(1) or real(*a, **k))
    vcinr.compress(dataset, tmp_path / "a.zarr", abs_error=0.1, chunk=3)
    assert vcinr.verify(tmp_path / "a.zarr", dataset)[0] == [] and [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
    vcinr.compress(dataset, tmp_path / "b.zarr", abs_error=0.1, chunk=3)
    assert len(calls) == 2 * 12 - 3, "three were finished before the disk was full"


def test_existing_archives_are_not_overwritten_unasked(archive, dataset):
    before = {f: f.stat().st_mtime_ns for f in archive.rglob("*")}
    with pytest.raises(InputError, match="exists already"):
        vcinr.compress(dataset, archive, abs_error=0.1)
    assert {f: f.stat().st_mtime_ns for f in archive.rglob("*")} == before
    vcinr.compress(dataset, archive, abs_error=0.2, overwrite=True)
    assert vcinr.info(archive)["variables"]["sst"]["bound"]["value"] == 0.2


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"variables": ["nope"]}, "'nope'.*sst"),
        ({"abs_error": -1.0}, "positive"),
        ({"abs_error": float("nan")}, "positive"),
        ({"abs_error": 1.0, "rel_error": 0.1}, "not both"),
        ({"psnr": 50.0, "rate": 0.1}, "not both"),
        ({"point_rel_error": 0.1, "variables": ["packed"]}, "add_offset"),
        ({"abs_error": {"other": 1.0}}, "other"),
    ],
)
def test_bad_requests(dataset, tmp_path, arguments, match):
    with pytest.raises(InputError, match=match):
        vcinr.compress(dataset, tmp_path / "a.zarr", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_codec_writes_through_plain_xarray(tmp_path):
    values = np.random.default_rng(0).standard_normal((6, 8, 8)).cumsum(1).cumsum(2)
    data = xr.Dataset({"v": (("t", "y", "x"), values)})
    axes = tuple(encode_axis(np.arange(8.0)) for _ in range(2))
    serializer = VcinrCodec(variable="v", signal_axes=(1, 2), axes=axes, bound=("absolute", 0.05))
    encoding = {"v": {"serializer": serializer, "compressors": None, "chunks": (4, 8, 8)}}
    data.to_zarr(tmp_path / "z", zarr_format=3, consolidated=False, encoding=encoding)
    back = xr.open_zarr(tmp_path / "z", consolidated=False)
    assert float(np.abs(back["v"] - data["v"]).max()) <= 0.05
    data.to_zarr(
        tmp_path / "s", zarr_format=3, consolidated=False, encoding={"v": {**encoding["v"], "shards": (8, 8, 8)}}
    )
    assert float(np.abs(xr.open_zarr(tmp_path / "s", consolidated=False)["v"] - data["v"]).max()) <= 0.05


def test_evenly_spaced_axes_are_those_of_numpy_today():
    rng = np.random.default_rng(0)
    for num in (0, 1, 2, 3, 181, 1440):
        for start, stop in [(-90.0, 90.0), (0.0, 0.0), *rng.normal(size=(50, 2)) * 1e3]:
            assert evenly_spaced(start, stop, num).tobytes() == np.linspace(start, stop, num).tobytes()


def test_axes_survive_json():
    for axis in (np.linspace(-90, 90, 181), np.array([1.0]), np.random.default_rng(0).random(7), np.arange(5.0)):
        assert np.array_equal(decode_axis(encode_axis(axis), len(axis)), axis)
        for wrong in (len(axis) + 1, 10**15):
            with pytest.raises(CorruptError, match="length"):
                decode_axis(encode_axis(axis), wrong)
    with pytest.raises(CorruptError, match="length"):
        decode_axis({"start": 0.0, "stop": 1.0, "num": 10**15}, 7)
    assert "num" in encode_axis(np.arange(1000.0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_read_only_target(dataset, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="cannot write"):
        vcinr.compress(dataset, tmp_path / "a.zarr", abs_error=0.1)


def test_real_scenario_with_a_model(hadgem_run, tmp_path):
    """The main job: A1B within half a kelvin with a model of E1, checked against the file."""
    original = vcinr.open_dataset(hadgem_run["a1b"])
    facts = vcinr.compress(original, tmp_path / "a1b.zarr", model=load_model(hadgem_run["model"]), abs_error=0.5)
    assert vcinr.verify(tmp_path / "a1b.zarr", original)[0] == []
    assert facts["variables"]["air_temperature"]["bits_per_value"] < 0.6  # SZ3 needs about 1.3


def test_numcodecs_finds_the_codec_and_keeps_the_bound():
    import numcodecs

    values = np.random.default_rng(0).standard_normal((5, 12, 12)).cumsum(1).astype(">f4")
    values[0, 0, 0] = np.nan
    encoder = numcodecs.get_codec({"id": "vcinr", "bound": ["absolute", 0.05], "fill": None})
    data = encoder.encode(values)
    back = numcodecs.get_codec(encoder.get_config()).decode(data)
    assert back.dtype == values.dtype and np.nanmax(np.abs(back - values)) <= 0.05 and np.isnan(back[0, 0, 0])
    out = np.empty(values.shape, ">f4")
    assert encoder.decode(data, out) is out and np.array_equal(out, back, equal_nan=True)
    assert len(data) < values.nbytes / 3
    for damaged in (data[:20], b"x" + data[1:], data[:-1] + b"!"):
        with pytest.raises(CorruptError):
            encoder.decode(damaged)


def test_a_model_of_all_levels_of_a_globe(tmp_path):
    """One latent for whole columns: trained, in an archive, opened by plain xarray."""
    rng = np.random.default_rng(0)
    coords = {"level": np.arange(3.0), "lon": np.arange(0.0, 360.0, 30.0), "lat": np.linspace(-80, 80, 9)}
    z, lon, lat = np.meshgrid(*coords.values(), indexing="ij")
    pattern = np.cos(np.deg2rad(lon)) * np.cos(np.deg2rad(lat)) * (1 + z)
    values = rng.standard_normal((24, 1, 1, 1)) * pattern + 0.01 * rng.standard_normal((24, *z.shape))
    data = xr.Dataset({"v": (("time", *coords), values.astype("f4"))}, coords)
    params = config.Params(
        inr={"width": 24, "depth": 3, "latent": 3}, meta={"steps": 150, "batch": 4, "validate_every": 50},
        quantiser={"steps": 60, "lambdas": (10.0, 1000.0)}, threads=1,
    )  # fmt: skip
    model = train(data, tmp_path / "m.vcinr", signal_dims=("lat", "level", "lon"), params=params)
    assert model.dims == ("level", "lat", "lon") and model.system == {"system": "sphere", "bounds": [[0.0, 2.0]]}
    vcinr.compress(data, tmp_path / "a.zarr", model=model, abs_error=0.5)
    back = xr.open_zarr(tmp_path / "a.zarr")
    assert np.abs(back["v"].values - data["v"].values).max() <= 0.5
    assert back["v"].attrs["vcinr_model_sha256"] == model.sha256
    assert describe((tmp_path / "a.zarr/v/c/0/0/0/0").read_bytes())["rate"] is not None
