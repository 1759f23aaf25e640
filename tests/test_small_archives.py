"""Archives of small data: what is stored beside the coded values is small, and anybody's zarr and xarray read it."""

import warnings
import zipfile

import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from tests.golden import make
from tests.golden.reference import decoder
from vcinr.archive import store
from vcinr.archive.contents import open_contents
from vcinr.archive.manifest import MALFORMED, Manifest
from vcinr.errors import CorruptError


@pytest.fixture(scope="module")
def winds():
    """As the ERA-Interim file of xarray's tutorial: z, u and v in two months on three levels, packed."""
    dims = {"month": np.array([1, 7], "i4"), "level": np.array([200, 500, 850], "i4"),
            "latitude": np.linspace(90, -90, 241).astype("f4"),
            "longitude": np.arange(-180, 180, 0.75).astype("f4")}  # fmt: skip
    month, level, lat, lon = np.meshgrid(*dims.values(), indexing="ij")
    names = [
        ("z", "Geopotential", "geopotential", "m**2 s**-2", 1.7250274674967954, 66825.5),
        ("u", "U component of wind", "eastward_wind", "m s**-1", 0.0015936620191463, 10.5),
        ("v", "V component of wind", "northward_wind", "m s**-1", 0.0007869566037035, 0.1403),
    ]
    fields = {}
    for k, (name, long_name, standard_name, units, factor, offset) in enumerate(names, 2):
        wave = np.sin(np.deg2rad(k * lon) + month) * np.cos(np.deg2rad(lat)) * np.cos(level / 400)
        attrs = {
            "scale_factor": factor, "add_offset": offset, "_FillValue": np.int16(-32767),
            "missing_value": np.int16(-32767), "units": units, "long_name": long_name, "standard_name": standard_name,
            "number_of_significant_digits": np.int32(5),
        }  # fmt: skip
        fields[name] = (tuple(dims), np.round(20000 * wave).astype("i2"), attrs)
    about = {"latitude": {"units": "degrees_north", "long_name": "latitude"},
             "longitude": {"units": "degrees_east", "long_name": "longitude"},
             "level": {"units": "millibars", "long_name": "pressure_level"}, "month": {}}  # fmt: skip
    coords = {name: (name, values, about[name]) for name, values in dims.items()}
    return xr.Dataset(
        fields,
        coords,
        {
            "Conventions": "CF-1.0",
            "Info": "Monthly ERA-Interim data. Downloaded and edited by fabien.maussion@uibk.ac.at",
        },
    )


def as_floats(data):
    """The same unpacked."""
    unpacked = xr.decode_cf(data, decode_times=False).load().astype("f4")
    for name, variable in unpacked.variables.items():
        variable.attrs = {k: v for k, v in data[name].attrs.items() if k in ("units", "long_name", "standard_name")}
        variable.encoding = {}
    return unpacked


@pytest.mark.parametrize("form", [lambda data: data, as_floats], ids=["packed", "floats"])
def test_at_most_six_kilobytes_beside_the_coded_values(winds, form, tmp_path):
    data = form(winds)
    beside = {}
    for name in ("a.zip", "a.zarr"):
        facts = vcinr.compress(data, tmp_path / name, rel_error=0.01, effort="fast")
        assert set(facts["variables"]) == {"z", "u", "v"}
        beside[name] = facts["total_bytes"] - sum(v["bytes"] for v in facts["variables"].values())
        assert vcinr.verify(tmp_path / name, data)[0] == []
    # The coordinates, which are exact, take 0.9 kB of it.
    assert beside["a.zip"] <= 6000 and beside["a.zarr"] <= 10_000, beside
    files = [p for p in (tmp_path / "a.zarr").rglob("*") if p.is_file()]
    assert len(files) == 2 + 2 * 7, "metadata of the root and the manifest; metadata and one chunk of each variable"


