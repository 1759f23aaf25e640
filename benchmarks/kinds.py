"""Files of one signal each beside the codecs made for them: ``python -m benchmarks.kinds [photo32] [photo768] ...``.

For tiles and photographs, speech, scans of brains and video (`benchmarks.data.signals` says which) a model is trained
on the training split alone. The test files become one archive each at several PSNRs, as ``vcinr compress`` makes it,
and all of its bytes count but those of the model, which are stated beside. The rivals are measured in the same run with
real bytes, decoded again: of each file alone as a whole, and less the file of a flat grey signal at the same setting
(net). The floor is a linear transform with ideal codes (`benchmarks.measure.klt`). PSNRs are means over signals, of 8
bits for images and video and of signals mapped to [0, 1] otherwise; rates between measured points are interpolated. A
kind that is in the file of results already stays there when others are run. No times are measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import vcinr
from benchmarks.data import signals
from benchmarks.measure.curves import mean_psnr, paid_after, psnr, rate_at
from benchmarks.measure.klt import Klt, blocks_of
from benchmarks.measure.machine import record
from benchmarks.report import samples
from benchmarks.report.kinds import BOUNDS, FLOOR, OURS, table
from benchmarks.rivals import AT_PSNR, RIVALS, images, sound, video, volumes
from benchmarks.rivals.images import Lossy
from vcinr.archive.read import raw_groups
from vcinr.config import Selection, Source, preset
from vcinr.datasets.ingest import ingest
from vcinr.kinds import KINDS
from vcinr.kinds.files import open_files, separated
from vcinr.patches.train import train_patches
from vcinr.progress import terminal

_MOST_BLOCKS = 60_000  # that the floor learns from

Result = dict[str, Any]


@dataclass(frozen=True)
class Spec:
    """How a kind is measured.

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
    tile : int
        Length of the tiles that the model learns from: long ones, because at the edges of tiles less is known around
        a patch than in whole signals.
    block : tuple of int
        Of the floor.
    steps : tuple of float
        Of the floor's quantiser, in units of the peak.
    experts : int, optional
        Largest number of experts; that of the kind where it is not given.
    """

    kind: str
    unit: str
    plural: str
    peak: float
    targets: tuple[float, ...]
    asked: tuple[float, ...]
    tile: int
    block: tuple[int, ...]
    steps: tuple[float, ...]
    experts: int | None = None


_IMAGE_STEPS = (0.4, 0.29, 0.21, 0.16, 0.12, 0.09, 0.065, 0.047, 0.034, 0.024)
SPECS = {
    "photo32": Spec("image", "pixel", "tiles of 32x32", 255, (30, 32, 34, 36, 38), (27.5, 30, 32, 34, 36, 38), 32,
                    (16, 16), _IMAGE_STEPS, experts=12),
    "photo768": Spec("image", "pixel", "photographs of 768x512", 255, (30, 32, 34, 36, 38), (28.5, 31, 33, 35, 37.5),
                     128, (16, 16), _IMAGE_STEPS),
    "speech": Spec("sound", "second", "seconds", 65536, (40, 43, 46.4, 50.6), (39, 42, 45.5, 48, 51.5),
                   signals.PIECE, (400,), (0.16, 0.1, 0.065, 0.04, 0.027, 0.018, 0.012)),
    "volumes": Spec("volume", "voxel", "volumes", 1, (35, 38, 41, 44), (34.5, 37.5, 40.5, 44.2), 60,
                    (8, 8, 8), (0.12, 0.08, 0.055, 0.037, 0.025, 0.017)),
    "video": Spec("video", "pixel", "clips", 255, (30, 32, 34, 36, 38), (28.5, 31.5, 34.5, 37.5), signals.SIDE,
                  (8, 8, 8), (0.3, 0.2, 0.13, 0.085, 0.055, 0.037)),
}  # fmt: skip


# --- vcinr ----------------------------------------------------------------------------------------------------------


def train(spec: Spec, learned: np.ndarray, out: Path) -> Result:
    """Train a model on signals ``[item, ...]`` and return what JSON says of it.

    These are the steps of ``vcinr train``, with the length of tiles as the pipeline's params.yaml may give it.
    """
    kind = KINDS[spec.kind]
    settings = preset("experts").patches.model_copy(update=dict(kind.patches))
    if spec.experts is not None:
        settings = settings.model_copy(update={"experts": spec.experts})
    assert kind.variable is not None
    dims = ("item", *kind.dims, "channel")[: learned.ndim]
    work = out.with_name(f".{out.name}.work")  # always the same, because a model states what it was trained on
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        file, store = work / "train.nc", work / "signals.zarr"
        xr.Dataset({kind.variable: (dims, learned)}).to_netcdf(file)
        chosen = (Selection(path=str(file)),)
        own: dict[str, Any] = {"tile": spec.tile, "tiles": 10**6}
        source = Source(kind=spec.kind, train=chosen, archive=chosen, test={"item": (0, 1)}, **own)
        ingest(source, work, store)
        facts = train_patches(store, settings, seed=0, out=out)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {
        "bytes": facts["model_bytes"],
        "experts": facts["experts"],
        "tile": spec.tile,
        "settings": {k: v for k, v in settings.model_dump().items() if v is not None},
        "estimated_bits_per_value": [row["bits_per_value"] for row in facts["history"]],
    }


def write_files(spec: Spec, tested: Mapping[str, np.ndarray], folder: Path) -> None:
    """Write signals as files of a usual format: PNG, WAV or NumPy."""
    for name, values in tested.items():
        if spec.kind == "image":
            from PIL import Image

            Image.fromarray(values).save(folder / f"{name}.png")
        elif spec.kind == "sound":
            import soundfile

            soundfile.write(folder / f"{name}.wav", values, signals.RATE, subtype="PCM_16")
        else:
            np.save(folder / f"{name}.npy", values)


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
    if spec.kind == "volume":
        (file,) = folder.glob("*.npy")
        originals = [np.load(file)]
        data: Any = xr.Dataset({"volume": (("z", "y", "x"), originals[0])})
        variables: list[str] | None = ["volume"]
    elif spec.kind == "video":
        originals = [np.load(file) for file in sorted(folder.glob("*.npy"))]
        data = xr.Dataset({"video": (("item", "frame", "y", "x", "channel"), np.stack(originals))})
        variables = ["video"]
    else:
        data, variables = open_files([str(folder)])
        originals = [_values(dataset, spec) for _, dataset in separated(data)]
    low, high = min(float(o.min()) for o in originals), max(float(o.max()) for o in originals)
    own_peak = 20 * float(np.log10(spec.peak / (high - low)))  # vcinr's is the range
    level = None if asked is None else asked - own_peak
    with tempfile.TemporaryDirectory(prefix="kinds-") as name:
        archive = out or Path(name) / "archive.zip"
        facts = vcinr.compress(
            data, archive, model=loaded, psnr=level, rel_error=bound, variables=variables, overwrite=True
        )
        if spec.kind == "volume":
            with vcinr.open(archive) as opened:
                decoded = [opened["volume"].values]
        elif spec.kind == "video":
            with vcinr.open(archive) as opened:
                decoded = list(opened["video"].values)
        else:
            decoded = [_values(dataset, spec) for _, dataset in separated(raw_groups(archive))]
    row = {
        "bytes": facts["total_bytes"] - sum(facts["models"].values()),
        "stream_bytes": sum(v["bytes"] for v in facts["variables"].values()),
        "psnr_db": mean_psnr(originals, decoded, spec.peak),
    }
    if bound is not None:
        row["bound_ratio"] = float(np.abs(decoded[0].astype(np.float64) - originals[0]).max()) / bound
    return row


def _values(dataset: xr.Dataset, spec: Spec) -> np.ndarray:
    variable = KINDS[spec.kind].variable
    assert variable is not None
    return np.asarray(dataset[variable].values)


# --- Rivals and the floor -------------------------------------------------------------------------------------------


def through_rival(spec: Spec, codec: Lossy, setting: float, tested: Sequence[np.ndarray]) -> Result:
    """Code signals one by one; ``bytes`` of all, ``stream_bytes`` less those of flat signals, and ``psnr_db``."""
    whole, flat_bytes, decoded = 0, 0, []
    for values in tested:
        data = codec.encode(values, setting)
        back = codec.decode(data)
        if spec.kind == "sound":
            back = sound.aligned_to(values, back)
        whole += codec.size(data)
        decoded.append(back)
    if spec.kind in ("image", "video"):
        shapes = {t.shape for t in tested}
        sizes = {shape: codec.size(codec.encode(np.full(shape, 128, np.uint8), setting)) for shape in shapes}
        flat_bytes = sum(sizes[t.shape] for t in tested)
    row = {"setting": setting, "bytes": whole, "psnr_db": mean_psnr(tested, decoded, spec.peak)}
    return row | ({"stream_bytes": whole - flat_bytes} if spec.kind in ("image", "video") else {})


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


def rival_codecs(name: str, spec: Spec) -> tuple[Lossy, ...]:
    """The rivals of a kind that have a scale of their own."""
    if spec.kind == "image":
        return images.codecs(name == "photo32")
    return {"sound": sound.CODECS, "video": video.CODECS}.get(spec.kind, (volumes.HEVC,))


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


# --- A kind as a whole ----------------------------------------------------------------------------------------------


def measure(
    name: str, spec: Spec, title: str, learned: np.ndarray, tested: Mapping[str, np.ndarray], pool: Executor,
    models: Path, tell: Callable[[str], None] = lambda text: None,
) -> Result:  # fmt: skip
    """Measure one set of signals.

    Parameters
    ----------
    name, spec : str, Spec
        Of the kind.
    title : str
        Of the set.
    learned : numpy.ndarray
        ``[item, ...]``: what may be learned from.
    tested : mapping of str to numpy.ndarray
        The signals to compress.
    pool : Executor
        Runs the single measurements.
    models : Path
        Folder in which the model is kept.
    tell : callable
        Is told what is being done.

    Returns
    -------
    dict
        JSON-able: ``units`` of all test signals, ``model``, ``curves`` by codec and, for volumes, ``bounds``.
    """
    files = dict(sorted(tested.items()))
    originals = list(files.values())
    channels = originals[0].shape[-1] if spec.kind in ("image", "video") else 1
    units: float = sum(v.size for v in originals) // channels
    units = units / signals.RATE if spec.kind == "sound" else units
    with tempfile.TemporaryDirectory(prefix="kinds-") as folder:
        write_files(spec, files, Path(folder))
        rivals: dict[str, list[Any]] = {}
        for codec in rival_codecs(name, spec):
            rivals[codec.name] = [
                pool.submit(_rival_point, name, codec.name, setting, originals) for setting in codec.settings
            ]
        bounds: list[Any] = []
        if spec.kind == "volume":
            for codec_name in ("SZ3", "SPERR", "ZFP"):
                aims = (*(spec.asked[0] - less for less in (14, 9, 4)), *spec.asked, spec.asked[-1] + 3)
                rivals[codec_name] = [pool.submit(aimed_rival, codec_name, aim, originals[0]) for aim in aims]
                bounds += [pool.submit(bounded_rival, codec_name, bound, originals[0]) for bound in BOUNDS]
        tell("train")
        path = models / f"{name if title == name else f'{name}-{title}'}.vcinr"
        path.parent.mkdir(parents=True, exist_ok=True)
        model = train(spec, learned, path)
        run = partial(through_archive, spec, Path(folder))
        ours = [pool.submit(run, path, asked, None) for asked in spec.asked]
        if spec.kind == "volume":
            bounded = [
                (codec_name, bound, pool.submit(run, used, None, bound))
                for bound in BOUNDS
                for codec_name, used in ((OURS, path), (f"{OURS}, no model", None))
            ]
        tell("floor")
        curves = floor(spec, learned, originals)
        tell("archives")
        curves |= {OURS: [{"setting": a, **p.result()} for a, p in zip(spec.asked, ours, strict=True)]}
        tell("rivals")
        curves |= {codec: [point.result() for point in points] for codec, points in rivals.items()}
        result: Result = {"title": title, "units": units, "signals": len(originals), "model": model}
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
    return result | {"paid": payback(result, spec)}


def _rival_point(name: str, codec: str, setting: float, tested: Sequence[np.ndarray]) -> Result:
    """`through_rival` by name, for another process."""
    (chosen,) = (c for c in rival_codecs(name, SPECS[name]) if c.name == codec)
    return through_rival(SPECS[name], chosen, setting, tested)


def at_targets(curves: Mapping[str, Sequence[Result]], targets: Sequence[float]) -> list[Result]:
    """Rates of all codecs at PSNRs: rows with ``codec``, ``psnr_db``, ``rate`` and ``net_rate``, None out of reach."""
    return [
        {"codec": codec, "psnr_db": target, **{key: rate_at(curve, target, key) for key in ("rate", "net_rate")}}
        for codec, curve in curves.items() for target in targets
    ]  # fmt: skip


def payback(result: Result, spec: Spec) -> list[Result]:
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
        units = paid_after(result["model"]["bytes"], at.get(OURS), rivals[best])
        count = None if units is None else units / each
        rows.append({"psnr_db": target, "rival": best, "rate": rivals[best], "units": units, "count": count})
    return rows


def run(name: str, raw: Path, models: Path, pool: Executor, tell: Callable[[str], None]) -> Result:
    """Measure a kind: ``data``, ``spec`` and ``sets``."""
    spec = SPECS[name]
    tell("data")
    sets = []
    if name == "volumes":
        brains = signals.brains(raw, terminal)
        shapes = ", ".join(f"{title} of {'x'.join(map(str, v.shape))} voxels" for title, v in brains.items())
        facts = {"train": "the other brain, and mirrored", "test": shapes}
        for title, volume in brains.items():
            (other,) = (v for k, v in brains.items() if k != title)
            learned = np.stack([other, other[:, :, ::-1]])
            say = partial(_tell, f"{name} {title}")
            sets.append(measure(name, spec, title, learned, {title: volume}, pool, models, say))
    else:
        split = getattr(signals, name)(raw, terminal)
        facts = split.facts
        sets.append(measure(name, spec, name, split.train, split.test, pool, models, tell))
    about = {k: getattr(spec, k) for k in ("kind", "unit", "plural", "peak", "targets", "block")}
    return {"data": facts, **about, "sets": sets}


# --- Pictures -------------------------------------------------------------------------------------------------------

_PICTURED = (("Dragonfly_by_Bolly", 31.0), ("Picture_0B_by_freespace", 34.0))
_CROP = 200
_FILMED = (("carphone-02", 34.0), ("bikes-04", 33.0))
_SHOWN_FRAMES = (4, 12, 20)


def pictures(raw: Path, models: Path, folder: Path) -> None:
    """Write crops of two photographs and spectrograms of a clip, with what codecs leave of them in as many bytes."""
    _, paths = signals.photographs(raw, terminal)
    tested = signals.tested768(paths)
    spec = SPECS["photo768"]
    for name, level in _PICTURED:
        size, decoded = _alone(spec, name, tested[name], models / "photo768.vcinr", level)
        shown = {"original": tested[name], f"vcinr, {size:,} bytes": decoded}
        for codec in images.codecs(small=False):
            if codec.name.startswith(("JPEG 4", "AVIF")):
                data, back = _within(codec, tested[name], size, range(1, 100, 2))
                shown[f"{codec.name}, {data:,} bytes"] = back
        top, left = ((n - _CROP) // 2 for n in tested[name].shape[:2])
        crops = {
            f"{title}\n{psnr(tested[name], values, 255):.1f} dB" if title != "original" else title:
            values[top : top + _CROP, left : left + _CROP] for title, values in shown.items()
        }  # fmt: skip
        samples.images(folder / f"{name.partition('_by')[0].lower()}.png", crops)
    films(raw, models, folder)
    spec, name = SPECS["speech"], "asterisk-fr"
    clip = signals.speech(raw, terminal).test[name][: 5 * signals.RATE]
    size, decoded = _alone(spec, name, clip, models / "speech.vcinr", 46.4)
    clips = {"original": clip, f"vcinr, {size:,} bytes": decoded}
    for codec in sound.CODECS:
        data, back = _within(codec, clip, size, range(8000, 32000, 1000))
        clips[f"{codec.name}, {data:,} bytes"] = back
    titled = {t if t == "original" else f"{t}\n{psnr(clip, v, spec.peak):.1f} dB": v for t, v in clips.items()}
    samples.spectrograms(folder / "speech.png", titled, signals.RATE)


def films(raw: Path, models: Path, folder: Path) -> None:
    """Write frames of two clips, with what vcinr and H.264 leave of them in as many bytes, and vcinr's errors."""
    tested, codec = signals.video(raw, terminal).test, video.CODECS[0]
    rows: list[dict[str, np.ndarray]] = []
    for name, level in _FILMED:
        clip = tested[name]
        size, decoded = _alone(SPECS["video"], name, clip, models / "video.vcinr", level)
        data, other = _within(codec, clip, size, range(50, 10, -1))
        error = np.clip(128 + 4 * (decoded.astype(np.int64) - clip), 0, 255).astype(np.uint8)
        shown = {
            f"original\n{name}": clip,
            f"vcinr, {size:,} bytes\n{psnr(clip, decoded, 255):.1f} dB": decoded,
            f"error, 4 times\n{name}": error,
            f"H.264, {data:,} bytes\n{psnr(clip, other, 255):.1f} dB": other,
        }
        rows.append({title: np.concatenate(values[list(_SHOWN_FRAMES)], 0) for title, values in shown.items()})
    samples.images(folder / "video.png", {title: values for row in rows for title, values in row.items()})


