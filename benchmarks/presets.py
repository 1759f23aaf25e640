"""The methods by gradient at the length of their presets: ``python -m benchmarks.presets``.

Each method is trained on HadGEM's training split as ``dvc exp run -S method=NAME`` would, with the seed of params.yaml.
Its latents are then found for the test split, and judged before they are quantised. Finished methods are kept in the
work folder, so that an interrupted run goes on. Written to benchmarks/results/presets.json.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from benchmarks.measure.machine import record
from vcinr.config import load, preset
from vcinr.datasets.ingest import ingest
from vcinr.meta.extract import extract_modulations
from vcinr.meta.outer import meta_train

RESULT = Path("benchmarks/results/presets.json")
METHODS = ("vcinr", "coinpp", "functa")


def main() -> None:
    """Train every method; print and write the PSNR of each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--work", type=Path, default=Path("data/experiments/presets"), help="Folder for what is unfinished."
    )
    parser.add_argument("--steps", type=int, help="Steps of meta-training, instead of the presets' numbers.")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    params = load(Path("params.yaml"))
    source, signals = params.sources["hadgem"], options.work / "signals.zarr"
    if not signals.exists():
        ingest(source, Path("data/raw"), signals)
    rows = []
    for method in METHODS:
        folder, chosen = options.work / method, preset(method)
        meta = chosen.meta if options.steps is None else chosen.meta.model_copy(update={"steps": options.steps})
        if not (folder / "model.vcinr").exists():
            meta_train(
                signals, chosen.inr, meta, seed=params.seed, threads=options.threads, out=folder,
                checkpoint=folder / "checkpoint",
            )  # fmt: skip
        found = extract_modulations(
            signals, folder / "model.vcinr", folder / "modulations.zarr", threads=options.threads
        )
        rows.append(
            {"method": method, "steps": meta.steps, "latents": chosen.inr.latent, "psnr_db": found["test"]["psnr_db"]}
        )
        print(f"{method}: {rows[-1]['psnr_db']:.2f} dB")
    RESULT.write_text(json.dumps(record(rows=rows), indent=1) + "\n")


if __name__ == "__main__":
    main()
