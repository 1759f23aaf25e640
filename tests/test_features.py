"""Signals whose points have several features: from data through training and codec to archives and back."""

import json

import numpy as np
import pytest
import xarray as xr
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vcinr
from tests.golden.reference import decoder
from tests.test_cli import run
from vcinr.codec import prior
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.latents import Latents, latents_of
from vcinr.codec.promise import Bound, Field, errors_of, valid_values
from vcinr.config import Selection, Source, Tiling, parse
from vcinr.datasets.ingest import ingest
from vcinr.errors import CorruptError, InputError, ModelError
from vcinr.inr.model import load_model
from vcinr.signals import Grid, Points, coordinates, layout_of, read_signals
from vcinr.training import train

SMALL = {
    "inr": {"width": 32, "depth": 3, "latent": 6},
    "meta": {"steps": 500, "batch": 16, "points": "all", "validate_every": 100},
    "quantiser": {"steps": 80, "lambdas": [10.0, 1000.0, 30000.0]}, "threads": 1,
}  # fmt: skip


def winds(times: int = 40, seed: int = 0) -> xr.Dataset:
    """Winds of a few travelling whirls: u and v follow from one stream function, so one latent serves both."""
    rng = np.random.default_rng(seed)
    lat, lon = np.linspace(30, 60, 14), np.linspace(0, 40, 18)
    y, x = np.meshgrid(np.linspace(0, np.pi, 14), np.linspace(0, np.pi, 18), indexing="ij")
    strength = rng.standard_normal((times, 3, 1, 1)) * 10
    u = sum(strength[:, k] * (k + 1) * np.sin((k + 1) * x) * np.cos((k + 1) * y) for k in range(3))
    v = -sum(strength[:, k] * (k + 1) * np.cos((k + 1) * x) * np.sin((k + 1) * y) for k in range(3))
    both = np.stack([u, v], 1) + 0.02 * rng.standard_normal((times, 2, 14, 18))
    coords = {"time": np.arange(float(times)), "component": ["u", "v"], "lat": lat, "lon": lon}
    return xr.Dataset({"wind": (("time", "component", "lat", "lon"), both.astype("f4"), {"units": "m s-1"})}, coords)


@pytest.fixture(scope="module")
def wind_model(tmp_path_factory):
    """A model of winds, the file it was trained on, and the parameters."""
    folder = tmp_path_factory.mktemp("wind")
    winds().to_netcdf(folder / "train.nc")
    (folder / "params.yaml").write_text(yaml.safe_dump(SMALL))
    run(
        "train", folder / "train.nc", "--var", "wind", "--features", "component", "--out", folder / "wind.vcinr",
        "--params", folder / "params.yaml",
    )  # fmt: skip
    return folder / "wind.vcinr"


def test_from_data_to_archive_and_back(wind_model, tmp_path):
    model, data = load_model(wind_model), winds(12, seed=1)
    assert (model.spec.d_out, model.feature_dim, model.dims) == (2, "component", ("lat", "lon"))
    data["wind"][2, 1, 3:5, 4:9] = np.nan  # where only one of two features has a value
    data.to_netcdf(tmp_path / "new.nc")
    run("compress", tmp_path / "new.nc", tmp_path / "a.zarr", "--model", wind_model, "--abs-error", 0.2, "--chunk", 5)
    run("verify", tmp_path / "a.zarr", "--against", tmp_path / "new.nc")
    run("decompress", tmp_path / "a.zarr", tmp_path / "back.nc")
    with xr.open_zarr(tmp_path / "a.zarr") as lazy, xr.open_dataset(tmp_path / "back.nc") as back:
        for found in (lazy, back):
            assert found["wind"].dims == data["wind"].dims and found["wind"].attrs["units"] == "m s-1"
            assert list(found["component"].values) == ["u", "v"]
            assert np.array_equal(np.isnan(found["wind"]), np.isnan(data["wind"]))
            assert float(np.abs(found["wind"] - data["wind"]).max()) <= 0.2
        theirs = decoder().read(tmp_path / "a.zarr", "wind")
        allowed = model.slack * model.scaling("wind")[1] + 1e-5
        assert np.nanmax(np.abs(theirs - lazy["wind"].values)) <= allowed
    facts = json.loads(run("info", "--json", tmp_path / "a.zarr").stdout)["variables"]["wind"]
    run("compress", tmp_path / "new.nc", tmp_path / "b.zarr", "--var", "wind", "--abs-error", 0.2, "--chunk", 5)
    alone = json.loads(run("info", "--json", tmp_path / "b.zarr").stdout)["variables"]["wind"]
    assert facts["model"] == model.sha256 and facts["bytes"] < 0.7 * alone["bytes"]


