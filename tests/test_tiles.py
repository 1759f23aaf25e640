"""Models of tiles: networks of every method on whole images, sounds and volumes of any size."""

from __future__ import annotations

import itertools
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

import vcinr
from tests.conftest import small
from tests.golden.make import small_model
from tests.golden.reference import decoder
from vcinr.archive import plan, work
from vcinr.archive.metadata import as_groups, stored
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.latents import latents_of
from vcinr.codec.prior import predicted
from vcinr.codec.promise import Bound, Field
from vcinr.config import Selection, Source
from vcinr.datasets.ingest import ingest
from vcinr.errors import CorruptError, ModelError
from vcinr.inr.model import Model, freeze
from vcinr.inr.siren import initialise
from vcinr.models import from_bytes, load_model
from vcinr.signals.store import read_signals
from vcinr.signals.tiles import parts_of, tiles_in
from vcinr.training import train

# --- cutting


@given(st.data())
def test_a_grid_is_its_tiles(data):
    axes = data.draw(st.integers(1, 3))
    grid, tile = (tuple(data.draw(st.lists(st.integers(1, 7), min_size=axes, max_size=axes))) for _ in range(2))
    n, features = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 2))
    signals = np.random.default_rng(0).random((n, features, *grid))
    back, rows, parts = np.zeros_like(signals), [], parts_of(grid, tile)
    corners = list(itertools.product(range(n), *(range(0, g, t) for g, t in zip(grid, tile, strict=True))))
    assert len(corners) == n * tiles_in(grid, tile) and len(parts) <= 2**axes
    for part in parts:
        cut = part.cut(signals)
        assert cut.shape == (n * math.prod(part.counts), features, *part.shape)
        for row, values in zip(part.rows(n), cut, strict=True):
            i, *corner = corners[row]
            place = tuple(slice(c, c + t) for c, t in zip(corner, tile, strict=True))
            np.testing.assert_array_equal(values, signals[(i, slice(None), *place)])
        rows += list(part.rows(n))
        part.put(cut, back)
    np.testing.assert_array_equal(back, signals)
    assert sorted(rows) == list(range(len(corners)))


# --- one chunk


def model_of(conditioning: str, dims: tuple[str, ...], tile: tuple[int, ...], features: int = 1) -> Model:
    """An untrained network for tiles over one to three axes."""
    two = small_model(conditioning, features)
    spec = replace(two.spec, d_in=len(dims))
    params = {**two.params, **{k: v for k, v in initialise(spec, 0).items() if k == "siren.0.weight"}}
    box = {"system": "box", "bounds": [[0.0, n - 1.0] for n in tile]}
    made = replace(two, spec=spec, params=params, system=box, dims=dims, tile=tile, encode_points=40)
    return freeze(replace(made, normalisation={"v": (-30.0, 60.0)}, slack=2.0**-15))


def waves(*grid: int, holes: bool = False) -> np.ndarray:
    places = np.meshgrid(*(np.arange(n) for n in grid), indexing="ij")
    rng = np.random.default_rng(0)
    values = 10 * np.sin(sum((k + 1) * 0.3 * p for k, p in enumerate(places))) + rng.normal(size=grid)
    return np.where(rng.random(grid) < 0.2, np.nan, values) if holes else values


GRIDS = {("x",): (37,), ("y", "x"): (9, 8), ("z", "y", "x"): (5, 4, 6)}
TILES = {("x",): (8,), ("y", "x"): (4, 3), ("z", "y", "x"): (2, 3, 4)}


@pytest.mark.parametrize("conditioning", ["linear", "gates", "shifts"])
@pytest.mark.parametrize("dims", list(GRIDS), ids="".join)
@pytest.mark.parametrize("features", [1, 2])
def test_bounds_hold_with_a_prior_of_tiles(conditioning, dims, features):
    model = model_of(conditioning, dims, TILES[dims], features)
    shape = (3, *((features,) if features > 1 else ()), *GRIDS[dims])
    axes = tuple(range(len(shape) - len(dims), len(shape)))
    field = Field("v", axes, model=model, scaling=model.scaling("v"), feature_axis=1 if features > 1 else None)
    assert field.tile == model.tile
    for holes, bound in ((False, 0.5), (True, 0.5), (True, Bound("psnr", 25.0, 30.0)), (False, None)):
        values = waves(*shape, holes=holes)
        encoded = encode(values, field, bound, rate=1)
        back = decode(encoded.data, shape, values.dtype, field)
        assert encoded.mode.startswith("prior")
        assert np.array_equal(np.isnan(back), np.isnan(values))
        assert np.nanmax(np.abs(back - values)) == encoded.max_abs_error <= (0.5 if bound == 0.5 else np.inf)
        quick = encode(values, field, bound, effort="fast")
        back = decode(quick.data, shape, values.dtype, field)
        assert np.nanmax(np.abs(back - values)) == quick.max_abs_error


