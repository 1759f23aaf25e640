"""What decoding depends on: processor, NumPy's and Numba's instruction sets, OpenBLAS kernels, number of threads.

Usage: python -m benchmarks.determinism [MODEL] [--out FILE]. Each setting is a process of its own whose NumPy is told
to leave instruction sets out, whose Numba compiles for another processor, or whose OpenBLAS uses the kernels of another
one. It decodes every golden archive and archives of every kind of bound at both efforts, made just now. Without a model
the bytes must be those of this process; with one, the values may differ by the slack that the model states. With MODEL,
that model's network is also run for random latents: at twice the scale that its quantiser has seen, on a grid of 64
points an axis; its differences are fractions of the model's scale. Exit status 1 if anything differs by more than it
may. Settings that this processor cannot run are left out and named.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args

import numpy as np
import xarray as xr
import zarr

from benchmarks.measure.machine import machine
from tests.golden import make
from vcinr.archive.write import compress
from vcinr.codec.promise import Effort
from vcinr.inr.at import ModelAt
from vcinr.inr.model import DELTA, load_model
from vcinr.signals import Grid

ROOT = Path(__file__).resolve().parent.parent
AVX512 = ("AVX512", "X86_V4")
AVX2 = ("AVX2", "FMA", "X86_V3")
NEEDS = {"Prescott": "SSE3", "Nehalem": "SSE42", "Haswell": "AVX2", "Zen": "AVX2", "SkylakeX": "AVX512_SKX"}
"""OpenBLAS kernels, and the feature of a processor without which they cannot run."""

SCALE = 30.0
"""That of the golden archives' models, which their slack is a fraction of."""

Environment = dict[str, str]


# Settings


@cache
def features() -> tuple[dict[str, bool], tuple[str, ...]]:
    """What this processor has, by NumPy's names, and what NumPy can be told to leave out of it.

    Asked in a new process, for the environment of this one may leave some out already.
    """
    code = "import numpy._core._multiarray_umath as m; print(json.dumps([m.__cpu_features__, m.__cpu_dispatch__]))"
    done = subprocess.run(
        [sys.executable, "-c", f"import json; {code}"], env=_clean(), capture_output=True, check=True, text=True
    )
    has, dispatched = json.loads(done.stdout)
    return has, tuple(name for name in dispatched if has.get(name))


def without(*prefixes: str) -> Environment | None:
    """NumPy without the features whose names start so; None where there is none to leave out."""
    names = [name for name in features()[1] if name.startswith(prefixes)]
    return {"NPY_DISABLE_CPU_FEATURES": " ".join(names)} if names else None


def kernels(name: str) -> Environment | None:
    """OpenBLAS with the kernels of that processor; None where this one cannot run them."""
    return {"OPENBLAS_CORETYPE": name} if features()[0].get(NEEDS[name]) else None


def settings() -> dict[str, Environment | None]:
    """Environment variables by the name of a setting; None where this processor cannot run it."""
    baseline, generic = without(""), {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}
    return {
        "as it comes": {},
        "2 threads": {"OPENBLAS_NUM_THREADS": "2"},
        "NumPy without AVX-512": without(*AVX512),
        "NumPy without AVX2 and FMA": without(*AVX512, *AVX2),
        "NumPy at its baseline": baseline,
        "Numba for any processor": generic,
        **{f"OpenBLAS for {name}": kernels(name) for name in NEEDS},
        "all at their oldest": {**(baseline or {}), **generic, **(kernels("Prescott") or {})},
    }


