"""Flows call the stages with the right things, follow DVC's graph, and end an error as one line."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import yaml
import zarr
from conftest import ROOT, group, wait_until
from dvc.repo import Repo
from prefect.artifacts import Artifact
from prefect.settings import PREFECT_API_URL, PREFECT_LOGGING_TO_API_ENABLED, temporary_settings

import vcinr
from flows.archive_new import archive_new
from flows.common import places_of, transient
from flows.compress_archive import compress_archive
from flows.compress_archive import stage as compress_archive_stage
from flows.evaluate import evaluate
from flows.extract_modulations import extract_modulations
from flows.ingest import ingest
from flows.meta_train import meta_train
from flows.pipeline import pipeline, stages
from flows.train_quantiser import train_quantiser
from vcinr.bulk.source import targets
from vcinr.config import load
from vcinr.errors import DownloadError, EngineLost, InputError, VcinrError
from vcinr.meta.ranks import Ranks
from vcinr.progress import Progress

SOURCE = {"train": [{"path": "e.nc"}], "archive": [{"path": "a.nc"}], "variables": ["t"]}
PARAMS = {
    "source": {"name": "s", "archive": "s-x"}, "seed": 7, "threads": 1, "sources": {"s": SOURCE},
    "codec": {"abs_error": 0.5, "chunk": 9},
}  # fmt: skip


@pytest.fixture
def server(prefect_server):
    """Flows that a test runs use the session's server."""
    # Logs stay here: sending them takes a second a flow, and outlives the server at the end.
    api = {PREFECT_API_URL: prefect_server["PREFECT_API_URL"], PREFECT_LOGGING_TO_API_ENABLED: False}
    with temporary_settings(api):
        yield


@pytest.fixture
def project(server, tmp_path, monkeypatch):
    """A folder with a params.yaml, made the current one."""
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_text(yaml.safe_dump(PARAMS))
    return tmp_path


class Fake:
    """Stands for a stage function: keeps what it was called with, reports progress, returns a summary."""

    def __call__(self, *args, watch=None, **named):
        watch = watch or args[-1]
        for step in range(3):
            watch(Progress("fake", step + 1, 3, {"loss": 0.5}, 1.0))
        self.args, self.named = [a for a in args if a is not watch], named
        return {"psnr_db": 40.0, "splits": {"test": 3}}


def run_stage(monkeypatch, function, flow):
    fake = Fake()
    monkeypatch.setattr(function, fake)
    flow()
    return fake


# --- Stages ------------------------------------------------------------------------------------------------


def test_ingest(project, monkeypatch):
    fake = run_stage(monkeypatch, "vcinr.datasets.ingest.ingest", ingest)
    source, raw, out = fake.args
    assert (source.variables, raw, out) == (("t",), Path("data/raw"), Path("data/signals/s.zarr"))
    assert json.loads(Path("metrics/ingest.json").read_text())["psnr_db"] == 40.0
    table, progress = Artifact.get("ingest-summary"), Artifact.get("ingest-progress")
    assert {"figure": "splits.test", "value": 3} in json.loads(table.data)
    assert progress.data == 100.0


def test_meta_train(project, monkeypatch):
    fake = run_stage(monkeypatch, "vcinr.stages.meta_train", meta_train)
    places = places_of(load("params.yaml"))
    assert fake.args[0] == places.signals
    assert fake.args[1].width == 128
    assert fake.named == {
        "seed": 7, "threads": 1, "device": "cpu", "seconds": None, "out": Path("training/s"),
        "checkpoint": Path("training/s.checkpoint"), "memory": 4.0, "ranks": Ranks(),
    }  # fmt: skip


def test_extract_modulations(project, monkeypatch):
    fake = run_stage(monkeypatch, "vcinr.stages.extract_modulations", extract_modulations)
    assert fake.args == [
        Path("data/signals/s.zarr"), Path("training/s/model.vcinr"), Path("data/modulations/s.zarr")
    ]  # fmt: skip
    assert fake.named == {"threads": 1, "device": "cpu", "memory": 4.0}


