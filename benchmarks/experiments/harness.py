"""What every experiment shares: runs that are done once, methods at one budget, and where results go.

A run is a function of a folder and of parameters. Its result is kept in ``CACHE/<function>/<key>/result.json``, where
the key is a hash of all it depends on, so that an interrupted experiment goes on, and experiments share their models.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import importlib
import inspect
import json
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import zarr

import vcinr
from benchmarks.data import tiles
from benchmarks.experiments import CLIMATE, KINDS, NAMES, TILED
from benchmarks.measure.machine import record
from benchmarks.report.page import Section, html_report
from vcinr.config import Active, Experiment, Params, preset
from vcinr.datasets.ingest import ingest
from vcinr.errors import ConfigError
from vcinr.inr.model import Model, load_model, save_model
from vcinr.meta.extract import extract_modulations
from vcinr.meta.outer import meta_train
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.quantise.joint import fine_tune
from vcinr.quantise.train import assess, fit
from vcinr.signals import Signals, read_signals, write_signals

RAW, CACHE = Path("data/raw"), Path("data/experiments")
RESULTS = Path("benchmarks/results/experiments")
Profile = Literal["cpu", "gpu", "quick"]
TITLES = {
    "image": "photographs, 32x32", "sound": "speech, 512", "video": "video, 4x16x16", "voxels": "shapes, 16x16x16",
}  # fmt: skip
"""What tables call tiles of each kind."""
TESTED = {
    "image": "tiles of 7 other photographs", "sound": "pieces of other speech, of 6 speakers, 2 of them new",
    "video": "boxes of another video", "voxels": "cubes of shapes by other authors",
}  # fmt: skip
"""Where the tiles of each kind come from that test."""
Row = dict[str, Any]

_ROOMS = ("codec", "coding", "datasets", "formats", "inr", "kinds", "meta", "quantise", "signals")
"""The code of vcinr that results depend on."""


# --- Runs --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """``work(folder, params, watch, **options)`` returns a JSON-able result; progress calls it `label`."""

    label: str
    work: Callable[..., Row]
    params: Params
    options: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def key(self) -> str:
        """Hash of everything that the result depends on, the code included."""
        without = {
            "threads",
            "device",
            "codec",
            "evaluate",
            "experiments",
            *(("quantiser",) if self.work is train else ()),
        }
        known = self.params.model_dump(mode="json", exclude=without)
        text = json.dumps([inspect.getsource(self.work), known, dict(self.options), _code()], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def folder(self, cache: Path) -> Path:
        """Return the folder of the run's result and files."""
        return cache / self.work.__name__ / self.key

    def kept(self, cache: Path) -> Row | None:
        """Return the result and its seconds, or None where the run is not finished."""
        path = self.folder(cache) / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def perform(self, cache: Path, watch: Watch) -> Row:
        """Run the work, keep its result and return it."""
        folder = self.folder(cache)
        folder.mkdir(parents=True, exist_ok=True)
        began = time.perf_counter()
        named = lambda progress: watch(replace(progress, stage=f"{self.label}: {progress.stage}"))  # noqa: E731
        result = self.work(folder, self.params, named, **self.options)
        whole = {"label": self.label, "seconds": round(time.perf_counter() - began, 1), "result": result}
        temporary = folder / "result.part"
        temporary.write_text(json.dumps(whole, indent=1) + "\n")
        temporary.replace(folder / "result.json")
        return whole


@cache
def _code() -> str:
    """Return a hash of the code that makes results; comments and layout do not count."""
    digest = hashlib.sha256()
    root = Path(vcinr.__file__).parent
    for room in _ROOMS:
        for path in sorted((root / room).rglob("*.py")) or [root / f"{room}.py"]:
            digest.update(ast.dump(ast.parse(path.read_text())).encode())
    digest.update(inspect.getsource(tiles).encode())
    return digest.hexdigest()