def _clean() -> Environment:
    """This process's environment without what a setting may set."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("OPENBLAS", "OMP", "NPY", "MKL", "NUMBA_CPU"))}


def run(environment: Environment, *arguments: str | Path) -> Mapping[str, np.ndarray]:
    """The arrays that ``python -m benchmarks.determinism ARGUMENTS`` writes in that environment."""
    command = [sys.executable, "-W", "ignore::UserWarning", "-m", "benchmarks.determinism", "--child"]
    whole = {**_clean(), "OPENBLAS_NUM_THREADS": "1", **environment}
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, env=whole, cwd=ROOT, check=False)
    if done.returncode:
        raise RuntimeError(f"decoding failed with {environment}: {done.stderr.decode()[-2000:]}")
    with np.load(io.BytesIO(done.stdout)) as arrays:
        return dict(arrays)


# What is compared


def decoded(archives: Sequence[Path]) -> dict[str, np.ndarray]:
    """Every array of numbers of the archives, by ``ARCHIVE:ARRAY``."""
    return {f"{path.stem}:{name}": values for path in archives for name, values in make.stored(path).items()}


def slack(archive: Path, name: str) -> float:
    """How far an array of a golden archive may differ between machines: not at all without a model."""
    attrs = zarr.open_group(zarr.storage.ZipStore(archive, mode="r"), mode="r")[name].attrs
    return make.SLACK.get(archive.stem, DELTA) * SCALE if "vcinr_model_sha256" in attrs else 0.0


def differences(
    archives: Sequence[Path], then: Mapping[str, np.ndarray], now: Mapping[str, np.ndarray]
) -> dict[str, str]:
    """In what each array of `now` differs by more than it may, by ``ARCHIVE:ARRAY``; empty where all is well."""
    wrong = {name: "missing" for name in set(then) ^ set(now)}
    paths = {path.stem: path for path in archives}
    for name in set(then) & set(now):
        archive, _, array = name.partition(":")
        one, other, allowed = then[name], now[name], slack(paths[archive], array.replace("|", "/"))
        if (one.dtype, one.shape) != (other.dtype, other.shape):
            wrong[name] = f"{other.dtype}{other.shape}, was {one.dtype}{one.shape}"
        elif allowed and (largest := float(np.abs(other - one).max())) > allowed:
            wrong[name] = f"differs by {largest:.3g}, {largest / allowed:.3g} of the slack"
        elif not allowed and one.tobytes() != other.tobytes():
            largest = float(np.nanmax(np.abs(other.astype(np.float64) - one)))
            wrong[name] = f"{np.count_nonzero(one != other)} of {one.size} values differ, by at most {largest:.3g}"
    return dict(sorted(wrong.items()))


def made(folder: Path) -> list[Path]:
    """Archives of every kind of bound at both efforts, and one with a model, of larger fields than the golden ones."""
    rng = np.random.default_rng(0)
    t, y, x = np.meshgrid(np.arange(6.0), np.linspace(0, 9, 50), np.linspace(0, 7, 70), indexing="ij")
    waves = 280 + 10 * np.sin(x + 0.3 * t) * np.cos(y) + 0.05 * rng.standard_normal(t.shape)
    dims = ("t", "y", "x")
    data = xr.Dataset({
        "single": (dims, waves.astype("f4")), "double": (dims, waves),
        "counts": (dims, np.round(waves * 9).astype("i4")),
        "rain": (dims, np.exp(3 * np.sin(x + t) + 2 * np.cos(y)).astype("f4")),
    })  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {
        "absolute": {"abs_error": 0.01}, "range": {"rel_error": 1e-4}, "relative": {"point_rel_error": 1e-3},
        "psnr": {"psnr": 60.0}, "rate": {"rate": 6.0, "variables": ["single", "double", "rain"]}, "lossless": {},
    }  # fmt: skip
    paths = []
    for kind, bound in kinds.items():
        for effort in get_args(Effort):
            paths.append(folder / f"{kind}-{effort}.zip")
            compress(data, paths[-1], effort=effort, **bound)
    return paths


def network(path: Path, signals: int = 32) -> np.ndarray:
    """The model's output ``[signals, P]`` float32 for latents of a fixed seed, normalised."""
    model = load_model(path)
    bounds = model.system["bounds"] if model.system["system"] == "box" else [(-90.0, 90.0), (0.0, 360.0)]
    side = 64 if len(bounds) < 3 else 24
    x = Grid(tuple(np.linspace(lo, hi, side) for lo, hi in bounds)).inputs(model.system)
    rng = np.random.default_rng(0)
    mean, std = (model.quantiser.get(f"net.{k}", np.float32(d)) for k, d in (("mean", 0.0), ("std", 0.1)))
    phi = model.params["phi_0"][:1] + mean + 2 * std * rng.standard_normal((signals, model.spec.latent))
    return ModelAt(model, x).reconstruct(phi.astype(np.float32))[..., 0]


def measure_archives(archives: Sequence[Path], environments: Mapping[str, Environment]) -> dict[str, Any]:
    """Number of arrays, and by setting those that differ by more than they may from this process's."""
    then = decoded(archives)
    wrong = {name: differences(archives, then, run(e, *archives)) for name, e in environments.items()}
    return {"archives": [path.stem for path in archives], "arrays": len(then), "differ": wrong}


def measure_network(path: Path, environments: Mapping[str, Environment]) -> dict[str, Any]:
    """By setting the largest difference from the first one, as a fraction of the model's scale."""
    found = {name: run(e, path)["network"] for name, e in environments.items()}
    first, model = next(iter(found.values())), load_model(path)
    largest = {name: float(np.abs(out.astype(np.float64) - first).max()) for name, out in found.items()}
    return {"model": model.sha256, "values": int(first.size), "slack": model.slack, "differences": largest}


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=Path, nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        first = arguments.child[0]
        found = {"network": network(first)} if first.suffix == ".vcinr" else decoded(arguments.child)
        np.savez(sys.stdout.buffer, **found)  # type: ignore[arg-type]
        return 0
    every = settings()
    environments = {name: e for name, e in every.items() if e is not None}
    facts: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "command": shlex.join(["python", "-m", "benchmarks.determinism", *sys.argv[1:]]),
        "settings": environments,
        "not_run": [name for name, e in every.items() if e is None],
        "golden": measure_archives(sorted(make.FOLDER.glob("v*/*.zip")), environments),
    }
    with tempfile.TemporaryDirectory() as folder:
        facts["made"] = measure_archives(made(Path(folder)), environments)
    if arguments.model:
        facts["network"] = measure_network(arguments.model, environments)
    return report(facts, arguments.out)


def report(facts: Mapping[str, Any], out: Path | None) -> int:
    """Print what differs and write it to `out`; the exit status."""
    if facts["not_run"]:
        print(f"this processor cannot run: {', '.join(facts['not_run'])}")
    good = True
    for kind in ("golden", "made"):
        print(f"{kind}: {len(facts[kind]['archives'])} archives, {facts[kind]['arrays']} arrays")
        for name, wrong in facts[kind]["differ"].items():
            good = good and not wrong
            print(f"  {name:28s} {'; '.join(f'{k} {v}' for k, v in wrong.items()) or 'the same'}")
    for name, difference in facts.get("network", {}).get("differences", {}).items():
        fraction = difference / facts["network"]["slack"]
        good = good and fraction <= 1
        print(f"network, {name:24s} {difference:.2e} of the scale, {fraction:.3f} of the slack")
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
