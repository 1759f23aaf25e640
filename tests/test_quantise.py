"""Quantiser: rate against coded length on real latents, noise and rounding, tables, rate-distortion."""

from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import EntryPoint, EntryPoints
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

import vcinr
from tests.conftest import small
from vcinr import config, plugins
from vcinr.codec.decode import decode
from vcinr.codec.encode import encode
from vcinr.codec.promise import Field
from vcinr.coding.hyperprior import SHIFT, scale_levels
from vcinr.coding.static import TOTAL
from vcinr.errors import ConfigError, CorruptError, InputError, ModelError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import from_bytes, load_model
from vcinr.meta.extract import find_latents
from vcinr.quantise import uniform
from vcinr.quantise.factorised import FactorisedPrior
from vcinr.quantise.hyperprior import ScalePrior, fit_scales, gaussian_bits, marginals
from vcinr.quantise.joint import fine_tune
from vcinr.quantise.state import CODERS, Quantiser
from vcinr.quantise.train import KINDS, assess, fit, train_quantiser
from vcinr.quantise.variational import MAX_SYMBOLS, relax, supports


@pytest.fixture(scope="session")
def quantiser(hadgem_run) -> Quantiser:
    return Quantiser.from_tensors(load_model(hadgem_run["model"]).quantiser)


@pytest.fixture(scope="session")
def latents(hadgem_run):
    import zarr

    return zarr.open_group(hadgem_run["modulations"], mode="r")["test/phi"][...]


@pytest.fixture(scope="session")
def moved(hadgem_run, latents):
    """Latents relative to phi_0, as they are coded."""
    return latents - load_model(hadgem_run["model"]).start("air_temperature")


@pytest.mark.parametrize("coder", ["ans", "range"])
def test_modelled_rate_is_the_coded_length_within_two_percent(coder, quantiser, moved):
    for rate in range(quantiser.rates):
        z = quantiser.quantise(moved, rate)
        which, data = replace(quantiser, coders=(coder,)).code(z[:, None], rate)
        assert CODERS[which] == coder
        assert 8 * len(data) == pytest.approx(quantiser.bits(z, rate), rel=0.02, abs=64)


def test_the_shortest_coder_that_may_be_taken_is(quantiser, moved):
    z = quantiser.quantise(moved, 1)[:, None]
    alone = {c: len(replace(quantiser, coders=(c,)).code(z, 1)[1]) for c in ("ans", "adaptive", "huffman")}
    which, data = replace(quantiser, coders=tuple(alone)).code(z, 1)
    assert len(data) == min(alone.values()) == alone[CODERS[which]]


def test_codes_round_trip_with_values_beyond_the_tables(quantiser):
    rng = np.random.default_rng(0)
    z = rng.integers(-40, 40, (9, quantiser.offset.shape[1]))
    z[3, 5], z[4, 0] = 10**6, -(2**30)
    for coder in ("ans", "adaptive", "range", "huffman"):
        for rate in range(quantiser.rates):
            which, data = replace(quantiser, coders=(coder,)).code(z[:, None], rate)
            assert (quantiser.decode(which, data, 9, 1, rate)[:, 0] == z).all()
    with pytest.raises(CorruptError, match="rate"):
        quantiser.decode(0, b"", 1, 1, quantiser.rates)
    for unknown in (CODERS.index("hyperprior"), len(CODERS)):
        with pytest.raises(CorruptError, match="coder"):
            quantiser.decode(unknown, b"", 1, 1, 0)


def test_tables_are_positive_integers_with_a_fixed_sum(quantiser):
    assert (quantiser.frequency.sum(-1) == TOTAL).all()
    for row in quantiser.frequency.reshape(-1, quantiser.frequency.shape[-1]):
        used = np.flatnonzero(row)
        assert (used == np.arange(len(used))).all() and len(used) >= 2  # no gap: padding is at the end


def test_wrong_tables_are_refused(quantiser):
    tensors = quantiser.to_tensors()
    tensors["level"] = tensors["level"] * 0
    with pytest.raises(ModelError, match="none"):
        Quantiser.from_tensors(tensors)
    with pytest.raises(ModelError, match="no coder"):
        Quantiser.from_tensors({**quantiser.to_tensors(), "coders": np.array([4], np.uint8)})
    with pytest.raises(ModelError, match="malformed"):
        Quantiser.from_tensors({**quantiser.to_tensors(), "coders": np.array([99], np.uint8)})