def test_one_latent_for_both_components_takes_fewer_bytes_than_one_each(wind_model, tmp_path):
    """The stream function that both follow from is coded once."""
    data = winds(12, seed=1)
    apart = train(winds(), tmp_path / "apart.vcinr", variables=["wind"], params=parse(SMALL, "test"))
    assert apart.spec.d_out == 1
    sizes = {}
    for name, model in (("joint", load_model(wind_model)), ("apart", apart)):
        vcinr.compress(data, tmp_path / name, model=model, abs_error=0.4, chunk=12)
        sizes[name] = vcinr.info(tmp_path / name)["variables"]["wind"]["bytes"]
    assert sizes["joint"] < 0.8 * sizes["apart"], sizes


@pytest.mark.parametrize("effort", ["best", "fast"])
def test_the_prior_is_used_and_kept_within_the_bound(wind_model, effort):
    model, data = load_model(wind_model), winds(9, seed=2)
    grid = Grid((data.lat.values, data.lon.values))
    field = Field("wind", (2, 3), grid, model, model.scaling("wind"), feature_axis=1)
    values = data["wind"].values
    for bound in (Bound("absolute", 0.3), Bound("absolute", 0.02), Bound("psnr", 40.0, 60.0), Bound("rate", 2.0), None):
        encoded = encode(values, field, bound, effort=effort)
        back = decode(encoded.data, values.shape, values.dtype, field)
        assert float(np.abs(back - values).max()) == encoded.max_abs_error
        if bound is None or bound.kind == "psnr" or bound.value == 0.3:
            assert "prior" in encoded.mode
        if bound is not None and bound.kind == "absolute":
            assert encoded.max_abs_error <= bound.value
    # The same, whichever axis holds the features.
    last = Field("wind", (1, 2), grid, model, model.scaling("wind"), feature_axis=3)
    turned = np.ascontiguousarray(np.moveaxis(values, 1, -1))
    assert np.array_equal(latents_of(turned, last), latents_of(values, field))
    encoded = encode(turned, last, 0.3, effort=effort)
    assert "prior" in encoded.mode
    assert np.abs(decode(encoded.data, turned.shape, turned.dtype, last) - turned).max() <= 0.3


def test_rounding_for_the_bound_saves_bits_with_several_features(wind_model, monkeypatch):
    model, data = load_model(wind_model), winds(40, seed=2)
    field = Field(
        "wind", (2, 3), Grid((data.lat.values, data.lon.values)), model, model.scaling("wind"), feature_axis=1
    )
    values = data["wind"].values
    seen, rounded = [], Latents._rounded_for_bound

    def watched(self, trial, z, rate, *others):
        seen.append((self.quantiser, rate, z, rounded(self, trial, z, rate, *others)))
        return seen[-1][-1]

    monkeypatch.setattr(Latents, "_rounded_for_bound", watched)
    assert encode(values, field, 1.0, rate=2).mode == "prior"  # still within the bound, without a residual
    quantiser, rate, nearest, better = seen[0]
    assert quantiser.bits(better, rate) < quantiser.bits(nearest, rate)


def test_a_point_counts_where_all_its_features_have_a_value(wind_model, tmp_path):
    model, data = load_model(wind_model), winds(6, seed=3)
    field = Field(
        "wind", (2, 3), Grid((data.lat.values, data.lon.values)), model, model.scaling("wind"), feature_axis=1
    )
    one, both = data["wind"].values.copy(), data["wind"].values.copy()
    one[:, 0, 5, 5:8] = np.nan
    both[:, :, 5, 5:8] = np.nan
    assert np.array_equal(latents_of(one, field), latents_of(both, field))
    xr.Dataset({"wind": (data["wind"].dims, one)}, data.coords).to_netcdf(tmp_path / "in.nc")
    files = (Selection(path=str(tmp_path / "in.nc")),)
    tiling = Tiling(feature_dim="component")
    source = Source(variables=("wind",), train=files, archive=files, tiling=tiling, valid_every=3)
    summary = ingest(source, tmp_path, tmp_path / "signals.zarr")
    assert summary["signals"] == {"train": 4, "valid": 2, "test": 6}
    signals = read_signals(tmp_path / "signals.zarr")
    train_set = signals.splits["train"]
    assert signals.feature_dim == "component" and train_set.features.shape == (4, 14, 18, 2)
    assert not train_set.mask[:, 5, 5:8].any() and train_set.mask.sum() == 4 * (14 * 18 - 3)
    assert (train_set.features[:, 5, 5:8] == 0).all()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_bound_holds_whichever_axis_holds_features(data):
    ndim = data.draw(st.integers(2, 4))
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=ndim, max_size=ndim)))
    order = data.draw(st.permutations(range(ndim)))
    grid = data.draw(st.integers(1, min(2, ndim - 1)))
    feature, axes = order[0], tuple(order[1 : 1 + grid])
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    values = (rng.standard_normal(shape).cumsum(-1) * 5).astype(data.draw(st.sampled_from(["f4", "f8", "i2"])))
    if values.dtype.kind == "f":
        values[rng.random(shape) < data.draw(st.sampled_from([0.0, 0.3]))] = np.nan
    field = Field("v", axes, feature_axis=feature)
    kind = data.draw(st.sampled_from(["absolute", "relative"]))
    effort = data.draw(st.sampled_from(["best", "fast"]))
    chunk = tuple(n + data.draw(st.integers(0, 2)) for n in shape)
    encoded = encode(
        values, field, Bound(kind, 0.5 if values.dtype.kind == "f" else 2.0), chunk_shape=chunk, effort=effort
    )
    back = decode(encoded.data, chunk, values.dtype, field)[tuple(slice(n) for n in shape)]
    kept = valid_values(values, ())
    allowed = 2.0 if values.dtype.kind != "f" else 0.5
    limit = allowed * (np.abs(values[kept].astype("f8")) if kind == "relative" else 1.0)
    assert (errors_of(values, back)[kept] <= limit).all()
    assert values[~kept].tobytes() == back[~kept].tobytes()