@pytest.mark.parametrize("conditioning", ["linear", "gates"])
@pytest.mark.parametrize("grid", [(9, 8), (3, 2), (1, 1), (4, 3), (1, 50)])
def test_each_tile_has_the_latents_that_it_has_alone(conditioning, grid):
    model = model_of(conditioning, ("y", "x"), (4, 3))
    field = Field("v", (1, 2), model=model, scaling=model.scaling("v"))
    values = waves(2, *grid, holes=True)
    values[0, :3, :2] = np.nan  # the first tile of a small signal has no value at all
    found = latents_of(values, field)
    assert found.shape == (2 * tiles_in(grid, (4, 3)), model.spec.latent) and np.isfinite(found).all()
    z, whole = np.rint(found * 3).astype(int), values.shape
    output = predicted(model, field, whole, z, 1)
    corners = itertools.product(range(2), range(0, grid[0], 4), range(0, grid[1], 3))
    for row, (i, y, x) in enumerate(corners):
        tile = values[i : i + 1, y : y + 4, x : x + 3]
        np.testing.assert_allclose(latents_of(tile, field), found[row : row + 1], atol=1e-4)
        alone = predicted(model, field, tile.shape, z[row : row + 1], 1)
        np.testing.assert_allclose(alone, output[i : i + 1, y : y + 4, x : x + 3], atol=1e-4)


@pytest.mark.parametrize("dims", list(GRIDS), ids="".join)
def test_the_reference_decoder_reads_tiles(dims, tmp_path, monkeypatch):
    model = model_of("linear", dims, TILES[dims])
    monkeypatch.setattr(work, "encode", lambda *args, **options: encode(*args, rate=1, **options))
    values = waves(5, *GRIDS[dims])
    vcinr.compress(
        xr.Dataset({"v": (("i", *dims), values)}), tmp_path / "a.zarr", model=model, abs_error=0.5, chunk=2,
        variables=["v"],
    )  # fmt: skip
    with vcinr.open(tmp_path / "a.zarr") as back:
        assert np.abs(back.v.values - values).max() <= 0.5
        read = decoder().read(tmp_path / "a.zarr", "v")
        assert np.abs(read - back.v.values).max() <= 60 * model.slack
        at = vcinr.at(tmp_path / "a.zarr", dict.fromkeys(dims, 1.0))  # between samples, values are interpolated
        np.testing.assert_allclose(at.v.values, back.v.values[(slice(None), *(1,) * len(dims))])


def test_a_chunk_of_another_number_of_axes_is_refused():
    model = model_of("linear", ("y", "x"), (4, 3))
    field = Field("v", (1, 2), model=model, scaling=model.scaling("v"))
    values = waves(2, 9, 8)
    encoded = encode(values, field, 0.5, rate=1)
    other = Field("v", (0, 1, 2), model=model, scaling=model.scaling("v"))
    assert other.tile is None and latents_of(values, other) is None
    with pytest.raises(CorruptError):
        decode(encoded.data, values.shape, values.dtype, other)


# --- models, plans and signals


def test_a_model_file_says_what_its_tiles_are():
    model = model_of("linear", ("y", "x"), (4, 3))
    assert from_bytes(model.data, "m").tile == (4, 3) and from_bytes(small_model("linear").data, "m").tile is None
    for wrong in ((4,), (4, 0), (4, 3, 2), (4, 2.5), "43"):
        with pytest.raises(ModelError, match=r"m: .*tiles"):
            from_bytes(replace(model, tile=wrong).data, "m")
    sphere = replace(model.spec, d_in=3)
    params = {**model.params, "siren.0.weight": np.zeros((8, 3), "f4")}
    with pytest.raises(ModelError, match="tiles"):
        from_bytes(replace(model, spec=sphere, params=params, system={"system": "sphere"}).data, "m")


def test_large_signals_are_cut_between_tiles(monkeypatch):
    monkeypatch.setattr(plan, "_CUT_VALUES", 600)
    model = model_of("linear", ("y", "x"), (4, 3))
    groups = {p: stored(g, p) for p, g in as_groups(xr.Dataset({"v": (("i", "y", "x"), waves(2, 50, 44))})).items()}
    (array,) = plan.plan(groups, model=model, abs_error=0.1)
    assert array.shape[1] % 4 == 0 and array.shape[2] % 3 == 0 and math.prod(array.shape[1:]) <= 600
    assert array.codec.axes == () and array.codec.signal_axes == ()


