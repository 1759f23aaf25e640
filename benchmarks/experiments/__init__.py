"""The experiments of the source papers, one module each: ``python -m flows.experiment NAME [--profile cpu|gpu|quick]``.

Those of `TILED` also run on tiles of images, sound, video or solid shapes: ``--kind image``.

A module has one function, ``experiment(lab) -> Outcome`` (see `benchmarks.experiments.harness`).
"""

NAMES = ("learning", "sizes", "masks", "rate", "ablation")
TILED = ("learning", "sizes", "masks", "rate")
CLIMATE = "climate"
KINDS = (CLIMATE, "image", "sound", "video", "voxels")
"""What an experiment runs on: maps of HadGEM and ERA5, or tiles (`benchmarks.data.tiles`)."""
