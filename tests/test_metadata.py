"""Metadata: every dimension, coordinate, attribute, type and group of a CF file comes back, in Zarr and in netCDF."""

import netCDF4
import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr.archive import metadata
from vcinr.errors import InputError

BOUND = 0.05


@pytest.fixture
def file(tmp_path):
    """A netCDF4 file with what CF files have: bounds, grid mapping, packing, flags, groups, an unlimited dimension."""
    rng = np.random.default_rng(0)
    path = tmp_path / "in.nc"
    with netCDF4.Dataset(path, "w") as nc:
        nc.setncatts({"title": "test", "Conventions": "CF-1.11", "history": "2000-01-01 made", "version": np.int16(3),
                      "numbers": np.array([1.5, np.nan], "f4"), "empty": ""})  # fmt: skip
        for name, n in (("time", None), ("y", 9), ("x", 11), ("nv", 2), ("station", 3), ("letters", 5)):
            nc.createDimension(name, n)
        nc.createDimension("level", 1)

        def variable(where, name, kind, dims, values, fill=None, **attrs):
            made = where.createVariable(name, kind, dims, fill_value=fill)
            made.set_auto_maskandscale(False)
            made.setncatts(attrs)
            made[:] = values
            return made

        t = np.arange(6)
        variable(nc, "time", "f8", "time", t + 0.5, units="days since 1850-01-01", calendar="360_day",
                 bounds="time_bnds", axis="T", standard_name="time")  # fmt: skip
        variable(nc, "time_bnds", "f8", ("time", "nv"), np.stack([t, t + 1], 1))
        variable(nc, "y", "f4", "y", np.linspace(-1, 1, 9), units="m", standard_name="projection_y_coordinate")
        variable(nc, "x", "f4", "x", np.linspace(-1, 1, 11), units="m", standard_name="projection_x_coordinate")
        variable(
            nc, "lat", "f8", ("y", "x"), rng.normal(60, 1, (9, 11)), units="degrees_north", standard_name="latitude"
        )
        variable(
            nc, "lon", "f8", ("y", "x"), rng.normal(5, 1, (9, 11)), units="degrees_east", standard_name="longitude"
        )
        variable(nc, "crs", "i4", (), 0, grid_mapping_name="stereographic", semi_major_axis=6371229.0)
        variable(nc, "level", "i2", "level", [1000], units="hPa", positive="down")
        names = nc.createVariable("station_name", str, "station")
        names[:] = np.array(["Bergen", "", "Tromsø"], object)
        variable(nc, "code", "S1", ("station", "letters"), np.full((3, 5), b"A"), long_name="letters")
        variable(nc, "flags", "i1", ("time", "y", "x"), rng.integers(0, 3, (6, 9, 11)), fill=np.int8(-1),
                 flag_values=np.array([0, 1, 2], "i1"), flag_meanings="a b c")  # fmt: skip
        field = rng.standard_normal((6, 1, 9, 11)).cumsum(2).cumsum(3).astype("f4")
        field[:, :, :3] = np.float32(1e20)
        variable(nc, "ta", "f4", ("time", "level", "y", "x"), field, fill=np.float32(1e20), units="K",
                 missing_value=np.float32(1e20), valid_range=np.array([-90, 90], "f4"), coordinates="lat lon",
                 grid_mapping="crs", cell_methods="time: mean", ancillary_variables="flags")  # fmt: skip
        variable(nc, "pr", "i2", ("time", "y", "x"), rng.integers(0, 1000, (6, 9, 11)), fill=np.int16(-99),
                 scale_factor=np.float32(0.01), add_offset=np.float32(2.0), units="mm",
                 coordinates="lat lon")  # fmt: skip
        inner = nc.createGroup("ocean")
        inner.setncattr("comment", "a group")
        inner.createDimension("x", 4)  # another than the root's
        variable(inner, "sst", "f4", ("time", "x"), rng.standard_normal((6, 4)).cumsum(1), units="degC")
        deep = inner.createGroup("deep")
        variable(deep, "salt", "f8", ("time", "y", "x"), rng.standard_normal((6, 9, 4)).cumsum(1), units="psu")
        variable(deep, "count", "u8", ("time",), np.arange(6))
    return path


LOSSY = {"": ["ta", "pr"], "ocean": ["sst"], "ocean/deep": ["salt"]}


def stripped(dataset):
    """Without what vcinr adds, which is nothing but attributes with its prefix and a line of history."""
    dataset = dataset.copy()
    for attrs in (dataset.attrs, *(v.attrs for v in dataset.variables.values())):
        for key in [k for k in attrs if k.startswith("vcinr_")]:
            del attrs[key]
    if "history" in dataset.attrs:
        *earlier, last = dataset.attrs["history"].split("\n")
        assert last.startswith("vcinr ")
        dataset.attrs["history"] = "\n".join(earlier)
    return dataset


def same_apart_from_the_bounded(back, original, names):
    for name in names:
        assert np.array_equal(back[name].isnull(), original[name].isnull())
        unit = original[name].attrs.get("scale_factor", 1.0)
        error = unit * np.abs(back[name].astype("f8") - original[name].astype("f8")).max()
        assert 0 < float(error) <= BOUND, name
        back = back.assign({name: original[name].copy(data=original[name]).assign_attrs(back[name].attrs)})
    xr.testing.assert_identical(back, original)


def types(dataset):
    return {
        (name, key): np.asarray(value).dtype
        for name, v in {**dataset.variables, "": dataset}.items()
        for key, value in v.attrs.items()
    }


