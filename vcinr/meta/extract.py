"""Extraction of modulations: the latent phi and the PSNR of every signal, written to Zarr."""

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
    """The model's parameters as tensors on a device."""
    return {k: torch.from_numpy(np.ascontiguousarray(v)).to(device) for k, v in model.params.items()}


def find_latents(
    at: ModelAt, y: np.ndarray, weight: np.ndarray | None, variable: np.ndarray, *,
    steps: int | None = None, device: torch.device | str = "cpu",
) -> np.ndarray:  # fmt: skip
    """Find the latents of signals with the encoder's inner loop.

    Parameters
    ----------
    at : ModelAt
        The model at all points of the signals; it also says which loop the encoder runs, for how many steps and on how
        many points. Of more than its `encode_points` a fixed random part is used, which changes the latents little and
        saves much time.
    y : numpy.ndarray
        Normalised signals ``[N, P, d_out]``.
    weight : numpy.ndarray or None
        ``[N, P]``: 0 at masked points, with the mean 1 over each signal; None for 1 everywhere.
    variable : numpy.ndarray
        int64 ``[N]``: the row of phi_0 from which each signal starts.
    steps : int, optional
        Number of steps, instead of the model's `encode_steps`.
    device : torch.device or str
        Where the loop runs; linear heads are solved in NumPy instead.

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
    latents, loop_steps = [], model.encode_steps if steps is None else steps
    for part in _parts(len(y), len(x), model):
        part_weight = None if weight is None else torch.from_numpy(weight[part]).to(device)
        row = torch.from_numpy(variable[part]).to(device)
        batch = Batch(points, torch.from_numpy(y[part]).to(device), part_weight, row)
        latents.append(
            adapt(model.spec, params, batch, loop_steps, loop=model.encode_loop, create_graph=False).cpu().numpy()
        )
    phi = np.concatenate(latents) if latents else np.empty((0, model.spec.latent), np.float32)
    if not np.isfinite(phi).all():
        raise ModelError(
            f"model {model.sha256[:12]}: the inner loop diverged on this data; it was trained on another kind"
        )
    return phi


def latents_of(
    at: ModelAt, data: Signals, split: str, index: slice = slice(None), *, steps: int | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:  # fmt: skip
    """Latents of signals of a split, found for 16 signals at a time to limit memory.

    Parameters
    ----------
    at : ModelAt
        As in `find_latents`.
    data : Signals
        Where the signals come from.
    split : str
        Name of the split.
    index : slice
        Which signals.
    steps, device
        As in `find_latents`.

    Returns
    -------
    numpy.ndarray
        phi ``[N, d]`` float32.
    """
    variable, latents = data.variable_index(split), []
    rows = range(len(variable))[index]
    for i in range(rows.start, rows.stop, 16):
        part = slice(i, min(i + 16, rows.stop))
        y, weight = data.normalised(split, part)
        latents.append(find_latents(at, y, weight, variable[part], steps=steps, device=device))
    return np.concatenate(latents)


def _parts(signals: int, points: int, model: Model) -> Iterator[slice]:
    """Slices of signals that are processed together.

    The loop needs memory for about signals * points * width * depth * 10 floats.
    """
    count = max(1, min(16, int(8e6 / (points * model.spec.width))))
    for start in range(0, signals, count):
        yield slice(start, start + count)


def extract_modulations(
    signals: str | Path, model: str | Path, out: str | Path, *, threads: int, steps: int | None = None,
    device: str = "cpu", memory: float | None = None, watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Find the latents of every signal and write them to a Zarr store.

    Parameters
    ----------
    signals, model : str or Path
        A store of signals, and a model trained on it.
    out : str or Path
        The Zarr store to write. It has a group for each split with ``phi [N, d]``, ``psnr_db [N]`` and ``psnr_phi_0_db
        [N]``. The last is the PSNR before adaptation: the gain over it shows that the inner loop works. On large grids
        both are measured at 2,048 fixed points, as in validation.
    threads : int
        Number of torch's threads.
    steps, device
        As in `find_latents`.
    memory : float, optional
        As in meta-training.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        For each split the number of signals and both mean PSNRs.

    Raises
    ------
    InputError
        Where signals and model do not fit together.
    ModelError
        Where the inner loop diverges.
    """
    torch.set_num_threads(threads)
    torch_device = device_of(device)
    data, artifact = read_signals(signals, memory), load_model(model)
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

        phi, quality, before = _extract(artifact, data, name, steps, torch_device, tell)
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
    """phi ``[N, d]`` of a split, its PSNR in dB, and the PSNR at phi_0, ``[N]`` each."""
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