def test_train_quantiser(project, monkeypatch):
    fake = run_stage(monkeypatch, "vcinr.stages.train_quantiser", train_quantiser)
    assert fake.args[2] == Path("data/modulations/s.zarr")
    assert fake.named["out"] == Path("models/s.vcinr") and fake.named["device"] == "cpu"
    assert fake.named["history"] == Path("models/s-history.csv")


def test_compress_archive(project, monkeypatch):
    data = xr.Dataset({"t": ("x", [1.0])})
    monkeypatch.setattr("vcinr.datasets.ingest.open_archive", lambda *_: [("a", data)])
    monkeypatch.setattr("vcinr.models.load_model", lambda path: f"model {path}")
    fake = run_stage(monkeypatch, "vcinr.archive.write.compress", compress_archive_stage)
    assert fake.args[1] == Path("archives/s-x.zarr")
    assert fake.named["model"] == "model models/s.vcinr"
    assert (fake.named["abs_error"], fake.named["chunk"], fake.named["variables"]) == (0.5, 9, ("t",))

    monkeypatch.setattr("vcinr.datasets.ingest.open_archive", lambda *_: [("a", data), ("b", data)])
    fake = run_stage(monkeypatch, "vcinr.archive.write.compress", compress_archive_stage)
    assert fake.args[1] == Path("archives/s-x.zarr/b.zarr")


def test_evaluate(project, monkeypatch):
    Path("report").mkdir()
    Path("report/rate.png").write_bytes(b"png")
    Path("report/summary.txt").write_text("all well")
    fake = run_stage(monkeypatch, "benchmarks.evaluate.evaluate", evaluate)
    assert fake.args[:4] == [
        Path("data/signals/s.zarr"), Path("models/s.vcinr"), Path("archives/s-x.zarr"), Path("training/s/history.csv")
    ]  # fmt: skip
    assert fake.args[5:] == [Path("metrics/evaluate.json"), Path("plots"), Path("report")]
    assert "all well" in Artifact.get("evaluate-report").data
    assert Artifact.get("evaluate-rate").data.startswith("data:image/png;base64,")


