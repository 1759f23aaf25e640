"""What each part of the codec is worth: one of them changed at a time, at two error bounds, on HadGEM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.experiments.harness import Lab, Outcome, Row, Run, model_of, network_of, trained
from benchmarks.report import figures
from vcinr.codec.decode import decode
from vcinr.codec.encode import Encoded, encode
from vcinr.codec.promise import Field
from vcinr.config import Params, Quantiser
from vcinr.errors import BoundError
from vcinr.inr.model import Model, load_model
from vcinr.progress import Watch
from vcinr.quality import psnr_db

SOURCE = "hadgem"
WHOLE = "all parts"
VARIANTS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "closed form off (gates)": {"method": "vcinr"},
    "gates beside the closed form": {"method": "gated-basis"},
    "joint fine-tuning on": {"quantiser": {"joint_steps": 1000}},
    "hyperprior on": {"quantiser": {"kind": "hyperprior"}},
    "uniform quantiser": {"quantiser": {"kind": "uniform"}},
    "adaptive coding of latents off": {"quantiser": {"coder": "ans"}},
    "prior off (residual alone)": {"part": "residual"},
    "residual off (latents alone)": {"part": "latents"},
}
"""What differs from all parts: closed-form basis, factorised quantiser, the smaller of static and adaptive coding (with
prediction in time) of the latents, prior and residual."""


def experiment(lab: Lab) -> Outcome:
    """Train what is needed, then code the test split with each variant."""
    size = lab.size
    runs = {name: _run(lab, name, **change) for name, change in VARIANTS.items()}
    networks = lab.results([network_of(run.params, run.params.inr.conditioning) for run in runs.values()])
    before = dict(zip(runs, networks, strict=True))
    lab.results([model_of(run.params, name) for name, run in runs.items()])
    results = dict(zip(runs, lab.results(list(runs.values())), strict=True))
    rows = [{"variant": name, **row} for name, result in results.items() for row in result["points"]]
    whole = {r["bound_fraction"]: r["bits_per_value"] for r in rows if r["variant"] == WHOLE}
    summary = []
    for name in runs:
        alone = VARIANTS[name].get("part") == "residual"
        line: Row = {"variant": name, "unquantised dB": None if alone else before[name]["test_psnr_db"]}
        for row in (r for r in rows if r["variant"] == name):
            bound = row["bound_fraction"]
            line |= {
                f"bits at {bound:g}": row["bits_per_value"],
                f"times all parts at {bound:g}": row["bits_per_value"] / whole[bound],
                f"dB at {bound:g}": row["psnr_db"],
                f"error / bound at {bound:g}": row["bound_ratio"],
            }
        summary.append(line)
    curves = [_curve(name, result["points"]) for name, result in results.items()]

    def draw(path: Path) -> Path:
        return figures.curves_figure({"": curves}, "maximum error / range", "bits per value", path, log_x=True)

    return Outcome(
        "What each part is worth",
        f"HadGEM, trained on E1, the 100 maps of A1B from 140 on coded as one chunk, {size.inr.latent} latents, basis "
        f"trained for {size.basis_steps} and gates for {size.meta.steps} steps. All parts: closed-form basis, "
        "factorised quantiser, latents coded adaptively with prediction in time, residual. Every line changes one of "
        "them. Real bytes, decoded again; the model is not counted. With the residual off nothing makes the bound "
        "hold: the rate is the coarsest whose largest error keeps it, else the finest, and the error is given.",
        "Bits per value at the bounds, fractions of the training range.",
        summary, rows, draw,
    )  # fmt: skip


def bounded(folder: Path, params: Params, watch: Watch, bounds: tuple[float, ...], part: str) -> Row:
    """Code the test split at each bound, decode and check it.

    Parameters
    ----------
    folder, params, watch
        Those of every run.
    bounds : tuple of float
        Largest errors, as fractions of the training range.
    part : {"all", "residual", "latents"}
        What is coded.

    Returns
    -------
    dict
        ``points``: bits per value, PSNR and largest error over the bound, for each bound.

    Raises
    ------
    BoundError
        If a decoded value is beyond the bound.
    """
    cache = folder.parents[1]
    data = trained(cache, network_of(params))[1]
    ((variable, (_, peak)),) = data.normalisation.items()
    values = data.splits["test"].features[..., 0]
    model = None if part == "residual" else load_model(model_of(params).folder(cache) / "model.vcinr")
    axes = tuple(range(1, values.ndim))
    field = Field(variable, axes, data.domain, model, data.normalisation[variable])
    points = []
    for fraction in bounds:
        bound = fraction * peak
        encoded, error = _latents_alone(values, field, bound) if part == "latents" else _coded(values, field, bound)
        largest = float(np.abs(error).max())
        if part != "latents" and largest > bound:
            raise BoundError(f"{variable}: {largest:g} is beyond the bound {bound:g}")
        points.append(
            {
                "bound_fraction": fraction, "bits_per_value": 8 * len(encoded.data) / values.size,
                "psnr_db": psnr_db(peak, float(np.square(error).sum()), values.size),
                "bound_ratio": largest / bound, "mode": encoded.mode,
            }
        )  # fmt: skip
    return {"points": points}


def _coded(
    values: np.ndarray, field: Field, bound: float | None, rate: int | None = None
) -> tuple[Encoded, np.ndarray]:
    encoded = encode(values, field, bound, rate=rate)
    decoded = decode(encoded.data, values.shape, values.dtype, field)
    return encoded, decoded.astype(np.float64) - values


def _latents_alone(values: np.ndarray, field: Field, bound: float) -> tuple[Encoded, np.ndarray]:
    """Code at the coarsest rate whose largest error keeps the bound, else at the finest."""
    assert isinstance(field.model, Model)
    rates = field.model.quantiser["offset"].shape[0]
    for rate in range(rates):
        encoded, error = _coded(values, field, None, rate)
        if np.abs(error).max() <= bound:
            break
    return encoded, error


def _curve(name: str, points: list[Row]) -> figures.Curve:
    points = sorted(points, key=lambda p: p["bound_fraction"])
    x, y = ([p[key] for p in points] for key in ("bound_fraction", "bits_per_value"))
    return figures.Curve(name, x, y, reference=name != WHOLE)


def _run(
    lab: Lab, label: str, method: str = "basis", quantiser: dict[str, Any] | None = None, part: str = "all"
) -> Run:
    params = lab.method(method)
    changed = Quantiser(**params.quantiser.model_dump() | {"bits": lab.size.bits} | (quantiser or {}))
    params = params.model_copy(update={"quantiser": changed})
    return lab.run(label, bounded, SOURCE, params, bounds=lab.size.bounds, part=part)
