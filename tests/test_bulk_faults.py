"""Faults of bulk runs, through the real driver: nothing is lost or half visible, and little is done twice.

Whatever is killed, the same call made again finishes; only batches that were under way are done again.
"""

import os
import shutil
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import xarray as xr
from conftest import ROOT, group

import vcinr
from tests.faults import bulk
from tests.faults.bulk import REQUEST, compress, make_input, marks, run_marked
from tests.faults.cluster import dask_cluster
from vcinr.bulk import drive
from vcinr.bulk.batch import run_batch
from vcinr.bulk.engines import engine_of
from vcinr.bulk.plan import plan
from vcinr.errors import EngineLost, InputError

BATCHES = 20
SERIAL, PROCESSES = engine_of("serial"), engine_of("processes", workers=2)


@pytest.fixture(autouse=True)
def marked(tmp_path, monkeypatch):
    """Marks lie in the test's folder; the driver is as it was afterwards."""
    monkeypatch.setenv(bulk.MARKS, str(tmp_path))
    monkeypatch.setenv(bulk.PAUSE, "0.1")
    yield
    drive.run_batch = run_batch


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("input") / "in.nc"
    make_input(path)
    return path


@pytest.fixture(scope="module")
def expected(source, tmp_path_factory) -> dict[str, bytes]:
    """The archive of the source, made in one go by `vcinr.compress`."""
    target = tmp_path_factory.mktemp("expected") / "out.zarr"
    vcinr.compress(vcinr.open_groups(source), target, abs_error=0.05, chunk=2, effort="fast")
    return files(target)


def files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def times(tmp_path, what: str) -> Counter[str]:
    """How often each batch was begun or ended, or each chunk encoded."""
    return Counter(words[1] for words in marks(tmp_path) if words[0] == what)


def check(tmp_path, expected, twice: int) -> None:
    """The archive is whole, nothing lies beside it, and no more than so many batches were done twice."""
    assert files(tmp_path / "out.zarr") == expected
    assert [p.name for p in tmp_path.iterdir() if "out" in p.name] == ["out.zarr"]
    encoded = times(tmp_path, "encode")
    assert len(encoded) == BATCHES and max(encoded.values()) <= 2
    assert sum(encoded.values()) - BATCHES <= twice


def when(condition, action) -> threading.Thread:
    """Do something in the background as soon as a condition holds."""

    def wait():
        while not condition():
            time.sleep(0.01)
        action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def workers(tmp_path) -> list[int]:
    """The processes that have begun a batch."""
    return sorted({int(words[2]) for words in marks(tmp_path) if words[0] == "begin"})


def kill(pids) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


# --- Workers -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("victims", [1, 2])
def test_killed_workers(victims, source, expected, tmp_path):
    """One of two workers, and every worker."""
    thread = when(
        lambda: len(workers(tmp_path)) == 2 and len(times(tmp_path, "end")) >= 4,
        lambda: kill(workers(tmp_path)[:victims]),
    )
    outcome = compress(source, tmp_path / "out.zarr", PROCESSES)
    thread.join()
    assert not outcome.failed
    check(tmp_path, expected, victims)


def test_poison_among_a_hundred_inputs(tmp_path):
    """One kills whoever opens it, one cannot be read, one meets a bug; the other 97 become archives, each made once."""
    (tmp_path / "in").mkdir()
    for i in range(97):
        make_input(tmp_path / "in" / f"{i:02d}.nc", steps=2, seed=i)
    make_input(tmp_path / "in" / "poison.nc", steps=2)
    make_input(tmp_path / "in" / "bug.nc", steps=2)
    (tmp_path / "in" / "garbage.nc").write_bytes(b"CDF\x01 and no more")
    os.environ[bulk.PAUSE] = "0"
    outcome = compress(tmp_path / "in" / "*.nc", tmp_path / "out", PROCESSES, batch_seconds=5.0)
    assert sorted(Path(name).name for name in outcome.failed) == ["bug.nc", "garbage.nc", "poison.nc"]
    with pytest.raises(InputError, match=r"3 of 100 inputs failed: .*exit status 3") as raised:
        outcome.check(100)
    assert all(f"/{name}.nc: " in str(raised.value) for name in ("bug", "garbage", "poison"))
    made = {p.name for p in (tmp_path / "out").iterdir() if not p.name.startswith(".")}
    assert made == {f"{i:02d}.zarr" for i in range(97)} == {Path(target).name for target in outcome.archives}
    assert sum(words[0] == "poison" for words in marks(tmp_path)) <= 4
    assert sum(times(tmp_path, "encode").values()) == 97
    for i in (0, 96):
        there = xr.open_dataset(tmp_path / "in" / f"{i:02d}.nc")["v"]
        assert float(abs(xr.open_zarr(tmp_path / "out" / f"{i:02d}.zarr")["v"] - there).max()) <= 0.05
    for name in ("poison", "bug"):
        os.rename(tmp_path / "in" / f"{name}.nc", tmp_path / "in" / f"sound-{name}.nc")
    make_input(tmp_path / "in" / "garbage.nc", steps=2)
    assert not compress(tmp_path / "in" / "*.nc", tmp_path / "out", SERIAL, batch_seconds=5.0).failed
    assert sum(times(tmp_path, "encode").values()) == 100, "what was there was not made again"
    assert not (tmp_path / "out" / ".vcinr-bulk").exists()


