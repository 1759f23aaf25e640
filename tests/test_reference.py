"""The reference decoder of docs/, written from the format page alone, reads the bits that the package reads."""

import json
import math
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr

import vcinr
from tests.conftest import small
from tests.golden.make import small_model, turning_waves
from tests.golden.reference import decoder
from tests.test_archive import waves
from tests.test_patches import made
from vcinr.archive import work
from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.codec.encode import encode
from vcinr.codec.trial import Trial
from vcinr.coding import residual
from vcinr.coding.static import STATIC, writer
from vcinr.coding.tables import quantise_frequencies
from vcinr.errors import ModelError
from vcinr.inr.model import from_bytes, load_model
from vcinr.patches.geometry import Geometry
from vcinr.quantise.state import CODERS, Quantiser
from vcinr.quantise.train import fit
from vcinr.signals import coordinates

SCRIPT = Path(__file__).resolve().parent.parent / "docs" / "reference_decoder.py"


reference = decoder()
SECTIONS = ("EXTENT", "MASK", "SPECIALS", "PRIOR", "CONSTANT", "RESIDUAL", "EXCEPTIONS", "LOG")
T, Y, X = np.meshgrid(np.arange(10), np.linspace(0, 3, 12), np.linspace(0, 3, 9), indexing="ij")
RNG = np.random.default_rng(0)
FIELD = 10 * np.sin(X + 0.3 * T) * np.cos(Y) + 0.2 * RNG.standard_normal(T.shape)
GONE = RNG.random(T.shape) < 0.1  # another mask in every map
HOLES = np.where(GONE, np.nan, FIELD)
INFINITE = HOLES.copy()
INFINITE[0, 0, 0], INFINITE[4, 2, 2] = np.inf, -np.inf
SIGNED = np.where(GONE, 0, FIELD * 10.0 ** RNG.integers(-5, 5, FIELD.shape))
SQUARED = ((np.indices((12, 9, 12)) - np.array([6, 4, 6])[:, None, None, None]) ** 2).sum(0)  # from the centre
SPOTS = np.random.default_rng(1).random((3, 12, 9, 12)) < 0.05
SOLID = np.array([30, 20, 30])[:, None, None, None] > SQUARED
ALIKE = np.sin(X[0] * 3)[None] + 0.1 * RNG.standard_normal((60, 12, 9))  # maps that their mean predicts


def stored(path: Path, name: str) -> np.ndarray:
    store = zarr.storage.ZipStore(path, mode="r") if path.suffix == ".zip" else path
    return np.asarray(zarr.open_group(store, mode="r")[name][...])


def check(path: Path, name: str) -> np.ndarray:
    expected, back = stored(path, name), reference.read(path, name)
    assert (back.dtype, back.shape) == (expected.dtype, expected.shape)
    assert back.tobytes() == expected.tobytes(), f"{(back != expected).sum()} values differ"
    return back


def parts(path: Path, name: str) -> list[set[str]]:
    """What the format has that each chunk makes use of."""
    result, itemsize = [], stored(path, name).dtype.itemsize
    for file in sorted(p for p in [path / name / "c", *(path / name / "c").rglob("*")] if p.is_file()):
        data, position, found = file.read_bytes(), 10, set()
        found.add(f"mode {data[3]}")
        for bit, section in enumerate(SECTIONS):
            if struct.unpack_from("<H", data, 8)[0] >> bit & 1:
                length, position = reference.leb128(data, position)
                content = data[position : position + length]
                position += length
                found.add(section)
                if section == "MASK" and content[0] == 1:
                    found.add("bits")
                if section == "SPECIALS":
                    found.add(("one value", "values")[content[0]])
                if section == "LOG":
                    found.add(("positive", "negative", "signs")[content[0] if content else 0])
                if section == "PRIOR" and content[0] & 7 < len(CODERS):  # of patches it is a rate
                    found.add(f"latents: {CODERS[content[0] & 7]}")
                if section == "RESIDUAL":
                    plan = content[8]
                    found |= {
                        ("plain", "adaptive", "interpolated", "nearest")[plan & 3],
                        ("no past", "temporal")[plan >> 2 & 1],
                    }
                    found |= {"tighten"} if plan >> 3 & 15 else set()
                    found |= {"brief"} if plan >> 7 else set()
        if "mode 0" in found and data[position] == 1:
            found.add("bits" if len(data) > position + 2 * itemsize else "one")
        if "mode 0" in found and data[position] == 3:
            found.add("coarse")
        if "mode 0" in found and data[position] == 2:
            found.add(("integers", "fraction", "line", "dictionary")[data[position + 1]])
        result.append(found)
    return result


