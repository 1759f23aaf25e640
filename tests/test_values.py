"""Values of every kind: 2,000 generated arrays over dtypes, shapes, layouts and special values, under every bound."""

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vcinr
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Field, allowed_bytes, allowed_errors, errors_of, valid_values
from vcinr.errors import BoundError

DTYPES = [
    "f2",
    "f4",
    "f8",
    ">f2",
    ">f4",
    ">f8",
    "i1",
    "i2",
    "i4",
    "i8",
    "u1",
    "u2",
    "u4",
    "u8",
    ">i2",
    ">u4",
    ">i8",
    "?",
]
CONTENTS = ["smooth", "bits", "constant", "tiny", "huge", "steps", "missing"]
LAYOUTS = ["plain", "fortran", "strided", "reversed", "transposed"]


@st.composite
def cases(draw):
    """(values, field, bound, chunk shape); what is random beyond that comes from one seed."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = tuple(draw(st.lists(st.sampled_from([0, 1, 1, 2, 3, 5, 8]), min_size=0, max_size=5)))
    contents, layout = draw(st.sampled_from(CONTENTS)), draw(st.sampled_from(LAYOUTS))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    fill = draw(st.sampled_from([(), (1e20,), (-9999.0,), (1e20, -32768.0)]))
    values = make(contents, shape, dtype, rng)
    fill = tuple(f for f in fill if representable(f, dtype))
    values = sprinkle(values, fill, rng, draw(st.sampled_from([0.0, 0.0, 0.1, 0.5])))
    values = laid_out(values, layout)
    axes = [int(a) for a in rng.permutation(len(shape))[: rng.integers(0, min(3, len(shape)) + 1)]]
    field = Field("v", tuple(axes), fill=tuple(np.asarray(f).astype(dtype).item() for f in fill))
    kind = draw(st.sampled_from(["absolute"] * 6 + ["relative"] * 3 + ["psnr", "rate", None]))
    number = {
        "absolute": 10.0 ** draw(st.floats(-9, 6)), "relative": 10.0 ** draw(st.floats(-7, 0)),
        "psnr": draw(st.floats(10, 90)), "rate": draw(st.floats(1, 40)), None: 0.0,
    }[kind]  # fmt: skip
    bound = None if kind is None else Bound(kind, number)
    chunk = tuple(n + int(rng.integers(0, 3)) if n else 1 for n in values.shape)
    return values, field, bound, chunk if draw(st.booleans()) else values.shape


def representable(value, dtype):
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return np.isfinite(np.asarray(value).astype(dtype))
    return dtype.kind in "iu" and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max


def make(contents, shape, dtype, rng):
    count = int(np.prod(shape))
    if contents == "bits":
        raw = rng.integers(0, 256, count * dtype.itemsize, dtype=np.uint8)
        if dtype.kind == "b":
            raw = raw & 1
        return raw.view(dtype).reshape(shape)
    if contents == "smooth":
        field = sum(np.sin(np.arange(n).reshape([-1 if a == k else 1 for a in range(len(shape))]) / 3)
                    for k, n in enumerate(shape))  # fmt: skip
        field = 40 * field + rng.normal(0, 10.0 ** rng.uniform(-6, 1), shape)
    else:
        field = {
            "constant": np.full(shape, rng.choice([0.0, -0.0, 273.15, -1.0])),
            "tiny": rng.standard_normal(shape) * (np.finfo(dtype).smallest_subnormal * 9 if dtype.kind == "f" else 3),
            "huge": rng.choice([-1.0, 1.0], shape) * (0.999 * np.finfo(dtype).max if dtype.kind == "f" else 100.0),
            "steps": rng.integers(-3, 4, shape) * 12.5,
            "missing": np.full(shape, np.nan),
        }[contents]  # fmt: skip
    if dtype.kind == "f":
        return np.asarray(field).astype(dtype)
    if dtype.kind == "b":
        return np.asarray(np.nan_to_num(field) > 0)
    info = np.iinfo(dtype)
    return np.asarray(np.clip(np.nan_to_num(field), max(info.min, -(2**53)), min(info.max, 2**53))).astype(dtype)


def sprinkle(values, fill, rng, share):
    """NaN (with payloads), infinities, zeros of both signs, subnormals and fill values at random places."""
    values = values.copy()
    flat = values.reshape(-1)
    where = np.flatnonzero(rng.random(flat.size) < share)
    specials = [np.asarray(f).astype(values.dtype) for f in fill]
    if values.dtype.kind == "f":
        specials += [np.asarray(v).astype(values.dtype) for v in (np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0)]
        specials.append(np.finfo(values.dtype).smallest_subnormal)
    for i in where if specials else ():
        flat[i] = specials[rng.integers(len(specials))]
    return values


def laid_out(values, layout):
    if layout == "fortran":
        return np.asfortranarray(values)
    if layout == "strided" and values.ndim:
        return np.repeat(values, 2, axis=-1)[..., ::2]
    if layout == "reversed" and values.ndim:
        return values[::-1]
    return values.T if layout == "transposed" else values


def within(values, back, field, bound):
    """Everything that the codec promises of one array."""
    native = np.asarray(values.astype(values.dtype.newbyteorder("=")))
    assert back.dtype == native.dtype and back.shape == native.shape
    if native.dtype.kind == "b" or bound is None:
        assert back.tobytes() == native.tobytes()
        return
    kept = valid_values(native, field.fill)
    assert np.ascontiguousarray(native)[~kept].tobytes() == back[~kept].tobytes(), "NaN, Inf and fill values are exact"
    assert np.array_equal(valid_values(back, field.fill), kept), "nothing else becomes missing"
    if not kept.any():
        return
    errors = errors_of(native, back)
    if bound.kind in ("absolute", "relative"):
        assert (errors <= allowed_errors(native, bound))[kept].all()
    if bound.kind == "relative":
        assert (back[kept & (native == 0)] == 0).all()
    if bound.kind == "psnr" and np.square(errors[kept], dtype=np.float64).mean() > 0:
        spread = float(native[kept].max()) - float(native[kept].min())
        assert -10 * np.log10(np.square(errors[kept] / spread).mean()) >= bound.value - 1e-6


@settings(max_examples=2000, deadline=None, suppress_health_check=list(HealthCheck))
@given(cases(), st.sampled_from(["best", "fast"]))
def test_no_array_breaks_its_bound(case, effort):
    values, field, bound, chunk = case
    if bound is not None and bound.kind == "psnr":
        native = values.astype(values.dtype.newbyteorder("="))
        kept = native[valid_values(native, field.fill)].astype(np.float64) if values.dtype.kind != "b" else ()
        spread = float(kept.max()) - float(kept.min()) if len(kept) else 0.0
        spread = spread if np.isfinite(spread) else 0.0
        bound = Bound("psnr", bound.value, spread or 1.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow or an invalid cast is a defect here
        try:
            encoded = encode(values, field, bound, chunk_shape=chunk, effort=effort)
        except BoundError:
            assert bound is not None and bound.kind == "rate", "only a rate can be too low"
            return
        back = decode(encoded.data, chunk, values.dtype, field, padding=1)
    inside = tuple(slice(n) for n in values.shape)
    within(values, back[inside], field, bound)
    outside = np.ones(chunk, bool)
    outside[inside] = False
    assert (back[outside] == 1).all()
    if bound is not None and bound.kind == "rate" and values.size and values.dtype.kind != "b":
        assert len(encoded.data) <= allowed_bytes(bound.value, values.shape, chunk)
    again = encode(values, field, bound, chunk_shape=chunk, effort=effort)
    assert again.data == encoded.data


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 1), (0, 4), (2, 0, 3), (1,), (7,), (2, 3, 4, 5), (2, 1, 3, 2, 4)])
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i2", ">i4", "u1", "?", "i8"])
def test_shapes_and_types_through_the_archive(shape, dtype, tmp_path):
    values = make("smooth", shape, np.dtype(dtype), np.random.default_rng(0))
    dims = [f"d{i}" for i in range(len(shape))]
    data = xr.Dataset({"v": (dims, values), "w": (dims, values)}, {"scalar": 3.0})
    facts = vcinr.compress(data, tmp_path / "a.zarr", abs_error=2.0, variables=["v"])
    assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []
    with xr.open_zarr(tmp_path / "a.zarr") as back:
        assert back["v"].shape == shape and back["v"].dtype == values.dtype.newbyteorder("=")
        assert np.array_equal(back["w"], data["w"]) and back["scalar"] == 3.0
        if values.size and dtype != "?":
            assert float(np.abs(back["v"].values.astype("f8") - values.astype("f8")).max()) <= 2.0
    assert (facts["variables"]["v"]["note"] is None) == (values.size > 0 and dtype != "?")


def test_what_cannot_be_lossy_is_lossless_and_said(tmp_path):
    numbers = np.arange(12, dtype="i1").reshape(3, 4)
    data = xr.Dataset(
        {
            "text": (("x", "y"), np.array([["a", "bc"]] * 3)), "truth": (("x", "z"), numbers > 4),
            "wrapped": (("x", "z"), numbers, {"_Unsigned": "true"}), "complex": (("x", "z"), numbers * 1j),
            "when": ("x", np.array(["2000-01-01", "2000-01-02", "NaT"], "M8[ns]")), "one": ((), np.float32(1.5)),
            "v": (("x", "z"), numbers.astype("f4")),
        }
    )  # fmt: skip
    names = list(map(str, data.data_vars))
    facts = vcinr.compress(data, tmp_path / "a.zarr", abs_error=1.0, variables=names)
    said = {n: v["note"] for n, v in facts["variables"].items() if v["note"]} | {
        n: t for n, t in facts["kept"].items() if t
    }
    assert set(said) == set(names) - {"v", "when"} and "wrap around" in said["wrapped"] and "<U2" in said["text"]
    assert facts["variables"]["v"]["note"] is None
    back = vcinr.open(tmp_path / "a.zarr").load()
    for name in said:
        assert np.array_equal(back[name], data[name]), name
    assert back["text"].attrs["vcinr_note"].startswith("stored losslessly")
    assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []


def test_a_value_near_the_fill_value_does_not_become_missing(tmp_path):
    rng = np.random.default_rng(0)
    packed = rng.integers(-32767, -32600, (64, 64)).astype("i2")
    plain = rng.normal(size=(64, 64)).astype("f4")
    data = xr.Dataset(
        {"packed": (("y", "x"), packed, {"_FillValue": np.int16(-32768), "scale_factor": 0.01}),
         "plain": (("y", "x"), np.concatenate([plain[:32], -plain[:32]]), {"_FillValue": np.float32(0)})}
    )  # fmt: skip
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1)
    assert int(xr.open_zarr(tmp_path / "a.zarr").isnull().sum().to_array().sum()) == 0
    assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []


def test_no_value_leaves_the_valid_range(tmp_path):
    """Readers take what lies outside valid_min, valid_max and valid_range for missing."""
    rng = np.random.default_rng(0)
    rain = np.maximum(rng.standard_normal((4, 20, 20)).cumsum(1), 0).astype("f4")
    share = np.clip(rng.normal(50, 60, (4, 20, 20)), 0, 100).astype("i2")
    data = xr.Dataset(
        {"rain": (("t", "y", "x"), rain, {"valid_min": np.float32(0)}),
         "share": (("t", "y", "x"), share, {"valid_range": np.array([0, 100], "i2"), "scale_factor": 1.0}),
         "odd": (("t", "y", "x"), rain - 3, {"valid_min": np.float32(0), "valid_max": "none"})}
    )  # fmt: skip
    for bound in ({"abs_error": 0.4}, {"point_rel_error": 0.3}, {"psnr": 20.0}):
        vcinr.compress(data, tmp_path / "a.zarr", overwrite=True, **bound)
        back = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)
        assert float(back["rain"].min()) == 0 and int(back["share"].min()) >= 0 and int(back["share"].max()) <= 100
        assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []
        assert float(np.abs(back["odd"] - data["odd"]).max()) <= bound.get("abs_error", 9), (
            "values outside are kept too"
        )
    third = Field("v", (0,), limits=(0.1, 0.3))
    values = np.full(50, 0.2, "f4")
    back = decode(encode(values, third, 0.2).data, (50,), values.dtype, third)
    assert (back >= 0.1).all() and (back <= 0.3).all()


def test_both_kinds_of_missing_value_are_exact(tmp_path):
    values = np.random.default_rng(0).normal(5, 1, (4, 6, 6)).astype("f4")
    values[0, :3], values[1, 2:], values[2, 0, 0] = 1e20, -99.0, np.nan
    attrs = {"_FillValue": np.float32(1e20), "missing_value": np.array([-99.0, 1e20], "f4")}
    data = xr.Dataset({"v": (("t", "y", "x"), values, attrs)})
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.5)
    assert vcinr.verify(tmp_path / "a.zarr", data)[0] == []
    raw = xr.open_zarr(tmp_path / "a.zarr", mask_and_scale=False)["v"].values
    for special in (np.float32(1e20), np.float32(-99.0)):
        assert np.array_equal(raw == special, values == special)
    assert np.abs(raw - values)[(values < 50) & (values > -50)].max() <= 0.5
    integers = xr.Dataset(
        {"v": (("y", "x"), np.arange(40, dtype="i2").reshape(5, 8), {"missing_value": 1e20, "_FillValue": 7})}
    )
    vcinr.compress(integers, tmp_path / "b.zarr", abs_error=3, variables=["v"])
    assert vcinr.open(tmp_path / "b.zarr", decode=False)["v"].values[0, 7] == 7


@pytest.mark.parametrize(("dtype", "scale", "offset"), [("i2", 0.01, 270.0), ("i2", np.float32(0.01), np.float32(270)),
                                                       ("u1", 0.5, 0.0), ("i4", 1e-4, -30.0)])  # fmt: skip
def test_the_bound_holds_for_what_packed_values_unpack_to(dtype, scale, offset, tmp_path):
    """Even where the bound is a whole number of steps and readers unpack in float32."""
    info = np.iinfo(dtype)
    values = np.random.default_rng(0).integers(max(info.min, -30000), min(info.max, 30000), (6, 20, 20)).astype(dtype)
    values[:, :5] = np.sort(values[:, :5], axis=None).reshape(6, 5, 20)
    data = xr.Dataset({"v": (("t", "y", "x"), values, {"scale_factor": scale, "add_offset": offset})})
    bound = 5 * float(scale)
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=bound)
    there = xr.decode_cf(data)["v"].values
    assert vcinr.open(tmp_path / "a.zarr")["v"].dtype == there.dtype
    for back in (xr.open_zarr(tmp_path / "a.zarr")["v"].values, vcinr.open(tmp_path / "a.zarr")["v"].values):
        assert 0 < np.abs(back.astype("f8") - there.astype("f8")).max() <= bound