def test_a_wrong_hyperprior_is_refused(quantiser):
    rates, d = quantiser.offset.shape
    sound = {
        "hyper.level": scale_levels(4), "hyper.centre": np.zeros((rates, d + 2), np.int32),
        "hyper.scale": np.zeros((rates, d + 2), np.int32), "hyper.weight": np.ones((d, 2), np.int32),
    }  # fmt: skip
    tensors = quantiser.to_tensors()
    assert Quantiser.from_tensors({**tensors, **sound}).hyper.side == 2
    wrong = {
        "hyper.level": [scale_levels(4)[:, 1:], scale_levels(4) * 0, scale_levels(4)[0], scale_levels(4).astype("i4")],
        "hyper.centre": [np.zeros((rates, d), np.int32), np.full((rates, d + 2), 2**30, np.int32)],
        "hyper.scale": [np.zeros((rates, d + 2), "f4"), np.full((rates, d + 2), -(2**31), np.int32)],
        "hyper.weight": [np.ones((d, 0), np.int32), np.full((d, 2), 2**15, np.int32), np.ones((d + 1, 1), np.int32)],
    }
    for name, values in wrong.items():
        for value in values:
            with pytest.raises(ModelError, match="malformed"):
                Quantiser.from_tensors({**tensors, **sound, name: value})
        with pytest.raises(ModelError, match="malformed"):
            Quantiser.from_tensors({**tensors, **{k: v for k, v in sound.items() if k != name}})


def test_models_without_a_choice_of_coders_have_the_first_two(quantiser):
    tensors = {k: v for k, v in quantiser.to_tensors().items() if k != "coders"}
    assert Quantiser.from_tensors(tensors).coders == ("ans", "adaptive")


def test_dequantising_does_not_depend_on_the_batch(quantiser, moved):
    z = quantiser.quantise(moved, 0)
    assert np.array_equal(quantiser.dequantise(z, 0)[5:6], quantiser.dequantise(z[5:6], 0))


def test_finer_rates_cost_more_and_are_nearer(hadgem_run, hadgem_signals, latents):
    coarse, fine = assess(load_model(hadgem_run["model"]), hadgem_signals, "test", latents)
    assert coarse["coded_bits_per_value"] < fine["coded_bits_per_value"] < 0.15
    assert coarse["psnr_db"] < fine["psnr_db"]


