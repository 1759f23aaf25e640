"""Speed of encoding and decoding beside SZ3 and SPERR, one process, one thread: ``python -m benchmarks.speed``.

Every time is the best of `--repeat` runs of the whole call on arrays in memory, after one that compiles and fills
caches, but for "cold": the first decoding after the model was loaded, which evaluates its network on the grid. Ours are
with the data set's first model in models/, where there is one, and without, at each effort. SZ3's and SPERR's settings
are those with the fewest bytes. Rows are written to benchmarks/results/speed.json with machine and date;
OMP_NUM_THREADS=1 for one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from benchmarks.data.climate import DATASETS, Case, cases
from benchmarks.data.models import field_of, models_of
from benchmarks.measure import speeds
from benchmarks.measure.machine import record
from benchmarks.rivals import RIVALS
from vcinr.codec.decode import decode as decode_chunk
from vcinr.codec.encode import encode as encode_chunk
from vcinr.codec.promise import Effort
from vcinr.inr.model import from_bytes

RESULT = Path("benchmarks/results/speed.json")
BOUNDS = (0.1, 0.05, 0.01, 0.001)
_T = TypeVar("_T")


def best_of(repeat: int, call: Callable[[], _T]) -> tuple[float, _T]:
    """Return the seconds of the fastest of `repeat` calls and its result; one more call comes first."""
    result, times = call(), []
    for _ in range(repeat):
        began = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - began)
    return min(times), result


def run(case: Case, bounds: Sequence[float], repeat: int) -> Iterator[dict[str, Any]]:
    """Measure SZ3, SPERR and vcinr on one array.

    Parameters
    ----------
    case : Case
        The array.
    bounds : sequence of float
        Largest errors, as fractions of the range.
    repeat : int
        Calls of which the fastest counts.

    Yields
    ------
    dict
        ``dataset``, ``variable``, ``codec``, ``bound_fraction``, ``bytes``, ``bits_per_value``, and MB of raw input a
        second as ``encode_mbs``, ``decode_mbs`` and, with a model, ``cold_mbs``.
    """
    values, model = case.test.values, next(iter(models_of(case).values()), None)

    def row(name: str, bound: float, size: int, times: dict[str, float]) -> dict[str, Any]:
        speeds = {f"{way}_mbs": values.nbytes / 1e6 / seconds for way, seconds in times.items()}
        where = {"dataset": case.dataset, "variable": case.variable, "codec": name, "bound_fraction": bound}
        return where | {"bytes": size, "bits_per_value": 8 * size / values.size} | speeds

    for fraction in bounds:
        bound = fraction * case.peak
        for name in ("SZ3", "SPERR"):
            rival = min(RIVALS[name], key=lambda r: len(r.encode(values, bound)))
            coding, data = best_of(repeat, partial(rival.encode, values, bound))
            decoding, _ = best_of(repeat, partial(rival.decode, data, values.shape, values.dtype))
            yield row(name, fraction, len(data), {"encode": coding, "decode": decoding})
        for used in (model, None) if model is not None else (None,):
            field = field_of(case, used)
            for effort in get_args(Effort):
                encode = partial(encode_chunk, values, field, bound, effort=effort)
                coding, encoded = best_of(repeat if effort == "fast" else 1, encode)
                decode = partial(decode_chunk, encoded.data, values.shape, values.dtype, field)
                decoding, _ = best_of(repeat, decode)
                name = f"vcinr {effort}{'' if used is not None else ', no model'}"
                times = {"encode": coding, "decode": decoding}
                if used is not None:
                    fresh = replace(field, model=from_bytes(used.data, used.sha256))
                    began = time.perf_counter()
                    decode_chunk(encoded.data, values.shape, values.dtype, fresh)
                    times["cold"] = time.perf_counter() - began
                yield row(name, fraction, len(encoded.data), times)


def medians(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a text: by bound, how many times as fast as SPERR and SZ3 the median variable is."""
    return "\n".join(
        f"{r.bound:g}, {r.codec}, median of {r.variables} variables: encode / SPERR {np.median(r.encode):.3f} (least "
        f"{min(r.encode):.3f}), decode / SZ3 {np.median(r.decode):.3f} (least {min(r.decode):.3f})"
        for r in speeds.ratios(rows)
    )


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a text: bits per value, MB/s, and how many times as fast as SZ3 and SPERR, by variable and bound."""
    lines = [
        f"{'':44} {'bound':>6} {'bits':>8} {'enc MB/s':>9} {'/ SPERR':>8} {'dec MB/s':>9} {'/ SZ3':>7} {'cold':>8}"
    ]
    for row in rows:
        same = {r["codec"]: r for r in rows if all(r[k] == row[k] for k in ("dataset", "variable", "bound_fraction"))}
        encode, decode = row["encode_mbs"], row["decode_mbs"]
        name = f"{row['dataset']} {row['variable']}: {row['codec']}"
        lines.append(
            f"{name:43} {row['bound_fraction']:6g} {row['bits_per_value']:8.4f} {encode:9.2f} "
            f"{encode / same['SPERR']['encode_mbs']:8.3f} {decode:9.2f} {decode / same['SZ3']['decode_mbs']:7.3f} "
            f"{row.get('cold_mbs', float('nan')):7.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse arguments, run, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", nargs="+", default=list(DATASETS), choices=DATASETS, help="those of benchmarks.data")
    parser.add_argument("--bounds", nargs="+", type=float, default=BOUNDS)
    parser.add_argument("--repeat", type=int, default=7)
    options = parser.parse_args()
    rows = [row for case in cases(options.data, 1_000) for row in run(case, options.bounds, options.repeat)]
    print(table(rows), medians(rows), sep="\n\n")
    RESULT.write_text(json.dumps(record(rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
