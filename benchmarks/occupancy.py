"""Solid shapes without loss: ``python -m benchmarks.occupancy [--out FILE]``.

The meshes of two libraries of public furniture become occupancy of 64^3 voxels. DEFLATE and Zstandard get each shape
alone and all shapes at once, both as bytes and as packed bits, of which the smaller counts. vcinr writes an archive
without a model and without a bound; the whole zip file counts, metadata included. Everything is decoded and compared.
The exit status is 1 when a shape of vcinr comes back changed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numcodecs.zstd import Zstd

import vcinr
from benchmarks.data.packages import FURNITURE
from benchmarks.measure.machine import record
from benchmarks.report.tables import aligned
from vcinr.coding import bits
from vcinr.datasets.fetch import fetch
from vcinr.kinds.voxels import read_library
from vcinr.progress import Watch, silent, terminal

LIBRARIES = ("KatorLegaz", "Reallusion")  # those that the pipeline's models do not learn from
RESOLUTION = 64
OURS = "vcinr"

Coder = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
RIVALS: dict[str, Coder] = {
    "zlib 9": (lambda data: zlib.compress(data, 9), zlib.decompress),
    "zstd 22": (lambda data: bytes(Zstd(22).encode(data)), lambda data: bytes(Zstd().decode(data))),
}


def read_shapes(raw: Path, watch: Watch = silent) -> np.ndarray:
    """Return the occupancy of all shapes, uint8 ``[item, z, y, x]``."""
    folder = fetch(FURNITURE, raw, watch) / "usr/share/sweethome3d/furniture"
    libraries = [read_library(folder / f"{name}.sh3f", RESOLUTION, watch=watch) for name in LIBRARIES]
    return np.concatenate([library["occupancy"].values for library in libraries])


def through_rival(shapes: np.ndarray, coder: Coder, together: bool) -> dict[str, Any]:
    """Return sizes and times of a general-purpose coder.

    Parameters
    ----------
    shapes : numpy.ndarray
        uint8 ``[item, z, y, x]``, of zeros and ones.
    coder : pair of callables
        From bytes to bytes, and back.
    together : bool
        Whether all shapes make one stream.

    Returns
    -------
    dict
        ``bytes`` and the seconds ``encode_s`` and ``decode_s`` of the smaller of both forms, and ``form``; ``exact``.
    """
    parts = [shapes] if together else list(shapes)
    rows = []
    for form, packed in (("bytes", False), ("packed bits", True)):
        raw = [np.packbits(part).tobytes() if packed else part.tobytes() for part in parts]
        start = time.perf_counter()
        coded = [coder[0](data) for data in raw]
        encode_s, start = time.perf_counter() - start, time.perf_counter()
        decoded = [coder[1](data) for data in coded]
        decode_s = time.perf_counter() - start
        sizes = [len(data) for data in coded]
        rows.append(
            {"form": form, "bytes": sum(sizes), "encode_s": encode_s, "decode_s": decode_s, "exact": decoded == raw}
        )
    return min(rows, key=lambda row: row["bytes"])


def through_archive(shapes: np.ndarray, chunk: int | None) -> dict[str, Any]:
    """Return the size of a vcinr archive of the shapes, the zip file as a whole.

    Parameters
    ----------
    shapes : numpy.ndarray
        uint8 ``[item, z, y, x]``.
    chunk : int, optional
        Shapes in a chunk; what vcinr takes by itself where it is None.

    Returns
    -------
    dict
        ``bytes`` of the file, ``chunk_bytes`` of the chunks in it, and whether the values came back, ``exact``.
    """
    dataset = xr.Dataset({"occupancy": (("item", "z", "y", "x"), shapes)})
    planes = None if chunk is None else chunk * shapes.shape[1]  # a signal of four axes is a plane
    with tempfile.TemporaryDirectory(prefix="occupancy-") as folder:
        archive = Path(folder) / "archive.zip"
        facts = vcinr.compress(dataset, archive, variables=["occupancy"], chunk=planes)
        with vcinr.open(archive) as back:
            exact = bool((back["occupancy"].values == shapes).all())
        return {
            "bytes": archive.stat().st_size,
            "chunk_bytes": facts["variables"]["occupancy"]["bytes"],
            "exact": exact,
        }


def through_coder(shapes: np.ndarray) -> dict[str, Any]:
    """Return the size of one stream of `vcinr.coding.bits`, and its times, without an archive around it."""
    solid = shapes.astype(bool)
    bits.decode(bits.encode(solid[:1]), solid[:1].shape)  # compiled before it is timed
    start = time.perf_counter()
    coded = bits.encode(solid)
    encode_s, start = time.perf_counter() - start, time.perf_counter()
    decoded = bits.decode(coded, solid.shape)
    decode_s = time.perf_counter() - start
    return {"bytes": len(coded), "encode_s": encode_s, "decode_s": decode_s, "exact": bool((decoded == solid).all())}


def compare(shapes: np.ndarray) -> list[dict[str, Any]]:
    """Return a row for every coder, in all of which sizes are divided by the number of shapes.

    Speeds are voxels a second, and how many times those of zlib on single shapes.
    """
    rows: list[dict[str, Any]] = []
    for name, coder in RIVALS.items():
        for together in (False, True):
            setting = "all shapes" if together else "each shape"
            rows.append({"codec": name, "setting": setting, **through_rival(shapes, coder, together)})
    rows.append({"codec": OURS, "setting": "stream of all shapes", **through_coder(shapes)})
    rows.append({"codec": OURS, "setting": "archive, one chunk", **through_archive(shapes, len(shapes))})
    rows.append({"codec": OURS, "setting": "archive, default chunks", **through_archive(shapes, None)})
    for row in rows:
        row["bytes_per_shape"] = row["bytes"] / len(shapes)
        row["bits_per_voxel"] = 8 * row["bytes"] / shapes.size
        for kind in ("encode", "decode"):
            if f"{kind}_s" in row:
                row[f"{kind}_voxels_per_s"] = shapes.size / row[f"{kind}_s"]
                row[f"{kind}_speed_ratio"] = rows[0][f"{kind}_s"] / row[f"{kind}_s"]
    return rows


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a text with a line for each coder."""
    lines = [["codec", "setting", "bytes a shape", "encoding speed", "decoding speed"]]
    for row in rows:
        speeds = [f"x{row[key]:.3g}" if key in row else "" for key in ("encode_speed_ratio", "decode_speed_ratio")]
        lines.append([row["codec"], row["setting"], f"{row['bytes_per_shape']:.1f}", *speeds])
    return f"{aligned(lines)}\n\nSpeeds are relative to zlib 9 on single shapes."


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and write the table; return 1 when a row of vcinr is not exact."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.occupancy", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/occupancy.json"))
    parser.add_argument("--raw", type=Path, default=Path("data/raw"), help="where packages are unpacked")
    options = parser.parse_args(arguments)
    shapes = read_shapes(options.raw, terminal)
    rows = compare(shapes)
    facts = {"libraries": LIBRARIES, "shapes": len(shapes), "resolution": RESOLUTION, "occupied": float(shapes.mean())}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(data=facts, rows=rows), indent=1) + "\n")
    print(table(rows))
    return 0 if all(row["exact"] for row in rows if row["codec"] == OURS) else 1


if __name__ == "__main__":
    sys.exit(main())