# name: values, attributes, options, what of the format its chunks must make use of
CASES: dict[str, tuple[np.ndarray, dict, dict, set[str]]] = {
    "float64": (FIELD, {}, {"abs_error": 0.1}, {"CONSTANT", "RESIDUAL"}),
    "float32": (FIELD.astype("f4"), {}, {"abs_error": 0.1}, {"RESIDUAL"}),
    "float16": (FIELD.astype("f2"), {}, {"abs_error": 0.1}, {"RESIDUAL"}),
    "int16": ((1000 * FIELD).astype("i2"), {}, {"abs_error": 20.0}, {"RESIDUAL"}),
    "uint8": ((10 * FIELD).clip(-120, 120).astype("i1").view("u1"), {}, {"abs_error": 2.0}, {"RESIDUAL"}),
    "int64": ((2.0**62 * FIELD / 10).clip(-(2.0**62), 2.0**62).astype("i8"), {}, {"rel_error": 1e-3}, set()),
    "bool": (FIELD > 0, {}, {"abs_error": 0.1}, {"mode 0"}),
    "solids": (SOLID.astype("u1"), {}, {}, {"mode 0", "bits"}),
    "ragged solids": ((SOLID ^ SPOTS).astype("u1"), {}, {"chunk": 5}, {"bits", "EXTENT"}),
    "simpler solids": (SOLID.astype("u1"), {}, {"iou": 0.9}, {"mode 0", "bits"}),
    "coarser solids": (SOLID, {}, {"iou": 0.4}, {"mode 0", "coarse"}),
    "two numbers": (np.where(SOLID, np.nan, -2.5), {}, {}, {"mode 0", "bits"}),
    "one number": (np.full((3, 4, 5), -7, "i2"), {}, {}, {"mode 0", "one"}),
    "coast": (np.where(SOLID[0] ^ SPOTS[0], np.nan, np.sin(0.1 * SQUARED)), {}, {"abs_error": 0.1}, {"MASK", "bits"}),
    "smooth numbers": (FIELD, {}, {"chunk": 7}, {"mode 0", "integers", "EXTENT"}),
    "decimal numbers": (np.round(FIELD, 2), {}, {}, {"mode 0", "fraction"}),
    "a line": (np.linspace(2, 3, 301), {}, {}, {"mode 0", "line"}),
    "few numbers": (np.sqrt([2, 3, 5, 7e9])[(9 * FIELD).astype(int) % 4], {}, {}, {"mode 0", "dictionary"}),
    "0-d": (np.array(3.5, "f4"), {}, {"abs_error": 0.1}, {"mode 0"}),
    "0-d bool": (np.array(True), {}, {}, {"mode 0"}),
    "1-d": (FIELD[:, 3, 3], {}, {"abs_error": 1e-3}, set()),
    "2-d": (FIELD[0], {}, {"abs_error": 0.1}, {"RESIDUAL"}),
    "4-d": (np.stack([FIELD, 2 * FIELD], 1).astype("f4"), {}, {"abs_error": 0.1, "chunk": 14}, {"EXTENT", "RESIDUAL"}),
    "gaps": (HOLES, {}, {"abs_error": 0.1, "chunk": 4}, {"EXTENT", "MASK", "one value", "RESIDUAL"}),
    "infinite": (INFINITE.astype("f4"), {}, {"abs_error": 0.1}, {"MASK", "values", "RESIDUAL"}),
    "all gaps": (np.full_like(FIELD, np.nan), {}, {"abs_error": 0.1}, set()),
    "fill": (
        np.where(GONE, 1e20, FIELD).astype("f4"), {"_FillValue": np.float32(1e20)},
        {"abs_error": 0.1, "chunk": 6}, {"MASK", "one value", "EXTENT"},
    ),
    "fill NaN": (HOLES.astype("f4"), {"_FillValue": np.float32(np.nan)}, {"abs_error": 0.1, "chunk": 6}, {"MASK"}),
    "two fills": (
        np.where(GONE, -99, np.where(T % 3 == 0, 999, 10 * FIELD)).astype("i2"),
        {"_FillValue": np.int16(-99), "missing_value": np.int16(999)}, {"abs_error": 3.0}, {"MASK", "values"},
    ),
    "relative": (FIELD.astype("f4"), {}, {"rel_error": 1e-3}, {"RESIDUAL"}),
    "pointwise": (SIGNED.astype("f4"), {}, {"point_rel_error": 1e-2, "chunk": 6}, {"LOG", "signs", "MASK", "EXTENT"}),
    "pointwise float64": (SIGNED, {}, {"point_rel_error": 1e-4}, {"LOG", "signs"}),
    "pointwise positive": (np.exp(FIELD), {}, {"point_rel_error": 1e-3}, {"LOG", "positive"}),
    "pointwise negative": (-np.exp(FIELD).astype("f4"), {}, {"point_rel_error": 1e-3}, {"LOG", "negative"}),
    "exceptions": ((300 * FIELD).astype("i2"), {}, {"point_rel_error": 1e-2}, {"LOG", "EXCEPTIONS"}),
    "psnr": (FIELD, {}, {"psnr": 50.0}, {"RESIDUAL"}),
    "rate": (FIELD[:2].astype("f4"), {}, {"rate": 5.0}, {"RESIDUAL"}),
    "lossless": (FIELD.astype("f4"), {}, {"chunk": 4}, {"mode 0", "EXTENT"}),
    "edges": (FIELD, {}, {"abs_error": 0.5, "chunk": 4}, {"EXTENT", "RESIDUAL", "adaptive", "tighten"}),
    "many maps": (ALIKE, {}, {"abs_error": 0.02, "chunk": 60}, {"adaptive", "temporal"}),
    "constant": (np.full((10, 12, 9), 3.7), {}, {"abs_error": 0.1, "chunk": 4}, {"CONSTANT"}),
    "noise": (1e3 * RNG.standard_normal((5, 40, 40)), {}, {"abs_error": 0.5}, {"plain", "raw bits"}),
    "noise, as small as can be": (1e3 * RNG.standard_normal((5, 40, 40)), {}, {"abs_error": 0.5}, {"interpolated"}),
    "heavy tails": (RNG.standard_cauchy((5, 40, 40)), {}, {"abs_error": 1e-3}, {"plain", "raw bits"}),
    "tiny bound": (FIELD, {}, {"abs_error": 1e-9}, {"adaptive", "wide raw bits"}),
    "tiny bound float32": (FIELD.astype("f4"), {}, {"abs_error": 1e-9}, set()),
    "huge values": (FIELD * 1e300, {}, {"rel_error": 1e-3}, set()),
    "fast": (FIELD, {}, {"abs_error": 0.3, "effort": "fast"}, {"CONSTANT", "interpolated"}),
    "fast, fine": (FIELD, {}, {"abs_error": 1e-4, "effort": "fast"}, {"interpolated"}),
    "fast gaps": (HOLES, {}, {"abs_error": 0.1, "chunk": 4, "effort": "fast"}, {"EXTENT", "MASK", "interpolated"}),
    "fast many maps": (ALIKE, {}, {"abs_error": 0.02, "chunk": 60, "effort": "fast"}, {"interpolated"}),
    "fast noise": (1e3 * RNG.standard_normal((5, 40, 40)), {}, {"abs_error": 0.5, "effort": "fast"}, {"interpolated"}),
    "fast heavy tails": (RNG.standard_cauchy((5, 40, 40)), {}, {"abs_error": 0.1, "effort": "fast"}, {"interpolated"}),
    "fast line": (FIELD.ravel(), {}, {"abs_error": 1e-3, "effort": "fast"}, {"interpolated"}),
    "turning": (turning_waves(), {}, {"abs_error": 0.05}, {"adaptive", "brief"}),
    "smooth": (np.sin(X + 0.1 * T) * np.cos(Y), {}, {"abs_error": 1e-4}, {"adaptive", "temporal"}),
}  # fmt: skip


