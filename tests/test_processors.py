"""The same bits on every processor: golden archives decoded by processes that are told to run on other ones."""

import os
import subprocess
import sys
from functools import cache

import numpy as np
import pytest

from benchmarks import determinism
from tests.golden import make
from vcinr.codec.promise import Effort

ARCHIVES = sorted(make.FOLDER.glob("v*/*.zip"))
SETTINGS = [
    "NumPy without AVX-512", "NumPy without AVX2 and FMA", "NumPy at its baseline", "Numba for any processor",
    "OpenBLAS for Prescott", "OpenBLAS for Haswell", "OpenBLAS for SkylakeX", "all at their oldest",
]  # fmt: skip


def as_ever():
    """What was decoded when the archives were made."""
    found = {}
    for path in ARCHIVES:
        with np.load(path.with_suffix(".npz")) as arrays:
            found |= {f"{path.stem}:{name}": values for name, values in arrays.items()}
    return found


@cache
def decoded(environment):
    """A child's arrays; settings that come to the same environment share it."""
    return determinism.run(dict(environment), *ARCHIVES)


@pytest.mark.parametrize("setting", SETTINGS)
def test_golden_archives_are_the_same_on_other_processors(setting):
    environment = determinism.settings()[setting]
    if environment is None:
        pytest.skip(f"this processor cannot run: {setting}")
    assert determinism.differences(ARCHIVES, as_ever(), decoded(tuple(environment.items()))) == {}


def test_the_reference_decoder_is_the_same_on_other_processors(tmp_path):
    environment = {**os.environ, **(determinism.settings()["NumPy at its baseline"] or {})}
    script = [sys.executable, make.FOLDER / "reference.py", tmp_path / "found.npz"]
    subprocess.run(script, env=environment, check=True, capture_output=True)
    with np.load(tmp_path / "found.npz") as found:
        assert determinism.differences(ARCHIVES, as_ever(), dict(found)) == {}


def test_a_setting_reaches_the_child():
    leave_out = determinism.settings()["NumPy at its baseline"]
    if leave_out is None:
        pytest.skip("NumPy has nothing to leave out here")
    code = "import numpy._core._multiarray_umath as m; print(any(m.__cpu_features__[f] for f in m.__cpu_dispatch__))"
    environment = {**os.environ, **leave_out}
    child = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert child.stdout.strip() == "False" and child.stderr == ""


def test_differences_are_found():
    then = as_ever()
    archives = {path.stem: path for path in ARCHIVES}
    allowed = determinism.slack(archives["model"], "double")
    assert allowed > 0 == determinism.slack(archives["absolute"], "double")
    assert determinism.differences(ARCHIVES, then, {**then, "model:double": then["model:double"] + allowed / 2}) == {}
    for name, by in (("model:double", allowed * 2), ("absolute:double", 1e-12)):
        assert list(determinism.differences(ARCHIVES, then, {**then, name: then[name] + by})) == [name]
    assert determinism.differences(ARCHIVES, then, {k: v for k, v in then.items() if k != "absolute:single"}) != {}


def test_every_kind_of_bound_is_measured_at_both_efforts(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(determinism, "compress", lambda data, path, **options: asked.append((path.stem, options)))
    determinism.made(tmp_path)
    kinds = {k for _, options in asked for k in options} - {"effort", "variables"}
    assert kinds == {"abs_error", "rel_error", "point_rel_error", "psnr", "rate"}
    for effort in determinism.get_args(Effort):
        assert sum(options["effort"] == effort for _, options in asked) == len(kinds) + 1  # and lossless