@dataclass
class Lab:
    """What an experiment works with: the sizes of its profile, and runs that are done once."""

    name: str
    profile: Profile
    params: Params
    size: Experiment
    cache: Path = CACHE
    watch: Watch = silent
    kind: str = CLIMATE
    seconds: float = 0.0

    @property
    def sources(self) -> dict[str, str]:
        """The data sets of the kind, by keys of `params.sources` or of `tiles.SOURCES`, as tables call them."""
        return {"hadgem": "HadGEM", "era5": "ERA5"} if self.kind == CLIMATE else {self.kind: TITLES[self.kind]}

    def run(self, label: str, work: Callable[..., Row], source: str, method: Params, **options: Any) -> Run:
        """Return a run of a method on one of the data sets of the kind."""
        active = Active(name=source, archive=f"{source}-test")
        data = self.params.sources[source] if self.kind == CLIMATE else tiles.source_of(source)
        update = {"source": active, "sources": {source: data}, "threads": 1}
        update["device"] = self.params.device
        return Run(label, work, method.model_copy(update=update), options)

    def method(self, name: str, latent: int | None = None, steps: int | None = None) -> Params:
        """Return network, training and quantiser of a method.

        VC-INR's are the profile's. Another method that is fitted by gradient keeps its preset, but gets VC-INR's width,
        depth and length of training. The closed-form basis keeps its preset for `basis_steps` steps.

        Parameters
        ----------
        name : str
            The method.
        latent, steps : int, optional
            Size of the latent and number of steps; by default the profile's.
        """
        size, seed = self.size, self.params.seed
        latent = latent or size.inr.latent
        meta = size.meta.model_copy(update={"steps": steps or size.meta.steps})
        if name == "vcinr":
            inr = size.inr.model_copy(update={"latent": latent})
            return Params(seed=seed, inr=inr, meta=meta, quantiser=size.quantiser)
        own = preset(name, "gpu" if self.profile == "gpu" else "cpu")
        if name == "basis":
            shape: Row = {"latent": latent}
            effort: Row = {"steps": size.basis_steps, "validate_every": size.meta.validate_every}
        else:
            shape = {"width": size.inr.width, "depth": size.inr.depth, "latent": latent}
            if own.inr.gating:
                shape["gating"] = max(1, latent // 8)
            effort = {k: getattr(meta, k) for k in ("steps", "batch", "points", "warmup", "validate_every")}
        return Params(
            seed=seed, inr=own.inr.model_copy(update=shape), meta=own.meta.model_copy(update=effort),
            quantiser=own.quantiser.model_copy(update={"steps": size.quantiser.steps}),
        )  # fmt: skip

    def results(self, runs: Sequence[Run]) -> list[Row]:
        """Return the result of every run; unfinished ones are run now, as many at a time as there are threads."""
        kept = {run.key: run.kept(self.cache) for run in runs}
        waiting = list({run.key: run for run in reversed(runs) if kept[run.key] is None}.values())[::-1]
        done, clock = len(kept) - len(waiting), Clock(len(kept), len(kept) - len(waiting))
        for run in waiting:
            _ingest(self.cache, run.params)
        workers = min(self.params.threads, len(waiting))
        for run, whole in _performed(waiting, self.cache, workers, self.watch):
            kept[run.key], done = whole, done + 1
            self.watch(Progress(self.name, done, len(kept), {"seconds": whole["seconds"]}, clock.left(done)))
        every = {key: whole for key, whole in kept.items() if whole is not None}
        self.seconds += sum(whole["seconds"] for whole in every.values())
        return [every[run.key]["result"] for run in runs]


def _performed(runs: Sequence[Run], cache: Path, workers: int, watch: Watch) -> Any:
    """Yield each run and its result as they end; several at a time run in processes of their own."""
    if workers <= 1:
        for run in runs:
            yield run, run.perform(cache, watch)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with context.Manager() as manager, ProcessPoolExecutor(workers, context) as pool:
        heard = manager.Queue()
        pending: dict[Future[Row], Run] = {pool.submit(run.perform, cache, heard.put): run for run in runs}
        try:
            while pending:
                ended, _ = wait(pending, timeout=0.5, return_when=FIRST_COMPLETED)
                while not heard.empty():
                    watch(heard.get())
                for future in ended:
                    yield pending.pop(future), future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


# --- Work --------------------------------------------------------------------------------------------------


def train(folder: Path, params: Params, watch: Watch, pooled: bool = False) -> Row:
    """Train a network in `folder` and compute the latent of every signal; go on where it was interrupted.

    Parameters
    ----------
    folder, params, watch
        Those of every run.
    pooled : bool
        Whether all variables are one, so that the model is not told which variable a signal is.

    Returns
    -------
    dict
        Summary of the training, PSNR of the test split, and the history.
    """
    path = _signals(folder.parents[1], params)
    if pooled:
        write_signals(folder / "signals.zarr", _pooled(read_signals(path)))
        path = folder / "signals.zarr"
    summary = meta_train(
        path, params.inr, params.meta, seed=params.seed, threads=params.threads, out=folder / "model",
        checkpoint=folder / "checkpoint", device=params.device, watch=watch,
    )  # fmt: skip
    extracted = extract_modulations(
        path,
        folder / "model/model.vcinr",
        folder / "modulations.zarr",
        threads=params.threads,
        device=params.device,
        watch=watch,
    )
    summary |= {"test_psnr_db": extracted["test"]["psnr_db"], "test_psnr_phi_0_db": extracted["test"]["psnr_phi_0_db"]}
    with open(folder / "model/history.csv", newline="") as file:
        summary["history"] = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    return summary


def trained(cache: Path, run: Run) -> tuple[Model, Signals, dict[str, np.ndarray]]:
    """Return model, signals and latents by split of a finished `train` run."""
    folder = run.folder(cache)
    own = folder / "signals.zarr"
    root: Any = zarr.open_group(folder / "modulations.zarr", mode="r")
    phi = {name: np.asarray(group["phi"][...], np.float32) for name, group in root.groups()}
    signals = read_signals(own if own.exists() else _signals(cache, run.params))
    return load_model(folder / "model/model.vcinr"), signals, phi


def _signals(cache: Path, params: Params) -> Path:
    text = params.active.model_dump_json() + _code()
    return cache / "signals" / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.zarr"


def _ingest(cache: Path, params: Params) -> None:
    path = _signals(cache, params)
    if not path.exists():
        ingest(params.active, RAW, path)


def _pooled(data: Signals) -> Signals:
    """Return the signals as of one variable, each normalised by its own variable's range; attrs keep its name."""
    splits = {
        name: replace(s, features=data.normalised(name)[0].reshape(s.features.shape), variable=("any",) * len(s))
        for name, s in data.splits.items()
    }
    pooled = {name: list(s.variable) for name, s in data.splits.items()}
    return replace(data, splits=splits, normalisation={"any": (0.0, 1.0)}, attrs={**data.attrs, "pooled": pooled})


def quantise(folder: Path, params: Params, watch: Watch) -> Row:
    """Train the quantiser of a trained network; `points` are the test split's rates, in real bytes, and PSNR."""
    model, data, phi = trained(folder.parents[1], network_of(params))
    if params.quantiser.joint_steps:
        model, phi = fine_tune(model, data, phi, params.quantiser, seed=params.seed, device=params.device, watch=watch)
    complete, _ = fit(model, data, phi, params.quantiser, seed=params.seed, device=params.device, watch=watch)
    save_model(complete, folder / "model.vcinr")
    return {"points": assess(complete, data, "test", phi["test"]), "model_bytes": len(complete.data)}


def network_of(params: Params, label: str = "network") -> Run:
    """Return the `train` run that further runs with these parameters start from."""
    return Run(label, train, params)


def model_of(params: Params, label: str = "quantiser") -> Run:
    """Return the `quantise` run that further runs with these parameters start from."""
    return Run(label, quantise, params)


# --- Results -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The result of an experiment.

    Parameters
    ----------
    title, how, caption : str
        Heading, a paragraph on what was run, and the caption of the figure.
    summary : list of dict
        A table of the few figures that matter.
    rows : list of dict
        Every figure.
    draw : callable
        Draws the figure to a path.
    """

    title: str
    how: str
    caption: str
    summary: list[Row]
    rows: list[Row]
    draw: Callable[[Path], Path]


def conduct(
    name: str, params: Params, profile: Profile = "cpu", watch: Watch = silent, out: Path | None = None,
    cache: Path = CACHE, kind: str = CLIMATE,
) -> Row:  # fmt: skip
    """Run an experiment and write ``out/NAME.json``, ``out/NAME.png`` and the page of all experiments.

    Parameters
    ----------
    name : str
        The experiment.
    params : Params
        Parameters of the pipeline, with the sizes of experiments.
    profile : {"cpu", "gpu", "quick"}
        Which sizes; files have it in their name where it is not "cpu".
    watch : callable
        Told of the progress.
    out, cache : Path
        Folders of results and of finished runs. Results are by default in `RESULTS`, and those of "quick", which show
        nothing, in the folder ``quick`` of the cache.
    kind : str
        What it runs on, one of `KINDS`. Of other kinds than the maps of climate, the files' names begin with it, and
        the profile "cpu" has sizes of its own, `experiments.tiles`.

    Returns
    -------
    dict
        ``seconds`` and ``summary``.

    Raises
    ------
    ConfigError
        If there is no such experiment, also for the kind, or the parameters have no sizes of experiments.
    """
    if name not in NAMES:
        raise ConfigError(f"no experiment is called {name!r}; known: {', '.join(NAMES)}")
    if params.experiments is None:
        raise ConfigError("params: no sizes of experiments; give experiments: {cpu: ..., gpu: ...}")
    if kind not in KINDS or (kind != CLIMATE and name not in TILED):
        raise ConfigError(
            f"experiment {name} does not run on {kind!r}; {', '.join(TILED)} run on {', '.join(KINDS)}, the others on "
            f"{CLIMATE}"
        )
    out = out or (cache / "quick" if profile == "quick" else RESULTS)
    out.mkdir(parents=True, exist_ok=True)
    sizes = profile if kind == CLIMATE or profile != "cpu" else "tiles"
    size = getattr(params.experiments, sizes)
    if size is None:
        raise ConfigError(f"params: no such sizes of experiments; give experiments: {{{sizes}: ...}}")
    lab = Lab(name, profile, params, size, cache, watch, kind)
    outcome: Outcome = importlib.import_module(f"benchmarks.experiments.{name}").experiment(lab)
    stem = name if kind == CLIMATE else f"{kind}-{name}"
    path = out / (stem if profile == "cpu" else f"{stem}-{profile}")
    outcome.draw(path.with_suffix(".png"))
    whole = {
        "experiment": name, "profile": profile, **({} if kind == CLIMATE else {"kind": kind}),
        "title": outcome.title if kind == CLIMATE else f"{outcome.title}: {TITLES[kind]}",
        "how": outcome.how, "caption": outcome.caption,
        "seconds": round(lab.seconds, 1), "parameters": lab.size.model_dump(mode="json"),
        **record(summary=outcome.summary, rows=outcome.rows),
    }  # fmt: skip
    text = json.dumps(whole, separators=(",", ":")).replace("},{", "},\n{")
    path.with_suffix(".json").write_text(text + "\n")
    page(out)
    return {"seconds": whole["seconds"], "summary": outcome.summary}


def page(out: Path = RESULTS) -> Path:
    """Write one HTML page of every experiment that has been run, and return its path."""
    written = {path: json.loads(path.read_text()) for path in out.glob("*.json")}
    order = sorted(written, key=lambda path: (NAMES.index(written[path]["experiment"]), path.name))
    sections = [
        Section(
            w["title"],
            (
                w["how"],
                f"Profile {w['profile']}, {w['date']}: {w['seconds'] / 60:.0f} minutes of single-threaded runs on "
                f"{w['machine']['cpu']}.",
            ),
            table=w["summary"],
            figures=((path.with_suffix(".png"), w["caption"]),),
        )
        for path, w in ((path, written[path]) for path in order)
    ]
    return html_report(out / "index.html", "vcinr: experiments", sections)
