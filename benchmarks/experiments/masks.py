"""Do the gates G of VC-INR group signals by their statistics?

The gates of held-out signals, flattened layer by layer as logits, are compared with labels that the model was never
told: ERA5's variable, HadGEM's decade and tercile of the map's mean; of tiles, statistics such as the brightness and
the main direction of an image (`benchmarks.data.tiles.labels_of`). Controls: the same for the signals themselves and
for the latents, and for the same clusters under permuted labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.data import tiles
from benchmarks.experiments import CLIMATE
from benchmarks.experiments.harness import TESTED, Lab, Outcome, Row, train, trained
from benchmarks.experiments.scores import clusters, mutual_information, principal_components, silhouette
from benchmarks.report import figures
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model
from vcinr.signals import Signals

PERMUTATIONS = 200
SPLIT = "test"


def experiment(lab: Lab) -> Outcome:
    """Train on both data sets, without a word of the labels; score every space against every label."""
    size, seed, method = lab.size, lab.params.seed, lab.method("vcinr")
    runs = {title: lab.run(title, train, source, method) for source, title in lab.sources.items()}
    if lab.kind == CLIMATE:  # a variable's own phi_0 and scale would tell the model its label
        runs["ERA5"] = lab.run("ERA5, variables pooled", train, "era5", method, pooled=True)
    results = dict(zip(runs, lab.results(list(runs.values())), strict=True))
    rows: list[Row] = []
    panels: dict[str, tuple[np.ndarray, list[str]]] = {}
    for name, run in runs.items():
        model, data, phi = trained(lab.cache, run)
        labels = _labels(lab.kind, name, data)
        spaces = {k: principal_components(v) for k, v in _spaces(model, data, phi[SPLIT]).items()}
        for label, values in labels.items():
            for space, points in spaces.items():
                rows.append({"data": name, "label": label, "space": space, **_scores(points, values, seed)})
                if space in ("signals", "gates"):
                    panels[f"{name}, {space}: {label}"] = points[:, :2], list(values)
    rows = [row | {"test PSNR dB": results[row["data"]]["test_psnr_db"]} for row in rows]
    summary = [row for row in rows if not row["space"].startswith("gates of")]

    def draw(path: Path) -> Path:
        return figures.scatter_figure(panels, 2, path)

    return Outcome(
        "Do the gates group signals by their statistics?",
        f"Gates of held-out signals under a model of {size.inr.latent} latents, {size.inr.depth} layers of width "
        f"{size.inr.width}, {size.meta.steps} steps: {data_of(lab.kind)} Scores: silhouette of the label and "
        "normalised mutual information (NMI) of k-means with as many clusters as labels, on Euclidean distances; "
        f"beside them the 95th percentile of the same scores under {PERMUTATIONS} permutations of the labels. Spaces: "
        "the normalised signals, the latents phi, the logits of the gates of all layers.",
        "The two leading principal components of the signals (left) and of the gates' logits (right), by label.",
        summary, rows, draw,
    )  # fmt: skip


def data_of(kind: str) -> str:
    """What the signals are whose gates are looked at, in words."""
    if kind != CLIMATE:
        return f"{TESTED[kind]}, grouped by statistics of each tile, which the model is not told."
    return (
        "HadGEM A1B from map 140 on (100 maps), ERA5's last 6 times of 5 variables (30 maps), these trained as one "
        "variable, each map scaled by its variable's training range, so that the model is told no label."
    )


def gate_logits(model: Model, phi: np.ndarray) -> np.ndarray:
    """Return the logits of the gates of every modulated layer, ``[layers, N, width * width]`` float32."""
    gates = conditioning(model.spec.conditioning).modulate(model.spec, model.params, phi)
    gates = np.clip(gates, 1e-6, 1 - 1e-6)
    return np.log(gates / (1 - gates)).reshape(*gates.shape[:2], -1)


def _spaces(model: Model, data: Signals, phi: np.ndarray) -> dict[str, np.ndarray]:
    """Return the points of each space, ``[N, D]``."""
    gates = gate_logits(model, phi)
    layers = {f"gates of layer {k + 1}": g for k, g in enumerate(gates)}
    whole = gates.swapaxes(0, 1).reshape(len(phi), -1)
    return {"signals": data.normalised(SPLIT)[0].reshape(len(phi), -1), "latents": phi, "gates": whole, **layers}


def _labels(kind: str, name: str, data: Signals) -> dict[str, np.ndarray]:
    if kind != CLIMATE:
        return tiles.labels_of(kind, data.splits[SPLIT].features[:])
    return _hadgem_labels(data) if name == "HadGEM" else {"variable": np.array(data.attrs["pooled"][SPLIT])}


def _hadgem_labels(data: Signals) -> dict[str, np.ndarray]:
    maps = data.splits[SPLIT].features[:].reshape(len(data.splits[SPLIT]), -1)
    mean = maps.mean(1)
    third = np.searchsorted(np.quantile(mean, [1 / 3, 2 / 3]), mean)
    # The maps are of the years 1860 to 2099, and the split has those from index 140 on.
    decade = [f"{2000 + 10 * (i // 10)}s" for i in range(len(maps))]
    return {"decade": np.array(decade), "mean temperature": np.array(["1 cold", "2 middle", "3 warm"])[third]}


def _scores(points: np.ndarray, labels: np.ndarray, seed: int) -> Row:
    clustered = clusters(points, len(np.unique(labels)), seed)
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(labels) for _ in range(PERMUTATIONS)]
    return {
        "labels": len(np.unique(labels)),
        "silhouette": silhouette(points, labels),
        "permuted silhouette": float(np.quantile([silhouette(points, s) for s in shuffled], 0.95)),
        "NMI": mutual_information(clustered, labels),
        "permuted NMI": float(np.quantile([mutual_information(clustered, s) for s in shuffled], 0.95)),
    }
