"""Make the golden archives of the current format version: ``python -m tests.golden.make [NAME ...]``.

They are made once for a version and then only read, by every later release: run this for a new version, or while the
format of the current one is not frozen yet, and commit what it writes. With names, only those archives are made, and
the others stay: this is for what the format has gained. Each ``NAME.zip`` is an archive, ``NAME.npz``
holds its variables as they were decoded then; those with a model may differ by the stated slack on another machine.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from vcinr.archive import work
from vcinr.archive.write import compress
from vcinr.codec.chunk import VERSION
from vcinr.codec.encode import encode
from vcinr.coding.tables import levels_of
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import DELTA, Model, with_quantiser
from vcinr.inr.siren import initialise
from vcinr.inr.spec import InrSpec
from vcinr.patches import coder
from vcinr.patches.geometry import Geometry
from vcinr.patches.learn import learn, learn_later
from vcinr.patches.learn import stored as stored_model
from vcinr.patches.model import PatchModel
from vcinr.quantise.state import Quantiser
from vcinr.signals.graph import graph_of, spectral_coordinates, system_of

FOLDER = Path(__file__).parent


SLACK = {"weights": 2.0**-15, "patches": 0.0}
"""Of a network of large random weights, whose rounding is larger than a trained one's; experts are exact."""


def fields() -> dict[str, xr.Dataset]:
    """Two groups with every dtype and kind of special value."""
    rng = np.random.default_rng(0)
    t, y, x = np.meshgrid(np.arange(7), np.linspace(0, 3, 9), np.linspace(0, 2, 8), indexing="ij")
    wave = 10 * np.sin(x + 0.3 * t) * np.cos(y) + 0.02 * rng.standard_normal(t.shape)
    holed = wave.astype("f4")
    holed[:, 2:4, :3], holed[0, 0, 0], holed[1, 5, 5] = 1e20, np.nan, -np.inf
    dims = ("t", "y", "x")
    root = xr.Dataset(
        {
            "single": (dims, holed, {"_FillValue": np.float32(1e20), "units": "K"}),
            "double": (dims, wave - 30),
            "packed": (dims, np.round(wave * 90).astype("i2"), {"scale_factor": 0.1, "_FillValue": np.int16(-999)}),
            "bytes": (("y", "x"), rng.integers(0, 200, (9, 8)).astype("u1")),
            "clipped": (dims, np.maximum(wave, 0).astype("f4"), {"valid_min": np.float32(0)}),
            "constant": (dims, np.full_like(wave, 3.25)),
            "mask": (("y", "x"), wave[0] > 0),
            "one": ((), np.int64(-(2**40))),
            "name": (("t",), np.array([f"step {i}" for i in range(7)], object)),
        },
        {"t": np.arange(7.0), "y": np.linspace(0, 3, 9)},
        {"title": "golden", "history": "made"},
    )
    long = rng.standard_normal(300).cumsum() * 1e3
    deep = xr.Dataset(
        {"half": (("y", "x"), wave[1].astype("f2")), "line": (("n",), long), "empty": (("n", "m"), np.zeros((300, 0)))}
    )
    return {"": root, "deep/er": deep}


