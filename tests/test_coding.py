"""Entropy coding: exact round trips, coded length against the model's, adversarial values."""

import contextlib
import math
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vcinr.coding import huffman, kernels, latents, lossless, residual
from vcinr.coding.hyperprior import SHIFT, Hyperprior, scale_levels
from vcinr.coding.residual import interpolated
from vcinr.coding.static import STATIC, TOTAL, reader, writer
from vcinr.coding.tables import Tables, frequencies_of, levels_of, quantise_frequencies
from vcinr.errors import CorruptError


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_frequencies_are_positive_and_sum_to_the_total(weights):
    frequencies = quantise_frequencies(np.array(weights))
    assert frequencies.min() >= 1 and frequencies.sum() == TOTAL


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=300))
def test_tables_are_stored_in_quarters_of_an_octave(weights):
    frequencies = quantise_frequencies(np.array([*weights, 0, 0]))
    frequencies[-2:] = 0  # padded
    back = frequencies_of(levels_of(frequencies))
    assert back.sum() == TOTAL and ((back > 0) == (frequencies > 0)).all()
    p, q = frequencies[:-2] / TOTAL, back[:-2] / TOTAL
    assert (p * np.log2(p / q)).sum() < 0.02  # bits a symbol that rounding costs


PEAKED = quantise_frequencies(np.array([1, 5, 30, 200, 30, 5, 1]))


@pytest.mark.parametrize("coder", STATIC)
def test_coded_length_is_the_entropy(coder):
    symbols = np.random.default_rng(0).choice(7, 20_000, p=PEAKED / TOTAL)
    out = writer(coder)
    out.symbols(symbols, PEAKED)
    ideal = -np.log2(PEAKED[symbols] / TOTAL).sum()
    coded = 8 * len(out.getvalue())
    if coder == "huffman":
        assert ideal <= coded < ideal + len(symbols) + 8
        assert coded == 8 * -(-int(huffman.codebook(PEAKED).length[symbols].sum()) // 8)
    else:
        assert ideal < coded < ideal + 1e-4 * len(symbols) + 64


CALLS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 10**6), min_size=1, max_size=40), st.lists(st.integers(0, 10**9), max_size=50),
        st.integers(1, 48),
    ),
    max_size=8,
)  # fmt: skip


@pytest.mark.parametrize("coder", STATIC)
@settings(deadline=None)
@given(CALLS)
def test_calls_are_read_back_in_the_order_written(coder, calls):
    """Any tables, of one entry too, any symbols and raw bits, none at all included."""
    out, calls = writer(coder), [(quantise_frequencies(np.array(w)), np.array(v, np.int64), n) for w, v, n in calls]
    for frequencies, values, width in calls:
        out.symbols(values % len(frequencies), frequencies)
        out.bits(values & ((1 << width) - 1), width)
    source = reader(coder, out.getvalue())
    for frequencies, values, width in calls:
        assert (source.symbols(len(values), frequencies) == values % len(frequencies)).all()
        assert (source.bits(len(values), width) == values & ((1 << width) - 1)).all()


@pytest.mark.parametrize("coder", STATIC)
def test_what_leaves_no_choice_takes_nothing(coder):
    out = writer(coder)
    out.symbols(np.zeros(1000, int), np.array([TOTAL]))
    out.symbols(np.zeros(0, int), PEAKED)
    assert out.getvalue() == b"" and (reader(coder, b"").symbols(1000, np.array([TOTAL])) == 0).all()


@pytest.mark.parametrize("coder", STATIC)
def test_symbol_outside_its_table_is_refused(coder):
    for frequencies in (quantise_frequencies(np.ones(5)), np.array([TOTAL])):
        with pytest.raises(ValueError, match="outside"):
            writer(coder).symbols(np.array([5]), frequencies)


@pytest.mark.parametrize("coder", ["ans", "range"])
def test_a_stream_of_odd_length_is_an_error(coder):
    with pytest.raises(CorruptError):
        reader(coder, b"abc")