def test_plain_zarr_and_xarray_and_the_reference_decoder_read_it(winds, tmp_path):
    for name in ("a.zip", "a.zarr"):
        vcinr.compress(winds, tmp_path / name, rel_error=0.01, effort="fast")
    reference = decoder()
    expected = vcinr.open(tmp_path / "a.zip", decode=False).load()
    with zarr.storage.ZipStore(tmp_path / "a.zip", mode="r") as zipped, warnings.catch_warnings():
        warnings.simplefilter("error")
        for place in (tmp_path / "a.zarr", zipped):
            root = zarr.open(place, mode="r")
            assert set(root.array_keys()) == {"z", "u", "v", "month", "level", "latitude", "longitude"}
            for consolidated in (True, False):
                with xr.open_zarr(place, chunks=None, consolidated=consolidated) as back:
                    xr.testing.assert_allclose(back.drop_attrs(), xr.decode_cf(expected).drop_attrs())
            for name in root.array_keys():
                alone = zarr.open_array(place, path=name, mode="r")[...]
                assert root[name][...].tobytes() == alone.tobytes() == expected[name].values.tobytes()
            assert set(xr.open_datatree(place, engine="zarr", chunks=None).groups) == {"/"}
    for path in (tmp_path / "a.zip", tmp_path / "a.zarr"):
        assert reference.read(path, "u").tobytes() == expected["u"].values.tobytes()


def test_metadata_are_without_spaces_and_repeat_no_manifest(winds, tmp_path):
    vcinr.compress(winds, tmp_path / "a.zip", rel_error=0.01, effort="fast")
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        texts = {n: archive.read(n).decode() for n in archive.namelist() if n.endswith("zarr.json")}
    assert not any('": ' in text or "\n" in text for text in texts.values())
    assert [n for n in texts if n.startswith("vcinr")] == ["vcinr/zarr.json"] and "manifest" not in texts["zarr.json"]


def test_a_manifest_of_many_chunks():
    """Four bytes of a checksum and four of an error, which deflate as far as they can."""
    rng = np.random.default_rng(0)
    sums, errors = rng.integers(0, 1 << 32, 100_000, np.uint32), rng.random(100_000).astype("f4").astype("f8")
    manifest = Manifest("ab" * 32, {"vcinr/models/x/c/0": 7}, {"v": sums, "w": sums[:3]}, {"v": errors}, "cd" * 8)
    attribute = manifest.attribute()
    assert len(attribute["data"]) < 1_100_000
    back = Manifest.parse(attribute)
    assert back.as_node() == manifest.as_node() and back.files == manifest.files
    assert np.array_equal(back.checksums("v", (1000, 100)), sums) and np.array_equal(back.errors("v", (10**5,)), errors)
    for name, counts in (("v", (999, 100)), ("none", (1,))):
        with pytest.raises(CorruptError, match="its manifest cannot be read"):
            back.checksums(name, counts)
    for change in ({"data": attribute["data"][:-8]}, {"arrays": [["v", -1, 0]]}, {"arrays": [["v", 10, 1]]}):
        with pytest.raises(MALFORMED):
            Manifest.parse({**attribute, **change})


@pytest.mark.parametrize("name", ["absolute", "model"])
def test_the_manifest_of_archives_of_before_is_believed(name, tmp_path):
    """Golden archives have it as a group of arrays: damage to a chunk, a coordinate or that group is seen."""
    path = make.FOLDER / "v1" / f"{name}.zip"
    assert "vcinr/manifest/zarr.json" in store.keys(store.open_store(path))
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "a.zarr")
    assert vcinr.verify(tmp_path / "a.zarr", make.fields())[0] == []
    opened = open_contents(tmp_path / "a.zarr")
    counts = (3, 1, 1) if name == "absolute" else (2, 1, 1)
    assert opened.manifest.checksums("double", counts).shape == (counts[0],)
    assert 0 < opened.manifest.errors("double", counts).max() <= 0.5
    for key in ("double/c/1/0/0", "y/c/0", "name/c/0", "vcinr/manifest/double/crc32/c/0/0/0", "y/zarr.json",
                "vcinr/manifest/zarr.json"):  # fmt: skip
        file = tmp_path / "a.zarr" / key
        good = file.read_bytes()
        file.write_bytes(good[:-20] + bytes([good[-20] ^ 1]) + good[-19:] if len(good) > 20 else b"x" + good[1:])
        assert vcinr.verify(tmp_path / "a.zarr")[0], key
        file.write_bytes(good)
    assert vcinr.verify(tmp_path / "a.zarr")[0] == []


def test_empty_texts_are_stored(tmp_path):
    """A chunk of nothing but fill values is a chunk like any other."""
    values = np.random.default_rng(0).normal(size=(4, 8, 8))
    data = xr.Dataset({"v": (("n", "y", "x"), values), "s": ("n", np.array([""] * 4, object))})
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1, effort="fast")
    assert (
        vcinr.verify(tmp_path / "a.zarr", data)[0] == []
        and list(vcinr.open(tmp_path / "a.zarr")["s"].values) == [""] * 4
    )
