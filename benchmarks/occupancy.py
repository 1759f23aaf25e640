"""Solid shapes: ``python -m benchmarks.occupancy [--out FILE] [--pictures FOLDER]``.

The meshes of two libraries of public furniture become occupancy of 64^3 voxels, and some of them of 128^3. DEFLATE and
Zstandard get each shape alone and all shapes at once, both as bytes and as packed bits, of which the smaller counts.
vcinr writes an archive without a model, first without loss, then to a mean IoU or in so many bytes a shape; the whole
zip file counts, metadata included. Beside it are majorities of blocks of voxels, coded by vcinr's own coder of bits.
Everything is decoded and compared. The exit status is 1 when a shape of vcinr comes back changed that should not, or a
goal is missed.
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
from benchmarks.report import samples
from benchmarks.report.tables import aligned
from vcinr.codec.promise import ious
from vcinr.coding import bits
from vcinr.coding.coarse import grown, sums_in_blocks
from vcinr.datasets.fetch import fetch
from vcinr.kinds.voxels import read_library
from vcinr.progress import Watch, silent, terminal

LIBRARIES = ("KatorLegaz", "Reallusion")  # those that the pipeline's models do not learn from
RESOLUTION = 64
FINE, FINE_SHAPES = 128, 12
"""The other resolution, and how many shapes of the first library have it."""
OURS, FLOOR = "vcinr", "majority"
Wishes = Sequence[tuple[str, dict[str, float]]]
"""What is asked of an archive: how it is called, and the bound."""
WISHES: Wishes = (
    ("IoU 0.95", {"iou": 0.95}), ("90 bytes a shape", {"bytes": 90.0}), ("IoU 0.85", {"iou": 0.85}),
    ("IoU 0.76", {"iou": 0.76}), ("20 bytes a shape", {"bytes": 20.0}),
)  # fmt: skip
FINE_WISHES: Wishes = (("IoU 0.95", {"iou": 0.95}), ("IoU 0.85", {"iou": 0.85}))
SHOWN = (4, 40, 75, 100)
"""Shapes in the picture."""

Coder = tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]
RIVALS: dict[str, Coder] = {
    "zlib 9": (lambda data: zlib.compress(data, 9), zlib.decompress),
    "zstd 22": (lambda data: bytes(Zstd(22).encode(data)), lambda data: bytes(Zstd().decode(data))),
}


def read_shapes(
    raw: Path, resolution: int = RESOLUTION, limit: int | None = None, watch: Watch = silent
) -> np.ndarray:  # fmt: skip
    """Return the occupancy of shapes, uint8 ``[item, z, y, x]``: of all, or so many of the first library."""
    folder = fetch(FURNITURE, raw, watch) / "usr/share/sweethome3d/furniture"
    names = LIBRARIES if limit is None else LIBRARIES[:1]
    libraries = [read_library(folder / f"{name}.sh3f", resolution, limit, watch=watch) for name in names]
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


def quality(shapes: np.ndarray, decoded: np.ndarray) -> dict[str, float]:
    """Return the mean and the lowest IoU of shapes, and the share of voxels that are as they were."""
    found = ious(shapes, decoded)
    return {"iou": float(found.mean()), "lowest_iou": float(found.min()), "accuracy": float((shapes == decoded).mean())}


def lossy(shapes: np.ndarray, wishes: Wishes) -> tuple[list[dict[str, Any]], list[np.ndarray]]:
    """Return a row for each wish, and what the shapes decode to.

    Parameters
    ----------
    shapes : numpy.ndarray
        uint8 ``[item, z, y, x]``.
    wishes : sequence of (str, dict)
        An ``iou``, or ``bytes`` a shape, which bound the chunk and not the metadata around it.

    Returns
    -------
    rows : list of dict
        ``bytes`` of the archive and ``chunk_bytes`` of the chunk, both by shape too; seconds ``encode_s`` and
        ``decode_s``; what `quality` returns; and whether the goal is ``met``.
    decoded : list of numpy.ndarray
        As the shapes.
    """
    dataset = xr.Dataset({"occupancy": (("item", "z", "y", "x"), shapes)})
    rows, results = [], []
    for name, wish in wishes:
        bound = {"iou": wish["iou"]} if "iou" in wish else {"rate": 8 * wish["bytes"] / shapes[0].size}
        with tempfile.TemporaryDirectory(prefix="occupancy-") as folder:
            archive, start = Path(folder) / "archive.zip", time.perf_counter()
            facts = vcinr.compress(dataset, archive, variables=["occupancy"], chunk=len(shapes), **bound)
            encode_s, start = time.perf_counter() - start, time.perf_counter()
            with vcinr.open(archive) as back:
                decoded = np.asarray(back["occupancy"].values)
            row = {
                "codec": OURS, "setting": name, "bytes": archive.stat().st_size,
                "chunk_bytes": facts["variables"]["occupancy"]["bytes"], "encode_s": encode_s,
                "decode_s": time.perf_counter() - start, **quality(shapes, decoded),
            }  # fmt: skip
        of_shape = row["chunk_bytes"] / len(shapes)
        row["met"] = row["iou"] >= wish["iou"] if "iou" in wish else of_shape <= wish["bytes"]
        rows.append(_by_shape(row, len(shapes)))
        results.append(decoded)
    return rows, results


def floors(shapes: np.ndarray) -> list[dict[str, Any]]:
    """Return rows of majorities of blocks of 2^3 and 4^3 voxels, as one stream of `vcinr.coding.bits`."""
    rows = []
    for factor in (2, 4):
        cells = 2 * sums_in_blocks(shapes, factor) >= factor**3
        row = {"codec": FLOOR, "setting": f"of {factor}^3 voxels", "chunk_bytes": len(bits.encode(cells))}
        rows.append(_by_shape(row | quality(shapes, grown(cells, shapes.shape, factor)), len(shapes)))
    return rows


def _by_shape(row: dict[str, Any], shapes: int) -> dict[str, Any]:
    return row | {f"{key}_per_shape": row[key] / shapes for key in ("bytes", "chunk_bytes") if key in row}


def lossy_table(rows: Sequence[dict[str, Any]]) -> str:
    """Return a text with a line for each row of `lossy` or `floors`."""
    lines = [["codec", "setting", "chunk bytes a shape", "archive bytes a shape", "mean IoU", "lowest", "accuracy"]]
    for row in rows:
        whole = f"{row['bytes_per_shape']:.1f}" if "bytes" in row else ""
        figures = [f"{row[key]:.4f}" for key in ("iou", "lowest_iou", "accuracy")]
        lines.append([row["codec"], row["setting"], f"{row['chunk_bytes_per_shape']:.1f}", whole, *figures])
    return aligned(lines)


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
    parser.add_argument("--pictures", type=Path, default=Path("benchmarks/results/kinds"))
    options = parser.parse_args(arguments)
    shapes = read_shapes(options.raw, watch=terminal)
    rows = compare(shapes)
    print(table(rows), flush=True)
    simpler, decoded = lossy(shapes, WISHES)
    simpler += floors(shapes)
    print(lossy_table(simpler), flush=True)
    pictured = {"original": shapes, **{name: decoded[i] for i, (name, _) in enumerate(WISHES) if "bytes" in name}}
    samples.solids(options.pictures / "shapes.png", {title: some[list(SHOWN)] for title, some in pictured.items()})
    small = read_shapes(options.raw, FINE, FINE_SHAPES, terminal)
    fine_rows, (fine_simpler, _) = compare(small), lossy(small, FINE_WISHES)
    print(table(fine_rows), lossy_table(fine_simpler), sep="\n", flush=True)
    facts = {"libraries": LIBRARIES, "shapes": len(shapes), "resolution": RESOLUTION, "occupied": float(shapes.mean())}
    fine = {"shapes": len(small), "resolution": FINE, "rows": fine_rows, "lossy": fine_simpler}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record(data=facts, rows=rows, lossy=simpler, fine=fine), indent=1) + "\n")
    exact = all(row["exact"] for row in (*rows, *fine_rows) if row["codec"] == OURS)
    return 0 if exact and all(row["met"] for row in (*simpler, *fine_simpler) if row["codec"] == OURS) else 1


if __name__ == "__main__":
    sys.exit(main())
