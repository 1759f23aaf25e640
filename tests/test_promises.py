"""Corners in which a promise was once broken: each test is a way in which a user could have met it."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr.archive import work
from vcinr.archive.plan import plan
from vcinr.bulk.drive import compress
from vcinr.bulk.engines import engine_of
from vcinr.bulk.request import Request
from vcinr.codec.promise import SMALL_BYTES
from vcinr.errors import BoundError, CorruptError, InputError, VcinrError
from vcinr.formats.base import KIND_OF_SIGNAL


@pytest.fixture
def values():
    return np.random.default_rng(0).normal(size=(4, 20, 20)).cumsum(1).astype("f4")


def dataset(values, **attrs):
    return xr.Dataset({"v": (("n", "y", "x"), values, attrs)})


def test_bounds_by_name_go_to_the_variable_of_that_group(values, tmp_path):
    groups = {"": dataset(values), "g": dataset(values)}
    facts = vcinr.compress(groups, tmp_path / "a.zarr", abs_error={"v": 1.0, "g/v": 0.001})["variables"]
    assert facts["g/v"]["max_abs_error"] <= 0.001 < facts["v"]["max_abs_error"] <= 1.0


def test_a_rerun_does_not_take_over_chunks_of_another_psnr_peak(tmp_path, monkeypatch):
    first = np.random.default_rng(0).normal(size=(2, 32, 32)).cumsum(1) * 0.01
    second = first.copy()
    first[1] = 1e4 * np.random.default_rng(1).normal(size=(32, 32))
    real, calls = work.encode_chunk, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(work, "encode_chunk", interrupted)
    with pytest.raises(KeyboardInterrupt):
        vcinr.compress(dataset(first), tmp_path / "a.zarr", psnr=60.0, chunk=1)
    monkeypatch.undo()
    facts = vcinr.compress(dataset(second), tmp_path / "a.zarr", psnr=60.0, chunk=1)
    assert facts["variables"]["v"]["psnr_db"] >= 60.0


def test_verify_checks_psnr_and_rate(values, tmp_path):
    other = values.copy()
    other[1] += 1
    vcinr.compress(dataset(values), tmp_path / "a.zarr", psnr=60.0)
    assert vcinr.verify(tmp_path / "a.zarr", dataset(values))[0] == []
    assert "below the 60 dB" in vcinr.verify(tmp_path / "a.zarr", dataset(other))[0][0]


def test_stale_and_lost_chunks_are_never_decompressed(values, tmp_path):
    data = dataset(values).assign_coords(n=list("abcd"))
    for name, field in (("a", values), ("b", values * 2)):
        vcinr.compress(data.assign(v=(("n", "y", "x"), field)), tmp_path / f"{name}.zarr", abs_error=0.1, chunk=1)
    shutil.copy(tmp_path / "b.zarr/v/c/2/0/0", tmp_path / "a.zarr/v/c/2/0/0")  # a copy that broke off
    with pytest.raises(CorruptError, match="v/c/2/0/0"):
        vcinr.decompress(tmp_path / "a.zarr", tmp_path / "a.nc")
    assert not (tmp_path / "a.nc").exists()
    shutil.rmtree(tmp_path / "b.zarr/n/c")  # text, which Zarr would read as empty
    with pytest.raises(CorruptError, match="missing"):
        vcinr.open(tmp_path / "b.zarr")


def test_names_that_differ_in_case_alone(values, tmp_path):
    groups = {"": xr.Dataset({"T": (("y", "x"), values[0]), "t": (("y", "x"), values[1])}),
              "Site": dataset(values), "site": dataset(values + 1)}  # fmt: skip
    for place in (tmp_path / "a.zarr", tmp_path / "a.zip"):
        vcinr.compress(groups, place, abs_error=0.1)
        assert vcinr.verify(place, groups)[0] == []
        assert float(np.abs(vcinr.open(place, group="site")["v"] - groups["site"]["v"]).max()) <= 0.1


def test_text_with_a_fill_value(values, tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w") as file:
        for dim, n in zip("nyx", values.shape, strict=True):
            file.createDimension(dim, n)
        file.createVariable("v", "f4", ("n", "y", "x"))[:] = values
        file.createVariable("s", str, ("n",), fill_value="NA")[:] = np.array(["a", "b", "NA", "d"], object)
    vcinr.compress(vcinr.open_groups(tmp_path / "a.nc"), tmp_path / "b.zarr", abs_error=0.1)
    assert list(vcinr.open(tmp_path / "b.zarr", decode=False)["s"].values) == ["a", "b", "NA", "d"]
    with xr.open_zarr(tmp_path / "b.zarr", chunks=None) as plain:
        assert list(plain["s"].values) == ["a", "b", "NA", "d"]
    vcinr.decompress(tmp_path / "b.zarr", tmp_path / "back.nc")
    with netCDF4.Dataset(tmp_path / "back.nc") as file:
        assert file["s"].getncattr("_FillValue") == "NA" and file["s"][2] == "NA"


def test_what_appears_while_an_archive_is_written_is_not_replaced(values, tmp_path):
    target = tmp_path / "a.zarr"

    def watch(_):
        target.mkdir(exist_ok=True)
        (target / "precious").write_text("x")

    with pytest.raises(InputError, match="no archive"):
        vcinr.compress(dataset(values), target, abs_error=0.1, watch=watch)
    assert (target / "precious").exists()
    (tmp_path / ".b.zarr.part").mkdir()
    (tmp_path / ".b.zarr.part" / "precious").write_text("x")
    with pytest.raises(InputError, match="in the way"):
        vcinr.compress(dataset(values), tmp_path / "b.zarr", abs_error=0.1)
    assert (tmp_path / ".b.zarr.part" / "precious").exists()
    (tmp_path / "c.zarr").symlink_to(tmp_path / "nowhere")
    with pytest.raises(InputError, match="exists already"):
        vcinr.compress(dataset(values), tmp_path / "c.zarr", abs_error=0.1)
    dataset(values).to_zarr(tmp_path / "own.zarr", zarr_format=3)
    with pytest.raises(InputError, match="no archive"):
        vcinr.compress(dataset(values), tmp_path / "own.zarr", abs_error=0.1, overwrite=True)


def test_an_interrupted_replacement_loses_neither_archive(values, tmp_path, monkeypatch):
    target = tmp_path / "a.zarr"
    vcinr.compress(dataset(values), target, abs_error=0.1)
    real = Path.rename

    def killed(self, to):
        if self.name == "archive":
            raise KeyboardInterrupt  # between the two renames
        return real(self, to)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        vcinr.compress(dataset(values), target, abs_error=0.2, overwrite=True)
    monkeypatch.undo()
    with pytest.raises(BoundError):
        vcinr.compress(dataset(values), target, rate=0.01, overwrite=True)
    assert vcinr.info(target)["variables"]["v"]["bound"]["value"] == 0.1 and vcinr.verify(target)[0] == []


def test_an_archive_can_be_compressed_again(values, tmp_path):
    data = xr.Dataset({n: (("n", "y", "x"), values, {"valid_min": np.float32(-99)}) for n in "tu"}, {"n": list("abcd")})
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.5)
    vcinr.decompress(tmp_path / "a.zarr", tmp_path / "a.nc")
    for source in (tmp_path / "a.nc", tmp_path / "a.zarr"):
        groups = vcinr.open_groups(source)
        facts = vcinr.compress(groups, tmp_path / "b.zarr", abs_error=0.01, variables=["t"], overwrite=True)
        assert list(facts["variables"]) == ["t"] and facts["variables"]["t"]["bound"]["value"] == 0.01
        assert vcinr.verify(tmp_path / "b.zarr", groups)[0] == []
        assert vcinr.open(tmp_path / "b.zarr", decode=False)["u"].attrs == {"valid_min": np.float32(-99)}
    vcinr.compress(vcinr.open(tmp_path / "a.zarr"), tmp_path / "c.zarr", abs_error=0.5)
    assert vcinr.verify(tmp_path / "b.zarr", vcinr.open_groups(tmp_path / "b.zarr"))[0] == []


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_stores_with_text(values, version, tmp_path):
    dataset(values).assign(s=("n", np.array(list("abcd"), object))).to_zarr(tmp_path / "s.zarr", zarr_format=version)
    vcinr.compress(vcinr.open_groups(tmp_path / "s.zarr"), tmp_path / "a.zarr", abs_error=0.1)
    assert list(vcinr.open(tmp_path / "a.zarr")["s"].values) == list("abcd")


def test_fill_values_that_the_type_does_not_hold(values, tmp_path):
    cases = {"u1": -1, "i2": 1e20, "i4": np.nan, "i8": -9999.5, "f4": 1e20}
    data = xr.Dataset(
        {d: (("n", "y", "x"), (10 * np.abs(values)).astype(d), {"_FillValue": f}) for d, f in cases.items()}
    )
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=1, variables=list(cases))
    assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []
    back = vcinr.open(tmp_path / "a.zarr", decode=False)
    assert back["i8"].attrs["_FillValue"] == -9999.5 and back["u1"].attrs["_FillValue"] == -1
    with h5py.File(tmp_path / "a.h5", "w") as file:  # HDF-EOS5 has attributes of one element
        file["v"] = values
        file["v"].attrs.update({"_FillValue": np.array([0], "f4"), "scale_factor": np.array([2.0])})
    vcinr.compress(vcinr.open_groups(tmp_path / "a.h5"), tmp_path / "b.zarr", abs_error=0.2)
    assert vcinr.verify(tmp_path / "b.zarr", vcinr.open_groups(tmp_path / "a.h5"))[0] == []


@pytest.mark.filterwarnings("ignore:Duplicate dimension names")
def test_what_cannot_be_stored_is_said_in_one_line(values, tmp_path):
    index = xr.Coordinates.from_pandas_multiindex(
        __import__("pandas").MultiIndex.from_product([[0, 1], [0, 1]], names=("a", "b")), "n"
    )
    surrogate = dataset(values).assign(o=("n", np.array(["a", "b", "c", "d"], object)))
    surrogate["o"].values[0] = "\ud800"  # given at once, pandas may refuse it where pyarrow is installed
    cases = {
        "multi-index": dataset(values).assign_coords(index),
        "mixed": dataset(values).assign(o=("n", np.array([1, "a", None, [2]], object))),
        "surrogate": surrogate,
        "scale": dataset(values, scale_factor="abc"),
        "backslash": dataset(values).rename(v="x\\y"),
        "zarr.json": dataset(values).rename(v="zarr.json"),
        "twice": xr.Dataset({"v": xr.Variable(("y", "y"), values[0])}),
    }
    for what, data in cases.items():
        with pytest.raises(InputError) as caught:
            vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1)
        assert "\n" not in str(caught.value) and list(tmp_path.iterdir()) == [], what
    vcinr.compress(dataset(values), tmp_path / "a.zarr", abs_error=np.float32(0.1))


def test_enormous_finite_values(values, tmp_path):
    huge = values.astype("f8")
    huge[1, 0, 0] = 1.797e308
    for bound in ({"abs_error": 0.1}, {"psnr": 60.0}, {"point_rel_error": 0.01}, {"rel_error": 0.1}):
        vcinr.compress(dataset(huge), tmp_path / "a.zarr", chunk=1, overwrite=True, **bound)
        assert vcinr.verify(tmp_path / "a.zarr", dataset(huge))[0] == []


def test_packed_values_that_unpack_in_single_precision(tmp_path):
    rng = np.random.default_rng(0)
    large = np.sort(rng.integers(10**9, 10**9 + 400, 1600)).reshape(4, 20, 20).astype("i4")
    data = dataset(large, scale_factor=np.float32(0.01))
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.2)
    assert float(np.abs(xr.decode_cf(data)["v"] - vcinr.open(tmp_path / "a.zarr")["v"]).max()) <= 0.2
    small = np.where(rng.random((6, 10, 40)) < 0.5, 2, np.arange(1, 41)).astype("i2")
    data = dataset(small, scale_factor=np.float32(0.1))
    vcinr.compress(data, tmp_path / "b.zarr", point_rel_error=0.5)
    there, back = (xr.decode_cf(data)["v"].astype("f8"), vcinr.open(tmp_path / "b.zarr")["v"].astype("f8"))
    assert bool((np.abs(there - back) <= 0.5 * np.abs(there)).all())


def test_an_archive_of_another_input_is_not_taken_for_this_one(values, tmp_path):
    for name, field in (("a", values), ("b", values + 100)):
        (tmp_path / name).mkdir()
        dataset(field).assign(w=(("n", "y", "x"), field)).to_netcdf(tmp_path / name / "x.nc")
    target = str(tmp_path / "x.zarr")

    def skipped(folder, **request):
        source = str(tmp_path / folder / "x.nc")
        found = compress(source, target, Request(abs_error=0.1, **request), engine_of("serial"), overwrite=True)
        return "skipped" in found.archives[target]

    assert not skipped("a", variables=("v",)) and skipped("a", variables=("v",))
    assert not skipped("a") and skipped("a") and skipped("a", effort="fast")
    assert not skipped("b") and vcinr.verify(target, vcinr.open_groups(tmp_path / "b/x.nc"))[0] == []


def test_a_rate_that_is_not_kept_is_refused_even_losslessly(tmp_path):
    noise = np.random.default_rng(0).integers(-128, 127, (50, 50)).astype("i1")
    data = xr.Dataset({"v": (("y", "x"), noise, {"_Unsigned": "true"})})
    with pytest.raises(BoundError, match="bits"):
        vcinr.compress(data, tmp_path / "a.zarr", rate=1.0, variables=["v"])


def test_times_that_nothing_decodes_are_kept(values, tmp_path):
    time = ("n", np.arange(4.0), {"units": "hour since 0000-01-01 00:00:00"})
    vcinr.compress(dataset(values).assign_coords(n=time), tmp_path / "a.zarr", abs_error=0.1)
    assert vcinr.verify(tmp_path / "a.zarr", dataset(values).assign_coords(n=time))[0] == []
    assert vcinr.open(tmp_path / "a.zarr", decode=False)["n"].attrs == time[2]


def test_durations_come_back(values, tmp_path):
    data = dataset(values).assign(dt=("n", np.arange(4).astype("m8[h]").astype("m8[ns]")))
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1)
    assert np.array_equal(vcinr.open(tmp_path / "a.zarr")["dt"], data["dt"])


def test_verify_of_endless_and_enormous_declarations_ends(values, tmp_path):
    vcinr.compress(dataset(values).assign_coords(n=list("abcd")), tmp_path / "a.zarr", abs_error=0.1)

    def changed(node, change):
        copy = tmp_path / f"{node.replace('/', '-')}.zarr"
        shutil.copytree(tmp_path / "a.zarr", copy, dirs_exist_ok=True)
        root = json.loads((copy / "zarr.json").read_text())
        text = json.loads((copy / node / "zarr.json").read_text())
        change(text)
        root["consolidated_metadata"]["metadata"][node] = text
        (copy / node / "zarr.json").write_text(json.dumps(text))
        (copy / "zarr.json").write_text(json.dumps(root))
        return copy

    def endless(text):
        text.update(shape=[10**15, 0, 20])
        text["chunk_grid"]["configuration"]["chunk_shape"] = [1, 1, 1]

    def many(text):
        text.update(shape=[10**9])
        text["chunk_grid"]["configuration"]["chunk_shape"] = [10**9]

    def nested(text):
        inner = {"chunk_shape": [4], "codecs": [{"name": "bytes"}, {"name": "gzip", "configuration": {"level": 1}}],
                 "index_codecs": [{"name": "bytes"}]}  # fmt: skip
        text["codecs"] = [{"name": "sharding_indexed", "configuration": inner}]

    for node, change in (("v", endless), ("n", many), ("n", nested)):
        copy = changed(node, change)
        subprocess.run([sys.executable, "-c", REFUSED, str(copy)], check=True, timeout=60)


REFUSED = """
import sys, vcinr
from vcinr.errors import VcinrError
for call in (lambda: vcinr.verify(sys.argv[1])[0], lambda: vcinr.open(sys.argv[1]).load() and []):
    try:
        assert call(), "taken for sound"
    except VcinrError:
        pass
