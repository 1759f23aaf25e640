"""Values between the samples of an archive: at places and on other grids."""

import io

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import vcinr
from tests.test_cli import run
from tests.test_features import SMALL, winds
from vcinr.codec.at import locate
from vcinr.config import parse
from vcinr.errors import InputError
from vcinr.signals import Grid
from vcinr.training import train

LAT, LON = np.linspace(-80, 80, 33), np.arange(0.0, 360.0, 7.5)


def globe(times: int, lat: np.ndarray, lon: np.ndarray, seed: int = 0, noise: float = 0.0) -> xr.Dataset:
    """Smooth maps of the whole globe, whose truth is known everywhere: the same fields on any grid."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.deg2rad(lat), np.deg2rad(lon), indexing="ij")
    parts = [np.sin(y), np.cos(y) * np.cos(x), np.cos(y) ** 2 * np.sin(2 * x), np.cos(y) ** 4 * np.cos(4 * x + 1)]
    maps = sum(rng.standard_normal((times, 1, 1)) * 8 * p for p in parts) + 280
    maps = maps + noise * np.random.default_rng(seed + 1).standard_normal(maps.shape)
    coords = {"time": np.arange(float(times)), "lat": lat, "lon": lon}
    data = xr.Dataset({"t": (("time", "lat", "lon"), maps, {"units": "K"})}, coords)
    data["time"].attrs["units"] = "days since 2000-01-01"
    return data


@pytest.fixture(scope="module")
def globe_model(tmp_path_factory):
    out = tmp_path_factory.mktemp("globe") / "t.vcinr"
    smooth = SMALL | {"inr": SMALL["inr"] | {"omega_0": 5.0}}
    train(globe(60, LAT, LON), out, variables=["t"], params=parse(smooth, "test"))
    return out


def test_interpolation_is_xarrays(tmp_path):
    """Without a model values are interpolated linearly, as xarray does it with the decompressed archive."""
    data = globe(6, LAT, LON, noise=1.0)
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1, chunk=4)
    rng = np.random.default_rng(0)
    lat, lon = rng.uniform(-80, 80, 40), rng.uniform(0, 352.5, 40)
    found = vcinr.at(tmp_path / "a.zarr", {"lat": lat, "lon": lon})
    stored = vcinr.open(tmp_path / "a.zarr")["t"]
    wanted = stored.interp(lat=xr.DataArray(lat, dims="point"), lon=xr.DataArray(lon, dims="point"))
    assert found["t"].dims == ("time", "point") and found["t"].attrs == {"units": "K"}
    assert np.allclose(found["t"], wanted, rtol=0, atol=1e-9)
    assert (found["time"].values == stored["time"].values).all() and np.array_equal(found["lat"], lat)
    # At the samples themselves it is what was stored, and what was stored is within the bound.
    corner = vcinr.at(tmp_path / "a.zarr", {"lat": -80.0, "lon": 7.5})
    assert corner["t"].dims == ("time",)
    assert np.allclose(corner["t"], stored.sel(lat=-80, lon=7.5), rtol=0, atol=1e-12)
    # One dimension alone: along time, all maps.
    between = vcinr.at(tmp_path / "a.zarr", {"time": 2.25})["t"]
    assert np.allclose(between, 0.75 * stored[2].values + 0.25 * stored[3].values) and between.dims == ("lat", "lon")


def test_longitudes_close_round_the_globe(tmp_path):
    data = globe(3, LAT[::-1], LON)
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.01)
    found = vcinr.at(tmp_path / "a.zarr", {"latitude": [10.0, 10.0, 10.0], "longitude": [356.25, -3.75, 716.25]})["t"]
    value = found.values
    assert np.allclose(value, value[:, :1]) and value.std(0).min() > 0.1
    near = vcinr.open(tmp_path / "a.zarr")["t"].sel(lat=10)
    assert np.allclose(value[:, 0], 0.5 * (near.sel(lon=352.5) + near.sel(lon=0.0)))
    pole = vcinr.at(tmp_path / "a.zarr", {"lat": 82.0, "lon": 0.0})["t"]  # half a step beyond the last latitude
    assert np.allclose(pole, vcinr.open(tmp_path / "a.zarr")["t"].sel(lat=80, lon=0))
    with pytest.raises(InputError, match=r"lat = 83 is outside the grid, -80 to 80"):
        vcinr.at(tmp_path / "a.zarr", {"lat": 83.0, "lon": 0.0})
    region = data.isel(lon=slice(0, 10))
    vcinr.compress(region, tmp_path / "b.zarr", abs_error=0.01)
    with pytest.raises(InputError, match="lon = -60 is outside"):
        vcinr.at(tmp_path / "b.zarr", {"lat": 0.0, "lon": 300.0})
    turned = vcinr.at(tmp_path / "b.zarr", {"lat": 0.0, "lon": [30.0, 390.0, -330.0, -2.0]})["t"]
    assert np.array_equal(turned[:, 0], turned[:, 1]) and np.array_equal(turned[:, 0], turned[:, 2])


@pytest.mark.parametrize(("bound", "share"), [(0.5, 0.98), (0.02, 0.1)])
def test_a_model_knows_more_than_its_grid(globe_model, tmp_path, bound, share):
    """Trained and stored at half the resolution, judged at all of it: nearer the truth than interpolation."""
    model = vcinr.load_model(globe_model)
    fine_lat, fine_lon = np.linspace(-80, 80, 65), np.arange(0.0, 360.0, 3.75)
    truth = globe(12, fine_lat, fine_lon, seed=7)
    coarse = truth.isel(lat=slice(None, None, 2), lon=slice(None, None, 2))
    vcinr.compress(coarse, tmp_path / "a.zarr", model=model, abs_error=bound, chunk=5)
    found, truth = vcinr.regrid(tmp_path / "a.zarr", truth), xr.decode_cf(truth)
    assert found["t"].dims == ("time", "lat", "lon") and found["t"].shape == truth["t"].shape
    error = np.abs(found["t"] - truth["t"])
    plain = vcinr.open(tmp_path / "a.zarr")["t"].interp(lat=fine_lat, lon=fine_lon[:-1])
    linear = np.abs(plain - truth["t"].isel(lon=slice(None, -1)))
    assert float((error**2).mean()) < share * float((linear**2).mean())
    assert float(error.isel(lat=slice(None, None, 2), lon=slice(None, None, 2)).max()) <= bound + 1e-9
    assert float((error <= found["t_uncertainty"]).mean()) > 0.95
    assert found["t_uncertainty"].attrs["units"] == "K"


def test_features_and_missing_values(tmp_path):
    """A model of two components, and points round a hole, which have no value."""
    data, small = winds(8, seed=5), parse(SMALL, "test")
    model = train(winds(), tmp_path / "w.vcinr", variables=["wind"], feature_dim="component", params=small)
    data["wind"][:, 1, 4, 5] = np.nan
    vcinr.compress(data, tmp_path / "a.zarr", model=model, abs_error=0.1, chunk=3)
    lat = 0.5 * (data.lat.values[4] + data.lat.values[5])
    found = vcinr.at(tmp_path / "a.zarr", {"lat": lat, "lon": data.lon.values[[5, 9]]})["wind"]
    assert found.dims == ("time", "component", "point") and list(found["component"].values) == ["u", "v"]
    assert np.isnan(found[:, 1, 0]).all() and np.isfinite(found[:, 0]).all() and np.isfinite(found[:, 1, 1]).all()
    stored = vcinr.open(tmp_path / "a.zarr")["wind"]
    exact = vcinr.at(tmp_path / "a.zarr", {"lat": data.lat.values, "lon": data.lon.values[:14]})["wind"]
    points = stored.values[:, :, np.arange(14), np.arange(14)]
    assert np.allclose(exact, points, atol=1e-4, equal_nan=True)
    with pytest.raises(InputError, match="predicted by a model of signals over lat, lon"):
        vcinr.at(tmp_path / "a.zarr", {"lat": 40.0})


def test_packed_values_are_in_their_units(tmp_path):
    data = globe(4, LAT, LON)
    packed = np.round((data["t"] - 280) / 0.01).astype("i2")
    packed.attrs = {"scale_factor": 0.01, "add_offset": 280.0, "_FillValue": np.int16(-32768), "units": "K"}
    packed[:, 0, 0] = -32768
    vcinr.compress(xr.Dataset({"t": packed}), tmp_path / "a.zip", variables=["t"], abs_error=0.05)
    found = vcinr.at(tmp_path / "a.zip", {"lat": [0.0, -80.0], "lon": [7.5, 0.0]})
    assert np.allclose(found["t"][:, 0], data["t"].sel(lat=0, lon=7.5), atol=0.06)
    assert np.isnan(found["t"][:, 1]).all() and float(found["t_uncertainty"][0, 0]) < 0.06
    assert set(found["t"].attrs) == {"units"}


def test_the_command_line(globe_model, tmp_path):
    globe(3, LAT, LON).to_netcdf(tmp_path / "in.nc")
    run("compress", tmp_path / "in.nc", tmp_path / "a.zarr", "--model", globe_model, "--abs-error", 0.1)
    done = run("at", tmp_path / "a.zarr", "--lat", 51.5, "--lon", -0.1)
    table = pd.read_csv(io.StringIO(done.stdout))
    assert list(table["time"]) == ["2000-01-01", "2000-01-02", "2000-01-03"] and (table["t_uncertainty"] > 0).all()
    globe(1, LAT[::2], LON[::2]).to_netcdf(tmp_path / "like.nc")
    run("regrid", tmp_path / "a.zarr", tmp_path / "out.nc", "--like", tmp_path / "like.nc")
    with xr.open_dataset(tmp_path / "out.nc") as found, xr.open_dataset(tmp_path / "in.nc") as data:
        assert np.allclose(found["t"], data["t"][:, ::2, ::2], atol=0.1 + 1e-6)
    failed = run("at", tmp_path / "a.zarr", "--lat", 51.5, "--at", "lon", fails=True)
    assert failed.stderr == "vcinr: --at lon: give a dimension and a number, for example level=500\n"
    origin = {"lat": 0.0, "lon": 0.0}
    for places, variables, message in (
        ({"height": 3.0}, None, "no variable has the dimensions height"),
        ({}, None, "give the places"),
        ({"lat": [[0.0]], "lon": 0.0}, None, "sequences of one length"),
        (origin, ["q"], "variable 'q' is not in the archive"),
        (origin, ["time"], "variable 'time' has the dimensions time, not lat, lon"),
    ):
        with pytest.raises(InputError, match=message):
            vcinr.at(tmp_path / "a.zarr", places, variables=variables)


def test_only_the_chunks_around_are_read(tmp_path, monkeypatch):
    data = globe(8, LAT, LON)
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1, chunk=2)
    from vcinr.archive import zarr_codec

    decoded, original = [], zarr_codec.decode
    monkeypatch.setattr(zarr_codec, "decode", lambda *a, **k: decoded.append(a[1]) or original(*a, **k))
    vcinr.at(tmp_path / "a.zarr", {"time": 2.5, "lat": 0.0, "lon": 0.0})
    assert len([shape for shape in decoded if len(shape) == 3]) == 1


def test_places_on_grids_of_any_kind():
    grid = Grid((np.array([3.0, 2.0, 0.0]), np.array([5.0])))
    found = locate(grid, [np.array([0.0, 1.0, 3.5]), np.full(3, 5.0)], ("y", "x"), (None, None))
    around = [np.bincount(c, w, 3).tolist() for c, w in zip(found.corners, found.weights, strict=True)]
    assert around == [[0, 0, 1], [0, 0.5, 0.5], [1, 0, 0]]
    with pytest.raises(InputError, match="neither rises nor falls"):
        locate(Grid((np.array([0.0, 2.0, 1.0]),)), [np.zeros(1)], ("n",), (None,))
    with pytest.raises(InputError, match="x = 6 is outside"):
        locate(grid, [np.zeros(1), np.full(1, 6.0)], ("y", "x"), (None, None))