def data(name: str) -> dict[str, xr.Dataset]:
    """What the golden archive of that name is made of: `fields`, and what it is named after for some."""
    groups = fields()
    if name in ("vector", "patches", "tiles"):
        east = groups[""]["double"].values
        wind = np.stack([east, 0.5 * east[:, ::-1] - 10], axis=1)
        wind[1:3, 1, 4, 5] = 1e20
        groups[""] = groups[""].assign(wind=(("t", "component", "y", "x"), wind, {"_FillValue": 1e20}))
    if name in ("motion", "frames", "primed"):
        t, row, column = np.meshgrid(np.arange(6), np.arange(12), np.arange(11), indexing="ij")
        shots = [np.sin(0.7 * (column - k * t)) * np.cos(0.5 * (row - 1.25 * t)) for k in (1.5, -0.75)]
        groups[""] = groups[""].assign(film=(("shot", "frame", "row", "column"), np.stack(shots).astype("f4")))
    if name == "scattered":
        rng = np.random.default_rng(2)
        latitude, longitude = rng.uniform(-60, 60, 200), rng.uniform(-180, 180, 200)
        latitude[150:], longitude[150:], latitude[3] = latitude[:50], longitude[:50], np.nan
        values = np.sin(np.radians(2 * longitude) + np.arange(7)[:, None]) * np.cos(np.radians(3 * latitude))
        groups[""] = groups[""].assign(
            latitude=("node", latitude, {"units": "degrees_north"}),
            longitude=("node", longitude, {"units": "degrees_east"}),
            scattered=(("t", "node"), np.where(values > 0.9, np.nan, values)),
        )
    if name == "turning":
        groups[""] = groups[""].assign(turning=(("row", "column"), turning_waves()))
    if name == "graph":
        angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        heat = -30 + 8 * np.cos(angle + 0.3 * np.arange(7)[:, None]) + 5 * np.sin(3 * angle)
        numbers = np.arange(40)
        edges = np.stack([numbers, (numbers + 1) % 40], 1)[:-2]  # a path of 39 nodes, and one node alone
        groups[""] = groups[""].assign(heat=(("t", "node"), heat), edges=(("edge", "two"), edges.astype("i4")))
    if name in ("bits", "shapes"):
        z, y, x = np.indices((12, 14, 16)) - np.array([6, 7, 8])[:, None, None, None]
        squared = z * z + y * y + x * x
        shells = np.stack([(squared < outer) & (squared > inner) for outer, inner in ((36, 0), (50, 12), (50, 12))])
        shells[1] ^= np.random.default_rng(2).random(shells[1].shape) < 0.02
        land = np.where(shells.any(1), np.nan, 0.1 * squared[6])
        groups[""] = groups[""].assign(
            solid=(("item", "z", "y_", "x_"), shells.astype("u1")), land=(("item", "y_", "x_"), land)
        )
    if name == "shapes":
        blocks = np.random.default_rng(3).random((2, 6, 7, 8)) < 0.4
        coarse = blocks.repeat(2, 1).repeat(2, 2).repeat(2, 3)[:, :11, :, 1:]
        groups[""] = groups[""].assign(
            coarse=(("pair", "depth", "height", "width"), coarse),
            simple=(("item", "z", "y_", "x_"), shells.astype("i2")),
        )
    if name == "numbers":
        rng = np.random.default_rng(2)
        y, x = np.meshgrid(np.linspace(-1.3, 1.3, 30), np.linspace(0, 6.2, 40), indexing="ij")
        tenths = np.round(25 * np.sin(x - y), 1)
        tenths[5:9, 10:30], tenths[0, 0], tenths[20, 7] = np.nan, -0.0, np.nextafter(tenths[20, 7], 99)
        still = np.sin(x * y + np.array([0, 0, 1, 1])[:, None, None])
        groups[""] = groups[""].assign(
            lat=(("j", "i"), np.degrees(np.arcsin(np.sin(y) * np.cos(0.1 * np.sin(x)))).astype("f4")),
            tenths=(("j", "i"), tenths),
            still=(("s", "j", "i"), (1000 * still).astype("i2")),
            line=(("k",), np.linspace(-3, 5, 777)),
            column=(("r",), rng.choice(rng.standard_normal(9), 900)),
        )
    return groups


def turning_waves() -> np.ndarray:
    """Waves whose direction changes from row to row, so that weights of a prediction had better forget."""
    row, column = np.meshgrid(np.arange(96.0), np.arange(48.0), indexing="ij")
    angle = 0.5 * row / 96 * np.pi
    waves = 10 * np.sin(0.9 * (column * np.cos(angle) + row * np.sin(angle) / 1.5))
    return (waves + 0.02 * np.random.default_rng(0).standard_normal(waves.shape)).astype("f4")


