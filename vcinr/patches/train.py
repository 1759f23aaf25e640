"""Training of experts for patches from a store of signals, in closed form."""

from __future__ import annotations

import math
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from vcinr.config import Patches
from vcinr.errors import ConfigError, InputError
from vcinr.patches import coder
from vcinr.patches.coder import analysed
from vcinr.patches.geometry import Geometry, three, usual
from vcinr.patches.learn import learn, learn_later, step_at, stored
from vcinr.patches.model import MAX_VALUES, PatchModel, fits
from vcinr.places import written_aside
from vcinr.progress import Progress, Watch, silent
from vcinr.quality import psnr_of
from vcinr.signals import Signals
from vcinr.signals.store import PATCH_LENGTH, read_signals

_JUDGED = (34, 50, 66, 82)  # rates, 6 dB apart, at which the model is judged
_MOST = 64  # validation signals that are coded for that
_MARGIN = 1  # how far around a displaced patch one looks, where planes are in groups
_FINER = (18, 10, 0, -8, -13)  # what is lost in planes that others look at is lost in those too


def geometry_of(settings: Patches, axes: int, features: int, length: int | None = None) -> Geometry:
    """The geometry of patches of signals of so many axes and features; raises ConfigError where settings do not fit.

    `length` is that of patches along a single axis, where neither the settings nor the usual one are to count.
    """
    default = usual(axes) if length is None else replace(usual(axes), size=(1, 1, length))
    lengths = []
    for name, standard in (("size", default.size), ("back", default.back), ("ahead", default.ahead)):
        given = getattr(settings, name)
        if given is not None and len(given) != axes:
            raise ConfigError(f"patches.{name}: {list(given)} has {len(given)} lengths, and signals have {axes} axes")
        fill = 1 if name == "size" else 0
        lengths.append(standard if given is None else three(tuple(given), fill))
    size, back, ahead = lengths
    geometry = Geometry(size, back, ahead, settings.motion)
    if settings.group:
        geometry = Geometry(size, back, ahead, settings.motion, settings.group, _MARGIN, _FINER)
        if not settings.motion or back[0] or ahead[0]:
            raise ConfigError(
                "patches.group: it is for motion, and patches look around in their own frame alone; give motion, and 0 "
                "as the first length of back and ahead"
            )
    if settings.motion and (axes != 3 or geometry.size[0] != 1):
        raise ConfigError("patches.motion: it is for signals of three axes and patches of length 1 along the first")
    if not fits(geometry, features):
        raise ConfigError(
            f"patches.size, back and ahead: patches of {' x '.join(map(str, geometry.size[-axes:]))} points of "
            f"{features} features, or what is seen around them, have more than {MAX_VALUES} values; give smaller ones"
        )
    return geometry


