"""Training that is quick and ends in time: shared masks, drawn points, early stop, time budgets."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from typer.testing import CliRunner

import vcinr
from tests.conftest import Stop, small, stop_at
from vcinr.cli import app
from vcinr.config import Params, preset
from vcinr.inr import ridge as closed
from vcinr.inr.at import ModelAt
from vcinr.inr.model import load_model
from vcinr.inr.ridge import ridge, same_rows
from vcinr.inr.siren import initialise
from vcinr.inr.spec import InrSpec
from vcinr.meta import outer
from vcinr.meta.extract import find_latents, latents_of
from vcinr.meta.inner import Batch, InnerLoop, batch_of, drawn, inner_loop
from vcinr.meta.outer import meta_train, schedule
from vcinr.meta.pace import Pace
from vcinr.quantise.train import fit
from vcinr.signals import Signals, SignalSet
from vcinr.signals.store import normalisation_of


@pytest.fixture
def masks() -> np.ndarray:
    """Weights of seven signals at 60 points: three masks, in no order."""
    rng = np.random.default_rng(0)
    different = rng.random((3, 60)) < 0.7
    chosen = different[[0, 1, 0, 2, 1, 0, 0]].astype(float)
    return chosen / chosen.mean(1, keepdims=True)


@pytest.fixture
def masked(tiny_maps) -> Signals:
    """`tiny_maps` with one land mask; the value on land must not matter."""
    land = np.zeros((11, 13), bool)
    land[2:6, 3:10] = True
    splits = {}
    for name, own in tiny_maps.splits.items():
        features = own.features.copy()
        features[:, land] = 9e9
        splits[name] = SignalSet(features, np.broadcast_to(~land, features.shape[:3]).copy(), own.variable)
    return replace(tiny_maps, splits=splits, normalisation=normalisation_of(splits["train"]))


class Ticking:
    """A clock that stands still but for what is added to it."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Ticking:
    """Every training step takes a second, and nothing else takes any time."""
    clock = Ticking()
    monkeypatch.setattr("vcinr.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    real = outer.meta_step

    def step(*arguments):
        clock.now += 1.0
        return real(*arguments)

    monkeypatch.setattr(outer, "meta_step", step)
    return clock


def trained(data, p, folder: Path, **options):
    return meta_train(data, p.inr, p.meta, seed=3, threads=1, out=folder / "m", checkpoint=folder / "c", **options)


def history(folder: Path) -> list[dict[str, str]]:
    with open(folder / "m" / "history.csv") as file:
        return list(csv.DictReader(file))


# --- Shared masks


def test_rows_are_grouped_by_what_they_hold(masks):
    assert [g.tolist() for g in same_rows(masks)] == [[0, 2, 5, 6], [1, 4], [3]]
    assert [g.tolist() for g in same_rows(torch.from_numpy(masks))] == [[0, 2, 5, 6], [1, 4], [3]]


@pytest.mark.parametrize("to", [np.asarray, torch.from_numpy])
def test_signals_that_share_a_mask_are_fitted_as_if_each_were_alone(masks, to, monkeypatch):
    """And each different mask has one normal matrix."""
    rng = np.random.default_rng(1)
    base, psi, y, start = (rng.standard_normal(s) for s in ((60,), (60, 5), (7, 60), (7, 5)))
    expected = []
    for i in range(7):  # weighted least squares by NumPy's own solver, the ridge as further rows
        w = np.sqrt(masks[i] / 60)
        trace = np.einsum("q,qk,qk->", masks[i], psi, psi) / 60
        pull = np.sqrt(closed.RIDGE * trace / 5 + 1e-12)
        rows = np.concatenate([w[:, None] * psi, pull * np.eye(5)])
        expected.append(np.linalg.lstsq(rows, np.concatenate([w * (y[i] - base), pull * start[i]]), rcond=None)[0])
    real, calls = closed._solved, []
    monkeypatch.setattr(closed, "_solved", lambda *a: calls.append(len(a[2])) or real(*a))
    found = ridge(to(base), to(psi), to(y), to(masks), to(start))
    assert np.allclose(np.asarray(found), expected, rtol=1e-9) and calls == [4, 2, 1]


def test_gradients_pass_through_shared_solves(masks):
    rng = np.random.default_rng(1)
    base, y, start, weight = (
        torch.from_numpy(v) for v in (rng.standard_normal(60), rng.standard_normal((7, 60)), np.zeros((7, 5)), masks)
    )
    psi = torch.from_numpy(rng.standard_normal((60, 5))).requires_grad_(True)
    (together,) = torch.autograd.grad(ridge(base, psi, y, weight, start).square().sum(), psi)
    alone = sum(
        torch.autograd.grad(ridge(base, psi, y[i : i + 1], weight[i : i + 1], start[i : i + 1]).square().sum(), psi)[0]
        for i in range(7)
    )
    assert torch.allclose(together, alone, rtol=1e-9)


def test_an_encoder_finds_of_a_masked_signal_what_it_finds_of_it_alone(masked, tmp_path):
    trained(masked, small(method="basis", meta={"steps": 40, "points": "all"}), tmp_path)
    model = load_model(tmp_path / "m" / "model.vcinr")
    at = ModelAt(model, masked.inputs)
    together = latents_of(at, masked, "test")
    y, weight = masked.normalised("test")
    alone = [find_latents(at, y[i : i + 1], weight[i : i + 1], np.zeros(1, int)) for i in range(12)]
    assert np.allclose(together, np.concatenate(alone), atol=1e-5)


def test_the_closed_forms_own_outer_loss_is_the_loss_at_its_latents(masks):
    rng = np.random.default_rng(1)
    spec = InrSpec(2, 2, 10, 4, 10.0, 5, "linear", 1, 0, 0)
    params = {k: torch.from_numpy(v).double().requires_grad_(True) for k, v in initialise(spec, 1, 1).items()}
    x, y = torch.from_numpy(rng.uniform(-1, 1, (60, 2))), torch.from_numpy(rng.uniform(0, 1, (7, 60, 2)))
    for weight in (None, torch.from_numpy(masks)):
        batch = Batch(x, y, weight, torch.zeros(7, dtype=torch.int64))
        names = [k for k, v in params.items() if k.startswith("siren")]
        own, general = (
            torch.autograd.grad(loss, [params[k] for k in names])
            for loss in (
                outer.meta_step(spec, params, batch, 1, "closed-form"),
                InnerLoop.outer_loss(inner_loop("closed-form"), spec, params, batch, 1),
            )
        )
        assert all(torch.allclose(a, b, rtol=1e-6, atol=1e-12) for a, b in zip(own, general, strict=True))


# --- Drawn points


def test_what_is_drawn_is_a_part_of_whole_signals(tiny_maps):
    where, index = np.array([3, 70, 71, 142]), np.array([5, 2, 30])
    y, weight = tiny_maps.sampled("train", index, where)
    whole = tiny_maps.normalised("train", index)[0][:, where]
    assert np.array_equal(y, whole) and y.strides[:2] == whole.strides[:2] and weight is None
    assert np.array_equal(
        tiny_maps.sampled("train", slice(4, 9), where)[0], tiny_maps.normalised("train")[0][4:9, where]
    )


def test_points_are_drawn_where_some_signal_has_a_value(masked):
    """With one mask they need no weights; with more, weights average to 1 over all known points."""
    known = masked.known_points("train")
    assert len(known) == 11 * 13 - 28
    assert set(drawn(np.random.default_rng(0), known, 40)) <= set(known)
    assert np.array_equal(drawn(np.random.default_rng(0), known, "all"), known)
    assert masked.sampled("train", slice(0, 5), known)[1] is None
    own = masked.splits["train"]
    mask = own.mask.copy()
    mask[1, 7:] = False
    two = replace(masked, splits={**masked.splits, "train": SignalSet(own.features, mask, own.variable)})
    y, weight = two.sampled("train", slice(0, 3), known)
    assert np.allclose(weight.mean(1), 1) and (weight[1] == 0).sum() == 4 * 13 and np.abs(y).max() <= 1
    batch = batch_of(two, "train", torch.from_numpy(two.inputs), slice(0, 3), known[:9])
    assert batch.weight.shape == (3, 9) and torch.equal(batch.x, torch.from_numpy(two.inputs[known[:9]]))


def test_a_masked_model_is_that_of_the_points_it_sees(masked, tmp_path):
    """Values on land change nothing, and all the rest is learned as if land were not there."""
    p = small(method="basis", meta={"steps": 200, "points": "all"})
    a = trained(masked, p, tmp_path)
    other = {k: SignalSet(np.where(s.mask[..., None], s.features, -1e9), s.mask, s.variable)
             for k, s in masked.splits.items()}  # fmt: skip
    b = trained(replace(masked, splits=other), p, tmp_path)
    assert a["sha256"] == b["sha256"] and a["valid_psnr_db"] > 45


# --- Early stop


def test_training_stops_when_held_out_quality_no_longer_grows(tiny_maps, tmp_path, monkeypatch):
    qualities = [30.0, 34.0, 35.0, 35.005, 34.9, 35.002, 36.0]
    monkeypatch.setattr(outer, "_judged", lambda *_: (20.0, *[qualities[len(seen)]] * 2))
    seen = []
    p = small(meta={"steps": 70, "validate_every": 10, "patience": 3})
    summary = trained(tiny_maps, p, tmp_path, watch=lambda q: "train_loss" in q.values and seen.append(q.step))
    assert summary["stopped"] == "patience" and summary["steps"] == 60 and summary["best_step"] == 40
    assert load_model(tmp_path / "m" / "model.vcinr").provenance["steps"] == 60
    again = trained(tiny_maps, p, tmp_path)  # a run that has stopped does not go on
    assert again == summary
    never = small(meta={"steps": 70, "validate_every": 10, "patience": 0})
    seen.clear()
    kept = trained(tiny_maps, never, tmp_path, watch=lambda q: "train_loss" in q.values and seen.append(q.step))
    assert kept["stopped"] == "steps" and kept["steps"] == 70 == kept["best_step"]


def test_slow_growth_is_growth(tiny_maps, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(outer, "_judged", lambda *_: (20.0, *[30.0 + 0.004 * len(seen)] * 2))
    p = small(meta={"steps": 90, "validate_every": 10, "patience": 3})
    summary = trained(tiny_maps, p, tmp_path, watch=lambda q: "train_loss" in q.values and seen.append(q.step))
    assert summary["stopped"] == "steps"


def test_a_collapse_before_the_first_regular_validation_is_undone(tiny_maps, tmp_path, monkeypatch):
    """The looks at steps 12 and 50 of 100 see good networks, that at 100 a constant one."""
    qualities = [30.0, 34.0, 18.0, 36.0]
    monkeypatch.setattr(outer, "_judged", lambda *_: (10.0, *[qualities[len(seen)]] * 2))
    seen = []
    p = small(meta={"steps": 200, "validate_every": 100})
    summary = trained(tiny_maps, p, tmp_path, watch=lambda q: seen.append(q.step))
    assert seen == [12, 50, 100, 200] and summary["restarts"] == 1
    assert [float(r["rate_factor"]) for r in history(tmp_path)] == [1, 1, 1, 0.5]


# --- Time budgets


def test_a_budget_ends_training_with_the_best_so_far(tiny_maps, tmp_path, clock):
    p = small(method="basis", meta={"steps": 1000, "validate_every": 500})
    summary = trained(tiny_maps, p, tmp_path, seconds=60.0)
    assert summary["stopped"] == "time" and summary["steps"] == 60 and summary["seconds"] == 60.0
    rows = history(tmp_path)
    assert len(rows) == 20 and rows[-1]["step"] == "60", "held-out signals are looked at in time"
    best = max(rows, key=lambda r: float(r["valid_psnr_db"]))
    assert summary["valid_psnr_db"] == pytest.approx(float(best["valid_psnr_db"]))
    facts = load_model(tmp_path / "m" / "model.vcinr").provenance
    assert facts["steps"] == 60 and facts["stopped"] == "time" and facts["best_step"] == int(best["step"])


def test_steps_end_before_a_long_budget_and_no_budget_is_deterministic(tiny_maps, tmp_path, clock):
    p = small(meta={"steps": 40})
    plain, long = (trained(tiny_maps, p, tmp_path / n, seconds=s) for n, s in (("a", None), ("b", 1e6)))
    assert plain["stopped"] == long["stopped"] == "steps" and plain["sha256"] == long["sha256"]


def test_rates_warm_up_and_decay_within_the_budget(clock):
    pace = Pace(1000, 50.0)
    factors = []
    for step in range(50):
        factors.append(schedule(pace.position(step), 1000, 100))
        clock.now += 1.0
    assert factors[0] < 0.02 and max(factors) > 0.9 and np.argmax(factors) in range(4, 8) and factors[-1] < 0.01
    assert pace.out_of_time and pace.position(50) == 1000
    assert Pace(1000).position(7) == 7 and not Pace(1000).out_of_time


def test_time_of_an_interrupted_run_counts(tiny_maps, tmp_path, clock):
    p = small(meta={"steps": 1000, "validate_every": 10})
    with pytest.raises(Stop):
        trained(tiny_maps, p, tmp_path, seconds=60.0, watch=stop_at(30))
    clock.now += 5000.0  # the break does not count
    seen = []
    summary = trained(tiny_maps, p, tmp_path, seconds=60.0, watch=lambda q: seen.append(q.step))
    # The last checkpoint before the interruption is that of step 27: looks are 3 s apart.
    assert seen[0] == 27 and summary["steps"] == 60 and summary["seconds"] == 60.0
    more = trained(tiny_maps, p, tmp_path, seconds=90.0)
    assert more["steps"] == 90, "a longer budget goes on"


def test_a_quantiser_in_a_budget_gives_every_rate_its_steps(tiny_maps, tiny_model, tiny_latents, monkeypatch):
    clock = Ticking()
    monkeypatch.setattr("vcinr.progress.time", SimpleNamespace(monotonic=clock.monotonic))
    from vcinr.quantise import variational

    real = variational.batch_of
    monkeypatch.setattr(variational, "batch_of", lambda *a: setattr(clock, "now", clock.now + 1.0) or real(*a))
    cfg = small(quantiser={"steps": 5000, "lambdas": [30.0, 300.0, 3000.0]}).quantiser
    made, rows = fit(replace(tiny_model, quantiser={}), tiny_maps, tiny_latents, cfg, seed=0, seconds=40.0)
    assert rows[-1]["step"] == 42 and made.provenance["quantiser"]["steps"] == 42


def test_minutes_are_shared_by_the_stages(tiny_maps, tmp_path, monkeypatch):
    """One call: the parts are less than the whole, and the model says what was done."""
    p = small(
        method="basis", meta={"steps": 100000, "patience": 0}, quantiser={"steps": 100000, "width": 0, "blocks": 0}
    )
    given = {}
    from vcinr import stages

    for name in ("meta_train", "train_quantiser"):
        real = getattr(stages, name)
        monkeypatch.setattr(
            stages, name, lambda *a, real=real, name=name, **k: given.update({name: k["seconds"]}) or real(*a, **k)
        )
    maps = tiny_maps.splits["train"].features[..., 0]
    data = xr.Dataset({"t": (("time", "lat", "lon"), maps)}, dict(zip(("lat", "lon"), tiny_maps.axes, strict=True)))
    model = vcinr.train(data, tmp_path / "m.vcinr", params=p.model_copy(update={"minutes": 0.1}))
    assert 0 < given["meta_train"] <= 0.7 * 6 and 0 < given["train_quantiser"] < 3
    assert model.provenance["stopped"] == "time" and 1 <= model.provenance["steps"] < 100000
    assert model.provenance["quantiser"]["steps"] < 100000
    json.dumps(dict(model.provenance))


def test_the_command_line_takes_minutes(tiny_model, monkeypatch):
    given = []
    monkeypatch.setattr("vcinr.training.train", lambda *a, params, **k: given.append(params) or tiny_model)
    monkeypatch.setattr("vcinr.training.usual_params", lambda *_: preset("basis"))
    for arguments in ([], ["--minutes", "5"]):
        done = CliRunner().invoke(app, ["train", "in.nc", "--out", "m.vcinr", *arguments])
        assert done.exit_code == 0, done.output
    assert given[0] is None and (given[1].method, given[1].minutes) == ("basis", 5.0)


def test_a_pipeline_divides_the_same_budget():
    p = Params(minutes=10)
    assert p.meta_seconds == 420 and p.quantiser_seconds == 90
    assert Params().meta_seconds is None and Params().quantiser_seconds is None
