"""Side-by-side runs: every row is a real encode and a real decode in one run, measured the same way.

`side_by_side` compares codecs at one promised maximum error, `rate_distortion` at comparable PSNR without a
bound. Both return plain rows (mappings of JSON values), which `vcinr.report` draws and tabulates:

codec, family, variant    what was run; a family groups settings of one codec, a variant is the setting kept
ours                      True for the codecs given by the caller
bound, bound_fraction     the bound asked for, in data units and as a fraction of `peak`; None for best effort
bytes, bits_per_value     of the streams alone
model_bytes, bits_per_value_with_model   what a decoder needs besides, and the rate with that counted in
max_abs_error, bound_ratio               achieved, in data units and divided by the bound
psnr_db, psnr_mean_db     10 log10(peak^2 / mse) over all values, and its mean over maps; None where lossless
dssim, spectral_error     see `benchmarks.quality`
encode_mbs, decode_mbs    MB of raw input a second; an encode time includes any search over settings inside it
parts                     where the bytes go, as far as the codec says
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from benchmarks.quality import dssim, spectral_error
from benchmarks.rivals import RIVALS, SPERR_RMS, EofCodec, Rival
from vcinr.errors import BoundError, InputError
from vcinr.progress import Clock, Progress, Watch, silent

Ours = Callable[[np.ndarray, float], tuple[int, np.ndarray, dict[str, Any]]]
"""``(values, number) -> (bytes, decoded, parts)``: the number is the bound, or the quality level asked for.

`parts` may hold ``model_bytes``, ``encode_seconds`` and ``decode_seconds``; the rest is kept in the row.
"""

Precision = Literal["float32", "float16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "float16")
PACKAGES = ("numpy", "numba", "constriction", "pysz", "imagecodecs", "zfpy", "numcodecs-wasm-ebcc", "vcinr", "torch")


def side_by_side(
    test: np.ndarray,
    train: np.ndarray,
    bounds: Sequence[float],
    peak: float,
    ours: Mapping[str, Ours],
    eof_components: Sequence[int],
    watch: Watch = silent,
    rivals: Mapping[str, tuple[Rival, ...]] = RIVALS,
) -> list[dict[str, Any]]:
    """Rows of every codec at every absolute bound (data units).

    test ``[T, *grid]`` is what is compressed, train ``[N, *grid]`` what EOF bases are fitted to; both finite
    (fill masked cells first). `peak` is the data's range that PSNR and bound fractions refer to. A rival that
    cannot work at so tight a bound has no row there. Raises InputError for values that are not finite.
    """
    test, raw = _floats(test)
    bases = _bases(train, eof_components)
    per_bound = len(ours) + len(bases) + len(rivals)
    count = _Counter("side by side", len(bounds) * per_bound, watch)
    rows = []
    for bound in bounds:
        for name, codec in ours.items():
            rows.append(count.add(_run_ours(name, codec, test, raw, peak, bound, bound)))
        for name, eof in bases.items():
            rows += count.smallest(name, [partial(_run_eof, name, eof, eof.encode, test, raw, peak, bound, bound)])
        for name, settings in rivals.items():
            runs = [partial(_run_rival, name, rival, test, raw, peak, bound, bound) for rival in settings]
            rows += count.smallest(name, runs)
    return rows


def rate_distortion(
    test: np.ndarray,
    train: np.ndarray,
    peak: float,
    ours: Mapping[str, tuple[Ours, Sequence[float]]],
    eof_components: Sequence[int],
    psnr_targets: Sequence[float] = tuple(range(25, 71, 5)),
    watch: Watch = silent,
    rivals: Mapping[str, tuple[Rival, ...]] = RIVALS,
) -> list[dict[str, Any]]:
    """Rows without a bound: `ours` at their own quality levels, EOF and the rivals aimed at `psnr_targets`.

    EOF quantises its coefficients for the target and keeps no residual. SPERR runs in its PSNR mode, the
    others at the bound whose uniform error would have the target's RMS. Reported is what was achieved.
    """
    test, raw = _floats(test)
    bases = _bases(train, eof_components)
    own = sum(len(levels) for _, levels in ours.values())
    count = _Counter("rate-distortion", own + len(psnr_targets) * (len(bases) + len(rivals)), watch)
    rows = []
    for name, (codec, levels) in ours.items():
        for level in levels:
            rows.append(count.add(_run_ours(name, codec, test, raw, peak, level, None) | {"level": level}))
    for target in psnr_targets:
        rms = peak * 10 ** (-target / 20)
        for name, eof in bases.items():
            step = rms * math.sqrt(12 / len(eof.basis))
            run = partial(_run_eof, name, eof, eof.encode_quality, test, raw, peak, step, None)
            rows += count.smallest(name, [run])
        for name, settings in rivals.items():
            aim, chosen = (rms, (SPERR_RMS,)) if name == "SPERR" else (rms * math.sqrt(3), settings)
            runs = [partial(_run_rival, name, rival, test, raw, peak, aim, None) for rival in chosen]
            rows += count.smallest(name, runs)
    return rows


def record(**tables: list[dict[str, Any]]) -> dict[str, Any]:
    """`tables` of rows with the machine and the date they were measured on: a JSON-able mapping."""
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), **tables}


def machine() -> dict[str, Any]:
    """What timings depend on: CPU, cores this process may use, Python and package versions."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


