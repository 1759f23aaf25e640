"""Held-out PSNR before quantisation against the number of latents, for every method and data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.experiments import CLIMATE
from benchmarks.experiments.harness import TESTED, Lab, Outcome, Row, train, trained
from benchmarks.report import figures
from vcinr.errors import InputError
from vcinr.quality import psnr_of
from vcinr.signals import Signals

EOF = "EOF"


def experiment(lab: Lab) -> Outcome:
    """Train every method at every size on every data set."""
    size, sources = lab.size, lab.sources
    runs = {
        (source, name, latent): lab.run(
            f"{sources[source]}, {name}, {latent} latents", train, source, lab.method(name, latent, size.sweep_steps)
        )
        for source in sources
        for latent in size.sizes
        for name in size.methods
    }
    results = dict(zip(runs, lab.results(list(runs.values())), strict=True))
    rows: list[Row] = [
        {
            "data": sources[source], "method": name, "latents": latent, "psnr_db": result["test_psnr_db"],
            **{k: result[k] for k in ("valid_psnr_db", "parameters", "seconds", "restarts")},
        }
        for (source, name, latent), result in results.items()
    ]  # fmt: skip
    for source, title in sources.items():
        _, data, _ = trained(lab.cache, next(run for (s, *_), run in runs.items() if s == source))
        rows += [{"data": title, "method": EOF, "latents": k, "psnr_db": eof_psnr(data, k)} for k in (0, *size.sizes)]
    names = (*size.methods, EOF)
    at = {(r["data"], r["method"], r["latents"]): r["psnr_db"] for r in rows}
    summary = [
        {"data": d, "latents": k, **{f"{n} dB": at[d, n, k] for n in names}}
        for d in sources.values()
        for k in size.sizes
    ]
    panels = {
        d: [figures.Curve(n, size.sizes, [at[d, n, k] for k in size.sizes], reference=n == EOF) for n in names]
        for d in sources.values()
    }

    def draw(path: Path) -> Path:
        return figures.curves_figure(panels, "latents of a signal", "held-out PSNR (dB)", path, log_x=True)

    meta, inr = size.meta, size.inr
    means = ", ".join(f"{d} {at[d, EOF, 0]:.2f} dB" for d in sources.values())
    about = (
        "HadGEM: trained on E1, tested on the 100 maps of A1B from 140 on; ERA5: 5 variables, trained on the first 18 "
        "times, tested on the last 6"
        if lab.kind == CLIMATE
        else f"Tested on {TESTED[lab.kind]}"
    )
    unit = "map" if lab.kind == CLIMATE else "tile"
    return Outcome(
        "Held-out PSNR against the number of latents",
        f"Before quantisation, one seed. Methods fitted by gradient: {inr.depth} layers of width {inr.width}, "
        f"{size.sweep_steps} steps of {meta.batch} signals at {meta.points or 'all'} points; basis: closed form, "
        f"{size.basis_steps} steps. {about}. EOF: as many leading components of the training {unit}s, of which there "
        f"are at most as many as {unit}s. The mean {unit} of each variable alone: {means}.",
        f"PSNR of the test split; dashed: EOF (principal components) of the training {unit}s.",
        summary, rows, draw,
    )  # fmt: skip


def eof_psnr(data: Signals, components: int) -> float:
    """Return the mean PSNR in dB of the test split in the leading principal components of the training split.

    Variables share the components, and each has its own mean, as phi_0 of the basis method.

    Raises
    ------
    InputError
        If a signal has masked points.
    """
    (train, gaps), (test, more) = (data.normalised(split) for split in ("train", "test"))
    if gaps is not None or more is not None:
        raise InputError("EOFs need signals without masked points")
    train, test = (v.reshape(len(v), -1).astype(np.float64) for v in (train, test))
    which, tested = data.variable_index("train"), data.variable_index("test")
    mean = np.stack([train[which == v].mean(0) for v in range(len(data.normalisation))])
    modes = np.linalg.svd(train - mean[which], full_matrices=False)[2][:components]
    anomaly = test - mean[tested]
    rest = anomaly - anomaly @ modes.T @ modes
    return float(np.mean(psnr_of(np.square(rest).mean(1))))
