"""Reading files, fetching packages, voxelising meshes and splitting sources into signals."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import Any

import fsspec
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from vcinr import config, formats, kinds
from vcinr.datasets import fetch as fetching
from vcinr.datasets.fetch import fetch
from vcinr.datasets.ingest import archive_variables, ingest, open_archive
from vcinr.errors import ConfigError, InputError
from vcinr.formats.base import Format, Groups, begins
from vcinr.formats.obj import triangles_of
from vcinr.formats.open import field, numeric_fields, open_dataset
from vcinr.kinds import grid
from vcinr.kinds.voxels import read_library, voxelise
from vcinr.signals import Signals, SignalSet, read_signals

PARAMS = Path(__file__).parents[1] / "params.yaml"


# ---------------------------------------------------------------- formats


def climate(times: int = 6, seed: int = 0) -> xr.Dataset:
    """A small CF data set: packed int16 values with a fill value, bounds, a grid mapping, an odd calendar."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-500, 500, (times, 4, 5)).astype(np.int16)
    values[0, 1, 2] = -999
    packed = {"_FillValue": np.int16(-999), "scale_factor": 0.1, "add_offset": 273.0}
    data = xr.Dataset(
        {
            "t": (
                ("time", "lat", "lon"),
                values,
                {"units": "K", "grid_mapping": "crs", "coordinates": "height", **packed},
            ),
            "time_bnds": (("time", "bnds"), np.arange(2.0 * times).reshape(times, 2)),
            "crs": ((), np.int32(0), {"grid_mapping_name": "latitude_longitude"}),
            "height": ((), 2.0, {"units": "m"}),
        },
        coords={
            "time": ("time", np.arange(times) * 30.0, TIME),
            "lat": ("lat", np.linspace(40, 43, 4), {"units": "degrees_north"}),
            "lon": ("lon", np.linspace(10, 14, 5), {"units": "degrees_east"}),
        },
        attrs={"Conventions": "CF-1.8"},
    )
    for name in ("time", "lat", "lon", "time_bnds", "height"):
        data[name].encoding["_FillValue"] = None  # else xarray adds one of its own
    return data


TIME = {"units": "days since 1850-01-01", "calendar": "360_day", "bounds": "time_bnds"}


def zip_folder(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, f"{prefix}{file.relative_to(folder)}")
    return target


def write_as(form: str, folder: Path) -> str:
    """Write `climate()` in one of the forms that carry names and attributes; returns path or URL."""
    data = climate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if form == "netcdf3":
            data.to_netcdf(folder / "a.nc", format="NETCDF3_CLASSIC", engine="netcdf4")
        elif form == "netcdf4":
            data.to_netcdf(folder / "a.nc", engine="netcdf4")
        else:
            version = 2 if "zarr2" in form else 3
            data.to_zarr(folder / "a.zarr", zarr_format=version, consolidated="consolidated" in form)
    if "zip" in form:
        prefix = "inner/a.zarr/" if "deep" in form else ""
        return str(zip_folder(folder / "a.zarr", folder / "a.zip", prefix))
    return str(folder / ("a.nc" if "netcdf" in form else "a.zarr"))


def to_memory(path: str) -> str:
    """Copy a file or folder into fsspec's memory file system; returns its URL."""
    memory, source = fsspec.filesystem("memory"), Path(path)
    url = f"/test-datasets/{source.parent.name}/{source.name}"
    for file in [source] if source.is_file() else [p for p in source.rglob("*") if p.is_file()]:
        memory.pipe(url + str(file)[len(path) :], file.read_bytes())
    return f"memory:/{url}"


FORMS = ["netcdf3", "netcdf4", "zarr2", "zarr3", "zarr2-consolidated", "zarr3-consolidated", "zarr2-zip"]
FORMS += ["zarr3-zip", "zarr3-zip-deep"]


@pytest.mark.parametrize("place", ["local", "memory", "file"])
@pytest.mark.parametrize("form", FORMS)
def test_cf_files_open_raw_and_decoded(form: str, place: str, tmp_path: Path) -> None:
    path = write_as(form, tmp_path)
    path = {"local": path, "memory": to_memory(path), "file": f"file://{path}"}[place]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raw = open_dataset(path)
    expected = climate()
    np.testing.assert_array_equal(raw.t.values, expected.t.values)
    assert raw.t.dtype.kind == "i"
    for key in ("units", "_FillValue", "scale_factor", "add_offset", "grid_mapping"):
        assert raw.t.attrs[key] == expected.t.attrs[key]
    assert raw.time.attrs == TIME
    np.testing.assert_array_equal(raw.time.values, expected.time.values)
    assert "height" in raw.coords
    assert numeric_fields(raw) == ["t"]

    decoded = open_dataset(path, decode=True)
    assert np.isnan(decoded.t.values[0, 1, 2]) and np.isnan(decoded.t.values).sum() == 1
    np.testing.assert_allclose(decoded.t.values[0, 0, 0], expected.t.values[0, 0, 0] * 0.1 + 273.0, rtol=1e-6)
    assert decoded.time.values[1].calendar == "360_day"


