"""Every method of the family: its defining equation, its published values, its way through training and the codec."""

import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
import xarray as xr

import vcinr
from tests.conftest import Stop, small, stop_at
from vcinr import config
from vcinr.errors import ConfigError
from vcinr.inr import model as artifact
from vcinr.inr.at import ModelAt
from vcinr.inr.conditioning import conditioning
from vcinr.inr.conditioning.shifts import size
from vcinr.inr.conditioning.sparse import BETA, GAMMA, ZETA, hard_concrete, open_probability
from vcinr.inr.model import load_model
from vcinr.inr.siren import forward, initialise
from vcinr.inr.spec import InrSpec
from vcinr.meta.extract import find_latents
from vcinr.meta.inner import Batch, adapt, inner_loop, signal_loss
from vcinr.meta.outer import meta_step, meta_train, spec_of

BASE = InrSpec(2, 1, 10, 4, 10.0, 5, "shifts", 2, 0, 0)
TRAINED = {"coinpp": "shifts", "functa": "shifts", "mscn": "sparse", "coin": "weights", "gated-basis": "gated-basis"}


def problem(spec: InrSpec) -> tuple[dict[str, torch.Tensor], Batch]:
    """A network's parameters and three signals, float64."""
    rng = np.random.default_rng(0)
    params = {k: torch.from_numpy(v).double() for k, v in initialise(spec, 1, 2).items()}
    params["alpha"] = torch.full((spec.latent,), 3.0, dtype=torch.float64)
    x, y = torch.from_numpy(rng.uniform(-1, 1, (30, 2))), torch.from_numpy(rng.uniform(0, 1, (3, 30, 1)))
    return params, Batch(x, y, None, torch.tensor([0, 1, 0]))


def by_hand(spec, params, x, shifts=None, weights=None):
    """A SIREN in plain loops; shifts ``[L - 1, m]``, or (weight, bias) to add in each layer."""
    h = x
    for k in range(spec.depth):
        w, b = params[f"siren.{k}.weight"], params[f"siren.{k}.bias"]
        if weights is not None:
            w, b = w + weights[k][0], b + weights[k][1]
        h = h @ w.T + b
        if k < spec.depth - 1:
            h = np.sin(spec.omega_0 * (h + (0 if shifts is None else shifts[k])))
    return h


# --- defining equations


def test_shifts_are_a_linear_map_added_before_every_sine():
    """COIN++: sin(omega_0 (W h + b + s)), s = M phi + c, all sine layers, none at phi = 0 as long as c is."""
    params = {k: v.astype("f8") for k, v in initialise(BASE, 3).items()}
    x, phi = np.random.default_rng(0).uniform(-1, 1, (9, 2)), np.random.default_rng(1).standard_normal((2, 5))
    out = forward(BASE, params, phi, x)
    for b in range(2):
        shifts = (params["shifts.out.weight"] @ phi[b] + params["shifts.out.bias"]).reshape(3, 10)
        assert np.allclose(out[b], by_hand(BASE, params, x, shifts=shifts))
    assert np.allclose(forward(BASE, params, 0 * phi[:1], x)[0], by_hand(BASE, params, x))
    assert not np.allclose(out[0], out[1])


def test_a_shift_network_may_be_residual():
    spec = replace(BASE, mapping_width=7, mapping_blocks=2)
    params = {k: v.astype("f8") for k, v in initialise(spec, 3).items()}
    x, phi = np.zeros((1, 2)), np.random.default_rng(1).standard_normal((1, 5))
    straight = [forward(spec, params, s * phi, x)[0, 0, 0] for s in (-1, 0, 1)]
    assert "shifts.block.1.weight_2" in params and not np.isclose(straight[0] - straight[1], straight[1] - straight[2])


