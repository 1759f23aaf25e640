"""COIN++'s protocol on what ERA5 is within reach: ``python -m benchmarks.coinpp``.

2 m temperature on the 46 x 90 sphere, scaled as COIN++ scales it, (T - 202.66) / (320.93 - 202.66), PSNR with peak 1
averaged over maps, bits per pixel of the latents alone (no bound, no residual, model not counted). COIN++ trained
on some ten thousand monthly means by hour, split at random; here there are 18 maps of one week for training and the
next 6 for testing, weather instead of means: COIN++'s points are of other data, and printed for orientation only.
Written to benchmarks/results/coinpp.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from benchmarks.data.climate import DATASETS
from benchmarks.measure.machine import record
from benchmarks.rivals.eof import EofCodec
from vcinr.coding import latents as adaptive
from vcinr.config import Params
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model, load_model
from vcinr.meta.extract import find_latents
from vcinr.quality import psnr_of
from vcinr.quantise.state import Quantiser
from vcinr.signals.tiling import layout_of
from vcinr.training import train

RESULT = Path("benchmarks/results/coinpp.json")
LOW, HIGH = 202.66, 320.93
PUBLISHED = ((0.00414, 38.66), (0.00830, 43.94), (0.01027, 46.01), (0.01222, 46.74), (0.01861, 47.52), (0.02153, 47.75))
"""COIN++ (Dupont et al. 2022) on its own data: bits per pixel, dB."""


def scaled() -> tuple[xr.DataArray, xr.DataArray]:
    """Return training and test maps ``[T, 46, 90]`` in COIN++'s units."""
    first, second = next(iter(DATASETS["era5"]()))
    parts = ((v[:, ::4, ::4] - LOW) / (HIGH - LOW) for v in (first, second))
    learned, tested = (
        p.astype(np.float32).rename("t").assign_coords({d: p[d].assign_attrs(first[d].attrs) for d in p.dims})
        for p in parts
    )
    return learned, tested


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Return the mean over maps in dB, with peak 1."""
    mse = np.square(original.astype(np.float64) - decoded).reshape(len(original), -1).mean(1)
    return float(np.mean(psnr_of(mse)))


def main() -> None:
    """Train a model of each size; print and write every point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    first, second = scaled()
    rows = [
        {"codec": "mean of the training maps", "latents": 0, "bits_per_pixel": 0.0,
         "psnr_db": psnr(second.values, np.broadcast_to(first.values.mean(0), second.shape))}
    ]  # fmt: skip
    for size in options.latents:
        rows += ours(second, _trained(first, size, options.steps, options.threads), size)
        rows += eof(first, second, size)
    for row in rows:
        rate = "unquantised" if row["bits_per_pixel"] is None else f"{row['bits_per_pixel']:.5f} bits per pixel"
        print(f"{row['codec']}, {row['latents']} latents: {rate}, {row['psnr_db']:.2f} dB")
    print("published, on other data:", ", ".join(f"{b:.5f} -> {q:.2f} dB" for b, q in PUBLISHED))
    RESULT.write_text(json.dumps(record(steps=options.steps, rows=rows), indent=1) + "\n")


def _trained(first: xr.DataArray, size: int, steps: int, threads: int) -> Model:
    """Return models/coinpp-SIZE.vcinr, trained now where it is missing."""
    out = Path(f"models/coinpp-{size}.vcinr")
    if not out.exists():
        default = Params(threads=threads)
        inr = default.inr.model_copy(update={"latent": size})
        meta = default.meta.model_copy(update={"steps": steps})
        train(first.to_dataset(), out, params=default.model_copy(update={"inr": inr, "meta": meta}))
    return load_model(out)


def ours(second: xr.DataArray, model: Model, size: int) -> list[dict[str, Any]]:
    """Return a point of the latents before quantisation, and one at each rate of the model."""
    layout, test = layout_of(second), second.values
    x = layout.grid.inputs(layout.system)
    at = ModelAt(model, layout.grid.inputs(model.system))
    if not np.allclose(at.x, x):
        raise ValueError("the model is of another grid")
    offset, scale = model.scaling("t")
    y = ((test.reshape(len(test), -1, 1) - offset) / scale).astype(np.float32)
    phi = find_latents(at, y, None, np.zeros(len(y), np.int64))

    def point(latents: np.ndarray, bits: float | None) -> dict[str, Any]:
        decoded = offset + scale * at.reconstruct(latents)[..., 0]
        quality = psnr(test.reshape(len(test), -1), decoded)
        return {"codec": "vcinr", "latents": size, "bits_per_pixel": bits, "psnr_db": quality}

    points = [point(phi, None)]
    quantiser, start = Quantiser.from_tensors(model.quantiser), model.start("t")
    for rate in range(quantiser.rates):
        z = quantiser.quantise(phi - start, rate)
        data = adaptive.encode(z[:, None], quantiser.offset[rate], quantiser.frequency[rate])
        points.append(point(start + quantiser.dequantise(z, rate), 8 * len(data) / test.size))
    return points


def eof(first: xr.DataArray, second: xr.DataArray, size: int) -> list[dict[str, Any]]:
    """Return points of an EOF basis of as many components, before quantisation and at three steps."""
    test = second.values
    basis = EofCodec.fit(first.values, min(size, len(first) - 1))
    flat = test.reshape(len(test), -1).astype(np.float64)
    points: list[tuple[float | None, float]] = [(None, psnr(flat, basis.reconstruct(basis.project(flat))))]
    for step in (0.01, 0.03, 0.1):
        data = basis.encode_quality(test, step)
        points.append((8 * len(data) / test.size, psnr(test, basis.decode(data, test.shape, test.dtype))))
    return [{"codec": "EOF", "latents": len(basis.basis), "bits_per_pixel": b, "psnr_db": q} for b, q in points]


if __name__ == "__main__":
    main()
