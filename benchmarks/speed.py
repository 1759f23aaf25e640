"""Speed of encoding and decoding beside SZ3 and SPERR, one process, one thread: ``python -m benchmarks.speed``.

Every time is the best of `--repeat` runs of the whole call on arrays in memory, after one that compiles and fills
caches; ours are with the data set's model in models/, where there is one, and without, at each effort. Rows are written to
benchmarks/results/speed.json with machine and date; OMP_NUM_THREADS=1 for one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from benchmarks.rivals import RIVALS
from benchmarks.side_by_side import record
from benchmarks.table import Case, _model, cases
from vcinr import codec
from vcinr.signals.tiling import layout_of

RESULT = Path("benchmarks/results/speed.json")
BOUNDS = (0.1, 0.05, 0.03, 0.01, 0.001)
_T = TypeVar("_T")


def best_of(repeat: int, call: Callable[[], _T]) -> tuple[float, _T]:
    """Seconds of the fastest of `repeat` calls, and what it returned; one more comes first."""
    result, times = call(), []
    for _ in range(repeat):
        began = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - began)
    return min(times), result


def run(case: Case, bounds: Sequence[float], repeat: int) -> Iterator[dict[str, Any]]:
    """Rows of one case: codec, bound as a fraction of the range, bits per value, MB/s of raw input."""
    layout, values = layout_of(case.test), case.test.values
    axes = tuple(case.test.dims.index(d) for d in layout.dims)
    model = _model(case.dataset)
    if model is not None and case.variable not in model.normalisation:
        model = None

    def row(name: str, bound: float, size: int, times: tuple[float, float]) -> dict[str, Any]:
        speeds = {f"{k}_mbs": values.nbytes / 1e6 / s for k, s in zip(("encode", "decode"), times, strict=True)}
        where = {"dataset": case.dataset, "variable": case.variable, "codec": name, "bound_fraction": bound}
        return where | {"bytes": size, "bits_per_value": 8 * size / values.size} | speeds

    for fraction in bounds:
        bound = fraction * case.peak
        for name in ("SZ3", "SPERR"):
            rival = RIVALS[name][0]
            coding, data = best_of(repeat, lambda: rival.encode(values, bound))  # noqa: B023
            decoding, _ = best_of(repeat, lambda: rival.decode(data, values.shape, values.dtype))  # noqa: B023
            yield row(rival.name, fraction, len(data), (coding, decoding))
        for used in filter(lambda m: m is not None, (model, None)) if False else ((model, None) if model else (None,)):
            scaling = used.normalisation[case.variable] if used else (0.0, 1.0)
            field = codec.Field(case.variable, axes, layout.axes, used, scaling)
            coding, encoded = best_of(repeat, lambda: codec.encode(values, field, bound))  # noqa: B023
            data = encoded.data
            decoding, _ = best_of(repeat, lambda: codec.decode(data, values.shape, values.dtype, field))  # noqa: B023
            yield row(f"vcinr{'' if used else ', no model'}", fraction, len(data), (coding, decoding))
