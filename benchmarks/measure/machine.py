"""What a result states about its run: date, machine and command, under the same names in every file."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PACKAGES = ("numpy", "numba", "constriction", "pysz", "imagecodecs", "zfpy", "numcodecs-wasm-ebcc", "vcinr", "torch")


def record(**tables: Any) -> dict[str, Any]:
    """Return `tables` with the date, the machine and the command of this run, ready for JSON.

    Returns
    -------
    dict
        ``date`` (UTC, ISO 8601), ``machine`` (see `machine`), ``command`` (what was typed), then `tables`.
    """
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "command": command(),
        **tables,
    }


def command() -> str:
    """Return the command of this process, without the interpreter's folder."""
    return shlex.join(["python", *sys.orig_argv[1:]])


def machine() -> dict[str, Any]:
    """Return what timings depend on.

    Returns
    -------
    dict
        ``cpu``, ``cores`` that this process may use, ``threads`` (OMP_NUM_THREADS), ``system``, ``python`` and
        ``versions`` of the packages at hand.
    """
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    affinity = getattr(os, "sched_getaffinity", None)
    return {
        "cpu": _cpu_model(),
        "cores": len(affinity(0)) if affinity else os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
