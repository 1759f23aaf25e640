"""Speed of the network's parts on a device: ``python -m benchmarks.device [--device cuda]``.

Training steps a second, and MB/s of raw float32 input for finding latents and for evaluating decoded ones, of the
default network with random weights (speed does not depend on them) on a grid of 181 x 360 points, with the
operations counted and, beside them, the rate at which the same device multiplies large matrices: the floor.
The entropy coder runs on the CPU and is not part of it; `benchmarks.table` times whole codecs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.measure.machine import record
from vcinr.config import Params
from vcinr.inr.siren import basis, initialise
from vcinr.meta.inner import Batch, solve
from vcinr.meta.outer import meta_step, spec_of

GRID, SIGNALS = 181 * 360, 64


def _seconds(run: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Return the median time of `run`, after one run to warm up."""
    times = []
    for k in range(repeat + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        began = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if k:
            times.append(time.perf_counter() - began)
    return float(np.median(times))


def measure(device: torch.device, repeat: int = 5) -> dict[str, float]:
    """Measure one device.

    Parameters
    ----------
    device : torch.device
        Where the network runs.
    repeat : int
        Runs, of which the median counts.

    Returns
    -------
    dict
        Steps or MB a second, and shares of the rate of matrix products; a multiply-add counts as two operations.
    """
    params = Params()
    inr, meta = params.inr, params.meta
    spec = spec_of(inr, 3, 1)
    arrays = initialise(spec, 0, 1)
    arrays["alpha"] = np.ones(spec.latent, np.float32)
    weights = {k: torch.tensor(v, device=device, requires_grad=True) for k, v in arrays.items()}
    frozen = {k: v.detach() for k, v in weights.items()}
    generator = torch.Generator().manual_seed(0)
    points = GRID if meta.points == "all" else meta.points

    def batch(signals: int, size: int) -> Batch:
        x, y = torch.rand((size, 3), generator=generator), torch.rand((signals, size, 1), generator=generator)
        return Batch(x.to(device), y.to(device), None, torch.zeros(signals, dtype=torch.int64, device=device))

    learned, whole = batch(meta.batch, points), batch(SIGNALS, GRID)

    def step() -> None:
        meta_step(spec, weights, learned, meta.inner_steps, meta.inner).backward()

    psi_0, psi = (b.reshape(GRID, -1) for b in basis(spec, frozen, whole.x))
    phi = torch.rand((SIGNALS, spec.latent), generator=generator).to(device)
    square = torch.rand((2048, 2048), generator=generator).to(device)
    network = 2 * (3 * spec.width + (spec.depth - 2) * spec.width**2 + spec.width * (spec.latent + 1))
    d, raw = spec.latent, 4e-6 * SIGNALS * GRID
    counted = {  # operations: network forward (times 3 with backward), normal equations, projections
        "train": 3 * (network * points + 2 * d * d * points + 4 * d * meta.batch * points),
        "encode": network * GRID + 2 * d * d * GRID + 4 * d * SIGNALS * GRID,
        "decode": 2 * d * SIGNALS * GRID,
    }
    seconds = {
        "train": _seconds(step, device, repeat),
        "encode": _seconds(lambda: solve(spec, frozen, whole), device, repeat),
        "decode": _seconds(lambda: psi_0.T + phi @ psi.T, device, repeat),
        "basis": _seconds(lambda: basis(spec, frozen, whole.x), device, repeat),
        "matrix": _seconds(lambda: square @ square, device, repeat),
    }
    peak = 2 * 2048**3 / seconds["matrix"]
    return {
        "train_steps_per_second": 1 / seconds["train"], "encode_mbs": raw / seconds["encode"],
        "decode_mbs": raw / seconds["decode"], "basis_seconds_per_grid": seconds["basis"], "matrix_gflops": peak / 1e9,
        **{f"{k}_share_of_matrix_rate": counted[k] / seconds[k] / peak for k in counted},
    }  # fmt: skip


def main() -> None:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "cpu"
    print(json.dumps(record(device=name, **measure(device)), indent=1))


if __name__ == "__main__":
    main()
