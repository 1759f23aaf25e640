"""How far a model's decoder differs between BLAS kernels, instruction sets and numbers of threads.

Usage: python -m benchmarks.determinism MODEL [--out FILE]. Each variant is a process of its own whose OpenBLAS is told
to use the kernels of another CPU and whose NumPy is told to leave instruction sets out. Latents are drawn at twice the
scale that the model's quantiser has seen, on a grid of 64 points an axis. Differences are stated as fractions of the
model's scale, beside the slack that encoders leave for them (``slack`` of the model). Exit status 1 if it does not
suffice. Variants that this CPU cannot run are left out and named.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure.machine import machine
from vcinr.inr.model import load_model
from vcinr.signals import coordinates

CORES = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX", "Cooperlake", "Sapphirerapids")
DISPATCH: list[str] = np._core._multiarray_umath.__cpu_dispatch__  # type: ignore[attr-defined]
BASELINE = {"NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCH)}
VARIANTS: dict[str, dict[str, str]] = {
    "as it comes, 1 thread": {},
    "as it comes, 2 threads": {"OPENBLAS_NUM_THREADS": "2"},
    "as it comes, 4 threads": {"OPENBLAS_NUM_THREADS": "4"},
    **{f"OpenBLAS {core}": {"OPENBLAS_CORETYPE": core} for core in CORES},
    "NumPy without newest": {"NPY_DISABLE_CPU_FEATURES": " ".join(DISPATCH[1:])},
    "NumPy at its baseline": BASELINE,
    "oldest of both": {"OPENBLAS_CORETYPE": "Prescott", **BASELINE},
}


def outputs(path: Path, signals: int) -> np.ndarray:
    """The decoder's output ``[signals, P]`` float32 for latents of a fixed seed, normalised."""
    model = load_model(path)
    bounds = model.system["bounds"] if model.system["system"] == "box" else [(-90.0, 90.0), (0.0, 360.0)]
    side = 64 if len(bounds) < 3 else 24
    x = coordinates.inputs(dict(model.system), [np.linspace(lo, hi, side) for lo, hi in bounds])
    rng = np.random.default_rng(0)
    mean, std = (model.quantiser.get(f"net.{k}", np.float32(d)) for k, d in (("mean", 0.0), ("std", 0.1)))
    phi = model.params["phi_0"][:1] + mean + 2 * std * rng.standard_normal((signals, model.spec.latent))
    return model.reconstruct(phi.astype(np.float32), x)[..., 0]


def run_variant(path: Path, signals: int, environment: dict[str, str]) -> np.ndarray | None:
    """`outputs` in a process with `environment`; None where this CPU or NumPy refuses it."""
    base = {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "OMP", "NPY", "MKL"))}
    command = [sys.executable, "-m", "benchmarks.determinism", str(path), "--one", str(signals)]
    done = subprocess.run(
        command, capture_output=True, env={**base, "OPENBLAS_NUM_THREADS": "1", **environment}, check=False
    )
    return np.load(io.BytesIO(done.stdout)) if done.returncode == 0 else None


def measure(path: Path, signals: int = 32) -> dict[str, Any]:
    """Largest difference from the first variant, of each, as a fraction of the model's scale."""
    found = {name: run_variant(path, signals, environment) for name, environment in VARIANTS.items()}
    reference = found["as it comes, 1 thread"]
    assert reference is not None
    model = load_model(path)
    differences = {
        name: float(np.abs(out.astype(np.float64) - reference).max()) for name, out in found.items() if out is not None
    }
    return {
        "machine": machine(), "model": model.sha256, "values": int(reference.size), "slack": model.slack,
        "differences": differences, "not_run": [name for name, out in found.items() if out is None],
    }  # fmt: skip


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        buffer = io.BytesIO()
        np.save(buffer, outputs(arguments.model, arguments.one))
        sys.stdout.buffer.write(buffer.getvalue())
        return 0
    facts = measure(arguments.model)
    for name, difference in facts["differences"].items():
        print(f"{name:24s} {difference:.2e} of the scale, {difference / facts['slack']:.3f} of the slack")
    if facts["not_run"]:
        print(f"not run here: {', '.join(facts['not_run'])}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if max(facts["differences"].values()) <= facts["slack"] else 1


if __name__ == "__main__":
    sys.exit(main())