LATITUDE, LONGITUDE = np.arcsin(RNG.uniform(-1, 1, 390)) * 180 / np.pi, RNG.uniform(-180, 180, 390)
LATITUDE[300:], LONGITUDE[300:] = LATITUDE[:90], LONGITUDE[:90]  # points that coincide with others
WAVES = np.sin(np.radians(3 * LATITUDE + np.arange(6)[:, None])) * np.cos(np.radians(LONGITUDE))
LATITUDE[20:25] = np.nan  # nowhere
SCATTERED: dict[str, tuple[np.ndarray, tuple[str, ...], dict]] = {
    "mesh": (WAVES[0], ("node",), {"abs_error": 0.02}),
    "times": (WAVES, ("time", "node"), {"abs_error": 0.01}),
    "chunks of times": (WAVES.astype("f4"), ("time", "node"), {"abs_error": 0.05, "chunk": 4}),
    "levels last": (np.stack([WAVES, WAVES + 0.3], -1), ("time", "node", "level"), {"abs_error": 0.05}),
    "levels": (np.stack([WAVES, WAVES**2], 1), ("time", "level", "node"), {"rel_error": 1e-3}),
    "gaps": (
        np.where((RNG.random(WAVES.shape) < 0.2) | (np.arange(390) % 7 == 0), np.nan, WAVES),
        ("time", "node"), {"abs_error": 0.05},
    ),
    "all gaps but one": (
        np.where(np.arange(390) == 5, WAVES, np.nan), ("time", "node"), {"abs_error": 1e-3, "effort": "fast"},
    ),
    "pointwise": (np.exp(WAVES), ("time", "node"), {"point_rel_error": 1e-2, "effort": "fast"}),
    "grid": (WAVES.reshape(6, 30, 13), ("time", "y", "x"), {"abs_error": 1e-3}),
}  # fmt: skip


