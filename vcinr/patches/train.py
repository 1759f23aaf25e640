"""Training of experts for patches from a store of signals, in closed form."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np

from vcinr.config import Patches
from vcinr.errors import ConfigError, InputError
from vcinr.patches import coder
from vcinr.patches.geometry import Geometry, three, usual
from vcinr.patches.learn import learn, stored
from vcinr.patches.model import MAX_VALUES, PatchModel, fits
from vcinr.places import written_aside
from vcinr.progress import Watch, silent
from vcinr.quality import psnr_of
from vcinr.signals import Signals
from vcinr.signals.store import read_signals

_JUDGED = (34, 50, 66, 82)  # rates, 6 dB apart, at which the model is judged
_MOST = 64  # validation signals that are coded for that


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
    geometry = Geometry(*lengths)
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
        The model file to write. Its bytes depend on the arguments, the signals and the build of NumPy alone.
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
    provenance = {**data.attrs, "method": "experts", "seed": seed, "settings": settings.model_dump()}
    model = stored(
        PatchModel(geometry, data.dims, data.feature_dim, data.normalisation, middle, predict, basis, provenance)
    )
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
