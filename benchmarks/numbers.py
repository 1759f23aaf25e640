"""Numbers without loss: ``python -m benchmarks.numbers [--out FILE]``.

Coordinates of two ocean models, on grids that are bent, and a table of weather reports: columns of position, hour,
temperature and dew point. zlib gets each array by itself, its bytes shuffled; Parquet gets all of them as columns of a
table, with dictionaries and Zstandard at level 19. vcinr writes an archive without a bound; the whole zip file counts,
metadata included. Everything is decoded and compared. The exit status is 1 when an array of vcinr comes back changed.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import xarray as xr

import vcinr
from benchmarks.data.packages import IRIS, NCARG
from benchmarks.measure.machine import record
from benchmarks.report.tables import aligned
from vcinr.coding import lossless
from vcinr.datasets.fetch import fetch
from vcinr.progress import Watch, silent, terminal

OURS = "vcinr"
LEVEL = 19  # of Zstandard


@dataclass(frozen=True)
class Case:
    """Arrays of one shape that belong together.

    Attributes
    ----------
    name : str
        What they are.
    arrays : dict of str to numpy.ndarray
        The arrays.
    dims : tuple of str
        Their dimensions.
    """

    name: str
    arrays: Mapping[str, np.ndarray]
    dims: tuple[str, ...]

    @property
    def values(self) -> int:
        """How many values there are, of all arrays."""
        return sum(array.size for array in self.arrays.values())


def cases(raw: Path, watch: Watch = silent) -> Iterator[Case]:
    """Yield the cases, downloading packages into the folder `raw` first where they are not there."""
    ncarg = fetch(NCARG, raw, watch) / "usr/share/ncarg/data"
    with xr.open_dataset(ncarg / "cdf/pop.nc", decode_cf=False) as data:
        yield Case("POP coordinates", {"lat": data["lat2d"].values, "lon": data["lon2d"].values}, ("y", "x"))
    folder = fetch(IRIS, raw, watch) / "iris_sample_data/sample_data/NEMO"
    with xr.open_dataset(min(folder.glob("nemo_1m_2015*_grid-T.nc")), decode_cf=False) as data:
        yield Case("NEMO coordinates", {"lat": data["nav_lat"].values, "lon": data["nav_lon"].values}, ("y", "x"))
        corners = {"lat": data["bounds_lat"].values, "lon": data["bounds_lon"].values}
        yield Case("NEMO corners of cells", corners, ("y", "x", "corner"))
    with xr.open_dataset(ncarg / "cdf/950318_sao.cdf", decode_cf=False) as data:
        columns = {name: data[name].values for name in ("lat", "lon", "T", "TD")}
    there = np.all([column > -9000 for column in columns.values()], axis=0)
    there &= np.all([np.abs(columns[name]) < 60 for name in ("T", "TD")], axis=0)  # a few reports are plainly wrong
    hour = np.broadcast_to(np.arange(there.shape[1], dtype=np.int8), there.shape)
    columns = {"lat": columns["lat"], "lon": columns["lon"], "hour": hour, "T": columns["T"], "TD": columns["TD"]}
    yield Case("SAO table", {name: column[there] for name, column in columns.items()}, ("report",))


def through_zlib(case: Case) -> dict[str, Any]:
    """Return the bytes of all arrays, each shuffled and deflated at level 9."""
    size, exact = 0, True
    for array in case.arrays.values():
        shuffled = np.ascontiguousarray(array).reshape(-1).view(np.uint8).reshape(-1, array.itemsize).T.tobytes()
        coded = zlib.compress(shuffled, 9)
        size, exact = size + len(coded), exact and zlib.decompress(coded) == shuffled
    return {"bytes": size, "exact": exact}


def through_parquet(case: Case) -> dict[str, Any]:
    """Return the bytes of a Parquet file that has the arrays, flattened, as columns."""
    file = io.BytesIO()
    table = pyarrow.table({name: np.ravel(array) for name, array in case.arrays.items()})
    pyarrow.parquet.write_table(table, file, compression="zstd", compression_level=LEVEL)
    return {"bytes": len(file.getvalue()), "exact": pyarrow.parquet.read_table(file).equals(table)}


def through_archive(case: Case) -> dict[str, Any]:
    """Return the bytes of a vcinr archive of the arrays, the zip file as a whole, and those of the chunks in it."""
    dataset = xr.Dataset({name: (case.dims, array) for name, array in case.arrays.items()})
    with tempfile.TemporaryDirectory(prefix="numbers-") as folder:
        archive = Path(folder) / "archive.zip"
        facts = vcinr.compress(dataset, archive, variables=list(case.arrays))
        with vcinr.open(archive) as back:
            exact = all(back[name].values.tobytes() == array.tobytes() for name, array in case.arrays.items())
        chunks = {name: facts["variables"][name]["bytes"] for name in case.arrays}
        return {"bytes": archive.stat().st_size, "chunk_bytes": chunks, "exact": exact}


def through_coder(case: Case) -> dict[str, Any]:
    """Return the bytes of `vcinr.coding.lossless` without an archive around them, and its times in seconds."""
    size, exact, encode_s, decode_s = 0, True, 0.0, 0.0
    for array in case.arrays.values():
        start = time.perf_counter()
        coded = lossless.encode(array)
        encode_s, start = encode_s + time.perf_counter() - start, time.perf_counter()
        back = lossless.decode(coded, array.shape, array.dtype)
        decode_s += time.perf_counter() - start
        size, exact = size + len(coded), exact and back.tobytes() == array.tobytes()
    return {"bytes": size, "encode_s": encode_s, "decode_s": decode_s, "exact": exact}


def compare(case: Case) -> list[dict[str, Any]]:
    """Return a row for every coder, with its bits a value and, for the bare coder, its values a second."""
    rows = [
        {"codec": "zlib 9", "setting": "shuffled bytes", **through_zlib(case)},
        {"codec": f"Parquet zstd {LEVEL}", "setting": "file", **through_parquet(case)},
        {"codec": OURS, "setting": "archive", **through_archive(case)},
        {"codec": OURS, "setting": "streams", **through_coder(case)},
    ]
    for row in rows:
        row["case"], row["bits_per_value"] = case.name, 8 * row["bytes"] / case.values
        for kind in ("encode", "decode"):
            if f"{kind}_s" in row:
                row[f"{kind}_values_per_s"] = case.values / row[f"{kind}_s"]
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a text with a line for each case and coder."""
    lines = [["case", "codec", "setting", "bytes", "bits a value"]]
    lines += [
        [row["case"], row["codec"], row["setting"], f"{row['bytes']:,}", f"{row['bits_per_value']:.3f}"] for row in rows
    ]
    return aligned(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; return 1 when a row of vcinr is not exact."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.numbers", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/numbers.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    options = parser.parse_args(arguments)
    rows = [row for case in cases(options.raw, terminal) for row in compare(case)]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(rows=rows), indent=1) + "\n")
    print(table(rows))
    return 0 if all(row["exact"] for row in rows if row["codec"] == OURS) else 1


if __name__ == "__main__":
    sys.exit(main())