def _alone(spec: Spec, name: str, values: np.ndarray, model: Path, level: float) -> tuple[int, np.ndarray]:
    """Bytes of the stream of one signal, and what is decoded."""
    with tempfile.TemporaryDirectory(prefix="kinds-") as folder:
        files = Path(folder) / "files"
        files.mkdir()
        write_files(spec, {name: values}, files)
        row = through_archive(spec, files, model, level, None, Path(folder) / "archive.zip")
        if spec.kind == "video":
            with vcinr.open(Path(folder) / "archive.zip") as opened:
                return row["stream_bytes"], opened["video"].values[0]
        ((_, dataset),) = separated(raw_groups(Path(folder) / "archive.zip"))
        return row["stream_bytes"], _values(dataset, spec)


def _within(codec: Lossy, values: np.ndarray, most: int, settings: Sequence[float]) -> tuple[int, np.ndarray]:
    """The best that a codec does in at most so many bytes, or the least where it cannot: bytes, and what is decoded."""
    found: list[tuple[int, float, np.ndarray]] = []
    for setting in settings:
        data = codec.encode(values, setting)
        size, back = codec.size(data), codec.decode(data)
        if values.ndim == 1:
            back = sound.aligned_to(values, back)
        found.append((size, psnr(values, back, 255), back))
        if size > 2 * most:
            break
    fitting = [f for f in found if f[0] <= most]
    best = max(fitting, key=lambda f: f[1]) if fitting else min(found, key=lambda f: f[0])
    return best[0], best[2]


def _tell(name: str, what: str) -> None:
    print(f"{name}: {what}", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the kinds that are named, or all; write and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kinds", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="kind", help=f"of {', '.join(SPECS)}; by default all")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/kinds.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    parser.add_argument("--models", type=Path, default=Path("models"), help="where models are written")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    parser.add_argument("--pictures", action="store_true", help="draw samples with the models that were trained")
    options = parser.parse_args(arguments)
    if options.pictures:
        pictures(options.raw, options.models, options.out.parent / "kinds")
        return 0
    names = options.names or list(SPECS)
    if unknown := [name for name in names if name not in SPECS]:
        parser.error(f"unknown {unknown[0]}; known: {', '.join(SPECS)}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(options.jobs, multiprocessing.get_context("spawn")) as pool:
        for name in names:
            found = run(name, options.raw, options.models, pool, partial(_tell, name))
            done = json.loads(options.out.read_text())["kinds"] if options.out.exists() else {}
            of_run = record()
            done[name] = {"date": of_run["date"], "command": of_run["command"], **found}
            kinds = {known: done[known] for known in SPECS if known in done}
            options.out.write_text(json.dumps({**of_run, "kinds": kinds}, indent=1) + "\n")
            print(table(name, found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
