"""Files of one signal each, in one archive, beside the codecs made for them: what `benchmarks.kinds` and reports share.

All bytes of an archive count but those of the model, which are stated beside. The rivals are measured in the same run
with real bytes, decoded again: of each file alone as a whole and, for images, less the file of a flat grey signal at
the same setting (net). The floor is a linear transform with ideal codes (`benchmarks.measure.klt`). PSNRs are means
over signals; rates between measured points are interpolated. No times are measured.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import vcinr
from benchmarks.measure.curves import mean_psnr, paid_after, psnr, rate_at
from benchmarks.measure.klt import Klt, blocks_of
from benchmarks.report.kinds import BOUNDS, FLOOR, OURS
from benchmarks.rivals import AT_PSNR, RIVALS, bands, images, sound, video, volumes
from benchmarks.rivals.images import Lossy
from vcinr.archive.read import raw_groups
from vcinr.formats.write import write_dataset
from vcinr.kinds import KINDS
from vcinr.kinds.files import open_files, separated
from vcinr.progress import Progress, Watch, silent

_MOST_BLOCKS = 60_000  # that the floor learns from

Result = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """How signals of a kind are measured.

    Parameters
    ----------
    kind : str
        The kind of `vcinr.kinds`.
    unit, plural : str
        What a rate is divided by, and what its data are counted in.
    peak : float
        Of PSNRs, in the units of the signals.
    targets : tuple of float
        PSNRs in dB of the table.
    asked : tuple of float
        PSNRs that archives are asked for, with the same peak.
    block : tuple of int
        Of the floor.
    steps : tuple of float
        Of the floor's quantiser, in units of the peak.
    small : bool
        Whether images are so small that rivals may take their time.
    samples : int
        Samples of a second of sound.
    """

    kind: str
    unit: str
    plural: str
    peak: float
    targets: tuple[float, ...]
    asked: tuple[float, ...]
    block: tuple[int, ...]
    steps: tuple[float, ...]
    small: bool = False
    samples: int = 16_000

    @property
    def variable(self) -> str:
        """The variable that holds a signal."""
        name = KINDS[self.kind].variable
        assert name is not None
        return name


_IMAGE_STEPS = (0.4, 0.29, 0.21, 0.16, 0.12, 0.09, 0.065, 0.047, 0.034, 0.024)
USUAL = {
    "image": Spec("image", "pixel", "images", 255, (30, 32, 34, 36, 38), (28.5, 31, 33, 35, 37.5, 40), (16, 16),
                  _IMAGE_STEPS),
    "sound": Spec("sound", "second", "seconds", 65536, (40, 43, 46, 50), (39, 42, 45.5, 48, 51.5), (400,),
                  (0.16, 0.1, 0.065, 0.04, 0.027, 0.018, 0.012)),
    "volume": Spec("volume", "voxel", "volumes", 1, (35, 38, 41, 44), (34.5, 37.5, 40.5, 44.2), (8, 8, 8),
                   (0.12, 0.08, 0.055, 0.037, 0.025, 0.017)),
    "video": Spec("video", "pixel", "videos", 255, (30, 32, 34, 36, 38), (28.5, 31.5, 34.5, 37.5), (8, 8, 8),
                  (0.3, 0.2, 0.13, 0.085, 0.055, 0.037)),
}  # fmt: skip
"""How signals of each kind are measured where nothing else is said."""


def spec_of(kind: str, signals: Sequence[xr.Dataset]) -> Spec:
    """Return how signals are measured: in the usual way, with the peak and the sample rate that they have.

    The peak is 255 for 8 bits, 65535 for 16 bits, 65536 for sound, which goes from -32768 to 32767, and else the range
    of the values.
    """
    spec = USUAL[kind]
    values = [signal[spec.variable].values for signal in signals]
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    peak = {"uint8": 255.0, "uint16": 65535.0, "int16": 65536.0}.get(str(values[0].dtype), high - low or 1.0)
    if kind != "sound":
        return replace(spec, peak=peak)
    return replace(spec, peak=peak, samples=int(signals[0][spec.variable].attrs.get("sample_rate", spec.samples)))


def values_of(dataset: xr.Dataset, spec: Spec) -> np.ndarray:
    """Return the values of a signal."""
    return np.asarray(dataset[spec.variable].values)


# --- vcinr ----------------------------------------------------------------------------------------------------------


def write_files(spec: Spec, tested: Mapping[str, xr.Dataset], folder: Path) -> None:
    """Write signals as files of the kind's usual format; more bands than PNG holds become TIFF."""
    for name, dataset in tested.items():
        many = spec.kind == "image" and dataset.sizes.get("channel", 1) not in (1, 3)
        write_dataset(dataset, folder / f"{name}{'.tif' if many else KINDS[spec.kind].endings[0]}")


