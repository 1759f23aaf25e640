"""The network's maths: NumPy against torch, the defining equation of the gates, the model artifact."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from tests.golden.make import small_model
from vcinr.errors import ConfigError, InputError, ModelError
from vcinr.inr import model as artifact
from vcinr.inr.at import ModelAt, slack_of
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import DELTA
from vcinr.inr.siren import forward, initialise
from vcinr.inr.spec import InrSpec
from vcinr.signals import Grid, coordinates
from vcinr.signals.tiling import layout_of

SPEC = InrSpec(2, 1, 16, 4, 30.0, 6, "gates", 3, 12, 1)


def test_inputs_of_a_sphere_with_levels():
    """Levels as in a box, places as unit vectors: no seam, one pole."""
    axes = np.array([2.0, 1.0, 0.0]), np.array([-90.0, 0.0, 60.0]), np.array([0.0, 90.0, 360.0])
    globe = coordinates.sphere(axes[:1])
    assert (globe, coordinates.dimension(globe)) == ({"system": "sphere", "bounds": [[0.0, 2.0]]}, 4)
    found = Grid(axes).inputs(globe).reshape(3, 3, 3, 4)
    assert np.allclose(found[..., 0], np.array([1, 0, -1])[:, None, None])
    assert np.allclose(found[0, :, :, 1:], Grid(axes[1:]).inputs(coordinates.sphere()).reshape(3, 3, 3))
    assert np.allclose(found[..., 0, :], found[..., 2, :], atol=1e-6) and np.ptp(found[0, 0], axis=0).max() < 1e-6
    assert np.allclose(found[0, 2, 1], [1, 0, 0.5, np.sqrt(0.75)], atol=1e-6)
    with pytest.raises(InputError, match="3 coordinate axes, the data 2"):
        Grid(axes[1:]).inputs(globe)


@pytest.mark.parametrize("dims", [("level", "lat", "lon"), ("lat", "level", "lon")])
def test_latitude_and_longitude_come_last_on_the_sphere(dims):
    coords = {"level": np.arange(2.0), "lat": np.linspace(-80, 80, 5), "lon": np.arange(0.0, 360.0, 60.0)}
    field = xr.DataArray(np.zeros((3, 2, 6, 5)), coords, ("time", "level", "lon", "lat"))
    layout = layout_of(field, dims)
    assert layout.dims == ("level", "lat", "lon") and layout.grid.shape == (2, 5, 6)
    assert layout.system == coordinates.sphere(layout.grid.columns[:1])
    half = field.sel(lon=slice(0, 120))  # does not go round
    assert layout_of(half, dims).dims == dims and layout_of(half, dims).system["system"] == "box"
    with pytest.raises(InputError, match="named twice in lat, lat"):
        layout_of(field, ("lat", "lat"))
    with pytest.raises(InputError, match="needs latitude and longitude"):
        layout_of(field, ("level", "lat"), "sphere")


@pytest.mark.parametrize(
    "system",
    [{"system": "sphere", "bounds": [[0.0, np.inf]]}, {"system": "sphere", "bounds": [[0.0]]}, {"system": "disc"}],
)
def test_systems_that_are_none_are_malformed(system):
    model = replace(small_model("linear"), system=system)
    with pytest.raises(ModelError, match="malformed"):
        artifact.from_bytes(model.data, "made")


def test_numpy_and_torch_agree():
    params = initialise(SPEC, 0)
    rng = np.random.default_rng(0)
    phi, x = rng.standard_normal((5, 6)).astype("f4"), rng.uniform(-1, 1, (40, 2)).astype("f4")
    tensors = {k: torch.from_numpy(v) for k, v in params.items()}
    ours = forward(SPEC, params, phi, x)
    theirs = forward(SPEC, tensors, torch.from_numpy(phi), torch.from_numpy(x)).numpy()
    assert ours.shape == (5, 40, 1) and ours.dtype == np.float32
    assert np.abs(ours - theirs).max() < artifact.DELTA  # the slack that the codec leaves for this


def test_gates_are_the_sigmoid_of_a_low_rank_product():
    params = {k: v.astype("f8") for k, v in initialise(SPEC, 0).items()}
    gates = conditioning("gates").modulate(SPEC, params, np.ones((2, 6)))
    assert gates.shape == (2, 2, 16, 16)
    logits = np.log(gates / (1 - gates))
    for matrix in logits.reshape(-1, 16, 16):
        values = np.linalg.svd(matrix, compute_uv=False)
        assert values[SPEC.rank - 1] > 1e-3 > 100 * values[SPEC.rank]
    h, w, b = np.ones((2, 7, 16)), params["siren.1.weight"], params["siren.1.bias"]
    by_hand = np.einsum("bij,bpj->bpi", gates[0] * w, h) + b
    assert np.allclose(conditioning("gates").layer(gates, 1, h, w, b), by_hand, atol=1e-5)


def test_first_and_last_layer_are_shared_by_all_signals():
    params = initialise(SPEC, 0)
    x = np.linspace(-1, 1, 20, dtype="f4").reshape(10, 2)
    for name in list(params):
        if name.startswith("siren.1") or name.startswith("siren.2"):
            params[name] = np.zeros_like(params[name])
    out = forward(SPEC, params, np.random.default_rng(0).standard_normal((2, 6)).astype("f4"), x)
    assert np.array_equal(out[0], out[1])


def test_activations_keep_their_scale():
    """SIREN's initialisation keeps pre-activations near unit variance; gates halve weights, which it undoes."""
    spec = InrSpec(2, 1, 256, 6, 30.0, 16, "gates", 4, 32, 1)
    params = initialise(spec, 0)
    x = np.random.default_rng(0).uniform(-1, 1, (500, 2)).astype("f4")
    out = forward(spec, params, params["phi_0"], x)
    assert np.isfinite(out).all() and 0.001 < out.std() < 1


