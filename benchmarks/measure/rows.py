"""Comparisons: every row is a real encode and a real decode in one process, measured the same way.

`side_by_side` compares codecs at one promised maximum error, `rate_distortion` at comparable PSNR without a bound.
Both return rows, mappings of JSON values, which `benchmarks.report` draws and tabulates:

codec, family, variant    what was run; a family groups settings of one codec, a variant is the setting kept
ours                      True for the codecs given by the caller
bound, bound_fraction     the bound asked for, in data units and as a fraction of `peak`; None without a bound
bytes, bits_per_value     of the streams alone
model_bytes, bits_per_value_with_model   what a decoder needs besides, and the rate that counts it
max_abs_error, bound_ratio               the largest error, in data units and divided by the bound
psnr_db, psnr_mean_db     10 log10(peak^2 / mse) over all values, and its mean over maps; None where lossless
dssim, spectral_error     see `benchmarks.measure.quality`
encode_mbs, decode_mbs    MB of raw input a second; an encode time includes any search over settings inside it
parts                     where the bytes go, as far as the codec says
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.measure.ours import Measured
from benchmarks.measure.quality import dssim, spectral_error
from benchmarks.rivals import AT_PSNR, RIVALS
from benchmarks.rivals.base import Rival
from benchmarks.rivals.eof import EofCodec, Precision
from vcinr.errors import BoundError, InputError
from vcinr.progress import Clock, Progress, Watch, silent

Row = dict[str, Any]
Ours = Callable[[np.ndarray, float], Measured]
"""``(values, number) -> (bytes, decoded, parts)``: the number is the bound, or the level of quality asked for.

