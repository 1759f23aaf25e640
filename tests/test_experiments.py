"""The experiments: their scores by hand, runs that are done once, and small whole ones."""

import contextlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, small
from dvc.repo import Repo

from benchmarks.data import tiles
from benchmarks.experiments import NAMES, harness
from benchmarks.experiments.harness import Lab, Run, conduct
from benchmarks.experiments.masks import gate_logits
from benchmarks.experiments.scores import (
    clusters,
    equal_psnr,
    front,
    mutual_information,
    principal_components,
    relative_rate,
    silhouette,
)
from benchmarks.experiments.sizes import eof_psnr
from flows.pipeline import stages
from vcinr.config import Experiment, Experiments, Params, Source
from vcinr.errors import ConfigError
from vcinr.progress import Progress
from vcinr.signals import Signals, SignalSet, coordinates
from vcinr.signals.store import normalisation_of

RNG = np.random.default_rng(0)

# --- Scores ------------------------------------------------------------------------------------------------


def test_silhouette_of_four_points_by_hand():
    points, labels = np.array([[0.0], [1.0], [10.0], [11.0]]), np.array(["a", "a", "b", "b"])
    # 0 and 11: 1 from their own, 10.5 from the others; 1 and 10: 1 and 9.5.
    assert silhouette(points, labels) == pytest.approx((9.5 / 10.5 + 8.5 / 9.5) / 2)
    # 0 and 11: 10 from their own, 6 from the others; 1 and 10: 10 and 5.
    assert silhouette(points, np.array(["a", "b", "a", "b"])) == pytest.approx((-4 / 10 - 5 / 10) / 2)
    assert silhouette(points[:3], labels[:3]) == pytest.approx((9 / 10 + 8 / 9 + 0) / 3)  # a label of one counts 0


def test_mutual_information_by_hand():
    a, b = np.array([0, 0, 1, 1]), np.array(["x", "x", "x", "y"])
    entropy = [math.log(2), -(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), 1.5 * math.log(2)]
    assert mutual_information(a, b) == pytest.approx(2 * (entropy[0] + entropy[1] - entropy[2]) / sum(entropy[:2]))
    assert mutual_information(a, 1 - a) == pytest.approx(1.0)
    assert mutual_information(a, np.array([0, 1, 0, 1])) == pytest.approx(0.0)


def test_principal_components_keep_distances():
    points = RNG.standard_normal((7, 40))
    found = principal_components(points)
    assert np.allclose(np.linalg.norm(found[2] - found[5]), np.linalg.norm(points[2] - points[5]))
    assert (np.diff(found.var(0)) <= 1e-9).all()


def test_clusters_find_what_is_apart():
    labels = np.repeat([0, 1, 2], 10)
    points = labels[:, None] * 20 + RNG.standard_normal((30, 3))
    assert mutual_information(clusters(points, 3, 0), labels) == pytest.approx(1.0)


def test_bits_at_equal_psnr():
    reference = [(2.0**k, 6.0 * k) for k in range(1, 6)]
    half = [(bits / 2, quality) for bits, quality in reference]
    assert equal_psnr(half, reference, 15.0) == pytest.approx(0.5)
    assert relative_rate(half, reference) == pytest.approx(0.5)
    assert relative_rate([*half, (100.0, 7.0)], reference) == pytest.approx(0.5)  # a beaten point does not count
    # A straight line in log bits from equal at 6 dB to a quarter at 30 dB: half on the average.
    assert relative_rate([(2.0, 6.0), (8.0, 30.0)], reference) == pytest.approx(0.5)
    assert relative_rate([(1.0, 40.0), (2.0, 50.0)], reference) is None
    assert equal_psnr(half, reference, 31.0) is None
    assert front([(0, 4), (1, 5), (2, 4), (3, 6), (3, 7)]) == [(1, 5), (3, 7)]


def test_eofs_of_the_training_maps(tiny_maps):
    found = [eof_psnr(tiny_maps, k) for k in (0, 1, 3)]
    assert found[0] < found[1] < found[2] and found[2] > 60  # waves of one phase and size: rank 3
    y, mean = (tiny_maps.normalised(s)[0] for s in ("test", "train"))
    by_hand = -10 * np.log10(np.square(y - mean.mean(0)).mean((1, 2))).mean()
    assert found[0] == pytest.approx(by_hand, abs=1e-3)


