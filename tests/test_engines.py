"""Engines run every batch, whatever dies: only the guilty fail, and what is lost is said to be lost."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import CancelledError, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint
from itertools import count, islice
from multiprocessing import get_context

import pytest
from conftest import ROOT

from tests.faults.batches import Fake, counts, drive_for_a_minute, end_at_once, fakes, pids, work
from tests.faults.cluster import dask_cluster
from vcinr import plugins
from vcinr.bulk.engines import Pool, engine_of, run
from vcinr.bulk.engines.dask import _meaning
from vcinr.errors import ConfigError, EngineLost, WorkerLost

LOCAL = ["processes", "threads", "serial"]


def results(engine, batches, **options):
    """Results by the names of batches."""
    found = list(run(engine, work, batches, **options))
    assert len(found) == len({batch.name for batch, _ in found})
    return {batch.name: result for batch, result in found}


def failed(found):
    return {name: result for name, result in found.items() if isinstance(result, Exception)}


@contextmanager
def broken_together(engine, tell):
    """An engine of another package: a death breaks all that runs."""
    with ProcessPoolExecutor(2, get_context("spawn")) as executor:
        yield Pool(executor, lambda: 4)


@pytest.fixture
def together(plugins_anew, monkeypatch):
    """The engine `broken_together` by the name that its package gives it."""
    point = EntryPoint("together", f"{__name__}:broken_together", "vcinr.engines")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point] if group == "vcinr.engines" else [])
    return engine_of("together", address="anything")


# --- What every engine does --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LOCAL)
def test_each_batch_runs_once_and_exceptions_pass_through(name, tmp_path):
    acts = {"b3": "refuse", "b5": "peculiar"} | ({"b7": "unpicklable", "b8": "threads"} if name == "processes" else {})
    found = results(engine_of(name, workers=None if name == "serial" else 2), fakes(tmp_path, 12, **acts))
    assert counts(tmp_path) == {f"b{i}": 1 for i in range(12)}
    assert type(found["b3"]) is ConnectionResetError and "one and two" in str(found["b5"])
    if name == "processes":
        assert "in work" in found["b3"].__notes__[0]
        assert "pickle" in str(found["b7"]) and found["b8"] == "1"
        assert os.getpid() not in pids(tmp_path) and len(pids(tmp_path)) <= 2
    assert {n for n, r in found.items() if r == n} == {f"b{i}" for i in range(12)} - acts.keys()


@pytest.mark.parametrize("name", LOCAL)
def test_an_endless_plan_is_drawn_a_few_batches_ahead(name, tmp_path):
    drawn = count()

    def endless():
        for i in drawn:
            yield Fake(tmp_path, f"b{i}")

    engine = engine_of(name, workers=2)
    for number, _ in enumerate(islice(run(engine, work, endless()), 30)):
        ahead = int(repr(drawn)[6:-1]) - number
        assert ahead <= 4
    assert number == 29


@pytest.mark.parametrize("name", LOCAL)
def test_logs_and_progress_come_back(name, tmp_path, caplog):
    seen = []
    with caplog.at_level(logging.INFO, "vcinr"):
        results(engine_of(name, workers=1), fakes(tmp_path, 2, b1="tell"), watch=seen.append)
    assert [(r.name, r.levelname, r.getMessage()) for r in caplog.records] == [("vcinr", "INFO", "b1 speaks")]
    assert [(p.stage, p.step, p.total, p.values) for p in seen] == [("b1", 1, 2, {"loss": 0.5})]


def test_nothing_runs_after_the_iterator_is_closed(tmp_path):
    passing = run(engine_of("processes", workers=2), work, fakes(tmp_path, 20, seconds=0.2))
    next(passing)
    passing.close()
    begun = counts(tmp_path)
    assert not any(alive(pid) for pid in pids(tmp_path))
    time.sleep(0.5)
    assert counts(tmp_path) == begun and len(begun) <= 4


def alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# --- Deaths ------------------------------------------------------------------------------------------------


def test_poison_among_many_is_the_only_one_to_fail(tmp_path, caplog):
    found = results(engine_of("processes", workers=2), fakes(tmp_path, 100, b41="die"))
    assert list(failed(found)) == ["b41"] and isinstance(found["b41"], WorkerLost)
    assert "exit status 3, the second time" in str(found["b41"]) and "leave its input out" in str(found["b41"])
    assert counts(tmp_path) == {f"b{i}": 1 + (i == 41) for i in range(100)}
    assert "will be run again at the end" in caplog.text


def test_an_engine_that_breaks_as_a_whole_is_started_again(together, tmp_path):
    found = results(together, fakes(tmp_path, 12, b3="die", b7="die"))
    assert sorted(failed(found)) == ["b3", "b7"] and len(found) == 12
    assert counts(tmp_path)["b3"] == 2 and max(counts(tmp_path).values()) <= 2


def killed_later(tmp_path, how_many):
    """Kill processes that run batches, as soon as there are that many."""

    def kill():
        while len(found := pids(tmp_path)) < how_many:
            time.sleep(0.01)
        for pid in list(found)[:how_many]:
            os.kill(pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    return thread


@pytest.mark.parametrize("victims", [1, 2])
def test_killed_workers_cost_the_batches_in_flight_alone(victims, tmp_path):
    thread = killed_later(tmp_path, victims)
    found = results(engine_of("processes", workers=2), fakes(tmp_path, 10, seconds=0.2))
    thread.join()
    assert not failed(found) and len(found) == 10
    assert sorted(counts(tmp_path).values()) == [1] * (10 - victims) + [2] * victims


@pytest.mark.parametrize("name", ["processes", "threads"])
def test_a_stall_ends_the_run(name, tmp_path):
    batches = [*fakes(tmp_path, 3), Fake(tmp_path, "b3", seconds=3.0)]
    began = time.monotonic()
    with pytest.raises(EngineLost, match="no sign of life of 1 batches for 1 s"):
        results(engine_of(name, workers=1), batches, stall_s=1.0)
    assert time.monotonic() - began < 10


def test_a_worker_ends_with_its_driver(tmp_path):
    driver = get_context("spawn").Process(target=drive_for_a_minute, args=(tmp_path,))
    driver.start()
    while not pids(tmp_path):
        time.sleep(0.01)
    driver.kill()
    driver.join()
    end = time.monotonic() + 5
    while any(map(alive, pids(tmp_path))) and time.monotonic() < end:
        time.sleep(0.01)
    assert not any(map(alive, pids(tmp_path)))


def test_workers_that_cannot_start_are_one_clear_error(tmp_path, monkeypatch):
    monkeypatch.setattr("vcinr.bulk.engines.processes._serve", end_at_once)
    with pytest.raises(EngineLost, match=r"end while they start \(.*exit status 4"):
        results(engine_of("processes", workers=1), fakes(tmp_path, 3))


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib\nfrom tests.faults.batches import fakes, work\nfrom vcinr.bulk.engines import engine_of, run\n"
        f"print(len(list(run(engine_of(workers=1), work, fakes(pathlib.Path({str(tmp_path)!r}), 3)))))\n"
    )
    done = subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    assert done.stdout == b"3\n", done.stderr.decode()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"name": "slurm"}, "unknown 'slurm'; known: processes, threads, serial, dask"),
        ({"workers": 0}, "workers: 0 are too few"),
        ({"name": "dask"}, "no address"),
        ({"name": "dask", "address": "tcp://a:1", "workers": 2}, "leave the number of workers out"),
        ({"address": "tcp://a:1"}, "takes no address"),
    ],
)
def test_an_engine_that_cannot_be_is_refused(words, message):
    with pytest.raises(ConfigError, match=message):
        engine_of(**words)


# --- Dask --------------------------------------------------------------------------------------------------


def dask(cluster, wait_s=60.0):
    return replace(engine_of("dask", address=cluster.address), wait_s=wait_s)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two workers that come back when they are killed."""
    with dask_cluster(tmp_path_factory.mktemp("cluster")) as found:
        yield found