def test_all_weights_are_modulated_in_coin():
    """COIN: phi is a network's weights and biases, beside a start that signals share."""
    spec = conditioning("weights").training(replace(BASE, conditioning="weights"))
    assert spec.latent == (2 + 1) * 10 + 2 * (10 + 1) * 10 + 11
    params = {k: v.astype("f8") for k, v in initialise(spec, 3).items()}
    x, phi = np.random.default_rng(0).uniform(-1, 1, (9, 2)), np.random.default_rng(1).standard_normal((1, spec.latent))
    changes, rest = [], phi[0]
    for out, fan_in in ((10, 2), (10, 10), (10, 10), (1, 10)):
        changes.append((rest[: out * fan_in].reshape(out, fan_in), rest[out * fan_in : out * fan_in + out]))
        rest = rest[out * fan_in + out :]
    assert np.allclose(forward(spec, params, phi, x)[0], by_hand(spec, params, x, weights=changes))


def test_hard_concrete_gates():
    """Louizos et al. 2018, equations 10 to 13: the open probability against draws, the deterministic gate by hand."""
    log_alpha = torch.tensor([-3.0, -0.5, 0.0, 2.0], dtype=torch.float64)
    noise = torch.from_numpy(np.random.default_rng(0).uniform(1e-6, 1 - 1e-6, (200_000, 4)))
    z = hard_concrete(log_alpha, noise)
    assert z.min() == 0 and z.max() == 1 and ((z > 0) & (z < 1)).any()
    assert torch.allclose((z > 0).double().mean(0), open_probability(log_alpha), atol=4e-3)
    closed = 1 / (1 + np.exp(-(log_alpha.numpy() - BETA * np.log(-GAMMA / ZETA))))
    assert np.allclose(open_probability(log_alpha).numpy(), closed)
    sigmoid = 1 / (1 + np.exp(-log_alpha.numpy()))
    assert np.allclose(hard_concrete(log_alpha.numpy()), np.clip(sigmoid * (ZETA - GAMMA) + GAMMA, 0, 1))


def sparse_spec() -> InrSpec:
    return conditioning("sparse").training(replace(BASE, conditioning="sparse", latent=6))


def test_the_l0_penalty_is_the_expected_share_beyond_what_is_kept():
    spec, cond = sparse_spec(), conditioning("sparse")
    assert spec.latent == size(spec) == 30 and spec.kept == 6
    params, _ = problem(spec)
    params["sparse.log_alpha"] = torch.full((30,), 0.1, dtype=torch.float64, requires_grad=True)
    relaxed, penalty = cond.relax(spec, params, np.random.default_rng(0))
    share = 1 / (1 + np.exp(-(1.0 - BETA * np.log(-GAMMA / ZETA))))  # log alpha in its unit of 10
    assert penalty.item() == pytest.approx(0.1 * (share - 6 / 30))
    assert torch.autograd.grad(penalty, params["sparse.log_alpha"], retain_graph=True)[0].min() > 0, "it closes gates"
    again = cond.relax(spec, params, np.random.default_rng(0))[0]["sparse.gate"]
    assert torch.equal(again, relaxed["sparse.gate"]), "drawn from the run's own generator"
    params["sparse.log_alpha"] = torch.full((30,), -1.0, dtype=torch.float64)
    assert cond.relax(spec, params, np.random.default_rng(0))[1] == 0


def test_a_finished_sparse_model_keeps_the_most_open_gates():
    spec, cond = sparse_spec(), conditioning("sparse")
    arrays = {k: v.numpy() for k, v in problem(spec)[0].items()}
    arrays["sparse.log_alpha"] = np.random.default_rng(0).standard_normal(30)
    found, finished = cond.finish(spec, arrays)
    cond.check(found, finished)
    most = np.sort(np.argsort(-arrays["sparse.log_alpha"])[:6])
    assert found.latent == 6 and {k: v.shape for k, v in finished.items() if "sparse" in k} == cond.shapes(found)
    phi, x = np.random.default_rng(1).standard_normal((1, 6)), np.zeros((4, 2))
    shifts = np.zeros(30)
    shifts[most] = phi[0] * hard_concrete(10 * arrays["sparse.log_alpha"][most])
    assert np.allclose(forward(found, finished, phi, x)[0], by_hand(found, finished, x, shifts=shifts.reshape(3, 10)))
    with pytest.raises(ValueError, match="outside phi"):
        cond.check(found, {**finished, "sparse.position": finished["sparse.position"] + 1})
    with pytest.raises(ConfigError, match="31 of 30 shifts"):
        cond.training(replace(BASE, conditioning="sparse", latent=31))