# --- The driver --------------------------------------------------------------------------------------------


def test_killed_driver(source, expected, tmp_path):
    """Killed in the midst of it; its workers end with it, and readers see nothing before the end."""
    command = [sys.executable, "-m", "tests.faults.bulk", str(source), str(tmp_path / "out.zarr"), "2"]
    with group(command, tmp_path / "log", cwd=ROOT, env=environment()) as driver:
        while len(times(tmp_path, "end")) < 6:
            assert driver.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.01)
        driver.kill()
        driver.wait()
        end = time.monotonic() + 10
        while any(map(alive, workers(tmp_path))) and time.monotonic() < end:
            time.sleep(0.01)
        assert not any(map(alive, workers(tmp_path)))
    assert not (tmp_path / "out.zarr").exists()
    assert not compress(source, tmp_path / "out.zarr", SERIAL).failed
    check(tmp_path, expected, 2)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_two_drivers_at_once_share_the_work(source, expected, tmp_path):
    """Two commands on one target: no chunk is made twice, and both end well."""
    command = [sys.executable, "-m", "tests.faults.bulk", str(source), str(tmp_path / "out.zarr"), "1"]
    with (
        group(command, tmp_path / "log1", cwd=ROOT, env=environment()) as one,
        group(command, tmp_path / "log2", cwd=ROOT, env=environment()) as two,
    ):
        assert one.wait(120) == 0 == two.wait(120), (tmp_path / "log1").read_text() + (tmp_path / "log2").read_text()
    check(tmp_path, expected, 0)


def test_the_commit_may_be_a_step_of_its_own(source, expected, tmp_path):
    """What has failed before it is still said to have failed after it, and is kept for another try."""
    (tmp_path / "in").mkdir()
    shutil.copy2(source, tmp_path / "in" / "out.nc")
    make_input(tmp_path / "in" / "bug.nc")
    drive.run_batch = run_marked
    made = plan(str(tmp_path / "in"), str(tmp_path), REQUEST, batch_seconds=0.49)  # whole inputs cost more
    driven = drive.drive(made, SERIAL, commits=False)
    assert not driven.archives and driven.left is not None and not (tmp_path / "out.zarr").exists()
    last = drive.commit(driven.left)
    assert list(last.archives) == [str(tmp_path / "out.zarr")] and last.left is None
    assert [Path(name).name for name in last.failed] == ["bug.nc"] and (tmp_path / ".vcinr-bulk").exists()
    assert files(tmp_path / "out.zarr") == expected


# --- A cluster ---------------------------------------------------------------------------------------------


def test_killed_worker_and_killed_scheduler_of_a_cluster(source, expected, tmp_path):
    """A worker is killed, then the scheduler; the run ends with an error, and goes on with another cluster."""
    (tmp_path / "one").mkdir()
    with dask_cluster(tmp_path / "one") as cluster:
        one = when(lambda: len(workers(tmp_path)) == 2, lambda: kill(workers(tmp_path)[:1]))
        two = when(lambda: len(times(tmp_path, "end")) >= 10, cluster.scheduler.kill)
        with pytest.raises(EngineLost, match="goes on from"):
            compress(source, tmp_path / "out.zarr", dask(cluster))
        one.join()
        two.join()
        assert not (tmp_path / "out.zarr").exists()
    done = set(times(tmp_path, "end"))
    assert 10 <= len(done) < BATCHES
    (tmp_path / "two").mkdir()
    with dask_cluster(tmp_path / "two") as cluster:
        assert not compress(source, tmp_path / "out.zarr", dask(cluster)).failed
    check(tmp_path, expected, 3)


def dask(cluster):
    return replace(engine_of("dask", address=cluster.address), wait_s=20.0)


# --- An S3 server ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_an_s3_server_that_fails_for_twenty_seconds(source, expected, tmp_path, s3):
    """Chunks and receipts go to an S3 server that is away for a while; driver and workers wait for it."""
    import s3fs

    def away():
        s3.stop()
        time.sleep(20)
        s3.start()

    thread = when(lambda: len(times(tmp_path, "end")) >= 6, away)
    outcome = compress(source, "s3://bucket/out.zarr", PROCESSES)
    thread.join()
    assert not outcome.failed
    fs = s3fs.S3FileSystem()
    found = {name.removeprefix("bucket/out.zarr/"): fs.cat_file(name) for name in fs.find("bucket/")}
    assert found == expected
    assert max(times(tmp_path, "encode").values()) == 1
