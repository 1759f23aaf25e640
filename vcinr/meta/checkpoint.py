"""Checkpoints of long training: written atomically, picked up only by the very same run."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch

from vcinr.places import written_aside


def save_checkpoint(path: str | Path, fingerprint: str, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, containers) atomically."""
    with written_aside(path) as aside:
        torch.save({"fingerprint": fingerprint, "state": state}, aside)


def load_checkpoint(path: str | Path, fingerprint: str) -> dict[str, Any] | None:
    """The state saved at `path`, or None if there is none, it is unreadable, or it is of another run."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError, pickle.UnpicklingError):
        return None
    if not isinstance(saved, dict) or saved.get("fingerprint") != fingerprint:
        return None
    return saved["state"]
