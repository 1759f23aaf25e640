"""Output of a climate model in bulk: ``python -m benchmarks.data.gcm --truncation 63 --save-hours 3 OUT``.

PyPI's `jcm` (SPEEDY's physics, Apache-2.0) runs members that start from other noise, each on a core of its own, in an
environment of its own, and writes CF netCDF with every variable that it has: OUT/member0/p0000.nc, ... What a file
holds lies in memory until it is written. A file takes its name when it is whole and never changes then; the same
command goes on where a stopped one was.

The first days after the start from rest are thrown away. Two, the default, do for a compressor's load; what is said of
ratios should throw away 30.
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.data.speedy import JCM
from vcinr.archive.work import cores

GRIDS = {31: (96, 48), 42: (128, 64), 63: (192, 96), 85: (256, 128), 106: (320, 160)}
"""Longitudes and latitudes by truncation."""
STEPS = {31: 30, 42: 30, 63: 20, 85: 15, 106: 12}
"""Minutes of a time step by truncation; the model's own are 30 at all of them, which is long for the finer ones."""
ENVIRONMENT = Path("data/raw/gcm/environment")
_ON_LEVELS, _OTHERS = 21, 57  # variables on the model's levels, and horizontal fields besides

MODEL = """
import os, sys, time
core, truncation, levels, step, seed, files, saves, spin_up = map(int, sys.argv[1:9])
save, out, data = float(sys.argv[9]), *sys.argv[10:12]
if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
from importlib import resources
from pathlib import Path
from jcm.checkpoint import load_checkpoint, save_checkpoint
from jcm.forcing import ForcingData
from jcm.model import Model
from jcm.physics.speedy.speedy_coords import get_speedy_coords
from jcm.terrain import TerrainData

out, data = Path(out), resources.files("jcm") / data
coords = get_speedy_coords(layers=levels, spectral_truncation=truncation)
forcing = ForcingData.from_file(str(data / "forcing.nc"), coords)
terrain = TerrainData.from_file(str(data / "terrain.nc"), coords)
model = Model(coords=coords, terrain=terrain, start_time="2000-01-01", time_step=step)

def state(file):
    return out / f"state{file:04d}"

first = next(k for k in range(files + 1) if not (out / f"p{k:04d}.nc").exists())
if state(first).exists():
    model.bootstrap_state()
    load_checkpoint(model, state(first))
elif first:
    sys.exit(f"{out}: has files, but not the model's state after the last of them; remove the folder")
elif spin_up:
    start = model.initial_state(random_seed=seed)
    model.run(initial_state=start, forcing=forcing, save_interval=float(spin_up), total_time=float(spin_up))
else:
    model.bootstrap_state(model.initial_state(random_seed=seed))
for file in range(first, files):
    began = time.process_time()
    output = model.resume(forcing=forcing, save_interval=save, total_time=save * saves).to_xarray()
    output.to_netcdf(out / "part.nc", unlimited_dims=["time"])
    save_checkpoint(model, state(file + 1))  # before the file is there, so that it is known how to go on from it
    size = (out / "part.nc").stat().st_size / 1e6
    (out / "part.nc").replace(out / f"p{file:04d}.nc")
    state(file).unlink(missing_ok=True)
    print(f"{out}: file {file + 1} of {files}, {size:.0f} MB, {time.process_time() - began:.0f} s", flush=True)
"""


@dataclass(frozen=True)
class Run:
    """What is simulated.

    Parameters
    ----------
    truncation
        One of `GRIDS`.
    levels
        Of the atmosphere.
    save_hours
        Hours from one saved time to the next.
    saves
        Saved times in a file.
    files
        Files of each member.
    members
        How many runs there are, which start from other noise.
    spin_up_days
        Days that are thrown away.
    """

    truncation: int
    levels: int
    save_hours: float
    saves: int
    files: int
    members: int
    spin_up_days: int

    @property
    def bytes_of_file(self) -> int:
        """About how large a file is."""
        return self.saves * bytes_of_save(self.truncation, self.levels)

    def command(self, member: int, out: Path, python: Path) -> list[str]:
        """Return the command that simulates one member."""
        numbers = (
            member, self.truncation, self.levels, STEPS[self.truncation], member, self.files, self.saves,
            self.spin_up_days, self.save_hours / 24,
        )  # fmt: skip
        boundary = "data/bc/t63" if self.truncation >= 63 else "data/bc/t30/clim"
        return [str(python), "-c", MODEL, *map(str, numbers), str(folder_of(out, member)), boundary]


def bytes_of_save(truncation: int, levels: int) -> int:
    """Return about how many bytes a saved time takes: all variables, as float32."""
    longitudes, latitudes = GRIDS[truncation]
    return 4 * longitudes * latitudes * (_ON_LEVELS * levels + _OTHERS)


def folder_of(out: Path, member: int) -> Path:
    """Return where a member's files lie."""
    return out / f"member{member}"