def small_model(name: str, features: int = 1, tile: tuple[int, int] | None = None) -> Model:
    """An untrained network of that conditioning: the format does not depend on what a model has learnt."""
    cond, rate = conditioning(name), 0.01 if name == "weights" else 10.0
    spec = cond.training(InrSpec(2, features, 8, 4, 30.0, 4, name, 2, 8, 1, gating=2 if name == "gated-basis" else 0))
    params: dict[str, Any] = {**initialise(spec, 0), "alpha": np.full(spec.latent, rate, "f4")}
    spec, params = cond.finish(spec, params)
    d = spec.latent
    bounds = {"system": "box", "bounds": [[0.0, 3.0], [0.0, 2.0]]}
    model = Model(
        spec, params, bounds, ("y", "x"), {"double" if features == 1 else "wind": (-45.0, 30.0)}, 3, 4096,
        slack=SLACK.get(name, DELTA), feature_dim=None if features == 1 else "component",
        tile=tile,
    )  # fmt: skip
    rng = np.random.default_rng(1)
    net = {"mean": np.zeros(d), "std": np.full(d, 0.02)}
    for name in ("analysis", "synthesis"):
        shapes = {"in.weight": (6, d), "in.bias": (6,), "out.weight": (d, 6), "out.bias": (d,)}
        shapes |= {f"block.0.{k}": (6,) for k in ("scale", "shift", "bias_1", "bias_2")}
        shapes |= {"block.0.weight_1": (6, 6), "block.0.weight_2": (6, 6)}
        net |= {f"{name}.{k}": 0.1 * rng.standard_normal(s) for k, s in shapes.items()}
    frequency = np.zeros((2, d, 6), np.int32)
    frequency[0, :, :3] = (36, 65000, 500)
    frequency[1] = (36, 15500, 20000, 20000, 9000, 1000)
    gain = np.repeat([[1.0], [4.0]], d, axis=1)
    offset = np.array([[0] * d, [-2] * d], np.int32)
    quantiser = Quantiser(
        {k: v.astype("f4") for k, v in net.items()}, 1, gain.astype("f4"), offset, levels_of(frequency)
    )
    return with_quantiser(model, quantiser.to_tensors(), {})


def graph_model() -> Model:
    """The linear one of the variable heat on its graph."""
    dim, graph = graph_of([data("graph")[""]], "heat")
    nodes, model = spectral_coordinates(graph, 5), small_model("linear")
    spec = replace(model.spec, d_in=len(nodes))
    params = {**initialise(spec, 0), "alpha": model.params["alpha"]}
    return replace(
        model, spec=spec, params=params, system=system_of(graph, len(nodes)), dims=(dim,), nodes=nodes,
        normalisation={"heat": (-45.0, 30.0)},
    )  # fmt: skip


def small_experts() -> PatchModel:
    """Two experts for patches of the wind."""
    geometry = Geometry((1, 2, 2), (0, 1, 1), (0, 0, 1))
    wind = data("patches")[""]["wind"].values
    signals = np.moveaxis((np.where(wind == 1e20, -10, wind) + 45) / 30, 1, -1)[:, None]
    middle, predict, basis, _ = learn(list(signals), geometry, experts=2, rounds=3, patches=200, psnr=34.0)
    return stored_model(PatchModel(geometry, ("y", "x"), "component", {"wind": (-45.0, 30.0)}, middle, predict, basis))


def film_experts(name: str) -> PatchModel:
    """Experts for patches of a film, each frame of which follows the one before, or is in a group; or with starts."""
    geometry = Geometry((1, 3, 4), (1, 1, 1), (0, 1, 2), 3)
    if name in ("frames", "primed"):
        geometry = Geometry((1, 3, 4), (0, 1, 1), (0, 0, 2), 3, 4, 1, (6, 2, -3))
    film = list(data(name)[""]["film"].values[..., None] / 2)
    options: dict[str, Any] = {"rounds": 2, "patches": 500, "psnr": 34.0}
    middle, predict, basis, _ = learn(film, geometry, experts=2, **options)
    later = learn_later(film, geometry, experts=2, **options)[0] if geometry.group else ()
    dims, scaling = ("frame", "row", "column"), {"film": (0.0, 2.0)}
    model = stored_model(PatchModel(geometry, dims, None, scaling, middle, predict, basis, {}, later))
    if name != "primed":
        return model
    return stored_model(replace(model, starts=coder.learn_starts(model, np.stack(film), (60, 70))))