class _Counter:
    def __init__(self, stage: str, total: int, watch: Watch) -> None:
        self.stage, self.total, self.watch, self.done, self.clock = stage, total, watch, 0, Clock(total)

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        self._tell({row["codec"]: row["bits_per_value"]})
        return row

    def smallest(self, name: str, runs: Sequence[Callable[[], dict[str, Any]]]) -> list[dict[str, Any]]:
        """The row with the fewest bytes of those that `runs` give, or none where every one refuses."""
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


def _floats(values: np.ndarray) -> tuple[np.ndarray, int]:
    """`values` as floats that hold them exactly, and the bytes of the raw input."""
    values = np.ascontiguousarray(values)
    raw = values.nbytes
    if values.dtype not in (np.float32, np.float64):
        values = values.astype(np.float32 if values.dtype.itemsize <= 2 else np.float64)
    if values.ndim < 2 or values.size == 0 or not np.isfinite(values).all():
        raise InputError("a side-by-side run needs maps [T, *grid] of finite values; fill masked cells first")
    return values, raw


def _bases(train: np.ndarray, components: Sequence[int]) -> dict[str, EofCodec]:
    train, _ = _floats(train)
    largest = min(len(train) - 1, math.prod(train.shape[1:]))
    sizes = sorted({min(k, largest) for k in components})
    return {f"EOF {k} {p}": EofCodec.fit(train, k, p) for k in sizes for p in PRECISIONS}


def _run_ours(
    name: str, codec: Ours, test: np.ndarray, raw: int, peak: float, number: float, bound: float | None
) -> dict[str, Any]:
    size, decoded, parts = codec(test, number)
    timed = parts.get("encode_seconds"), parts.get("decode_seconds")
    rest = {k: v for k, v in parts.items() if k not in ("model_bytes", "encode_seconds", "decode_seconds")}
    row = _row(name, test, decoded, size, int(parts.get("model_bytes", 0)), raw, peak, bound, timed)
    return row | {"family": name, "ours": True, "parts": rest}


def _run_eof(
    name: str,
    eof: EofCodec,
    encode: Callable[[np.ndarray, float], bytes],
    test: np.ndarray,
    raw: int,
    peak: float,
    number: float,
    bound: float | None,
) -> dict[str, Any]:
    data, decoded, timed = _timed(encode, eof.decode, test, number)
    row = _row(name, test, decoded, len(data), len(eof.to_bytes()), raw, peak, bound, timed)
    return row | {"family": "EOF", "parts": eof.parts(data)}


def _run_rival(
    name: str, rival: Rival, test: np.ndarray, raw: int, peak: float, number: float, bound: float | None
) -> dict[str, Any]:
    data, decoded, timed = _timed(rival.encode, rival.decode, test, number)
    return _row(name, test, decoded, len(data), 0, raw, peak, bound, timed) | {"variant": rival.name}


def _timed(
    encode: Callable[[np.ndarray, float], bytes],
    decode: Callable[[bytes, tuple[int, ...], np.dtype[Any]], np.ndarray],
    test: np.ndarray,
    number: float,
) -> tuple[bytes, np.ndarray, tuple[float, float]]:
    began = time.perf_counter()
    data = encode(test, number)
    coded = time.perf_counter()
    decoded = decode(data, test.shape, test.dtype)
    return data, decoded, (coded - began, time.perf_counter() - coded)


def _row(
    name: str,
    test: np.ndarray,
    decoded: np.ndarray,
    size: int,
    model_bytes: int,
    raw: int,
    peak: float,
    bound: float | None,
    timed: tuple[float | None, float | None],
) -> dict[str, Any]:
    if decoded.shape != test.shape:
        raise InputError(f"{name}: decoded to shape {decoded.shape} instead of {test.shape}")
    error = np.abs(test.astype(np.float64) - decoded.astype(np.float64)).reshape(len(test), -1)
    mse = np.mean(error**2, axis=1)
    largest = float(error.max())
    encode_mbs, decode_mbs = (raw / 1e6 / s if s else None for s in timed)
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