@pytest.mark.parametrize("decode", [True, False])
def test_archive_is_identical_apart_from_the_bounded_values(file, tmp_path, decode):
    groups = vcinr.open_groups(file)
    names = [metadata.join(p, n) for p, found in LOSSY.items() for n in found]
    vcinr.compress(groups, tmp_path / "a.zarr", abs_error=BOUND, variables=names)
    assert vcinr.verify(tmp_path / "a.zarr", groups)[0] == []
    assert list(groups) == ["", "ocean", "ocean/deep"]
    for path, original in groups.items():
        original = xr.decode_cf(original) if decode else original
        back = vcinr.open(tmp_path / "a.zarr", group=path, decode=decode).load()
        same_apart_from_the_bounded(stripped(back), original.load(), LOSSY[path])
        if not decode:
            assert types(stripped(back)) == types(original)
        for name in original.variables:
            for key in ("units", "calendar", "coordinates", "grid_mapping", "bounds"):
                assert back[name].encoding.get(key) == original[name].encoding.get(key), (name, key)


def test_plain_xarray_reads_the_tree(file, tmp_path):
    groups = vcinr.open_groups(file)
    for path in ("ocean", "ocean/deep"):  # xarray's trees have no dimension that differs from the parent's
        groups[path] = groups[path].rename(x="cell")
    vcinr.compress(groups, tmp_path / "a.zarr", rel_error=1e-3)
    with xr.open_datatree(tmp_path / "a.zarr", engine="zarr", zarr_format=3) as tree:
        assert {"/ocean", "/ocean/deep"} <= set(tree.groups)
        assert tree["ocean/deep/salt"].dims == ("time", "y", "cell") and tree["ocean"].attrs["comment"] == "a group"
        assert tree["ta"].coords["lat"].dims == ("y", "x") and "time_bnds" in tree
    with xr.open_zarr(tmp_path / "a.zarr", group="ocean") as back:
        assert back["sst"].shape == (6, 4)
    with pytest.raises(InputError, match=r"no group 'lake'; it has ocean, ocean/deep"):
        vcinr.open(tmp_path / "a.zarr", group="lake")


def test_netcdf_comes_back_with_types_groups_and_unlimited_dimensions(file, tmp_path):
    vcinr.compress(vcinr.open_groups(file), tmp_path / "a.zip", abs_error=BOUND, variables=["ta"])
    vcinr.decompress(tmp_path / "a.zip", tmp_path / "back.nc")
    for path, original in vcinr.open_groups(file).items():
        back = stripped(vcinr.open_groups(tmp_path / "back.nc")[path])
        assert types(back) == types(original)
        if not path:
            original["ta"] = original["ta"].copy(data=back["ta"].values)
        xr.testing.assert_identical(back.load(), original.load())
    with netCDF4.Dataset(tmp_path / "back.nc") as nc:
        assert nc.dimensions["time"].isunlimited() and not nc.dimensions["y"].isunlimited()
        assert nc["ocean/deep/salt"].dtype == "f8" and "_FillValue" not in nc["y"].ncattrs()


def test_provenance(file, tmp_path):
    facts = vcinr.compress(vcinr.open_groups(file), tmp_path / "a.zarr", abs_error={"ta": 0.1}, variables=["ta"])
    root = xr.open_zarr(tmp_path / "a.zarr")
    attrs = root["ta"].attrs
    assert root.attrs["vcinr_version"] == vcinr.__version__ and attrs["vcinr_bound"] == "absolute"
    assert attrs["vcinr_bound_value"] == 0.1 and 0 < attrs["vcinr_max_abs_error"] <= 0.1
    history = vcinr.open(tmp_path / "a.zarr").attrs["history"].split("\n")
    assert history[0] == "2000-01-01 made" and "ta within 0.1 of the input, lossy" in history[1]
    assert "pr" in facts["kept"] and "ocean/deep/salt" in facts["kept"] and list(facts["variables"]) == ["ta"]


def test_decoded_data_sets_and_trees_too(file, tmp_path):
    """What a user has in memory: times as dates, values unpacked, groups as a DataTree."""
    tree = xr.DataTree.from_dict(
        {"/": xr.open_dataset(file).drop_vars("code"), "/sub": xr.Dataset({"v": ("t", np.arange(3.0))})}
    )
    vcinr.compress(tree, tmp_path / "a.zarr", abs_error=BOUND)
    back = vcinr.open(tmp_path / "a.zarr")
    assert np.array_equal(back["time"], tree["time"]) and np.array_equal(back["station_name"], tree["station_name"])
    assert float(np.abs(back["pr"] - tree["pr"]).max()) <= BOUND and set(back.coords) >= {"lat", "lon", "time"}
    assert np.array_equal(vcinr.open(tmp_path / "a.zarr", group="sub")["v"], [0, 1, 2])
    assert vcinr.verify(tmp_path / "a.zarr", tree)[0] == []


def test_names_that_cannot_be_stored(tmp_path):
    v = xr.Variable("x", np.zeros(3))
    for groups in ({"vcinr": xr.Dataset({"v": v})}, {"": xr.Dataset({"vcinr": v})}, {"a/..": xr.Dataset({"v": v})},
                   {"": xr.Dataset({"..": v})}, {"__a": xr.Dataset({"v": v})}):  # fmt: skip
        with pytest.raises(InputError, match="rename"):
            vcinr.compress(groups, tmp_path / "a.zarr", abs_error=1.0)
    with pytest.raises(InputError, match="attribute 'odd' of variable 'v'"):
        vcinr.compress(
            xr.Dataset({"v": (("x", "y"), np.zeros((3, 3)), {"odd": {1, 2}})}), tmp_path / "a.zarr", abs_error=1.0
        )
    assert list(tmp_path.iterdir()) == []
