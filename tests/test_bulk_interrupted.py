"""Faults of bulk runs: kills, full disks, servers that fail for a while, two runs at once. Nothing is lost."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

import vcinr
from tests.test_bulk import SERIAL, dataset, same
from vcinr.bulk import batch as batches
from vcinr.bulk import claims, drive, place
from vcinr.bulk.place import Place
from vcinr.bulk.request import Request
from vcinr.errors import InputError

REQUEST = Request(abs_error=0.05, chunk=1, effort="fast")


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """A file, and its archive as `vcinr compress` makes it."""
    folder = tmp_path_factory.mktemp("source")
    dataset(0).to_netcdf(folder / "a.nc")
    vcinr.compress(folder / "a.nc", folder / "plain.zarr", abs_error=0.05, chunk=1, effort="fast")
    return folder


@pytest.fixture
def encoded(monkeypatch) -> Counter:
    """How often each chunk is encoded, by this process."""
    count, real = Counter(), batches.encode_chunk
    monkeypatch.setattr(batches, "encode_chunk", lambda task, key, block: count.update([key]) or real(task, key, block))
    return count


def run(source, target, **options):
    return drive.compress(str(source / "a.nc"), str(target), REQUEST, SERIAL, batch_seconds=0.0, **options)


def test_a_full_disk_is_one_clear_error_and_the_run_goes_on_later(source, tmp_path, monkeypatch, encoded):
    real = Place.put

    def full(self, key, data):
        if sum(encoded.values()) > 9 and "/c/" in key:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, key, data)

    monkeypatch.setattr(Place, "put", full)
    with pytest.raises(InputError, match=r"no space left.*goes on from there"):
        run(source, tmp_path / "a.zarr")
    assert not (tmp_path / "a.zarr").exists()
    monkeypatch.setattr(Place, "put", real)
    failed = 1
    assert not run(source, tmp_path / "a.zarr").failed
    assert sum(encoded.values()) == len(encoded) + failed, "only the chunk in flight is encoded twice"
    assert same(source / "plain.zarr", tmp_path / "a.zarr") and os.listdir(tmp_path) == ["a.zarr"]


def test_two_runs_on_one_target_share_the_work(source, tmp_path, encoded, monkeypatch):
    monkeypatch.setattr(drive, "POLL_S", 0.05)
    found, slow = [], batches.encode_chunk
    monkeypatch.setattr(batches, "encode_chunk", lambda *a: time.sleep(0.02) or slow(*a))
    threads = [threading.Thread(target=lambda: found.append(run(source, tmp_path / "a.zarr"))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [one.failed for one in found] == [{}, {}] and set(encoded.values()) == {1}
    assert same(source / "plain.zarr", tmp_path / "a.zarr") and os.listdir(tmp_path) == ["a.zarr"]


def test_two_requests_for_one_target_do_not_mix(source, tmp_path):
    with drive._staged(str(tmp_path / ".a.zarr.bulk")) as other:
        staging = Place(str(tmp_path / ".a.zarr.bulk"))
        name = claims.of_target(str(tmp_path / "a.zarr"))
        staging.create(f"targets/{name}", b"another")
        assert other.take(name)
        found = run(source, tmp_path / "a.zarr")
        assert "another run makes this archive by another request" in next(iter(found.failed.values()))
    assert not run(source, tmp_path / "a.zarr").failed, "the other run has ended"


def test_claims_of_a_dead_process_are_free(tmp_path):
    code = (
        "import os, sys; from vcinr.bulk.claims import Claims; from vcinr.bulk.place import Place\n"
        "c = Claims(Place(sys.argv[1])); c.__enter__(); assert c.take('batch'); os._exit(0)"
    )
    child = subprocess.run([sys.executable, "-c", code, str(tmp_path)])
    assert child.returncode == 0
    with claims.Claims(Place(str(tmp_path))) as own:
        assert own.others() == [] and own.take("batch")
        with claims.Claims(Place(str(tmp_path))) as other:
            assert not other.take("batch") and other.holder("batch") == own.run


def command(source, target, *more):
    words = ["-m", "vcinr.cli", "compress", source / "*.nc", target, "--abs-error", "0.05", "--chunk", "1", *more]
    return [sys.executable, *map(str, words)]


def test_the_command_is_killed_with_its_workers_and_run_again(source, tmp_path):
    options = ("--effort", "fast", "--workers", "2")
    for wait in (3.0, 6.0):
        process = subprocess.Popen(command(source, f"{tmp_path}/out/", *options), start_new_session=True)
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "out/a.zarr").exists() or same(source / "plain.zarr", tmp_path / "out/a.zarr")
    done = subprocess.run(command(source, f"{tmp_path}/out/", *options), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert same(source / "plain.zarr", tmp_path / "out/a.zarr") and os.listdir(tmp_path / "out") == ["a.zarr"]


def test_an_s3_server_that_fails_for_a_while(s3, source, tmp_path, monkeypatch):
    monkeypatch.setattr(place, "WAITS", (0.2, 0.5, 1.0, 2.0, 4.0))
    stopped = []

    def away():
        s3.stop()
        time.sleep(4.0)
        s3.start()

    def watch(progress):
        if progress.stage == "compress" and progress.step == 8 and not stopped:
            thread = threading.Thread(target=away)
            thread.start()
            stopped.append(thread)

    found = run(source, "s3://bucket/deep/a.zarr", watch=watch)
    stopped[0].join()
    assert not found.failed
    import s3fs

    fs = s3fs.S3FileSystem()
    fs.get("s3://bucket/deep/a.zarr", str(tmp_path / "back.zarr"), recursive=True)
    assert same(source / "plain.zarr", tmp_path / "back.zarr")
    assert [name.rpartition("/")[2] for name in fs.ls("bucket/deep", refresh=True)] == ["a.zarr"], (
        "no receipts are left"
    )
