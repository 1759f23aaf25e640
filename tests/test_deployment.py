"""The very words of the manual: serve the deployments, start a run by name, read the archive with xarray."""

import asyncio
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import xarray as xr
from conftest import ROOT, group, wait_until

from flows.plugin import full_name
from tests.faults.bulk import make_input
from tests.faults.cluster import dask_cluster


@pytest.fixture(scope="module")
def served(prefect_server, tmp_path_factory):
    """`python -m flows.deploy` against the session's server; it watches the folder `new` beside its log."""
    log = tmp_path_factory.mktemp("deploy") / "log"
    watched = ["--watch", str(log.with_name("new")), "--output", str(log.with_name("archives")), "--every", "3600"]
    options = ["--options", '{"abs_error": 0.1, "engine": "serial"}']
    command = [sys.executable, "-m", "flows.deploy", *watched, *options]
    with group(command, log, cwd=ROOT, env={**prefect_server, "PYTHONUNBUFFERED": "1"}) as process:
        wait_until(lambda: "polling for scheduled runs" in log.read_text(), 60, process, log)
        yield log


def prefect(env, *words) -> subprocess.Popen:
    command = [str(Path(sys.executable).parent / "prefect"), *words]
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_a_run_started_by_name_writes_an_archive(served, prefect_server, tmp_path):
    rng = np.random.default_rng(0)
    t2m = xr.DataArray(rng.normal(280, 5, (4, 9, 16)).astype("f4"), dims=("time", "lat", "lon"))
    for name in ("a", "b"):
        t2m.to_dataset(name="t2m").to_netcdf(tmp_path / f"{name}.nc")
    new = served.with_name("new") / "c.nc"
    new.parent.mkdir()
    shutil.copy(tmp_path / "a.nc", new)
    os.utime(new, (0, 0))  # it has lain there for long
    runs = {
        # The bare name needs flows/plugin.py; Prefect's own form must work beside it.
        "compress-archive": ["-p", f"inputs={tmp_path}/a.nc", "-p", f"output={tmp_path}/one.zarr"],
        "compress-archive/compress-archive": ["-p", f"inputs={tmp_path}/*.nc", "-p", f"output={tmp_path}/out"],
    }
    started = [
        prefect(prefect_server, "deployment", "run", name, *words, "-p", "abs_error=0.1", "--watch")
        for name, words in runs.items()
    ] + [prefect(prefect_server, "deployment", "run", "archive-new", "--watch")]
    for process in started:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output + served.read_text()
    for path in ("one.zarr", "out/a.zarr", "out/b.zarr", served.with_name("archives") / "c.zarr"):
        back = xr.open_zarr(tmp_path / path)["t2m"]
        assert float(abs(back - t2m).max()) <= 0.1


def test_a_run_on_a_dask_cluster(served, prefect_server, tmp_path):
    """Two workers, which import no Prefect, do the batches of a large input and of small ones; a bad one is named."""
    (tmp_path / "in").mkdir()
    for i in range(3):
        make_input(tmp_path / "in" / f"{i}.nc", steps=4, seed=i)
    (tmp_path / "in" / "bad.nc").write_bytes(b"not netCDF")
    words = ["-p", f"inputs={tmp_path}/in/*.nc", "-p", f"output={tmp_path}/out", "-p", "abs_error=0.1"]
    words += ["-p", "effort=fast", "-p", "chunk=2", "-p", "batch_seconds=0.001"]
    with dask_cluster(tmp_path) as cluster:
        run = prefect(
            prefect_server, "deployment", "run", "compress-archive", *words, "-p", f"dask={cluster.address}", "--watch"
        )
        output, _ = run.communicate(timeout=120)
    assert run.returncode == 1, output + served.read_text()
    assert "1 of 4 inputs failed" in output + served.read_text()
    for i in range(3):
        back, there = xr.open_zarr(tmp_path / f"out/{i}.zarr")["v"], xr.open_dataset(tmp_path / f"in/{i}.nc")["v"]
        assert float(abs(back - there).max()) <= 0.1
    logs = "".join(log.read_text() for log in tmp_path.glob("worker-*.log"))
    assert "prefect" not in logs.lower() and "Registered to" in logs


def test_an_unknown_name_is_one_clear_line(served, prefect_server):
    process = prefect(prefect_server, "deployment", "run", "compress-archives")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output.split("\n")[0].startswith("No deployment is called 'compress-archives'")
    assert "Traceback" not in output


def test_a_name_of_two_deployments_is_refused(capsys):
    class Client:
        async def read_deployments(self, deployment_filter):
            return [SimpleNamespace(flow_id=0), SimpleNamespace(flow_id=1)]

        async def read_flow(self, flow_id):
            return SimpleNamespace(name=("x", "y")[flow_id])

    with pytest.raises(SystemExit) as ended:
        asyncio.run(full_name(Client(), "d"))
    assert ended.value.code == 1
    assert "x/d, y/d" in capsys.readouterr().out
