"""A linear floor: principal axes of blocks, a uniform quantiser, and the ideal length of codes with learned tables.

What a signal needs is counted as -log2 of the frequency in training of each of its symbols, so that no coder is needed
and none can do better with these tables; a range coder takes about 1 % more. Blocks are of classes by their energy,
each of which has its own tables, and the class itself is counted. Neither axes nor tables are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CLASSES = 16
_LARGEST = 15  # of a symbol with its own place in a table; a larger one escapes to a universal code
_SEEN = 0.05  # added to what was counted of each symbol


def blocks_of(signal: np.ndarray, block: tuple[int, ...]) -> np.ndarray:
    """Cut a signal into blocks.

    Parameters
    ----------
    signal : numpy.ndarray
        ``[*grid]`` or ``[*grid, feature]``. It is extended to whole blocks by repeating its last values.
    block : tuple of int
        Lengths of a block along the axes of the grid.

    Returns
    -------
    numpy.ndarray
        float32 ``[n, values of a block]``.
    """
    grid = signal.shape[: len(block)]
    counts = [-(-n // b) for n, b in zip(grid, block, strict=True)]
    after = [(0, c * b - n) for c, b, n in zip(counts, block, grid, strict=True)]
    whole = np.pad(np.asarray(signal, np.float32), after + [(0, 0)] * (signal.ndim - len(block)), "edge")
    parts = [n for pair in zip(counts, block, strict=True) for n in pair]
    split = whole.reshape(*parts, -1)
    axes = len(block)
    order = [*range(0, 2 * axes, 2), *range(1, 2 * axes, 2), 2 * axes]
    return np.ascontiguousarray(split.transpose(order)).reshape(math.prod(counts), -1)


def signal_of(blocks: np.ndarray, block: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `blocks_of`, for a signal of `shape`."""
    axes = len(block)
    counts = [-(-n // b) for n, b in zip(shape[:axes], block, strict=True)]
    split = blocks.reshape(*counts, *block, -1)
    order = [a for pair in zip(range(axes), range(axes, 2 * axes), strict=True) for a in pair]
    whole = split.transpose([*order, 2 * axes]).reshape(*(c * b for c, b in zip(counts, block, strict=True)), -1)
    return whole[tuple(slice(n) for n in shape[:axes])].reshape(shape)


@dataclass(frozen=True)
class Klt:
    """Principal axes of training blocks.

    Parameters
    ----------
    mean, axes : numpy.ndarray
        ``[Q]`` and ``[Q, Q]``, an axis a column.
    learned : numpy.ndarray
        Coefficients ``[N, Q]`` of the training blocks.
    """

    mean: np.ndarray
    axes: np.ndarray
    learned: np.ndarray

    @classmethod
    def fit(cls, blocks: np.ndarray) -> Klt:
        """Find the axes of blocks ``[N, Q]``."""
        mean = blocks.mean(0, dtype=np.float64).astype(np.float32)
        centred = blocks - mean
        axes = np.linalg.eigh((centred.T @ centred).astype(np.float64))[1][:, ::-1].astype(np.float32)
        return cls(mean, axes, centred @ axes)

    def code(
        self, signals: Sequence[np.ndarray], block: tuple[int, ...], step: float, classes: int = CLASSES
    ) -> tuple[float, list[np.ndarray]]:
        """Quantise signals, and count what they need.

        Parameters
        ----------
        signals : sequence of numpy.ndarray
            As `blocks_of` takes them.
        block : tuple of int
            Lengths of a block.
        step : float
            Of the quantiser, in the units of the signals.
        classes : int
            Number of classes of blocks.

        Returns
        -------
        bits : float
            Of all signals.
        decoded : list of numpy.ndarray
            float32, what the quantiser leaves of each.
        """
        seen = np.rint(self.learned / step).astype(np.int32)
        energy = _energy(seen)
        edges = np.unique(np.quantile(energy, np.linspace(0, 1, classes + 1)[1:-1]))
        tables, priors = _tables(seen, np.searchsorted(edges, energy), len(edges) + 1)
        bits, decoded = 0.0, []
        for signal in signals:
            symbols = np.rint((blocks_of(signal, block) - self.mean) @ self.axes / step).astype(np.int32)
            label = np.searchsorted(edges, _energy(symbols))
            bits += float(priors[label].sum()) + _bits(symbols, label, tables)
            blocks = (symbols * np.float32(step)) @ self.axes.T + self.mean
            decoded.append(signal_of(blocks, block, signal.shape))
        return bits, decoded


def _energy(symbols: np.ndarray) -> np.ndarray:
    """About how many bits blocks of symbols ``[N, Q]`` need."""
    return np.log2(1 + np.square(symbols, dtype=np.float32)).sum(1)


def _place(symbols: np.ndarray) -> np.ndarray:
    return np.clip(symbols, -_LARGEST - 1, _LARGEST + 1) + _LARGEST + 1


def _tables(symbols: np.ndarray, label: np.ndarray, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits of each symbol, by class and axis ``[classes, Q, places]``, and of each class."""
    axes, places = symbols.shape[1], 2 * _LARGEST + 3
    tables = np.empty((classes, axes, places), np.float32)
    for kind in range(classes):
        some = _place(symbols[label == kind]) + places * np.arange(axes, dtype=np.int32)
        counts = np.bincount(some.ravel(), minlength=axes * places).reshape(axes, places) + _SEEN
        tables[kind] = -np.log2(counts / counts.sum(1, keepdims=True))
    counts = np.bincount(label, minlength=classes) + 1.0
    return tables, -np.log2(counts / counts.sum())


def _bits(symbols: np.ndarray, label: np.ndarray, tables: np.ndarray) -> float:
    """Bits of blocks of symbols, whose classes are counted elsewhere."""
    axes = np.arange(symbols.shape[1])
    own = sum(float(tables[kind, axes, _place(symbols[label == kind])].sum()) for kind in np.unique(label))
    beyond = np.abs(symbols[np.abs(symbols) > _LARGEST]) - _LARGEST
    return own + float((2 * np.floor(np.log2(beyond)) + 1).sum())  # Elias' gamma code; the table has the sign
