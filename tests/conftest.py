"""Shared inputs: small synthetic maps, and the real HadGEM fields that the default pipeline compresses."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch are imported: spinning threads stall two cores

import contextlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from vcinr import config, plugins
from vcinr.inr.model import Model, load_model
from vcinr.meta.extract import extract_modulations
from vcinr.meta.outer import meta_train
from vcinr.progress import Progress
from vcinr.quantise.train import fit, train_quantiser
from vcinr.signals import Signals, SignalSet, coordinates, read_signals
from vcinr.signals.store import normalisation_of

ROOT = Path(__file__).resolve().parent.parent


def small(**changes) -> config.Params:
    """Parameters for tests: a narrow network, few steps."""
    base = {
        "method": "vcinr",
        "inr": {
            "width": 24,
            "depth": 4,
            "latent": 8,
            "rank": 2,
            "mapping_width": 16,
            "mapping_blocks": 1,
        },
        "meta": {
            "outer_rate": 3e-3,
            "steps": 120,
            "batch": 4,
            "points": 64,
            "validate_every": 40,
            "warmup": 10,
            "encode_steps": 4,
        },
        "quantiser": {"lambdas": [30.0, 3000.0], "steps": 120, "batch": 8, "points": 64, "width": 16, "blocks": 1},
    }
    for name, values in changes.items():
        if isinstance(values, dict):
            base[name].update(values)
        else:
            base[name] = values
    return config.parse(base, "test")


class Stop(Exception):
    """An interruption."""


def stop_at(step: int) -> Callable[[Progress], None]:
    """A watcher that interrupts meta-training between its validation at `step` and the checkpoint of it."""

    def watch(progress: Progress) -> None:
        if progress.step == step and "train_loss" in progress.values:
            raise Stop

    return watch


@pytest.fixture
def plugins_anew() -> Iterator[None]:
    """Entry points are looked for anew, in the test and after it."""
    plugins._others.cache_clear()
    yield
    plugins._others.cache_clear()


@pytest.fixture(scope="session")
def tiny_maps() -> Signals:
    """Travelling waves on an 11 x 13 grid: 40 training, 5 validation and 12 test maps of the variable t."""
    rng = np.random.default_rng(0)
    axes = (np.linspace(10, 60, 11), np.linspace(200, 300, 13))
    y, x = np.meshgrid(*(np.linspace(0, 2, len(a)) for a in axes), indexing="ij")
    phase, size = rng.uniform(0, 2, (2, 57))
    maps = 270 + 10 * np.sin(x[None] + phase[:, None, None]) + 8 * size[:, None, None] * np.cos(2 * y)[None]
    maps = maps.astype(np.float32)[..., None]
    cut = {"train": slice(0, 40), "valid": slice(40, 45), "test": slice(45, 57)}
    splits = {k: SignalSet(maps[s], None, ("t",) * len(maps[s])) for k, s in cut.items()}
    return Signals(splits, ("lat", "lon"), axes, coordinates.box(axes), normalisation_of(splits["train"]))


@pytest.fixture(scope="session")
def tiny_model(tiny_maps, tmp_path_factory) -> Model:
    """A small model of `tiny_maps` with a quantiser of two rates."""
    folder = tmp_path_factory.mktemp("tiny")
    p = small()
    meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=folder / "m", checkpoint=folder / "c")
    model = load_model(folder / "m" / "model.vcinr")
    from vcinr.meta.extract import find_latents

    phi = {
        name: find_latents(model, tiny_maps.inputs, (y := tiny_maps.normalised(name)[0]), None, np.zeros(len(y), int))
        for name in tiny_maps.splits
    }
    return fit(model, tiny_maps, phi, p.quantiser, seed=0)[0]


@pytest.fixture(scope="session")
def tiny_latents(tiny_maps, tiny_model) -> dict[str, np.ndarray]:
    """Latents of `tiny_maps` by split."""
    from vcinr.meta.extract import find_latents

    return {
        name: find_latents(tiny_model, tiny_maps.inputs, (y := tiny_maps.normalised(name)[0]), None,
                           np.zeros(len(y), int))
        for name in tiny_maps.splits
    }  # fmt: skip


@pytest.fixture(scope="session")
def hadgem(tmp_path_factory) -> dict[str, Path]:
    """Real data: the paths of HadGEM's two scenarios and of the signals made of them."""
    from vcinr.datasets.fetch import fetch
    from vcinr.datasets.ingest import ingest

    source = config.load(ROOT / "params.yaml").sources["hadgem"]
    folder = fetch(source.package, ROOT / "data" / "raw")
    signals = tmp_path_factory.mktemp("hadgem") / "signals.zarr"
    ingest(source, ROOT / "data" / "raw", signals)
    sample = folder / "iris_sample_data" / "sample_data"
    return {"e1": sample / "E1_north_america.nc", "a1b": sample / "A1B_north_america.nc", "signals": signals}


@pytest.fixture(scope="session")
def hadgem_run(hadgem) -> dict[str, Path]:
    """The pipeline's training stages on HadGEM with few steps: model, modulations and signals on disk."""
    folder = hadgem["signals"].parent
    p = small(
        inr={"width": 48, "latent": 32, "mapping_width": 32},
        meta={"steps": 500, "points": 256, "validate_every": 250},
        quantiser={"steps": 400, "lambdas": [100.0, 3000.0]},
    )
    meta_train(hadgem["signals"], p.inr, p.meta, seed=0, threads=1, out=folder / "m", checkpoint=folder / "c")
    trained, modulations, model = folder / "m" / "model.vcinr", folder / "mod.zarr", folder / "hadgem.vcinr"
    extract_modulations(hadgem["signals"], trained, modulations, threads=1)
    train_quantiser(
        hadgem["signals"], trained, modulations, p.quantiser, seed=0, threads=1, out=model, history=folder / "q.csv"
    )
    return {**hadgem, "trained": trained, "modulations": modulations, "model": model}


@pytest.fixture(scope="session")
def hadgem_signals(hadgem) -> Signals:
    return read_signals(hadgem["signals"])


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory) -> Iterator[dict[str, str]]:
    """A Prefect server of the session's own; the environment that makes a process use it."""
    port = free_port()
    home = str(tmp_path_factory.mktemp("prefect"))
    env = {
        **os.environ, "PREFECT_HOME": home, "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_UI_ENABLED": "0", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    with group(command, Path(home, "server.log"), cwd=ROOT, env=env) as server:
        wait_until(lambda: healthy(env["PREFECT_API_URL"]), 120, server, Path(home, "server.log"))
        yield env


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def healthy(api: str) -> bool:
    try:
        with urllib.request.urlopen(f"{api}/health", timeout=2) as answer:
            return answer.status == 200
    except OSError:
        return False


def wait_until(done: Callable[[], bool], seconds: float, process: subprocess.Popen, log: Path) -> None:
    """Wait for `done`; fails with the log when `process` ends first or time runs out."""
    end = time.monotonic() + seconds
    while not done():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)


@contextlib.contextmanager
def group(command: list[str], log: Path, **options) -> Iterator[subprocess.Popen]:
    """A process that leads a group of its own, which is gone when the block is left."""
    with open(log, "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True, **options)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
