"""Chunk codec: the bound, masks, dtypes, damage; property tests over generated arrays."""

import pickle
import warnings
from dataclasses import replace
from functools import partial, reduce

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vcinr.codec import trial
from vcinr.codec.chunk import describe, seed_of
from vcinr.codec.decode import decode, restore
from vcinr.codec.encode import encode as encode_chunk
from vcinr.codec.latents import Latents
from vcinr.codec.prior import on_domain
from vcinr.codec.promise import Bound, Field, allowed_errors, errors_of, valid_values
from vcinr.coding import residual
from vcinr.coding.residual import interpolated
from vcinr.coding.tables import levels_of
from vcinr.config import Params
from vcinr.errors import BoundError, CorruptError, InputError, ModelError, VcinrError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model, with_quantiser
from vcinr.inr.siren import initialise
from vcinr.inr.spec import InrSpec
from vcinr.quality import psnr_db
from vcinr.quantise.state import Quantiser
from vcinr.signals import Grid, Points
from vcinr.training import train

FLOATS = ["f2", "f4", "f8", ">f4", ">f8"]
INTEGERS = ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]


def field_of(shape, fill=()):
    axes = tuple(range(max(0, len(shape) - 2), len(shape)))
    return Field("v", axes, Grid(tuple(np.arange(float(shape[a])) for a in axes)), fill=fill)


def check(values, bound, fill=(), effort="best"):
    field = field_of(values.shape, fill)
    encoded = encode_chunk(values, field, bound, effort=effort)
    back = decode(encoded.data, values.shape, values.dtype, field)
    native = values.astype(values.dtype.newbyteorder("="))
    assert back.dtype == native.dtype and back.shape == native.shape
    kept = valid_values(native, fill)
    worst = errors_of(native, back)[kept].max(initial=0)
    assert worst <= bound and worst == encoded.max_abs_error
    assert native[~kept].tobytes() == back[~kept].tobytes()
    return encoded


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_bound_holds_for_any_floats(data):
    dtype = np.dtype(data.draw(st.sampled_from(FLOATS)))
    shape = tuple(data.draw(st.lists(st.integers(0, 6), min_size=0, max_size=5)))
    values = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype)))
    bound = 10 ** data.draw(st.floats(-8, 5))
    fill = data.draw(st.sampled_from([None, 1e20 if dtype.itemsize > 2 else 6e4]))
    if fill is not None and values.size:
        values = values.copy()
        values.flat[:: data.draw(st.integers(1, 4))] = fill
    fill = () if fill is None else (float(np.asarray(fill, dtype)),)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an overflow or an invalid cast is a defect here
        check(values, bound, fill, data.draw(st.sampled_from(["best", "fast"])))


@settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_relative_bound_holds_at_every_point(data):
    dtype = np.dtype(data.draw(st.sampled_from([*FLOATS, "i4", "u1"])))
    shape = tuple(data.draw(st.lists(st.integers(0, 6), min_size=0, max_size=4)))
    values = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype)))
    bound = Bound("relative", 10 ** data.draw(st.floats(-6, 0)))
    field = field_of(shape)
    back = decode(encode_chunk(values, field, bound).data, shape, dtype, field)
    native = values.astype(dtype.newbyteorder("="))
    kept = valid_values(native, ())
    assert (errors_of(native, back)[kept] <= np.broadcast_to(allowed_errors(native, bound), shape)[kept]).all()
    assert native[~kept].tobytes() == back[~kept].tobytes()
    assert ((native == 0) <= (back == 0)).all()


@pytest.mark.parametrize("target", [30.0, 60.0])
def test_psnr_is_met_closely(target):
    values = np.random.default_rng(0).standard_normal((6, 20, 20)).cumsum(1).cumsum(2)
    spread = np.ptp(values)
    encoded = encode_chunk(values, field_of(values.shape), Bound("psnr", target, spread))
    found = -10 * np.log10(encoded.squared_error / encoded.valid / spread**2)
    assert target <= found < target + 1.5