def gated_spec() -> InrSpec:
    return replace(BASE, conditioning="gated-basis", gating=2, mapping_width=8, mapping_blocks=1)


def test_a_gated_basis_is_linear_in_its_head_alone():
    spec = gated_spec()
    params = {k: v.astype("f8") for k, v in initialise(spec, 3).items()}
    x, rng = np.random.default_rng(0).uniform(-1, 1, (9, 2)), np.random.default_rng(1)
    a, b = rng.standard_normal((2, 1, 5))
    b[:, :2] = a[:, :2]
    middle = forward(spec, params, (a + b) / 2, x)
    assert np.allclose(middle, (forward(spec, params, a, x) + forward(spec, params, b, x)) / 2)
    b[:, :2] += 1
    assert not np.allclose(
        forward(spec, params, (a + b) / 2, x), (forward(spec, params, a, x) + forward(spec, params, b, x)) / 2
    )
    with pytest.raises(ConfigError, match=r"inr\.gating: 5 of 5"):
        conditioning("gated-basis").training(replace(spec, gating=5))


def test_gates_at_phi_zero_are_those_of_the_biases():
    """VC-INR: at phi = 0 and no residual blocks, G = sigmoid(U V^T) of the output bias alone."""
    spec = replace(BASE, conditioning="gates", mapping_width=0)
    params = {k: v.astype("f8") for k, v in initialise(spec, 3).items()}
    gates = conditioning("gates").modulate(spec, params, np.zeros((1, 5)))
    u, v = np.moveaxis(params["gates.out.bias"].reshape(2, 2, 10, 2), 1, 0)
    assert np.allclose(gates[:, 0], 1 / (1 + np.exp(-(u @ v.swapaxes(-1, -2)))))


# --- inner loops


@pytest.mark.parametrize("loop", ["maml", "meta-sgd"])
def test_second_order_loops_take_scaled_gradient_steps(loop):
    params, batch = problem(BASE)
    phi = params["phi_0"][batch.variable].clone()
    for _ in range(2):
        phi = phi.detach().requires_grad_(True)
        signal_loss(BASE, params, phi, batch).sum().backward()
        phi = phi - params["alpha"] * phi.grad
    assert torch.allclose(adapt(BASE, params, batch, 2, loop=loop, create_graph=False), phi)
    assert inner_loop(loop).learns_rates == (loop == "meta-sgd")


def test_first_order_takes_the_inner_gradient_as_a_constant():
    """Its outer gradient with respect to phi_0 is that at the adapted phi; MAML's has the Hessian in it."""
    params, batch = problem(BASE)
    params["phi_0"].requires_grad_(True)
    found = {}
    for loop in ("first-order", "meta-sgd"):
        (found[loop],) = torch.autograd.grad(meta_step(BASE, params, batch, 2, loop), params["phi_0"])
    phi = adapt(BASE, params, batch, 2, loop="first-order", create_graph=False).requires_grad_(True)
    (at_phi,) = torch.autograd.grad(signal_loss(BASE, params, phi, batch).mean(), phi)
    assert torch.allclose(found["first-order"][0], at_phi[0] + at_phi[2])
    assert not torch.allclose(found["first-order"], found["meta-sgd"], rtol=1e-3)


def test_refinement_never_makes_a_signal_worse():
    params, batch = problem(BASE)
    params["alpha"] *= 300  # far too large
    before = signal_loss(BASE, params, params["phi_0"][batch.variable], batch)
    losses = [
        signal_loss(BASE, params, adapt(BASE, params, batch, n, loop="refine", create_graph=False), batch)
        for n in (0, 1, 10, 40)
    ]
    assert torch.equal(losses[0], before) and all((b <= a).all() for a, b in pairwise(losses))
    plain = signal_loss(BASE, params, adapt(BASE, params, batch, 10, loop="maml", create_graph=False), batch)
    assert (plain > before).any() and (losses[3] < 0.9 * before).all()


