"""Scattered points: their order and neighbours, the residual coder, and archives of meshes from end to end."""

import contextlib
import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import vcinr
from vcinr.archive import positions
from vcinr.archive.positions import Place, locate, names_of
from vcinr.archive.sharding import VcinrSharding
from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Field
from vcinr.coding import residual
from vcinr.coding.neighbours import KINDS, NEAREST, SCALE_BITS, Positions, find_neighbours, on_sphere
from vcinr.coding.residual import Plan
from vcinr.errors import CorruptError, InputError

PLAN = Plan("nearest")
RNG = np.random.default_rng(0)


def scattered(count, seed=0):
    rng = np.random.default_rng(seed)
    return np.degrees(np.arcsin(rng.uniform(-1, 1, count))), rng.uniform(-180, 180, count)


def waves(latitude, longitude, times=1):
    a, b = np.radians(latitude), np.radians(longitude)
    return np.stack([10 * np.sin(3 * a + 0.1 * t) * np.cos(2 * b) + 0.02 * np.sin(40 * b) for t in range(times)])


# --- order and neighbours


@st.composite
def clouds(draw):
    """Positions of few or many points, on spheres, planes and lines, some of which coincide."""
    count, seed = draw(st.integers(0, 60)), draw(st.integers(0, 2**32))
    rng = np.random.default_rng(seed)
    reach = draw(st.sampled_from([2, 50, 1 << SCALE_BITS]))
    points = rng.integers(-reach, reach, (count, 3), endpoint=True)
    points[:, draw(st.integers(1, 3)) :] = draw(st.sampled_from([0, reach]))
    if count and draw(st.booleans()):
        points = points[rng.integers(0, count, count)]
    return points.astype(np.int32)


