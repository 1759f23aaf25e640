"""Entropy coding: exact round trips, coded length against the model's, adversarial values."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vcinr.coding import mask, residual, tokens
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


@given(hnp.arrays(np.int64, st.integers(0, 200), elements=st.integers(-tokens.LIMIT, tokens.LIMIT)))
def test_tokens_round_trip(values):
    table = tokens.Adaptive(1, 1).table(0)
    writer = Writer()
    used = tokens.write(writer, values, table)
    back, tokens_read = tokens.read(Reader(writer.getvalue()), len(values), table)
    assert (back == values).all() and (tokens_read == used).all()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_residual_holds_its_step_and_decodes_identically(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.standard_normal(shape).cumsum(-1) * 10 ** data.draw(st.integers(-3, 3))
    valid = rng.random(shape) < 0.7 if data.draw(st.booleans()) else None
    step = 10 ** data.draw(st.floats(-4, 2))
    plan = residual.Plan(
        data.draw(st.sampled_from([1, 4, 16])), data.draw(st.integers(0, 2 ** len(shape) - 1)),
        data.draw(st.booleans()), data.draw(st.integers(0, 4)), data.draw(st.booleans()),
    )  # fmt: skip
    writer = Writer()
    recon = residual.encode(writer, values, step, plan, valid)
    where = slice(None) if valid is None else valid
    scale = np.abs(values).max()
    assert np.abs(recon - values)[where].max(initial=0) <= 0.5 * step + 1e-12 * scale
    assert residual.Plan.from_bytes(plan.to_bytes()) == plan
    back = residual.decode(Reader(writer.getvalue()), shape, step, plan, valid)
    assert (back == recon).all()  # to the last bit


def test_residual_is_smaller_on_smooth_fields_than_noise():
    t, y, x = np.meshgrid(np.arange(8), np.linspace(0, 3, 33), np.linspace(0, 3, 33), indexing="ij")
    smooth = np.sin(x + 0.1 * t) * np.cos(y)
    noise = np.random.default_rng(0).permutation(smooth.ravel()).reshape(smooth.shape)
    plan, size = residual.Plan(1, 6, True, 0, True), []
    for field in (smooth, noise):
        writer = Writer()
        residual.encode(writer, field, 1e-2, plan)
        size.append(len(writer.getvalue()))
    assert size[0] < 0.25 * size[1]


def test_overflow_is_reported():
    with pytest.raises(OverflowError):
        residual.encode(Writer(), np.array([[0.0, 1e300]]), 1e-9, residual.Plan(1, 3, False, 0, False))


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