@pytest.mark.parametrize("target", [0.5, 3.0, 12.0])
def test_rate_is_kept_and_used(target):
    values = np.random.default_rng(0).standard_normal((6, 20, 20)).cumsum(1).cumsum(2)
    encoded = encode_chunk(values, field_of(values.shape), Bound("rate", target))
    assert 0.8 * target < 8 * len(encoded.data) / values.size <= target
    with pytest.raises(BoundError, match="allow more"):
        encode_chunk(values[:1, :2, :2], field_of((1, 2, 2)), Bound("rate", 0.1))


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_bound_holds_for_any_integers(data):
    dtype = np.dtype(data.draw(st.sampled_from(INTEGERS)))
    shape = tuple(data.draw(st.lists(st.integers(0, 6), min_size=1, max_size=4)))
    values = data.draw(hnp.arrays(dtype, shape, elements=hnp.from_dtype(dtype)))
    check(values, data.draw(st.sampled_from([0.5, 1, 2.5, 100, 1e6])), (), data.draw(st.sampled_from(["best", "fast"])))


@pytest.mark.parametrize("bound", [1e-6, 1e-3, 0.1, 3.0])
@pytest.mark.parametrize("dtype", ["f4", "f8", "f2"])
def test_smooth_field(bound, dtype):
    t, y, x = np.meshgrid(np.arange(10), np.linspace(0, 3, 21), np.linspace(0, 3, 17), indexing="ij")
    values = (10 * np.sin(x + 0.1 * t) * np.cos(y)).astype(dtype)
    encoded = check(values, bound)
    if bound >= 0.1:
        assert len(encoded.data) < values.nbytes / 10


def test_masked_points_cost_little():
    rng = np.random.default_rng(0)
    values = np.sin(np.linspace(0, 3, 40))[None, :, None] + 0.01 * rng.standard_normal((24, 40, 40))
    values = values.astype("f4")
    whole = check(values, 0.01)
    holed = values.copy()
    holed[:, 10:30, 10:30] = np.nan
    holed[3, 5, 5] = np.inf
    holed[4, 5, 5] = -np.inf
    assert len(check(holed, 0.01).data) < len(whole.data)
    filled = np.where(np.isnan(holed), np.float32(1e20), values)
    assert len(check(filled, 0.01, (float(np.float32(1e20)),)).data) < len(whole.data)


def test_constant_field_is_a_few_bytes():
    assert len(check(np.full((48, 30, 30), 273.15, "f4"), 0.1).data) < 40


def test_no_bound_and_no_model_is_lossless():
    values = np.random.default_rng(0).standard_normal((3, 4, 5))
    values[0, 0, 0] = np.nan
    field = field_of(values.shape)
    encoded = encode_chunk(values, field, None)
    back = decode(encoded.data, values.shape, values.dtype, field)
    assert back.tobytes() == values.tobytes() and encoded.mode == "lossless"


def test_noise_is_never_larger_than_lossless():
    values = np.random.default_rng(0).integers(0, 2**32, (4, 8, 8), dtype=np.uint32).view("f4")
    field = field_of(values.shape)
    tight = encode_chunk(values, field, 1e-30)
    assert len(tight.data) <= len(encode_chunk(values, field, None).data)


def test_partial_chunk_is_padded():
    values = np.arange(60.0, dtype="f4").reshape(3, 4, 5)
    field = field_of(values.shape)
    for bound in (0.1, None):
        data = encode_chunk(values, field, bound, chunk_shape=(8, 4, 5)).data
        back = decode(data, (8, 4, 5), values.dtype, field, padding=-1)
        assert np.abs(back[:3] - values).max() <= 0.1 and (back[3:] == -1).all()


def test_same_input_same_bytes():
    values = np.random.default_rng(0).standard_normal((5, 9, 9)).cumsum(1)
    assert (
        encode_chunk(values, field_of(values.shape), 0.05).data
        == encode_chunk(values, field_of(values.shape), 0.05).data
    )


