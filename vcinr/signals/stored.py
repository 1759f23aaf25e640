"""Arrays of signals that stay in their Zarr store because they are larger than memory: rows are read when asked for."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import zarr

_BLOCK = 1 << 26
"""Bytes that are read at a time where a whole array is gone through: about a shard."""
SHA256 = "sha256"
"""Attribute of an array in a store: the digest of its values in C order."""


class Stored:
    """An array ``[N, ...]`` of N signals in a store, which looks like a NumPy array that is read row by row.

    Parameters
    ----------
    array : zarr.Array
        The array in the store.
    """

    def __init__(self, array: zarr.Array[Any]) -> None:
        self._array: Any = array
        self._reader: ThreadPoolExecutor | None = None
        self._ahead: tuple[np.ndarray, Future[np.ndarray]] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of signals, and the shape of each."""
        return tuple(self._array.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""
        return np.dtype(self._array.dtype)

    @property
    def nbytes(self) -> int:
        """Bytes that all values take in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> np.ndarray:
        """Read the rows that a number, a slice or an array of numbers or bools chooses."""
        rows = np.arange(len(self))[index]
        if rows.ndim == 0:
            return self._read(rows[None])[0]
        ahead, self._ahead = self._ahead, None
        if ahead is not None and np.array_equal(ahead[0], rows):
            return ahead[1].result()
        return self._read(rows)

    def read_ahead(self, rows: np.ndarray) -> None:
        """Begin to read rows in a thread. The next `__getitem__` takes them, if it asks for the very same rows."""
        if self._reader is None:
            self._reader = ThreadPoolExecutor(1, "vcinr-read-ahead")
        if self._ahead is not None:
            self._ahead[1].cancel()
        self._ahead = rows, self._reader.submit(self._read, rows)

    def blocks(self) -> Iterator[np.ndarray]:
        """All rows in their order, some at a time."""
        step = max(1, _BLOCK * len(self) // max(1, self.nbytes))
        for start in range(0, len(self), step):
            yield self[start : start + step]

    @property
    def sha256(self) -> str:
        """Digest of all values. Ingestion has noted it in the store; without that note all values are read."""
        noted = self._array.attrs.get(SHA256)
        return str(noted) if noted else sha256_of(self)

    def _read(self, rows: np.ndarray) -> np.ndarray:
        # Rows in a row are read at once. Zarr's own selection of single rows needs many times the memory of the result.
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        begins = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        for begin, end in itertools.pairwise([*begins, len(rows)]):
            first = int(rows[begin])
            result[begin:end] = self._array[first : first + int(end - begin)]
        return result


def blocks(array: np.ndarray | Stored) -> Iterator[np.ndarray]:
    """The rows of an array in their order: of one in memory all at once, of one in a store some at a time."""
    return array.blocks() if isinstance(array, Stored) else iter((array,))


def sha256_of(array: np.ndarray | Stored) -> str:
    """Digest of the values of an array in C order, wherever they are."""
    digest = hashlib.sha256()
    for block in blocks(array):
        digest.update(np.ascontiguousarray(block).data)
    return digest.hexdigest()