def train_patches(
    signals: str | Path, settings: Patches, *, seed: int, out: str | Path, watch: Watch = silent
) -> dict[str, Any]:
    """Learn experts from the training split and write their model.

    Parameters
    ----------
    signals : str or Path
        A store of signals (:func:`vcinr.signals.write_signals`).
    settings : Patches
        Geometry and number of the experts.
    seed : int
        Seed of the draw of patches.
    out : str or Path
        The model file to write. Its bytes depend on the arguments, the signals, and NumPy's build and threads.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        JSON-able: ``experts``, ``model_bytes``, ``seconds``, and the ``history`` of learning.

    Raises
    ------
    InputError
        For masked signals, signals of more than three axes, and too few of them.
    ConfigError
        For settings that do not fit the signals.
    """
    began = time.monotonic()
    data = read_signals(signals)
    if not 1 <= len(data.dims) <= 3:
        raise InputError(f"{signals}: patches have one to three dimensions, and signals have {len(data.dims)}")
    if any(split.mask is not None for split in data.splits.values()):
        raise InputError(f"{signals}: signals for patches must have a value everywhere; choose another method")
    features = data.splits["train"].features.shape[-1]
    geometry = geometry_of(settings, len(data.dims), features, data.attrs.get(PATCH_LENGTH))
    middle, predict, basis, history = learn(
        list(_arranged(data, "train")), geometry, experts=settings.experts, rounds=settings.rounds,
        patches=settings.count, psnr=settings.psnr, seed=seed, watch=watch,
    )  # fmt: skip
    given = {k: v for k, v in settings.model_dump().items() if k != "group" or v}
    provenance = {**data.attrs, "method": "experts", "seed": seed, "settings": given}
    model = PatchModel(geometry, data.dims, data.feature_dim, data.normalisation, middle, predict, basis, provenance)
    if geometry.group:
        later, more = learn_later(
            list(_arranged(data, "train")), geometry, experts=max(1, settings.experts // 2), rounds=settings.rounds,
            patches=settings.count, psnr=settings.psnr, seed=seed, watch=watch,
        )  # fmt: skip
        model, history = replace(model, later=later), history + more
    model = stored(model)
    with written_aside(out) as aside:
        aside.write_bytes(model.data)
    return {
        "experts": len(basis), "model_bytes": len(model.data), "seconds": time.monotonic() - began, "history": history,
    }  # fmt: skip


def extract_codes(
    signals: str | Path, model: PatchModel, out: str | Path, *, psnr: float, watch: Watch = silent
) -> dict[str, Any]:
    """Find the expert and the latents of every patch and write them to a Zarr store.

    A patch is predicted from the signal itself around it, where an encoder has decoded values. So these are the codes
    of an archive, but for its choices between bits and errors. Of planes in groups, the first of a signal is taken
    alone, since the others follow what has moved.

    Parameters
    ----------
    signals : str or Path
        A store of signals.
    model : PatchModel
        Experts that were learned from them.
    out : str or Path
        The Zarr store to write. It has a group for each split with ``expert [N, nz, ny, nx]`` uint8, the expert that
        needs the fewest bits, and ``code [N, nz, ny, nx, Q]`` int32, its latents in steps.
    psnr : float
        The quality in dB of the training range that sets the step.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        ``step``, and for each split the number of ``signals``, the share of patches of each expert and the share of
        latents that are not zero.
    """
    data, out = read_signals(signals), Path(out)
    step = step_at(psnr)
    temporary = out.with_name(out.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    root = zarr.open_group(temporary, mode="w", attributes={"model": model.sha256, "step": step})
    summary: dict[str, Any] = {"step": step}
    total, done = sum(map(len, data.splits.values())), 0
    for name in data.splits:
        values = _arranged(data, name)
        values = values[:, :1] if model.geometry.group else values
        if not len(values):
            continue
        counts = [n // s for n, s in zip(model.geometry.padded(values.shape[1:4]), model.geometry.size, strict=True)]
        group, q = root.create_group(name), model.basis.shape[1]
        shape = (len(values), *counts)
        chosen = group.create_array("expert", shape=shape, dtype="uint8", chunks=(1, *counts))
        codes = group.create_array("code", shape=(*shape, q), dtype="int32", chunks=(1, *counts, q))
        shares, filled = np.zeros(len(model.basis)), 0
        for i, signal in enumerate(values):
            expert, latents = analysed(model, signal, step)
            rounded = np.rint(latents / np.float32(step)).astype(np.int32)
            chosen[i], codes[i] = expert, rounded
            shares += np.bincount(expert.ravel(), minlength=len(shares))
            filled += int(np.count_nonzero(rounded))
            done += 1
            watch(Progress("codes", done, total))
        summary[name] = {
            "signals": len(values),
            "experts": [round(float(share), 4) for share in shares / shares.sum()],
            "codes_not_zero": filled / (len(values) * math.prod(counts) * q),
        }
    shutil.rmtree(out, ignore_errors=True)
    temporary.rename(out)
    return summary


def assess(signals: str | Path, model: PatchModel, watch: Watch = silent) -> list[dict[str, float]]:
    """Code validation signals at some rates.

    Parameters
    ----------
    signals : str or Path
        A store of signals.
    model : PatchModel
        Experts that were learned from its training split.
    watch : callable
        Is told of progress.

    Returns
    -------
    list of dict
        Rows of ``rate`` (see `vcinr.patches.model.step_of`), ``bits_per_value``, and ``psnr_db`` in dB of the training
        range.
    """
    valid = _arranged(read_signals(signals), "valid")
    valid = valid[:: -(-len(valid) // _MOST)]
    rows = []
    for number, rate in enumerate(_JUDGED, 1):
        stream, decoded = coder.encode(model, valid, rate, coder.likely_experts(model, valid, rate))
        error = float(np.square(decoded - valid).mean())
        row = {"rate": rate, "bits_per_value": 8 * len(stream) / valid.size, "psnr_db": float(psnr_of(error))}
        rows.append(row)
        watch(Progress("assess", number, len(_JUDGED), {"bits per value": row["bits_per_value"]}))
    return rows


def _arranged(data: Signals, split: str) -> np.ndarray:
    """The signals of a split as float32 ``[N, Z, Y, X, F]``, normalised."""
    values = data.normalised(split)[0]
    return values.reshape(len(values), *three(data.domain.shape, 1), values.shape[-1])