def test_prior_is_a_density_that_learns():
    """Mass sums to one, and maximum likelihood finds a discretised Gaussian's entropy."""
    generator = torch.Generator().manual_seed(0)
    prior = FactorisedPrior(1, 2, 4.0, generator)
    z = torch.randn(4000, 2, generator=generator) * torch.tensor([1.0, 5.0])
    optimiser = torch.optim.Adam(prior.parameters(), 0.02)
    for _ in range(400):
        noisy = z + torch.rand(z.shape, generator=generator) - 0.5
        loss = prior.bits(noisy, 0).sum(-1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    grid = torch.arange(-60, 61)[:, None].repeat(1, 2).float()
    mass = torch.exp2(-prior.bits(grid, 0)).sum(0)
    assert torch.allclose(mass, torch.ones(2), atol=0.02)
    # The noisy latent has the density of N(0, s^2) convolved with the uniform: about h(N(0, s^2 + 1/12)).
    ideal = 0.5 * np.log2(2 * np.pi * np.e * (np.array([1.0, 25.0]) + 1 / 12)).sum()
    found = prior.bits(z + torch.rand(z.shape, generator=generator) - 0.5, 0).sum(-1).mean().item()
    assert found == pytest.approx(ideal, abs=0.1)


def test_bits_are_stable_in_the_tails():
    prior = FactorisedPrior(1, 1, 4.0, torch.Generator().manual_seed(0))
    x = torch.tensor([[-1e4], [-200.0], [200.0], [1e4]], requires_grad=True)
    bits = prior.bits(x, 0)
    bits.sum().backward()
    assert torch.isfinite(bits).all() and torch.isfinite(x.grad).all() and (bits > 5).all()


def test_modulations_of_another_model_are_refused(hadgem_run, tmp_path):
    with pytest.raises(InputError, match="another model"):
        train_quantiser(
            hadgem_run["signals"], hadgem_run["model"], hadgem_run["modulations"], small().quantiser, seed=0,
            threads=1, out=tmp_path / "m", history=tmp_path / "h",
        )  # fmt: skip


def test_latent_distortion_is_a_choice(hadgem_run, tmp_path):
    p = small(quantiser={"distortion": "latent", "steps": 40, "lambdas": [0.1]})
    summary = train_quantiser(
        hadgem_run["signals"], hadgem_run["trained"], hadgem_run["modulations"], p.quantiser, seed=0, threads=1,
        out=tmp_path / "m.vcinr", history=tmp_path / "h.csv",
    )  # fmt: skip
    assert summary["splits"]["test"][0]["psnr_db"] > 20


@dataclass(frozen=True)
class Spread:
    """As much of a task as the uniform quantiser asks for."""

    latents: dict[str, np.ndarray]
    values: int = 100


def test_uniform_cells_have_the_width_of_six_deviations_by_two_to_the_bits():
    """COIN++: clipped at three deviations, half a cell off at most inside, one table of one count at least."""
    rng = np.random.default_rng(0)
    phi = (rng.standard_normal((300, 8)) * 0.02 + 0.5).astype("f4")
    cfg = config.Quantiser(kind="uniform", bits=(1, 3, 5, 8))
    state, history = uniform.train(Spread({"train": phi}), cfg, seed=0, watch=lambda _: None)
    state = Quantiser.from_tensors(state.to_tensors())
    mean, std = phi.astype("f8").mean(), phi.astype("f8").std()
    wide = np.linspace(mean - 4 * std, mean + 4 * std, 8 * 2001).reshape(-1, 8).astype("f4")
    for k, b in enumerate(cfg.bits):
        step = 6 * std / 2**b
        z, back = state.quantise(wide, k), state.dequantise(state.quantise(wide, k), k)
        assert np.allclose(state.unit(k), step, rtol=1e-6)
        assert z.min() == -(2 ** (b - 1)) and z.max() == 2 ** (b - 1) - 1
        inside = np.abs(wide - mean) <= 3 * std
        assert np.abs(back - wide)[inside].max() <= step / 2 * (1 + 1e-4) + 1e-7
        assert np.abs(back - wide)[inside].max() > 0.9 * step / 2
        assert np.allclose(back[~inside], mean + np.sign(wide[~inside] - mean) * (3 * std - step / 2), atol=1e-6)
        assert state.level.shape[1] == 1 and (state.frequency[k] == state.frequency[k, 0]).all()
        row = state.frequency[k, 0]
        assert np.count_nonzero(row) == 2**b + 1 and row.sum() == TOTAL
        # What is coded is the histogram's entropy, but for what smoothing and the tables' precision cost.
        z = state.quantise(phi, k)
        ideal = history[k]["bits_per_value"] * 100 / 8 * z.size
        for coder in ("ans", "range", "huffman", "adaptive"):
            which, data = replace(state, coders=(coder,)).code(z[:, None], k)
            assert (state.decode(which, data, len(z), 1, k)[:, 0] == z).all()
            if coder in ("ans", "range"):
                assert 8 * len(data) == pytest.approx(ideal, rel=0.03, abs=64)


def test_noise_is_uniform_additive_and_lets_the_gradient_pass():
    y = torch.linspace(-50, 50, 40_000, requires_grad=True)
    noise = relax(y, "noise", torch.Generator().manual_seed(0)) - y
    found = noise.detach().double().numpy()
    assert -0.5 <= found.min() < -0.499 and 0.499 < found.max() <= 0.5
    assert abs(found.mean()) < 0.006 and found.var() == pytest.approx(1 / 12, rel=0.02)
    counts = np.histogram(found, 20, (-0.5, 0.5))[0]
    assert ((counts - 2000) ** 2 / 2000).sum() < 45  # chi squared of 19 degrees of freedom: less in 99.9 % of cases
    assert abs(np.corrcoef(found, y.detach().numpy())[0, 1]) < 0.02
    relax(y, "noise", torch.Generator().manual_seed(0)).square().sum().backward()
    assert torch.allclose(y.grad, 2 * (y + noise).detach(), atol=1e-4)


def test_straight_through_rounds_forward_and_is_the_identity_backward():
    y = torch.tensor([-1.7, -0.4, 0.2, 3.6], requires_grad=True)
    rounded = relax(y, "straight-through", torch.Generator())
    assert rounded.tolist() == pytest.approx([-2.0, 0.0, 0.0, 4.0])
    rounded.square().sum().backward()
    assert y.grad.tolist() == pytest.approx([-4.0, 0.0, 0.0, 8.0])


def test_inference_rounds(quantiser, moved):
    """z is the nearest integer of the scaled analysis, and what is dequantised depends on it alone."""
    from vcinr.quantise.state import analyse, synthesise

    z = quantiser.quantise(moved, 1)
    y = analyse(quantiser.params, quantiser.blocks, moved) * quantiser.gain[1]
    assert np.abs(z - y).max() <= 0.5 and np.abs(z - y).max() > 0.4
    back = synthesise(quantiser.params, quantiser.blocks, (z[3:4] / quantiser.gain[1]).astype("f4"))
    assert np.array_equal(back, quantiser.dequantise(z, 1)[3:4])


def test_gaussian_bits_are_those_of_the_masses():
    scale = torch.tensor([0.3, 1.0, 20.0])
    grid = torch.arange(-200, 201).float()[:, None].repeat(1, 3)
    bits = gaussian_bits(grid, torch.log(scale))
    assert torch.allclose(torch.exp2(-bits).sum(0), torch.ones(3), atol=1e-3)
    normal = torch.distributions.Normal(0.0, scale.double())
    exact = -torch.log2(normal.cdf(torch.tensor(1.5).double()) - normal.cdf(torch.tensor(0.5).double()))
    assert torch.allclose(gaussian_bits(torch.ones(3), torch.log(scale)).double(), exact, atol=1e-3)
    far = torch.full((3,), 1e3, requires_grad=True)
    gaussian_bits(far, torch.log(scale)).sum().backward()
    assert torch.isfinite(far.grad).all() and (far.grad > 0).all()


def test_a_hyperprior_learns_signals_of_different_sizes():
    """Trained on codes whose scale differs from signal to signal, it codes new ones in clearly fewer bits than one
    table for each dimension, and its integers are what was learnt."""
    rng = np.random.default_rng(0)
    size = np.exp(rng.uniform(-1, 2.5, (3000, 1)))
    z = np.rint(size * rng.standard_normal((3000, 24)) * np.linspace(0.5, 2, 24))
    generator = torch.Generator().manual_seed(0)
    prior = ScalePrior(z.std(0)[None], 2, generator)
    optimiser, y = torch.optim.Adam(prior.parameters(), 0.01), torch.tensor(z, dtype=torch.float32)
    for _ in range(500):
        chosen = torch.randint(2000, (64,), generator=generator)
        loss = prior(y[chosen], 0, partial(relax, how="noise", generator=generator)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    codes = z.astype(np.int64)
    frozen = prior.frozen()
    assert frozen.weight.dtype == np.int32 and np.abs(frozen.weight / (4 * 2**SHIFT / np.log(2))
                                                      - prior.weight.detach().numpy()).max() < 1e-3  # fmt: skip
    hyper = fit_scales(frozen, codes[None, :2000])
    offset, level = marginals(hyper, codes[None, :2000], codes.min(0)[None], codes.max(0)[None])
    new = codes[2000:]
    plain = replace(EMPTY, offset=offset, level=level)
    conditional = 8 * len(hyper.encode(new, 0))
    assert conditional < 0.93 * 8 * len(replace(plain, coders=("ans",)).code(new[:, None], 0)[1])
    assert conditional == pytest.approx(hyper.bits(new, hyper.search(new, 0), 0).sum(), rel=0.01)
    known = -np.log2(np.exp(-0.5 * (z / (size * np.linspace(0.5, 2, 24))) ** 2)).sum(1) + np.log2(
        np.sqrt(2 * np.pi) * size * np.linspace(0.5, 2, 24)
    ).sum(1)  # as if the size were known and codes were not rounded
    large = size[2000:, 0] > 2
    assert hyper.bits(new, hyper.search(new, 0), 0)[large].mean() < 1.1 * known[2000:][large].mean()


EMPTY = Quantiser({}, 0, np.ones((1, 24)), np.zeros((1, 24)), np.zeros((1, 24, 2), "u1"))


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "uniform", "bits": [4, 7]},
        {"kind": "uniform", "bits": [6], "coder": "huffman"},
        {"kind": "factorised", "coder": "range", "relaxation": "straight-through"},
        {"kind": "hyperprior", "hyper": 2},
        {"kind": "hyperprior", "coder": "hyperprior", "width": 0, "distortion": "latent"},
    ],
)
def test_every_kind_and_coder_makes_chunks_that_keep_their_bound(changes, tiny_maps, tiny_model, tiny_latents):
    """Trained, stored, loaded again, and a chunk written with its prior and read back."""
    cfg = small(quantiser={"steps": 80, **changes}).quantiser
    made, history = fit(tiny_model, tiny_maps, tiny_latents, cfg, seed=0)
    assert history and made.provenance["quantiser"]["kind"] == changes["kind"]
    model = from_bytes(made.data, "memory")
    rows = assess(model, tiny_maps, "test", tiny_latents["test"])
    assert len(rows) == (len(cfg.bits) if cfg.kind == "uniform" else len(cfg.lambdas))
    state = Quantiser.from_tensors(model.quantiser)
    expected = {"auto": {"ans", "adaptive"} | ({"hyperprior"} if cfg.kind == "hyperprior" else set())}
    assert set(state.coders) == expected.get(cfg.coder, {cfg.coder})
    values = tiny_maps.splits["test"].features[..., 0]
    field = Field("t", (1, 2), tiny_maps.domain, model, model.scaling("t"))
    encoded = encode(values, field, 3.0, rate=0)
    assert encoded.mode.startswith("prior") and encoded.max_abs_error <= 3.0
    assert np.abs(decode(encoded.data, values.shape, values.dtype, field) - values).max() <= 3.0


