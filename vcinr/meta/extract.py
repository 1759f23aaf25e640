"""Modulation extraction: every signal's phi and PSNR, to Zarr."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr

from vcinr.errors import InputError, ModelError
from vcinr.inr.model import Model, load_model
from vcinr.meta.inner import adapt
from vcinr.meta.outer import psnr
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.signals import Signals, read_signals


def torch_params(model: Model) -> dict[str, torch.Tensor]:
    """The model's parameters as tensors."""
    return {k: torch.from_numpy(np.ascontiguousarray(v)) for k, v in model.params.items()}


def find_latents(
    model: Model,
    x: np.ndarray,
    y: np.ndarray,
    weight: np.ndarray | None,
    *,
    steps: int | None = None,
    batch: int = 16,
) -> np.ndarray:
    """Inner loop over all points: x ``[P, d_in]``, y ``[N, P, d_out]`` normalised -> phi ``[N, d]`` float32."""
    params, points = torch_params(model), torch.from_numpy(x)
    # Memory is about batch * P * width * depth * 10 floats; large grids take fewer signals at a time.
    batch = max(1, min(batch, int(8e6 / (len(x) * model.spec.width))))
    found = []
    for start in range(0, len(y), batch):
        part = slice(start, start + batch)
        w = None if weight is None else torch.from_numpy(weight[part])
        found_here = adapt(
            model.spec,
            params,
            points,
            torch.from_numpy(y[part]),
            w,
            steps or model.encode_steps,
            create_graph=False,
        )
        found.append(found_here.numpy())
    phi = np.concatenate(found) if found else np.empty((0, model.spec.latent), np.float32)
    if not np.isfinite(phi).all():
        raise ModelError(
            f"model {model.sha256[:12]}: the inner loop diverged on this data; it was trained on another kind"
        )
    return phi


def extract_modulations(
    signals: str | Path, model: str | Path, out: str | Path, *, threads: int, steps: int | None = None,
    watch: Watch = silent,
) -> dict[str, Any]:  # fmt: skip
    """Write ``out``: a Zarr group a split with ``phi [N, d]``, ``psnr_db [N]`` and ``psnr_phi_0_db [N]``.

    ``psnr_phi_0_db`` is the PSNR before adaptation: the gain over it shows that the inner loop is alive.
    """
    torch.set_num_threads(threads)
    data, artifact = read_signals(signals), load_model(model)
    if data.inputs.shape[1] != artifact.spec.d_in:
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
        phi, quality, before = _extract(artifact, data, name, steps)
        done += len(split)
        group = root.create_group(name)
        for key, array in (("phi", phi), ("psnr_db", quality), ("psnr_phi_0_db", before)):
            group.create_array(key, data=array)
        summary[name] = {
            "signals": len(split),
            "psnr_db": float(quality.mean()),
            "psnr_phi_0_db": float(before.mean()),
        }
        watch(Progress("modulations", done, total, {"psnr_db": float(quality.mean())}, clock.left(done)))
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return summary


def _extract(model: Model, data: Signals, split: str, steps: int | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """phi ``[N, d]`` of a split, its PSNR, and the PSNR at phi_0, ``[N]`` each."""
    x, params = data.inputs, torch_params(model)
    points = torch.from_numpy(x)
    phis, after, before = [], [], []
    size = max(1, min(64, int(3e7 / (len(x) * model.spec.width))))
    for start in range(0, len(data.splits[split]), size):
        y, weight = data.normalised(split, slice(start, start + size))
        phi = find_latents(model, x, y, weight, steps=steps)
        target, w = torch.from_numpy(y), None if weight is None else torch.from_numpy(weight)
        start_phi = params["phi_0"].expand(len(phi), -1)
        phis.append(phi)
        after.append(psnr(model.spec, params, points, target, w, torch.from_numpy(phi)).numpy())
        before.append(psnr(model.spec, params, points, target, w, start_phi).numpy())
    return np.concatenate(phis), np.concatenate(after), np.concatenate(before)