def test_a_model_of_tiles_is_for_the_dimensions_that_it_learned(tmp_path):
    model = model_of("linear", ("y", "x"), (4, 3))
    turned = xr.Dataset({"v": (("i", "a", "x"), waves(2, 9, 8))})
    with pytest.raises(ModelError, match="'v' has the dimensions i, a, x, the model was trained on y, x; rename"):
        vcinr.compress(turned, tmp_path / "a.zarr", model=model, abs_error=0.1)


def test_only_pieces_without_coordinates_of_their_own_are_tiles(tmp_path):
    """A grid's model is for its own places, such as latitudes, though it may count them from 0 in steps of 1."""
    maps = xr.Dataset(
        {"t": (("time", "lat", "lon"), waves(8, 12, 10))}, {"lat": np.arange(12.0), "lon": np.arange(10.0)}
    )
    maps.to_netcdf(tmp_path / "in.nc")
    files = (Selection(path=str(tmp_path / "in.nc")),)
    ingest(Source(variables=("t",), train=files, archive=files), tmp_path, tmp_path / "grid.zarr")
    assert not read_signals(tmp_path / "grid.zarr").tiled


# --- whole files, from training to what comes back


with warnings.catch_warnings():  # of packages that are imported for the first time
    warnings.simplefilter("ignore")
    for module in ("PIL.Image", "imagecodecs", "soundfile", "nibabel"):
        pytest.importorskip(module)

from tests.test_files import image, largest, picture, sound, tones, vcinr_  # noqa: E402
from vcinr.formats.write import write_dataset  # noqa: E402

METHODS = ("basis", "vcinr", "coinpp", "functa", "mscn", "coin")


def volume(path: Path, values: np.ndarray) -> None:
    write_dataset(xr.Dataset({"volume": (("z", "y", "x"), values)}), path)


def files(kind: str, folder: Path, small_ones: bool) -> None:
    """Files to learn from, or files of other sizes, some smaller than a tile."""
    folder.mkdir()
    if kind in ("image", "grey"):
        sizes = [(21, 30), (5, 3), (21, 30)] if small_ones else [(20, 24)] * 3
        for i, (height, width) in enumerate(sizes):
            image(folder / f"{i}.png", picture(height, width, 1 if kind == "grey" else 3, seed=i + 3 * small_ones))
    elif kind == "sound":
        for i, length in enumerate([333, 5] if small_ones else [500, 256]):
            sound(folder / f"{i}.wav", tones(length, seed=i + 5).astype("i2"))
    else:
        for i, n in enumerate([11, 3] if small_ones else [16, 16]):
            values = 100 * np.sin(0.2 * np.indices((n, n, n)).sum(0) + i)
            volume(folder / f"{i}.nii.gz", values.astype("i2"))


@pytest.mark.parametrize(
    ("kind", "method"),
    [*(("image", m) for m in METHODS), ("grey", "basis"), ("grey", "coinpp"), ("sound", "basis"), ("sound", "vcinr"),
     ("volume", "basis"), ("volume", "mscn")],
)  # fmt: skip
def test_every_method_on_whole_signals(kind, method, tmp_path):
    name = "image" if kind == "grey" else kind
    files(kind, tmp_path / "in", small_ones=False)
    files(kind, tmp_path / "new", small_ones=True)
    params = small(
        method=method,
        inr={"width": 10, "depth": 3, "latent": 6},
        meta={"steps": 0 if method == "coin" else 6, "validate_every": 3, "encode_steps": 3},
        quantiser={"steps": 5},
    )
    model = train([tmp_path / "in"], tmp_path / "m.vcinr", params=params)
    assert model.tile is not None and set(model.tile) == {{"sound": 256, "volume": 16}.get(kind, 20)}
    assert load_model(tmp_path / "m.vcinr").tile == model.tile
    for k, bound in enumerate([("--abs-error", 9), ("--psnr", 25), ("--rate", 24), ()]):
        archive = tmp_path / f"{k}.zip"
        vcinr_("compress", tmp_path / "new", archive, "--model", tmp_path / "m.vcinr", *bound, "--effort", "fast")
        vcinr_("verify", archive, "--against", tmp_path / "new")
    vcinr_("decompress", tmp_path / "0.zip", tmp_path / "back")
    for path in (tmp_path / "new").iterdir():
        assert largest(path, tmp_path / "back" / path.name, name) <= 9
