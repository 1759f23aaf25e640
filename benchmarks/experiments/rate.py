"""Rate-distortion of the quantisers on held-out data: uniform, variational (factorised) and hyperprior.

The same trained network and latents under each of them, bits in real bytes, with the gates of VC-INR and with the
closed-form basis; beside them the codecs SZ3 and SPERR. No bound and no residual: the latents alone. On tiles of other
kinds than maps, all methods of the profile are compared, COIN++, Functa and MSCN with the uniform quantiser, which is
theirs, and without these codecs, which are not made for tiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from benchmarks.experiments import CLIMATE
from benchmarks.experiments.harness import TESTED, Lab, Outcome, Row, Run, network_of, quantise, trained
from benchmarks.experiments.scores import Curve, equal_psnr, front, relative_rate
from benchmarks.measure.rows import rate_distortion
from benchmarks.report import figures
from benchmarks.rivals import AT_PSNR
from vcinr.config import Quantiser
from vcinr.progress import Watch
from vcinr.signals import Signals

METHODS = {"vcinr": "gates", "basis": "basis"}
KINDS = ("uniform", "factorised", "hyperprior")
CODECS = ("SZ3", "SPERR")
TARGETS = tuple(range(26, 54, 2))
"""PSNR in dB that the codecs aim at."""
PER_LATENT = (1, 2, 4)
"""Bits a latent at which methods are compared on tiles."""


def experiment(lab: Lab) -> Outcome:
    """Train the networks, then every quantiser of each."""
    climate, sources = lab.kind == CLIMATE, lab.sources
    methods = METHODS if climate else {name: METHODS.get(name, name) for name in lab.size.methods}
    runs = {
        (data, title, kind): run
        for source, data in sources.items()
        for name, title in methods.items()
        for kind, run in _quantisers(lab, source, name, title).items()
    }
    lab.results([network_of(run.params, f"{data}, {title}") for (data, title, _), run in runs.items()])
    quantised = lab.results(list(runs.values()))
    rows: list[Row] = [
        {
            "data": data, "method": title, "quantiser": kind, "setting": setting,
            "bits_per_value": point["coded_bits_per_value"], "psnr_db": point["psnr_db"],
            "modelled_bits_per_value": point["modelled_bits_per_value"],
        }
        for ((data, title, kind), run), result in zip(runs.items(), quantised, strict=True)
        for setting, point in zip(
            lab.size.bits if kind == KINDS[0] else run.params.quantiser.lambdas, result["points"], strict=True
        )
    ]  # fmt: skip
    for data in sources.values() if climate else ():
        _, signals, _ = trained(lab.cache, network_of(runs[data, METHODS["vcinr"], KINDS[0]].params))
        rows += [{"data": data, "method": "codec", **row} for row in codecs(signals, lab.watch)]
    curves = {
        (data, name): [(r["bits_per_value"], r["psnr_db"]) for r in rows if (r["data"], _name(r)) == (data, name)]
        for data, name in dict.fromkeys((r["data"], _name(r)) for r in rows)
    }
    summary = [
        _compared(data, title, kind, curves[data, f"{title}, {kind}"], curves[data, f"{title}, {KINDS[0]}"])
        for data in sources.values()
        for title in METHODS.values()
        for kind in KINDS[1:]
    ]
    if not climate:
        _, signals, _ = trained(lab.cache, network_of(next(iter(runs.values())).params))
        numbers = signals.points * signals.splits["test"].features.shape[-1]
        summary = _all_compared(curves, numbers / lab.size.inr.latent)
    panels = {
        data: [
            figures.Curve(name, [b for b, _ in front(points)], [q for _, q in front(points)], reference=name in CODECS)
            for (d, name), points in curves.items()
            if d == data
        ]
        for data in sources.values()
    }

    def draw(path: Path) -> Path:
        return figures.curves_figure(panels, "bits per value", "held-out PSNR (dB)", path, log_x=True)

    inr, q = lab.size.inr, lab.size.quantiser
    if not climate:
        return Outcome(
            "Rate-distortion of the methods",
            f"{inr.latent} latents, networks of {inr.depth} layers of width {inr.width} trained for "
            f"{lab.size.meta.steps} steps, basis for {lab.size.basis_steps}; each quantiser for {q.steps} steps with "
            f"{len(q.lambdas)} lambdas, uniform: {min(lab.size.bits)} to {max(lab.size.bits)} bits and an entropy "
            f"coder. Tested on {TESTED[lab.kind]}. Bits are of real streams of the whole test split, the model not "
            "counted; PSNR is the mean over tiles, peak the training range, interpolated in the logarithm of the bits. "
            "Bits relative to COIN++: at equal PSNR, interpolated in dB, geometric mean over the PSNR that both reach. "
            "Rates of training are those of the presets, which were tuned on HadGEM; published settings have 200,000 "
            "steps or more. The uniform quantiser cuts latents at three standard deviations, which costs a basis most.",
            "Held-out PSNR against bits per value.",
            summary, rows, draw,
        )  # fmt: skip
    return Outcome(
        "Rate-distortion of the quantisers",
        f"{inr.latent} latents, networks trained for {lab.size.meta.steps} (gates) and {lab.size.basis_steps} (basis) "
        f"steps; each quantiser for {q.steps} steps with {len(q.lambdas)} lambdas, uniform: {min(lab.size.bits)} to "
        f"{max(lab.size.bits)} bits and an entropy coder. Bits are of real streams of the whole test split, the model "
        "not counted; PSNR is the mean over maps, peak the training range. Bits relative to uniform: at equal PSNR, "
        "interpolated in dB, geometric mean over the PSNR that both reach, and at a quarter, half and three quarters "
        "of it; none where there is no such PSNR. SZ3 and SPERR code each variable's maps as a volume.",
        "Held-out PSNR against bits per value; dashed: codecs without training.",
        summary, rows, draw,
    )  # fmt: skip


def codecs(data: Signals, watch: Watch) -> list[Row]:
    """Measure the codecs on the test split; rows are means over the variables at each target."""
    names, points = np.array(data.splits["test"].variable), []
    learned = np.array(data.splits["train"].variable)
    for target in TARGETS:
        by_codec: dict[str, list[Row]] = {name: [] for name in CODECS}
        for variable, (_, peak) in data.normalisation.items():
            test, train = (
                data.splits[split].features[which == variable][..., 0]
                for split, which in (("test", names), ("train", learned))
            )
            for row in rate_distortion(
                test, train, peak, {}, (), [float(target)], watch, {name: AT_PSNR[name] for name in CODECS}
            ):
                by_codec[row["family"]].append(row)
        points += [
            {
                "quantiser": name, "setting": target,
                "bits_per_value": float(np.mean([r["bits_per_value"] for r in rows])),
                "psnr_db": float(np.mean([r["psnr_mean_db"] for r in rows])),
            }
            for name, rows in by_codec.items()
            if len(rows) == len(data.normalisation) and all(r["psnr_mean_db"] is not None for r in rows)
        ]  # fmt: skip
    return points


def _quantisers(lab: Lab, source: str, name: str, title: str) -> dict[str, Run]:
    method, runs = lab.method(name), {}
    for kind in KINDS if name in METHODS else KINDS[:1]:
        quantiser = Quantiser(**method.quantiser.model_dump() | {"kind": kind, "bits": lab.size.bits})
        label = f"{lab.sources[source]}, {title}, {kind}"
        runs[kind] = lab.run(label, quantise, source, method.model_copy(update={"quantiser": quantiser}))
    return runs


def _name(row: Row) -> str:
    return row["quantiser"] if row["method"] == "codec" else f"{row['method']}, {row['quantiser']}"


def _all_compared(curves: Mapping[tuple[str, str], Curve], numbers: float) -> list[Row]:
    """Every method and quantiser at a few bits a latent, which is for so many numbers, and beside COIN++."""
    rows: list[Row] = []
    for (data, name), curve in curves.items():
        method, _, quantiser = name.partition(", ")
        reference = curves.get((data, f"coinpp, {KINDS[0]}"))
        rows.append(
            {
                "data": data, "method": method, "quantiser": quantiser,
                **{f"dB at {bits:g} bits a latent": _psnr_at(curve, bits / numbers) for bits in PER_LATENT},
                "most dB": front(curve)[-1][1],
                "bits / COIN++": None if reference is None else relative_rate(curve, reference),
            }
        )  # fmt: skip
    return rows


def _psnr_at(curve: Curve, bits: float) -> float | None:
    """PSNR at a rate, interpolated in the rate's logarithm; None where the curve does not reach so far."""
    rates, quality = zip(*front(curve), strict=True)
    return float(np.interp(np.log(bits), np.log(rates), quality)) if rates[0] <= bits <= rates[-1] else None


def _compared(data: str, title: str, kind: str, curve: Curve, reference: Curve) -> Row:
    reach = [[q for _, q in front(points)] for points in (curve, reference)]
    low, high = max(min(r) for r in reach), min(max(r) for r in reach)
    row: Row = {
        "data": data, "method": title, "quantiser": kind, "most dB": max(reach[0]), "uniform most dB": max(reach[1]),
        "bits / uniform": relative_rate(curve, reference),
    }  # fmt: skip
    for share in (0.25, 0.5, 0.75):
        at = low + share * (high - low) if low < high else None  # uniform clips at 3 deviations: it may never get there
        row |= {f"dB at {share:g}": at, f"ratio at {share:g}": at and equal_psnr(curve, reference, at)}
    return row
