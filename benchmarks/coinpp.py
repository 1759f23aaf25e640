"""COIN++'s protocol on what ERA5 is within reach: ``python -m benchmarks.coinpp``.

2 m temperature on the 46 x 90 sphere, scaled as COIN++ scales it, (T - 202.66) / (320.93 - 202.66), PSNR with peak 1
averaged over maps, bits per pixel of the latents alone (no bound, no residual, model not counted). COIN++ trained
on some ten thousand monthly means by hour, split at random; here there are 18 maps of one week for training and the
next 6 for testing, weather instead of means: its points are another data set's, and printed for orientation only.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import xarray as xr

from benchmarks.rivals import EofCodec
from benchmarks.table import DATASETS
from vcinr.coding import latents as adaptive
from vcinr.config import Params
from vcinr.inr.model import load_model
from vcinr.meta.extract import find_latents
from vcinr.quantise.state import Quantiser
from vcinr.signals import coordinates
from vcinr.signals.tiling import layout_of
from vcinr.training import train

LOW, HIGH = 202.66, 320.93
PUBLISHED = ((0.00414, 38.66), (0.00830, 43.94), (0.01027, 46.01), (0.01222, 46.74), (0.01861, 47.52), (0.02153, 47.75))
"""COIN++ (Dupont et al. 2022) on its own data: bits per pixel, dB."""


def scaled() -> tuple[xr.DataArray, xr.DataArray]:
    """Training and test maps ``[T, 46, 90]`` in COIN++'s units."""
    first, second = next(iter(DATASETS["era5"]()))
    parts = ((v[:, ::4, ::4] - LOW) / (HIGH - LOW) for v in (first, second))
    return tuple(
        p.astype(np.float32).rename("t").assign_coords({d: p[d].assign_attrs(first[d].attrs) for d in p.dims})
        for p in parts
    )  # type: ignore[return-value]


def psnr(original: np.ndarray, decoded: np.ndarray) -> float:
    """Mean over maps, peak 1, in dB."""
    mse = np.square(original.astype(np.float64) - decoded).reshape(len(original), -1).mean(1)
    return float(np.mean(-10 * np.log10(mse)))


def main() -> None:
    """Train for each latent size, print every point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", nargs="+", type=int, default=[4, 8, 16])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    first, second = scaled()
    layout, test, pixels = layout_of(second), second.values, second[0].size
    x = layout.inputs()
    default = Params(threads=options.threads)
    for size in options.latents:
        chosen = default.model_copy(
            update={
                "inr": default.inr.model_copy(update={"latent": size}),
                "meta": default.meta.model_copy(update={"steps": options.steps}),
            }
        )
        out = Path(f"models/coinpp-{size}.vcinr")
        began = time.perf_counter()
        if not out.exists():
            train(first.to_dataset(), out, params=chosen)
        model = load_model(out)
        offset, scale = model.scaling("t")
        y = ((test.reshape(len(test), -1, 1) - offset) / scale).astype(np.float32)
        if not np.allclose(coordinates.inputs(dict(model.system), layout.axes), x):
            raise ValueError("the model is of another grid")
        phi = find_latents(model, x, y, None, np.zeros(len(y), np.int64))
        whole = offset + scale * model.reconstruct(phi, x)[..., 0]
        print(f"latent {size}: {psnr(test.reshape(len(test), -1), whole):.2f} dB unquantised, "
              f"model {len(model.data):,} bytes, {time.perf_counter() - began:.0f} s")  # fmt: skip
        quantiser, start = Quantiser.from_tensors(model.quantiser), model.start("t")
        for rate in range(quantiser.rates):
            z = quantiser.quantise(phi - start, rate)
            data = adaptive.encode(z[:, None], quantiser.offset[rate], quantiser.frequency[rate])
            decoded = offset + scale * model.reconstruct(start + quantiser.dequantise(z, rate), x)[..., 0]
            quality = psnr(test.reshape(len(test), -1), decoded)
            print(f"  {8 * len(data) / (len(z) * pixels):.5f} bits per pixel, {quality:.2f} dB")
        eof = EofCodec.fit(first.values, min(size, len(first) - 1))
        flat = test.reshape(len(test), -1).astype(np.float64)
        print(f"  EOF {len(eof.basis)}: {psnr(flat, eof._reconstruct(eof._project(flat), 0)):.2f} dB unquantised")
        for step in (0.01, 0.03, 0.1):
            data = eof.encode_quality(test, step)
            print(f"  EOF {len(eof.basis)}: {8 * len(data) / test.size:.5f} bits per pixel, "
                  f"{psnr(test, eof.decode(data, test.shape, test.dtype)):.2f} dB")  # fmt: skip
    climatology = np.broadcast_to(first.values.mean(0), test.shape)
    print(f"mean of the training maps: 0 bits, {psnr(test, climatology):.2f} dB")
    print("published, on other data:", ", ".join(f"{b:.5f} -> {q:.2f} dB" for b, q in PUBLISHED))


if __name__ == "__main__":
    main()
