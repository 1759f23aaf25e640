"""Reading with bounded memory: parts of files, here and behind URLs, and what archiving holds at a time."""

import contextlib
import gc
import http.server
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import fsspec
import h5py
import netCDF4
import numpy as np
import pytest
import xarray as xr

import vcinr
from tests.conftest import ROOT
from vcinr.errors import InputError
from vcinr.formats.open import open_dataset, open_groups

MIB = 1 << 20

MEASURE = """
import re, sys
from pathlib import Path

def kib(what):
    return int(re.search(what + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

import numpy, netCDF4, h5netcdf, zarr, fsspec.implementations.http, vcinr, vcinr.archive.write
from vcinr.archive.plan import plan
before = kib("VmRSS")
BODY
print((kib("VmHWM") - before) >> 10)
"""
"""Prints by how many MiB the peak of a process rises; a child's `getrusage` would begin with its parent's peak."""

READ = """
for array in plan(vcinr.open_groups(sys.argv[1]), abs_error=0.1, chunk=1):
    for index, _ in array.chunks():
        array.block(index)
"""


def risen(body: str, *arguments: object) -> int:
    """By how many MiB the peak memory of a process rises in which this code runs."""
    environment = {**os.environ, "AWS_EC2_METADATA_DISABLED": "true", "NUMBA_NUM_THREADS": "1"}
    command = [sys.executable, "-c", MEASURE.replace("BODY", body), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


class Ranges(http.server.SimpleHTTPRequestHandler):
    """A server of files that answers requests for ranges of bytes, as object stores and data portals do."""

    def do_GET(self) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if wanted is None or not path.is_file():
            return super().do_GET()
        size = path.stat().st_size
        start, end = int(wanted[1]), min(int(wanted[2] or size), size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {start}-{end}/{size}")
        self.send_header("Content-Length", str(end + 1 - start))
        self.end_headers()
        with path.open("rb") as file, contextlib.suppress(ConnectionError):
            file.seek(start)
            self.wfile.write(file.read(end + 1 - start))
        return None

    def end_headers(self) -> None:
        self.send_header("Accept-Ranges", "bytes")
        super().end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The URL under which the files of a folder are served."""
    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *args, **options: Ranges(*args, directory=str(folder), **options)
    )
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# --- netCDF 3 behind a URL ----------------------------------------------------------------------------------


@pytest.fixture(params=["NETCDF3_CLASSIC", "NETCDF3_64BIT_OFFSET", "NETCDF3_64BIT_DATA"])
def classic(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file with records and without, of every type, with text, attributes of all kinds, and odd sizes."""
    rng = np.random.default_rng(0)
    path = tmp_path / "a.nc"
    with netCDF4.Dataset(path, "w", format=request.param) as file:
        for name, n in (("time", None), ("y", 5), ("x", 7), ("letters", 3), ("unused", 2)):
            file.createDimension(name, n)
        file.title, file.numbers, file.one = "Wärme", np.array([1.5, 2.5]), np.int16(3)
        types = ["i1", "i2", "i4", "f4", "f8", *(["u1", "u2", "u4", "i8", "u8"] if "DATA" in request.param else [])]
        for kind in types:
            for dims in [("time", "y", "x"), ("y", "x"), ("time",), ("x",)]:
                shape = [6 if d == "time" else len(file.dimensions[d]) for d in dims]
                variable = file.createVariable(f"{kind}_{'_'.join(dims)}", kind, dims)
                variable[:] = rng.integers(0, 99, shape)
                variable.missing_value, variable.units = np.dtype(kind).type(7), "K"
        file.createVariable("scalar", "f8", ())[...] = 2.5
        file.createVariable("x", "f4", ("x",))[:] = np.arange(7)
        file.createVariable("area", "f4", ("y", "x"))[:] = 1
        file["f4_y_x"].coordinates = "area"
        file.createVariable("words", "S1", ("y", "letters"))[:] = netCDF4.stringtochar(
            np.array(["ab", "c"] * 2 + ["def"], "S3")
        )
        file.createVariable("text", "S1", ("letters",))[:] = list("xyz")
    return path


def behind_memory(path: Path) -> str:
    fsspec.filesystem("memory").pipe(f"/reading/{path.name}", path.read_bytes())
    return f"memory://reading/{path.name}"


def test_netcdf3_by_url_is_what_the_netcdf_library_reads(classic):
    local, remote = open_groups(classic)[""], open_groups(behind_memory(classic))[""]
    assert remote.encoding["unlimited_dims"] == local.encoding["unlimited_dims"] == {"time"}
    for part in ({}, {"time": 3}, {"time": slice(1, 5, 2), "x": slice(5, 1, -2)}, {"y": [4, 0, 0], "time": -1}):
        there, here = remote.isel(part), local.isel(part)
        assert there.load().identical(here.load()), part
        assert {n: v.dtype for n, v in there.variables.items()} == {n: v.dtype for n, v in here.variables.items()}
    for name, variable in local.variables.items():
        assert {k: type(v) for k, v in variable.attrs.items()} == {
            k: type(v) for k, v in remote.variables[name].attrs.items()
        }


def test_one_variable_with_records_has_no_padding(tmp_path):
    with netCDF4.Dataset(tmp_path / "a.nc", "w", format="NETCDF3_CLASSIC") as file:
        file.createDimension("t", None)
        file.createDimension("x", 3)
        file.createVariable("v", "i2", ("t", "x"))[:] = np.arange(15).reshape(5, 3)
    assert open_dataset(behind_memory(tmp_path / "a.nc"))["v"].values.tolist() == np.arange(15).reshape(5, 3).tolist()
    data = bytearray((tmp_path / "a.nc").read_bytes())
    data[4:8] = b"\xff" * 4  # as a program writes it that does not know yet how many there will be
    (tmp_path / "b.nc").write_bytes(data)
    assert open_dataset(behind_memory(tmp_path / "b.nc"))["v"].shape == (5, 3)


def test_a_part_of_netcdf3_is_read_as_a_part(tmp_path, monkeypatch):
    from vcinr.formats import netcdf

    values = np.arange(4 * 6 * 1000, dtype="f8").reshape(4, 6, 1000)
    xr.Dataset({"v": (("a", "b", "c"), values)}).to_netcdf(tmp_path / "a.nc", format="NETCDF3_64BIT")
    read = []
    real = netcdf._Lazy._bytes
    monkeypatch.setattr(netcdf._Lazy, "_bytes", lambda self, at, n: read.append(8 * n) or real(self, at, n))
    for row, run in ((1 << 20, 1 << 24), (100, 1 << 24), (100, 9000), (1 << 20, 9000)):
        monkeypatch.setattr(netcdf, "_ROW_BYTES", row)
        monkeypatch.setattr(netcdf, "_RUN_BYTES", run)
        for key in (
            np.s_[1:3, 4, 10:20],
            np.s_[:, ::-2, 5],
            np.s_[3, 1:5, :],
            np.s_[...],
            np.s_[::3, 0:0],
            np.s_[0, 0, 0],
        ):
            data = open_dataset(behind_memory(tmp_path / "a.nc"))["v"]
            assert np.array_equal(data[key].values, values[key])
    monkeypatch.undo()
    monkeypatch.setattr(netcdf._Lazy, "_bytes", lambda self, at, n: read.append(8 * n) or real(self, at, n))
    read.clear()
    data[2].load()
    assert read == [6 * 1000 * 8]


def test_archives_of_files_behind_a_url_are_those_of_the_files(tmp_path):
    from vcinr.formats.concat import open_concat

    (tmp_path / "in").mkdir()
    for i, form in enumerate(["NETCDF4", "NETCDF3_CLASSIC", "NETCDF4", "NETCDF3_64BIT"]):
        values = np.random.default_rng(i).normal(size=(3, 16, 20)).cumsum(2).astype("f4")
        data = xr.Dataset({"v": (("t", "y", "x"), values)}, {"t": ("t", np.arange(3 * i, 3 * i + 3, dtype="i4"))})
        data["v"].encoding["_FillValue"] = None
        data.to_netcdf(tmp_path / f"in/{i}.nc", format=form, unlimited_dims=["t"])
    with served(tmp_path / "in") as url:
        for here, there in ((str(tmp_path / "in"), "local"), (url, "remote")):
            for i in range(2):
                vcinr.compress(f"{here}/{i}.nc", tmp_path / f"{there}{i}.zip", abs_error=0.01, chunk=2, effort="fast")
            joined = open_concat([f"{here}/{i}.nc" for i in range(4)], "t")
            vcinr.compress(joined, tmp_path / f"{there}-all.zip", abs_error=0.01, chunk=2, effort="fast")
            assert vcinr.verify(tmp_path / f"{there}-all.zip", joined)[0] == []
            joined[""].close()
    for name in ("0", "1", "-all"):
        local, remote = tmp_path / f"local{name}.zip", tmp_path / f"remote{name}.zip"
        assert local.read_bytes() == remote.read_bytes(), name


# --- GRIB ---------------------------------------------------------------------------------------------------


@pytest.fixture
def grib(tmp_path: Path) -> Path:
    """Sixteen messages of a field on a coarse grid."""
    eccodes = pytest.importorskip("eccodes")
    pytest.importorskip("cfgrib")
    with (tmp_path / "a.grib2").open("wb") as file:
        for hour in range(16):
            message = eccodes.codes_grib_new_from_samples("regular_ll_sfc_grib2")
            eccodes.codes_set(message, "shortName", "2t")
            eccodes.codes_set(message, "dataDate", 20200101 + hour // 4)
            eccodes.codes_set(message, "dataTime", 600 * (hour % 4))
            eccodes.codes_set_values(message, 280.0 + hour + np.arange(eccodes.codes_get_size(message, "values")) % 7)
            eccodes.codes_write(message, file)
            eccodes.codes_release(message)
    return tmp_path / "a.grib2"


def test_grib_by_url_is_copied_for_as_long_as_it_is_needed(grib, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    local, remote = open_dataset(grib), open_dataset(behind_memory(grib))
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    array = remote["t2m"]
    assert np.array_equal(array[3:5, 2].values, local["t2m"][3:5, 2].values) and remote.load().identical(local.load())
    del remote, array
    gc.collect()
    assert list((tmp_path / "scratch").iterdir()) == []
    with pytest.raises(InputError, match=r"memory://reading/cut\.grib2: cannot be read"):
        (tmp_path / "cut.grib2").write_bytes(grib.read_bytes()[:-40])
        open_dataset(behind_memory(tmp_path / "cut.grib2"))
    gc.collect()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_of_grib_the_messages_are_read_that_are_needed(grib, monkeypatch):
    import cfgrib.dataset

    read = []
    real = cfgrib.dataset.OnDiskArray.__getitem__
    monkeypatch.setattr(
        cfgrib.dataset.OnDiskArray, "__getitem__", lambda self, item: read.append(real(self, item)) or read[-1]
    )
    open_dataset(grib)["t2m"][4:6].load()
    assert [part.shape[0] for part in read] == [2]


# --- peak memory of processes of their own ------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory) -> Path:
    """A field of 192 MiB in each format."""
    folder = tmp_path_factory.mktemp("large")
    row = np.sin(np.linspace(0, 9, 1 << 20, dtype="f4")).reshape(1024, 1024)
    forms = {"a.nc": "NETCDF4", "packed.nc": "NETCDF4"}
    for name in ("a.nc", "packed.nc", "classic.nc", "fixed.nc"):
        form = forms.get(name, "NETCDF3_64BIT_OFFSET")
        options = {"zlib": True, "complevel": 1} if name == "packed.nc" else {}
        with netCDF4.Dataset(folder / name, "w", format=form) as file:
            for dim, n in (("t", 48 if name == "fixed.nc" else None), ("y", 1024), ("x", 1024)):
                file.createDimension(dim, n)
            variable = file.createVariable("v", "f4", ("t", "y", "x"), **options)
            for i in range(48):
                variable[i] = row + i
    with h5py.File(folder / "plain.h5", "w") as file:
        dataset = file.create_dataset("v", (48, 1024, 1024), "f4")
        for i in range(48):
            dataset[i] = row + i
    with open_dataset(folder / "a.nc") as data:
        for i in range(48):
            part = data.isel(t=slice(i, i + 1))
            part.to_zarr(folder / "a.zarr", **({"append_dim": "t"} if i else {}), zarr_format=3, consolidated=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.nc", "packed.nc", "classic.nc", "fixed.nc", "plain.h5", "a.zarr"])
@pytest.mark.parametrize("place", ["local", "http"])
def test_a_field_is_read_in_parts(large, name, place):
    with served(large) as url:
        if place == "http" and name == "a.zarr":
            pytest.skip("a folder over http cannot be listed")
        assert risen(READ, large / name if place == "local" else f"{url}/{name}") < 96, "of 192 MiB"


@pytest.mark.slow
def test_an_object_store_is_read_in_parts(large, tmp_path, s3):
    store = fsspec.filesystem("s3")
    for name, form in (("four.nc", "NETCDF4"), ("three.nc", "NETCDF3_64BIT")):
        with open_dataset(large / "a.nc") as data:
            data.isel(t=slice(24)).to_netcdf(tmp_path / name, format=form)  # 96 MiB
        store.put_file(str(tmp_path / name), f"bucket/{name}")
        body = "import s3fs\nbefore = kib('VmRSS')" + READ
        assert risen(body, f"s3://bucket/{name}") < 72, name


@pytest.mark.slow
def test_archiving_holds_a_few_chunks(large, tmp_path):
    with open_dataset(large / "a.nc") as data:
        data.isel(t=slice(6)).to_netcdf(tmp_path / "small.nc")  # 24 MiB
    compressing = """
vcinr.archive.work.cores = lambda: 1
vcinr.compress(vcinr.open_groups(sys.argv[1]), sys.argv[2], abs_error=0.1, chunk=1, effort="fast")
"""
    verifying = "assert vcinr.verify(sys.argv[2], vcinr.open_groups(sys.argv[1]))[0] == []"
    decompressing = "vcinr.decompress(sys.argv[2], sys.argv[2] + '.nc')"
    archives = {"small": tmp_path / "small.nc", "large": large / "a.nc"}
    used = {
        name: [risen(body, place, tmp_path / f"{name}.zarr") for body in (compressing, verifying, decompressing)]
        for name, place in archives.items()
    }
    for little, much in zip(used["small"], used["large"], strict=True):
        assert much < little + 80, f"of 168 MiB more: {used}"
    assert vcinr.verify(tmp_path / "large.zarr", open_groups(tmp_path / "large.zarr.nc"))[0] == []
