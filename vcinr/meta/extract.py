"""Modulation extraction: every signal's phi and PSNR, to Zarr."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from vcinr.errors import InputError, ModelError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model, load_model
from vcinr.meta.inner import Batch, adapt, batch_of
from vcinr.meta.outer import device_of, psnr
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.signals import Signals, coordinates, fixed_known_points, fixed_points, read_signals


def torch_params(model: Model, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
    """The model's parameters as tensors."""
    return {k: torch.from_numpy(np.ascontiguousarray(v)).to(device) for k, v in model.params.items()}


def find_latents(
    at: ModelAt, y: np.ndarray, weight: np.ndarray | None, variable: np.ndarray, *,
    steps: int | None = None, device: torch.device | str = "cpu",
) -> np.ndarray:  # fmt: skip
    """The encoder's inner loop.

    Parameters
    ----------
    at : ModelAt
        The model at all points of the signals. Of more than its `encode_points` a fixed random part is taken: the
        latents change little, the time a lot.
    y : numpy.ndarray
        Normalised signals ``[N, P, d_out]``.
    weight : numpy.ndarray or None
        ``[N, P]``, 0 at masked points and averaging to 1 over each signal; None for 1 everywhere.
    variable : numpy.ndarray
        Rows of phi_0 to start from, ``[N]`` int64.
    steps : int, optional
        Of the inner loop, instead of the model's `encode_steps`.
    device : torch.device or str
        Not for linear heads, which are solved for in NumPy.

    Returns
    -------
    numpy.ndarray
        phi ``[N, d]`` float32.

    Raises
    ------
    ModelError
        Where the loop diverges.
    """
    model, x = at.model, at.x
    if model.linear and steps is None:
        return at.fit(y, weight, variable)
    if len(x) > model.encode_points:
        chosen = fixed_points(len(x), model.encode_points)
        x, y = x[chosen], y[:, chosen]
        weight = None if weight is None else weight[:, chosen]
    params, points = torch_params(model, device), torch.from_numpy(x).to(device)
    found, count = [], model.encode_steps if steps is None else steps
    for part in _parts(len(y), len(x), model):
        w = None if weight is None else torch.from_numpy(weight[part]).to(device)
        row = torch.from_numpy(variable[part]).to(device)
        batch = Batch(points, torch.from_numpy(y[part]).to(device), w, row)
        found.append(adapt(model.spec, params, batch, count, loop=model.encode_loop, create_graph=False).cpu().numpy())
    phi = np.concatenate(found) if found else np.empty((0, model.spec.latent), np.float32)
    if not np.isfinite(phi).all():
        raise ModelError(
            f"model {model.sha256[:12]}: the inner loop diverged on this data; it was trained on another kind"
        )
    return phi


def latents_of(
    at: ModelAt, data: Signals, split: str, index: slice = slice(None), *, steps: int | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:  # fmt: skip
    """Latents ``[N, d]`` of the signals `index` of a split, found 16 at a time.

    Parameters
    ----------
    at : ModelAt
        The model at all points of the signals' grid.
    data : Signals
        Where the signals are.
    split : str
        Name of the split.
    index : slice
        Which signals of it.
    steps, device
        As in `find_latents`.

    Returns
    -------
    numpy.ndarray
        float32, in the order of the signals.
    """
    variable, found = data.variable_index(split), []
    rows = range(len(variable))[index]
    for i in range(rows.start, rows.stop, 16):
        part = slice(i, min(i + 16, rows.stop))
        y, weight = data.normalised(split, part)
        found.append(find_latents(at, y, weight, variable[part], steps=steps, device=device))
    return np.concatenate(found)


def _parts(signals: int, points: int, model: Model) -> Iterator[slice]:
    """Signals taken at a time: memory is about signals * points * width * depth * 10 floats."""
    size = max(1, min(16, int(8e6 / (points * model.spec.width))))
    for start in range(0, signals, size):
        yield slice(start, start + size)


def extract_modulations(
    signals: str | Path, model: str | Path, out: str | Path, *, threads: int, steps: int | None = None,
    device: str = "cpu", watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Find the latents of every signal.

    Parameters
    ----------
    signals, model : str or Path
        A store of signals, and a model trained on it.
    out : str or Path
        The Zarr store to write: a group a split with ``phi [N, d]``, ``psnr_db [N]`` and ``psnr_phi_0_db [N]``, the
        PSNR before adaptation, since the gain over it shows that the inner loop is alive. On large grids both are those
        of 2,048 fixed points, as in validation.
    threads : int
        Of torch.
    steps, device
        As in `find_latents`.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        Number of signals and mean PSNRs of each split.

    Raises
    ------
    InputError
        Where signals and model do not fit.
    ModelError
        Where the inner loop diverges.
    """
    torch.set_num_threads(threads)
    place = device_of(device)
    data, artifact = read_signals(signals), load_model(model)
    if coordinates.dimension(data.system) != artifact.spec.d_in:
        raise InputError(f"{signals}: signals do not fit the model {model}; train it on them first")
    out = Path(out)
    temporary = out.with_name(out.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.open_group(temporary, mode="w", attributes={"model": artifact.sha256})
    summary: dict[str, Any] = {}
    total = sum(len(s) for s in data.splits.values())
    clock, done = Clock(total), 0
    for name, split in data.splits.items():
        if len(split) == 0:
            continue

        def tell(count: int, quality: float) -> None:
            nonlocal done
            done += count
            watch(Progress("modulations", done, total, {"psnr_db": quality}, clock.left(done)))

        phi, quality, before = _extract(artifact, data, name, steps, place, tell)
        group = root.create_group(name)
        for key, array in (("phi", phi), ("psnr_db", quality), ("psnr_phi_0_db", before)):
            group.create_array(key, data=array)
        summary[name] = {
            "signals": len(split),
            "psnr_db": float(quality.mean()),
            "psnr_phi_0_db": float(before.mean()),
        }
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return summary


def _extract(
    model: Model, data: Signals, split: str, steps: int | None, device: torch.device,
    watch: Callable[[int, float], None],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """phi ``[N, d]`` of a split, its PSNR, and the PSNR at phi_0, ``[N]`` each."""
    at = ModelAt(model, data.inputs)
    params, x = torch_params(model, device), torch.from_numpy(at.x).to(device)
    where = fixed_known_points(data, split, 2048)
    phis, after, before = [], [], []
    for part in _parts(len(data.splits[split]), len(where), model):
        batch = batch_of(data, split, x, part, where)
        phi = latents_of(at, data, split, part, steps=steps, device=device)
        phis.append(phi)
        after.append(psnr(model.spec, params, batch, torch.from_numpy(phi).to(device)).cpu().numpy())
        before.append(psnr(model.spec, params, batch, params["phi_0"][batch.variable]).cpu().numpy())
        watch(len(phi), float(after[-1].mean()))
    return np.concatenate(phis), np.concatenate(after), np.concatenate(before)