def test_gate_logits_are_the_products(tiny_model):
    phi = RNG.standard_normal((3, tiny_model.spec.latent)).astype("f4")
    logits = gate_logits(tiny_model, phi)
    assert logits.shape == (tiny_model.spec.depth - 2, 3, tiny_model.spec.width**2)
    m, rank = tiny_model.spec.width, tiny_model.spec.rank
    assert np.linalg.matrix_rank(logits[0, 0].reshape(m, m), tol=1e-2) <= rank


# --- Runs --------------------------------------------------------------------------------------------------


def double(folder, params, watch, number, fail=False):
    """A run that leaves a mark each time it is done."""
    with open(folder / "done", "a") as file:
        file.write("x")
    watch(Progress("doubling", 1, 1))
    if fail and not (folder.parents[1] / "healed").exists():
        raise RuntimeError("interrupted")
    return {"number": 2 * number}


def waves(_, variables=("t",)) -> Signals:
    """Small maps of each variable, splits train, valid and test."""
    rng = np.random.default_rng(0)
    axes = (np.linspace(10, 60, 9), np.linspace(200, 300, 11))
    y, x = np.meshgrid(*(np.linspace(0, 2, len(a)) for a in axes), indexing="ij")
    splits = {}
    for name, count in (("train", 20), ("valid", 4), ("test", 12)):
        phase, size = rng.uniform(0, 2, (2, count * len(variables), 1, 1))
        kind = np.repeat(np.arange(len(variables)), count)
        maps = np.sin((1 + 2 * kind[:, None, None]) * x + phase) + 0.5 * size * np.cos(2 * y)
        splits[name] = SignalSet(maps.astype("f4")[..., None], None, tuple(variables[k] for k in kind))
    return Signals(splits, ("lat", "lon"), axes, coordinates.box(axes), normalisation_of(splits["train"]))


def two_waves(source) -> Signals:
    return waves(source, ("a", "b"))


def source(name: str) -> Source:
    return Source(kind="python", function=f"{__name__}:{name}", train=(), archive=())


def parameters(**changes) -> Params:
    p = small(meta={"steps": 80})
    size = Experiment(
        inr=p.inr, meta=p.meta, quantiser=p.quantiser, basis_steps=40, sweep_steps=40, seeds=2, methods=("vcinr",),
        sizes=(2, 4), bits=(4, 8), bounds=(0.05, 0.01),
    ).model_copy(update=changes)  # fmt: skip
    sources = {"hadgem": source("waves"), "era5": source("two_waves")}
    return Params(threads=1, sources=sources, experiments=Experiments(cpu=size, gpu=size))


@pytest.fixture
def lab(tmp_path):
    params = parameters()
    assert params.experiments is not None
    heard: list[Progress] = []
    return Lab("some", "cpu", params, params.experiments.cpu, tmp_path, heard.append), heard


def doubled(lab, number, **options):
    return lab.run(f"number {number}", double, "hadgem", lab.method("vcinr"), number=number, **options)


def marks(lab, run):
    return len((run.folder(lab.cache) / "done").read_text())


def test_finished_runs_are_not_done_again(lab):
    lab, heard = lab
    runs = [doubled(lab, 1), doubled(lab, 2, fail=True), doubled(lab, 3)]
    with pytest.raises(RuntimeError, match="interrupted"):
        lab.results(runs)
    (lab.cache / "healed").touch()
    heard.clear()
    assert [r["number"] for r in lab.results([*runs, runs[0]])] == [2, 4, 6, 2]
    assert [marks(lab, run) for run in runs] == [1, 2, 1]
    assert [str(p).split()[:2] for p in heard if p.stage == "some"] == [["some", "2/3"], ["some", "3/3"]]
    assert heard[0].stage == "number 2: doubling"
    (runs[2].folder(lab.cache) / "result.json").unlink()
    lab.results(runs)
    assert [marks(lab, run) for run in runs] == [1, 2, 2]