def test_the_slack_is_what_rounding_needs(tiny_model, tiny_maps):
    """Four times what float32 does, at least 2^-18: a network that amplifies rounding gets more, and says so."""
    phi = tiny_model.params["phi_0"]
    assert slack_of(tiny_model, phi, tiny_maps.inputs) == tiny_model.slack == DELTA
    loud = {k: 40 * v if k.startswith("siren.3") else v for k, v in tiny_model.params.items()}
    needed = slack_of(replace(tiny_model, params=loud), phi, tiny_maps.inputs)
    assert np.log2(needed) % 1 == 0 and 2 * DELTA <= needed <= 2.0**-10
    back = artifact.from_bytes(replace(tiny_model, slack=needed).data, "here")
    assert back.slack == needed
    with pytest.raises(ModelError, match="slack is 0"):
        artifact.from_bytes(replace(tiny_model, slack=0.0).data, "here")


def test_unknown_conditioning_names_the_known():
    with pytest.raises(ConfigError, match="gates"):
        conditioning("nonsense")


def test_artifact_round_trip_and_identity(tiny_model, tmp_path):
    artifact.save_model(tiny_model, tmp_path / "m.vcinr")
    back = artifact.load_model(tmp_path / "m.vcinr")
    assert back.data == tiny_model.data and back.sha256 == tiny_model.sha256
    assert all(np.array_equal(back.params[k], v) for k, v in tiny_model.params.items())
    assert artifact.freeze(tiny_model).data == tiny_model.data  # rounding to stored precision is idempotent


def test_damaged_models_are_refused(tiny_model, tmp_path):
    data = tiny_model.data
    for position in range(0, len(data), max(1, len(data) // 50)):
        damaged = bytearray(data)
        damaged[position] ^= 4
        with pytest.raises(ModelError):
            artifact.from_bytes(bytes(damaged), "here")
    for length in (0, 7, 20, len(data) - 1):
        with pytest.raises(ModelError):
            artifact.from_bytes(data[:length], "here")
    with pytest.raises(ModelError, match=r"nothing\.vcinr"):
        artifact.load_model(tmp_path / "nothing.vcinr")


def test_decoding_does_not_depend_on_the_batch(tiny_model, tiny_maps):
    phi = np.random.default_rng(0).standard_normal((7, tiny_model.spec.latent)).astype("f4") * 0.01
    together = ModelAt(tiny_model, tiny_maps.inputs).reconstruct(phi)
    alone = np.concatenate([ModelAt(tiny_model, tiny_maps.inputs).reconstruct(p[None]) for p in phi])
    assert np.array_equal(together, alone)


def test_a_linear_head_depends_on_the_batch_within_the_stated_slack():
    model = small_model("linear")
    x = np.random.default_rng(0).uniform(-1, 1, (50, model.spec.d_in)).astype("f4")
    phi = np.random.default_rng(1).standard_normal((9, model.spec.latent)).astype("f4")
    phi[:, 3:] = phi[0, 3:]  # the same in all signals: added up once
    psi_0, psi = (a.astype(float) for a in ModelAt(model, x).basis())
    exact = (psi_0 + phi @ psi).reshape(9, 50, -1)
    every = slice(None, None, 3)
    for found, wanted in (
        (ModelAt(model, x).reconstruct(phi), exact), (ModelAt(model, x).sampled(every)(phi), exact[:, every]),
        (np.concatenate([ModelAt(model, x).reconstruct(p[None]) for p in phi]), exact),
    ):  # fmt: skip
        assert np.abs(found - wanted).max() <= 0.25 * DELTA * np.abs(exact).max()
    assert ModelAt(model, x).reconstruct(phi[:0]).shape == (0, 50, model.spec.d_out)


def test_the_kept_projection_is_the_ridge():
    model, rng = small_model("linear"), np.random.default_rng(0)
    x = rng.uniform(-1, 1, (80, model.spec.d_in)).astype("f4")
    y = rng.standard_normal((6, 80, model.spec.d_out)).astype("f4")
    variable = np.zeros(6, np.int64)
    at = ModelAt(model, x)
    for _ in range(2):  # made, then kept
        found = at.fit(y, None, variable)
        ones = at.fit(y, np.ones((6, 80), "f4"), variable)
        assert np.abs(found - ones).max() <= 1e-4 * np.abs(ones).max()


def test_unknown_variable_names_the_known(tiny_model):
    with pytest.raises(ModelError, match=r"'salinity'.*\bt\b"):
        tiny_model.scaling("salinity")