def test_raw_data_set_is_written_back_as_it_was(tmp_path: Path) -> None:
    write_as("netcdf4", tmp_path)
    open_dataset(tmp_path / "a.nc").to_netcdf(tmp_path / "b.nc")
    with netCDF4.Dataset(tmp_path / "a.nc") as a, netCDF4.Dataset(tmp_path / "b.nc") as b:
        for name in ("t", "time", "lat"):
            assert {k: str(a[name].getncattr(k)) for k in a[name].ncattrs()} == {
                k: str(b[name].getncattr(k)) for k in b[name].ncattrs()
            }


@pytest.mark.parametrize("memory", [False, True])
def test_plain_hdf5(tmp_path: Path, memory: bool) -> None:
    path = str(tmp_path / "plain.h5")
    with h5py.File(path, "w") as file:
        file.attrs["title"] = "plain"
        file["a"] = np.arange(6, dtype="f4").reshape(2, 3)
        file["a"].attrs["units"] = "m"
        file["group/sub/b"] = np.arange(4, dtype="u2")
        file["words"] = ["one", "two"]
        file.create_dataset("compound", data=np.zeros(2, dtype=[("x", "f4")]))
    data = open_dataset(to_memory(path) if memory else path)
    assert data.attrs["title"] == "plain" and data["a"].attrs == {"units": "m"}
    assert data["a"].dims == ("a_dim0", "a_dim1")
    assert data["group/sub/b"].dims == ("b_dim0",)
    np.testing.assert_array_equal(data["a"][1, ::2], [3, 5])
    np.testing.assert_array_equal(data["a"][[1, 0], 1], [4, 1])
    np.testing.assert_array_equal(data["group/sub/b"], np.arange(4))
    assert list(data["words"].values) == ["one", "two"]
    assert numeric_fields(data) == ["a", "group/sub/b"]


@pytest.mark.parametrize("memory", [False, True])
def test_netcdf4_groups_are_brought_to_the_root(tmp_path: Path, memory: bool) -> None:
    path = str(tmp_path / "groups.nc")
    with netCDF4.Dataset(path, "w") as file:
        file.createDimension("x", 3)
        file.createVariable("t", "f4", ("x",))[:] = 1
        one, two = file.createGroup("one"), file.createGroup("two")
        one.createDimension("y", 2)
        two.createDimension("y", 4)
        u = one.createVariable("u", "i2", ("x", "y"))
        u[:], u.coordinates = 3, "lat"
        one.createVariable("lat", "f4", ("x",))[:] = 1
        two.createVariable("u", "f8", ("y",))[:] = 2
    data = open_dataset(to_memory(path) if memory else path)
    assert set(data.data_vars) == {"t", "one/u", "two/u"} and "one/lat" in data.coords
    assert data["one/u"].dims == ("x", "y") and data["two/u"].dims == ("two/y",)
    assert data["one/u"].values.sum() == 18 and data["two/u"].values.sum() == 8


@pytest.mark.parametrize("version", [2, 3])
def test_zarr_without_dimension_names_or_consolidated_metadata(tmp_path: Path, version: Any) -> None:
    root = zarr.open_group(tmp_path / "plain.zarr", mode="w", zarr_format=version)
    root.create_array("b", data=np.arange(4))
    root.create_array("a", data=np.ones((2, 3), np.float32))
    data = open_dataset(tmp_path / "plain.zarr")
    assert list(data.data_vars) == ["a", "b"] and data.a.dims == ("a_dim0", "a_dim1")
    climate().assign_coords(depth=("depth", np.arange(3.0))).to_netcdf(tmp_path / "a.nc")
    unused = xr.open_dataset(tmp_path / "a.nc", decode_times=False)
    unused.to_zarr(tmp_path / "unused.zarr", zarr_format=version, consolidated=False)
    assert "depth" in open_dataset(tmp_path / "unused.zarr").coords
    zarr.create_array(tmp_path / "single.zarr", data=np.arange(5.0), zarr_format=version)
    np.testing.assert_array_equal(open_dataset(tmp_path / "single.zarr").single, np.arange(5.0))


@pytest.mark.parametrize("memory", [False, True])
def test_numpy_files(tmp_path: Path, memory: bool) -> None:
    np.save(tmp_path / "field.npy", np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "two.npz", a=np.arange(3), b=np.ones((2, 2), np.float32))
    one, two = str(tmp_path / "field.npy"), str(tmp_path / "two.npz")
    if memory:
        one, two = to_memory(one), to_memory(two)
    data = open_dataset(one)
    assert data.field.dims == ("field_dim0", "field_dim1") and data.field.values[1, 2] == 5
    assert numeric_fields(open_dataset(two)) == ["a", "b"]


