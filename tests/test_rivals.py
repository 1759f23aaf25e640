"""Rival codecs and the side-by-side run: real bytes, real decoding, the bound measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("imagecodecs", reason="needs the extra vcinr[bench]")

from benchmarks.measure.machine import record
from benchmarks.measure.rows import rate_distortion, side_by_side
from benchmarks.rivals import RIVALS, SPERR, SPERR_RMS, SZ3
from benchmarks.rivals.eof import EofCodec
from vcinr.errors import InputError

SETTINGS = [rival for group in RIVALS.values() for rival in group]
BOUND = 0.05


def field(count: int, seed: int, grid: tuple[int, int] = (20, 28), dtype: str = "float32") -> np.ndarray:
    """Maps spanned by a few smooth patterns plus small noise, around 280."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.linspace(0, 1, grid[0]), np.linspace(0, 1, grid[1]), indexing="ij")
    patterns = np.stack([np.sin(2 * np.pi * (k + 1) * x + k) * np.cos(k * y * 3) for k in range(6)])
    weights = rng.normal(size=(count, 6)) * np.geomspace(5, 0.3, 6)
    maps = 280 + 15 * y + np.tensordot(weights, patterns, 1) + 0.02 * rng.normal(size=(count, *grid))
    return maps.astype(dtype)


TRAIN, TEST = field(60, 0), field(24, 1)


def achieved(values: np.ndarray, decoded: np.ndarray) -> float:
    assert decoded.shape == values.shape and decoded.dtype == values.dtype
    return float(np.abs(values.astype(np.float64) - decoded.astype(np.float64)).max())


@pytest.mark.parametrize("rival", SETTINGS, ids=lambda r: r.name)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rival_decodes_from_its_bytes_within_the_bound(rival, dtype):
    values = TEST.astype(dtype)
    data = rival.encode(values, BOUND)
    assert isinstance(data, bytes) and len(data) < values.nbytes
    assert achieved(values, rival.decode(data, values.shape, values.dtype)) <= 1.01 * BOUND


@pytest.mark.parametrize("rival", SETTINGS, ids=lambda r: r.name)
@pytest.mark.parametrize("shape", [(1, 20, 28), (24, 1, 28), (2, 3, 8, 9), (2, 2, 3, 6, 7), (3, 50), (1, 1, 60)])
def test_a_rival_takes_any_shape(rival, shape):
    values = TEST.ravel()[: math.prod(shape)].reshape(shape).copy()
    data = rival.encode(values, BOUND)
    assert achieved(values, rival.decode(data, shape, values.dtype)) <= 1.01 * BOUND


@pytest.mark.parametrize("rival", SETTINGS, ids=lambda r: r.name)
def test_a_rival_takes_a_constant_and_small_bound(rival):
    values = np.full((3, 8, 9), 280.25, np.float32)
    data = rival.encode(values, 1e-3)
    assert achieved(values, rival.decode(data, values.shape, values.dtype)) <= 1.01e-3


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_rival_refuses_what_would_crash_it(bad):
    values = TEST.copy()
    values[0, 0, 0] = bad
    for rival in SETTINGS:
        with pytest.raises(InputError, match="finite"):
            rival.encode(values, BOUND)


def test_sperr_reaches_the_rms_it_is_asked_for():
    data = SPERR_RMS.encode(TEST, 0.1)
    difference = SPERR_RMS.decode(data, TEST.shape, TEST.dtype).astype(np.float64) - TEST
    assert math.sqrt(np.mean(difference**2)) <= 0.11


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("bound", [2.0, 0.1, 0.005])
def test_eof_decodes_from_its_bytes_and_its_model_alone_and_keeps_the_bound(precision, bound):
    codec = EofCodec.fit(TRAIN, 8, precision)
    data = codec.encode(TEST, bound)
    elsewhere = EofCodec.from_bytes(codec.to_bytes())
    decoded = elsewhere.decode(data, TEST.shape, TEST.dtype)
    assert achieved(TEST, decoded) <= bound
    np.testing.assert_array_equal(decoded, codec.decode(data, TEST.shape, TEST.dtype))
    parts = codec.parts(data)
    assert parts["coefficient_bytes"] + parts["residual_bytes"] < len(data) < TEST.nbytes


def test_eof_beats_coders_that_learn_nothing_on_maps_it_was_trained_for():
    learned = len(EofCodec.fit(TRAIN, 6).encode(TEST, 0.2))
    assert learned < 0.5 * min(len(r.encode(TEST, 0.2)) for r in (*SZ3, SPERR))