def planned(
    truncation: int, *, levels: int = 8, save_hours: float = 6, gigabytes: float = 1, members: int = 2,
    megabytes_of_file: float = 265, spin_up_days: int = 2,
) -> Run:  # fmt: skip
    """Choose how many files there are, and how many times are in each.

    Parameters
    ----------
    truncation, levels, save_hours, members, spin_up_days
        As in `Run`.
    gigabytes
        At least so many of all members together.
    megabytes_of_file
        About the size of a file. A period's output lies in memory before it is written.

    Raises
    ------
    ValueError
        Where there is no such grid, or the times saved are not whole steps of the model.
    """
    if truncation not in GRIDS:
        raise ValueError(f"truncation {truncation}: choose one of {', '.join(map(str, GRIDS))}")
    if (steps := save_hours * 60 / STEPS[truncation]) != int(steps) or steps < 1:
        raise ValueError(f"{save_hours:g} hours are no whole number of steps of {STEPS[truncation]} minutes")
    if min(levels, members, gigabytes, megabytes_of_file) <= 0 or spin_up_days < 0:
        raise ValueError("levels, members and sizes must be positive")
    size = bytes_of_save(truncation, levels)
    saves = max(1, round(1e6 * megabytes_of_file / size))
    files = math.ceil(1e9 * gigabytes / members / (saves * size))
    return Run(truncation, levels, save_hours, saves, files, members, spin_up_days)


def environment(folder: Path = ENVIRONMENT) -> Path:
    """Make the environment of jcm and JAX where there is none yet, and return its Python."""
    python, whole = folder / "bin" / "python", folder / f"{JCM}.installed"
    if whole.exists():
        return python.absolute()
    if uv := shutil.which("uv"):
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(python), JCM], check=True)
    else:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", JCM], check=True)
    whole.touch()
    return python.absolute()


def simulate(run: Run, out: Path, python: Path, workers: int | None = None) -> list[Path]:
    """Simulate what is not there yet, as many members at a time as there are cores.

    Parameters
    ----------
    run
        What is to be there.
    out
        The folder.
    python
        The Python of an environment with jcm.
    workers
        Members at a time.

    Returns
    -------
    list of Path
        All files, by member and time.

    Raises
    ------
    RuntimeError
        Where a member stops; the others are stopped, too, and the same call goes on from there.
    """
    settings = {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
    }
    files = [folder_of(out, m) / f"p{k:04d}.nc" for m in range(run.members) for k in range(run.files)]
    left = [m for m in range(run.members) if not all(f.exists() for f in files if f.parent == folder_of(out, m))]
    at_once = workers or cores()
    for members in (left[i : i + at_once] for i in range(0, len(left), at_once)):
        for member in members:
            folder_of(out, member).mkdir(parents=True, exist_ok=True)
        environ = {**os.environ, **settings, "PYTHONPATH": ""}
        under_way = {member: subprocess.Popen(run.command(member, out, python), env=environ) for member in members}
        try:
            while any(process.poll() is None for process in under_way.values()):
                _stopped(under_way, out)
                time.sleep(0.1)
            _stopped(under_way, out)
        finally:
            for process in under_way.values():
                process.terminate()
                process.wait()
    return files


def _stopped(under_way: Mapping[int, subprocess.Popen[bytes]], out: Path) -> None:
    """Raise RuntimeError where a member has failed."""
    for member, process in under_way.items():
        if process.poll():
            raise RuntimeError(
                f"{folder_of(out, member)}: the model stopped with status {process.returncode}; see above, and run the "
                "same command again"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data.gcm", description=__doc__.split("\n\n")[0])
    parser.add_argument("out", type=Path, help="folder of the files")
    parser.add_argument("--truncation", type=int, default=63, help=f"of the spectrum: {', '.join(map(str, GRIDS))}")
    parser.add_argument("--levels", type=int, default=8)
    parser.add_argument("--save-hours", type=float, default=3, help="hours from one saved time to the next")
    parser.add_argument("--gigabytes", type=float, default=1, help="of all members together, at least")
    parser.add_argument("--members", type=int, default=2, help="runs from other noise, a core each")
    parser.add_argument("--megabytes-of-file", type=float, default=265)
    parser.add_argument("--spin-up-days", type=int, default=2, help="days that are thrown away")
    parser.add_argument("--environment", type=Path, default=ENVIRONMENT, help="where jcm is, or is to be, installed")
    given = parser.parse_args(arguments)
    try:
        run = planned(
            given.truncation, levels=given.levels, save_hours=given.save_hours, gigabytes=given.gigabytes,
            members=given.members, megabytes_of_file=given.megabytes_of_file, spin_up_days=given.spin_up_days,
        )  # fmt: skip
    except ValueError as error:
        parser.error(str(error))
    print(
        f"{run.members} member(s) of {run.files} file(s) of about {run.bytes_of_file / 1e6:.0f} MB: {run.saves} times, "
        f"{run.save_hours:g} hours apart",
        flush=True,
    )
    try:
        files = simulate(run, given.out, environment(given.environment))
    except (RuntimeError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    print(f"{len(files)} files, {sum(f.stat().st_size for f in files) / 1e9:.2f} GB, in {given.out}")


if __name__ == "__main__":
    main()
