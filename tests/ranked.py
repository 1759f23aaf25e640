"""What test_ranks.py runs under torchrun: ``torchrun ... -m tests.ranked FOLDER``; each case is a folder in it."""

import json
import sys
from pathlib import Path

from tests.conftest import small
from vcinr import training
from vcinr.config import Params
from vcinr.meta.outer import meta_train
from vcinr.meta.ranks import Ranks, joined
from vcinr.quantise.train import train_quantiser

STEPS = {"steps": 20, "validate_every": 20, "outer_rate": 1e-3, "encode_steps": 2}
CASES: dict[str, Params] = {
    "basis": small(method="basis", meta={**STEPS, "batch": 16}),
    "gates": small(meta={**STEPS, "batch": 6}),
    "micro": small(method="basis", meta={**STEPS, "batch": 16, "micro_batch": 3}),
    "sparse": small(method="mscn", meta={**STEPS, "batch": 7, "micro_batch": 2, "inner_rate": 0.1}),
    "long": small(method="basis", meta={**STEPS, "steps": 40, "validate_every": 10, "batch": 8}),
}
"""Parameters by the name of the case. `long` is that of the run in which a process is killed."""
QUANTISED = {"factorised": {"kind": "factorised"}, "hyperprior": {"kind": "hyperprior"}, "joint": {"joint_steps": 4}}
"""Quantisers that are trained for the network of the case `basis`, by one process."""


def run(folder: Path, ranks: Ranks) -> None:
    """Train all cases on ``signals.zarr`` of the folder above."""
    signals = folder.parent / "signals.zarr"
    for name, p in CASES.items():
        summary = meta_train(
            signals, p.inr, p.meta, seed=0, threads=1, out=folder / name, checkpoint=folder / f"{name}.checkpoint",
            ranks=ranks,
        )  # fmt: skip
        if ranks.first:
            (folder / name / "summary.json").write_text(json.dumps(summary))


def quantise(folder: Path, ranks: Ranks) -> None:
    """Train all quantisers of the network that one process has trained."""
    alone = folder.parent / "alone" / "basis"
    for name, changes in QUANTISED.items():
        cfg = small(quantiser={"steps": 20, **changes}).quantiser
        train_quantiser(
            folder.parent / "signals.zarr", alone / "model.vcinr", alone / "modulations.zarr", cfg, seed=0, threads=1,
            out=folder / f"{name}.vcinr", history=folder / f"{name}.csv", ranks=ranks,
        )  # fmt: skip


def main(folder: Path) -> None:
    with joined("cpu") as ranks:
        run(folder, ranks)
        quantise(folder, ranks)
    training.train(folder.parent / "in.nc", folder / "whole.vcinr", params=small(meta=STEPS, quantiser={"steps": 10}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
