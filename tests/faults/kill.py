"""Kill bulk compression at random moments, again and again, and see that a rerun finishes without redoing anything.

Usage: python -m tests.faults.kill KILLS [SEED]. Four netCDF files are compressed to archives (folders and a zip file)
by child processes that get SIGKILL after a random time, each going on where the last was stopped. When a round is
complete its archives are verified against the files, and the next round begins. Every chunk that was encoded is logged:
one that was finished must never be encoded again. Exit status 1, with what went wrong, if anything did.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import xarray as xr

from vcinr.archive.read import open_archive
from vcinr.archive.verify import verify
from vcinr.bulk import batch as batches
from vcinr.bulk.batch import RECEIPTS, Receipt
from vcinr.bulk.drive import compress
from vcinr.bulk.engines import engine_of
from vcinr.bulk.place import Place
from vcinr.bulk.request import Request
from vcinr.formats.open import open_groups

TARGETS = ("a.zarr", "b.zip", "c.zarr", "d.zarr")


def make_inputs(folder: Path, rng: np.random.Generator) -> None:
    """Four files of two variables, 20 chunks each."""
    folder.mkdir()
    for target in TARGETS:
        fields = {n: (("t", "y", "x"), rng.standard_normal((60, 24, 24)).cumsum(1).astype("f4")) for n in ("u", "v")}
        xr.Dataset(fields, {"t": np.arange(60.0)}).to_netcdf(folder / f"{target[0]}.nc")


def compress_all(inputs: Path, outputs: Path, log: Path) -> None:
    """A bulk run of batches of a chunk each, with a line in the log before each chunk and after its receipt."""
    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    encode, put = batches.encode_chunk, Place.put

    def logged_encode(task, key, block):  # type: ignore[no-untyped-def]
        os.write(file, f"begin {current} {key}\n".encode())
        return encode(task, key, block)

    def logged_put(self, name, data):  # type: ignore[no-untyped-def]
        put(self, name, data)
        if name.startswith(RECEIPTS):
            receipt = Receipt.read(data, name.rpartition("/")[2].removesuffix(".json"))
            for key in receipt.chunks if receipt is not None else ():
                os.write(file, f"end {current} {key}\n".encode())

    batches.encode_chunk, Place.put = logged_encode, logged_put  # type: ignore[assignment, method-assign]
    request, engine = Request(abs_error=0.01, chunk=3), engine_of("serial")
    for target in TARGETS:
        current = target
        source = str(inputs / f"{target[0]}.nc")
        compress(source, str(outputs / target), request, engine, batch_seconds=0.0).check(1)


def run_and_kill(inputs: Path, outputs: Path, log: Path, after: float) -> str:
    """One child that is killed `after` seconds; ``done`` if it was faster, ``failed`` if it failed by itself."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            compress_all(inputs, outputs, log)
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            sys.stderr.flush()
            os._exit(status)
    end = time.monotonic() + after
    while time.monotonic() < end:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return "done" if status == 0 else "failed"
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return "killed" if os.WIFSIGNALED(status) else "done" if status == 0 else "failed"


def check_round(inputs: Path, outputs: Path, log: Path) -> str | None:
    """What is wrong with a round that says it is complete."""
    for target in TARGETS:
        problems, _ = verify(outputs / target, open_groups(inputs / f"{target[0]}.nc"))
        if problems:
            return f"{target}: {problems[0]}"
        if not np.array_equal(open_archive(outputs / target)["t"], np.arange(60.0)):
            return f"{target}: coordinates differ"
    if left := [p.name for p in outputs.iterdir() if p.name not in TARGETS]:
        return f"left behind: {left}"
    return redone(log)


def redone(log: Path) -> str | None:
    """A chunk that was encoded again after it was finished."""
    finished: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        what, _, chunk = line.partition(" ")
        if what == "begin" and finished[chunk]:
            return f"{chunk} was encoded again"
        finished[chunk] += what == "end"
    return None


def in_child(inputs: Path, outputs: Path, log: Path) -> str | None:
    """`check_round` in a process of its own: this one forks and must not start Zarr's threads."""
    read, written = os.pipe()
    if os.fork() == 0:
        message = "the check itself failed"
        try:
            message = check_round(inputs, outputs, log) or ""
        finally:
            os.write(written, message.encode()[:4000] + b".")
            os._exit(0)
    os.close(written)
    with os.fdopen(read, "rb") as stream:
        answer = stream.read().decode()[:-1]
    os.wait()
    return answer or None


def main(kills: int, seed: int) -> int:
    """Returns the exit status."""
    rng, began = np.random.default_rng(seed), time.monotonic()
    work = Path(tempfile.mkdtemp(prefix="vcinr-kill-"))
    killed = rounds = half = 0
    try:
        make_inputs(work / "in", rng)
        while killed < kills or (work / "out").exists():
            outputs, log = work / "out", work / "log"
            outputs.mkdir(exist_ok=True)
            result = run_and_kill(work / "in", outputs, log, rng.uniform(0.05, 2.5) if killed < kills else 600.0)
            killed += result == "killed"
            half += result == "killed" and any(p.name.endswith(".bulk") for p in outputs.iterdir())
            if result == "failed":
                print(f"after {killed} kills: a rerun failed by itself")
                return 1
            if result == "done":
                if wrong := in_child(work / "in", outputs, log):
                    print(f"after {killed} kills: {wrong}")
                    return 1
                rounds += 1
                shutil.rmtree(outputs)
                log.unlink()
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(
        f"{killed} kills ({half} with an archive half written), {rounds} rounds of {len(TARGETS)} archives completed "
        f"and verified, nothing finished was redone, {time.monotonic() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
