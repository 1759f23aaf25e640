"""The golden archives on another kind of processor: the reference decoder under an emulated 64-bit ARM.

Usage: python -m benchmarks.arm64 [--folder FOLDER] [--out FILE]. For Debian on x86-64 with apt-get and pip: fetches the
emulator, an ARM Python and an ARM NumPy of this environment's version into FOLDER (140 MB, kept; nothing is installed),
decodes every golden archive on two emulated processors, one with and one without vectors of variable length, and
compares with what was decoded when the archives were made. Exit status 1 if anything differs by more than it may.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.determinism import ROOT, differences
from benchmarks.measure.machine import machine
from tests.golden import make

PROCESSORS = ("max", "cortex-a53")
PLATFORMS = ("manylinux2014_aarch64", "manylinux_2_17_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")


def fetched(folder: Path) -> list[str]:
    """The command that runs an emulated Python; what it needs is fetched into `folder` first, unless it is there."""
    emulator, root, site = (folder / name for name in ("emulator", "root", "site"))
    if not (folder / "done").exists():
        apt = folder / "apt"
        for name in ("lists/partial", "archives/partial"):
            (apt / name).mkdir(parents=True, exist_ok=True)
        (apt / "status").touch()
        _debian(folder, "emulator", ["apt-get", "download", "qemu-user-static"], emulator)
        own = {"APT::Architecture": "arm64", "APT::Architectures": "arm64", "Dir::State": apt, "Dir::Cache": apt,
               "Dir::State::status": apt / "status"}  # fmt: skip
        options = [part for key, value in own.items() for part in ("-o", f"{key}={value}")]
        subprocess.run(["apt-get", *options, "update"], check=True, stdout=sys.stderr)
        packages = ["python3.11", "libgcc-s1", "libstdc++6"]
        install = ["install", "--yes", "--no-install-recommends", "--download-only", *packages]
        _debian(apt / "archives", "", ["apt-get", *options, *install], root)
        wheels = [part for name in PLATFORMS for part in ("--platform", name)]
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--only-binary=:all:", *wheels]
        pip += ["--python-version", "3.11", "--target", str(site), f"numpy=={np.__version__}"]
        subprocess.run(pip, check=True)
        (folder / "done").touch()
    return [str(emulator / "usr/bin/qemu-aarch64-static"), "-L", str(root), "-E", f"PYTHONPATH={site}"]


def _debian(folder: Path, name: str, command: list[str], target: Path) -> None:
    """Run a command that leaves Debian packages in a folder, and unpack them."""
    place = folder / name
    place.mkdir(exist_ok=True)
    subprocess.run(command, check=True, cwd=place, stdout=sys.stderr)
    for package in sorted(place.glob("*.deb")):
        subprocess.run(["dpkg", "-x", str(package), str(target)], check=True)


def measure(folder: Path) -> dict[str, Any]:
    """By processor, what ran and the arrays that differ by more than they may."""
    emulated = fetched(folder)
    archives = sorted(make.FOLDER.glob("v*/*.zip"))
    then = {f"{path.stem}:{name}": values for path in archives for name, values in _arrays(path.with_suffix(".npz"))}
    found = {}
    for processor in PROCESSORS:
        out, script = folder / f"{processor}.npz", ROOT / "tests/golden/reference.py"
        python = [*emulated, "-cpu", processor, str(folder / "root/usr/bin/python3.11")]
        done = subprocess.run([*python, str(script), str(out)], check=True, capture_output=True, text=True)
        wrong = differences(archives, then, dict(_arrays(out)))
        found[processor] = {"ran": done.stdout.strip(), "arrays": len(then), "differ": wrong}
    return {"archives": [path.stem for path in archives], "processors": found}


def _arrays(path: Path) -> list[tuple[str, np.ndarray]]:
    with np.load(path) as arrays:
        return list(arrays.items())


def report(facts: Mapping[str, Any]) -> bool:
    """Print what differs; whether all is well."""
    for name, run in facts["processors"].items():
        lines = [f"{array} {how}" for array, how in run["differ"].items()] or ["the same"]
        print(f"{name} ({run['ran']}), {run['arrays']} arrays: {'; '.join(lines)}")
    return not any(run["differ"] for run in facts["processors"].values())


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, default=Path.home() / ".cache" / "vcinr-arm64")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/arm64.json")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    command = shlex.join(["python", "-m", "benchmarks.arm64", *sys.argv[1:]])
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine(), "command": command}
    facts |= measure(folder)
    arguments.out.write_text(json.dumps(facts, indent=1) + "\n")
    return 0 if report(facts) else 1


if __name__ == "__main__":
    sys.exit(main())