def test_eof_model_bytes_are_the_mean_the_basis_and_little_else():
    points = TRAIN[0].size
    for precision, size in (("float32", 4), ("float16", 2)):
        numbers = 9 * points * size
        assert numbers < len(EofCodec.fit(TRAIN, 8, precision).to_bytes()) < numbers + 64


@pytest.mark.parametrize("step", [0.5, 0.05])
def test_eof_stream_is_as_long_as_its_symbols_are_improbable(step):
    codec = EofCodec.fit(TRAIN, 6)
    many = field(400, 2)
    data = codec.encode_quality(many, step)
    parts = codec.parts(data)
    coefficients = codec.project(many.reshape(len(many), -1).astype(np.float64))
    z = np.rint(coefficients / parts["step"])
    sigma = np.maximum(np.sqrt(np.mean((coefficients / parts["step"]) ** 2, axis=0)), 0.1)
    upper = np.vectorize(math.erf)((z + 0.5) / sigma / math.sqrt(2))
    lower = np.vectorize(math.erf)((z - 0.5) / sigma / math.sqrt(2))
    ideal = -np.log2(np.maximum((upper - lower) / 2, 1e-9)).sum() / 8
    # The scales come from training on a grid of quarter octaves, hence the allowance.
    assert parts["residual_bytes"] == 0
    assert parts["coefficient_bytes"] == pytest.approx(ideal, rel=0.03, abs=8)


def test_eof_quality_improves_as_the_step_falls():
    codec = EofCodec.fit(TRAIN, 6)
    points = []
    for step in (2.0, 0.5, 0.1):
        data = codec.encode_quality(TEST, step)
        difference = codec.decode(data, TEST.shape, TEST.dtype).astype(np.float64) - TEST
        points.append((len(data), float(np.mean(difference**2))))
    sizes, errors = zip(*points, strict=True)
    assert sorted(sizes) == list(sizes) and sorted(errors, reverse=True) == list(errors)


def dummy(values: np.ndarray, number: float) -> tuple[int, np.ndarray, dict]:
    decoded = (np.round(values / number) * number).astype(values.dtype)
    return 1000, decoded, {"model_bytes": 500, "encode_seconds": 0.5, "residual": 900}


def test_side_by_side_rows_are_json_and_measured():
    seen = []
    rows = side_by_side(TEST, TRAIN, [0.5, 0.05], 50.0, {"vcinr": dummy}, (4,), seen.append)
    names = {"vcinr", "EOF 4 float32", "EOF 4 float16", *RIVALS}
    assert {(r["codec"], r["bound"]) for r in rows} == {(n, b) for n in names for b in (0.5, 0.05)}
    assert len(seen) == seen[-1].total == len(rows)
    result = json.loads(json.dumps(record(bounded=rows), allow_nan=False))
    assert result["machine"]["versions"]["pysz"] and result["date"]
    for row in result["bounded"]:
        assert row["bound_fraction"] == row["bound"] / 50
        assert row["bits_per_value"] == 8 * row["bytes"] / TEST.size
        assert row["bound_ratio"] == row["max_abs_error"] / row["bound"] <= 1.01
        assert row["ours"] == (row["codec"] == "vcinr")
    ours = next(r for r in rows if r["ours"])
    assert ours["bits_per_value_with_model"] == 8 * 1500 / TEST.size
    assert ours["encode_mbs"] == pytest.approx(TEST.nbytes / 1e6 / 0.5) and ours["decode_mbs"] is None
    assert ours["parts"] == {"residual": 900}
    mse = np.mean((dummy(TEST, 0.5)[1].astype(np.float64) - TEST) ** 2)
    assert ours["psnr_db"] == pytest.approx(10 * math.log10(50**2 / mse))


def test_side_by_side_leaves_out_a_rival_that_cannot_do_it_and_refuses_masked_maps():
    names = {r["codec"] for r in side_by_side(TEST, TRAIN, [1e-4], 50.0, {}, (4,))}
    assert "linear + JPEG XL" not in names and "SZ3" in names
    with pytest.raises(InputError, match="finite"):
        side_by_side(np.where(TEST > 285, np.nan, TEST), TRAIN, [0.1], 50.0, {}, (4,))