def test_kinds_come_from_plugins_too(plugins_anew, monkeypatch, tiny_maps, tiny_model):
    entry = EntryPoint("mine", "vcinr.quantise.uniform:train", "vcinr.quantisers")
    monkeypatch.setattr(plugins, "entry_points", lambda **k: EntryPoints([entry]).select(**k))
    assert plugins.lookup("quantisers", KINDS, "mine") is uniform.train
    assert plugins.lookup("quantisers", KINDS, "factorised") is KINDS["factorised"]
    assert plugins.known("quantisers", KINDS) == ["uniform", "factorised", "hyperprior", "mine"]
    phi = {"train": np.zeros((40, 8), "f4")}
    with pytest.raises(ConfigError, match="quantisers: unknown 'nope'; known: uniform, factorised, hyperprior, mine"):
        fit(tiny_model, tiny_maps, phi, small(quantiser={"kind": "nope"}).quantiser, seed=0)
    made, _ = fit(tiny_model, tiny_maps, phi, small(quantiser={"kind": "mine", "bits": [5]}).quantiser, seed=0)
    assert Quantiser.from_tensors(made.quantiser).cells


def test_a_plugin_that_does_not_load_is_named(plugins_anew, monkeypatch):
    entry = EntryPoint("broken", "tests.test_quantise:not_there", "vcinr.quantisers")
    monkeypatch.setattr(plugins, "entry_points", lambda **k: EntryPoints([entry]).select(**k))
    with pytest.raises(ConfigError, match=r"'broken' of tests\.test_quantise:not_there cannot be loaded"):
        plugins.lookup("quantisers", KINDS, "broken")