def test_a_cluster_runs_each_batch_once_and_speaks(cluster, tmp_path, caplog):
    seen = []
    with caplog.at_level(logging.INFO, "vcinr"):
        found = results(dask(cluster), fakes(tmp_path, 20, b3="refuse", b5="tell"), watch=seen.append)
    assert counts(tmp_path) == {f"b{i}": 1 for i in range(20)}
    assert list(failed(found)) == ["b3"] and type(found["b3"]) is ConnectionResetError
    assert "b5 speaks" in caplog.messages and [p.stage for p in seen] == ["b5"]


def test_an_endless_plan_is_drawn_a_few_batches_ahead_of_a_cluster(cluster, tmp_path):
    drawn = count()
    batches = (Fake(tmp_path, f"b{i}") for i in drawn)
    for number, _ in enumerate(islice(run(dask(cluster), work, batches), 30)):
        assert int(repr(drawn)[6:-1]) - number <= 7
    assert number == 29


def test_poison_on_a_cluster_is_the_only_one_to_fail(cluster, tmp_path):
    found = results(dask(cluster), fakes(tmp_path, 12, b4="die"))
    assert list(failed(found)) == ["b4"] and isinstance(found["b4"], WorkerLost)
    assert len(found) == 12 and counts(tmp_path)["b4"] == 2