def test_rate_distortion_rows_have_no_bound_and_rise():
    rows = rate_distortion(TEST, TRAIN, 50.0, {"vcinr": (dummy, [0.5, 0.1])}, (4, 6), (35, 45))
    assert all(r["bound"] is None and r["bound_ratio"] is None for r in rows)
    assert [r["level"] for r in rows if r["ours"]] == [0.5, 0.1]
    for name in ("SPERR", "SZ3", "EOF 6 float32"):
        low, high = (r for r in rows if r["codec"] == name)
        assert low["bytes"] < high["bytes"] and low["psnr_db"] < high["psnr_db"]
    sperr = [r["psnr_db"] for r in rows if r["codec"] == "SPERR"]
    assert 34 < sperr[0] < 42 and 44 < sperr[1] < 52  # it overshoots on easy fields


def test_codecs_of_video_come_back():
    """Every codec of video decodes all frames, and a finer setting has more bytes and smaller errors."""
    pytest.importorskip("av", reason="needs the extra vcinr[bench]")
    from benchmarks.rivals import video

    t, y, x = np.meshgrid(np.arange(6), np.arange(64), np.arange(64), indexing="ij")
    waves = [128 + 100 * np.sin((x - k * t) / 5) * np.cos(y / 7 + k) for k in (1, 2, 3)]
    clip = np.rint(np.stack(waves, -1)).astype(np.uint8)
    for codec in video.CODECS:
        found = []
        for setting in (codec.settings[0], codec.settings[-1]):
            data = codec.encode(clip, setting)
            back = codec.decode(data)
            assert back.shape == clip.shape and back.dtype == np.uint8
            assert codec.size(data) == len(data) - 4 * len(video._unpack(data))
            found.append((codec.size(data), float(np.square(back.astype(float) - clip).mean())))
        assert found[0][0] > found[1][0] and found[0][1] < found[1][1] < 2000, (codec.name, found)


# --- codecs of sound


def wave(rate: int, channels: int, dtype: str) -> np.ndarray:
    rng, t = np.random.default_rng(0), np.arange(rate // 2) / rate
    tones = zip(rng.uniform(100, 2000, 6), rng.random(6), rng.uniform(0.02, 0.1, 6), strict=True)
    whole = sum(a * np.sin(2 * np.pi * f * t + p) for f, p, a in tones)
    whole = np.stack([whole, 0.5 * whole[::-1]], 1) if channels == 2 else whole
    scale = {"i2": 2**15 - 1, "i4": 2**22, "f4": 1.0}[dtype]
    return (np.rint(scale * whole) if dtype[0] == "i" else whole).astype(dtype)


@pytest.mark.parametrize(
    ("rate", "channels", "dtype", "names"),
    [
        (16_000, 1, "i2", ["MP3", "Opus"]), (44_100, 1, "f4", ["MP3", "Opus", "AAC", "FLAC"]),
        (44_100, 2, "i2", ["MP3", "Opus", "AAC", "FLAC"]), (48_000, 2, "f4", ["MP3", "Opus", "AAC", "FLAC"]),
        (48_000, 1, "i4", ["MP3", "Opus", "AAC", "FLAC"]), (37_800, 1, "f4", ["Opus", "FLAC"]),
    ],
)  # fmt: skip
def test_codecs_of_sound(rate, channels, dtype, names):
    """Of floats and of two channels too: finer settings need more bytes, and are closer to what was coded."""
    pytest.importorskip("av")
    from benchmarks.measure.curves import psnr
    from benchmarks.measure.files import USUAL, rival_codecs
    from benchmarks.rivals import sound

    values = wave(rate, channels, dtype)
    codecs = rival_codecs(replace(USUAL["sound"], samples=rate), values)
    assert [codec.name for codec in codecs] == names
    for codec in codecs:
        found = []
        for setting in (codec.settings[0], codec.settings[-1]):
            data = codec.encode(values, setting)
            back = sound.aligned_to(values, codec.decode(data))
            assert back.dtype == values.dtype and back.shape == values.shape
            found.append((codec.size(data), psnr(values, back, 2 * sound.full_scale(values))))
        (coarse, worse), (fine, better) = found
        assert (coarse < fine < values.nbytes and better > worse) or len(codec.settings) == 1
        assert better > (95 if codec.name == "FLAC" else 35), codec.name
        if codec.name == "FLAC" and dtype[0] == "i":
            np.testing.assert_array_equal(back, values)


def test_sound_of_many_channels_has_no_rivals():
    from benchmarks.measure.files import USUAL, rival_codecs

    assert rival_codecs(USUAL["sound"], np.zeros((9, 6), "f4")) == ()