def test_adam_is_torchs_adam():
    spec = conditioning("weights").training(replace(BASE, conditioning="weights"))
    params, batch = problem(spec)
    params["alpha"] = torch.full_like(params["alpha"], 0.01)
    phi = params["phi_0"][batch.variable].clone().requires_grad_(True)
    optimiser = torch.optim.Adam([phi], lr=0.01)
    for step in range(5):
        optimiser.param_groups[0]["lr"] = 0.01 * (1 - step / 5)
        optimiser.zero_grad()
        signal_loss(spec, params, phi, batch).sum().backward()
        optimiser.step()
    assert torch.allclose(adapt(spec, params, batch, 5, loop="adam", create_graph=False), phi)


def test_projection_solves_for_the_head_at_every_step():
    spec = gated_spec()
    params, batch = problem(spec)
    phi = adapt(spec, params, batch, 3, loop="projected", create_graph=False).requires_grad_(True)
    (gradient,) = torch.autograd.grad(signal_loss(spec, params, phi, batch).sum(), phi)
    start = params["phi_0"][batch.variable].requires_grad_(True)
    (before,) = torch.autograd.grad(signal_loss(spec, params, start, batch).sum(), start)
    assert gradient[:, 2:].abs().max() < 1e-3 * before[:, 2:].abs().max(), "zero but for the ridge"
    one = adapt(spec, params, batch, 1, loop="projected", create_graph=False)
    assert (signal_loss(spec, params, phi, batch) < signal_loss(spec, params, one, batch)).all()


def test_the_outer_gradient_passes_through_the_projection():
    spec, name, where, eps = gated_spec(), "siren.2.weight", (3, 4), 1e-6
    params, batch = problem(spec)
    leaves = {k: v.clone().requires_grad_(True) for k, v in params.items()}
    (gradient,) = torch.autograd.grad(meta_step(spec, leaves, batch, 2, "projected"), leaves[name])
    values = []
    for sign in (1, -1):
        moved = {k: v.clone() for k, v in params.items()}
        moved[name][where] += sign * eps
        values.append(meta_step(spec, moved, batch, 2, "projected").item())
    assert float(gradient[where]) == pytest.approx((values[0] - values[1]) / (2 * eps), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("loop", "message"), [("closed-form", "linear, not shifts"), ("projected", "gated-basis")])
def test_loops_that_do_not_fit_say_so(loop, message):
    params, batch = problem(BASE)
    with pytest.raises(ConfigError, match=message):
        adapt(BASE, params, batch, 1, loop=loop, create_graph=False)


# --- presets


def test_published_values_can_be_set_exactly():
    vcinr = config.preset("vcinr", "gpu")
    assert (vcinr.inr.width, vcinr.inr.depth, vcinr.inr.latent, vcinr.inr.rank) == (384, 10, 1024, 5)
    assert (vcinr.inr.mapping_width, vcinr.inr.mapping_blocks, vcinr.inr.omega_0) == (512, 2, 30.0)
    assert (vcinr.meta.inner_steps, vcinr.meta.outer_rate, vcinr.meta.batch) == (3, 3e-6, 32)
    coinpp = config.preset("coinpp", "gpu")
    assert (coinpp.inr.omega_0, coinpp.meta.inner_rates, coinpp.meta.phi_0) == (50.0, (0.01, 0.01), "zero")
    functa = config.preset("functa", "gpu")
    assert (functa.inr.width, functa.inr.depth, functa.meta.inner) == (512, 15, "meta-sgd")
    assert (functa.meta.inner_rates, functa.meta.inner_rate_max) == ((0.005, 0.1), 1.0)
    shapes = initialise(spec_of(vcinr.inr, 3, 1), 0)
    assert shapes["gates.out.weight"].shape == (8 * 2 * 384 * 5, 512) and shapes["phi_0"].shape == (1, 1024)


def test_given_values_go_before_the_methods_and_null_does_not():
    p = config.parse({"method": "functa", "inr": {"width": 8, "latent": None}, "meta": {"points": "all"}}, "here")
    assert (p.inr.width, p.inr.latent, p.inr.conditioning, p.meta.points) == (8, 64, "shifts", "all")
    assert config.parse({}, "here") == config.preset("basis") == config.Params()
    with pytest.raises(ConfigError, match=r"here: method: unknown 'coin\+\+'; known: basis, vcinr, coinpp"):
        config.parse({"method": "coin++"}, "here")