def through_archive(
    spec: Spec, folder: Path, model: Path | None, asked: float | None, bound: float | None, out: Path | None = None
) -> Result:
    """Compress files into one archive and decode it.

    Parameters
    ----------
    spec : Spec
        Of the kind.
    folder : Path
        The files, from `write_files`.
    model : Path, optional
        The model; without one the residual coders work alone.
    asked, bound : float, optional
        The PSNR in dB, or the bound as a fraction of the range: one of the two.
    out : Path, optional
        Where the archive is kept.

    Returns
    -------
    dict
        ``bytes`` of the archive without its model, ``stream_bytes`` of the chunks in it, ``psnr_db``, and for a bound
        ``bound_ratio``.
    """
    loaded = None if model is None else vcinr.load_model(model)
    data, variables = open_files([str(folder)])
    originals = [values_of(dataset, spec) for _, dataset in separated(data)]
    span = max(float(o.max()) for o in originals) - min(float(o.min()) for o in originals)
    level = None if asked is None else asked - 20 * float(np.log10(spec.peak / span))  # vcinr's peak is the range
    with tempfile.TemporaryDirectory(prefix="kinds-") as name:
        archive = out or Path(name) / "archive.zip"
        facts = vcinr.compress(
            data, archive, model=loaded, psnr=level, rel_error=bound, variables=variables, overwrite=True
        )
        decoded = [values_of(dataset, spec) for _, dataset in separated(raw_groups(archive))]
    row = {
        "bytes": facts["total_bytes"] - sum(facts["models"].values()),
        "stream_bytes": sum(v["bytes"] for v in facts["variables"].values()),
        "psnr_db": mean_psnr(originals, decoded, spec.peak),
    }
    if bound is not None:
        errors = (np.abs(d.astype(np.float64) - o).max() for d, o in zip(decoded, originals, strict=True))
        row["bound_ratio"] = float(max(errors)) / (bound * span)
    return row


# --- Rivals and the floor -------------------------------------------------------------------------------------------


def rival_codecs(spec: Spec, signal: np.ndarray) -> tuple[Lossy, ...]:
    """The rivals that have a scale of their own and can code signals like this one."""
    if spec.kind == "image":
        if signal.dtype == np.uint16 and signal.ndim == 3:
            return bands.CODECS
        return images.codecs(spec.small) if signal.dtype == np.uint8 and signal.shape[2:] == (3,) else ()
    if spec.kind == "sound":
        channels = 1 if signal.ndim == 1 else signal.shape[1]
        return sound.codecs(spec.samples, channels, deep=signal.dtype != np.int16) if channels <= 2 else ()
    if spec.kind == "video":
        return video.CODECS if signal.dtype == np.uint8 and signal.shape[3:] == (3,) else ()
    return (volumes.HEVC,) if signal.ndim == 3 else ()


def through_rival(spec: Spec, codec: Lossy, setting: float, tested: Sequence[np.ndarray]) -> Result:
    """Code signals one by one; ``bytes`` of all, ``stream_bytes`` less those of flat signals, and ``psnr_db``."""
    whole, decoded = 0, []
    for values in tested:
        data = codec.encode(values, setting)
        back = codec.decode(data)
        if spec.kind == "sound":
            back = sound.aligned_to(values, back)
        whole += codec.size(data)
        decoded.append(back)
    row = {"setting": setting, "bytes": whole, "psnr_db": mean_psnr(tested, decoded, spec.peak)}
    if spec.kind not in ("image", "video"):
        return row
    flat = {t.shape: np.full(t.shape, round(spec.peak / 2), t.dtype) for t in tested}
    sizes = {shape: codec.size(codec.encode(values, setting)) for shape, values in flat.items()}
    return row | {"stream_bytes": whole - sum(sizes[t.shape] for t in tested)}


