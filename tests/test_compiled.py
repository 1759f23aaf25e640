"""Kernels: compiled ahead by one command, few versions of each, and usable where nothing can be written."""

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from vcinr import compiled
from vcinr.warm_up import warm_up

ROOT = Path(__file__).resolve().parent.parent


def test_warm_up_compiles_every_kernel_and_few_versions_of_it():
    warm_up()
    functions = [kernel.py_func for kernel in compiled.kernels]
    versions = {
        f"{f.__module__}.{f.__name__}": len(k.overloads) for f, k in zip(functions, compiled.kernels, strict=True)
    }
    assert all(versions.values()), "a kernel that the warm-up leaves out"
    for kernel in ("vcinr.codec.decode._restore", "vcinr.codec.promise._fill_errors"):
        assert versions.pop(kernel) == 2  # for float32 and float64
    several = [name for name, count in versions.items() if count > 1]
    assert not several, "kernels compiled for several types: cast their arguments"


def test_after_a_warm_up_nothing_is_compiled():
    code = (
        "from numba.core import event\n"
        "class Listener(event.Listener):\n"
        "    def on_start(self, event): print(event.data['dispatcher'].py_func.__qualname__)\n"
        "    def on_end(self, event): pass\n"
        "event.register('numba:compile', Listener())\n"
        "import numpy as np\n"
        "from vcinr.codec.encode import encode\n"
        "from vcinr.codec.promise import Bound, Field\n"
        "values = np.random.default_rng(0).standard_normal((4, 20, 30)).cumsum(1).cumsum(2).astype('f4')\n"
        "for effort in ('fast', 'best'):\n"
        "    for kind in ('absolute', 'relative'):\n"
        "        coded = encode(values, Field('v', (1, 2)), Bound(kind, 0.05), effort=effort)\n"
    )
    warm_up()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def test_compiling_is_said_once(caplog):
    listener = compiled._Listener()

    event = SimpleNamespace(data={"dispatcher": SimpleNamespace(py_func=warm_up)})
    with caplog.at_level(logging.INFO, "vcinr"):
        for _ in range(2):
            listener.on_start(event)
            listener.on_end(event)
    assert len(caplog.messages) == 1 and "warm-up" in caplog.messages[0]


def test_where_nothing_can_be_kept_kernels_work_all_the_same(monkeypatch):
    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return original(**options)

    original = compiled.njit
    monkeypatch.setattr(compiled, "njit", njit)
    monkeypatch.setattr(compiled, "kernels", [])

    def double(values):
        for i in range(values.size):
            values[i] *= 2

    values = np.ones(3)
    compiled.outer(double)(values)
    assert values.tolist() == [2, 2, 2]
