"""Entropy coding: exact round trips, coded length against the model's, adversarial values."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vcinr.coding import kernels, latents, mask, residual
from vcinr.coding.ans import TOTAL, Reader, Writer, quantise_frequencies
from vcinr.errors import CorruptError


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_frequencies_are_positive_and_sum_to_the_total(weights):
    frequencies = quantise_frequencies(np.array(weights))
    assert frequencies.min() >= 1 and frequencies.sum() == TOTAL


def test_coded_length_is_the_entropy():
    rng = np.random.default_rng(0)
    frequencies = quantise_frequencies(np.array([1, 5, 30, 200, 30, 5, 1]))
    symbols = rng.choice(7, 20_000, p=frequencies / TOTAL)
    writer = Writer()
    writer.symbols(symbols, frequencies)
    ideal = -np.log2(frequencies[symbols] / TOTAL).sum()
    assert ideal < 8 * len(writer.getvalue()) < ideal * 1.001 + 64


@given(st.lists(st.tuples(st.lists(st.integers(0, 4), max_size=50), st.integers(1, 48)), min_size=1, max_size=8))
def test_calls_are_read_back_in_the_order_written(calls):
    frequencies = quantise_frequencies(np.array([1, 2, 3, 4, 5]))
    writer = Writer()
    for symbols, width in calls:
        writer.symbols(np.array(symbols, int), frequencies)
        writer.bits(np.array(symbols, np.int64) & ((1 << width) - 1), width)
    reader = Reader(writer.getvalue())
    for symbols, width in calls:
        assert reader.symbols(len(symbols), frequencies).tolist() == symbols
        assert reader.bits(len(symbols), width).tolist() == [s & ((1 << width) - 1) for s in symbols]


def test_symbol_outside_its_table_is_refused():
    with pytest.raises(ValueError, match="outside"):
        Writer().symbols(np.array([5]), quantise_frequencies(np.ones(5)))


def test_a_stream_of_odd_length_is_an_error():
    with pytest.raises(CorruptError):
        Reader(b"abc")


PLANS = [
    residual.Plan(predictor, temporal, tighten)
    for predictor, temporal, tighten in [
        ("plain", True, 0),
        ("plain", False, 0),
        ("adaptive", True, 0),
        ("adaptive", False, 3),
    ]
]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_residual_holds_its_step_and_decodes_identically(data):
    shape = tuple(data.draw(st.tuples(*(st.integers(1, 9) for _ in range(4)))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.standard_normal(shape).cumsum(-1) * 10 ** data.draw(st.integers(-3, 3))
    if data.draw(st.booleans()):
        values[rng.random(shape) < 0.8] = 0
    valid = rng.random(shape) < 0.7 if data.draw(st.booleans()) else None
    step = 10 ** data.draw(st.floats(-8, 2))
    plan = data.draw(st.sampled_from(PLANS))
    coded, recon = residual.encode(values, step, plan, valid)
    where = slice(None) if valid is None else valid
    scale = np.abs(values).max()
    assert np.abs(recon - values)[where].max(initial=0) <= 0.5 * step + 1e-12 * scale
    assert residual.Plan.from_bytes(plan.to_bytes()) == plan
    back = residual.decode(coded, shape, step, plan, valid)
    assert (back == recon).all()  # to the last bit


@pytest.mark.parametrize("plan", PLANS)
def test_a_stream_that_is_cut_or_lengthened_is_an_error(plan):
    values = np.random.default_rng(0).standard_normal((3, 2, 9, 9))
    coded, _ = residual.encode(values, 1e-3, plan)
    for wrong in (coded[:-5], coded + bytes(5)):
        with pytest.raises(CorruptError, match="does not end"):
            residual.decode(wrong, values.shape, 1e-3, plan)


@pytest.mark.parametrize("plan", PLANS)
def test_residual_is_smaller_on_smooth_fields_than_noise(plan):
    t, y, x = np.meshgrid(np.arange(8), np.linspace(0, 3, 33), np.linspace(0, 3, 33), indexing="ij")
    smooth = (np.sin(x + 0.1 * t) * np.cos(y))[:, None]
    noise = np.random.default_rng(0).permutation(smooth.ravel()).reshape(smooth.shape)
    size = [len(residual.encode(field, 1e-2, plan)[0]) for field in (smooth, noise)]
    assert size[0] < (0.15 if plan.predictor == "adaptive" else 0.6) * size[1]


def test_planes_before_are_used():
    rng = np.random.default_rng(0)
    once = rng.standard_normal((1, 1, 40, 40))
    again = np.repeat(once, 8, 0) + 1e-4 * rng.standard_normal((8, 1, 40, 40))
    sizes = [len(residual.encode(again, 1e-2, residual.Plan(temporal=t))[0]) for t in (True, False)]
    assert sizes[0] < 0.4 * sizes[1]
    levels = again.swapaxes(0, 1)
    assert len(residual.encode(levels, 1e-2, residual.Plan())[0]) < 0.4 * sizes[1]


def test_zeros_are_nearly_free():
    sparse = np.zeros((20, 1, 40, 40))
    sparse[7, 0, 20, 20:23] = 5.0
    assert len(residual.encode(sparse, 1.0, residual.Plan("plain"))[0]) < 16


def test_overflow_is_reported():
    for plan in PLANS:
        with pytest.raises(OverflowError):
            residual.encode(np.array([[[[0.0, 1e300]]]]), 1e-9, plan)


def _rate(values):
    """Bits of integers coded under one context, as coded and as an adaptive code of their frequencies would need."""
    coder, data = kernels.coder(2), np.empty(0, np.uint8)
    coder.context[:] = 0
    for value in values:
        data = kernels.reserve(coder.state, data, 1)
        kernels.integer(coder, data, int(value), 0, 0, 0, True)
    _, counts = np.unique(values, return_counts=True)
    entropy = -(counts * np.log2(counts / len(values))).sum()
    return 8 * len(kernels.stream(coder, data)), entropy


def test_coded_length_of_integers_is_near_their_entropy():
    rng = np.random.default_rng(0)
    for scale in (0.1, 0.5, 2.0):
        coded, entropy = _rate(np.rint(rng.laplace(0, scale, 20_000)).astype(int))
        assert entropy * 0.99 < coded < entropy * 1.02 + 300


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(1 - kernels.LIMIT, kernels.LIMIT - 1)),
    st.integers(0, 40), st.booleans(),
)  # fmt: skip
def test_integers_of_any_size_round_trip(values, shift, known):
    coder, data = kernels.coder(2), np.empty(0, np.uint8)
    if known:
        values, shift = values[values != 0], 0
    for k, value in enumerate(values):
        data = kernels.reserve(coder.state, data, 1)
        coder.context[:] = k & 1
        kernels.integer(coder, data, int(value), int(known), shift, 0, True)
    stream = kernels.stream(coder, data)
    coder = kernels.coder(2)
    data = kernels.open_stream(coder, stream)
    for k, value in enumerate(values):
        coder.context[:] = k & 1
        assert kernels.integer(coder, data, 0, int(known), shift, 0, False) == value
    kernels.check_end(coder, data)


def test_carries_go_through_runs_of_ones():
    """Decisions of even odds that keep the low end just below a power of two, then one that carries."""
    for bits in ([1] * 200 + [0], [1] * 77 + [0] * 3 + [1] * 300, [0] * 50):
        coder, data = kernels.coder(1), np.empty(0, np.uint8)
        data = kernels.reserve(coder.state, data, len(bits))
        for value in bits:
            kernels._raw(coder.state, data, value, 1, True)
        stream = kernels.stream(coder, data)
        coder = kernels.coder(1)
        data = kernels.open_stream(coder, stream)
        assert [kernels._raw(coder.state, data, 0, 1, False) for _ in bits] == bits


def test_tables_are_those_of_the_logistic_function():
    stretch, squash, reciprocal = kernels._tables()
    logits = np.arange(-3071, 3072) / 256
    assert np.abs(squash - 65536 / (1 + np.exp(-logits))).max() <= 1.0
    assert (np.diff(squash) >= 0).all() and squash.min() >= 1 and squash.max() == 65535
    middle = slice(64, 65536 - 64)
    p = np.arange(65536)[middle] / 65536
    assert np.abs(stretch[middle] / 256 - np.log(p / (1 - p))).max() < 0.02
    assert reciprocal[0] == 40960 and (np.diff(reciprocal) <= 0).all()


PLAIN = """
import hashlib, numpy as np
from vcinr.coding import residual
rng = np.random.default_rng(1)
values = rng.standard_normal((4, 2, 11, 13)).cumsum(-1).cumsum(-2)
for plan in [residual.Plan("plain"), residual.Plan(), residual.Plan(temporal=False, tighten=2)]:
    coded, recon = residual.encode(values, 0.05, plan, rng.random(values.shape) < 0.9)
    print(hashlib.sha256(coded + recon.tobytes()).hexdigest())