def test_a_hyperprior_coder_needs_a_hyperprior():
    with pytest.raises(ConfigError, match="needs kind: hyperprior"):
        small(quantiser={"kind": "factorised", "coder": "hyperprior"})


def test_joint_fine_tuning_moves_the_network_and_its_latents(tiny_maps, tiny_model, tiny_latents):
    """Theta learns through the inner loop, phi_0 and the step sizes do not; latents are those of the new network."""
    cfg = small(quantiser={"steps": 60, "joint_steps": 40, "lambdas": [300.0, 3000.0]}).quantiser
    plain = replace(tiny_model, quantiser={})
    before = {k: v.copy() for k, v in plain.params.items()}
    tuned, phi = fine_tune(plain, tiny_maps, dict(tiny_latents), cfg, seed=0, watch=lambda _: None)
    assert all(np.array_equal(before[k], v) for k, v in plain.params.items()), "the model given is as it was"
    changed = {k for k, v in tuned.params.items() if not np.array_equal(v, plain.params[k])}
    assert {"siren.1.weight", "gates.out.weight"} <= changed and not changed & {"phi_0", "alpha"}
    y, _ = tiny_maps.normalised("test")
    found = find_latents(ModelAt(tuned, tiny_maps.inputs), y, None, np.zeros(len(y), int))
    assert np.allclose(found, phi["test"], atol=1e-5) and tuned.provenance["joint_steps"] == 40
    cost = []
    for model, latents in ((plain, tiny_latents), (tuned, phi)):
        rows = assess(fit(model, tiny_maps, latents, cfg, seed=0)[0], tiny_maps, "train", latents["train"])
        pairs = zip(rows, cfg.lambdas, strict=True)
        cost.append(sum(r["modelled_bits_per_value"] + lam * 10 ** (-r["psnr_db"] / 10) for r, lam in pairs))
    assert cost[1] < 1.05 * cost[0], "what it minimises has not grown"


