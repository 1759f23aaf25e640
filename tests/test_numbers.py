"""Numbers: exact round trips, sizes, and bytes that are no stream."""

import contextlib
import time
import zlib

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import vcinr
from benchmarks import numbers as benchmark
from tests.golden.reference import decoder
from vcinr.coding import lossless, numbers
from vcinr.coding.leb128 import leb128
from vcinr.errors import CorruptError

reference = decoder()

DTYPES = ["i1", "u1", "i2", ">u2", "i4", "u4", "<i8", "u8", "f2", "f4", ">f4", "f8", ">f8"]


def check(values: np.ndarray) -> bytes:
    data = numbers.encode(values)
    assert data is not None
    back = numbers.decode(data, values.shape, values.dtype)
    native = values.dtype.newbyteorder("=")
    assert back.dtype == native and back.shape == values.shape and back.tobytes() == values.astype(native).tobytes()
    return data


def deflated(values: np.ndarray) -> int:
    raw = np.ascontiguousarray(values).reshape(-1).view("u1").reshape(-1, values.dtype.itemsize)
    return len(zlib.compress(raw.T.tobytes(), 9))


def specials(dtype: str) -> np.ndarray:
    """Zeros, infinities, subnormals, the largest numbers and NaNs of several payloads; or the ends of the range."""
    kind = np.dtype(dtype).newbyteorder("=")
    if kind.kind != "f":
        return np.array([np.iinfo(kind).min, np.iinfo(kind).max, 0, 1, np.iinfo(kind).max - 1], kind)
    info, pattern = np.finfo(kind), f"u{kind.itemsize}"
    payload = np.array([np.nan], kind).view(pattern) | np.array([1, 5, 77], pattern)
    sign = np.array([1 << 8 * kind.itemsize - 1], pattern)
    payload = np.concatenate([payload, payload | sign])
    exact = np.array(
        [0.0, -0.0, np.inf, -np.inf, info.max, info.min, info.smallest_subnormal, -info.smallest_subnormal], kind
    )
    return np.concatenate([exact, payload.view(kind)])


def draw(data, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """Values of one of several kinds: noise, smooth, on a grid, few, or any bits; some replaced by special ones."""
    kind, rng = np.dtype(dtype).newbyteorder("="), np.random.default_rng(data.draw(st.integers(0, 2**32)))
    manner = data.draw(st.sampled_from(["bits", "smooth", "grid", "line", "few"]))
    size = int(np.prod(shape))
    if manner == "bits":
        values = rng.integers(0, 256, size * kind.itemsize, np.uint8).view(kind)
    else:
        real = {
            "smooth": 50 + 40 * np.sin(np.arange(size) / 9), "grid": rng.integers(-99, 99, size) / 10,
            "line": 3 + 0.7 * np.arange(size) % 120, "few": rng.choice([1.5, 2.75, 99.0], size),
        }[manner]  # fmt: skip
        values = np.abs(real).astype(kind) if kind.kind == "u" else real.astype(kind)
    values = values.copy()
    where = rng.random(size) < data.draw(st.sampled_from([0.0, 0.05, 0.5]))
    values[where] = rng.choice(specials(dtype), int(where.sum()))
    return values.reshape(shape).astype(np.dtype(dtype))


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(DTYPES))
def test_any_array_comes_back(data, dtype):
    shape = tuple(data.draw(st.lists(st.integers(1, 9), max_size=4))) or (data.draw(st.integers(1, 300)),)
    values = draw(data, dtype, shape)
    coded = check(values)
    assert len(coded) <= 1.1 * values.nbytes + 48
    assert (
        lossless.decode(lossless.encode(values), shape, values.dtype).tobytes()
        == values.astype(values.dtype.newbyteorder("=")).tobytes()
    )


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(DTYPES))
def test_the_reference_decoder_reads_the_same(data, dtype):
    shape = tuple(data.draw(st.lists(st.integers(1, 6), min_size=1, max_size=4)))
    values = draw(data, dtype, shape)
    coded = check(values)
    little = values.dtype.newbyteorder("<")
    back = reference.decode_numbers(coded, shape, little)
    assert back.dtype == little and back.tobytes() == values.astype(little).tobytes()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_the_largest_numbers_give_no_warning(dtype):
    largest = np.finfo(dtype).max
    check(np.array([[largest, -largest], [np.inf, largest / 2], [largest, 0]], dtype))
    check(np.linspace(-1, 1, 7).astype(dtype) * largest)


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_values_alone_and_among_others(dtype):
    special = specials(dtype)
    check(special.astype(dtype))
    check(np.tile(special, 20).reshape(20, -1).astype(dtype))
    many = np.repeat(special[:2], 500)
    many[::50] = special[-1]
    check(many.astype(dtype))