def test_a_result_is_that_of_all_it_depends_on(lab):
    lab, _ = lab
    run, method = doubled(lab, 1), lab.method("vcinr")
    others = [
        doubled(lab, 2),
        lab.run("", double, "era5", method, number=1),
        lab.run("", harness.quantise, "hadgem", method, number=1),
        lab.run("", double, "hadgem", method.model_copy(update={"seed": 5}), number=1),
        lab.run("", double, "hadgem", method.model_copy(update={"inr": method.inr.model_copy(update={"width": 25})}),
                number=1),
    ]  # fmt: skip
    assert len({r.key for r in [run, *others]}) == 6
    assert Run("another label", double, run.params.model_copy(update={"threads": 7}), {"number": 1}).key == run.key
    coarser = run.params.model_copy(update={"quantiser": run.params.quantiser.model_copy(update={"steps": 1})})
    assert Run("", double, coarser, {"number": 1}).key != run.key
    assert harness.network_of(coarser).key == harness.network_of(run.params).key  # training knows of no quantiser


def test_runs_go_side_by_side(lab):
    lab, heard = lab
    lab.params = lab.params.model_copy(update={"threads": 2})
    assert [r["number"] for r in lab.results([doubled(lab, k) for k in range(3)])] == [0, 2, 4]
    assert {p.stage for p in heard} == {"some", *(f"number {k}: doubling" for k in range(3))}


# --- Experiments -------------------------------------------------------------------------------------------


def few_steps():
    p = small(meta={"steps": 40}, quantiser={"steps": 20})
    return {"meta": p.meta, "quantiser": p.quantiser, "basis_steps": 20}