@pytest.mark.parametrize("case", SCATTERED)
def test_the_same_bits_of_scattered_points(case, tmp_path, monkeypatch):
    values, dims, options = SCATTERED[case]
    monkeypatch.setattr("vcinr.codec.search._PREDICTING", ())
    monkeypatch.setattr("vcinr.codec.search._RAW", ())
    monkeypatch.setattr(Trial, "estimate", lambda *_: (residual.Plan("nearest"), math.inf))
    own, shape = (dims[-2:], values.shape[-2:]) if case == "grid" else (("node",), (390,))
    unit, factor = ("radians", np.pi / 180) if case == "times" else ("degrees", 1.0)
    places = {
        name: (own, (factor * column).reshape(shape), {"units": unit})
        for name, column in (("lat", LATITUDE), ("lon", LONGITUDE))
    }
    groups = {"": xr.Dataset(places), "g": xr.Dataset({"v": (dims, values)})}
    vcinr.compress(groups, tmp_path / "a.zarr", variables=["g/v"], **options)
    assert "nearest" in set().union(*parts(tmp_path / "a.zarr", "g/v"))
    check(tmp_path / "a.zarr", "g/v")


@pytest.mark.parametrize("case", CASES)
def test_the_same_bits(case, tmp_path, monkeypatch):
    values, attrs, options, needed = CASES[case]
    if needed & {"plain", "adaptive"}:  # however many bytes they take
        monkeypatch.setattr(Trial, "estimate", lambda *_: (residual.Plan(), math.inf))
    data = xr.Dataset({"v": (("time", "level", "lat", "lon")[4 - values.ndim :], values, attrs)})
    vcinr.compress(data, tmp_path / "a.zarr", variables=["v"], **options)
    found = set().union(*parts(tmp_path / "a.zarr", "v"))
    raw = reference.Binary.raw
    names = ("raw bits", 1), ("wide raw bits", 16)
    monkeypatch.setattr(
        reference.Binary, "raw", lambda s, width: found.update(n for n, w in names if width > w) or raw(s, width)
    )
    back = check(tmp_path / "a.zarr", "v")
    assert needed <= found, "the case does not reach what it is meant to test"
    kept = np.isfinite(values) & ~np.isin(values, list(attrs.values()))
    assert np.array_equal(back[~kept], values[~kept], equal_nan=back.dtype.kind == "f")
    if "abs_error" in options:
        error = np.abs(back[kept].astype("f8") - values[kept].astype("f8"))
        assert error.max(initial=0) <= options["abs_error"] * (1 + 1e-12)


