"""How soon prediction weights should forget: ``python -m benchmarks.forgetting [FOLDER] [--out FILE]``.

The residual of the adaptive coder is coded with weights that follow the last 4096 points of a kind or so, and with
weights that follow the last 512 (`Plan.brief`). The data are what models are trained on (HadGEM, ERA5, navy winds), not
what they are tested on, and, where FOLDER is given, the first file there that ``python -m benchmarks.data.gcm`` made.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.data.climate import DATASETS
from benchmarks.measure.machine import record
from benchmarks.report.tables import aligned
from vcinr.coding import residual

RESULT = Path("benchmarks/results/forgetting.json")
BOUNDS = (0.05, 0.01, 0.001, 0.0001)
"""Fractions of the range."""
TIMES = 8
GCM = ("u_wind", "v_wind", "temperature", "specific_humidity")


def fields(folder: Path | None) -> Iterator[tuple[str, np.ndarray]]:
    """Yield names and planes ``[T, C, H, W]`` of some times of each field."""
    for name in ("hadgem", "era5", "navy"):
        for learned, _ in DATASETS[name]():
            yield f"{name}, {learned.name}", learned.values[-TIMES:, None].astype(np.float64)
    if folder is not None:
        with xr.open_dataset(min(folder.rglob("p*.nc")), decode_times=False) as data:
            for variable in GCM:
                values = data[variable].transpose("time", "level", "lat", "lon")[:TIMES].values
                yield f"gcm, {variable}", values.astype(np.float64)


def measure(values: np.ndarray) -> list[dict[str, Any]]:
    """Code a field at each bound both ways; returns rows of ``bound`` and bytes ``long`` and ``brief``."""
    spread, coder = float(values.max() - values.min()), residual.Plan("adaptive")
    errors = values - float(np.float32(values.mean()))
    rows = []
    for bound in BOUNDS:
        sizes = {
            key: len(residual.encode(errors, 2 * bound * spread, replace(coder, brief=key == "brief"))[0])
            for key in ("long", "brief")
        }
        rows.append({"bound": bound, **sizes})
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure all fields, write the result and print a table of ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.forgetting", description=__doc__.split("\n\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="output of the climate model, which is left out without")
    parser.add_argument("--out", type=Path, default=RESULT)
    given = parser.parse_args(arguments)
    found = {name: measure(values) for name, values in fields(given.folder)}
    given.out.write_text(json.dumps(record(times=TIMES, fields=found), indent=1) + "\n")
    head = ["bytes of brief weights / of long ones", *(f"{bound:g}" for bound in BOUNDS)]
    lines = [[name, *(f"{row['brief'] / row['long']:.3f}" for row in rows)] for name, rows in found.items()]
    print(aligned([head, *lines]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
