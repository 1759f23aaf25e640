"""Training by several processes: what one process learns, also after one has been killed."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr

from tests import ranked
from tests.conftest import ROOT, small
from vcinr import config, processes, stages, training, worker
from vcinr.errors import ConfigError, InputError, VcinrError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import load_model
from vcinr.meta.extract import extract_modulations, latents_of
from vcinr.meta.inner import batch_of, solve
from vcinr.meta.principal import Moments, principal_axes, principal_axes_by_moments
from vcinr.meta.ranks import ALONE, Ranks, joined, of_several
from vcinr.signals import Signals, SignalSet, write_signals
from vcinr.signals.store import normalisation_of

LIMIT = 240  # seconds for what takes about 30 on one core that is busy


@pytest.fixture(scope="module")
def kinds_of_maps(tiny_maps) -> Signals:
    """`tiny_maps` as maps of two variables, with two masks."""
    splits = {}
    for name, own in tiny_maps.splits.items():
        mask = np.ones(own.features.shape[:3], bool)
        mask[:, 2:6, 3:10] = False
        mask[::3, 8:] = False
        variable = tuple("ab"[i % 2] for i in range(len(own)))
        splits[name] = SignalSet(np.where(mask[..., None], own.features, np.float32(0)), mask, variable)
    return replace(tiny_maps, splits=splits, normalisation=normalisation_of(splits["train"]))


@pytest.fixture(scope="module")
def ran(kinds_of_maps, tiny_maps, tmp_path_factory) -> Path:
    """The folders `alone` and `two` of what one and two processes have learned."""
    folder = tmp_path_factory.mktemp("ranks")
    write_signals(folder / "signals.zarr", kinds_of_maps)
    maps = tiny_maps.splits["train"].features[..., 0]
    axes = dict(zip(("lat", "lon"), tiny_maps.axes, strict=True))
    xr.Dataset({"t": (("time", "lat", "lon"), maps)}, axes).to_netcdf(folder / "in.nc")
    alone = folder / "alone"
    ranked.run(alone, ALONE)
    extract_modulations(
        folder / "signals.zarr", alone / "basis" / "model.vcinr", alone / "basis" / "modulations.zarr", threads=1
    )
    ranked.quantise(alone, ALONE)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "tests.ranked"]
    done = subprocess.run(
        [sys.executable, *command, folder / "two"], cwd=ROOT, timeout=LIMIT, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def learned(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """Parameters after the last step, before the latents are turned."""
    return torch.load(folder / f"{name}.checkpoint", weights_only=True)["state"]["parameters"]


def farthest(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float(np.abs(np.asarray(one[k]) - np.asarray(other[k])).max()) for k in one)


# --- Two processes against one


@pytest.mark.parametrize("name", ranked.CASES)
def test_two_processes_learn_what_one_learns(ran, name):
    assert farthest(learned(ran / "alone", name), learned(ran / "two", name)) < 1e-5
    one, two = (json.loads((ran / who / name / "summary.json").read_text()) for who in ("alone", "two"))
    assert one["steps"] == two["steps"] == ranked.CASES[name].meta.steps
    assert two["valid_psnr_db"] == pytest.approx(one["valid_psnr_db"], abs=1e-3)
    facts = [load_model(ran / who / name / "model.vcinr").provenance for who in ("alone", "two")]
    assert "processes" not in facts[0] and facts[1]["processes"] == 2


def test_a_batch_in_parts_teaches_what_the_batch_does(ran):
    assert 0 < farthest(learned(ran / "alone", "basis"), learned(ran / "alone", "micro")) < 1e-5


def test_the_basis_of_two_processes_spans_what_that_of_one_does(ran, kinds_of_maps):
    """Their latents may differ in sign; what they stand for may not."""
    restored = []
    for who in ("alone", "two"):
        at = ModelAt(load_model(ran / who / "basis" / "model.vcinr"), kinds_of_maps.inputs)
        restored.append(at.reconstruct(latents_of(at, kinds_of_maps, "test")))
    assert np.abs(restored[0] - restored[1]).max() < 1e-3


def test_axes_from_sums_are_those_from_latents(kinds_of_maps, ran):
    model = load_model(ran / "alone" / "basis" / "model.vcinr")
    arrays = {k: v.copy() for k, v in model.params.items()}
    arrays["phi_0"] += 0.1
    x, variable = kinds_of_maps.inputs, kinds_of_maps.variable_index("train")
    tensors = {k: torch.from_numpy(v) for k, v in arrays.items()}
    phi = solve(model.spec, tensors, batch_of(kinds_of_maps, "train", torch.from_numpy(x), slice(None))).numpy()
    moments = Moments.none(*arrays["phi_0"].shape)
    for part in (slice(0, 7), slice(7, 40)):
        moments.add(phi[part] - arrays["phi_0"][variable[part]], variable[part])
    one = principal_axes(model.spec, arrays, x, phi, variable)
    other = principal_axes_by_moments(model.spec, arrays, x, moments)
    last = f"siren.{model.spec.depth - 1}.weight"
    assert np.allclose(np.abs(one["phi_0"]), np.abs(other["phi_0"]), atol=1e-3)
    assert np.allclose(np.abs(one[last]), np.abs(other[last]), atol=1e-2 * np.abs(one[last]).max())


@pytest.mark.parametrize("name", ["factorised", "hyperprior"])
def test_two_processes_train_the_quantiser_that_one_trains(ran, name):
    one, two = (load_model(ran / who / f"{name}.vcinr").quantiser for who in ("alone", "two"))
    nets = [{k: v for k, v in own.items() if k.startswith(("net.", "gain"))} for own in (one, two)]
    assert farthest(*nets) < 1e-5 and one["level"].shape == two["level"].shape
    rows = [(ran / who / f"{name}.csv").read_text().splitlines() for who in ("alone", "two")]
    assert len(rows[0]) == len(rows[1])
    assert np.allclose(*([list(map(float, row.split(","))) for row in own[1:]] for own in rows), rtol=1e-4)


def test_two_processes_fine_tune_together(ran):
    for who in ("alone", "two"):
        assert load_model(ran / who / "joint.vcinr").provenance["joint_steps"] == 4


def test_one_command_trains_in_all_processes_of_torchrun(ran):
    model = load_model(ran / "two" / "whole.vcinr")
    assert model.provenance["processes"] == 2 and model.quantiser and list(model.normalisation) == ["t"]
    assert not (ran / "two" / ".whole.vcinr.work").exists()


# --- A process that dies


def rank_1_of(parent: int) -> int:
    """The process id of rank 1, a grandchild of a process."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if b"\0RANK=1\0" not in b"\0" + (folder / "environ").read_bytes():
                continue
            above = [int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])]
            above.append(int(Path("/proc", str(above[0]), "stat").read_text().rsplit(")", 1)[1].split()[1]))
        except (OSError, ValueError):
            continue
        if parent in above:
            return int(folder.name)
    raise AssertionError("no process is of rank 1")