def test_every_flipped_bit_is_caught():
    values = np.random.default_rng(0).standard_normal((4, 6, 6)).astype("f4")
    field = field_of(values.shape)
    data = encode_chunk(values, field, 0.1).data
    for position in range(len(data)):
        damaged = bytearray(data)
        damaged[position] ^= 1 << (position % 8)
        with pytest.raises(CorruptError):
            decode(bytes(damaged), values.shape, values.dtype, field)
    for length in range(0, len(data), 7):
        with pytest.raises(CorruptError):
            decode(data[:length], values.shape, values.dtype, field)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_malicious_bodies_raise_our_errors_only(data):
    """With a correct checksum over wrong contents: an error of ours or an array, nothing else."""
    import struct
    import zlib

    values = np.random.default_rng(0).standard_normal((3, 5, 5)).astype("f4")
    field = field_of(values.shape)
    body = bytearray(encode_chunk(values, field, 0.1).data)
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(8, len(body) - 1))] = data.draw(st.integers(0, 255))
    body[3] = data.draw(st.sampled_from([0, 1]))
    seed = seed_of(field, values.dtype, values.shape)
    body[4:8] = struct.pack("<I", zlib.crc32(bytes(body[8:]), zlib.crc32(bytes(body[2:4]), seed)))
    try:
        back = decode(bytes(body), values.shape, values.dtype, field)
        assert back.shape == values.shape
    except VcinrError:
        pass


def test_a_chunk_with_a_prior_needs_its_model(tiny_model, tiny_maps):
    field = Field("t", (1, 2), tiny_maps.domain, tiny_model, tiny_model.scaling("t"))
    values = tiny_maps.splits["test"].features[..., 0]
    encoded = encode_chunk(values, field, None)
    assert encoded.mode == "prior"
    with pytest.raises(CorruptError, match="metadata"):
        decode(encoded.data, values.shape, values.dtype, field_of(values.shape))


@pytest.mark.parametrize("fraction", [0.3, 0.1, 0.01, 0.001])
def test_bound_with_a_prior(tiny_model, tiny_maps, fraction):
    offset, scale = tiny_model.scaling("t")
    field = Field("t", (1, 2), tiny_maps.domain, tiny_model, (offset, scale))
    values = tiny_maps.splits["test"].features[..., 0].copy()
    values[0, 2, 3] = np.nan
    encoded = encode_chunk(values, field, fraction * scale)
    back = decode(encoded.data, values.shape, values.dtype, field)
    assert np.nanmax(np.abs(back - values)) <= fraction * scale
    assert np.isnan(back[0, 2, 3]) and np.isnan(back).sum() == 1
    for rate in (0, 1):  # on these smooth waves the prior is never the smallest: have it tried alone
        forced = encode_chunk(values, field, fraction * scale, rate=rate)
        if forced.mode == "lossless":  # which smooth waves in single precision take little for
            assert fraction < 0.01
        else:
            assert forced.mode.startswith("prior") and describe(forced.data)["rate"] == rate
        back = decode(forced.data, values.shape, values.dtype, field)
        assert np.nanmax(np.abs(back - values)) <= fraction * scale and np.isnan(back[0, 2, 3])
    alone = encode_chunk(values, Field("t", (1, 2), tiny_maps.domain), fraction * scale)
    assert len(encoded.data) <= len(alone.data)  # the prior is one candidate among the fallback's


def test_best_effort_reads_the_rate_asked_for(tiny_model, tiny_maps):
    field = Field("t", (1, 2), tiny_maps.domain, tiny_model, tiny_model.scaling("t"))
    values = tiny_maps.splits["test"].features[..., 0]
    coarse, fine = encode_chunk(values, field, None, rate=0), encode_chunk(values, field, None)
    assert len(coarse.data) < len(fine.data) and coarse.mode == fine.mode == "prior"
    assert describe(coarse.data)["rate"] == 0
    with pytest.raises(ModelError, match="rates"):
        encode_chunk(values, field, None, rate=99)


def test_an_effort_changes_bytes_and_no_promise(tiny_model, tiny_maps):
    values = tiny_maps.splits["test"].features[..., 0]
    spread = float(np.ptp(values))
    for model in (tiny_model, None):
        scaling = tiny_model.scaling("t") if model else (0.0, 1.0)
        field = Field("t", (1, 2), tiny_maps.domain, model, scaling)
        for bound in (Bound("absolute", 0.5), Bound("psnr", 40.0, spread), Bound("rate", 2.0)):
            best, fast = (encode_chunk(values, field, bound, effort=e) for e in ("best", "fast"))
            for encoded in (best, fast):
                back = decode(encoded.data, values.shape, values.dtype, field)
                error = np.abs(back.astype(float) - values)
                assert encoded.max_abs_error == error.max()
                if bound.kind == "absolute":
                    assert error.max() <= 0.5
                elif bound.kind == "psnr":
                    assert psnr_db(spread, (error**2).sum(), error.size) >= 40.0
                else:
                    assert 8 * len(encoded.data) <= 2.0 * values.size
            if bound.kind == "absolute":
                assert len(best.data) <= len(fast.data)
    with pytest.raises(InputError, match="fast, best"):
        encode_chunk(values, field, 0.5, effort="some")