def test_each_form_is_written_and_read_by_both_decoders():
    rng = np.random.default_rng(0)
    cases = {
        numbers._INTEGERS: np.sin(np.arange(400.0)).cumsum(),
        numbers._FRACTION: rng.integers(-500, 500, 900) / 10,
        numbers._LINE: np.linspace(-3, 5, 333),
        numbers._DICTIONARY: rng.choice(rng.random(9), 900),
    }
    for form, values in cases.items():
        coded = check(values)
        assert coded[0] == form
        assert reference.decode_numbers(coded, values.shape, values.dtype).tobytes() == values.tobytes()


def test_planes_that_repeat_and_corrections_are_read_by_both_decoders():
    y, x = np.meshgrid(np.linspace(0, 2, 20), np.linspace(0, 3, 30), indexing="ij")
    still = np.repeat(np.sin(x * y)[None], 4, 0).astype("f4")
    grid = np.round(30 * np.sin(x + y), 1)
    grid[3:9, 4:12], grid[0, 0], grid[5, 20] = np.nan, -0.0, np.nextafter(1.5, 2)
    for values in (still, grid, (1000 * still).astype("i2")):
        coded = check(values)
        assert reference.decode_numbers(coded, values.shape, values.dtype).tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "values",
    [
        np.linspace(-90, 90, 721), np.linspace(0, 360, 1440, endpoint=False).astype("f4"), np.arange(5000) * 0.25,
        np.linspace(0, 1, 777), np.arange(1000, dtype="f4") * np.float32(0.1), np.arange(10000) * 21600,
        np.arange(0, 365.0, 0.25), np.linspace(1e5, 2e3, 100), 1e9 + 3600.0 * np.arange(9999),
    ],
)  # fmt: skip
def test_evenly_spaced_axes_take_a_few_bytes(values):
    assert len(check(values)) <= 40


def test_smooth_coordinates_take_a_fraction_of_what_zlib_needs():
    y, x = np.meshgrid(np.linspace(-1.3, 1.3, 150), np.linspace(0, 6.2, 200), indexing="ij")
    latitude = np.degrees(np.arcsin(np.sin(y) * np.cos(0.1 * np.sin(x)))).astype("f4")
    longitude = np.degrees(x + 0.1 * np.cos(y) * np.sin(x)).astype("f4")
    for values in (latitude, longitude):
        assert len(check(values)) < 0.5 * deflated(values)
        assert len(lossless.encode(values)) == len(check(values)) + 1


def test_columns_of_tables_are_smaller_than_by_zlib():
    rng = np.random.default_rng(3)
    stations = rng.integers(-9000, 9000, 500) / 100
    column = rng.choice(stations, 9000).astype("f4")
    assert len(check(column)) < 0.75 * deflated(column)
    fahrenheit = (np.round(60 + 20 * np.sin(np.arange(9000) / 300) + rng.standard_normal(9000)) - 32) * 5 / 9
    assert len(check(fahrenheit)) < 0.6 * deflated(fahrenheit)
    gaps = np.where(rng.random(9000) < 0.1, -9999.0, np.round(fahrenheit, 1)).astype("f4")
    assert len(check(gaps)) < 0.75 * deflated(gaps)


def test_noise_costs_hardly_more_than_it_holds():
    noise = np.random.default_rng(0).integers(0, 2**64, 20000, np.uint64)
    assert len(check(noise)) < 1.01 * noise.nbytes
    assert len(lossless.encode(noise)) < 1.001 * noise.nbytes + 99


def test_axes_of_length_one_do_not_matter():
    values = np.random.default_rng(0).integers(0, 9, (5, 6, 7)).cumsum(2)
    assert check(values) == check(values[:, None]) == check(values[..., None])


def test_what_cannot_be_coded():
    assert numbers.encode(np.zeros((3, 0))) is None and numbers.encode(np.zeros(3, bool)) is None
    assert numbers.encode(np.zeros(3, complex)) is None
    for shape, dtype in (((3, 0), "f4"), ((3,), "?")):
        with pytest.raises(CorruptError):
            numbers.decode(b"\0\0", shape, np.dtype(dtype))