`parts` may hold ``model_bytes``, ``encode_seconds`` and ``decode_seconds``; its other entries are kept in the row.
"""

PRECISIONS: tuple[Precision, ...] = ("float32", "float16")


@dataclass(frozen=True)
class Maps:
    """Maps ``[T, *grid]`` to compress: `values` as floats, `raw` the bytes as given, `peak` what PSNR refers to."""

    values: np.ndarray
    raw: int
    peak: float


def side_by_side(
    test: np.ndarray,
    train: np.ndarray,
    bounds: Sequence[float],
    peak: float,
    ours: Mapping[str, Ours],
    eof_components: Sequence[int],
    watch: Watch = silent,
    rivals: Mapping[str, tuple[Rival, ...]] = RIVALS,
) -> list[Row]:
    """Measure every codec at every bound.

    Parameters
    ----------
    test : np.ndarray
        Maps ``[T, *grid]`` to compress; finite, so fill masked cells first.
    train : np.ndarray
        Maps ``[N, *grid]`` that EOF bases are fitted to; finite.
    bounds : sequence of float
        Absolute error bounds in data units.
    peak : float
        The range that PSNR and fractions of it refer to.
    ours : mapping of str to callable
        Codecs of the caller.
    eof_components : sequence of int
        Sizes of EOF bases.
    watch : callable
        Told of the progress.
    rivals : mapping of str to tuple of Rival
        Settings of each rival; the smallest is kept.

    Returns
    -------
    list of dict
        Rows as above. A rival that refuses so tight a bound has none.

    Raises
    ------
    InputError
        If a value is not finite.
    """
    maps = _maps(test, peak)
    bases = _bases(train, eof_components)
    count = _Counter("side by side", len(bounds) * (len(ours) + len(bases) + len(rivals)), watch)
    rows = []
    for bound in bounds:
        for name, codec in ours.items():
            rows.append(count.add(_run_ours(name, codec, maps, bound, bound)))
        for name, basis in bases.items():
            rows += count.smallest(name, [partial(_run_eof, basis.within(), maps, bound, bound)])
        for name, settings in rivals.items():
            rows += count.smallest(name, [partial(_run_rival, name, rival, maps, bound, bound) for rival in settings])
    return rows


def rate_distortion(
    test: np.ndarray,
    train: np.ndarray,
    peak: float,
    ours: Mapping[str, tuple[Ours, Sequence[float]]],
    eof_components: Sequence[int],
    psnr_targets: Sequence[float] = tuple(range(25, 71, 5)),
    watch: Watch = silent,
    rivals: Mapping[str, tuple[Rival, ...]] = AT_PSNR,
) -> list[Row]:
    """Measure every codec without a bound.

    `ours` run at their own levels of quality. EOF bases and rivals aim at `psnr_targets`: a codec that takes an RMS
    error at that of the target, one that takes a bound at the bound whose evenly spread error has that RMS. What was
    achieved is reported. Other parameters are those of `side_by_side`.
    """
    maps = _maps(test, peak)
    bases = _bases(train, eof_components)
    levels = sum(len(levels) for _, levels in ours.values())
    count = _Counter("rate-distortion", levels + len(psnr_targets) * (len(bases) + len(rivals)), watch)
    rows = []
    for name, (codec, steps) in ours.items():
        for level in steps:
            rows.append(count.add(_run_ours(name, codec, maps, level, None) | {"level": level}))
    for target in psnr_targets:
        rms = peak * 10 ** (-target / 20)
        for name, basis in bases.items():
            rows += count.smallest(name, [partial(_run_eof, basis.aimed(), maps, rms, None)])
        for name, settings in rivals.items():
            runs = [partial(_run_rival, name, rival, maps, rival.aim(rms), None) for rival in settings]
            rows += count.smallest(name, runs)
    return rows


class _Counter:
    """Progress over the rows of a comparison."""

    def __init__(self, stage: str, total: int, watch: Watch) -> None:
        self.stage, self.total, self.watch, self.done, self.clock = stage, total, watch, 0, Clock(total)

    def add(self, row: Row) -> Row:
        self._tell({row["codec"]: row["bits_per_value"]})
        return row

    def smallest(self, name: str, runs: Sequence[Callable[[], Row]]) -> list[Row]:
        """Return the row with the fewest bytes of those that `runs` give, or no row where every one refuses."""
        rows = []
        for run in runs:
            try:
                rows.append(run())
            except (InputError, BoundError):
                continue
        if rows:
            return [self.add(min(rows, key=lambda row: row["bytes"]))]
        self._tell({name: math.nan})
        return []

    def _tell(self, values: dict[str, float]) -> None:
        self.done += 1
        self.watch(Progress(self.stage, self.done, self.total, values, self.clock.left(self.done)))


def _maps(values: np.ndarray, peak: float) -> Maps:
    """Return `values` as floats that hold them exactly."""
    values = np.ascontiguousarray(values)
    raw = values.nbytes
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    if values.ndim < 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError("a comparison needs maps [T, *grid] of finite values; fill masked cells first")
    return Maps(values, raw, peak)


def _bases(train: np.ndarray, components: Sequence[int]) -> dict[str, EofCodec]:
    train = _maps(train, 1.0).values
    largest = min(len(train) - 1, math.prod(train.shape[1:]))
    sizes = sorted({min(k, largest) for k in components})
    fitted = [EofCodec.fit(train, size, precision) for size in sizes for precision in PRECISIONS]
    return {basis.name: basis for basis in fitted}


def _run_ours(name: str, codec: Ours, maps: Maps, number: float, bound: float | None) -> Row:
    size, decoded, parts = codec(maps.values, number)
    timed = parts.get("encode_seconds"), parts.get("decode_seconds")
    other = {k: v for k, v in parts.items() if k not in ("model_bytes", "encode_seconds", "decode_seconds")}
    row = _row(name, maps, decoded, size, int(parts.get("model_bytes", 0)), bound, timed)
    return row | {"ours": True, "parts": other}


def _run_eof(basis: Rival, maps: Maps, number: float, bound: float | None) -> Row:
    return _run_rival(basis.name, basis, maps, number, bound) | {"family": "EOF"}


def _run_rival(name: str, rival: Rival, maps: Maps, number: float, bound: float | None) -> Row:
    values = maps.values
    began = time.perf_counter()
    data = rival.encode(values, number)
    coded = time.perf_counter()
    decoded = rival.decode(data, values.shape, values.dtype)
    timed = coded - began, time.perf_counter() - coded
    row = _row(name, maps, decoded, len(data), rival.model_bytes, bound, timed) | {"variant": rival.name}
    return row if rival.parts is None else row | {"parts": rival.parts(data)}


def _row(
    name: str,
    maps: Maps,
    decoded: np.ndarray,
    size: int,
    model_bytes: int,
    bound: float | None,
    timed: tuple[float | None, float | None],
) -> Row:
    test, peak = maps.values, maps.peak
    if decoded.shape != test.shape:
        raise InputError(f"{name}: decoded to shape {decoded.shape} instead of {test.shape}")
    error = np.abs(test.astype(np.float64) - decoded.astype(np.float64)).reshape(len(test), -1)
    mse = np.mean(error**2, axis=1)
    largest = float(error.max())
    encode_mbs, decode_mbs = (maps.raw / 1e6 / s if s else None for s in timed)
    return {
        "codec": name,
        "family": name,
        "variant": name,
        "ours": False,
        "bound_fraction": None if bound is None else bound / peak,
        "bound": bound,
        "values": test.size,
        "bytes": size,
        "bits_per_value": 8 * size / test.size,
        "model_bytes": model_bytes,
        "bits_per_value_with_model": 8 * (size + model_bytes) / test.size,
        "max_abs_error": largest,
        "bound_ratio": None if bound is None else largest / bound,
        "psnr_db": _psnr(float(mse.mean()), peak),
        "psnr_mean_db": float(np.mean(10 * np.log10(peak**2 / mse))) if mse.min() > 0 else None,
        "dssim": dssim(test, decoded),
        "spectral_error": spectral_error(test, decoded),
        "encode_mbs": encode_mbs,
        "decode_mbs": decode_mbs,
    }


def _psnr(mse: float, peak: float) -> float | None:
    return 10 * math.log10(peak**2 / mse) if mse > 0 else None