@given(st.lists(st.integers(0, 10**9), min_size=2, max_size=300))
def test_huffman_codes_are_complete_canonical_and_within_a_bit_of_the_entropy(weights):
    frequencies = quantise_frequencies(np.array(weights))
    book = huffman.codebook(frequencies)
    assert (2.0**-book.length).sum() == 1 and book.length.max() <= 24
    p = frequencies / TOTAL
    entropy = -(p * np.log2(p)).sum()
    assert entropy - 1e-9 <= (p * book.length).sum() < entropy + 1
    codes = sorted((n, c) for n, c in zip(book.length.tolist(), book.code.tolist(), strict=True))
    assert codes[0][1] == 0
    for (n, c), (n_next, c_next) in pairwise(codes):
        assert c_next == (c + 1) << (n_next - n)


def test_ties_of_huffman_codes_are_broken_by_order():
    """Equal weights: entries first, in their order, then joined nodes."""
    assert huffman.codebook(np.array([1, 1, 1, 1, 1])).length.tolist() == [3, 3, 2, 2, 2]
    assert huffman.codebook(np.array([2, 1, 1, 2])).length.tolist() == [2, 2, 2, 2]
    assert huffman.codebook(np.array([2, 1, 1, 2])).code.tolist() == [0, 1, 2, 3]


ON_GRIDS = [c for c in residual.CODERS if not c.needs_positions]  # the others have a file of tests of their own
VARIED = [replace(c.first, **{k: v}) for c in ON_GRIDS for k, values in c.variations.items() for v in values]
PLANS = [*(c.first for c in ON_GRIDS), *VARIED, residual.Plan("adaptive", False, 3)]


def test_residual_coders_keep_their_numbers():
    """They are in the plan byte of every chunk that was ever written: a new coder takes the next number."""
    assert [c.name for c in residual.CODERS] == ["plain", "adaptive", "interpolated", "nearest"]
    assert [residual.pack(c.first) for c in residual.CODERS] == [b"\4", b"\5", b"\2", b"\3\3"]
    for byte in range(256):
        try:
            plan, size = residual.unpack(bytes([byte, 3]))
            assert residual.pack(plan) == bytes([byte, 3])[:size]
        except CorruptError:
            assert (byte & 3 == 0 and byte >= 128) or (byte & 3 == 2 and byte != 2) or (byte & 3 == 3 and byte != 3)
    with pytest.raises(CorruptError, match="upgrade"):
        residual.unpack(b"\3\4")
    for short in (b"", b"\3", b"\3\2"):
        with pytest.raises(CorruptError, match="malformed"):
            residual.unpack(short)


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
    if plan.coder == "interpolated":
        step = max(step, 8 * np.abs(values).max() / interpolated.LIMIT)
    coded, recon = residual.encode(values, step, plan, valid)
    where = slice(None) if valid is None else valid
    scale = np.abs(values).max()
    assert np.abs(recon - values)[where].max(initial=0) <= 0.5 * step + 1e-12 * scale
    assert residual.unpack(residual.pack(plan) + bytes(5)) == (plan, len(residual.pack(plan)))
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
    assert size[0] < {"adaptive": 0.15, "interpolated": 0.2, "plain": 0.6}[plan.coder] * size[1]


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


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_choice_of_interpolation_holds_its_step(data):
    """Sizes from zeros to the largest, in one stream, whatever the writer would have chosen."""
    shape = tuple(data.draw(st.tuples(*(st.integers(1, n) for n in (5, 3, 40, 40)))))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-2, 1 + data.draw(st.integers(0, 7)), shape)
    choices = interpolated.Choices(*data.draw(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3))))
    assert interpolated.Choices.from_byte(choices.to_byte()) == choices
    valid = rng.random(shape) < 0.7 if data.draw(st.booleans()) else None
    coded, recon = interpolated.encode(values, 0.5, valid, choices)
    where = slice(None) if valid is None else valid
    assert np.abs(recon - values)[where].max(initial=0) <= 0.25 * (1 + 1e-12)
    assert (interpolated.decode(coded, shape, 0.5) == recon).all()


def test_the_fast_plan_says_beforehand_what_it_takes():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 1, 200, 240)).cumsum(2).cumsum(3)
    for step in (1.0, 20.0):
        plan, size = interpolated.CODER.estimate(values, step, None)
        coded, _ = residual.encode(values, step, plan)
        assert plan.choices is not None and plan.choices.prediction > 0 and abs(size / len(coded) - 1) < 0.25
        assert coded == residual.encode(values, step, residual.Plan("interpolated", False))[0]