def test_zip_groups_names_and_coordinates(tmp_path):
    data = xr.Dataset(
        {"größe": (("time", "lat", "lon"), FIELD.astype("f4"), {"units": "µ"})},
        {"lat": Y[0, :, 0], "time": ("time", np.arange(10), {"units": "days since 2000-01-01"})},
    )
    tree = xr.DataTree.from_dict({"/": data, "/deep/er": data.rename({"größe": "v"})})
    vcinr.compress(tree, tmp_path / "a.zip", abs_error=0.1, chunk=4)
    for name in ("größe", "deep/er/v", "lat", "time"):
        check(tmp_path / "a.zip", name)
    with pytest.raises(ValueError, match="group"):
        reference.read(tmp_path / "a.zip", "deep/er")


@pytest.mark.parametrize(
    ("signal_axes", "shards"), [((), None), ((2, 0), (8, 16, 6)), ((1,), None), ((0, 1, 2), (8, 8, 6))]
)
def test_any_axes_and_chunks(signal_axes, shards, tmp_path):
    """What plain xarray writes with the codec: chunks that cut the grid, shards, no manifest."""
    encoding = {
        "serializer": VcinrCodec(variable="v", signal_axes=signal_axes, bound=("absolute", 0.1), fill=(np.nan, 1e20)),
        "compressors": None, "chunks": (4, 8, 6), **({"shards": shards} if shards else {}),
    }  # fmt: skip
    data = xr.Dataset({"v": (("time", "lat", "lon"), HOLES[:4].astype("f4"))})
    data.to_zarr(tmp_path / "a", zarr_format=3, consolidated=False, encoding={"v": encoding})
    check(tmp_path / "a", "v")


@pytest.mark.parametrize("kind", ["gates", "sphere", "linear"])
def test_a_model(kind, tiny_maps, tiny_model, tmp_path, monkeypatch):
    """Its float32 arithmetic may differ by 2^-18 of the scale, in what is predicted and only then rounded."""
    (tmp_path / "model.vcinr").write_bytes(altered(tiny_model.data, kind))
    model, found, escapes = load_model(tmp_path / "model.vcinr"), [], []
    raw = reference.Words.raw
    monkeypatch.setattr(reference.Words, "raw", lambda s, n: escapes.append(n) or raw(s, n))

    def both(name: str, source: xr.Dataset, **options) -> np.ndarray:
        path = tmp_path / name
        vcinr.compress(source, path, model=model, **options)
        found.extend(parts(path, "t"))
        configuration = json.loads((path / "t" / "zarr.json").read_text())["codecs"][0]["configuration"]
        assert configuration["model"] == model.sha256
        expected, back = stored(path, "t"), reference.read(path, "t")
        assert back.dtype == expected.dtype and np.array_equal(np.isnan(back), np.isnan(expected))
        error = np.abs(back.astype("f8") - expected) - np.spacing(np.abs(expected))
        assert np.nanmax(error) <= 2.0**-18 * configuration["scaling"][1]
        return expected

    data = waves(tiny_maps).isel(run=slice(5))
    # What the model says, with noise: nothing predicts it better.
    near, noise = data.copy(deep=True), np.random.default_rng(0).uniform(-2, 2, data["t"].shape)
    near["t"].values[:] = both("effort", data) + noise
    back = both("near", near, abs_error=0.3, chunk=3)
    assert np.abs(back - near["t"].values).max() <= 0.3
    far = data.copy(deep=True)
    far["t"].values[:, :2] = np.nan
    far["t"].values[1:3] = 40 * (far["t"].values[1:3] - 270)  # beyond all that the model has seen
    both("far", far, chunk=3)
    code = Quantiser.code
    for coder in STATIC:  # seldom the shortest ones
        monkeypatch.setattr(Quantiser, "code", lambda q, z, rate, c=coder, **_: code(replace(q, coders=(c,)), z, rate))
        both(coder, far, chunk=3)
    assert any({"PRIOR", "MASK", "EXTENT"} <= part for part in found) and sum(escapes) > 0
    assert {f"latents: {coder}" for coder in ("adaptive", *STATIC)} <= set().union(*found)
    assert kind == "sphere" or any({"PRIOR", "RESIDUAL"} <= part for part in found)