"""


def test_compiled_and_plain_python_agree_to_the_last_bit():
    """Nothing is fused or reordered by the compiler: the bytes and the float64 values are those of plain Python."""
    runs = [
        subprocess.run(
            [sys.executable, "-c", PLAIN], env={**os.environ, "NUMBA_DISABLE_JIT": jit}, capture_output=True, text=True
        )
        for jit in ("0", "1")
    ]
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.split()) == 3, runs[1].stderr


def _tables():
    frequency = np.array(
        [[1, 40, 4000, 57000, 4000, 495], [2, 60000, 5000, 500, 34, 0], [6, 13106, 13106, 13106, 13106, 13106]]
    )
    assert (frequency.sum(1) == TOTAL).all()
    return np.array([-2, 0, 100]), frequency


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 12), st.integers(1, 3), st.integers(0, 2**32), st.sampled_from([1, 10, 2**40]))
def test_latents_round_trip(times, levels, seed, spread):
    offset, frequency = _tables()
    z = np.random.default_rng(seed).integers(-spread, spread + 1, (times, levels, 3))
    coded = latents.encode(z, offset, frequency)
    assert (latents.decode(coded, times, levels, offset, frequency) == z).all()


def test_latents_start_from_their_tables():
    """One signal costs what it costs under the tables; many that are not like them cost what they turn out to."""
    offset, frequency = _tables()
    likely, rare = np.array([[[0, 0, 102]]]), np.array([[[-2, 3, 102]]])
    assert len(latents.encode(likely, offset, frequency)) < len(latents.encode(rare, offset, frequency))
    many = np.repeat(rare, 400, 0)
    ideal = 400 * -np.log2(frequency[[0, 1, 2], [1, 4, 3]] / TOTAL).sum()
    assert 8 * len(latents.encode(many, offset, frequency)) < 0.1 * ideal


def test_latents_are_predicted_in_time():
    offset, frequency = np.array([-200]), np.full((1, 401), TOTAL // 401)
    frequency[0, 0] += TOTAL - frequency.sum()
    walk = np.random.default_rng(0).integers(-1, 2, 300).cumsum()
    coded = [
        len(latents.encode(z[:, None, None], offset, frequency))
        for z in (walk, np.random.default_rng(1).permutation(walk))
    ]
    assert coded[0] < 0.7 * coded[1]


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u2", "i8", "?"])
def test_lossless_bytes(dtype):
    values = np.random.default_rng(0).integers(0, 2, 77).astype(dtype)
    back = mask.decode_lossless(mask.encode_lossless(values), 77, np.dtype(dtype))
    assert (back == values).all()


def test_inflate_never_gives_more_than_declared():
    bomb = mask.deflate(bytes(10_000_000))
    with pytest.raises(CorruptError):
        mask.inflate(bomb, 1000)


def test_static_mask_costs_next_to_nothing():
    one = np.random.default_rng(0).random((20, 30)) < 0.4
    many = np.repeat(one[None], 100, axis=0)
    data = mask.encode_mask(many)
    assert (mask.decode_mask(data, many.shape) == many).all()
    assert len(data) < len(mask.encode_mask(one[None])) + 60


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 3))
def test_any_bytes_are_decoded_or_refused(data, which):
    """Checksums come first; but were a stream to pass them, nothing outside its arrays may be touched."""
    offset, frequency = _tables()
    try:
        if which == 3:
            latents.decode(data, 20, 2, offset, frequency)
        else:
            residual.decode(data, (4, 2, 9, 11), 1e300, PLANS[which])
    except CorruptError:
        pass


def test_latents_that_no_signal_has_are_left_out():
    rng = np.random.default_rng(0)
    offset, frequency = np.full(40, -3), np.tile(quantise_frequencies(np.array([1, 5, 5, 5, 5, 5, 5, 5])), (40, 1))
    z = np.zeros((30, 1, 40), np.int64)
    z[..., :4] = rng.integers(-3, 4, (30, 1, 4))
    coded = latents.encode(z, offset, frequency)
    assert (latents.decode(coded, 30, 1, offset, frequency) == z).all()
    alone = latents.encode(z[..., :4], offset[:4], frequency[:4])
    assert len(coded) <= len(alone) + 1  # six raw bits instead of three
    nothing = latents.encode(0 * z, offset, frequency)
    assert len(nothing) <= 1 and not latents.decode(nothing, 30, 1, offset, frequency).any()
    with pytest.raises(CorruptError, match="more latents"):
        latents.decode(b"\0" + coded[1:], 30, 1, offset, frequency)
