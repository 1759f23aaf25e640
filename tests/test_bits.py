"""Bits in context: exact round trips, sizes, and bytes that are no stream."""

import contextlib
import os
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vcinr
from benchmarks import occupancy
from tests.golden.reference import decoder
from vcinr.archive.plan import plan
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Field, ious
from vcinr.coding import bits, lossless
from vcinr.coding.coarse import coarse_shape, grown, sums_in_blocks
from vcinr.errors import BoundError, CorruptError, InputError

reference = decoder()


def solid(items: int, size: int) -> np.ndarray:
    """Occupancy of chairs: legs, a seat and a back, of lengths that differ from one to the next."""
    z, y, x = np.meshgrid(*(np.arange(size),) * 3, indexing="ij")
    shapes = []
    for i in range(items):
        rng = np.random.default_rng(i)
        seat, depth, wide, leg = (size * rng.uniform(0.3, 0.45, 4)).astype(int)
        thick = 1 + size // 24
        inside = (abs(2 * x - size + 1) < 2 * wide) & (abs(2 * z - size + 1) < 2 * depth)
        legs = inside & (y < seat) & (abs(2 * x - size + 1) > 2 * (wide - thick)) & (abs(2 * z - size + 1) > leg)
        round_back = (x - (size - 1) / 2) ** 2 + (y - seat) ** 2 < wide**2
        back = inside & round_back & (y >= seat) & (2 * z - size + 1 > 2 * (depth - thick))
        shapes.append(legs | (inside & (abs(y - seat) < thick)) | back)
    return np.stack(shapes)


def coast(times: int, height: int, width: int, ragged: float) -> np.ndarray:
    """A mask of land that hardly changes, with single cells that do."""
    rng = np.random.default_rng(0)
    land = rng.standard_normal((height, width)).cumsum(0).cumsum(1) > 0
    return land ^ (rng.random((times, height, width)) < ragged)