def test_what_a_cluster_raises_by_itself_is_no_fault_of_a_batch():
    """Dask may fail to fetch a result from a worker that has died; an error of a batch is a result of its own."""
    lost = _meaning(ValueError("not enough values to unpack"))
    assert isinstance(lost, WorkerLost) and "lost a result (ValueError: not enough" in str(lost)
    assert isinstance(_meaning(CancelledError()), EngineLost)


def test_a_killed_worker_of_a_cluster_loses_nothing(cluster, tmp_path):
    thread = killed_later(tmp_path, 1)
    found = results(dask(cluster), fakes(tmp_path, 10, seconds=0.2))
    thread.join()
    assert not failed(found) and len(found) == 10


def test_a_killed_scheduler_ends_the_run_soon(tmp_path):
    with dask_cluster(tmp_path) as cluster:
        passing = run(dask(cluster), work, fakes(tmp_path, 100, seconds=0.2))
        next(passing)
        cluster.scheduler.kill()
        began = time.monotonic()
        with pytest.raises(EngineLost, match="goes on from"):
            list(passing)
        assert time.monotonic() - began < 15


def test_a_cluster_without_workers_is_given_up(tmp_path):
    lost = pytest.raises(EngineLost, match="has had no worker for 2 s; start some")
    with dask_cluster(tmp_path, workers=0) as cluster, lost:
        results(dask(cluster, wait_s=2.0), fakes(tmp_path, 3))
    assert not counts(tmp_path)


def test_workers_that_all_die_for_good_are_given_up(tmp_path):
    with dask_cluster(tmp_path, nanny=False) as cluster:
        passing = run(dask(cluster, wait_s=2.0), work, fakes(tmp_path, 50, seconds=0.2))
        next(passing)
        for worker in cluster.workers:
            worker.kill()
        with pytest.raises(EngineLost):
            list(passing)


def test_other_versions_are_refused(tmp_path):
    other = tmp_path / "other" / "numpy-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: numpy\nVersion: 1.0\n")
    refused = pytest.raises(ConfigError, match=r"the scheduler has numpy 1\.0 where this process has 2")
    with dask_cluster(tmp_path, workers=1, before=tmp_path / "other") as cluster, refused:
        results(dask(cluster), fakes(tmp_path, 3))
    assert not counts(tmp_path)


def test_no_scheduler_at_an_address(tmp_path):
    engine = replace(engine_of("dask", address="tcp://127.0.0.1:1"), wait_s=1.0)
    with pytest.raises(EngineLost, match="no Dask scheduler answers"):
        results(engine, fakes(tmp_path, 1))