def archives() -> dict[str, dict[str, Any]]:
    """Arguments of `compress` for each golden archive."""
    both = ["single", "double", "packed", "constant", "clipped", "deep/er/half", "deep/er/line"]
    return {
        "absolute": {"abs_error": 0.25, "variables": [*both, "bytes", "mask"], "chunk": 3},
        "fast": {"abs_error": 0.25, "variables": [*both, "bytes", "mask"], "chunk": 3, "effort": "fast"},
        "relative": {"point_rel_error": 0.01, "variables": ["single", "double", "deep/er/line"], "chunk": 4},
        "psnr": {"psnr": 45.0, "variables": ["single", "double"], "chunk": 7},
        "rate": {"rate": 8.0, "variables": ["double"], "chunk": 7},
        "lossless": {"variables": both, "chunk": 5},
        "turning": {"abs_error": 0.05, "variables": ["turning"], "chunk": 96},
        "bits": {"abs_error": 0.25, "variables": ["land", "solid"], "chunk": 36},
        "shapes": {"iou": 0.7, "variables": ["coarse", "simple"], "chunk": 2},
        "numbers": {"variables": ["lat", "tenths", "still", "line", "column"], "chunk": 36},
        "model": {"abs_error": 0.5, "variables": ["double"], "chunk": 4, "model": small_model("gates")},
        **{
            name: {"abs_error": 0.5, "variables": ["double"], "chunk": 4, "model": small_model(name)}
            for name in ("linear", "gated-basis", "shifts", "sparse", "weights")
        },
        "vector": {"abs_error": 0.5, "variables": ["wind"], "chunk": 4, "model": small_model("linear", features=2)},
        "tiles": {"abs_error": 0.5, "variables": ["wind"], "chunk": 4, "model": small_model("gates", 2, (4, 3))},
        "graph": {"abs_error": 0.5, "variables": ["heat"], "chunk": 4, "model": graph_model()},
        "scattered": {"abs_error": 0.02, "variables": ["scattered"], "chunk": 4},
        "patches": {"abs_error": 0.1, "variables": ["wind"], "chunk": 4, "model": small_experts()},
        **{
            name: {"abs_error": 0.05, "variables": ["film"], "chunk": 2, "model": film_experts(name)}
            for name in ("motion", "frames", "primed")
        },
        "effort": {"variables": ["double"], "chunk": 4, "model": small_model("gates")},
    }


def stored(path: Path) -> dict[str, np.ndarray]:
    """Every array of numbers of an archive as zarr reads it."""
    store = zarr.storage.ZipStore(path, mode="r")
    members = zarr.open_group(store, mode="r").members(max_depth=None)
    arrays = {n: a for n, a in members if isinstance(a, zarr.Array) and not n.startswith("vcinr/")}
    return {n.replace("/", "|"): np.asarray(a[...]) for n, a in arrays.items() if a.dtype.kind in "fiub"}


def main() -> int:
    """Write the archives of this version, or those named on the command line."""
    folder, chosen = FOLDER / f"v{VERSION}", sys.argv[1:]
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        if not chosen or old.stem in chosen:
            old.unlink()
    # The untrained prior is never the smallest candidate: have it taken all the same.
    rates = {
        "model": 1, "linear": 1, "vector": 1, "tiles": 1, "graph": 1, "patches": 70, "motion": 60, "frames": 60,
        "primed": 60,
    }  # fmt: skip
    for name, arguments in archives().items():
        if chosen and name not in chosen:
            continue
        forced = partial(encode, rate=rates[name]) if name in rates else encode
        work.encode = forced  # type: ignore[attr-defined]
        compress(data(name), folder / f"{name}.zip", **arguments)
        np.savez_compressed(folder / f"{name}.npz", **stored(folder / f"{name}.zip"))  # type: ignore[arg-type]
        print(f"{folder / name}: {(folder / f'{name}.zip').stat().st_size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