# --- through training and the codec


def tiny(method: str) -> config.Params:
    inr = {"width": 24, "latent": 8, "gating": 3, "mapping_width": 16, "mapping_blocks": 1}
    return small(
        method=method,
        inr={**inr, **({"mapping_width": 0} if TRAINED[method] == "shifts" else {}),
             **({"width": 8} if method == "coin" else {})},
        meta={"steps": {"coin": 0, "mscn": 800}.get(method, 200), "encode_steps": 400 if method == "coin" else 5},
    )  # fmt: skip


@pytest.mark.parametrize("method", list(TRAINED))
def test_every_method_learns(method, tiny_maps, tmp_path):
    p = tiny(method)
    assert p.inr.conditioning == TRAINED[method]
    meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c")
    model = load_model(tmp_path / "m" / "model.vcinr")
    y, _ = tiny_maps.normalised("test")
    phi = find_latents(ModelAt(model, tiny_maps.inputs), y, None, np.zeros(len(y), int))
    assert phi.shape == (12, model.spec.latent) and (method == "coin" or model.spec.latent == 8)
    decoded = ModelAt(model, tiny_maps.inputs).reconstruct(phi)
    start = ModelAt(model, tiny_maps.inputs).reconstruct(model.params["phi_0"])
    db, before = (-10 * np.log10(np.square(v - y).mean()) for v in (decoded, start))
    assert db > before + 6 and db > 25, (db, before)
    tensors = {k: torch.from_numpy(v) for k, v in model.params.items()}
    there = forward(model.spec, tensors, torch.from_numpy(phi), torch.from_numpy(tiny_maps.inputs))
    assert np.abs(there.numpy() - decoded).max() < artifact.DELTA, "torch and NumPy agree within the codec's slack"


@pytest.mark.parametrize("method", list(TRAINED))
def test_every_method_compresses(method, tiny_maps, tmp_path):
    """From a data set to a model, to an archive that keeps its bound."""
    field, data = maps(tiny_maps)
    p = tiny(method)
    few = {"steps": min(p.meta.steps, 40), "encode_steps": min(p.meta.encode_steps, 60)}
    p = p.model_copy(update={"meta": p.meta.model_copy(update=few)})
    vcinr.train(data, tmp_path / "m.vcinr", params=p)
    model = vcinr.load_model(tmp_path / "m.vcinr")
    assert model.spec.conditioning == TRAINED[method]
    assert (
        model.provenance["quantiser"]["kind"]
        == p.quantiser.kind
        == ("uniform" if method != "gated-basis" else "factorised")
    )
    vcinr.compress(data, tmp_path / "out.zarr", model=model, abs_error=0.5)
    assert vcinr.verify(tmp_path / "out.zarr", data)[0] == []
    assert np.abs(xr.open_zarr(tmp_path / "out.zarr")["t"].values - field).max() <= 0.5


def maps(tiny_maps) -> tuple[np.ndarray, xr.Dataset]:
    """The first maps, as values and as a data set."""
    field = tiny_maps.splits["train"].features[:20, ..., 0]
    axes = dict(zip(("lat", "lon"), tiny_maps.axes, strict=True))
    return field, xr.Dataset({"t": (("time", "lat", "lon"), field)}, axes)