@settings(max_examples=300, deadline=None)
@given(
    st.integers(0, 5), st.binary(max_size=120), st.sampled_from([(3, 9, 8), (40, 30), (5,), (), (2, 3, 4, 5)]),
    st.sampled_from(["u1", "i2", "f4", "f8"]),
)  # fmt: skip
def test_any_bytes_are_decoded_or_refused(form, data, shape, dtype):
    with contextlib.suppress(CorruptError):
        assert numbers.decode(bytes([form]) + data, shape, np.dtype(dtype)).shape == shape
    with contextlib.suppress(CorruptError):
        assert lossless.decode(b"\2" + bytes([form]) + data, shape, np.dtype(dtype)).shape == shape


def test_a_stream_that_is_cut_or_lengthened_is_an_error():
    rng = np.random.default_rng(0)
    noise, few, grid = rng.standard_normal(500), rng.choice(rng.random(40), 500), rng.integers(0, 10**6, 500) / 10
    for values in (noise, few, grid):
        data = check(values)
        for wrong in (data[:-6], data + bytes(6), data[: len(data) // 2], data[:1], b""):
            with pytest.raises(CorruptError):
                numbers.decode(wrong, values.shape, values.dtype)


def test_malformed_heads_are_errors():
    line = np.array([np.inf, 1.0]).tobytes()
    for data, dtype in (
        (b"\4\0", "f8"), (b"\1\0\0", "f8"), (b"\1" + leb128(0) + leb128(1) + b"\1\0", "f8"),
        (b"\2" + line + b"\1\0", "f8"), (b"\2" + line[:9], "f8"), (b"\1\1\1\1\0", "i8"), (b"\1\1\1\x7f\0", "f8"),
        (b"\1\1\1\1\0\1", "f8"), (b"\1\1\1\1\0\0\0", "f8"), (b"\3\0\1\0", "f8"),
        (b"\3" + leb128(1 << 40) + b"\1\0", "f8"),
        (b"\3\2\xff\xff", "f8"), (b"\0\x20", "f8"), (b"\1" + b"\x80" * 12, "f8"),
    ):  # fmt: skip
        with pytest.raises(CorruptError):
            numbers.decode(data, (7,), np.dtype(dtype))


def test_a_short_stream_of_a_long_array_takes_no_time():
    start = time.perf_counter()
    with pytest.raises(CorruptError):
        numbers.decode(b"\0\0" + bytes(range(1, 30)), (1 << 24,), np.dtype("f8"))
    assert time.perf_counter() - start < 8


def test_large_arrays_are_sampled():
    rng = np.random.default_rng(0)
    smooth = np.sin(np.add.outer(np.arange(300) / 40, np.arange(400) / 50)).astype("f4")
    assert lossless.encode(smooth)[:1] == b"\2"
    noise = rng.integers(0, 2**32, 70000, np.uint32)
    assert lossless.encode(noise)[:1] in (b"\2", b"\x78")
    tiled = np.tile(rng.random(64), 1100)  # repeats, which DEFLATE finds
    assert len(lossless.encode(tiled)) < 0.02 * tiled.nbytes
    assert lossless.encode(smooth, quick=True)[:1] == b"\x78"


def test_a_grid_is_found_whatever_the_shape():
    y, x = np.meshgrid(np.linspace(0, 9, 128), np.linspace(0, 9, 1024), indexing="ij")
    assert check(np.round(20 * np.sin(x * y / 9) + 10, 2))[0] == numbers._FRACTION  # the first column has one value


def test_in_an_archive(tmp_path):
    y, x = np.meshgrid(np.linspace(-1.3, 1.3, 60), np.linspace(0, 6.2, 80), indexing="ij")
    data = xr.Dataset(
        {"depth": (("j", "i"), np.round(1000 * np.sin(x + y)).astype("f4")), "height": (("j", "i"), np.sin(x + y))},
        {"lat": (("j", "i"), np.degrees(y).astype("f4")), "lon": (("j", "i"), np.degrees(x).astype("f4"))},
    )
    vcinr.compress(data, tmp_path / "a.zip", variables=["depth", "height"])
    with vcinr.open(tmp_path / "a.zip") as back:
        for name in data.variables:
            assert back[name].values.tobytes() == data[name].values.tobytes()


def test_the_benchmark_counts_whole_archives():
    y, x = np.meshgrid(np.linspace(-1.3, 1.3, 40), np.linspace(0, 6.2, 50), indexing="ij")
    rows = benchmark.compare(
        benchmark.Case("grid", {"lat": np.degrees(y).astype("f4"), "lon": np.degrees(x)}, ("y", "x"))
    )
    assert all(row["exact"] for row in rows)
    sizes = {row["codec"]: row["bytes"] for row in rows}
    assert {"zlib 9", "Parquet zstd 19", "vcinr"} <= set(sizes)
    assert "lat" in benchmark.table(rows) or benchmark.table(rows)