@pytest.mark.parametrize("conditioning", ["gates", "linear", "gated-basis", "shifts", "sparse", "weights"])
def test_every_conditioning(conditioning, tmp_path):
    """What a network of each kind makes of its latents, all of it from the page."""
    model, noise = small_model(conditioning), np.random.default_rng(0).standard_normal((3, 40, 36))
    data = xr.Dataset(
        {"double": (("t", "y", "x"), noise - 30)}, {"y": np.linspace(0, 3, 40), "x": np.linspace(0, 2, 36)}
    )
    vcinr.compress(data, tmp_path / "a.zarr", model=model)
    assert any("PRIOR" in part for part in parts(tmp_path / "a.zarr", "double"))
    expected, back = stored(tmp_path / "a.zarr", "double"), reference.read(tmp_path / "a.zarr", "double")
    assert np.abs(back - expected).max() <= model.slack * 30 + np.spacing(np.abs(expected)).max()
    assert np.ptp(expected) > 0


@pytest.mark.parametrize(
    ("geometry", "features", "shape", "experts"),
    [
        (Geometry((1, 4, 3), (0, 1, 2), (0, 0, 4)), 1, (2, 11, 13), 4),
        (Geometry((1, 4, 4), (0, 2, 2), (0, 0, 4)), 3, (1, 9, 17), 2),
        (Geometry((1, 1, 6), (0, 0, 5), (0, 0, 0)), 2, (3, 40), 1),
        (Geometry((2, 3, 2), (1, 1, 1), (0, 2, 1)), 1, (1, 5, 7, 6), 3),
        (Geometry((1, 2, 2), (0, 0, 0), (0, 0, 0)), 1, (1, 6, 5), 32),
        (Geometry((1, 3, 4), (1, 1, 2), (0, 1, 2), 5), 1, (2, 3, 10, 13), 3),
        (Geometry((1, 4, 4), (2, 1, 1), (0, 0, 4), 2), 2, (1, 4, 9, 8), 1),
        (Geometry((1, 3, 4), (0, 1, 2), (0, 0, 2), 5, 4, 1, (6, 2, -3)), 1, (2, 7, 10, 13), 3),
        (Geometry((1, 4, 4), (0, 0, 0), (0, 0, 0), 3, 2, 0, (0,)), 2, (1, 4, 9, 8), 1),
    ],
)
@pytest.mark.parametrize("rate", [0, 37, 100, 191])
def test_experts_for_patches(geometry, features, shape, experts, rate, tmp_path, monkeypatch):
    """The very bits, for one to three axes, several features and signals, and codes of all sizes."""
    model, rng = made(geometry, features, experts), np.random.default_rng(rate)
    signals = rng.standard_normal((shape[0], *shape[1:], features)).cumsum(1).cumsum(-2)
    dims = ("item", *model.dims)
    data = xr.Dataset({"v": (dims, signals[..., 0])} if features == 1 else {"v": ((*dims, "channel"), signals)})
    monkeypatch.setattr(work, "encode", partial(encode, rate=rate))
    vcinr.compress(data, tmp_path / "a.zarr", model=model)
    assert {"PRIOR"} <= set().union(*parts(tmp_path / "a.zarr", "v"))
    back = check(tmp_path / "a.zarr", "v")
    assert np.abs(back - data["v"].values).max() < 2.0 ** (2 - rate / 16) + 1e-4
    with pytest.raises(ValueError, match=r"checksum|damaged"):
        reference.decode_patches(bytes(9), reference.Patches(model.data), rate, (1, features, *shape[1:]))


