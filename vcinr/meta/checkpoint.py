"""Checkpoints of long training runs: written atomically, and resumed only by the very same run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from vcinr.places import written_aside


def save_checkpoint(path: str | Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically.

    Parameters
    ----------
    path : str or Path
        File to write.
    fingerprint : str
        Identifies the run.
    state : dict
        Tensors, numbers and containers of them.
    """
    with written_aside(path) as aside:
        torch.save({"fingerprint": fingerprint, "state": state}, aside)


def load_checkpoint(path: str | Path, fingerprint: str) -> dict[str, Any] | None:
    """The state saved at `path`; None where there is none, it cannot be read, or it is of another run."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
        return None
    if not isinstance(saved, dict) or saved.get("fingerprint") != fingerprint:
        return None
    return saved["state"]