def test_the_command_line_takes_a_method_by_name(tiny_maps, tmp_path):
    maps(tiny_maps)[1].to_netcdf(tmp_path / "in.nc")
    command = [sys.executable, "-m", "vcinr.cli", "train", "in.nc", "--out", "m.vcinr", "--steps", "2"]
    done = subprocess.run([*command, "--method", "functa"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert load_model(tmp_path / "m.vcinr").spec.conditioning == "shifts"
    done = subprocess.run([*command, "--method", "nonsense"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "known: basis, vcinr" in done.stderr
    done = subprocess.run(
        [*command, "--method", "functa", "--params", "p.yaml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1 and "leave out --method" in done.stderr


@pytest.mark.parametrize("method", ["basis", "vcinr", "mscn"])
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_trains_what_a_cpu_reads(method, tiny_maps, tmp_path):
    data = maps(tiny_maps)[1]
    p = small(method=method, meta={"steps": 60}).model_copy(update={"device": "cuda"})
    vcinr.train(data, tmp_path / "m.vcinr", params=p)
    vcinr.compress(data, tmp_path / "out.zarr", model=vcinr.load_model(tmp_path / "m.vcinr"), abs_error=0.5)
    assert vcinr.verify(tmp_path / "out.zarr", data)[0] == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_named(tiny_maps, tmp_path):
    p = small(meta={"steps": 2})
    with pytest.raises(ConfigError, match="device: cuda, but torch sees no such GPU"):
        meta_train(
            tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c", device="cuda"
        )


# --- choices that another package adds


@pytest.fixture
def outside(tmp_path, monkeypatch, plugins_anew):
    """A package beside vcinr that adds a conditioning and an inner loop by entry points."""
    (tmp_path / "outside_vcinr.py").write_text(
        "from vcinr.inr.conditioning import Conditioning\n"
        "from vcinr.meta.inner import inner_loop\n"
        "class Scale(Conditioning):\n"
        "    title = 'scaled features'\n"
        "    def output(self, spec, modulation, h, weight, bias):\n"
        "        return (1 + modulation.sum(-1))[:, None, None] * super().output(spec, modulation, h, weight, bias)\n"
        "SCALE, TWICE = Scale(), lambda s, p, b, n, *, create_graph: inner_loop('maml')(s, p, b, 2 * n, "
        "create_graph=create_graph)\n"
        "TWICE.learns_rates = False\n"
    )
    info = tmp_path / "outside_vcinr-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-vcinr\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[vcinr.conditionings]\nscale = outside_vcinr:SCALE\nbroken = outside_vcinr:NOTHING\n"
        "[vcinr.inner_loops]\ntwice = outside_vcinr:TWICE\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("outside_vcinr", None)


def test_another_package_adds_choices(outside, tiny_maps, tmp_path):
    p = small(inr={"conditioning": "scale"}, meta={"inner": "twice", "inner_rate": 0.3, "steps": 60})
    meta_train(tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / "m", checkpoint=tmp_path / "c")
    model = load_model(tmp_path / "m" / "model.vcinr")
    assert model.provenance["method"] == "scaled features" and model.encode_loop == "twice"
    y, _ = tiny_maps.normalised("test")
    phi = find_latents(ModelAt(model, tiny_maps.inputs), y, None, np.zeros(len(y), int))
    before = np.square(ModelAt(model, tiny_maps.inputs).reconstruct(model.params["phi_0"]) - y).mean()
    assert np.square(ModelAt(model, tiny_maps.inputs).reconstruct(phi) - y).mean() < before
    with pytest.raises(ConfigError, match=r"vcinr\.conditionings: 'broken' of outside_vcinr:NOTHING cannot be loaded"):
        conditioning("broken")


def test_unknown_choices_name_the_known():
    with pytest.raises(ConfigError, match=r"unknown 'nonsense'; known: .*gates.*shifts"):
        conditioning("nonsense")
    with pytest.raises(ConfigError, match=r"unknown 'nonsense'; known: .*maml.*closed-form"):
        inner_loop("nonsense")


def test_a_checkpointed_sparse_run_resumes_alike(tiny_maps, tmp_path):
    """Its gates are drawn from the run's own generator, which the checkpoint holds."""
    p = small(method="mscn", inr={"latent": 8}, meta={"steps": 80, "validate_every": 20})

    def run(name, watch=lambda _: None):
        return meta_train(
            tiny_maps, p.inr, p.meta, seed=0, threads=1, out=tmp_path / name, checkpoint=tmp_path / f"{name}.c",
            watch=watch,
        )  # fmt: skip

    whole = run("whole")
    with pytest.raises(Stop):
        run("cut", stop_at(60))
    assert run("cut")["sha256"] == whole["sha256"]