def test_levels_on_the_sphere(tmp_path):
    """A signal of all levels of a globe: levels as a box has them, before latitude and longitude."""
    axes = np.array([1.0, 0.5, 0.1]), np.linspace(-80, 80, 9), np.arange(0.0, 360.0, 30.0)
    model, noise = small_model("linear"), np.random.default_rng(0).standard_normal((4, 3, 12, 9))
    first = np.random.default_rng(1).uniform(-0.1, 0.1, (8, 4)).astype("f4")
    model = replace(
        model, spec=replace(model.spec, d_in=4), params={**model.params, "siren.0.weight": first},
        system=coordinates.sphere(axes[:1]), dims=("level", "lat", "lon"),
    )  # fmt: skip
    model = from_bytes(model.data, "made")
    data = xr.Dataset({"double": (("t", "level", "lon", "lat"), noise - 30)}, dict(zip(model.dims, axes, strict=True)))
    vcinr.compress(data, tmp_path / "a.zarr", model=model)
    assert any("PRIOR" in part for part in parts(tmp_path / "a.zarr", "double"))
    expected, back = stored(tmp_path / "a.zarr", "double"), reference.read(tmp_path / "a.zarr", "double")
    assert np.abs(back - expected).max() <= model.slack * 30 + np.spacing(np.abs(expected)).max()
    assert min(np.ptp(expected, axis).max() for axis in range(4)) > 1e-3  # every coordinate matters
    with pytest.raises(ModelError, match="grid"):
        vcinr.compress(data.isel(level=0), tmp_path / "b.zarr", model=model)


@pytest.mark.parametrize(
    ("kind", "coder"), [("hyperprior", "hyperprior"), *(("uniform", c) for c in (*STATIC, "auto"))]
)
def test_quantisers(kind, coder, tiny_maps, tiny_model, tiny_latents, tmp_path):
    """Latents under tables of their own, escapes too, are the same integers; and so are the values, but for float32."""
    cfg = small(quantiser={"kind": kind, "coder": coder, "steps": 60, "bits": [3, 6]}).quantiser
    model = from_bytes(fit(tiny_model, tiny_maps, tiny_latents, cfg, seed=0)[0].data, "made")
    state, theirs, rng = Quantiser.from_tensors(model.quantiser), reference.Model(model.data), np.random.default_rng(0)
    for rate in range(2):
        for spread in (1, 6, 10**7):
            z = rng.integers(-spread, spread + 1, (14, state.offset.shape[1])) // rng.integers(1, 9, (14, 1))
            which, data = state.code(z.reshape(7, 2, -1), rate)
            assert (reference.decode_latents(data, which, theirs, rate, 14, (7, 2)) == z).all()
    vcinr.compress(waves(tiny_maps).isel(run=slice(5)), tmp_path / "a.zarr", model=model)
    assert {"PRIOR"} <= set().union(*parts(tmp_path / "a.zarr", "t"))
    error = np.abs(reference.read(tmp_path / "a.zarr", "t") - stored(tmp_path / "a.zarr", "t"))
    assert error.max() <= 2.0**-18 * model.scaling("t")[1] + 1e-4