def test_a_rate_is_decoded_once_for_all_bounds(tiny_model, tiny_maps, monkeypatch):
    values = tiny_maps.splits["test"].features[..., 0]
    field = Field("t", (1, 2), tiny_maps.domain, tiny_model, tiny_model.scaling("t"))
    calls, evaluated = [], Latents._output
    monkeypatch.setattr(Latents, "_output", lambda self, z, rate: calls.append(rate) or evaluated(self, z, rate))
    encode_chunk(values, field, Bound("psnr", 30.0, float(np.ptp(values))))
    assert sorted(calls) == sorted(set(calls)) and calls


def test_a_chunk_is_bound_to_its_metadata():
    """Read under another grid, scaling, fill, dtype or shape, a chunk is an error and not another value."""
    values = np.random.default_rng(0).standard_normal((4, 6, 6)).astype("f4")
    field = field_of(values.shape)
    data = encode_chunk(values, field, 0.1).data
    others = [
        replace(field, domain=Grid((field.domain.columns[0], field.domain.columns[1] + 1))),
            replace(field, feature_axis=0), replace(field, scaling=(0.0, 2.0)),
        replace(field, fill=(3.0,)), replace(field, signal_axes=(2, 1)), replace(field, variable="w"),
    ]  # fmt: skip
    for other in others:
        with pytest.raises(CorruptError, match="metadata"):
            decode(data, values.shape, values.dtype, other)
    for shape, dtype in (((4, 6, 6), "f8"), ((2, 12, 6), "f4"), ((5, 6, 6), "f4")):
        with pytest.raises(CorruptError):
            decode(data, shape, np.dtype(dtype), field)


@pytest.mark.parametrize("dims", [("x",), ("z", "y", "x")])
def test_a_model_of_signals_with_one_or_three_axes(tmp_path, dims):
    rng = np.random.default_rng(0)
    grid = {"x": 40} if len(dims) == 1 else {"z": 4, "y": 6, "x": 9}
    waves = [np.cos(np.linspace(0, 3, n)) for n in grid.values()]
    shape = reduce(np.multiply.outer, waves)
    values = rng.standard_normal((24, *(1 for _ in grid))) * shape + 0.01 * rng.standard_normal((24, *shape.shape))
    data = xr.Dataset({"v": (("time", *grid), values.astype(np.float32))})
    small = Params(
        inr={"width": 16, "depth": 3, "latent": 4}, meta={"steps": 60, "batch": 4, "validate_every": 30},
        quantiser={"steps": 60, "lambdas": (10.0, 1000.0)}, threads=1,
    )  # fmt: skip
    model = train(data, tmp_path / "m.vcinr", signal_dims=dims, params=small)
    field = Field("v", tuple(range(1, values.ndim)), Grid(tuple(np.arange(float(n)) for n in grid.values())), model,
                        model.scaling("v"))  # fmt: skip
    for chunk in (values[:6], values[:1], values):
        chunk = chunk.astype(np.float32)
        for rate in (None, 1):
            encoded = encode_chunk(chunk, field, 0.2, rate=rate)
            assert np.abs(decode(encoded.data, chunk.shape, chunk.dtype, field) - chunk).max() <= 0.2
        assert "prior" in encoded.mode
        holed = np.where(rng.random(chunk.shape) < 0.1, np.nan, chunk).astype(np.float32)
        for wanted, bound in ((chunk, 1.0), (holed, 1.0), (chunk, 0.001)):
            encoded = encode_chunk(wanted, field, bound, effort="fast")
            back = decode(encoded.data, chunk.shape, chunk.dtype, field)
            assert np.array_equal(np.isnan(wanted), np.isnan(back))
            assert np.nanmax(np.abs(back - wanted)) == encoded.max_abs_error <= bound
            assert ("prior" in encoded.mode) == (bound == 1.0)  # a model that leaves much to code is not taken