def test_interpolated_codes_take_their_entropy():
    """Static tables cost little more than the frequencies by context allow, at any rate."""
    rng = np.random.default_rng(0)
    for spread in (0.1, 0.5, 3.0, 40.0, 3000.0):
        values = rng.laplace(0, spread, (4, 1, 120, 120))
        codes = np.floor(values + 0.5)
        _, counts = np.unique(codes, return_counts=True)
        ideal = (
            -(counts * np.log2(counts / codes.size)).sum() if spread < 1000 else codes.size * np.log2(2 * np.e * spread)
        )
        assert 0.95 * ideal < 8 * len(interpolated.encode(values, 1.0)[0]) < 1.06 * ideal + 800


def test_what_time_keeps_is_remembered():
    rng = np.random.default_rng(0)
    once = rng.standard_normal((1, 1, 40, 40))
    again = np.repeat(once, 12, 0) + 0.02 * rng.standard_normal((12, 1, 40, 40))
    sizes = [len(interpolated.encode(v, 0.05)[0]) for v in (again, rng.permutation(again.ravel()).reshape(again.shape))]
    assert sizes[0] < 0.5 * sizes[1]


def test_damaged_interpolated_streams_are_refused():
    values = np.random.default_rng(0).standard_normal((2, 1, 20, 20)).cumsum(-1)
    coded, _ = interpolated.encode(values, 0.1)
    head = 2 + 4 * coded[1]
    wrong = [
        b"", coded[:1], coded[:head], b"\3" + coded[1:], b"\x40" + coded[1:], coded[:1] + b"\0" + coded[2:],
        coded[:1] + b"\xff" + coded[2:], coded[: head - 4] + bytes(4) + coded[head:],
        coded[:head] + bytes(8) + coded[head + 8 :], coded[:2] + bytes(head - 6) + coded[head - 4 :],
    ]  # fmt: skip
    for bad in wrong:
        with pytest.raises(CorruptError):
            interpolated.decode(bad, values.shape, 0.1)
    rng = np.random.default_rng(1)
    for _ in range(300):
        flipped = bytearray(coded)
        flipped[int(rng.integers(len(flipped)))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(CorruptError):
            assert interpolated.decode(bytes(flipped), values.shape, 0.1).shape == values.shape


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
plans = [residual.Plan("plain"), residual.Plan(), residual.Plan(temporal=False, tighten=2, brief=True)]
for step, plan in [*((0.05, plan) for plan in plans), *((s, residual.Plan("interpolated")) for s in (1e-6, 0.05, 1.0))]:
    coded, recon = residual.encode(values, step, plan, rng.random(values.shape) < 0.9)
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
    assert runs[0].stdout == runs[1].stdout and len(runs[0].stdout.split()) == 6, runs[1].stderr


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


@pytest.mark.parametrize("coder", STATIC)
@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32), st.sampled_from([1, 10, 2**30]))
def test_tables_round_trip_with_escapes_at_the_modelled_rate(coder, count, seed, spread):
    tables = Tables(*_tables())
    z = np.random.default_rng(seed).integers(-spread, spread + 1, (count, 3))
    out = writer(coder)
    tables.write(out, z)
    assert (tables.read(reader(coder, out.getvalue()), count) == z).all()
    if coder == "huffman":
        symbol = np.where((z >= tables.offset) & (z - tables.offset < np.array([5, 4, 5])), z - tables.offset + 1, 0)
        length = [huffman.codebook(row[row > 0]).length for row in tables.frequency]
        total = sum(int(length[i][symbol[:, i]].sum()) for i in range(3)) + 32 * int((symbol == 0).sum())
        assert len(out.getvalue()) == -(-total // 8)
    else:  # tables of 2**16 become ones of 2**24 less an entry each: rare symbols are a little dearer
        assert abs(8 * len(out.getvalue()) - tables.bits(z)) <= 64 + 0.01 * tables.bits(z)


def _hyperprior():
    """Two rates of five codes with two numbers of side information: the first for all codes, the second for some."""
    weight = np.array([[512, 0], [512, 0], [512, 900], [512, 900], [512, -300]], np.int32)
    scale = np.array([[4000] * 2 + [3000, 3500, 4000, 4500, 5000], [4000] * 2 + [5000] * 5], np.int32)
    centre = np.array([[0, 1, 0, -3, 7, 0, 100], [0] * 7], np.int32)
    return Hyperprior(scale_levels(48), centre, scale, weight)


def test_scales_are_gaussians():
    """Masses of N(0, sigma^2) on the integers, sigma four to the octave, but for what rounding of tables costs."""
    frequency = frequencies_of(scale_levels(40))
    for i in (0, 7, 20, 39):
        sigma, row = 0.11 * 2 ** (i / 4), frequency[i][frequency[i] > 0]
        half = len(row) // 2 - 1
        edges = np.array([math.erf((v - 0.5) / (sigma * math.sqrt(2))) for v in range(-half, half + 2)])
        p, q = np.diff(edges) / 2, row[1:] / TOTAL
        # That no frequency is below 1 takes up to an entry's share of 2**16 from the others.
        cost = (p * np.log2(np.maximum(p, 1e-300) / q)).sum()
        assert p.sum() > 1 - 1e-6 and 0 < cost < 0.005 + len(row) / TOTAL / math.log(2)


def test_scale_indices_are_the_integer_formula():
    hyper, rng = _hyperprior(), np.random.default_rng(0)
    w = rng.integers(-40, 40, (50, 2))
    for rate in range(2):
        index = hyper.indices(w, rate)
        for n in range(50):
            for i in range(5):
                total = int(hyper.scale[rate, 2 + i]) + sum(int(hyper.weight[i, j]) * int(w[n, j]) for j in range(2))
                assert index[n, 2 + i] == min(max(total // 2**SHIFT, 0), 47)
            assert index[n, :2].tolist() == [4000 // 2**SHIFT] * 2


@settings(deadline=None)
@given(st.integers(0, 12), st.integers(0, 1), st.integers(0, 2**32), st.sampled_from([1, 10, 1000, 2**30]))
def test_hyperprior_round_trip(count, rate, seed, spread):
    hyper = _hyperprior()
    z = np.random.default_rng(seed).integers(-spread, spread + 1, (count, 5))
    assert (hyper.decode(hyper.encode(z, rate), count, rate) == z).all()


def test_side_information_is_found_coded_and_counted():
    """Signals of very different sizes: w pays, what it costs is in the length, and no neighbour of it is better."""
    hyper, rng = _hyperprior(), np.random.default_rng(0)
    size = np.exp(rng.uniform(-1, 4, (400, 1)))
    z = np.rint(size * rng.standard_normal((400, 5))).astype(int)
    w = hyper.search(z, 1)
    bits = hyper.bits(z, w, 1)
    assert 8 * len(hyper.encode(z, 1)) == pytest.approx(bits.sum(), rel=2e-3, abs=64)
    own = hyper.cost[hyper.indices(w, 1)[:, :2], hyper.column(w)].sum(1)
    alone = hyper.cost[hyper.indices(w, 1)[:, 2:], hyper.column(z)].sum(1)
    assert np.allclose(own + alone, bits) and own.min() > 0
    assert bits.sum() < 0.9 * hyper.bits(z, np.zeros_like(w), 1).sum()
    for j in range(2):
        for move in (-1, 1):
            assert (hyper.bits(z, w + move * np.eye(2, dtype=int)[j], 1) >= bits - 1e-6).all()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", "i1", "u2", "i8", "?"])
def test_lossless_bytes(dtype):
    values = np.random.default_rng(0).integers(0, 2, 77).astype(dtype)
    back = lossless.decode(lossless.encode(values), (77,), np.dtype(dtype))
    assert (back == values).all()


def test_inflate_never_gives_more_than_declared():
    bomb = lossless.deflate(bytes(10_000_000))
    with pytest.raises(CorruptError):
        lossless.inflate(bomb, 1000)


def test_static_mask_costs_next_to_nothing():
    one = np.random.default_rng(0).random((20, 30)) < 0.4
    many = np.repeat(one[None], 100, axis=0)
    data = lossless.encode_mask(many)
    assert (lossless.decode_mask(data, many.shape) == many).all()
    assert len(data) < len(lossless.encode_mask(one[None])) + 60


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.integers(0, 9))
def test_any_bytes_are_decoded_or_refused(data, which):
    """Checksums come first; but were a stream to pass them, nothing outside its arrays may be touched."""
    offset, frequency = _tables()
    try:
        if which < len(PLANS):
            residual.decode(data, (4, 2, 9, 11), 1e300, PLANS[which])
        elif which == 5:
            latents.decode(data, 20, 2, offset, frequency)
        elif which == 6:
            _hyperprior().decode(data, 40, 0)
        else:
            Tables(offset, frequency).read(reader(STATIC[which - 7], data), 40)
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
