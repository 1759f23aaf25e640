"""The experiments of the source papers, one module each: ``python -m flows.experiment NAME [--profile cpu|gpu]``.

A module has one function, ``experiment(lab) -> Outcome`` (see `benchmarks.experiments.harness`).
"""

NAMES = ("learning", "sizes", "masks", "rate", "ablation")