def test_joint_fine_tuning_keeps_a_basis_in_its_axes(tiny_maps, tmp_path):
    p = small(
        method="basis", meta={"steps": 100, "points": "all"}, quantiser={"joint_steps": 30, "width": 0, "steps": 40}
    )
    vcinr.train(maps_of(tiny_maps), tmp_path / "m.vcinr", params=p)
    model = vcinr.load_model(tmp_path / "m.vcinr")
    psi = ModelAt(model, tiny_maps.inputs).basis()[1].astype("f8")
    assert (
        np.allclose(psi @ psi.T / psi.shape[1], np.eye(len(psi)), atol=0.05) and model.provenance["joint_steps"] == 30
    )


def maps_of(tiny_maps) -> xr.Dataset:
    axes = dict(zip(("lat", "lon"), tiny_maps.axes, strict=True))
    return xr.Dataset({"t": (("time", "lat", "lon"), tiny_maps.splits["train"].features[..., 0])}, axes)


def test_tables_of_wide_codes_are_about_their_middle():
    z = np.random.default_rng(0).normal(5000, 3000, (1, 400, 2))
    learned = SimpleNamespace(codes=lambda depth, phi: np.rint(z).astype(np.int64))
    low, high = supports(learned, 0, np.empty(0))
    assert (high - low == MAX_SYMBOLS - 1).all() and (np.abs((low + high) / 2 - np.median(z, 1)) < 2).all()
    narrow = SimpleNamespace(codes=lambda depth, phi: np.rint(z / 100).astype(np.int64))
    low, high = supports(narrow, 0, np.empty(0))
    assert (low < z.min(1) / 100).all() and (high > z.max(1) / 100).all()


def test_joint_fine_tuning_needs_a_loop_to_learn_through(tiny_maps, tiny_model, tiny_latents):
    cfg = small(quantiser={"joint_steps": 2}).quantiser
    with pytest.raises(ConfigError, match="adam cannot be learned through"):
        fine_tune(replace(tiny_model, encode_loop="adam"), tiny_maps, dict(tiny_latents), cfg, seed=0, watch=print)


def test_a_network_that_amplifies_rounding_too_much_is_refused(tiny_maps, tiny_model, tiny_latents):
    loud = {k: v * 1e6 if k.startswith("siren.3") else v for k, v in tiny_model.params.items()}
    with pytest.raises(ConfigError, match=r"amplifies float32 rounding.*lower inr\.omega_0"):
        fit(replace(tiny_model, params=loud), tiny_maps, tiny_latents, small().quantiser, seed=0)


def test_hostile_quantisers_are_refused(tiny_model):
    tensors = dict(tiny_model.quantiser)
    with pytest.raises(ModelError):
        Quantiser.from_tensors({**tensors, "more": np.zeros(3, np.float32)})
