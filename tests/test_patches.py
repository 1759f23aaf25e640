"""Experts for patches: geometry, learning, the model file, the coder, and what the codec makes of them."""

import contextlib
import json
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import vcinr
from vcinr import container, models
from vcinr.archive import jobs
from vcinr.archive.plan import plan
from vcinr.codec.chunk import Chunk, describe, seed_of
from vcinr.codec.decode import decode as decode_chunk
from vcinr.codec.encode import encode as encode_chunk
from vcinr.codec.promise import Bound, Field, errors_of, valid_values
from vcinr.config import Patches
from vcinr.errors import BoundError, ConfigError, CorruptError, InputError, ModelError
from vcinr.formats.base import KIND_OF_SIGNAL
from vcinr.models import from_bytes, load_model
from vcinr.patches import coder, frames, kernels
from vcinr.patches.geometry import Geometry, extended, shifts, three, usual, windows
from vcinr.patches.learn import learn, learn_later, stored
from vcinr.patches.model import PER_HALVING, RATES, Experts, PatchModel, step_of
from vcinr.patches.train import geometry_of
from vcinr.quality import psnr_of

GEOMETRIES = [
    usual(1), usual(2), usual(3), Geometry((1, 1, 5), (0, 0, 3), (0, 0, 0)), Geometry((1, 4, 3), (0, 1, 2), (0, 0, 4)),
    Geometry((2, 3, 2), (1, 2, 1), (0, 2, 3)), Geometry((1, 1, 1), (0, 1, 2), (0, 0, 1)),
    Geometry((1, 4, 4), (0, 0, 0), (0, 0, 0)), Geometry((1, 4, 3), (1, 1, 2), (0, 2, 3), 6),
]  # fmt: skip


def texture(angle: float, size: int, rng: np.random.Generator) -> np.ndarray:
    """A surface that changes along one direction alone: float64 ``[1, size, size, 1]``, over a range of 1."""
    y, x = np.mgrid[:size, :size]
    walk = rng.standard_normal(4 * size).cumsum()
    along = np.cos(angle) * x + np.sin(angle) * y + 1.5 * size
    return np.interp(along, np.arange(4 * size), (walk - walk.min()) / np.ptp(walk))[None, ..., None]


def textures(count: int, size: int = 48, seed: int = 0) -> list[np.ndarray]:
    """Textures of three directions in turns."""
    rng = np.random.default_rng(seed)
    return [texture((0.2, 1.25, 2.3)[i % 3], size, rng) for i in range(count)]


def experts_of(signals, geometry=GEOMETRIES[4], **changes):
    options = {"experts": 4, "rounds": 5, "patches": 10_000, "psnr": 40.0, **changes}
    return learn(signals, geometry, **options)


@pytest.fixture(scope="module")
def learnt() -> PatchModel:
    """A model of textures, as it is read from its file."""
    middle, predict, basis, _ = experts_of(textures(24))
    return stored(PatchModel(GEOMETRIES[4], ("y", "x"), None, {"v": (0.0, 1.0)}, middle, predict, basis, {"seed": 0}))


def made(geometry: Geometry, features: int, experts: int, seed: int = 0) -> PatchModel:
    """A model that has learnt nothing: predictions are smooth, bases are orthonormal, and all else is drawn."""
    rng = np.random.default_rng(seed)
    q, around = geometry.points * features, len(geometry.offsets) * features
    predict = 0.3 * rng.standard_normal((experts, around, q)) / max(1, around) ** 0.5
    basis = np.stack([np.linalg.qr(rng.standard_normal((q, q)))[0] for _ in range(experts)])
    axes = 3 if geometry.motion else max(1, sum(n > 1 for n in geometry.size))
    dims = ("z", "y", "x")[3 - axes :]
    feature = None if features == 1 else "channel"
    middle = rng.random(features).astype("f4")
    parts = (middle, predict.astype("f4"), basis.astype("f4"))
    later = ()
    if geometry.group:
        seen = [geometry.seen(planes) * features for planes in (1, 2)]
        predicts = [0.9 * rng.random((experts, n, q)).astype("f4") / n for n in seen]
        later = tuple(Experts(p, basis[::-1].astype("f4")) for p in predicts)
    return stored(PatchModel(geometry, dims, feature, {"v": (0.0, 1.0)}, *parts, {}, later))


