"""Quantiser: rate against coded length on real latents, noise and rounding, tables, rate-distortion."""

import numpy as np
import pytest
import torch

from tests.conftest import small
from vcinr.coding.ans import TOTAL, Reader, Writer
from vcinr.errors import CorruptError, InputError, ModelError
from vcinr.inr.model import load_model
from vcinr.quantise.entropy import FactorisedPrior
from vcinr.quantise.state import Quantiser
from vcinr.quantise.train import assess, train_quantiser


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


def test_modelled_rate_is_the_coded_length_within_two_percent(quantiser, moved):
    for rate in range(quantiser.rates):
        z = quantiser.quantise(moved, rate)
        writer = Writer()
        quantiser.write(writer, z, rate)
        coded = 8 * len(writer.getvalue())
        assert coded == pytest.approx(quantiser.bits(z, rate), rel=0.02, abs=64)


def test_codes_round_trip_with_values_beyond_the_tables(quantiser):
    rng = np.random.default_rng(0)
    z = rng.integers(-40, 40, (9, quantiser.offset.shape[1]))
    z[3, 5], z[4, 0] = 10**6, -(2**30)
    for rate in range(quantiser.rates):
        writer = Writer()
        quantiser.write(writer, z, rate)
        assert (quantiser.read(Reader(writer.getvalue()), 9, rate) == z).all()
    with pytest.raises(CorruptError, match="rate"):
        quantiser.read(Reader(b""), 1, quantiser.rates)


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