def run_small(name, folder, **changes):
    summary = conduct(name, parameters(**changes), "cpu", out=folder / "out", cache=folder / "cache")
    found = json.loads((folder / "out" / f"{name}.json").read_text())
    assert found["summary"] == summary["summary"] and found["profile"] == "cpu" and found["seconds"] > 0
    assert found["machine"]["cores"] and found["date"] and found["parameters"]["seeds"] == 2
    assert (folder / "out" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert found["title"] in (folder / "out/index.html").read_text()
    return found


def test_learning_curves_of_small_maps(tmp_path, monkeypatch):
    found = run_small("learning", tmp_path)
    assert {(r["mapping"], r["seed"], r["step"]) for r in found["rows"]} == {
        (m, s, k) for m in ("residual network", "linear") for s in (0, 1) for k in (40, 80)
    }
    network, linear = found["summary"]
    assert network["parameters"] > linear["parameters"]
    assert network["test least"] <= network["test dB"] <= network["test most"]
    last = [r["valid_psnr_db"] for r in found["rows"] if r["mapping"] == "linear" and r["step"] == 80]
    assert len(set(last)) == 2  # seeds differ

    def forbidden(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(harness, "meta_train", forbidden)
    assert conduct("learning", parameters(), "gpu", out=tmp_path / "out", cache=tmp_path / "cache")["summary"]
    assert (tmp_path / "out/learning-gpu.json").exists() and (tmp_path / "out/learning.json").exists()


def test_masks_of_small_maps(tmp_path):
    found = run_small("masks", tmp_path)
    at = {(r["data"], r["label"], r["space"]): r for r in found["rows"]}
    assert {key[:2] for key in at} == {("HadGEM", "decade"), ("HadGEM", "mean temperature"), ("ERA5", "variable")}
    signals, gates = (at["ERA5", "variable", space] for space in ("signals", "gates"))
    assert signals["labels"] == 2 and -1 <= gates["silhouette"] <= 1 and 0 <= gates["NMI"] <= 1
    # The two variables are waves of other lengths: beyond chance in the signals themselves.
    assert signals["silhouette"] > signals["permuted silhouette"] and signals["NMI"] > signals["permuted NMI"]


def test_sizes_of_small_maps(tmp_path):
    methods = ("vcinr", "coinpp", "functa", "mscn", "basis")
    found = run_small("sizes", tmp_path, methods=methods)
    assert [(r["data"], r["latents"]) for r in found["summary"]] == [
        ("HadGEM", 2), ("HadGEM", 4), ("ERA5", 2), ("ERA5", 4)
    ]  # fmt: skip
    assert all(r[f"{name} dB"] > 8 for r in found["summary"] for name in (*methods, "EOF"))


def test_methods_get_one_effort_and_keep_their_own(lab):
    lab, _ = lab
    gates, shifts, basis = (lab.method(name, 6, 30) for name in ("vcinr", "coinpp", "basis"))
    assert (gates.inr.conditioning, shifts.inr.conditioning, basis.inr.conditioning) == ("gates", "shifts", "linear")
    same = [
        (p.inr.width, p.inr.depth, p.inr.latent, p.meta.steps, p.meta.batch, p.meta.points) for p in (gates, shifts)
    ]
    assert same[0] == same[1] == (24, 4, 6, 30, 4, 64)
    assert (basis.inr.width, basis.inr.latent, basis.meta.steps) == (128, 6, 40)


def test_rate_distortion_of_small_maps(tmp_path):
    found = run_small("rate", tmp_path, **few_steps())
    rows = found["rows"]
    assert {(r["method"], r["quantiser"]) for r in rows} == {
        *((m, q) for m in ("gates", "basis") for q in ("uniform", "factorised", "hyperprior")),
        ("codec", "SZ3"), ("codec", "SPERR"),
    }  # fmt: skip
    fine = {r["setting"]: r for r in rows if (r["data"], r["method"], r["quantiser"]) == ("HadGEM", "basis", "uniform")}
    assert fine[4]["bits_per_value"] < fine[8]["bits_per_value"] and fine[4]["psnr_db"] < fine[8]["psnr_db"]
    assert len(found["summary"]) == 8


def test_ablation_of_small_maps(tmp_path):
    found = {row["variant"]: row for row in run_small("ablation", tmp_path, **few_steps())["summary"]}
    whole = found["all parts"]
    assert whole["times all parts at 0.05"] == 1.0 and whole["bits at 0.05"] < whole["bits at 0.01"]
    kept = [row for name, row in found.items() if not name.startswith("residual off")]
    assert all(row["error / bound at 0.01"] <= 1 for row in kept)
    assert found["prior off (residual alone)"]["unquantised dB"] is None
    assert found["closed form off (gates)"]["unquantised dB"] != whole["unquantised dB"]


# --- Tiles of other kinds


def tiny_tiles(kind):
    """A stand-in for a function of `benchmarks.data.tiles`, of 8 points along each axis."""
    dims = {"image": ("y", "x"), "sound": ("time",), "video": ("frame", "y", "x"), "voxels": ("z", "y", "x")}[kind]
    rng, features = np.random.default_rng(0), 3 if kind in ("image", "video") else 1
    places = np.stack(np.meshgrid(*(np.arange(8.0) for _ in dims), indexing="ij"), -1)
    turns, phases = rng.uniform(-3, 3, (2, 60, len(dims)))
    waves = np.sin(np.einsum("np,...p->n...", turns, places) + phases[:, :1].reshape(-1, *(1,) * len(dims)))
    values = np.rint(100 * waves[..., None] * rng.uniform(0.2, 1, features)).astype("i2")
    feature_dim = "channel" if features == 3 else None
    return tiles._signals(kind, dims, values[:40], values[40:], feature_dim)


for one in tiles.SOURCES:
    globals()[f"tiny_{one}"] = lambda _, kind=one: tiny_tiles(kind)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setattr(
        tiles, "source_of", lambda kind: Source(kind="python", function=f"{__name__}:tiny_{kind}", train=(), archive=())
    )


def run_tiles(name, kind, folder, **changes):
    params = parameters(**{**few_steps(), "seeds": 1, **changes})
    assert params.experiments is not None
    sized = params.experiments.model_copy(update={"tiles": params.experiments.cpu})
    params = params.model_copy(update={"experiments": sized})
    conduct(name, params, "cpu", out=folder / "out", cache=folder / "cache", kind=kind)
    found = json.loads((folder / "out" / f"{kind}-{name}.json").read_text())
    assert found["kind"] == kind and harness.TITLES[kind] in found["title"]
    assert (folder / "out" / f"{kind}-{name}.png").read_bytes().startswith(b"\x89PNG")
    return found


@pytest.mark.parametrize("kind", list(tiles.SOURCES))
def test_gates_beside_the_statistics_of_tiles(kind, tmp_path, tiny):
    found = run_tiles("masks", kind, tmp_path)
    labels = set(tiles.labels_of(kind, tiny_tiles(kind).splits["test"].features))
    assert {r["label"] for r in found["rows"]} == labels
    assert all(-1 <= r["silhouette"] <= 1 and 0 <= r["NMI"] <= 1 for r in found["rows"])


def test_methods_on_tiles_of_images(tmp_path, tiny):
    methods = ("vcinr", "coinpp", "functa", "mscn", "basis")
    found = run_tiles("rate", "image", tmp_path, methods=methods)
    three = ("uniform", "factorised", "hyperprior")
    assert {(r["method"], r["quantiser"]) for r in found["summary"]} == {
        *((m, q) for m in ("gates", "basis") for q in three), *((m, "uniform") for m in methods[1:4])
    }  # fmt: skip
    assert [r["bits / COIN++"] for r in found["summary"] if r["method"] == "coinpp"] == [pytest.approx(1)]
    sizes = run_tiles("sizes", "image", tmp_path, methods=("vcinr", "basis"))
    assert {r["method"] for r in sizes["rows"]} == {"vcinr", "basis", "EOF"}


def test_learning_curves_of_sound(tmp_path, tiny):
    found = run_tiles("learning", "sound", tmp_path)
    assert {r["mapping"] for r in found["summary"]} == {"residual network", "linear"} and "speech" in found["how"]


def test_directions_of_images():
    y, x = np.mgrid[:32, :32]
    waves = np.stack([np.sin(0.5 * v) for v in (x, x + y, y, y - x)])[..., None]
    found = tiles.labels_of("image", waves)["direction"]
    assert [text.split()[1] for text in found] == ["upright", "rising", "level", "falling"]


def test_tiles_have_no_coordinates_but_their_indices():
    signals = tiny_tiles("image")
    assert signals.tiled and {n: len(s) for n, s in signals.splits.items()} == {"train": 36, "valid": 4, "test": 20}
    assert all(np.array_equal(axis, np.arange(8)) for axis in signals.axes)


def test_what_cannot_be_run_is_said(tmp_path):
    with pytest.raises(ConfigError, match=r"ablation does not run on 'image'; learning, .* run on climate, image"):
        conduct("ablation", parameters(), out=tmp_path, cache=tmp_path, kind="image")
    with pytest.raises(ConfigError, match=r"no such sizes of experiments; give experiments: \{tiles"):
        conduct("rate", parameters(), out=tmp_path, cache=tmp_path, kind="image")
    with pytest.raises(ConfigError, match=r"no such sizes of experiments; give experiments: \{quick"):
        conduct("rate", parameters(), "quick", cache=tmp_path, kind="image")
    with pytest.raises(ConfigError, match="known: learning, sizes"):
        conduct("lerning", parameters(), out=tmp_path, cache=tmp_path)
    with pytest.raises(ConfigError, match="no sizes of experiments"):
        conduct("learning", Params(), out=tmp_path, cache=tmp_path)


# --- DVC ---------------------------------------------------------------------------------------------------


def test_dvc_runs_them_when_asked_and_only_then():
    with Repo(str(ROOT)) as repo:
        found = {s.addressing: s for s in repo.index.stages if Path(s.path) == ROOT / "benchmarks/dvc.yaml"}
        with contextlib.chdir(ROOT):
            assert not set(found) & {s.addressing for s in repo.stage.collect("dvc.yaml")}
            assert not set(found) & set(stages()[1])
    assert list(found) == [f"benchmarks/dvc.yaml:{name}" for name in NAMES]
    for name, stage in zip(NAMES, found.values(), strict=True):
        assert stage.cmd == f"python -m flows.experiment {name}" and Path(stage.wdir) == ROOT
        outs = {Path(out.fs_path).relative_to(ROOT).as_posix() for out in stage.outs}
        assert outs == {f"{harness.RESULTS}/{name}.{kind}" for kind in ("json", "png")}
        assert all(dep.exists for dep in stage.deps if dep.def_path)