# --- geometry


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_points_around_a_patch_are_in_patches_before_it(geometry):
    size = np.array(geometry.size)
    offsets = geometry.offsets
    assert offsets.shape == (len(offsets), 3) and len(np.unique(offsets, axis=0)) == len(offsets)
    assert all(tuple(o // size) < (0, 0, 0) for o in offsets)
    low, high = -np.array(geometry.back), size + geometry.ahead
    inside = [o for o in np.ndindex(*(high - low)) if tuple((o + low) // size) < (0, 0, 0)]
    assert len(offsets) == len(inside), "every known point of the box is there"
    assert [tuple(o) for o in offsets] == sorted(tuple(o) for o in offsets)
    near = geometry.near
    assert near.shape == (len(offsets),) * 2 and near.dtype == np.int64
    for j, order in enumerate(near):
        assert sorted(order) == list(range(len(offsets)))
        apart = np.square(offsets[order] - offsets[j]).sum(1)
        assert order[0] == j and (np.diff(apart) >= 0).all()
        ties = np.diff(apart) == 0
        assert (np.diff(order)[ties] > 0).all(), "of equally near points, the first comes first"


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_signals_are_extended_to_whole_patches(geometry):
    signal = np.random.default_rng(0).random((5 if geometry.size[0] > 1 else 1, 7, 11, 2))
    whole = extended(signal, geometry)
    assert whole.shape == (*geometry.padded(signal.shape[:3]), 2)
    assert all(n % s == 0 and n - m < s for n, m, s in zip(whole.shape, signal.shape, geometry.size, strict=False))
    assert np.array_equal(whole[tuple(map(slice, signal.shape))], signal)
    assert np.array_equal(whole[-1, -1, -1], signal[-1, -1, -1])
    assert np.array_equal(extended(whole, geometry), whole)


def test_lengths_of_three_axes():
    assert three((5,), 1) == (1, 1, 5) and three((4, 5), 0) == (0, 4, 5) and three((3, 4, 5), 1) == (3, 4, 5)
    assert [usual(n).points for n in (1, 2, 3)] == [128, 64, 64]
    assert geometry_of(Patches(), 2, 3) == usual(2)
    assert geometry_of(Patches(size=(4, 2), back=(1, 1), ahead=(0, 2)), 2, 1) == Geometry(
        (1, 4, 2), (0, 1, 1), (0, 0, 2)
    )
    with pytest.raises(ConfigError, match=r"patches\.size: \[4\] has 1 lengths, and signals have 2 axes"):
        geometry_of(Patches(size=(4,)), 2, 1)
    with pytest.raises(
        ConfigError, match=r"patches of 40 x 40 points of 3 features.* more than 4096 values; give smaller"
    ):
        geometry_of(Patches(size=(40, 40)), 2, 3)
    assert geometry_of(Patches(size=(1, 8, 8), motion=7), 3, 1).motion == 7
    grouped = geometry_of(Patches(size=(1, 8, 8), back=(0, 2, 2), ahead=(0, 0, 8), motion=7, group=4), 3, 1)
    assert (grouped.motion, grouped.group, grouped.offsets[:, 0].min()) == (7, 4, 0)
    for changes in ({"motion": 0}, {"back": (1, 2, 2)}, {"ahead": (1, 0, 8)}):
        options = {"size": (1, 8, 8), "back": (0, 2, 2), "ahead": (0, 0, 8), "motion": 7, "group": 4, **changes}
        with pytest.raises(ConfigError, match=r"patches\.group: it is for motion"):
            geometry_of(Patches(**options), 3, 1)
    for axes, patch in ((3, (2, 8, 8)), (2, (8, 8))):
        with pytest.raises(ConfigError, match=r"patches\.motion: it is for signals of three axes"):
            geometry_of(Patches(size=patch, motion=7), axes, 1)
    with pytest.raises(ConfigError, match="more than 4096 values"):
        geometry_of(Patches(size=(1, 1), back=(60, 60), ahead=(0, 60)), 2, 1)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("features", [1, 3])
def test_what_is_learnt_from_is_what_the_coder_sees(geometry, features):
    """Values around patches are the same where experts learn and where they predict, at all edges too."""
    signal = (
        np.random.default_rng(0)
        .random((4 if geometry.size[0] > 1 or geometry.motion else 1, 9, 13, features))
        .astype("f4")
    )
    model = made(geometry, features, 1)
    whole = extended(signal, geometry)
    counts = [n // s for n, s in zip(whole.shape, geometry.size, strict=False)]
    index = np.array(list(np.ndindex(*counts)))
    moved = shifts(whole, geometry)
    around, target = windows(whole, geometry, index, model.middle, moved)
    decoded, fill = whole.astype("f8"), getattr(kernels._values_around, "py_func", kernels._values_around)
    memory = kernels.patch_memory(model.reading[0], *counts)
    for row, (z, y, x) in enumerate(index):
        known = decoded.copy()
        z0, y0, x0 = index[row] * geometry.size
        for rows in (np.s_[z0 + geometry.size[0] :], np.s_[z0:, y0 + geometry.size[1] :]):
            known[rows] = np.nan  # what comes later is not looked at
        known[z0:, y0:, x0:] = np.nan
        memory.shift[:] = 0 if moved is None else moved[z, y, x]
        fill(model.reading[0], memory, known, z, y, x)
        assert np.allclose(memory.around, around[row], rtol=0, atol=1e-6)
        patch = decoded[tuple(slice(a, a + n) for a, n in zip((z0, y0, x0), geometry.size, strict=True))]
        assert np.allclose((patch - memory.mean).ravel(), target[row], rtol=0, atol=1e-6)


def test_steps():
    steps = np.array([step_of(rate) for rate in range(RATES)])
    assert (np.diff(steps) < 0).all() and steps[0] == 1.0
    assert all(step_of(16 * k) == 2.0**-k for k in range(RATES // 16))
    assert step_of(8) == 0.75 and step_of(17) == 31 / 64
    assert np.array_equal(steps * 2.0**16, np.rint(steps * 2.0**16)), "exact"
    assert np.abs(np.log2(steps) + np.arange(RATES) / 16).max() < 0.1
    assert np.allclose((steps[int(PER_HALVING) :] / steps[: -int(PER_HALVING)]) ** 2, 0.5, rtol=0.13)
    for rate in (-1, RATES, 255):
        with pytest.raises(CorruptError, match="rate"):
            step_of(rate)


# --- learning


def test_experts_are_found():
    """Of textures of three directions, four experts need far fewer bits than one, and each learns something else."""
    signals = textures(24)
    one, four = experts_of(signals, experts=1), experts_of(signals)
    assert one[1].shape[0] == 1 and four[1].shape[0] == 4
    assert four[3][-1]["bits_per_value"] < 0.9 * one[3][-1]["bits_per_value"]
    assert four[3][-1]["bits_per_value"] <= four[3][0]["bits_per_value"] + 1e-9
    middle, predict, basis, _ = four
    assert (
        middle.shape == (1,) and predict.shape[1:] == (len(GEOMETRIES[4].offsets), 12) and basis.shape[1:] == (12, 12)
    )
    assert {a.dtype for a in (middle, predict, basis)} == {np.dtype("f4")}
    assert np.abs(basis @ basis.swapaxes(1, 2) - np.eye(12)).max() < 1e-4
    assert all(np.abs(predict[a] - predict[b]).max() > 0.05 for a in range(4) for b in range(a))


def test_learning_depends_on_the_seed_alone():
    signals = textures(9)
    first, again, other = (experts_of(signals, patches=600, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first[:3], again[:3], strict=True)) and first[3] == again[3]
    assert not np.array_equal(first[2], other[2])


def test_few_patches_make_fewer_experts_or_none():
    signals = textures(1, 36)
    assert 1 <= len(experts_of(signals)[1]) < 4
    with pytest.raises(
        InputError, match=r"^4 patches are too few to learn 12 values each; give more or larger"
    ) as caught:
        experts_of([signals[0][:, :8, :6]])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("geometry", [GEOMETRIES[3], GEOMETRIES[5], GEOMETRIES[6], GEOMETRIES[7]])
def test_experts_of_other_axes(geometry):
    rng = np.random.default_rng(0)
    signal = rng.standard_normal((12, 24, 40, 2)).cumsum(2) / 20
    middle, predict, basis, history = experts_of([signal[: geometry.size[0] * 6]], geometry, experts=3)
    model = stored(PatchModel(geometry, ("z", "y", "x"), "channel", {"v": (0.0, 1.0)}, middle, predict, basis))
    stream, decoded = coder.encode(model, signal[None], 100)
    assert np.array_equal(coder.decode(model, stream, (1, *signal.shape), 100), decoded)
    assert all(np.isfinite(list(entry.values())).all() for entry in history)


def test_what_moves_is_followed():
    """A texture that moves as a whole needs fewer bits where patches are displaced."""
    big = sum(texture(angle, 120, np.random.default_rng(0))[0] for angle in (0.4, 1.9)) / 2
    clip = np.stack([big[5 * t : 5 * t + 40, 3 * t : 3 * t + 48] for t in range(14)])
    sizes = {}
    for motion in (0, 8):
        geometry = Geometry((1, 8, 8), (1, 1, 1), (0, 1, 4), motion)
        middle, predict, basis, _ = experts_of([clip], geometry, experts=1, patches=1000)
        model = stored(PatchModel(geometry, ("t", "y", "x"), None, {"v": (0.0, 1.0)}, middle, predict, basis))
        assert model.geometry == geometry
        stream, decoded = coder.encode(model, clip[None], 80)
        assert np.array_equal(coder.decode(model, stream, (1, *clip.shape), 80), decoded)
        sizes[motion] = len(stream)
    found = shifts(extended(clip.astype("f4"), geometry), geometry)[2:, 1:4, 1:5]
    assert (found == [5, 3]).all(-1).mean() > 0.9
    assert sizes[8] < 0.85 * sizes[0], sizes


GROUPED = Geometry((1, 8, 8), (0, 1, 1), (0, 0, 4), 8, 4, 1, (6, 2, -2))


@pytest.mark.parametrize(("count", "group"), [(0, 4), (1, 4), (2, 4), (9, 4), (8, 4), (24, 8), (7, 1), (30, 5)])
def test_the_order_of_frames(count, group):
    """Each frame comes once, after those that it looks at, of which it is the middle; most look at two."""
    order = list(frames.ordered(count, group))
    assert sorted(frame.z for frame in order) == list(range(count))
    known: set[int] = set()
    for frame in order:
        assert {frame.before, frame.after} - {-1} <= known
        assert frame.after < 0 or frame.z == (frame.before + frame.after) // 2
        assert (frame.level == 0) == (frame.z == 0) and (frame.level <= 1) == (frame.after < 0)
        known.add(frame.z)
    assert sum(frame.after < 0 for frame in order) == min(count, 1 + max(0, -(-(count - 1) // group)))


def moving_clips(count: int) -> list[np.ndarray]:
    """Textures that move as a whole by fractions of a point, in one direction and then in another."""
    clips = []
    for i in range(count):
        angles = 0.4 + i, 1.9 + i
        big = sum(texture(angle, 200, np.random.default_rng(i))[0] for angle in angles) / 2
        way = np.cumsum([0.0, *[1.25] * 6, *[-0.5] * 6])
        y, x = np.mgrid[:40, :48]
        places = [(50 + y + 1.5 * at, 40 + x + at) for at in way]
        clips.append(np.stack([bilinear(big, *at) for at in places]).astype("f4"))
    return clips


def bilinear(image: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Values between the points of an image."""
    i, j = np.floor(y).astype(int), np.floor(x).astype(int)
    v, u = (y - i)[..., None], (x - j)[..., None]
    return (1 - v) * ((1 - u) * image[i, j] + u * image[i, j + 1]) + v * (
        (1 - u) * image[i + 1, j] + u * image[i + 1, j + 1]
    )


def test_frames_of_groups_need_fewer_bits():
    """The same experts need fewer bits where frames look at two others and at fractions of a point."""
    clips, sizes = moving_clips(6), {}
    for geometry in (Geometry((1, 8, 8), (1, 1, 1), (0, 1, 4), 8), GROUPED):
        middle, predict, basis, _ = experts_of(clips[1:], geometry, experts=1, patches=1000)
        model = PatchModel(geometry, ("t", "y", "x"), None, {"v": (0.0, 1.0)}, middle, predict, basis)
        if geometry.group:
            options = {"experts": 1, "rounds": 2, "patches": 500, "psnr": 40.0}
            later, history = learn_later(clips[1:], geometry, **options)
            assert [e.predict.shape for e in later] == [(1, geometry.seen(n), 64) for n in (1, 2)]
            assert len(history) == 4
            model = replace(model, later=later)
        model = stored(model)
        stream, decoded = coder.encode(model, clips[0][None].astype("f8"), 90)
        assert np.array_equal(coder.decode(model, stream, (1, *clips[0].shape), 90), decoded)
        sizes[geometry.group] = len(stream) * 10 ** (psnr(clips[0], decoded[0]) / -20 * 0.7)
    assert sizes[4] < 0.8 * sizes[0], sizes


@pytest.mark.parametrize("features", [1, 3])
@pytest.mark.parametrize("frames_of_clip", [1, 2, 3, 11])
def test_frames_come_back(features, frames_of_clip):
    """Whatever the number of frames, and for sizes that are not of whole patches."""
    rng = np.random.default_rng(0)
    geometry = Geometry((1, 4, 3), (0, 1, 2), (0, 0, 3), 6, 4, 0, (4,))
    model = made(geometry, features, 3)
    signals = rng.standard_normal((2, frames_of_clip, 9, 13, features)).cumsum(2).cumsum(3) / 8
    for rate in (0, 50, RATES - 1):
        likely = coder.likely_experts(model, signals, rate)
        stream, decoded = coder.encode(model, signals, rate, likely)
        assert np.array_equal(coder.decode(model, stream, signals.shape, rate), decoded)
        assert np.abs(decoded - signals).max() < 3 * 2.0 ** (2 - rate / 16) + 1e-3
    with contextlib.suppress(CorruptError):
        coder.decode(model, rng.bytes(200), signals.shape, 90)


@pytest.mark.parametrize(
    "changes",
    [
        {"finer": []}, {"finer": [0] * 17}, {"finer": [192]}, {"finer": [0.5]}, {"margin": -1}, {"margin": 4000},
        {"group": -1}, {"group": True}, {"back": [1, 1, 2]}, {"motion": 0}, {"margin": 1}, {"group": 0},
    ],
)  # fmt: skip
def test_a_malformed_model_of_frames(changes, tmp_path):
    """Groups need motion, margins that fit the experts, and some levels."""
    model = made(Geometry((1, 4, 3), (0, 1, 2), (0, 0, 3), 6, 4, 0, (4,)), 1, 1)
    assert from_bytes(model.data, "m").later[1].predict.shape == model.later[1].predict.shape
    header, tensors = container.unpack(model.data, "model")
    header.pop("tensors")
    with pytest.raises(ModelError):
        from_bytes(container.pack(header | changes, tensors, lambda name, _: name != "middle", 2), "m")


def test_frames_are_learnt_from_as_the_coder_sees_them():
    """What is around a patch that does not move is the same part of the frames around it."""
    geometry = replace(GROUPED, motion=1)
    still, rng = np.repeat(textures(1, 32)[0], 5, 0).astype("f4"), np.random.default_rng(0)
    around, target = frames.seen([still], geometry, 2, 10**6, 1e-9, rng)
    assert around.shape == (3 * 16, geometry.seen(2)) and target.shape == (48, 64)
    windows_seen = around[:, len(geometry.offsets) :].reshape(-1, 2, 10, 10)
    assert np.allclose(windows_seen[:, 0], windows_seen[:, 1], rtol=0, atol=1e-6)
    assert np.allclose(windows_seen[:, 0, 1:-1, 1:-1], target.reshape(-1, 8, 8), rtol=0, atol=1e-6)
    few, _ = frames.seen([still], geometry, 1, 5, 1e-9, rng)
    assert few.shape == (4, geometry.seen(1)), "every fourth of 16, so that there are at most 5"


def test_constant_signals_are_learnt_without_complaint():
    middle, predict, basis, _ = experts_of([np.full((1, 48, 48, 1), 0.25)])
    model = stored(PatchModel(GEOMETRIES[4], ("y", "x"), None, {"v": (0.0, 1.0)}, middle, predict, basis))
    assert np.abs(coder.encode(model, np.full((1, 1, 9, 9, 1), 0.25), 100)[1] - 0.25).max() < 1e-6


# --- the model's file


def test_a_model_comes_back_from_its_file(learnt, tmp_path):
    (tmp_path / "m.vcinr").write_bytes(learnt.data)
    back = load_model(tmp_path / "m.vcinr")
    assert isinstance(back, PatchModel) and back.data == learnt.data and back.sha256 == learnt.sha256
    for name in ("geometry", "dims", "feature_dim", "normalisation", "provenance", "features"):
        assert getattr(back, name) == getattr(learnt, name)
    for name in ("middle", "predict", "basis"):
        assert np.array_equal(getattr(back, name), getattr(learnt, name))
    assert stored(replace(learnt)).data == learnt.data, "rounding to 8 bits changes nothing the second time"
    assert struct.unpack_from("<H", learnt.data, 8) == (2,)
    assert learnt.scaling("v") == (0.0, 1.0)
    with pytest.raises(ModelError, match="not trained on variable 'w' but on v"):
        learnt.scaling("w")


def altered(model: PatchModel, change) -> bytes:
    """The model's file with another header or other tensors, under a sound checksum."""
    header, tensors = container.unpack(model.data, "model")
    header.pop("tensors")
    change(header, tensors)
    return container.pack(header, tensors, lambda name, _: name[:5] in ("predi", "basis"), 2)


def put(key, value):
    return lambda header, tensors: header.__setitem__(key, value)


MALFORMED = {
    "no sizes": lambda header, tensors: header.pop("size"),
    "two sizes": put("size", [4, 3]),
    "no points": put("size", [0, 4, 3]),
    "a negative size": put("back", [0, -1, 2]),
    "a text": put("ahead", "004"),
    "a truth value": put("back", [False, 1, 2]),
    "another size": put("size", [1, 3, 4]),
    "a huge patch": put("size", [4095, 4095, 4095]),
    "a huge surrounding": put("back", [4095, 4095, 4095]),
    "groups without motion": lambda header, tensors: header.update(group=4, margin=0, finer=[0]),
    "groups of a fraction": lambda header, tensors: header.update(group=4.5, margin=0, finer=[0]),
    "four dimensions": put("dims", ["t", "z", "y", "x"]),
    "no dimension": put("dims", []),
    "a number for a dimension": put("dims", [1, 2]),
    "a number for the features": put("feature_dim", 3),
    "no scale": put("normalisation", [["v", 0.0, 0.0]]),
    "an infinite offset": put("normalisation", [["v", float("inf"), 1.0]]),
    "a lone name": put("normalisation", ["v"]),
    "no expert": lambda header, tensors: [tensors.pop(k) for k in list(tensors) if k != "middle"],
    "half an expert": lambda header, tensors: tensors.pop("predict/1"),
    "a stranger": lambda header, tensors: tensors.__setitem__("more", np.zeros(3, "f4")),
    "a wrong shape": lambda header, tensors: tensors.__setitem__("basis/0", np.zeros((3, 3), "f4")),
    "a middle of two axes": lambda header, tensors: tensors.__setitem__("middle", np.zeros((1, 1), "f4")),
    "no number": lambda header, tensors: tensors.__setitem__("middle", np.array([np.nan], "f4")),
    "integers": lambda header, tensors: tensors.__setitem__("middle", np.array([1], "i4")),
    "too many experts": lambda header, tensors: tensors.update(
        {f"{n}/{k}": tensors[f"{n}/0"] for n in ("predict", "basis") for k in range(33)}
    ),
    "no provenance": put("provenance", 7),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_model_is_one_line(case, learnt):
    with pytest.raises(ModelError, match=r"^m\.vcinr: the model is malformed \(.+\)$") as caught:
        from_bytes(altered(learnt, MALFORMED[case]), "m.vcinr")
    assert "\n" not in str(caught.value)


def test_other_files_that_are_no_such_model(learnt):
    with pytest.raises(ModelError, match=r"m\.vcinr: a model of the kind 'dreams', which this vcinr does not know"):
        from_bytes(altered(learnt, put("kind", "dreams")), "m.vcinr")
    with pytest.raises(ModelError, match=r"m\.vcinr: .*upgrade"):
        from_bytes(later(learnt.data), "m.vcinr")
    with pytest.raises(ModelError, match=r"m\.vcinr: the model is damaged"):
        from_bytes(learnt.data[:100] + bytes([learnt.data[100] ^ 1]) + learnt.data[101:], "m.vcinr")
    for length in (0, 5, 17, len(learnt.data) - 1):
        with pytest.raises(ModelError, match=r"m\.vcinr"):
            models.from_bytes(learnt.data[:length], "m.vcinr")


def later(data: bytes) -> bytes:
    body = data[:8] + struct.pack("<H", container.VERSION + 1) + data[10:-4]
    return body + struct.pack("<I", zlib.crc32(body))


def test_a_surrounding_beyond_the_limit_takes_no_memory(learnt):
    """A small file that names a large surrounding of single points, whose distances would take gigabytes."""

    def huge(header, tensors):
        header.update(size=[1, 1, 1], back=[3, 4, 800], ahead=[0, 0, 0])
        around = 4 * 5 * 801 - 1
        for k in range(len(learnt.basis)):
            tensors[f"predict/{k}"] = np.zeros((around, 1), "f4")
            tensors[f"basis/{k}"] = np.ones((1, 1), "f4")

    with pytest.raises(ModelError, match="too large"):
        from_bytes(altered(learnt, huge), "m.vcinr")


# --- the coder


MODELS = {
    (axes, features): made(geometry, features, experts)
    for axes, geometry, features, experts in [
        (1, GEOMETRIES[3], 1, 1), (1, GEOMETRIES[3], 2, 3), (2, GEOMETRIES[4], 1, 4), (2, GEOMETRIES[4], 3, 2),
        (2, GEOMETRIES[6], 4, 2), (2, GEOMETRIES[7], 2, 5), (3, GEOMETRIES[5], 1, 3), (3, GEOMETRIES[5], 3, 1),
        (3, GEOMETRIES[8], 2, 2),
    ]
}  # fmt: skip


@st.composite
def coded(draw):
    axes, features = draw(st.sampled_from(sorted(MODELS)))
    lengths = draw(st.lists(st.integers(1, 9), min_size=axes, max_size=axes))
    shape = (draw(st.integers(0, 3)), *three(tuple(lengths), 1), features)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    signals = draw(st.sampled_from([1.0, 1e-3, 1e3])) * rng.standard_normal(shape)
    signals *= draw(st.sampled_from([0.0, 1.0]))
    return MODELS[axes, features], signals, draw(st.sampled_from([0, 1, 15, 37, 80, 120, 191]))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(coded(), st.booleans())
def test_what_is_coded_is_decoded_to_the_bit(case, choose):
    model, signals, rate = case
    likely = coder.likely_experts(model, signals, rate) if choose else None
    stream, decoded = coder.encode(model, signals, rate, likely)
    back = coder.decode(model, stream, signals.shape, rate)
    assert back.dtype == np.float64 and back.tobytes() == decoded.tobytes() and back.shape == signals.shape
    # All latents but the small ones are rounded to less than a step, and bases are nearly orthonormal.
    q = model.geometry.points * model.features
    assert np.abs(decoded - signals).max(initial=0) <= 2 * step_of(rate) * q**0.5 + 1e-6 * np.abs(signals).max(
        initial=0
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(coded(), st.data())
def test_damaged_streams_are_errors_or_other_values(case, data):
    model, signals, rate = case
    stream = bytearray(coder.encode(model, signals, rate)[0])
    if data.draw(st.booleans()) and stream:
        for _ in range(data.draw(st.integers(1, 3))):
            stream[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    elif data.draw(st.booleans()):
        del stream[data.draw(st.integers(0, len(stream))) :]
    else:
        stream = data.draw(st.binary(max_size=60)) + bytes(stream)
    try:
        back = coder.decode(model, bytes(stream), signals.shape, rate)
    except CorruptError:
        return
    assert back.shape == signals.shape and np.isfinite(back).all()


def test_streams_of_extremes_end():
    """All ones make every number as long as it can be, and all zeros make it as short."""
    for model in MODELS.values():
        shape = (2, *[4 if n > 1 else 1 for n in model.geometry.size], model.features)
        for stream in (b"", b"\0" * 3000, b"\xff" * 3000, b"\xff" * 100_000):
            for rate in (0, 191):
                with contextlib.suppress(CorruptError):
                    assert np.isfinite(coder.decode(model, stream, shape, rate)).all()


def test_a_finer_rate_has_a_smaller_error_and_more_bytes(learnt):
    signals = np.stack(textures(3, 50, seed=9))
    errors, sizes = [], []
    for rate in range(0, RATES, 12):
        stream, decoded = coder.encode(learnt, signals, rate, coder.likely_experts(learnt, signals, rate))
        errors.append(float(np.square(decoded - signals).mean()))
        sizes.append(len(stream))
    assert (np.diff(errors) < 0).all() and (np.diff(sizes) > 0).all()
    fine = np.array(errors[5:])
    assert (fine < np.array([step_of(r) for r in range(60, RATES, 12)]) ** 2 / 8).all(), "near that of uniform rounding"


def test_experts_and_context_pay(learnt):
    """Two likely experts do nearly as well as all of them, and the right expert better than any alone."""
    signals = np.stack(textures(3, 96, seed=7))
    rate = 90
    all_of_them = len(coder.encode(learnt, signals, rate)[0])
    likely = len(coder.encode(learnt, signals, rate, coder.likely_experts(learnt, signals, rate))[0])
    assert likely < 1.05 * all_of_them
    alone = [
        len(
            coder.encode(stored(replace(learnt, predict=learnt.predict[[k]], basis=learnt.basis[[k]])), signals, rate)[
                0
            ]
        )
        for k in range(len(learnt.basis))
    ]
    assert all_of_them < min(alone)


# --- the codec


def field_of(shape, model, scaling=(0.0, 1.0), **more):
    return Field("v", (len(shape) - 2, len(shape) - 1), model=model, scaling=scaling, **more)


def coded_chunk(values, field, bound, **options):
    encoded = encode_chunk(values, field, bound, **options)
    back = decode_chunk(encoded.data, values.shape, values.dtype, field)
    valid = valid_values(values, field.fill)
    assert back.dtype == values.dtype and back[~valid].tobytes() == values[~valid].tobytes()
    errors = errors_of(values, back)[valid]
    assert errors.max(initial=0) == encoded.max_abs_error
    return encoded, back, errors


def psnr(values: np.ndarray, back: np.ndarray) -> float:
    """In dB, of the range of the values."""
    values = values.astype("f8")
    return float(psnr_of(np.square(back - values).mean() / np.ptp(values) ** 2))


def arranged(dtype: str, count: int = 2) -> tuple[np.ndarray, tuple[float, float]]:
    """Textures as values of a type, and the scaling that normalises them."""
    values = np.stack(textures(count, 40, seed=5))[:, 0, :, :, 0]
    if dtype[0] == "f":
        return (270 + 40 * values).astype(dtype), (270.0, 40.0)
    scale = {"u1": 255.0, "u2": 60000.0, "i2": 30000.0}[dtype]
    return np.rint(scale * values).astype(dtype), (0.0, scale)


DTYPES = ["u1", "u2", "i2", "f4", "f8"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("effort", ["best", "fast"])
def test_an_absolute_bound_is_kept(dtype, effort, learnt):
    values, scaling = arranged(dtype)
    bound = Bound("absolute", max(1.0, 0.02 * scaling[1]) if dtype != "f4" else 0.5)
    encoded, _, errors = coded_chunk(values, field_of(values.shape, learnt, scaling), bound, effort=effort)
    assert errors.max() <= bound.value
    plain = encode_chunk(values, field_of(values.shape, None), bound, effort=effort)
    assert len(encoded.data) <= len(plain.data) + 16


def test_a_chunk_is_described_with_the_rate_of_its_patches(learnt):
    values, scaling = arranged("f4")
    encoded = encode_chunk(values, field_of(values.shape, learnt, scaling), None, rate=101)
    assert encoded.mode == "prior" and describe(encoded.data, patches=True)["rate"] == 101


def test_a_model_is_fitted_once_to_each_array_of_files(learnt, monkeypatch):
    fitted, real = [], jobs._fitted
    monkeypatch.setattr(jobs, "_fitted", lambda groups, name, model: fitted.append(name) or real(groups, name, model))
    signals = xr.Dataset({"v": (("item", "y", "x"), np.arange(512, dtype="f4").reshape(2, 16, 16))})
    groups = {"": xr.Dataset(attrs={KIND_OF_SIGNAL: "image"}), "a": signals, "b": signals[{"item": [0]}]}
    groups["deep"] = signals.rename(y="level")
    found = plan(groups, model=learnt, abs_error=0.1, variables=["a/v", "b/v", "deep/v"])
    assert [a.job.model is not None for a in found] == [True, True, False]
    assert fitted[:3] == ["a/v", "b/v", "deep/v"] and fitted[3:] == ["deep/v"], "the last one again, without the model"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_psnr_is_met(dtype, learnt):
    values, scaling = arranged(dtype)
    spread = float(np.ptp(values.astype("f8")))
    bound = Bound("psnr", 38.0, spread)
    encoded, back, _ = coded_chunk(values, field_of(values.shape, learnt, scaling), bound)
    assert 38.0 <= psnr(values, back) < 40.0 or encoded.mode != "prior"
    plain = encode_chunk(values, field_of(values.shape, None), bound)
    assert len(encoded.data) <= len(plain.data) + 16
    assert encoded.mode == "prior" and len(encoded.data) < 0.9 * len(plain.data), "textures are what it has learnt"


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_rate_is_kept(dtype, learnt):
    values, scaling = arranged(dtype)
    bound = Bound("rate", 0.8)
    encoded, _, errors = coded_chunk(values, field_of(values.shape, learnt, scaling), bound)
    assert 8 * len(encoded.data) <= 0.8 * values.size
    plain = encode_chunk(values, field_of(values.shape, None), bound)
    assert np.square(errors).mean() <= 1.1 * plain.squared_error / plain.valid
    with pytest.raises(BoundError):
        encode_chunk(values, field_of(values.shape, learnt, scaling), Bound("rate", 0.001))


@pytest.mark.parametrize("dtype", DTYPES)
def test_without_a_bound_it_is_the_finest_rate(dtype, learnt):
    values, scaling = arranged(dtype)
    encoded, _, errors = coded_chunk(values, field_of(values.shape, learnt, scaling), None)
    assert errors.max() <= max(1.0 if dtype[0] != "f" else 0.0, 1e-2 * scaling[1])
    assert encoded.mode in ("prior", "lossless")


def test_a_bound_relative_to_each_value_is_kept(learnt):
    values, scaling = arranged("f4")
    field, bound = field_of(values.shape, learnt, scaling), Bound("relative", 1e-3)
    encoded, back, _ = coded_chunk(values, field, bound)
    assert (np.abs(back.astype("f8") - values) <= 1e-3 * np.abs(values)).all() and "prior" not in encoded.mode


@pytest.mark.parametrize("bound", [Bound("absolute", 0.5), Bound("psnr", 35.0, 40.0), Bound("rate", 2.0), None])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_gaps_come_back_as_they_were(bound, dtype, learnt):
    values, scaling = arranged(dtype)
    values[0, 3:20, 5:9], values[1, 0, 0], values[1, -1], values[0, 0, :7] = np.nan, np.inf, 1e20, -np.inf
    _, back, errors = coded_chunk(values, field_of(values.shape, learnt, scaling, fill=(1e20,)), bound)
    if bound is not None and bound.kind == "absolute":
        assert errors.max() <= 0.5
    assert np.array_equal(np.isnan(back), np.isnan(values))
    nothing = np.full_like(values, np.nan)
    coded_chunk(nothing, field_of(values.shape, learnt, scaling, fill=(1e20,)), bound)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1, 7), (3, 5, 1), (0, 4, 4), (2, 0, 4), (17, 13)])
@pytest.mark.parametrize("bound", [Bound("absolute", 0.01), Bound("psnr", 40.0, 1.0), None])
def test_any_size(shape, bound, learnt):
    values = np.random.default_rng(0).random(shape)
    _, _, errors = coded_chunk(values, field_of(shape, learnt), bound)
    if bound is not None and bound.kind == "absolute":
        assert errors.max(initial=0) <= 0.01


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_the_bound_is_kept_for_any_values(learnt, data):
    dtype = np.dtype(data.draw(st.sampled_from(["u1", "i2", "i8", "f2", "f4", "f8"])))
    shape = tuple(data.draw(st.lists(st.integers(1, 7), min_size=2, max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    power = data.draw(st.integers(-3, 12))
    info = np.iinfo(dtype) if dtype.kind in "iu" else np.finfo(dtype)
    values = np.clip(rng.standard_normal(shape) * 10.0**power, float(info.min) / 2, float(info.max) / 2).astype(dtype)
    bound = Bound("absolute", 10.0 ** data.draw(st.integers(-3, 6)))
    _, _, errors = coded_chunk(values, field_of(shape, learnt, (0.0, 1.0)), bound)
    assert errors.max() <= bound.value


def test_a_chunk_that_is_not_of_its_model(learnt):
    values, scaling = arranged("f4")
    field = field_of(values.shape, learnt, scaling)
    data = encode_chunk(values, field, Bound("psnr", 38.0, 40.0)).data
    three_axes = replace(field, signal_axes=(0, 1, 2))
    one = stored(replace(learnt, provenance={"seed": 1}))
    for other in (
        three_axes,
        replace(field, model=one),
        replace(field, model=None),
        replace(field, scaling=(0.0, 1.0)),
    ):
        with pytest.raises(CorruptError):
            decode_chunk(data, values.shape, values.dtype, other)
    with pytest.raises(ModelError, match="rates 0 to 191, not 192"):
        encode_chunk(values, field, Bound("absolute", 0.5), rate=192)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_chunk_under_a_sound_checksum(learnt, data):
    """Whatever its stream and its rate say, it is an error or other values, of numbers and without a warning."""
    values, scaling = arranged(data.draw(st.sampled_from(["u1", "f4", "f8"])))
    field, bound = field_of(values.shape, learnt, scaling), Bound("absolute", 2.0)
    seed = seed_of(field, values.dtype, values.shape)
    chunk = Chunk.unpack(encode_chunk(values, field, bound, rate=data.draw(st.sampled_from([8, 60, 90]))).data, seed)
    stream = bytearray(chunk.stream)
    for _ in range(data.draw(st.integers(0, 3))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    stream = bytes(stream)[: data.draw(st.sampled_from([len(stream), len(stream) // 2]))] + data.draw(st.binary())
    rate = data.draw(st.sampled_from([chunk.sections.prior, b"", b"\0", b"\xbf", b"\xc0", b"\xff", b"\1\2"]))
    damaged = replace(chunk, stream=stream, sections=replace(chunk.sections, prior=rate))
    try:
        back = decode_chunk(damaged.pack(seed), values.shape, values.dtype, field)
    except CorruptError:
        return
    assert back.shape == values.shape and back.dtype == values.dtype and np.isfinite(back).all()


def test_an_archive_with_such_a_model(learnt, tmp_path):
    values, scaling = arranged("f4", 3)
    model = stored(replace(learnt, normalisation={"v": scaling}))
    dims = ("item", "y", "x")
    data = xr.Dataset({"v": (dims, values)}, {"y": np.arange(40.0), "x": 2 * np.arange(40.0)})
    vcinr.compress(data, tmp_path / "a.zarr", model=model, psnr=38.0, chunk=2)
    problems, facts = vcinr.verify(tmp_path / "a.zarr", data)
    assert problems == [] and facts["v"]["chunks"] == 2
    assert vcinr.info(tmp_path / "a.zarr")["model"]["sha256"] == model.sha256
    back = vcinr.open(tmp_path / "a.zarr")["v"]
    assert psnr(values, back.values) >= 38.0
    # Between its samples, values are interpolated: patches are not evaluated at coordinates.
    y, x = np.array([0.0, 3.25, 39.0]), np.array([0.0, 33.7, 78.0])
    found = vcinr.at(tmp_path / "a.zarr", {"y": y, "x": x})["v"]
    wanted = back.interp(y=xr.DataArray(y, dims="point"), x=xr.DataArray(x, dims="point"))
    assert np.allclose(found, wanted, rtol=0, atol=1e-3)
    codec = json.loads((tmp_path / "a.zarr" / "v" / "zarr.json").read_text())["codecs"][0]["configuration"]
    assert codec["model"] == model.sha256 and not codec.get("axes")
    with pytest.raises(ModelError, match=r"dimensions item, y, lon, the model was trained on y, x"):
        vcinr.compress(data.rename(x="lon"), tmp_path / "b.zarr", model=model, psnr=38.0)
    colours = data.rename(item="channel").transpose("y", "x", "channel")
    three_features = made(GEOMETRIES[4], 3, 1)
    with pytest.raises(ModelError, match="3 features along dimension 'channel', and here are 0"):
        vcinr.compress(data, tmp_path / "b.zarr", model=three_features, psnr=38.0)
    vcinr.compress(colours, tmp_path / "c.zarr", model=three_features, abs_error=0.5)
    assert vcinr.verify(tmp_path / "c.zarr", colours)[0] == []
