"""Signals: coordinates, features and mask of the items a model learns from and compresses."""

from vcinr.signals.store import Signals, SignalSet, read_signals, write_signals
from vcinr.signals.tiling import Layout, layout_of, split, unsplit

__all__ = ["Layout", "SignalSet", "Signals", "layout_of", "read_signals", "split", "unsplit", "write_signals"]