def test_other_features_are_refused_by_name(wind_model, tmp_path):
    model = load_model(wind_model)
    data = winds(4)
    three = xr.concat([data, data.isel(component=[0])], "component")
    for other, found in ((three, 3), (data.isel(component=0), 0), (data.isel(component=[1]), 1)):
        with pytest.raises(ModelError, match=rf"2 features along dimension 'component', and here are {found}"):
            vcinr.compress(other, tmp_path / "a.zarr", model=model, abs_error=0.1)
    with pytest.raises(InputError, match="no dimension 'colour' with features"):
        train(data, tmp_path / "m.vcinr", variables=["wind"], feature_dim="colour")
    with pytest.raises(InputError, match="'lat' holds features"):
        train(data, tmp_path / "m.vcinr", variables=["wind"], signal_dims=["lat", "lon"], feature_dim="lat")
    # A chunk with a prior is no chunk of a field without features.
    grid = Grid((data.lat.values, data.lon.values))
    field = Field("wind", (2, 3), grid, model, model.scaling("wind"), feature_axis=1)
    with pytest.raises(CorruptError, match="not the grid"):
        prior.decode_prior(Field("wind", (2, 3), grid, model), (4, 2, 14, 18), b"\1", b"")
    assert prior.applies(field, (4, 2, 14, 18)) and not prior.applies(field, (4, 3, 14, 18))


def test_default_dimensions_leave_out_the_features():
    picture = xr.DataArray(np.zeros((5, 8, 9, 3)), dims=("item", "y", "x", "rgb"))
    layout = layout_of(picture, feature_dim="rgb")
    assert layout.dims == ("y", "x") and layout.value_dims == ("y", "x", "rgb")
    assert layout_of(picture).dims == ("x", "rgb")


def test_a_model_on_points_of_any_place(wind_model):
    """A model gives at single points what it gives at the same places of a grid, and chunks may be of points."""
    model, data = load_model(wind_model), winds(6, seed=4)
    lat, lon = (a.ravel() for a in np.meshgrid(data.lat, data.lon, indexing="ij"))
    chosen = np.random.default_rng(0).permutation(len(lat))[:150]
    cloud = Points((lat[chosen], lon[chosen]))
    whole = Grid((data.lat.values, data.lon.values))
    assert np.array_equal(cloud.inputs(model.system), whole.inputs(model.system)[chosen])
    assert cloud == Points(cloud.columns) and cloud != whole and cloud.shape == (150,)
    values = np.ascontiguousarray(data["wind"].values.reshape(6, 2, -1)[..., chosen])
    field = Field("wind", (2,), cloud, model, model.scaling("wind"), feature_axis=1)
    for bound in (0.5, 0.05):
        encoded = encode(values, field, bound)
        assert np.abs(decode(encoded.data, values.shape, values.dtype, field) - values).max() <= bound
    assert "prior" in encode(values, field, 0.5).mode
    with pytest.raises(CorruptError, match="checksum"):  # places are part of what a chunk means
        moved = Points((lat[chosen] + 1e-9, lon[chosen]))
        decode(
            encoded.data, values.shape, values.dtype, Field("wind", (2,), moved, model, field.scaling, feature_axis=1)
        )
    sphere = Points((np.array([0.0, 90.0]), np.array([90.0, 7.0]))).inputs(coordinates.sphere())
    assert np.allclose(sphere, [[0, 1, 0], [0, 0, 1]], atol=1e-7)