def test_the_slack_grows_with_what_the_network_gives(tiny_model, tiny_maps):
    """Far outside the training range float32 rounds as much more: the bound must hold on other machines there too."""
    field = Field("t", (1, 2), tiny_maps.domain, tiny_model, tiny_model.scaling("t"))
    offered = Latents(field, np.zeros((1, tiny_model.spec.latent), "f4"), (11, 13), None)
    scale = tiny_model.scaling("t")[1]
    assert offered.slack(np.array([0.2, -1.0])) == tiny_model.slack * scale
    assert offered.slack(np.array([0.2, -50.0])) == pytest.approx(50 * tiny_model.slack * scale)


def test_a_rate_that_fast_coding_misses_is_tried_at_best(tiny_model, tiny_maps):
    values = tiny_maps.splits["test"].features[..., 0]
    field = Field("t", (1, 2), tiny_maps.domain, tiny_model, tiny_model.scaling("t"))
    fast = encode_chunk(values, field, Bound("absolute", float(np.ptp(values))), effort="fast")
    best = encode_chunk(values, field, Bound("absolute", float(np.ptp(values))), effort="best")
    rate = 8 * (len(best.data) + 1) / values.size
    found = encode_chunk(values, field, Bound("rate", rate), effort="fast")
    assert 8 * len(found.data) <= rate * values.size and len(fast.data) >= len(best.data)


@pytest.fixture(scope="module")
def neural_basis():
    """An untrained linear head of 16 latents, quantised at two rates, and maps that its first two make up, nearly."""
    spec = InrSpec(2, 1, 16, 4, 30.0, 16, "linear", 1, 0, 0)
    params = {**initialise(spec, 3), "alpha": np.ones(16, "f4")}
    box = {"system": "box", "bounds": [[0.0, 1.0], [0.0, 1.0]]}
    model = Model(spec, params, box, ("y", "x"), {"t": (200.0, 50.0)}, 1, 4096)
    zero = {k: np.zeros(s, "f4") for k, s in (("in.weight", (0, 16)), ("in.bias", 0), ("out.weight", (16, 0)))}
    net = {
        f"{n}.{k}": v for n in ("analysis", "synthesis") for k, v in (zero | {"out.bias": np.zeros(16, "f4")}).items()
    }
    net |= {"mean": np.zeros(16, "f4"), "std": np.ones(16, "f4")}
    frequency = np.full((2, 16, 42), 1598, np.int32)
    frequency[..., 0] = 18
    offset, gain = np.full((2, 16), -20, np.int32), np.repeat(np.array([[4.0], [32.0]], "f4"), 16, 1)
    quantiser = Quantiser(net, 0, gain, offset, levels_of(frequency))
    model = with_quantiser(model, quantiser.to_tensors(), {})
    grid = Grid((np.linspace(0, 1, 24), np.linspace(0, 1, 30)))
    rng = np.random.default_rng(0)
    phi = np.zeros((20, 16), "f4")
    phi[:, :2] = rng.normal(size=(20, 2)) * 4
    field = Field("t", (1, 2), grid, model, model.scaling("t"))
    values = on_domain(model, grid).at.reconstruct(model.start("t") + phi).reshape(20, 24, 30) * 50.0 + 200
    return field, (values + 0.3 * rng.normal(size=values.shape)).astype("f4")


@pytest.mark.parametrize("effort", ["best", "fast"])
def test_no_more_latents_than_are_worth_their_bytes(neural_basis, effort, monkeypatch):
    field, values = neural_basis
    encode = partial(encode_chunk, values, field, 2.0, rate=1, effort=effort)
    few = encode()
    monkeypatch.setattr(Latents, "lengths", [])
    all_of_them = encode()
    assert all(e.mode.startswith("prior") and e.max_abs_error <= 2.0 for e in (few, all_of_them))
    assert len(few.data) < 0.8 * len(all_of_them.data)


def test_a_linear_head_is_the_same_whatever_path_adds_its_latents(neural_basis, monkeypatch):
    """One by one where few differ between signals, as a matrix product where many do."""
    field, _ = neural_basis
    model, rng = field.model, np.random.default_rng(1)
    at = on_domain(model, field.domain).at
    phi = rng.normal(size=(7, 16)).astype("f4")
    phi[:, 5:9] = phi[0, 5:9]
    psi_0, psi = (a.astype(float) for a in at.basis())
    exact = psi_0 + phi.astype(float) @ psi
    for few in (0, 16):
        monkeypatch.setattr("vcinr.inr.at._FEW", few)
        assert np.abs(at.reconstruct(phi)[..., 0] - exact).max() < 2e-5


