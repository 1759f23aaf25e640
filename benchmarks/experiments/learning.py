"""Learning curves: the non-linear modulation mapping of VC-INR (a residual network) against a linear one.

Same latents, same gates; linear is the mapping without its residual blocks, an affine map of phi to all U and V.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments import CLIMATE
from benchmarks.experiments.harness import TESTED, Lab, Outcome, Row, train
from benchmarks.report import figures


def experiment(lab: Lab) -> Outcome:
    """Train both with several seeds."""
    size, method, (source, title) = lab.size, lab.method("vcinr"), next(iter(lab.sources.items()))
    mappings = {"residual network": size.inr, "linear": size.inr.model_copy(update={"mapping_blocks": 0})}
    seeds = range(lab.params.seed, lab.params.seed + size.seeds)
    runs = {
        (name, seed): lab.run(
            f"{name}, seed {seed}", train, source, method.model_copy(update={"inr": inr, "seed": seed})
        )
        for seed in seeds
        for name, inr in mappings.items()
    }
    results = dict(zip(runs, lab.results(list(runs.values())), strict=True))
    rows = [
        {"mapping": name, "seed": seed, **{k: point[k] for k in ("step", "train_psnr_db", "valid_psnr_db", "seconds")}}
        for (name, seed), result in results.items()
        for point in result["history"]
    ]
    summary = [_summed(name, [r for (n, _), r in results.items() if n == name]) for name in mappings]
    curves = [_curve(name, rows) for name in mappings]

    def draw(path: Path) -> Path:
        return figures.curves_figure({"": curves}, "training step", "held-out PSNR (dB)", path)

    meta = size.meta
    signals, test = ("maps of E1", "A1B from map 140 on") if lab.kind == CLIMATE else ("tiles", TESTED[lab.kind])
    return Outcome(
        "Learning curves: non-linear against linear modulation mapping",
        f"VC-INR's gates, {size.inr.latent} latents, {size.inr.depth} layers of width {size.inr.width}, on {title}: "
        f"trained on 9 of 10 {signals}, {meta.steps} steps of {meta.batch} at {meta.points or 'all'} points, "
        f"{size.seeds} seeds. Curves: every tenth one, which chooses the parameters that are kept; test: {test}, "
        "never seen before the end. Collapsed runs go back to their best parameters at a lower rate (restarts).",
        "PSNR after the inner loop: mean over the seeds, band from the worst to the best.",
        summary, rows, draw,
    )  # fmt: skip


def _summed(name: str, results: list[dict[str, Any]]) -> Row:
    row: Row = {"mapping": name, "parameters": results[0]["parameters"], "seeds": len(results)}
    for key, title in (("valid_psnr_db", "held out"), ("test_psnr_db", "test")):
        values = [r[key] for r in results]
        row |= {f"{title} dB": float(np.mean(values)), f"{title} least": min(values), f"{title} most": max(values)}
    return row | {"restarts": sum(r["restarts"] for r in results)}


def _curve(name: str, rows: list[Row]) -> figures.Curve:
    steps = sorted({r["step"] for r in rows})
    of = {s: [r["valid_psnr_db"] for r in rows if r["mapping"] == name and r["step"] == s] for s in steps}
    middle, low, high = ([float(f(of[s])) for s in steps] for f in (np.mean, np.min, np.max))
    return figures.Curve(name, steps, middle, low, high)