"""


def test_attribute_types_cannot_ask_for_memory(values, tmp_path):
    from vcinr.archive.metadata import restored

    hostile = dataset(values, q=["a"] * 100, vcinr_attribute_dtypes={"q": "S50000000", "gone": "<f4"})
    assert restored(hostile)["v"].attrs["q"] == ["a"] * 100


def test_netcdf_has_no_half_precision(values, tmp_path):
    vcinr.compress(dataset(values.astype("f2")), tmp_path / "a.zarr", abs_error=0.5)
    with pytest.raises(InputError, match=r"netCDF cannot hold.*float16"):
        vcinr.decompress(tmp_path / "a.zarr", tmp_path / "a.nc")
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]


def test_info_of_a_damaged_archive_is_one_line(values, tmp_path):
    vcinr.compress(dataset(values), tmp_path / "a.zarr", abs_error=0.1)
    path = tmp_path / "a.zarr" / "zarr.json"
    path.write_text(path.read_text().replace("vcinr_max_abs_error", "vcinr_max_abs_errox"))
    with pytest.raises(VcinrError, match="metadata"):
        vcinr.info(tmp_path / "a.zarr")


@pytest.mark.parametrize("dtype", ["i2", "bool"])
def test_a_rate_holds_for_arrays_whose_last_chunk_is_tiny(dtype, tmp_path):
    """A chunk of eight values at the edge has a head as well, which no rate pays for."""
    wave = np.rint(1000 * np.sin(np.arange(8 * 513) / 50)).reshape(513, 2, 2, 2)
    data = xr.Dataset({"v": (("n", "z", "y", "x"), wave.astype("i2") if dtype == "i2" else wave > 0)})
    vcinr.compress(data, tmp_path / "a.zarr", rate=2.0, variables=["v"], chunk=512)
    sizes = [(tmp_path / f"a.zarr/v/c/{i}/0/0/0").stat().st_size for i in range(2 if dtype == "bool" else 3)]
    assert max(sizes) <= 512 * 8 * 2 / 8 and 2 < sizes[-1] <= SMALL_BYTES
    assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []


def test_an_empty_array_has_the_rate_that_was_asked_for():
    """Not that of the array before it, an icon whose few values may take more."""
    shapes = {"icon": (1, 2, 2), "none": (0, 64, 64), "photo": (1, 64, 64)}
    groups = {"": xr.Dataset(attrs={KIND_OF_SIGNAL: "image"})}
    groups |= {n: xr.Dataset({"image": (("item", "y", "x"), np.full(s, 7, "u1"))}) for n, s in shapes.items()}
    names = [f"{name}/image" for name in shapes]
    found = {a.job.name: a.job for a in plan(groups, bounds={"rate": 1.0}, variables=names)}
    assert found["none/image"].rate == 1.0 and found["photo/image"].bound.value == 1.0
    assert found["icon/image"].bound.value == 8 * SMALL_BYTES / 4