def test_a_killed_process_is_started_again_and_training_ends_the_same(ran, tmp_path):
    seen, killed = [], []

    def watch(progress):
        seen.append(progress.step)
        if progress.step == 20 and not killed:
            killed.append(rank_1_of(os.getpid()))
            os.kill(killed[0], signal.SIGKILL)

    p = ranked.CASES["long"].model_copy(update={"processes": 2})
    summary = stages.learn(p, ran / "signals.zarr", tmp_path / "m", tmp_path / "c", seconds=None, watch=watch)
    expected = json.loads((ran / "two" / "long" / "summary.json").read_text())
    assert killed and seen.count(10) + seen.count(20) > 2, "it went on from a checkpoint"
    assert seen[-1] == 40 and summary["sha256"] == expected["sha256"]
    assert (tmp_path / "m" / "model.vcinr").read_bytes() == (ran / "two" / "long" / "model.vcinr").read_bytes()


# --- What parent and children tell each other


def in_this_process(command: list[str], log: Path, watch) -> int:
    worker.main(Path(command[-1]))
    return 0


def test_an_error_in_the_processes_is_the_parents(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_watched", in_this_process)
    p = config.Params(processes=2, device="cuda", meta={"steps": 4}, threads=1)
    with pytest.raises(ConfigError, match="torch sees no such GPU"):
        stages.learn(p, ran / "signals.zarr", tmp_path / "m", tmp_path / "c", seconds=None)
    with pytest.raises(InputError, match="not a store of signals"):
        stages.learn(small(processes=2), tmp_path / "none", tmp_path / "m", tmp_path / "c", seconds=None)


def test_processes_that_die_give_one_line(ran, tmp_path, monkeypatch):
    def dies(command, log, watch):
        log.write_text("Traceback\nRuntimeError: out of everything\n")
        return 1

    monkeypatch.setattr(processes, "_watched", dies)
    with pytest.raises(VcinrError, match="in 2 processes ended with status 1: RuntimeError: out of everything; the "):
        stages.learn(small(processes=2), ran / "signals.zarr", tmp_path / "m", tmp_path / "c", seconds=None)


def test_both_trained_stages_are_run_by_processes(ran, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(processes, "_watched", in_this_process)
    p = small(processes=2, meta={"steps": 4, "validate_every": 4}, quantiser={"steps": 4})
    store = ran / "signals.zarr"
    summary = stages.learn(p, store, tmp_path / "m", tmp_path / "c", seconds=None)
    stages.extract(p, store, tmp_path / "m" / "model.vcinr", tmp_path / "phi.zarr")
    done = stages.complete(
        p, store, tmp_path / "m" / "model.vcinr", tmp_path / "phi.zarr", tmp_path / "f.vcinr", tmp_path / "q.csv",
        seconds=None,
    )  # fmt: skip
    assert summary["steps"] == 4 and load_model(tmp_path / "f.vcinr").sha256 == done["sha256"]
    assert capsys.readouterr().out.startswith(processes.PROGRESS)


# --- Ranks


@pytest.mark.parametrize("count", [3, 7, 16])
def test_parts_of_all_processes_are_the_batch(count):
    for world in (1, 2, 3):
        for most in (None, 1, 2, 100):
            parts = [part for rank in range(world) for part in Ranks(rank, world).parts(count, most)]
            assert [i for part in parts for i in range(count)[part]] == list(range(count))
            assert all(part.stop - part.start <= (most or count) for part in parts)
    assert ALONE.parts(count) == [slice(0, count)]


def test_more_processes_than_signals_are_too_many():
    with pytest.raises(ConfigError, match="a batch of 4 signals cannot be shared by 5 processes; use fewer processes"):
        Ranks(0, 5).parts(4)


def test_one_process_sends_nothing():
    ones = torch.ones(2, requires_grad=True)
    ALONE.sum_([ones])
    ALONE.sum_gradients([ones])
    assert ones.grad is None and ALONE.once(lambda: 7) == 7 and ALONE.same(object()) and ALONE.first
    with joined("cuda") as ranks:
        assert ranks is ALONE and not of_several()


def test_experts_learn_in_one_process(ran, tmp_path):
    p = small(method="experts", processes=2)
    with pytest.raises(InputError, match="the method experts learns in one process"):
        training.train(ran / "in.nc", tmp_path / "m.vcinr", params=p)
    with pytest.raises(ConfigError, match=r"meta\.micro_batch"):
        small(meta={"micro_batch": 0})
    with pytest.raises(ConfigError, match="processes"):
        small(processes=0)
    assert not list(tmp_path.iterdir())