def test_images_go_through_all_stages(project, monkeypatch):
    """A source of a kind of files needs no other key: its method, experts, has every stage too."""
    from PIL import Image

    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for name in ("a", "b", "c"):
        rise = np.add.outer(np.arange(72) * rng.uniform(1, 3), np.arange(80) * rng.uniform(0, 2))
        image = np.clip(rise[..., None] + rng.normal(0, 4, (72, 80, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(image).save(f"photos/{name}.png")
    source = {
        "kind": "image",
        "tile": 16,
        "train": [{"path": "photos/[ab].png"}],
        "archive": [{"path": "photos/c.png"}],
    }
    codec = {"psnr": 36.0}
    params = PARAMS | {"sources": {"s": source}, "codec": codec, "patches": {"size": [4, 4], "experts": 2, "rounds": 2}}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    monkeypatch.setattr("benchmarks.evaluate_files.processes", lambda: ThreadPoolExecutor(1))
    places = places_of(load("params.yaml"))
    assert ingest()["signals"] == {"train": 36, "valid": 4, "test": 20}
    assert meta_train()["experts"] in (1, 2)  # one that no patch chooses is dropped
    shares = extract_modulations()["test"]["experts"]
    assert abs(sum(shares) - 1) < 0.01
    codes = zarr.open_group(places.modulations, mode="r")["train/code"]
    assert codes.shape == (36, 1, 4, 4, 48) and codes.dtype == np.int32
    rows = train_quantiser()["valid"]
    assert rows[0]["psnr_db"] < rows[-1]["psnr_db"] and rows[0]["bits_per_value"] < rows[-1]["bits_per_value"]
    assert vcinr.load_model(places.model).data == vcinr.load_model(places.trained).data
    assert "image" in compress_archive_stage()
    assert abs(vcinr.open(places.archive)["image"].astype(float) - Image.open("photos/c.png")).mean() < 8
    at = evaluate()["at"]
    assert {"vcinr", "KLT floor", "JPEG 2000"} <= {row["codec"] for row in at}
    assert Path("report/index.html").stat().st_size > 10_000 and Path("plots/rate_distortion.csv").exists()


def test_dvc_declares_what_the_stages_read_and_write():
    with Repo(str(ROOT)) as repo:
        found = {stage.addressing: stage for stage in repo.index.stages if stage.path == str(ROOT / "dvc.yaml")}
    p = places_of(load(ROOT / "params.yaml"))
    outs = {name: {out.def_path for out in stage.outs} - {f"metrics/{name}.json"} for name, stage in found.items()}
    assert outs == {
        "ingest": {str(p.signals)}, "meta_train": {str(p.training)}, "extract_modulations": {str(p.modulations)},
        "train_quantiser": {str(p.model), str(p.quantiser_history)}, "compress_archive": {str(p.archive)},
        "evaluate": {str(p.plots), str(p.report)},
    }  # fmt: skip
    for name, stage in found.items():
        assert stage.cmd == f"python -m flows.{name}"
        assert all(dep.exists for dep in stage.deps if dep.def_path.startswith(("vcinr", "benchmarks")))


# --- Errors ------------------------------------------------------------------------------------------------


def stage_command(name, folder, env):
    env = {**env, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", f"flows.{name}"]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_a_mistyped_parameter_is_one_line(tmp_path):
    (tmp_path / "params.yaml").write_text("sead: 1\n")
    done = stage_command("ingest", tmp_path, os.environ)
    assert done.returncode == 1
    assert done.stderr == "ingest: params.yaml: sead: unknown parameter; did you mean 'seed'?\n"
    (tmp_path / "params.yaml").write_text("sources: {shapes: {kind: voxels, limt: 4, train: [], archive: []}}\n")
    done = stage_command("meta_train", tmp_path, os.environ)
    assert done.returncode == 1
    assert done.stderr == "meta-train: params.yaml: sources.shapes.limt: unknown parameter; did you mean 'limit'?\n"


def test_an_error_of_a_stage_is_one_line(project, prefect_server):
    done = stage_command("ingest", project, prefect_server)
    assert done.returncode == 1
    assert done.stderr == "ingest: e.nc: no such file or store; check the path\n"


def test_what_is_tried_again():
    def raised(error, cause=None):
        with contextlib.suppress(Exception):
            try:
                raise cause
            except type(cause):
                raise error from None
        return error

    assert transient(DownloadError("package x: the download failed (no route)"))
    assert transient(EngineLost("the Dask scheduler is gone"))
    assert transient(raised(InputError("https://x: cannot be read"), ConnectionResetError()))
    assert not transient(raised(InputError("x.nc: no such file"), FileNotFoundError()))
    assert not transient(raised(InputError("x.nc: no number"), ValueError()))


# --- Users' files ------------------------------------------------------------------------------------------


def test_which_archive_each_input_becomes(tmp_path):
    for name in ("a.nc", "b.nc", "sub/a.nc"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    t = str(tmp_path)
    assert targets(f"{t}/a.nc", "o.zarr") == [((f"{t}/a.nc",), "o.zarr")]
    assert targets(f"{t}/a.nc", "o/") == [((f"{t}/a.nc",), "o/a.zarr")]
    both = [((f"{t}/a.nc",), "o/a.zarr"), ((f"{t}/b.nc",), "o/b.zarr")]
    assert targets(f"{t}/*.nc", "o") == both == targets(t, "o")
    assert targets([f"{t}/b.nc", f"{t}/sub/*"], "o") == [((f"{t}/b.nc",), "o/b.zarr"), ((f"{t}/sub/a.nc",), "o/a.zarr")]
    assert targets(f"{t}/*.nc", "o.zarr", concat=True) == [((f"{t}/a.nc", f"{t}/b.nc"), "o.zarr")]
    assert targets("https://x.org/d/f.nc?v=1", "o") == [(("https://x.org/d/f.nc?v=1",), "o/f.zarr")]
    for inputs, message in [(f"{t}/*.grib", "no file matches"), (f"{t}/**/a.nc", "both become"), ([], "no file named")]:
        with pytest.raises(InputError, match=message):
            targets(inputs, "o")


def test_an_archive_is_made_once_for_each_request(project):
    values = np.random.default_rng(0).normal(size=(3, 8, 12)).astype("f4")
    xr.Dataset({"t": (("time", "lat", "lon"), values)}).to_netcdf("in.nc")

    def run(**options):
        [facts] = compress_archive("in.nc", "out.zarr", engine="serial", **options).values()
        return facts.get("skipped", False)

    assert not run(abs_error=0.1)
    shown = Artifact.get("compress-archive-progress")
    assert shown.data == 100.0
    assert all(word in shown.description for word in ("MB ", "MB/s ", "ratio ", "0:00 left", str(os.getpid())))
    assert run(abs_error=0.1)
    assert not run(abs_error=0.2)
    assert float(abs(xr.open_zarr("out.zarr")["t"] - values).max()) > 0.1
    os.utime("in.nc", (time.time() + 5, time.time() + 5))
    assert not run(abs_error=0.2)
    assert not run(abs_error=0.3, effort="fast")
    assert float(abs(xr.open_zarr("out.zarr")["t"] - values).max()) <= 0.3
    assert not run()  # lossless
    os.utime("in.nc", (0, 0))
    assert run()
    next(f for f in Path("out.zarr/t/c").rglob("*") if f.is_file()).write_bytes(b"damaged")
    assert not run()


def test_nothing_but_an_archive_is_replaced(project):
    xr.Dataset({"t": (("y", "x"), np.zeros((4, 5), "f4"))}).to_zarr("in.zarr")
    Path("notes.zarr").mkdir()
    Path("notes.zarr/thesis.txt").touch()
    with pytest.raises(InputError, match="exists already"):
        compress_archive("in.zarr", "notes.zarr", engine="serial")
    assert Path("notes.zarr/thesis.txt").exists()
    with pytest.raises(InputError, match="its own input"):
        compress_archive("in.zarr", "in.zarr")


def test_one_bad_input_does_not_stop_the_others(project):
    Path("in").mkdir()
    xr.Dataset({"t": (("y", "x"), np.zeros((4, 5), "f4"))}).to_netcdf("in/good.nc")
    Path("in/bad.nc").write_bytes(b"not netCDF")
    with pytest.raises(InputError, match=r"1 of 2 inputs failed: in/bad.nc"):
        compress_archive("in/*.nc", "out", engine="serial")
    assert archives("out") == ["good.zarr"]


def test_what_is_new_is_archived(project):
    """Inputs that came since, that changed, and those that may still be written to."""
    Path("in").mkdir()
    assert archive_new("in", "out", {"engine": "serial"}, settle_seconds=0) == {}

    def come(name, age):
        xr.Dataset({"t": (("y", "x"), np.zeros((4, 5), "f4"))}).to_netcdf(f"in/{name}.nc")
        os.utime(f"in/{name}.nc", (time.time() - age, time.time() - age))

    come("a", 100)
    come("b", 100)
    come("young", 0)
    Path("in/bad.nc").write_bytes(b"not netCDF")
    os.utime("in/bad.nc", (0, 0))
    with pytest.raises(InputError, match=r"1 of 3 inputs failed: in/bad.nc"):
        archive_new("in/*.nc", "out", {"engine": "serial", "abs_error": 0.5})
    assert archives("out") == ["a.zarr", "b.zarr"]
    Path("in/bad.nc").unlink()
    os.utime("in/a.nc", (time.time() + 9, time.time() + 9))
    os.utime("in/young.nc", (time.time() - 90, time.time() - 90))
    made = archive_new("in", "out", {"engine": "serial"}, settle_seconds=-60, every_seconds=0.1, rounds=2)
    assert sorted(made) == ["out/a.zarr", "out/young.zarr"]
    assert archives("out") == ["a.zarr", "b.zarr", "young.zarr"]
    assert vcinr.info("out/b.zarr")["variables"]["t"]["bound"]["value"] == 0.5


def archives(folder):
    return sorted(name for name in os.listdir(folder) if not name.startswith("."))


# --- The pipeline ------------------------------------------------------------------------------------------


def dvc_project(folder, commands):
    """A folder with DVC stages: name -> (command, stages it depends on)."""
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    stage = {
        name: {"cmd": cmd, "deps": [f"{n}.out" for n in after], "outs": [f"{name}.out"]}
        for name, (cmd, after) in commands.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stage}))


def test_the_pipeline_runs_dvc_s_stages_in_dvc_s_order(project, prefect_server):
    note = "echo $PREFECT_API_URL > {0}.out; echo {0} >> order"
    dvc_project(project, {
        "last": (note.format("last"), ["left", "right"]),
        "left": (note.format("left"), ["first"]),
        "right": (note.format("right"), ["first"]),
        "first": (note.format("first"), []),
    })  # fmt: skip
    assert stages()[1] == {"first": [], "left": ["first"], "right": ["first"], "last": ["left", "right"]}
    pipeline()
    order = Path("order").read_text().split()
    assert (order[0], order[-1], len(order)) == ("first", "last", 4)
    assert Path("last.out").read_text().strip() == prefect_server["PREFECT_API_URL"]
    pipeline()
    assert len(Path("order").read_text().split()) == 4  # nothing changed, nothing run


def test_the_repository_s_stages():
    names = ["ingest", "meta_train", "extract_modulations", "train_quantiser", "compress_archive", "evaluate"]
    with contextlib.chdir(ROOT):
        assert list(stages()[1]) == names


def test_every_benchmark_of_a_kind_has_a_stage():
    from benchmarks.kinds import BENCHMARKS

    stage = yaml.safe_load((ROOT / "kinds/dvc.yaml").read_text())["stages"]["kind"]
    assert stage["foreach"] == list(BENCHMARKS) and stage["do"]["cmd"] == "python -m flows.kind ${item}"
    assert all((ROOT / dep).exists() for dep in stage["do"]["deps"])


def test_stages_of_other_folders_are_no_part_of_the_pipeline(project):
    dvc_project(project, {"a": ("touch a.out", []), "b": ("touch b.out", ["a"])})
    Path("other").mkdir()
    aside = {"c": {"wdir": "..", "cmd": "touch c.out", "deps": ["b.out"], "outs": ["c.out"]}}
    Path("other/dvc.yaml").write_text(yaml.safe_dump({"stages": aside}))
    assert stages()[1] == {"a": [], "b": ["a"]}


def test_a_failing_stage_ends_the_pipeline(project):
    dvc_project(project, {"a": ("echo no good; exit 3", []), "b": ("touch b.out", ["a"])})
    with pytest.raises(VcinrError, match="stage a failed"):
        pipeline()
    assert not Path("b.out").exists()


def test_no_process_outlives_a_stopped_pipeline(project, prefect_server):
    dvc_project(project, {"a": ("sleep 300 & echo $! > pid; wait", [])})
    log, pid = project / "log", project / "pid"
    env = {**prefect_server, "PYTHONPATH": str(ROOT)}
    with group([sys.executable, "-m", "flows.pipeline"], log, cwd=project, env=env) as process:
        wait_until(lambda: pid.exists() and pid.read_text().strip() != "", 60, process, log)
        process.send_signal(signal.SIGTERM)  # to the flow alone, as Prefect does when a run is cancelled
        assert process.wait(30) != 0
    with pytest.raises(ProcessLookupError):  # a killed process is listed until its new parent has seen it
        for _ in range(50):
            os.kill(int(pid.read_text()), 0)
            time.sleep(0.1)