def test_a_psnr_is_met_in_the_mean_and_not_at_every_value(neural_basis, monkeypatch):
    field, values = neural_basis
    peak = float(np.ptp(values))
    encode = partial(encode_chunk, values, field, Bound("psnr", 20 * np.log10(peak / 0.2), peak), rate=1)
    dead = encode()
    monkeypatch.setattr(trial, "_DEAD", 0.0)
    rounded = encode()
    for encoded in (dead, rounded):
        assert np.sqrt(encoded.squared_error / encoded.valid) <= 0.2 and encoded.mode == "prior+residual"
    assert len(dead.data) < len(rounded.data)


@given(st.data())
def test_what_is_restored_is_what_its_parts_say(data):
    dtype = data.draw(st.sampled_from([np.dtype("f4"), np.dtype("f8")]))
    number = st.floats(-1e6, 1e6)
    prior = data.draw(st.none() | hnp.arrays("f4", (3, 5), elements=st.floats(-1e6, 1e6, width=32)))
    left = data.draw(st.none() | hnp.arrays("f8", (3, 5), elements=number))
    offset, scale, constant = data.draw(number), data.draw(number), data.draw(st.just(0.0) | number)
    low, high = sorted((data.draw(number), data.draw(number)))
    expected = np.zeros((3, 5)) if prior is None else prior.astype(float) * scale + offset
    if constant:
        expected = expected + constant
    if left is not None:
        expected = expected + left
    out = np.empty((3, 5), dtype)
    restore(prior, (offset, scale), constant, left, (low, high), out)
    assert np.array_equal(out, np.clip(expected, low, high).astype(dtype))


@pytest.mark.parametrize("scale", [1e9, 1e15])
def test_fast_coding_of_values_that_are_large_for_their_bound(scale):
    values = np.random.default_rng(0).normal(size=(4, 30, 40)) * scale
    check(values, 1e-3 * max(1.0, scale / 1e14), effort="fast")


def test_fast_coding_leaves_out_a_model_whose_slack_is_larger_than_the_bound(neural_basis):
    field, values = neural_basis
    tight = 0.5 * field.model.slack * field.scaling[1]
    encoded = encode_chunk(values.astype("f8"), field, tight, effort="fast")
    assert encoded.mode == "residual" and encoded.max_abs_error <= tight


def test_best_is_never_larger_than_fast():
    """Where codes are large for the adaptive contexts, the interpolating coder is the smaller."""
    t, y, x = np.meshgrid(np.arange(6), np.linspace(0, 3, 60), np.linspace(0, 2, 70), indexing="ij")
    smooth = 10 * np.sin(x + 0.3 * t) * np.cos(y) + 0.01 * np.random.default_rng(0).standard_normal(t.shape)
    for bound in (1e-2, 1e-5, 1e-7):
        assert len(check(smooth, bound).data) <= len(check(smooth, bound, effort="fast").data)


def test_what_is_kept_of_a_model_is_of_its_grid(neural_basis):
    """psi_0 may be the same on two grids of a size: what the latents add to it is not."""
    field, _ = neural_basis
    weights = dict(field.model.params)
    for name in ("weight", "bias"):
        last = weights[f"siren.3.{name}"].copy()
        last[0] = 0
        weights[f"siren.3.{name}"] = last
    phi = np.ones((3, 16), "f4")
    model = replace(field.model, params=weights)
    clouds = [Points(tuple(np.random.default_rng(k).uniform(0, 1, (2, 50)))) for k in range(2)]
    for cloud in clouds:
        found = on_domain(model, cloud).at.reconstruct(phi)
        assert np.allclose(found, ModelAt(model, cloud.inputs(model.system)).reconstruct(phi)) and found.std() > 0
    assert on_domain(model, Points(clouds[0].columns)) is on_domain(model, clouds[0])
    assert len(pickle.dumps(model)) < 2 * len(pickle.dumps(replace(model)))


def test_a_sample_sees_every_level():
    """An empty top level says nothing of what is below."""
    values = np.random.default_rng(0).normal(size=(12, 8, 40, 40))
    values[:, 0] = 0.0
    plan, size = interpolated.CODER.estimate(values, 0.1, None)
    coded, _ = residual.encode(values, 0.1, plan)
    assert 0.5 < size / len(coded) < 2
