"""Meta-learning: gradients through the inner loop, a living inner loop on real maps, resuming."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
import zarr

from tests.conftest import Stop, small, stop_at
from vcinr.inr.at import ModelAt
from vcinr.inr.model import load_model
from vcinr.inr.siren import basis, forward, initialise
from vcinr.inr.spec import InrSpec
from vcinr.meta.extract import find_latents
from vcinr.meta.inner import Batch, adapt, batch_of, signal_loss, solve
from vcinr.meta.outer import meta_step, meta_train, schedule
from vcinr.meta.principal import principal_axes

SPEC = InrSpec(2, 1, 10, 4, 10.0, 5, "gates", 2, 8, 1)


@pytest.fixture
def problem():
    rng = np.random.default_rng(0)
    params = {k: torch.from_numpy(v).double() for k, v in initialise(SPEC, 1, 2).items()}
    params["alpha"] = torch.full((5,), 3.0, dtype=torch.float64)
    x = torch.from_numpy(rng.uniform(-1, 1, (30, 2)))
    y = torch.from_numpy(rng.uniform(0, 1, (3, 30, 1)))
    return params, Batch(x, y, None, torch.tensor([0, 1, 0]))


@pytest.mark.parametrize("name", ["siren.1.weight", "gates.in.weight", "gates.out.bias", "phi_0", "alpha"])
def test_outer_gradient_flows_through_the_inner_loop(problem, name):
    """Second-order gradient against central finite differences, in float64."""
    params, batch = problem

    def loss(direction: torch.Tensor, size: float) -> float:
        moved = {**params, name: params[name] + size * direction}
        moved = {k: v.clone().requires_grad_(True) for k, v in moved.items()}
        return meta_step(SPEC, moved, batch, 3, "meta-sgd").item()

    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    meta_step(SPEC, leaves, batch, 3, "meta-sgd").backward()
    direction = torch.randn(params[name].shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    h = 1e-5
    numeric = (loss(direction, h) - loss(direction, -h)) / (2 * h)
    analytic = (leaves[name].grad * direction).sum().item()
    assert analytic == pytest.approx(numeric, rel=1e-4) and abs(analytic) > 1e-9


def test_first_order_gradient_would_differ(problem):
    """Guards the test above: were the inner loop detached, alpha would get no gradient at all."""
    params, batch = problem
    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    phi = adapt(SPEC, leaves, batch, 3, loop="meta-sgd", create_graph=False)
    signal_loss(SPEC, leaves, phi, batch).mean().backward()
    assert leaves["alpha"].grad is None and leaves["phi_0"].grad is None


def test_inner_step_is_the_gradient_scaled(problem):
    params, batch = problem
    phi = params["phi_0"][batch.variable].clone().requires_grad_(True)
    signal_loss(SPEC, params, phi, batch).sum().backward()
    by_hand = phi.detach() - params["alpha"] * phi.grad
    assert torch.allclose(adapt(SPEC, params, batch, 1, loop="meta-sgd", create_graph=False), by_hand, rtol=1e-12)


def test_a_signal_adapts_alike_alone_and_in_a_batch(problem):
    params, batch = problem
    together = adapt(SPEC, params, batch, 3, loop="meta-sgd", create_graph=False)
    one = [replace(batch, y=batch.y[i : i + 1], variable=batch.variable[i : i + 1]) for i in range(3)]
    alone = torch.cat([adapt(SPEC, params, b, 3, loop="meta-sgd", create_graph=False) for b in one])
    assert torch.allclose(together, alone, atol=1e-10)


def test_masked_points_do_not_matter(problem):
    params, batch = problem
    weight = torch.ones(3, 30, dtype=torch.float64)
    weight[:, :10] = 0
    weight = weight / weight.mean(1, keepdim=True)
    other = batch.y.clone()
    other[:, :10] = 77.0
    batches = [replace(batch, y=y, weight=weight) for y in (batch.y, other)]
    a, b = (adapt(SPEC, params, one, 3, loop="meta-sgd", create_graph=False) for one in batches)
    assert torch.equal(a, b)


def test_schedule_warms_up_and_decays():
    values = [schedule(s, 1000, 100) for s in range(1000)]
    assert values[0] < 0.02 and max(values) > 0.95 and values[-1] < 1e-4
    assert np.argmax(values) in range(95, 105)


def test_inner_loop_is_alive_on_real_maps(hadgem_run):
    """Adaptation gains at least 10 dB over phi_0 on held-out maps; a dead inner loop stays at the mean map."""
    group = zarr.open_group(hadgem_run["modulations"], mode="r")["valid"]
    gain = group["psnr_db"][...].mean() - group["psnr_phi_0_db"][...].mean()
    assert gain >= 10.0
    assert group["phi"].shape == (24, 32) and np.isfinite(group["phi"][...]).all()
    test = zarr.open_group(hadgem_run["modulations"], mode="r")["test"]
    assert test["psnr_db"][...].mean() > 31.0


def test_stored_psnr_is_that_of_the_numpy_decoder(hadgem_run, hadgem_signals):
    group = zarr.open_group(hadgem_run["modulations"], mode="r")["test"]
    model = load_model(hadgem_run["trained"])
    y, _ = hadgem_signals.normalised("test", slice(0, 3))
    decoded = ModelAt(model, hadgem_signals.inputs).reconstruct(group["phi"][:3])
    psnr = -10 * np.log10(((decoded - y) ** 2).mean((1, 2)))
    assert np.allclose(psnr, group["psnr_db"][:3], atol=0.01)


def test_more_steps_at_encode_time_help(hadgem_run, hadgem_signals):
    model = load_model(hadgem_run["trained"])
    y, _ = hadgem_signals.normalised("test", slice(0, 8))
    error = []
    for steps in (1, 4):
        phi = find_latents(ModelAt(model, hadgem_signals.inputs), y, None, np.zeros(8, int), steps=steps)
        error.append(((ModelAt(model, hadgem_signals.inputs).reconstruct(phi) - y) ** 2).mean())
    assert error[1] < error[0]


def test_interrupted_training_resumes_and_ends_the_same(tiny_maps, tmp_path):
    p = small()

    def run(folder, watch=lambda _: None):
        return meta_train(
            tiny_maps, p.inr, p.meta, seed=3, threads=1, out=tmp_path / folder, checkpoint=tmp_path / f"{folder}.ck",
            watch=watch,
        )  # fmt: skip

    whole = run("whole")

    with pytest.raises(Stop):
        run("broken", stop_at(80))
    assert not (tmp_path / "broken").exists()
    seen = []
    # The interruption came between two checkpoints: the run goes on from the one before it.
    resumed = run("broken", lambda q: seen.append(q.step))
    assert seen[0] == 40 and resumed["sha256"] == whole["sha256"]
    with open(tmp_path / "broken" / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["step"]) for r in rows] == [40, 80, 120]


def test_a_checkpoint_of_another_run_is_not_taken_up(tiny_maps, tmp_path):
    p = small(meta={"steps": 40})
    a = meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "a", checkpoint=tmp_path / "c")
    b = meta_train(tiny_maps, p.inr, p.meta, seed=1, threads=1, out=tmp_path / "b", checkpoint=tmp_path / "c")
    assert a["sha256"] != b["sha256"]
    (tmp_path / "c").write_bytes(b"no checkpoint")
    again = meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "a2", checkpoint=tmp_path / "c")
    assert again["sha256"] == a["sha256"]


def test_a_checkpoint_of_other_coordinates_is_not_taken_up(tiny_maps, tmp_path):
    p = small(meta={"steps": 20})
    turned = replace(tiny_maps, axes=(tiny_maps.axes[0][::-1].copy(), tiny_maps.axes[1]))
    found = [
        meta_train(data, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / name)["sha256"]
        for data, name in ((tiny_maps, "c"), (turned, "c"), (turned, "d"))
    ]
    assert found[1] == found[2] != found[0]


def test_a_collapse_goes_back_to_the_best_at_a_lower_rate(tiny_maps, tmp_path, monkeypatch):
    """The third of five validations reports a collapse: training goes on from the best, and ends alive."""
    from vcinr.meta import outer

    real, calls = outer.validate, []

    def validate(spec, parameters, batch, steps, loop):
        calls.append(steps)
        fallen = steps > 0 and sum(s > 0 for s in calls) == 3
        return 5.0 if fallen else real(spec, parameters, batch, steps, loop)

    monkeypatch.setattr(outer, "validate", validate)
    p = small(meta={"steps": 300, "validate_every": 60})
    summary = meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c")
    with open(tmp_path / "m" / "history.csv") as file:
        factors = [float(r["rate_factor"]) for r in csv.DictReader(file)]
    assert factors[3:] == [factors[2] / 2] * 2 and summary["restarts"] >= 1


def test_a_dead_start_is_begun_again_more_gently(tiny_maps, tmp_path):
    """Far too large rates kill the inner loop; it must come alive by itself."""
    p = small(meta={"steps": 240, "validate_every": 30, "outer_rate": 0.05, "inner_rate": 3000.0})
    summary = meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c")
    assert summary["restarts"] >= 1


def test_variables_start_from_their_own_phi_0(tiny_model):
    from dataclasses import replace as changed

    params = {**tiny_model.params, "phi_0": np.stack([np.zeros(8, "f4"), np.ones(8, "f4")])}
    two = changed(tiny_model, params=params, normalisation={"z": (0.0, 1.0), "a": (5.0, 2.0)})
    from vcinr.inr.model import from_bytes

    back = from_bytes(two.data, "test")
    assert list(back.normalisation) == ["z", "a"] and back.start("a")[0] == 1 and back.start("z")[0] == 0


def linear_maps(tiny_maps, **changes):
    """A linear head and its parameters as tensors, with a batch of signals."""
    spec = InrSpec(2, 1, 16, 4, 30.0, 5, "linear", 1, 1, 0)
    params = {k: torch.tensor(v, dtype=torch.float64) for k, v in initialise(spec, 0).items()}
    params["phi_0"] = torch.full((1, 5), 0.3, dtype=torch.float64)
    x = torch.from_numpy(tiny_maps.inputs)
    batch = batch_of(tiny_maps, "train", x, slice(0, 6))
    return spec, params, Batch(batch.x.double(), batch.y.double(), None, batch.variable)


def test_closed_form_is_the_minimum_of_the_inner_loss(tiny_maps):
    spec, params, batch = linear_maps(tiny_maps)
    phi = solve(spec, params, batch).requires_grad_(True)
    (gradient,) = torch.autograd.grad(signal_loss(spec, params, phi, batch).sum(), phi)
    far = torch.zeros_like(phi).requires_grad_(True)
    (before,) = torch.autograd.grad(signal_loss(spec, params, far, batch).sum(), far)
    assert gradient.abs().max() < 1e-3 * before.abs().max(), "zero but for the ridge"
    assert torch.equal(adapt(spec, params, batch, 3, loop="closed-form", create_graph=False), phi.detach())
    assert torch.equal(
        adapt(spec, params, batch, 0, loop="closed-form", create_graph=False), params["phi_0"][batch.variable]
    )


def test_closed_form_weighs_points(tiny_maps):
    spec, params, batch = linear_maps(tiny_maps)
    half = torch.zeros(batch.y.shape[:2], dtype=torch.float64)
    half[:, ::2] = 2.0
    garbled = batch.y.clone()
    garbled[:, 1::2] = 7.0
    found = solve(spec, params, Batch(batch.x, garbled, half, batch.variable))
    alone = solve(spec, params, Batch(batch.x[::2], batch.y[:, ::2], None, batch.variable))
    assert torch.allclose(found, alone, atol=1e-3)
    even = Batch(batch.x, batch.y, torch.ones_like(half), batch.variable)
    assert torch.allclose(solve(spec, params, even), solve(spec, params, batch))


def test_outer_gradient_passes_through_the_solve(tiny_maps):
    spec, params, batch = linear_maps(tiny_maps)
    name, where, eps = "siren.2.weight", (3, 4), 1e-6
    params = {k: v.requires_grad_(True) for k, v in params.items()}
    loss = meta_step(spec, params, batch, 1, "closed-form")
    (gradient,) = torch.autograd.grad(loss, params[name])
    values = []
    for sign in (1, -1):
        moved = {k: v.detach().clone() for k, v in params.items()}
        moved[name][where] += sign * eps
        values.append(float(meta_step(spec, moved, batch, 1, "closed-form")))
    assert float(gradient[where]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-3, abs=1e-9)


def test_principal_axes_change_the_latents_and_nothing_else(tiny_maps):
    spec, params, batch = linear_maps(tiny_maps)
    arrays = {k: v.detach().numpy().astype(np.float32) for k, v in params.items()}
    phi = solve(spec, params, batch).detach().numpy()
    turned = principal_axes(spec, arrays, tiny_maps.inputs, phi, np.zeros(6, int))
    psi = basis(spec, turned, tiny_maps.inputs)[1][:, 0].astype(np.float64)
    assert np.allclose(psi.T @ psi / len(psi), np.eye(5), atol=1e-3), "orthonormal"
    tensors = {k: torch.tensor(v, dtype=torch.float64) for k, v in turned.items()}
    latents = solve(spec, tensors, batch).numpy()
    moved = latents - turned["phi_0"]
    covariance = moved.T @ moved
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2 * np.diag(covariance).max(), "uncorrelated"
    assert (np.diff(np.diag(covariance)) <= 1e-9).all() and np.abs(moved.mean(0)).max() < 1e-2
    before = forward(spec, params, torch.from_numpy(phi), batch.x)
    after = forward(spec, tensors, torch.from_numpy(latents), batch.x)
    assert torch.allclose(before, after, atol=1e-3)


def test_linear_head_learns_and_decodes(tiny_maps, tmp_path):
    p = small(method="basis", meta={"steps": 200, "batch": 16, "points": "all", "outer_rate": 3e-3})
    meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c")
    model = load_model(tmp_path / "m" / "model.vcinr")
    y, _ = tiny_maps.normalised("test")
    phi = find_latents(ModelAt(model, tiny_maps.inputs), y, None, np.zeros(len(y), int))
    decoded = ModelAt(model, tiny_maps.inputs).reconstruct(phi)
    assert -10 * np.log10(np.square(decoded - y).mean()) > 45.0, "two patterns need two latents"
    one = np.concatenate([ModelAt(model, tiny_maps.inputs).reconstruct(phi[i : i + 1]) for i in range(len(phi))])
    assert np.abs(one - decoded).max() < model.slack / 2, "a signal depends on its batch by rounding alone"
    tensors = {k: torch.from_numpy(v) for k, v in model.params.items()}
    there = forward(model.spec, tensors, torch.from_numpy(phi), torch.from_numpy(tiny_maps.inputs))
    assert np.allclose(there, decoded, atol=1e-5)