def _rival_point(spec: Spec, codec: str, setting: float, tested: Sequence[np.ndarray]) -> Result:
    """`through_rival` by name, for another process."""
    (chosen,) = (c for c in rival_codecs(spec, tested[0]) if c.name == codec)
    return through_rival(spec, chosen, setting, tested)


def within(codec: Lossy, values: np.ndarray, most: int, settings: Sequence[float]) -> tuple[int, np.ndarray]:
    """The best that a codec does in at most so many bytes, or the least where it cannot: bytes, and what is decoded."""
    found: list[tuple[int, float, np.ndarray]] = []
    for setting in settings:
        data = codec.encode(values, setting)
        size, back = codec.size(data), codec.decode(data)
        if values.ndim <= 2:  # sound
            back = sound.aligned_to(values, back)
        found.append((size, psnr(values, back, 255), back))
        if size > 2 * most:
            break
    fitting = [f for f in found if f[0] <= most]
    best = max(fitting, key=lambda f: f[1]) if fitting else min(found, key=lambda f: f[0])
    return best[0], best[2]


def floor(spec: Spec, learned: np.ndarray, tested: Sequence[np.ndarray]) -> dict[str, list[Result]]:
    """The curve of the linear floor, with and without classes of blocks, of which the better one counts."""
    blocks = np.concatenate([blocks_of(signal, spec.block) for signal in learned[:: max(1, len(learned) // 4000)]])
    klt = Klt.fit(blocks[:: -(-len(blocks) // _MOST_BLOCKS)])
    curves: dict[str, list[Result]] = {}
    for classes in (1, 16):
        curve = []
        for step in spec.steps:
            bits, decoded = klt.code(tested, spec.block, step * spec.peak, classes)
            row = {"setting": step, "bytes": bits / 8, "stream_bytes": bits / 8}
            curve.append(row | {"psnr_db": mean_psnr(tested, decoded, spec.peak)})
        curves[FLOOR if classes > 1 else f"{FLOOR}, one class"] = curve
    return curves


def bounded_rival(codec: str, bound: float, volume: np.ndarray) -> Result:
    """The smallest of a codec's settings at a bound, as a fraction of a range of 1."""
    rows = []
    for setting in RIVALS[codec]:
        data = setting.encode(volume, bound)
        back = setting.decode(data, volume.shape, volume.dtype)
        error = float(np.abs(back.astype(np.float64) - volume).max())
        rows.append({"bytes": len(data), "psnr_db": psnr(volume, back, 1), "bound_ratio": error / bound})
    return {"codec": codec, "bound": bound, **min(rows, key=lambda r: r["bytes"])}


def aimed_rival(codec: str, target: float, volume: np.ndarray) -> Result:
    """The smallest of a codec's settings that aims at a PSNR."""
    rows = []
    for setting in AT_PSNR[codec]:
        data = setting.encode(volume, setting.aim(10 ** (-target / 20)))
        back = setting.decode(data, volume.shape, volume.dtype)
        rows.append({"setting": setting.name, "bytes": len(data), "psnr_db": psnr(volume, back, 1)})
    return min(rows, key=lambda r: r["bytes"] * 10 ** (-r["psnr_db"] / 20))  # at 6 dB a bit, roughly


def processes(count: int | None = None) -> ProcessPoolExecutor:
    """Return a pool of processes, by default as many as there are cores, in which measurements run on a thread each."""
    return ProcessPoolExecutor(count or os.cpu_count(), multiprocessing.get_context("spawn"))


# --- All together ---------------------------------------------------------------------------------------------------


def compare(
    spec: Spec, tested: Mapping[str, xr.Dataset], learned: np.ndarray, model: Path, pool: Executor,
    watch: Watch = silent,
) -> Result:  # fmt: skip
    """Compress signals with a model, and beside it with rivals.

    Parameters
    ----------
    spec : Spec
        How.
    tested : mapping of str to xarray.Dataset
        The signals by name, as formats read them.
    learned : numpy.ndarray
        ``[item, ...]``: what the model and the floor learned from, in the units of the signals.
    model : Path
        The model.
    pool : Executor
        Runs the single measurements, in other processes.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        JSON-able: ``units`` of all signals, how many ``signals``, ``curves`` by codec, rates ``at`` the targets, after
        how many signals the model has ``paid``, and for volumes ``bounds``.
    """
    files = dict(sorted(tested.items()))
    originals = [values_of(dataset, spec) for dataset in files.values()]
    grid = len(KINDS[spec.kind].dims)
    units = sum(float(np.prod(v.shape[:grid])) for v in originals)
    units = units / spec.samples if spec.kind == "sound" else units
    rivals: dict[str, list[Any]] = {}
    bounds: list[Any] = []
    with tempfile.TemporaryDirectory(prefix="kinds-") as folder:
        write_files(spec, files, Path(folder))
        run = partial(through_archive, spec, Path(folder))
        ours = [pool.submit(run, model, asked, None) for asked in spec.asked]
        if spec.kind == "volume":
            scaled = [_of_unit_range(v) for v in originals]
            bounded = [
                (codec, bound, pool.submit(run, used, None, bound))
                for bound in BOUNDS
                for codec, used in ((OURS, model), (f"{OURS}, no model", None))
            ]
            for codec in ("SZ3", "SPERR", "ZFP"):
                aims = (*(spec.asked[0] - less for less in (14, 9, 4)), *spec.asked, spec.asked[-1] + 3)
                rivals[codec] = [pool.submit(aimed_rival, codec, aim, scaled[0]) for aim in aims]
                bounds += [pool.submit(bounded_rival, codec, bound, scaled[0]) for bound in BOUNDS]
            of_rivals, scale = replace(spec, peak=1.0), scaled
        else:
            of_rivals, scale = spec, originals
        for own in rival_codecs(spec, originals[0]):
            rivals[own.name] = [
                pool.submit(_rival_point, of_rivals, own.name, setting, scale) for setting in own.settings
            ]
        curves = floor(spec, learned, originals)
        every = [*ours, *(point for points in rivals.values() for point in points)]
        for number, point in enumerate(every, 1):
            point.result()
            watch(Progress("measure", number, len(every)))
        curves |= {OURS: [{"setting": a, **p.result()} for a, p in zip(spec.asked, ours, strict=True)]}
        curves |= {codec: [point.result() for point in points] for codec, points in rivals.items()}
        result: Result = {"units": units, "signals": len(originals)}
        if spec.kind == "volume":
            rows = [{"codec": n, "bound": b, **point.result()} for n, b, point in bounded]
            rows += [point.result() for point in bounds]
            result["bounds"] = [{**row, "rate": 8 * row["bytes"] / units} for row in rows]
    for curve in curves.values():
        for row in curve:
            row["rate"] = 8 * row["bytes"] / units
            if "stream_bytes" in row:
                row["net_rate"] = 8 * row["stream_bytes"] / units
    result["curves"] = {codec: curves[codec] for codec in (OURS, *(c for c in curves if c != OURS))}
    result["at"] = at_targets(result["curves"], spec.targets)
    return result | {"paid": payback(result, spec, model.stat().st_size)}


def _of_unit_range(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return ((values.astype(np.float64) - low) / (high - low)).astype(np.float32)


def at_targets(curves: Mapping[str, Sequence[Result]], targets: Sequence[float]) -> list[Result]:
    """Rates of all codecs at PSNRs: rows with ``codec``, ``psnr_db``, ``rate`` and ``net_rate``, None out of reach."""
    return [
        {"codec": codec, "psnr_db": target, **{key: rate_at(curve, target, key) for key in ("rate", "net_rate")}}
        for codec, curve in curves.items() for target in targets
    ]  # fmt: skip


def payback(result: Result, spec: Spec, model_bytes: int) -> list[Result]:
    """At each PSNR the best rival by whole files, and after how many signals or seconds the model's bytes are won back.

    Rows have ``psnr_db``, ``rival``, ``rate``, ``units`` and ``count``, the last two None where a rival needs less.
    """
    rows = []
    each = 1 if spec.kind == "sound" else result["units"] / result["signals"]
    for target in spec.targets:
        at = {row["codec"]: row["rate"] for row in result["at"] if row["psnr_db"] == target and row["rate"]}
        rivals = {codec: rate for codec, rate in at.items() if codec != OURS and not codec.startswith(FLOOR)}
        if not rivals:
            continue
        best = min(rivals, key=lambda codec: rivals[codec])
        units = paid_after(model_bytes, at.get(OURS), rivals[best])
        count = None if units is None else units / each
        rows.append({"psnr_db": target, "rival": best, "rate": rivals[best], "units": units, "count": count})
    return rows