def check(array: np.ndarray) -> bytes:
    data = bits.encode(array)
    back = bits.decode(data, array.shape)
    assert back.dtype == bool and back.shape == array.shape and (back == array).all()
    return data


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_array_comes_back(data):
    shape = tuple(data.draw(st.lists(st.integers(0, 9), max_size=5)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    density = data.draw(st.sampled_from([0.0, 0.01, 0.2, 0.5, 0.97, 1.0]))
    array = rng.random(shape) < density
    if array.ndim and data.draw(st.booleans()):  # lines and faces
        array = np.logical_xor.accumulate(array, axis=data.draw(st.integers(0, array.ndim - 1)))
    coded = check(array)
    assert len(coded) <= array.size // 8 * 1.3 + 24


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_the_reference_decoder_reads_the_same(data):
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    array = np.random.default_rng(data.draw(st.integers(0, 99))).random(shape) < data.draw(st.sampled_from([0.1, 0.5]))
    assert (reference.decode_bits(bits.encode(array), shape) == array).all()


@pytest.mark.parametrize("name", ["chairs", "coast", "repeats", "flat"])
def test_the_reference_decoder_reads_what_has_structure(name):
    array = {
        "chairs": solid(3, 14), "coast": coast(3, 20, 17, 0.02), "repeats": np.repeat(solid(1, 10), 3, 0),
        "flat": coast(1, 30, 31, 0.01)[0],
    }[name]  # fmt: skip
    assert (reference.decode_bits(check(array), array.shape) == array).all()


def test_axes_of_length_one_do_not_matter():
    array = solid(2, 12)
    assert check(array) == check(array[:, None]) == check(array[..., None]) == check(array[None])
    assert bits.items_of((1, 5, 1, 4, 3, 2)) == (5, 4, 3, 2) and bits.items_of((7, 1)) == (1, 1, 1, 7)
    assert bits.items_of(()) == (1, 1, 1, 1)


def test_solids_need_a_fraction_of_what_zlib_needs():
    array = solid(12, 32)
    deflated = len(zlib.compress(np.packbits(array).tobytes(), 9))
    assert len(check(array)) < 0.35 * deflated


def test_noise_costs_hardly_more_than_it_holds():
    array = np.random.default_rng(0).random((4, 30, 40, 50)) < 0.5
    assert len(check(array)) < 1.02 * array.size / 8


@pytest.mark.parametrize("value", [False, True])
def test_constants_and_repeated_items_cost_next_to_nothing(value):
    assert len(check(np.full((30, 16, 16, 16), value))) < 60
    one = solid(1, 24)
    assert len(check(np.repeat(one, 40, 0))) < len(check(one)) + 150
    assert len(check(np.repeat(coast(1, 60, 90, 0.01), 200, 0))) < len(check(coast(1, 60, 90, 0.01))) + 30


def test_empty_space_takes_no_time():
    array = np.zeros((1 << 25) // 64**3 * 64**3, bool).reshape(-1, 64, 64, 64)
    check(array[:1])  # compiles
    start = time.perf_counter()
    check(array)
    assert time.perf_counter() - start < 10


def test_shapes_that_would_take_much_memory_are_refused():
    assert bits.possible((1 << 25,)) is False and bits.possible((1 << 24, 2)) is False
    assert bits.possible((5000, 5000)) and bits.possible((4000,)) and bits.possible((115, 64, 64, 64))
    with pytest.raises(CorruptError, match="shape"):
        bits.decode(b"", (1 << 25,))
    with pytest.raises(ValueError, match="shape"):
        bits.encode(np.broadcast_to(False, (1 << 25,)))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([(3, 9, 8, 7), (40, 30), (5,), (), (0, 3), (2, 3, 4, 5, 6)]))
def test_any_bytes_are_decoded_or_refused(data, shape):
    with contextlib.suppress(CorruptError):
        assert bits.decode(data, shape).shape == shape
    for dtype in ("u1", "f8"):
        with contextlib.suppress(CorruptError):
            assert lossless.decode(b"\1" + data, shape, np.dtype(dtype)).shape == shape


def test_a_stream_that_is_cut_or_lengthened_is_an_error():
    array = np.random.default_rng(0).random((3, 10, 12, 14)) < 0.5
    data = bits.encode(array)
    for wrong in (data[:-6], data + bytes(6), data[: len(data) // 2]):
        with pytest.raises(CorruptError):
            bits.decode(wrong, array.shape)


@pytest.mark.parametrize("dtype", ["u1", "?", "i2", ">i4", "f2", "f4", ">f8", "u8"])
def test_arrays_of_two_values(dtype):
    shape = solid(2, 12)
    low, high = (np.nan, -3.5) if np.dtype(dtype).kind == "f" else (0, 1)
    values = np.where(shape, high, low).astype(dtype)
    data = lossless.encode(values)
    assert data[:1] == b"\1"
    back = lossless.decode(data, values.shape, values.dtype)
    assert back.dtype == values.dtype.newbyteorder("=") and back.tobytes() == values.astype(back.dtype).tobytes()
    for wrong in (b"\1", data[: 2 * values.itemsize], data[: len(data) // 2], data + bytes(6)):
        if len(wrong) != 1 + values.itemsize:
            with pytest.raises(CorruptError):
                lossless.decode(wrong, values.shape, values.dtype)


def test_the_bits_of_two_values_are_kept():
    """Both zeros, and two kinds of NaN: equal or unequal as numbers, but two patterns."""
    where = solid(1, 12)[0]
    nan = np.array([0x7FC00000, 0xFFC00001], "u4").view("f4")
    for pair in (np.array([0.0, -0.0], "f4"), nan):
        values = pair[where.astype(int)]
        data = lossless.encode(values)
        assert data[:1] == b"\1" and lossless.decode(data, values.shape, values.dtype).tobytes() == values.tobytes()


def test_constants_are_one_value():
    for values in (np.zeros((1 << 22,), "f4"), np.full((3, 4), -2, ">i8"), np.array(True)):
        data = lossless.encode(values)
        assert len(data) == 1 + values.itemsize
        assert (lossless.decode(data, values.shape, values.dtype) == values).all()


def test_the_smaller_form_is_written_and_both_are_read():
    rng = np.random.default_rng(0)
    period = np.tile(rng.integers(0, 2, 1000), 30).astype("u1")  # DEFLATE finds what is repeated
    three = rng.integers(0, 3, (20, 30)).astype("i2")
    for values, form in ((period, b"\x78"), (three, b"\2"), (np.zeros((0, 4), "f4"), b"\x78")):
        data = lossless.encode(values)
        assert data[:1] == form
        assert (lossless.decode(data, values.shape, values.dtype) == values).all()
    old = lossless.deflate(solid(1, 12).tobytes())
    assert (lossless.decode(old, (1, 12, 12, 12), np.dtype("?")) == solid(1, 12)).all()


@pytest.mark.parametrize("ragged", [0.0, 0.003, 0.05])
def test_masks_with_ragged_coasts(ragged):
    mask = coast(12, 50, 70, ragged)
    change = mask.copy()
    change[1:] ^= mask[:-1]
    old = lossless.deflate(np.packbits(change).tobytes())
    data = lossless.encode_mask(mask)
    assert (lossless.decode_mask(data, mask.shape) == mask).all()
    assert (lossless.decode_mask(old, mask.shape) == mask).all()
    assert data[:1] == b"\1" and len(data) < 0.9 * len(old)


def test_quick_encoding_of_large_masks_is_deflate():
    mask = coast(20, 80, 90, 0.001)
    assert mask.size > 1 << 16
    assert lossless.encode_mask(mask, quick=True)[:1] == b"\x78" and lossless.encode_mask(mask)[:1] == b"\1"
    assert lossless.encode_mask(mask[:2], quick=True)[:1] == b"\1"


def test_occupancy_through_an_archive(tmp_path):
    values = solid(5, 20).astype("u1")
    data = xr.Dataset({"occupancy": (("item", "z", "y", "x"), values)})
    facts = vcinr.compress(data, tmp_path / "a.zip", variables=["occupancy"], chunk=100)
    with vcinr.open(tmp_path / "a.zip") as back:
        assert (back["occupancy"].values == values).all() and back["occupancy"].dtype == np.uint8
    assert facts["variables"]["occupancy"]["bytes"] < 0.6 * len(zlib.compress(values.tobytes(), 9))
    assert vcinr.verify(tmp_path / "a.zip", data)[0] == []


def test_large_occupancy_is_coded_as_bits_within_a_bound_too():
    values = solid(3, 36).astype("u1")
    field = Field("occupancy", (1, 2, 3))
    coded = encode(values, field, 0.25)
    assert coded.mode == "lossless" and len(coded.data) == len(encode(values, field, None).data)


def test_patterns_of_arrays():
    long = np.zeros(5000, "f4")
    assert lossless.patterns_of(long).tolist() == [0]
    long[4000] = 1
    assert lossless.patterns_of(long).view("<f4").tolist() == [0, 1]
    long[4999] = 2
    assert lossless.patterns_of(long) is None and lossless.patterns_of(np.arange(3)) is None
    assert lossless.patterns_of(np.zeros(0)) is None
    assert lossless.patterns_of(np.array([[1, 0]], ">i2").T).tolist() == [0, 1]


@pytest.mark.parametrize("effort", ["best", "fast"])
def test_a_field_with_a_ragged_coast_through_an_archive(effort, tmp_path):
    mask = coast(6, 40, 50, 0.01)
    values = np.where(mask, np.nan, np.random.default_rng(1).standard_normal(mask.shape).cumsum(2)).astype("f4")
    data = xr.Dataset({"v": (("time", "lat", "lon"), values)})
    vcinr.compress(data, tmp_path / "a.zarr", abs_error=0.1, effort=effort)
    with vcinr.open(tmp_path / "a.zarr") as back:
        assert (np.isnan(back["v"].values) == mask).all()
        assert np.nanmax(np.abs(back["v"].values - values)) <= 0.1


# ---------------------------------------------------------------- shapes with less than all of their voxels

ANY = Field("occupancy", (0,))


def drawn(data) -> np.ndarray:
    """An array of zeros and ones of any type and size, among them empty and full ones, and single voxels."""
    shape = tuple(data.draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    array = rng.random(shape) < data.draw(st.sampled_from([0.0, 0.02, 0.3, 0.7, 1.0]))
    if data.draw(st.booleans()):
        array = np.logical_or.accumulate(array, axis=data.draw(st.integers(0, array.ndim - 1)))
    if data.draw(st.booleans()):
        array.flat[rng.integers(array.size)] = True
    return array.astype(data.draw(st.sampled_from(["?", "u1", "i2", ">i8"])))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_shapes_keep_any_iou(data):
    array, goal = drawn(data), data.draw(st.sampled_from([0.0, 0.3, 0.75, 0.9, 0.999, 1.0]))
    coded = encode(array, ANY, Bound("iou", goal), effort=data.draw(st.sampled_from(["best", "fast"])))
    back = decode(coded.data, array.shape, array.dtype, ANY)
    found = ious(array, back)
    assert back.dtype == array.dtype.newbyteorder("=") and set(np.unique(back)) <= {0, 1}
    assert found.mean() >= goal and found.min() > 0.0 and (coded.ious == found).all()
    assert coded.max_abs_error == float((back != array).any())
    exact = encode(array, ANY, None)
    assert len(coded.data) <= len(exact.data)
    if goal == 1.0:
        assert coded.data == exact.data and (back == array).all()


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_shapes_keep_any_rate_or_say_that_they_cannot(data):
    array, size = drawn(data), data.draw(st.integers(8, 90))
    bound = Bound("rate", 8 * size / array.size)
    try:
        coded = encode(array, ANY, bound, effort=data.draw(st.sampled_from(["best", "fast"])))
    except BoundError as error:
        assert "allow more" in str(error)
        return
    assert len(coded.data) <= size and ious(array, decode(coded.data, array.shape, array.dtype, ANY)).min() > 0.0


def test_shapes_of_a_lower_goal_take_fewer_bytes():
    array = solid(6, 32) ^ ((np.random.default_rng(0).random((6, 32, 32, 32)) < 0.01) & solid(6, 32))
    sizes = [len(encode(array, ANY, Bound("iou", goal)).data) for goal in (1.0, 0.95, 0.8, 0.5)]
    assert sizes == sorted(sizes, reverse=True) and sizes[1] < 0.6 * sizes[0] and sizes[3] < 0.2 * sizes[0]
    close = encode(array, ANY, Bound("iou", 0.8)).ious.mean()
    assert 0.8 <= close < 0.87
    best = encode(array, ANY, Bound("rate", 8 * sizes[2] / array.size))
    assert len(best.data) <= sizes[2] and best.ious.mean() > 0.75


def test_coarse_copies():
    array = np.random.default_rng(0).random((2, 1, 5, 7, 9)) < 0.5
    assert coarse_shape(array.shape, 4) == (2, 2, 2, 3)
    sums = sums_in_blocks(array[:, 0], 4)
    assert sums.shape == (2, 2, 2, 3) and sums.sum() == array.sum()
    assert sums[1, 1, 0, 2] == array[1, 0, 4:, :4, 8:].sum()
    whole = grown(sums, array.shape, 4)
    assert whole.shape == array.shape and (whole[1, 0, 4:, :4, 8:] == sums[1, 1, 0, 2]).all()
    assert grown(np.ones((1, 1, 1, 1)), (3, 4), 2**40).shape == (3, 4)


@pytest.mark.parametrize("dtype", ["?", "u1", "f8"])
@pytest.mark.parametrize("shape", [(3, 5, 7, 9), (6,), (1, 4, 1), (2, 1, 3, 2, 5, 4), (0, 3)])
def test_coarse_values_and_the_reference_decoder(shape, dtype):
    for factor in (2, 3, 300):
        values = (np.random.default_rng(0).random(coarse_shape(shape, factor)) < 0.5).astype(dtype)
        data = lossless.encode_coarse(values, factor)
        back = lossless.decode(data, shape, np.dtype(dtype))
        assert back.shape == shape and (back == grown(values, shape, factor)).all()
        assert (reference.lossless(data, np.dtype(dtype), shape) == back).all()


@pytest.mark.parametrize("wrong", [b"\3", b"\3\1\1\0", b"\3\0", b"\3\2", b"\3\2\3\2\1\0", b"\3\xff", b"\3\2\2\0"])
def test_coarse_values_that_are_none(wrong):
    with pytest.raises(CorruptError):
        lossless.decode(wrong, (4, 6), np.dtype("u1"))


def test_shapes_through_an_archive(tmp_path):
    values = solid(7, 20)
    data = xr.Dataset({"inside": (("item", "z", "y", "x"), values), "t": (("x",), np.arange(20.0))})
    facts = vcinr.compress(data, tmp_path / "a.zip", iou=0.9, chunk=3)["variables"]["inside"]
    assert facts["bound"] == {"kind": "iou", "value": 0.9} and facts["max_abs_error"] == 1.0 and facts["iou"] >= 0.9
    problems, seen = vcinr.verify(tmp_path / "a.zip", data)
    assert problems == [] and facts["lowest_iou"] == pytest.approx(seen["inside"]["lowest_iou"], abs=2e-6)
    with vcinr.open(tmp_path / "a.zip") as back:
        found = ious(values, back["inside"].values)
        assert back["inside"].dtype == bool and len(found) == 7
    assert (found.mean(), found.min()) == pytest.approx((seen["inside"]["mean_iou"], seen["inside"]["lowest_iou"]))
    other = data.assign(inside=(data["inside"].dims, values[:, ::-1]))
    problems, _ = vcinr.verify(tmp_path / "a.zip", other)
    assert len(problems) == 3 and "below the 0.9 promised" in problems[0]
    with pytest.raises(BoundError, match="chunk inside/c/0"):
        vcinr.compress(data, tmp_path / "b.zip", rate=1e-9, variables=["inside"])


def test_an_iou_is_for_zeros_and_ones(tmp_path):
    data = xr.Dataset(
        {
            "inside": (("y", "x"), np.eye(6, dtype="i4")), "classes": (("y", "x"), np.arange(36).reshape(6, 6)),
            "real": (("y", "x"), np.eye(6)), "packed": (("y", "x"), np.eye(6, dtype="u1"), {"scale_factor": 2.0}),
        }
    )  # fmt: skip
    assert list(vcinr.compress(data, tmp_path / "a.zip", iou=1.0)["variables"]) == ["inside"]
    for name in ("classes", "real", "packed"):
        with pytest.raises(InputError, match=f"'{name}' holds .* and not only zeros and ones"):
            vcinr.compress(data, tmp_path / "b.zip", iou=0.9, variables=[name])
        with pytest.raises(InputError, match="an IoU is for truth values"):
            vcinr.compress(data[[name]], tmp_path / "b.zip", iou=0.9)
    for wrong in (-0.1, 1.5, np.nan):
        with pytest.raises(InputError, match="iou: the bound must be"):
            vcinr.compress(data, tmp_path / "b.zip", iou=wrong)


def test_chunks_of_zeros_and_ones_are_large():
    many = np.broadcast_to(np.uint8(1), (100, 64, 64, 64))
    groups = {"": xr.Dataset({"solid": (("item", "z", "y", "x"), many), "bytes": (("a", "z", "y", "x"), many + many)})}
    shapes = {a.job.name: a.shape for a in plan(groups, variables=["solid", "bytes"])}
    assert shapes == {"solid": (32, 64, 64, 64), "bytes": (4, 64, 64, 64)}


def test_the_benchmark_of_solids():
    rows = occupancy.compare(solid(4, 16).astype("u1"))
    assert all(row["exact"] for row in rows) and len(rows) == 7
    best = {row["setting"]: row["bytes"] for row in rows if row["codec"] == occupancy.OURS}
    assert best["stream of all shapes"] < best["archive, one chunk"]
    assert best["stream of all shapes"] < 0.5 * min(row["bytes"] for row in rows if row["codec"] != occupancy.OURS)
    assert occupancy.table(rows).count("\n") == 9


PLAIN = """
import sys
import numpy as np
from vcinr.coding import bits
array = np.random.default_rng(1).random((2, 5, 7, 9)) < 0.3
array[1, 2:, 2:5] = True
data = bits.encode(array)
assert (bits.decode(data, array.shape) == array).all()
sys.stdout.write(data.hex())
"""


def test_plain_python_makes_the_same_bytes():
    made = [
        subprocess.run(
            [sys.executable, "-c", PLAIN], env={**os.environ, "NUMBA_DISABLE_JIT": jit}, capture_output=True, text=True,
            check=True,
        ).stdout
        for jit in ("0", "1")
    ]  # fmt: skip
    assert made[0] == made[1] and len(made[0]) > 100
