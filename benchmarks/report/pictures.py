"""Pictures of signals, of what an archive leaves of them, and of what a rival does in as many bytes."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.measure.curves import psnr
from benchmarks.measure.files import Spec, rival_codecs, through_archive, values_of, within, write_files
from benchmarks.report import samples
from benchmarks.rivals.sound import FLAC, full_scale
from vcinr.archive.read import raw_groups
from vcinr.kinds.files import separated

_CROP, _SECONDS, _TILES = 200, 5, 64
_AMPLIFIED = 8  # of errors, so that they can be seen


def picture(spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float, path: Path) -> str:
    """Draw one signal, or many small images.

    Parameters
    ----------
    spec : Spec
        Of the signals.
    tested : mapping of str to xarray.Dataset
        One signal by its name; of small images many.
    model : Path
        The model.
    level : float
        The PSNR in dB that the archive is asked for, with the peak of the spec.
    path : Path
        The PNG to write.

    Returns
    -------
    str
        Its caption.
    """
    draw: dict[str, Callable[[Spec, Mapping[str, xr.Dataset], Path, float, Path], str]] = {
        "image": _mosaic if spec.small else _crop, "sound": _spectrograms, "volume": _slices,
        "video": _frames,
    }  # fmt: skip
    return draw[spec.kind](spec, tested, model, level, path)


def _decoded(
    spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float
) -> tuple[int, list[np.ndarray], list[np.ndarray]]:
    """Bytes of the streams, the originals and what is decoded, in the order of names."""
    with tempfile.TemporaryDirectory(prefix="kinds-") as folder:
        files, archive = Path(folder) / "files", Path(folder) / "archive.zip"
        files.mkdir()
        write_files(spec, tested, files)
        row = through_archive(spec, files, model, level, None, archive)
        back = [values_of(dataset, spec) for _, dataset in separated(raw_groups(archive))]
    return row["stream_bytes"], [values_of(tested[name], spec) for name in sorted(tested)], back


def _crop(spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float, path: Path) -> str:
    size, (original,), (decoded,) = _decoded(spec, tested, model, level)
    shown = {f"vcinr, {size:,} bytes": decoded}
    names, settings = (("JPEG 4", "AVIF"), range(1, 100, 2))
    if original.dtype == np.uint16:
        names, settings = ("JPEG 2000", "SPERR"), range(30, 50)
    for codec in rival_codecs(spec, original):
        if codec.name.startswith(names):
            data, back = within(codec, original, size, settings)
            shown[f"{codec.name}, {data:,} bytes"] = back
    where = tuple(slice(max(0, n - _CROP) // 2, max(0, n - _CROP) // 2 + _CROP) for n in original.shape[:2])
    titled = {f"{t}\n{psnr(original, v, spec.peak):.1f} dB": _eight_bits(v[where], spec) for t, v in shown.items()}
    error = _error(original[where], decoded[where], spec)
    samples.images(path, {"original": _eight_bits(original[where], spec), **titled, _ERROR: error})
    return f"A crop of {next(iter(tested))}, what is left of it in as many bytes, and the error of vcinr."


def _mosaic(spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float, path: Path) -> str:
    some = dict(sorted(tested.items())[:: max(1, len(tested) // _TILES)][:_TILES])
    size, originals, decoded = _decoded(spec, some, model, level)
    side = int(np.sqrt(len(originals)))

    def together(tiles: list[np.ndarray]) -> np.ndarray:
        rows = [np.concatenate(tiles[i * side : (i + 1) * side], 1) for i in range(side)]
        return np.concatenate(rows)

    first, second = together(originals), together(decoded)
    title = f"vcinr, {size / len(originals):.0f} bytes a tile\n{psnr(first, second, spec.peak):.1f} dB"
    samples.images(path, {"original": first, title: second, _ERROR: _error(first, second, spec)})
    return "Tiles, what is left of them, and the error."


def _spectrograms(spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float, path: Path) -> str:
    ((name, dataset),) = tested.items()
    short = dataset.isel(time=slice(_SECONDS * spec.samples))
    size, (original,), (decoded,) = _decoded(spec, {name: short}, model, level)
    shown = {f"vcinr, {size:,} bytes": decoded}
    for codec in rival_codecs(spec, original):
        if codec.name != FLAC:
            data, back = within(codec, original, size, range(8000, 64000, 1000))
            shown[f"{codec.name}, {data:,} bytes"] = back
    titled = {f"{t}\n{psnr(original, v, spec.peak):.1f} dB": v for t, v in shown.items()}
    error = original.astype(np.float64) - decoded
    scale = full_scale(original)
    heard = {t: v.reshape(len(v), -1).mean(1) / scale for t, v in {"original": original, **titled}.items()}
    heard["error of vcinr"] = error.reshape(len(error), -1).mean(1) / scale
    samples.spectrograms(path, heard, spec.samples)
    seconds = len(original) / spec.samples
    return f"Spectrograms of {seconds:.1f} seconds of {name}, of what is left in as many bytes, and of the error."


def _slices(spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float, path: Path) -> str:
    ((name, _),) = tested.items()
    size, (original,), (decoded,) = _decoded(spec, tested, model, level)
    low, span = float(original.min()), float(original.max()) - float(original.min())
    unit = [((v.astype(np.float64) - low) / span).astype(np.float32) for v in (original, decoded)]
    shown = {f"vcinr, {size:,} bytes": unit[1]}
    for codec in rival_codecs(spec, original):
        data, back = within(codec, unit[0], size, range(44, 15, -2))
        shown[f"{codec.name}, {data:,} bytes"] = back
    middle = len(original) // 2
    titled = {f"{t}\n{psnr(unit[0], v, 1):.1f} dB": _grey(v[middle]) for t, v in shown.items()}
    error = _grey(0.5 + _AMPLIFIED * (unit[1][middle] - unit[0][middle]) / 2)
    samples.images(path, {"original": _grey(unit[0][middle]), **titled, _ERROR: error})
    return f"A slice of {name}, what is left of it in as many bytes, and the error of vcinr."


def _frames(spec: Spec, tested: Mapping[str, xr.Dataset], model: Path, level: float, path: Path) -> str:
    size, (original,), (decoded,) = _decoded(spec, tested, model, level)
    shown = {f"vcinr, {size:,} bytes": decoded}
    for codec in rival_codecs(spec, original)[:1]:
        data, back = within(codec, original, size, range(50, 10, -1))
        shown[f"{codec.name.split()[0]}, {data:,} bytes"] = back
    some = [len(original) * part // 4 for part in (1, 2, 3)]

    def column(values: np.ndarray) -> np.ndarray:
        return np.concatenate(values[some])

    titled = {f"{t}\n{psnr(original, v, spec.peak):.1f} dB": column(v) for t, v in shown.items()}
    errors = _error(column(original), column(decoded), spec)
    samples.images(path, {"original": column(original), **titled, _ERROR: errors})
    return f"Three frames of {next(iter(tested))}, what is left of the clip in as many bytes, and the error of vcinr."


_ERROR = f"error of vcinr\ntimes {_AMPLIFIED}"


def _eight_bits(image: np.ndarray, spec: Spec) -> np.ndarray:
    """An image for display: three of its bands, or one."""
    scaled = _grey(image / spec.peak)
    if scaled.ndim == 2 or scaled.shape[-1] == 3:
        return scaled
    return scaled[..., 0] if scaled.shape[-1] < 3 else scaled[..., :3][..., ::-1]


def _error(original: np.ndarray, decoded: np.ndarray, spec: Spec) -> np.ndarray:
    error = (decoded.astype(np.float64) - original) * _AMPLIFIED / 2 + spec.peak / 2
    return _eight_bits(error, spec)


def _grey(values: np.ndarray) -> np.ndarray:
    """Values on [0, 1] as uint8."""
    return np.clip(np.rint(255 * np.asarray(values, np.float64)), 0, 255).astype(np.uint8)