def test_names_do_not_matter_where_the_bytes_speak(tmp_path: Path) -> None:
    write_as("netcdf4", tmp_path)
    (tmp_path / "a.nc").rename(tmp_path / "data.dat")
    assert numeric_fields(open_dataset(tmp_path / "data.dat")) == ["t"]


def bad_files(folder: Path) -> dict[str, tuple[str, str]]:
    """What is wrong: (path, a word of the remedy)."""
    (folder / "empty.nc").touch()
    (folder / "text.nc").write_text("not a netCDF file")
    (folder / "text.xyz").write_text("who knows")
    (folder / "folder").mkdir()
    (folder / "cut.npy").write_bytes(b"\x93NUMPY\x01\x00")
    (folder / "packed.nc.gz").write_bytes(b"\x1f\x8b" + bytes(20))
    (folder / "a.grib2").write_bytes(b"GRIB" + bytes(20))
    np.save(folder / "objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(folder / "other.zip", "w") as archive:
        archive.writestr("readme.txt", "hello")
    write_as("netcdf4", folder)
    whole = (folder / "a.nc").read_bytes()
    (folder / "cut.nc").write_bytes(whole[: len(whole) // 2])
    zarr.open_group(folder / "hollow.zarr", mode="w").create_group("inner")
    return {
        "absent": ("absent.nc", "check the path"),
        "absent url": ("memory://nowhere/absent.nc", "check the path"),
        "absent store": ("memory://nowhere/absent.zarr", "check the path"),
        "unknown protocol": ("nosuch://x/y.nc", "Protocol not known"),
        "empty": ("empty.nc", "copy it again"),
        "text": ("text.nc", "copy it again"),
        "unknown": ("text.xyz", "use netCDF"),
        "folder": ("folder", "own folder"),
        "cut npy": ("cut.npy", "copy it again"),
        "cut netCDF": ("cut.nc", "copy it again"),
        "objects": ("objects.npy", "an array of numbers"),
        "gzip": ("packed.nc.gz", "unpack it first"),
        "grib": ("a.grib2", "pip install vcinr[grib]"),
        "zip": ("other.zip", "unpack it first"),
        "hollow": ("hollow.zarr", "written whole"),
    }


def test_errors_are_one_line_with_file_and_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcinr.formats.grib.importlib.util.find_spec", lambda _: None)  # no cfgrib
    for what, (name, remedy) in bad_files(tmp_path).items():
        path = name if "://" in name else str(tmp_path / name)
        with pytest.raises(InputError) as caught:
            open_dataset(path)
        message = str(caught.value)
        assert "\n" not in message and path in message and remedy in message, f"{what}: {message}"


def test_hdf5_after_a_user_block_is_known(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.dat", "w", userblock_size=512) as file:
        file["a"] = np.arange(3)
    assert numeric_fields(open_dataset(tmp_path / "a.dat")) == ["a"]


def test_grib_behind_a_url_needs_cfgrib_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcinr.formats.grib.importlib.util.find_spec", lambda _: None)
    (tmp_path / "a.grib2").write_bytes(b"GRIB" + bytes(20))
    with pytest.raises(InputError, match=r"a\.grib2: reading GRIB needs cfgrib; pip install vcinr\[grib\]"):
        open_dataset(to_memory(str(tmp_path / "a.grib2")))


def dots(data: bytes) -> Groups:
    """Maps of a format that vcinr does not have: a word, three sizes and float32 numbers."""
    shape = np.frombuffer(data, "<i4", 3, offset=4)
    values = np.frombuffer(data, "<f4", offset=16).reshape(shape)
    return {"": xr.Dataset({"dots": (("time", "y", "x"), values, {"units": "1"})})}


DOTS = Format(
    name="dots",
    recognises=begins(b"DOTS"),
    read=lambda path, name: dots(path.read_bytes()),
    read_stream=lambda stream, name: dots(stream.read()),
    suffixes=(".dots",),
)


def test_a_format_from_outside_is_opened_ingested_and_compressed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = np.random.default_rng(0).standard_normal((12, 4, 5)).astype("f4")
    path = tmp_path / "a.dots"
    path.write_bytes(b"DOTS" + np.array(values.shape, "<i4").tobytes() + values.tobytes())
    with pytest.raises(InputError, match=r"a\.dots: unknown format; use netCDF, NumPy, Zarr, GRIB"):
        open_dataset(path)
    monkeypatch.setattr(formats, "FORMATS", (DOTS, *formats.FORMATS))
    for place in (str(path), f"file://{path}", to_memory(str(path))):
        np.testing.assert_array_equal(open_dataset(place).dots, values)
    (tmp_path / "text.dots").write_text("something else")
    with pytest.raises(InputError, match=r"text\.dots: not a \.dots file, it begins with b'somethin'"):
        open_dataset(tmp_path / "text.dots")
    chosen = (config.Selection(path=str(path)),)
    source = config.Source(train=chosen, archive=chosen)
    assert ingest(source, tmp_path, tmp_path / "signals")["signals"] == {"train": 11, "valid": 1, "test": 12}
    vcinr.compress(vcinr.open_groups(path), tmp_path / "a.zarr", abs_error=0.1)
    with vcinr.open(tmp_path / "a.zarr") as back:
        assert float(np.abs(back.dots - values).max()) <= 0.1


def test_packed_values_without_a_fill_value_decode_to_floats(tmp_path: Path) -> None:
    packed = xr.Dataset({"v": ("x", np.arange(5, dtype="i2"), {"scale_factor": 0.1})})
    packed.to_netcdf(tmp_path / "a.nc")
    assert np.allclose(open_dataset(tmp_path / "a.nc", decode=True)["v"], np.arange(5) / 10)
    assert np.allclose(xr.decode_cf(open_dataset(tmp_path / "a.nc"))["v"], np.arange(5) / 10)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("exploded").touch, ()


def test_pickles_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    zarr.open_group("a.zarr", mode="w", zarr_format=2).create_array("a", shape=(2,), dtype="i4", chunks=(2,))
    metadata = json.loads(Path("a.zarr/a/.zarray").read_text())
    Path("a.zarr/a/0").write_bytes(pickle.dumps(Bomb()))
    for dtype, filters in (("|O", []), ("<i4", []), ("|O", [{"id": "vlen-utf8"}])):
        pickled = {"filters": [*filters, {"id": "pickle", "protocol": 4}], "compressor": None, "fill_value": 0}
        Path("a.zarr/a/.zarray").write_text(json.dumps({**metadata, "dtype": dtype, **pickled}))
        with pytest.raises((InputError, RuntimeError)):  # where the file is opened, or where its values are read
            open_dataset("a.zarr")["a"].load()
    np.save("b.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        open_dataset("b.npy")
    assert not Path("exploded").exists()


@pytest.mark.parametrize("records", ["none", "one", "several"])
@pytest.mark.parametrize("form", ["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
def test_cut_netcdf3_is_refused(form: Any, records: str, tmp_path: Path) -> None:
    # The netCDF library would return zeros for what is missing.
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format=form) as file:
        file.createDimension("x", 3)
        file.createDimension("time", None if records != "none" else 5)
        file.title = "odd"
        file.createVariable("v", "i2", ("time", "x"))[:] = np.arange(15).reshape(5, 3)
        file["v"].units = "m"
        if records == "several":
            file.createVariable("w", "i1", ("time",))[:] = np.arange(5)
    whole = (tmp_path / "a.nc").read_bytes()
    assert open_dataset(tmp_path / "a.nc").v.values.tolist() == np.arange(15).reshape(5, 3).tolist()
    for missing in (4, 12, len(whole) - 20):
        (tmp_path / "cut.nc").write_bytes(whole[:-missing])
        for path in (str(tmp_path / "cut.nc"), to_memory(str(tmp_path / "cut.nc"))):
            with pytest.raises(InputError, match=r"cut off.*copy it again"):
                open_dataset(path)


def test_field_names_close_matches_and_what_exists() -> None:
    with pytest.raises(InputError, match=r"f\.nc: no variable 'tt'; did you mean 't'\? it has t, time_bnds, crs"):
        field(climate(), "tt", "f.nc")
    assert field(climate(), "t", "f.nc").name == "t"


def test_reading_needs_the_base_install_alone() -> None:
    code = (
        "import sys; import vcinr.formats.open; "
        "print([m for m in ('torch', 'pydantic', 'scipy', 'dask') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- fetch


def wheel(content: str = "data") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pack/data.txt", content)
    return buffer.getvalue()


def package(content: bytes, registry: Any = "pypi") -> config.Package:
    return config.Package(registry=registry, name="pack", version="1.0", sha256=hashlib.sha256(content).hexdigest())


class Tool:
    """Stands for pip, apt-get and dpkg-deb: leaves `content` in its folder, or fails."""

    def __init__(self, content: bytes, name: str = "pack-1.0.whl", stderr: str = "") -> None:
        self.content, self.name, self.stderr, self.calls = content, name, stderr, 0

    def __call__(self, command: list[Any], cwd: Path | None = None, **_: Any) -> Any:
        self.calls += 1
        if command[0] == "dpkg-deb":
            (Path(command[-1]) / "unpacked.txt").write_text("data")
        elif not self.stderr:
            assert cwd is not None
            (cwd / self.name).write_bytes(self.content)
        return subprocess.CompletedProcess(command, 1 if self.stderr else 0, "", self.stderr)


def use(monkeypatch: pytest.MonkeyPatch, tool: Tool) -> Tool:
    monkeypatch.setattr(fetching.subprocess, "run", tool)
    monkeypatch.setattr(fetching.shutil, "which", lambda name: f"/usr/bin/{name}")
    return tool


def test_fetch_downloads_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = use(monkeypatch, Tool(wheel()))
    for _ in range(2):
        folder = fetch(package(wheel()), tmp_path / "raw")
        assert (folder / "pack" / "data.txt").read_text() == "data"
    assert tool.calls == 1
    assert [p.name for p in (tmp_path / "raw").iterdir()] == ["pack-1.0"]


def test_fetch_replaces_a_half_or_other_unpack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = use(monkeypatch, Tool(wheel()))
    (tmp_path / "pack-1.0").mkdir()
    (tmp_path / "pack-1.0" / "half.txt").touch()
    folder = fetch(package(wheel()), tmp_path)
    assert not (folder / "half.txt").exists() and (folder / "pack" / "data.txt").exists()
    tool.content = wheel("newer")
    assert (fetch(package(wheel("newer")), tmp_path) / "pack" / "data.txt").read_text() == "newer"


def test_fetch_of_a_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Tool(b"deb", "pack_1.0_all.deb"))
    folder = fetch(package(b"deb", "debian"), tmp_path)
    assert (folder / "unpacked.txt").exists()


@pytest.mark.parametrize("registry", ["pypi", "debian"])
def test_fetch_refuses_another_hash_and_leaves_nothing(
    registry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, Tool(wheel("tampered")))
    with pytest.raises(InputError, match=r"pack 1\.0: .*SHA-256 .*expected .*path:") as caught:
        fetch(package(wheel(), registry), tmp_path)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_fetch_failures_are_one_line_with_the_local_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Tool(b"", stderr="Looking\nERROR: No matching distribution\n"))
    with pytest.raises(InputError, match=r"^pypi package pack 1\.0: .*No matching distribution.*own files"):
        fetch(package(wheel()), tmp_path)
    use(monkeypatch, Tool(b"", stderr="W: a warning\nE: Unable to locate package pack\n"))
    with pytest.raises(InputError, match=r"Unable to locate package pack.*apt-get update.*own files"):
        fetch(package(wheel(), "debian"), tmp_path)
    monkeypatch.setattr(fetching.shutil, "which", lambda _: None)
    with pytest.raises(InputError, match=r"^debian package pack 1\.0: apt-get is not on this machine.*own files"):
        fetch(package(wheel(), "debian"), tmp_path)
    monkeypatch.setattr(fetching.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip is needed.*ensurepip.*own files"):
        fetch(package(wheel()), tmp_path)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- voxels

CUBE = """# a box of 2 x 1 x 1
v 0 0 0
v 2 0 0
v 2 1 0
v 0 1 0
v 0 0 1
v 2 0 1
v 2 1 1
v 0 1 1
vn 0 0 1
f 1/1/1 2/1/1 3/1/1 4/1/1
f 5//1 6//1 7//1 8//1
f 1 2 6 5
f 4 3 7 8
f -8 -5 -1 -4
f 2 3 7
f 2 7 6
"""


def test_voxelised_box_is_solid_and_keeps_its_proportions() -> None:
    triangles = triangles_of(CUBE.encode(), "box")
    assert triangles.shape == (12, 3, 3)
    grid = voxelise(triangles, 16)
    assert grid.dtype == np.uint8 and grid.shape == (16, 16, 16)
    expected = np.zeros((16, 16, 16), np.uint8)
    expected[4:13, 4:13, :] = 1  # its faces lie on 4.0 and 12.0: the voxel from 12 to 13 is touched
    np.testing.assert_array_equal(grid, expected)


def test_voxelised_sphere_has_the_volume_of_one() -> None:
    n = 40
    theta, phi = np.meshgrid(np.linspace(0, np.pi, n), np.linspace(0, 2 * np.pi, 2 * n), indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=-1)
    a, b, c, d = points[:-1, :-1], points[1:, :-1], points[1:, 1:], points[:-1, 1:]
    triangles = np.concatenate([np.stack(t, axis=2).reshape(-1, 3, 3) for t in ((a, b, c), (a, c, d))])
    share = voxelise(triangles, 48).mean()
    assert np.pi / 6 < share < np.pi / 6 * 1.12  # voxels touched from inside count whole


@pytest.mark.parametrize("text", ["", "v 0 0 0\nf 1 2 3\n", "v 0 x 0\nf 1 1 1\n", "v 0 0 nan\nf 1 1 1\n"])
def test_bad_meshes_are_named(text: str) -> None:
    with pytest.raises(InputError, match=r"^lib: mesh 'a': .*leave it out") as caught:
        triangles_of(text.encode(), "lib: mesh 'a'")
    assert "\n" not in str(caught.value)


def furniture(folder: Path) -> config.Source:
    """Two libraries with a catalogue, each box of another height."""
    for library, count in (("one", 12), ("two", 3)):
        with zipfile.ZipFile(folder / f"{library}.sh3f", "w") as archive:
            entries = []
            for i in range(count):
                path = f"{library}/box{i}/box{i}.obj"
                archive.writestr(path, CUBE.replace("v 2 1", f"v 2 {i + 1}"))
                entries.append(f"id#{i}=x\nname#{i}=Caf\xe9 {i} \\u20ac\nmodel#{i}=/{path}\n")
            archive.writestr("PluginFurnitureCatalog.properties", "\n".join(entries).encode("latin-1"))
    return config.Source(
        kind="voxels",
        train=(config.Selection(path=str(folder / "one.sh3f")),),
        archive=(config.Selection(path=str(folder / "two.sh3f")),),
        resolution=8,
    )


def test_voxel_source(tmp_path: Path) -> None:
    source = furniture(tmp_path)
    summary = ingest(source, tmp_path / "raw", tmp_path / "signals")
    assert summary["signals"] == {"train": 11, "valid": 1, "test": 3}
    signals = read_signals(tmp_path / "signals")
    assert signals.dims == ("z", "y", "x") and signals.system["system"] == "box"
    assert signals.splits["train"].features.shape == (11, 8, 8, 8, 1)
    assert signals.splits["train"].features.dtype == np.uint8
    np.testing.assert_allclose(signals.inputs[[0, -1]], [[-1, -1, -1], [1, 1, 1]])
    ((name, data),) = open_archive(source, tmp_path / "raw")
    assert name == "occupancy" and archive_variables(source, data) == ("occupancy",)
    assert data.occupancy.dims == ("item", "z", "y", "x")
    assert list(data["name"].values) == ["Café 0 €", "Café 1 €", "Café 2 €"]
    assert set(data.library.values) == {"two"}
    np.testing.assert_array_equal(data.occupancy.values[..., None], signals.splits["test"].features)


def test_voxel_limit_selection_and_folder(tmp_path: Path) -> None:
    source = furniture(tmp_path)
    cut = source.model_copy(update={"limit": 4, "archive": source.train, "test": {"item": (1, None)}})
    assert ingest(cut, tmp_path, tmp_path / "s")["signals"] == {"train": 3, "valid": 1, "test": 3}
    (tmp_path / "meshes" / "sub").mkdir(parents=True)
    for name in ("b.obj", "a.obj", "sub/c.obj"):
        (tmp_path / "meshes" / name).write_text(CUBE)
    data = read_library(tmp_path / "meshes", 8)
    assert list(data["name"].values) == ["a", "b", "sub/c"] and data.occupancy.shape == (3, 8, 8, 8)
    for bad, words in ((tmp_path / "absent.sh3f", "check the path"), (tmp_path / "s", "no .obj meshes")):
        with pytest.raises(InputError, match=words):
            read_library(bad, 8)


def test_voxels_without_scipy_name_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy", None)
    with pytest.raises(InputError, match=r"pip install vcinr\[voxels\]"):
        voxelise(np.zeros((1, 3, 3)), 8)


# ---------------------------------------------------------------- ingest


def two_files(folder: Path, **changes: Any) -> config.Source:
    """A source with one file to learn from (25 maps) and one to archive (6 maps)."""
    climate(25, seed=1).to_netcdf(folder / "train.nc")
    climate(6, seed=2).to_netcdf(folder / "archive.nc")
    values: dict[str, Any] = {
        "train": (config.Selection(path=str(folder / "train.nc")),),
        "archive": (config.Selection(path=str(folder / "archive.nc")),),
        "test": {"time": (2, None)},
    }
    return config.Source(**{**values, **changes})


def test_grid_source_splits_and_masks(tmp_path: Path) -> None:
    source = two_files(tmp_path)
    summary = ingest(source, tmp_path / "raw", tmp_path / "signals")
    assert json.loads(json.dumps(summary)) == summary
    assert summary["signals"] == {"train": 23, "valid": 2, "test": 4}
    assert summary["grid"] == {"lat": 4, "lon": 5} and summary["units"] == {"t": "K"}
    assert summary["also_in_train"] == {"valid": 0, "test": 0}
    signals = read_signals(tmp_path / "signals")
    decoded = open_dataset(tmp_path / "train.nc", decode=True).t.values
    train, valid, test = (signals.splits[name] for name in ("train", "valid", "test"))
    held = [9, 19]
    np.testing.assert_array_equal(valid.features[..., 0], decoded[held])
    rest = np.delete(decoded, held, axis=0)
    np.testing.assert_array_equal(train.features[..., 0], np.nan_to_num(rest))
    assert train.mask is not None and not train.mask[0, 1, 2] and train.mask.sum() == train.mask.size - 1
    np.testing.assert_array_equal(
        test.features[..., 0], open_dataset(tmp_path / "archive.nc", decode=True).t.values[2:]
    )
    low, scale = signals.normalisation["t"]
    assert (low, low + scale) == pytest.approx((np.nanmin(decoded), np.nanmax(decoded)))
    y, weights = signals.normalised("train")
    assert weights is not None and y.min() >= 0 and y.max() <= 1


def test_normalisation_is_of_training_data_alone(tmp_path: Path) -> None:
    source = two_files(tmp_path)
    before = ingest(source, tmp_path, tmp_path / "signals")
    data = climate(6, seed=2)
    data["t"][:] = 30000
    data.to_netcdf(tmp_path / "other.nc")
    (tmp_path / "other.nc").replace(tmp_path / "archive.nc")
    after = ingest(source, tmp_path, tmp_path / "signals")
    assert after["normalisation"] == before["normalisation"]
    assert read_signals(tmp_path / "signals").splits["test"].features.min() > 3000
    # the extreme of a validation map belongs to the training data
    data = climate(25, seed=1)
    data["t"][9, 0, 0] = 5000
    data.to_netcdf(tmp_path / "other.nc")
    (tmp_path / "other.nc").replace(tmp_path / "train.nc")
    low, scale = ingest(source, tmp_path, tmp_path / "signals")["normalisation"]["t"]
    assert low + scale == pytest.approx(773.0)


def test_test_signals_seen_in_training_are_counted(tmp_path: Path) -> None:
    source = two_files(tmp_path)
    shutil.copy(tmp_path / "train.nc", tmp_path / "archive.nc")
    assert ingest(source, tmp_path, tmp_path / "signals")["also_in_train"] == {"valid": 0, "test": 21}


def test_several_variables_files_and_empty_maps(tmp_path: Path) -> None:
    data = climate(25, seed=1).assign(u=(("time", "lat", "lon"), np.ones((25, 4, 5), np.float32)))
    data["u"][3] = np.nan  # a map without any value
    source = two_files(tmp_path, variables=())
    data.to_netcdf(tmp_path / "train.nc")
    summary = ingest(source, tmp_path, tmp_path / "signals")
    assert summary["signals"] == {"train": 45, "valid": 4, "test": 4}
    assert summary["left_out"] == {"training": 1, "test": 0}
    assert summary["normalisation"]["u"] == [1.0, 1.0]
    signals = read_signals(tmp_path / "signals")
    assert signals.splits["valid"].variable == ("t", "t", "u", "u")
    twice = source.model_copy(update={"variables": ("t",), "archive": source.archive * 2})
    assert ingest(twice, tmp_path, tmp_path / "signals")["signals"]["test"] == 8
    assert [name for name, _ in open_archive(twice, tmp_path)] == ["archive", "archive-2"]


def test_archive_is_as_stored_and_cut(tmp_path: Path) -> None:
    source = two_files(tmp_path)
    cut = config.Selection(path=source.archive[0].path, select={"time": (1, 3)})
    ((name, data),) = open_archive(source.model_copy(update={"archive": (cut,)}), tmp_path)
    assert name == "archive" and archive_variables(source, data) == ("t",)
    assert data.t.shape == (2, 4, 5) and data.t.dtype == np.int16 and data.time.attrs == TIME


def test_ingest_errors_name_file_and_remedy(tmp_path: Path) -> None:
    source = two_files(tmp_path)
    train = source.train[0].path

    def fails(words: str, **changes: Any) -> None:
        with pytest.raises(InputError, match=words) as caught:
            ingest(source.model_copy(update=changes), tmp_path, tmp_path / "signals")
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "signals").exists()

    fails(r"train\.nc: no variable 'tt'; did you mean 't'", variables=("tt",))
    fails(r"archive\.nc: selection of unknown dimension 'tme'; did you mean 'time'", test={"tme": (0, 1)})
    fails(r"archive\.nc: selection time \[9, None\] is empty; .* 6$", test={"time": (9, None)})
    fails(r"archive\.nc: variable 't': axis 'lat' is 2 values.*train\.nc 4 values", test={"lat": (0, 2)})
    fails("one training signal", train=(config.Selection(path=train, select={"time": (0, 1)}),))
    fails(r"train\.nc: variable 't' has no dimension 'z'", tiling=config.Tiling(signal_dims=("z",)))
    fails(r"absent\.nc: no such file", train=(config.Selection(path=str(tmp_path / "absent.nc")),))
    climate().assign_coords(lat=np.arange(4.0)).to_netcdf(tmp_path / "moved.nc")
    moved = (config.Selection(path=str(tmp_path / "moved.nc")),)
    fails(r"moved\.nc: variable 't': axis 'lat' .*one source has one grid", archive=moved)


def test_patterns_and_packages_of_selections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pattern stands for its files in order, and each selection may have a package of its own."""
    first, second = package(b"1"), package(b"2").model_copy(update={"name": "other"})
    for folder, names in (("pack", ("b", "a", "c")), ("other", ("d",))):
        (tmp_path / folder / "in").mkdir(parents=True)
        for name in names:
            climate().to_netcdf(tmp_path / folder / "in" / f"{name}.nc")
    monkeypatch.setattr("vcinr.datasets.ingest.fetch", lambda wanted, raw, _: raw / wanted.name)
    source = config.Source(
        package=first, variables=("t",), train=(config.Selection(path="in/[ab].nc"),),
        archive=(config.Selection(path="in/*.nc", package=second),),
    )  # fmt: skip
    assert source.packages == [first, second]
    summary = ingest(source, tmp_path, tmp_path / "signals")
    assert summary["files"] == {"train": ["in/a.nc", "in/b.nc"], "archive": ["in/d.nc"]}
    assert [p["name"] for p in summary["packages"]] == ["other"] and summary["package"]["name"] == "pack"
    absent = source.model_copy(update={"train": (config.Selection(path="in/*.png"),)})
    with pytest.raises(InputError, match=r"in/\*\.png: no file matches this pattern in pack$"):
        ingest(absent, tmp_path, tmp_path / "signals")


def example_signals(source: config.Source) -> Signals:
    split = SignalSet(np.zeros((2, 3, 1), np.float32), None, ("v", "v"))
    axes = (np.arange(3.0),)
    system = {"system": "box", "bounds": [[0.0, 2.0]]}
    return Signals({"train": split, "valid": split, "test": split}, ("x",), axes, system, {"v": (0.0, 1.0)})


def test_python_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    source = two_files(tmp_path, kind="python", function="test_datasets:example_signals")
    assert ingest(source, tmp_path, tmp_path / "signals")["signals"] == {"train": 2, "valid": 2, "test": 2}
    for function, words in (("no_such_module:f", "cannot be imported"), ("builtins:repr", "must return")):
        with pytest.raises(ConfigError, match=words):
            ingest(source.model_copy(update={"function": function}), tmp_path, tmp_path / "signals")


def test_the_projects_sources_are_valid() -> None:
    params = kinds.load(PARAMS)
    assert {"hadgem", "era5", "furniture"} <= set(params.sources)
    assert params.sources["hadgem"].test == {"time": (140, None)}


@pytest.mark.slow
def test_hadgem_for_real(tmp_path: Path) -> None:
    source = config.load(PARAMS).sources["hadgem"]
    summary = ingest(source, tmp_path / "raw", tmp_path / "signals")
    assert summary["signals"] == {"train": 216, "valid": 24, "test": 100}
    assert summary["also_in_train"] == {"valid": 0, "test": 0}
    whole = ingest(source.model_copy(update={"test": {}}), tmp_path / "raw", tmp_path / "all")
    assert whole["also_in_train"]["test"] == 126  # 140 maps are common to both files, 14 of them in valid
    ((name, data),) = open_archive(source, tmp_path / "raw")
    assert name == "A1B_north_america" and data.air_temperature.shape == (240, 37, 49)
    assert data.time.attrs["calendar"] == "360_day"


def test_obj_files_may_have_tabs():
    data = b"v\t0 0 0\nv\t1 0 0\nv 0\t1 0\nf\t1 2 3\n"
    assert np.array_equal(triangles_of(data, "a.obj"), [[[0, 0, 0], [1, 0, 0], [0, 1, 0]]])


def test_files_that_are_learned_and_tested_alike_are_opened_once(tmp_path, monkeypatch):
    field = xr.DataArray(np.random.default_rng(0).random((5, 4, 6)), dims=("time", "y", "x"), name="v")
    field.to_netcdf(tmp_path / "a.nc")
    chosen = (config.Selection(path=str(tmp_path / "a.nc")),)
    opened, real = [], grid.open_dataset
    monkeypatch.setattr(grid, "open_dataset", lambda path: opened.append(path) or real(path))
    facts = ingest(config.Source(train=chosen, archive=chosen), tmp_path, tmp_path / "s.zarr")
    assert len(opened) == 1 and facts["signals"] == {"train": 4, "valid": 1, "test": 5}
    facts = ingest(config.Source(train=chosen, archive=chosen, test={"time": (3, None)}), tmp_path, tmp_path / "s.zarr")
    assert len(opened) == 3 and facts["signals"]["test"] == 2
