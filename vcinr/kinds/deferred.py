"""Files whose values are read when they are used, so that many of them become one array without being held at once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.backends.locks import SerializableLock
from xarray.core import indexing

from vcinr.errors import InputError

HELD_BYTES = 1 << 26
"""Most bytes of the files' values that are held: those used last. A single file may have more."""

Key = tuple[int | slice, ...]


class Held:
    """Data sets that are opened when they are used; only the last ones are held, in `most` bytes.

    Parameters
    ----------
    most : int
        Largest number of bytes.
    """

    def __init__(self, most: int = HELD_BYTES) -> None:
        self.most, self._opened, self._lock = most, OrderedDict[str, xr.Dataset](), SerializableLock()

    def dataset(self, path: str, read: Callable[[], xr.Dataset]) -> xr.Dataset:
        """The data set of a file, which `read` opens where it is not held."""
        with self._lock:
            if path not in self._opened:
                self._opened[path] = read()
            self._opened.move_to_end(path)
            while len(self._opened) > 1 and sum(d.nbytes for d in self._opened.values()) > self.most:
                self._opened.popitem(last=False)
            return self._opened[path]

    def deferred(
        self, path: str, read: Callable[[], xr.Dataset], kept: Callable[[str, xr.Variable], bool]
    ) -> xr.Dataset:  # fmt: skip
        """Open a file, and read its values again when they are used.

        Parameters
        ----------
        path : str
            The file, for messages; no two files have the same.
        read : callable
            Opens it.
        kept : callable
            Whether a variable, of a name, stays in memory.

        Returns
        -------
        xarray.Dataset
            As `read` opens it.
        """
        dataset = self.dataset(path, read)
        variables = {
            name: xr.Variable(
                variable.dims, indexing.LazilyIndexedArray(_OfFile(self, path, read, str(name), variable)),
                variable.attrs, variable.encoding,
            )
            for name, variable in dataset.variables.items()
            if name not in dataset.indexes and in_memory(variable) and not kept(str(name), variable)
        }  # fmt: skip
        return dataset.assign(variables)


def in_memory(variable: xr.Variable) -> bool:
    """Whether the values of a variable are held by it, and are not read when they are used."""
    return isinstance(variable._data, np.ndarray)


class _OfFile(BackendArray):
    """A variable of a file."""

    def __init__(
        self, held: Held, path: str, read: Callable[[], xr.Dataset], name: str, variable: xr.Variable
    ) -> None:  # fmt: skip
        self.held, self.path, self.read, self.name = held, path, read, name
        self.shape, self.dtype = variable.shape, variable.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, self._part)

    def _part(self, key: Key) -> np.ndarray:
        variable = self.held.dataset(self.path, self.read).variables.get(self.name)
        if variable is None or variable.shape != self.shape or variable.dtype != self.dtype:
            raise InputError(f"{self.path}: it has changed since it was opened; compress it again")
        return np.asarray(variable.values[key])


class _Joined(BackendArray):
    """Variables of many files, stacked along a new first axis, or end to end along one of theirs."""

    def __init__(self, parts: Sequence[xr.Variable], axis: int | None) -> None:
        self.parts, self.axis, self.dtype = parts, axis, parts[0].dtype
        if axis is None:
            self.shape = (len(parts), *parts[0].shape)
        else:
            self.ends = np.cumsum([part.shape[axis] for part in parts])
            self.shape = (*parts[0].shape[:axis], int(self.ends[-1]), *parts[0].shape[axis + 1 :])

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        read = self._of_stack if self.axis is None else self._end_to_end
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, read)

    def _of_stack(self, key: Key) -> np.ndarray:
        which, inner = key[0], key[1:]
        if not isinstance(which, slice):
            return np.asarray(self.parts[which][inner].values)
        chosen = [part[inner].values for part in self.parts[which]]
        return np.stack(chosen) if chosen else np.empty(self.shape, self.dtype)[key]

    def _end_to_end(self, key: Key) -> np.ndarray:
        assert self.axis is not None
        which, length = key[self.axis], self.shape[self.axis]
        wanted = range(length)[which] if isinstance(which, slice) else range(which, which + 1)
        low, high = (min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1) if wanted else (0, 0)
        before = (slice(None),) * self.axis
        pieces = [self.parts[0][(*before, slice(0, 0))].values]
        for part, end in zip(self.parts, self.ends.tolist(), strict=True):
            start = end - part.shape[self.axis]
            if start < high and low < end:
                pieces.append(part[(*before, slice(max(0, low - start), min(high, end) - start))].values)
        whole = np.concatenate(pieces, self.axis)
        inside: Any = slice(None, None, wanted.step) if isinstance(which, slice) else 0
        return np.asarray(whole[(*key[: self.axis], inside, *key[self.axis + 1 :])])


def in_one(parts: Sequence[xr.Variable], dim: str, *, stacked: bool) -> xr.Variable:
    """Join variables of equal type.

    Parameters
    ----------
    parts : sequence of xarray.Variable
        The variables, at least one.
    dim : str
        The dimension along which they are joined.
    stacked : bool
        Whether that is a new first one; else they are of equal shape but for it, and lie end to end.

    Returns
    -------
    xarray.Variable
        With the attributes of the first. Its values are read when they are used, unless all parts are in memory.
    """
    axis = None if stacked else parts[0].dims.index(dim)
    dims = (dim, *parts[0].dims) if stacked else parts[0].dims
    if all(map(in_memory, parts)):
        values = [np.asarray(part.values) for part in parts]
        whole: Any = np.stack(values) if axis is None else np.concatenate(values, axis)
    else:
        whole = indexing.LazilyIndexedArray(_Joined(parts, axis))
    return xr.Variable(dims, whole, parts[0].attrs)
