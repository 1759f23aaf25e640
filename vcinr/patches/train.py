"""Training of experts for patches from a store of signals, in closed form."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.config import Patches
from vcinr.errors import ConfigError, InputError
from vcinr.patches import coder
from vcinr.patches.geometry import Geometry, three, usual
from vcinr.patches.learn import learn, learn_later, stored
from vcinr.patches.model import MAX_VALUES, PatchModel, fits
from vcinr.places import written_aside
from vcinr.progress import Watch, silent
from vcinr.quality import psnr_of
from vcinr.signals import Signals
from vcinr.signals.store import read_signals

_JUDGED = (34, 50, 66, 82)  # rates, 6 dB apart, at which the model is judged
_MOST = 64  # validation signals that are coded for that
_MARGIN = 1  # how far around a displaced patch one looks, where planes are in groups
_FINER = (18, 10, 0, -8, -13)  # what is lost in planes that others look at is lost in those too


def geometry_of(settings: Patches, axes: int, features: int) -> Geometry:
    """The geometry of patches of signals of so many axes and features; raises ConfigError where settings do not fit."""
    default = usual(axes)
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
        JSON-able: ``experts``, ``model_bytes``, ``seconds``, the ``history`` of learning, and ``valid``, a list of
        ``bits_per_value`` and ``psnr_db`` of validation signals at some rates.

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
    if any(data.splits[s].mask is not None for s in ("train", "valid")):
        raise InputError(f"{signals}: signals for patches must have a value everywhere; choose another method")
    features = data.splits["train"].features.shape[-1]
    geometry = geometry_of(settings, len(data.dims), features)
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
    valid = _arranged(data, "valid")
    valid = valid[:: -(-len(valid) // _MOST)]
    judged = []
    for rate in _JUDGED:
        stream, decoded = coder.encode(model, valid, rate, coder.likely_experts(model, valid, rate))
        error = float(np.square(decoded - valid).mean())
        judged.append({"bits_per_value": 8 * len(stream) / valid.size, "psnr_db": float(psnr_of(error))})
    return {
        "experts": len(basis), "model_bytes": len(model.data), "seconds": time.monotonic() - began,
        "history": history, "valid": judged,
    }  # fmt: skip


def _arranged(data: Signals, split: str) -> np.ndarray:
    """The signals of a split as float32 ``[N, Z, Y, X, F]``, normalised."""
    values = data.normalised(split)[0]
    return values.reshape(len(values), *three(data.domain.shape, 1), values.shape[-1])