@settings(max_examples=200, deadline=None)
@given(clouds())
def test_neighbours_are_the_nearest_placed_points(points):
    found, exact = find_neighbours(points), points.astype(object)
    assert sorted(found.order) == list(range(len(points)))
    for rank, index in enumerate(found.order):
        placed = found.order[:rank]
        away = sum((exact[placed] - exact[index]).T ** 2) if rank else np.zeros(0)
        if found.kind[rank] == KINDS:  # the points at its own spot, the last one first
            here = placed[away == 0][::-1][:NEAREST]
            assert found.near[rank].tolist() == [*here, *[here[-1]] * (NEAREST - len(here))]
            assert found.weight[rank].tolist() == [1.0] + [0.0] * (NEAREST - 1) and found.squared[rank] == 0
        elif rank:
            nearest = placed[np.lexsort((placed, away))][:NEAREST]
            assert found.near[rank].tolist() == [*nearest, *[nearest[-1]] * (NEAREST - len(nearest))]
            assert found.squared[rank] == float(min(away)) > 0
            assert abs(found.weight[rank].sum() - 1) < 1e-9 and not found.weight[rank, len(nearest) :].any()
    kinds = found.kind[found.kind < KINDS]
    assert (np.diff(kinds.astype(int)) <= 0).all() and (found.kind[len(kinds) :] == KINDS).all()
    alone = len({tuple(p) for p in points.tolist()})
    assert len(kinds) == alone and [int((kinds == k).sum()) for k in range(1)] == [alone - alone // 2]


def test_points_are_placed_from_coarse_to_fine():
    found = find_neighbours(on_sphere(*scattered(3000)).points)
    assert (found.squared[2:] < 1.2 * np.maximum.accumulate(found.squared[::-1])[::-1][1:-1] + 1).all()
    assert (found.squared[2:] <= 1.25 * np.minimum.accumulate(found.squared[1:])[:-1]).all()


def test_a_plane_is_predicted_exactly_in_the_midst_of_points():
    y, x = np.mgrid[-20:21, -20:21]
    points = np.stack([x.ravel(), y.ravel(), 0 * x.ravel()], 1).astype(np.int32) * 1000
    found, values = find_neighbours(points), 3.0 + 2 * x.ravel() - y.ravel()
    errors = [
        abs((found.weight[r] * values[found.near[r]]).sum() - values[i])
        for r, i in enumerate(found.order) if r > 800 and max(abs(x.ravel()[i]), abs(y.ravel()[i])) < 15
    ]  # fmt: skip
    assert len(errors) > 300 and max(errors) < 0.15  # but for the ridge


def test_sines_and_cosines_are_exact_to_a_rounding():
    latitude, longitude = scattered(5000)
    longitude = np.concatenate([longitude[:2500], longitude[2500:] + 360])
    points = on_sphere(latitude, longitude).points
    a, b = np.radians(latitude), np.radians(longitude)
    exact = np.stack([np.cos(a) * np.cos(b), np.cos(a) * np.sin(b), np.sin(a)], 1) * 2**SCALE_BITS
    assert np.abs(points - exact).max() < 0.51
    again = on_sphere(a, b, radians=True).points
    assert np.abs(again - exact).max() < 1.51
    corners = on_sphere(np.array([90.0, -90, 0, 0, 0, 0]), np.array([7.0, 7, 0, 90, 180, -90])).points
    one = 1 << SCALE_BITS
    assert corners.tolist() == [[0, 0, one], [0, 0, -one], [one, 0, 0], [0, one, 0], [-one, 0, 0], [0, -one, 0]]


def test_places_that_are_missing_lie_at_the_centre():
    points = on_sphere(np.array([np.nan, -9999, 10, 10, 1e20]), np.array([0, -9999, np.inf, 1e20, 0])).points
    assert not points.any()


def test_the_same_positions_have_the_same_neighbours_on_every_machine():
    """Their digest was taken on x86-64 in November 2026."""
    places = on_sphere(*(np.round(v, 3) for v in scattered(2000, 1)))
    found = places.neighbours
    assert places.neighbours is found  # remembered
    digest = hashlib.sha256()
    for array in (places.points, found.order, found.near, found.weight, found.kind, found.squared):
        digest.update(array.tobytes())
    assert digest.hexdigest() == DIGEST


DIGEST = "3515c6587a8148f355c94763a43d21f72ec5fec635698029d4714a0184900d37"


# --- the residual coder


def coded(values, step, plan, valid, places):
    data, recon = residual.encode(values, step, plan, valid, places)
    back = residual.decode(data, values.shape, step, plan, valid, places)
    assert (back == recon).all()  # to the last bit
    where = slice(None) if valid is None else valid
    assert np.abs(recon - values)[where].max(initial=0) <= 0.5 * step + 1e-12 * np.abs(values).max(initial=0)
    return data


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_residual_holds_its_step_and_decodes_identically(data):
    points = data.draw(clouds())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    times, levels = data.draw(st.tuples(st.integers(1, 4), st.integers(1, 3)))
    count = len(points)
    shapes = [(times, levels, 1, count), (1, times, levels, count), (1, 1, levels, count)]
    if count % 2 == 0:
        shapes.append((times, levels, 2, count // 2))
    shape = data.draw(st.sampled_from(shapes))
    values = rng.standard_normal(shape).cumsum(-1) * 10 ** data.draw(st.integers(-3, 3))
    mask = data.draw(st.sampled_from([None, "some", "points", "all"]))
    valid = None if mask is None else rng.random(shape) < 0.6
    if mask == "points":
        valid = np.broadcast_to(rng.random(shape[-2:]) < 0.6, shape).copy()
    if mask == "all":
        valid = np.zeros(shape, bool)
    plan = replace(
        PLAN,
        temporal=data.draw(st.booleans()),
        tighten=data.draw(st.sampled_from([0, 1, 4, 15])),
        brief=data.draw(st.booleans()),
    )
    coded(values, 10 ** data.draw(st.floats(-8, 2)), plan, valid, Positions(points))


def test_smooth_fields_take_few_bytes_and_masked_points_none():
    latitude, longitude = scattered(4000)
    places, values = on_sphere(latitude, longitude), waves(latitude, longitude, 3)[:, None, None]
    whole = coded(values, 0.05, PLAN, None, places)
    assert 8 * len(whole) < 2.5 * values.size
    in_rows = residual.encode(values, 0.05, Plan("adaptive"))[0]
    assert len(whole) < 0.5 * len(in_rows)
    land = np.broadcast_to(latitude < 0, values.shape)
    sea = coded(values, 0.05, PLAN, ~land, places)
    assert len(sea) < 0.65 * len(whole)
    garbage = np.where(land, 1e6 * RNG.standard_normal(values.shape), values)
    assert residual.encode(garbage, 0.05, PLAN, ~land, places)[0] == sea


def test_reports_of_one_station_predict_each_other():
    stations = scattered(20)
    latitude, longitude = (np.repeat(v, 100) for v in stations)
    values = np.repeat(50 * RNG.standard_normal(20), 100) + np.tile(np.sin(np.arange(100) / 10), 20)
    data = coded(values[None, None, None], 0.05, PLAN, None, on_sphere(latitude, longitude))
    assert 8 * len(data) < 2.6 * values.size


def test_damaged_streams_are_errors():
    places, values = on_sphere(*scattered(300)), RNG.standard_normal((2, 1, 1, 300))
    data, _ = residual.encode(values, 1e-3, PLAN, None, places)
    for wrong in (data[:-5], data + bytes(5)):
        with pytest.raises(CorruptError, match="does not end"):
            residual.decode(wrong, values.shape, 1e-3, PLAN, None, places)
    for wrong in (b"", bytes([64]) + data[1:], bytes([255]) + data[1:]):
        with pytest.raises(CorruptError, match="choices"):
            residual.decode(wrong, values.shape, 1e-3, PLAN, None, places)
    with pytest.raises(CorruptError, match="positions"):
        residual.decode(data, values.shape, 1e-3, PLAN)
    with pytest.raises(CorruptError, match="300 positions"):
        residual.decode(data, (2, 1, 1, 299), 1e-3, PLAN, None, places)
    with pytest.raises(OverflowError):
        residual.encode(values * 1e30, 1e-3, PLAN, None, places)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_our_errors_only(data):
    places = on_sphere(*scattered(40))
    with contextlib.suppress(CorruptError):
        residual.decode(data, (2, 1, 1, 40), 1e300, PLAN, None, places)


# --- chunks


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i2", "u1"])
@pytest.mark.parametrize("effort", ["best", "fast"])
def test_chunks_keep_their_bound(dtype, effort):
    latitude, longitude = scattered(1500)
    values = (100 + 9 * waves(latitude, longitude, 2)).astype(dtype)
    if values.dtype.kind == "f":
        values[0, 7], values[1, ::5], values[1, 3] = np.nan, np.nan, np.inf
    field = Field("v", (1,), positions=on_sphere(latitude, longitude))
    bound = Bound("absolute", 2.0)
    found = encode(values, field, bound, effort=effort)
    back = decode(found.data, values.shape, values.dtype, field)
    valid = np.isfinite(values.astype("f8"))
    assert np.abs(back[valid].astype("f8") - values[valid].astype("f8")).max() <= 2.0
    assert back[~valid].tobytes() == values[~valid].tobytes()
    without = encode(values, Field("v", (1,)), bound, effort=effort)
    assert len(found.data) < 0.7 * len(without.data)
    for kind, value in (("relative", 1e-2), ("psnr", 40.0), ("rate", 4.0)):
        encode(values, field, Bound(kind, value, 200.0), effort=effort)


def test_a_chunk_of_other_positions_is_an_error():
    latitude, longitude = scattered(500)
    values = waves(latitude, longitude)
    field = Field("v", (1,), positions=on_sphere(latitude, longitude))
    data = encode(values, field, 0.1).data
    for other in (None, on_sphere(latitude, longitude + 1e-5)):
        with pytest.raises(CorruptError, match="checksum"):
            decode(data, values.shape, values.dtype, Field("v", (1,), positions=other))


# --- finding positions


def mesh_file(count=600, times=2):
    """A UGRID file of nodes and faces."""
    latitude, longitude = scattered(count)
    faces = RNG.integers(0, count, (2 * count, 3))
    middle = [np.mean(v[faces], 1) for v in (latitude, longitude)]
    said = {"mesh": "mesh", "location": "node"}
    return xr.Dataset(
        {
            "mesh": ((), np.int32(0), {
                "cf_role": "mesh_topology", "topology_dimension": 2, "node_coordinates": "node_lon node_lat",
                "face_node_connectivity": "faces", "face_coordinates": "face_x face_y"}),
            "faces": (("face", "three"), faces.astype("i4"), {"cf_role": "face_node_connectivity"}),
            "node_lat": ("node", latitude, {"standard_name": "latitude", "units": "degrees_north"}),
            "node_lon": ("node", longitude, {"standard_name": "longitude", "units": "degrees_east"}),
            "face_x": ("face", middle[1], {"standard_name": "longitude"}),
            "face_y": ("face", middle[0], {"standard_name": "latitude"}),
            "depth": ("node", waves(latitude, longitude)[0].astype("f4"), said),
            "temperature": (("time", "node", "layer"), np.stack(
                [waves(latitude, longitude, times), waves(latitude, longitude + 3, times)], -1).astype("f4"), said),
            "speed": (("time", "face"), waves(*middle, times).astype("f4"), {**said, "location": "face"}),
            "edge": (("time", "edges"), np.zeros((times, 9), "f4"), {**said, "location": "edge"}),
        },
        {"time": np.arange(float(times))},
    )  # fmt: skip


def curvilinear(names=("nav_lat", "nav_lon"), unit="degrees"):
    y, x = np.mgrid[0:30, 0:40]
    latitude, longitude = 20 + y + 0.2 * np.sin(x / 7), 5 * np.sin(y / 9) + x * 1.3
    values = waves(latitude, longitude, 3)
    values[:, latitude < 25] = np.nan
    north, east = (
        ({"units": f"{unit}_north"}, {"units": f"{unit}_east"}) if unit == "degrees" else ({"units": unit},) * 2
    )
    factor = 1.0 if unit == "degrees" else np.pi / 180
    return xr.Dataset(
        {
            "tos": (("time", "y", "x"), values, {"coordinates": " ".join(names), "_FillValue": np.nan}),
            names[0]: (("y", "x"), factor * latitude, north),
            names[1]: (("y", "x"), factor * longitude, east),
        }
    )


def found(data, name):
    return names_of({"": data}, name)


def test_positions_are_found_by_convention():
    mesh = mesh_file()
    assert found(mesh, "depth") == found(mesh, "temperature") == ("node_lat", "node_lon")
    assert found(mesh, "speed") == ("face_y", "face_x")
    assert found(mesh, "edge") is None
    for names in (("nav_lat", "nav_lon"), ("TLAT", "TLONG"), ("lat", "lon"), ("grid_center_lat", "grid_center_lon")):
        grid = curvilinear(names)
        assert found(grid, "tos") == names
        del grid["tos"].attrs["coordinates"]
        assert found(grid, "tos") == names
        for name in names:  # by their names alone
            grid[name].attrs.clear()
        assert found(grid, "tos") == names
    rows = xr.Dataset({n: ("obs", np.arange(9.0)) for n in ("lat", "lon", "time", "altitude", "T")})
    rows["T"].attrs["coordinates"] = "time lat lon altitude"
    assert found(rows, "T") == ("lat", "lon")
    clat = curvilinear(("clat", "clon"), "radian")
    located = locate({"": clat}, "tos")
    assert located is not None and located.place.radians and located.dims == ("y", "x")
    degrees = locate({"": curvilinear()}, "tos")
    assert degrees is not None
    assert np.abs(located.positions.points.astype(int) - degrees.positions.points).max() <= 2


def test_what_are_no_positions():
    regular = xr.Dataset({"v": (("lat", "lon"), np.zeros((4, 5)))}, {"lat": np.arange(4.0), "lon": np.arange(5.0)})
    assert found(regular, "v") is None
    packed = curvilinear()
    packed["nav_lat"].attrs["scale_factor"] = 0.1
    assert found(packed, "tos") is None
    integers = curvilinear()
    integers["nav_lat"] = integers["nav_lat"].astype("i2")
    assert found(integers, "tos") is None
    assert found(curvilinear().rename(x="z").rename(nav_lat="a", nav_lon="b").drop_attrs(), "tos") is None
    other = curvilinear()
    other["tos"] = other["tos"].transpose("y", "x", "time")
    assert found(other, "tos") is None
    other["tos"].attrs["coordinates"] = "depth"
    assert found(other, "tos") is None


# --- archives


def run(*arguments):
    """The output of a process of Python, which must succeed."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("kind", ["mesh", "curvilinear"])
def test_from_file_to_file(kind, tmp_path):
    data = mesh_file() if kind == "mesh" else curvilinear()
    source, target = tmp_path / "in.nc", tmp_path / "out.zarr"
    data.to_netcdf(source)
    run("-m", "vcinr.cli", "compress", source, target, "--rel-error", "0.01")
    names = ["depth", "temperature", "speed"] if kind == "mesh" else ["tos"]
    root = zarr.open_group(target, mode="r")
    for name in names:
        assert root[name].metadata.codecs[0].positions is not None
        assert "vcinr_bytes" in root[name].attrs, name
    for name in ("node_lat", "node_lon", "face_x") if kind == "mesh" else ("nav_lat", "nav_lon"):
        assert "vcinr_bytes" not in root[name].attrs
        assert np.asarray(root[name][...]).tobytes() == data[name].values.tobytes()
    run("-m", "vcinr.cli", "verify", target, "--against", source)
    run("-m", "vcinr.cli", "decompress", target, tmp_path / "back.nc")
    with xr.open_dataset(tmp_path / "back.nc") as back, xr.open_dataset(source) as original:
        for name in names:
            spread = float(original[name].max() - original[name].min())
            error = np.abs(back[name].values.astype("f8") - original[name].values)
            assert np.nanmax(error) <= 0.01 * spread and np.array_equal(back[name].isnull(), original[name].isnull())
    # another process, which knows nothing but the archive and has none of the heavy parts
    script = (
        "import sys, xarray\n"
        f"data = xarray.open_zarr({str(target)!r})\n"
        f"print([float(data[n].sum()) for n in {names!r}])\n"
        "assert not {'torch', 'vcinr.codec.search', 'vcinr.archive.plan', 'vcinr.training'} & set(sys.modules)"
    )
    printed = run("-c", script)
    with xr.open_zarr(target) as opened:
        assert printed.strip() == str([float(opened[n].sum()) for n in names])


def test_variables_of_a_group_take_the_positions_of_an_outer_one(tmp_path):
    mesh = mesh_file()
    outer = mesh[["node_lat", "node_lon", "mesh"]]
    vcinr.compress({"": outer, "inner": mesh[["temperature"]]}, tmp_path / "a.zarr", rel_error=0.01)
    positions._KNOWN.clear()
    back = xr.open_zarr(tmp_path / "a.zarr", group="inner")["temperature"].values
    assert np.abs(back - mesh["temperature"].values).max() <= 0.01 * np.ptp(mesh["temperature"].values)


def test_a_group_whose_dimensions_are_others_has_no_positions(tmp_path):
    mesh = mesh_file()
    inner = xr.Dataset({"v": (("time", "node"), waves(*scattered(50), 2))})
    groups = {"": mesh.drop_vars("mesh"), "inner": inner}
    assert names_of(groups, "inner/v") is None
    nearer = inner.assign(node_lat=("node", np.arange(50.0)), node_lon=("node", np.arange(50.0)))
    groups = {"": mesh, "inner": nearer, "inner/same": mesh[["temperature"]]}
    assert names_of(groups, "inner/v") == ("inner/node_lat", "inner/node_lon")
    assert names_of(groups, "inner/same/temperature") == ("node_lat", "node_lon")
    vcinr.compress(groups, tmp_path / "a.zarr", rel_error=0.01)
    positions._KNOWN.clear()
    assert not vcinr.verify(tmp_path / "a.zarr", groups)[0]


def test_damaged_and_missing_positions_are_one_error(tmp_path):
    whole = tmp_path / "whole.zarr"
    vcinr.compress(curvilinear(), whole, rel_error=0.01)

    def error(change):
        broken = tmp_path / "broken.zarr"
        shutil.rmtree(broken, ignore_errors=True)
        shutil.copytree(whole, broken)
        change(broken)
        positions._KNOWN.clear()
        with pytest.raises(CorruptError) as raised:
            np.asarray(zarr.open_group(broken, mode="r")["tos"][...])
        assert vcinr.verify(broken)[0]
        assert "\n" not in str(raised.value)
        return str(raised.value)

    def flip(broken):
        chunk = next(p for p in (broken / "nav_lat/c").rglob("*") if p.is_file())
        data = bytearray(chunk.read_bytes())
        data[-3] ^= 1
        chunk.write_bytes(bytes(data))

    def swap(broken):
        for name in ("nav_lat", "nav_lon"):
            (broken / name).rename(broken / f"{name}_")
        (broken / "nav_lat_").rename(broken / "nav_lon")
        (broken / "nav_lon_").rename(broken / "nav_lat")

    assert "'nav_lat' and 'nav_lon'" in (text := error(flip)) and "cannot be read" in text and "tos/c" in text
    assert "not in this archive" in error(lambda broken: shutil.rmtree(broken / "nav_lon"))
    swapped = error(swap)
    assert "checksum" in swapped or "not those that it was written with" in swapped


def test_chunks_that_need_no_positions_are_read_without(tmp_path):
    data = curvilinear()
    data["tos"] = data["tos"].dims, np.full(data["tos"].shape, 3.0) + 0.1 * (np.arange(40) > 20), data["tos"].attrs
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=1.0)
    assert zarr.open_group(tmp_path / "a.zarr", mode="r")["tos"].metadata.codecs[0].positions is not None
    shutil.rmtree(tmp_path / "a.zarr/nav_lat")
    positions._KNOWN.clear()
    back = np.asarray(zarr.open_group(tmp_path / "a.zarr", mode="r")["tos"][...])
    assert np.abs(back - data["tos"].values).max() <= 1


def test_positions_that_are_compressed_themselves_are_not_relied_on(tmp_path):
    data = curvilinear()
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1, variables=["tos", "nav_lat"])
    assert zarr.open_group(tmp_path / "a.zarr", mode="r")["tos"].metadata.codecs[0].positions is None
    assert not vcinr.verify(tmp_path / "a.zarr", data)[0]


def test_plain_zarr_and_shards_find_the_positions(tmp_path):
    data = curvilinear()
    vcinr.compress(data, tmp_path / "a.zarr", rel_error=0.01)
    root = zarr.open_group(tmp_path / "a.zarr", mode="r+")
    codec = root["tos"].metadata.codecs[0]
    shape = root["tos"].shape
    sharded = root.create_array(
        "sharded", shape=shape, chunks=shape, dtype="f8", compressors=None, filters=None,
        serializer=VcinrSharding(chunk_shape=(1, *shape[1:]), codecs=[codec]),
    )  # fmt: skip
    sharded[...] = data["tos"].values
    positions._KNOWN.clear()
    back = np.asarray(zarr.open_group(tmp_path / "a.zarr", mode="r", use_consolidated=False)["sharded"][...])
    assert np.nanmax(np.abs(back - data["tos"].values)) <= codec.bound[1]
    positions._KNOWN.clear()
    with pytest.raises(InputError, match="register"):
        sharded[...] = data["tos"].values


def test_a_configuration_that_names_no_positions_is_an_error():
    good = Place("lat", "lon", True, "0" * 64)
    assert Place.from_dict(good.to_dict()) == good
    codec = VcinrCodec(variable="v", positions=good)
    assert VcinrCodec.from_dict(codec.to_dict()) == codec
    for wrong in (1, [], {}, {**good.to_dict(), "unit": "furlong"}, {**good.to_dict(), "latitude": "../lat"}):
        with pytest.raises(CorruptError, match="positions"):
            Place.from_dict(wrong)
    with pytest.raises(CorruptError, match="number of points"):
        codec.field((2, 3, 4), None, on_sphere(np.zeros(5), np.zeros(5)))


def test_a_mesh_that_is_too_large_for_a_chunk_is_cut_as_before(tmp_path, monkeypatch):
    for module in ("plan", "jobs"):
        monkeypatch.setattr(f"vcinr.archive.{module}.CHUNK_VALUES", 500)
    vcinr.compress(mesh_file(), tmp_path / "a.zarr", rel_error=0.01, variables=["temperature"])
    array = zarr.open_group(tmp_path / "a.zarr", mode="r")["temperature"]
    assert array.metadata.codecs[0].positions is None and array.chunks[1] < 600


def test_a_store_in_memory_needs_the_positions_registered():
    latitude, longitude = scattered(50)
    there = on_sphere(latitude, longitude)
    codec = VcinrCodec(
        variable="v", signal_axes=(1,), bound=("absolute", 0.1), positions=Place("a", "b", False, there.sha256)
    )
    array = zarr.create_array(
        MemoryStore(), shape=(2, 50), chunks=(2, 50), dtype="f8", serializer=codec, compressors=None, filters=None
    )
    positions._KNOWN.clear()
    with pytest.raises(InputError, match="'a' and 'b'"):
        array[...] = waves(latitude, longitude, 2)
    positions.register(there)
    array[...] = waves(latitude, longitude, 2)
    assert np.abs(np.asarray(array[...]) - waves(latitude, longitude, 2)).max() <= 0.1