def test_huffman_codes_and_tables_of_one_entry_are_the_same():
    rng = np.random.default_rng(0)
    for entries in (1, 2, 3, 40, 300):
        weights = np.rint(10 ** rng.uniform(0, 6, entries)).astype(int)
        for frequencies in (quantise_frequencies(weights), quantise_frequencies(weights // weights)):
            symbols = rng.integers(0, entries, 50)
            for coder, reader in zip(STATIC, (reference.Bitstream, reference.Range, reference.Huffman), strict=True):
                out = writer(coder)
                out.symbols(symbols, frequencies)
                out.bits(symbols, 32)
                stream = reader(out.getvalue())
                assert stream.symbols(frequencies.tolist(), 50) == symbols.tolist()
                assert stream.raw(50) == symbols.tolist()


def altered(data: bytes, kind: str) -> bytes:
    """A model file for a sphere or with a linear head: as sound as any, only that it was not trained so."""
    (length,) = struct.unpack_from("<I", data, 10)
    header, start = json.loads(data[14 : 14 + length]), 14 + length
    tensors = {}
    for name, dtype, shape, size in header["tensors"]:
        tensors[name] = [dtype, shape, data[start : start + size]]
        start += size
    rng = np.random.default_rng(0)

    def add(name: str, values: np.ndarray) -> None:
        tensors[name] = ["<f4", list(values.shape), values.astype("<f4").tobytes()]

    width, latent = header["spec"]["width"], header["spec"]["latent"]
    if kind == "sphere":
        header["system"], header["spec"]["d_in"] = {"system": "sphere"}, 3
        add("inr/siren.0.weight", rng.uniform(-0.1, 0.1, (width, 3)))
    if kind == "linear":
        header["spec"]["conditioning"] = "linear"
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("inr/gates")}
        last = header["spec"]["depth"] - 1
        add(f"inr/siren.{last}.weight", rng.uniform(-0.1, 0.1, (latent + 1, width)))
        add(f"inr/siren.{last}.bias", np.full(latent + 1, 0.5))
    header["tensors"] = [[name, dtype, shape, len(body)] for name, (dtype, shape, body) in tensors.items()]
    text = json.dumps(header).encode()
    file = data[:10] + struct.pack("<I", len(text)) + text + b"".join(body for _, _, body in tensors.values())
    return file + struct.pack("<I", zlib.crc32(file))


def test_damage_is_named(tmp_path):
    archive = tmp_path / "a.zarr"
    vcinr.compress(xr.Dataset({"v": (("time", "lat", "lon"), FIELD)}), archive, abs_error=0.1, chunk=4)
    chunk, node = archive / "v" / "c" / "1" / "0" / "0", archive / "v" / "zarr.json"
    good, metadata = chunk.read_bytes(), node.read_text()
    for position in (4, 9, 30, len(good) - 1):
        chunk.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(ValueError, match=r"checksum|unknown"):
            reference.read(archive, "v")
    chunk.unlink()
    with pytest.raises(ValueError, match="v/c/1/0/0 is missing"):
        reference.read(archive, "v")
    chunk.write_bytes(good)
    node.write_text(metadata.replace('"variable":"v"', '"variable":"v","fill":[7.0]'))
    with pytest.raises(ValueError, match="damaged"):
        reference.read(archive, "v")

    configuration = json.loads(metadata)["codecs"][0]["configuration"]
    for data, changes, match in [
        (good[:2] + b"\2" + good[3:], {}, "version 2"),
        (good, {"version": 2}, "version 2"),
        (good, {"scaling": [0.0, 2.0]}, "checksum"),
        (good, {"variable": "w"}, "checksum"),
        (good[:7], {}, "no chunk"),
    ]:
        with pytest.raises(ValueError, match=match):
            reference.decode_chunk(data, {**configuration, **changes}, np.dtype("f8"), [4, 12, 9], np.array(0.0))
    back = reference.decode_chunk(good, configuration, np.dtype("f8"), [4, 12, 9], np.array(0.0))
    assert np.array_equal(back, stored(archive, "v")[4:8])


def test_a_damaged_model_is_named(tiny_maps, tiny_model, tmp_path):
    vcinr.compress(waves(tiny_maps), tmp_path / "a.zarr", model=tiny_model)
    key = tmp_path / "a.zarr" / "vcinr" / "models" / tiny_model.sha256 / "c" / "0"
    key.write_bytes(key.read_bytes()[:-9] + bytes(9))
    with pytest.raises(ValueError, match=tiny_model.sha256):
        reference.read(tmp_path / "a.zarr", "t")
    (tmp_path / "a.zarr" / "vcinr" / "zarr.json").unlink()
    with pytest.raises(ValueError, match=f"{tiny_model.sha256} is damaged"):
        reference.read(tmp_path / "a.zarr", "t")
    key.unlink()
    with pytest.raises(ValueError, match="missing"):
        reference.read(tmp_path / "a.zarr", "t")


def test_it_stands_alone(tmp_path):
    """In a process of its own, from another folder: NumPy and the standard library, nothing else."""
    data = xr.Dataset({"v": (("time", "lat", "lon"), FIELD.astype("f4"))})
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1)
    (tmp_path / "decoder.py").write_text(SCRIPT.read_text())
    script = (
        "import sys, runpy\n"
        "sys.argv = ['decoder.py', 'a.zarr', 'v', 'v.npy']\n"
        "runpy.run_path('decoder.py', run_name='__main__')\n"
        "known = {m.split('.')[0] for m in sys.modules}\n"
        "assert not known & {'vcinr', 'constriction', 'zarr', 'numcodecs', 'xarray', 'scipy', 'torch'}, known\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=tmp_path)
    assert np.load(tmp_path / "v.npy").tobytes() == stored(tmp_path / "a.zarr", "v").tobytes()
    done = subprocess.run(
        [sys.executable, "decoder.py", "a.zarr", "nope"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and done.stderr == "error: nope/zarr.json is missing\n"
