"""Signals, the items that a model learns from and compresses: their coordinates, features and masks."""

from vcinr.signals.domain import Domain, Grid, Points
from vcinr.signals.store import (
    Signals,
    SignalSet,
    fixed_known_points,
    fixed_points,
    normalise,
    read_signals,
    write_signals,
)
from vcinr.signals.tiling import Layout, layout_of, split, unsplit

__all__ = [
    "Domain", "Grid", "Layout", "Points", "SignalSet", "Signals", "fixed_known_points", "fixed_points", "layout_of",
    "normalise", "read_signals", "split", "unsplit", "write_signals",
]  # fmt: skip
