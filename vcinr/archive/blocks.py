"""Variables that are read block by block, and what identifies their values."""

from __future__ import annotations

import hashlib
import itertools
import json
import threading
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from vcinr.archive import metadata
from vcinr.errors import NOT_DAMAGE, InputError, VcinrError, one_line

READING = threading.RLock()
"""Held while a file is opened, read or closed: the libraries for netCDF and HDF5 do one of these at a time."""
CHUNK_VALUES = 1 << 25
"""Most values in a chunk of whole signals, so that encoding it takes about a gigabyte."""
_PIECE_VALUES = 1 << 22  # most values in a chunk of an array that nobody asked to compress


def pieces(shape: tuple[int, ...], most: int = _PIECE_VALUES) -> tuple[int, ...]:
    """A chunk shape of at most about `most` values: the last axes whole, then a part of one, then single."""
    result: list[int] = []
    room = most
    for n in reversed(shape):
        result.append(max(1, min(n, room)))
        room = max(1, room // max(1, n))
    return tuple(reversed(result))


def index_of(number: int, counts: Sequence[int]) -> tuple[int, ...]:
    """The index of the chunk of that number, in C order, among so many along each axis."""
    index: list[int] = []
    for n in reversed(counts):
        number, rest = divmod(number, n)
        index.append(rest)
    return tuple(reversed(index))


def blocks(values: xr.DataArray) -> Iterator[np.ndarray]:
    """Read a variable piece by piece, as `read_block` does."""
    shape = pieces(values.shape)
    for index in itertools.product(*(range(-(-n // c)) for n, c in zip(values.shape, shape, strict=True))):
        yield read_block(values, index, shape)


def read_block(values: xr.DataArray, index: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Read one chunk of a variable that may lie in a file.

    Parameters
    ----------
    values
        The variable.
    index
        Which chunk.
    shape
        The shape of all chunks but those at the edges.

    Returns
    -------
    numpy.ndarray
        In native byte order.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True))
    try:
        with READING:
            block = np.asarray(values[part].values)
    except (VcinrError, *NOT_DAMAGE):
        raise
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(
            f"variable {values.name!r} cannot be read ({one_line(error)}); is the file whole? copy it again"
        ) from None
    return block.astype(metadata.native(block.dtype), copy=False)


def text_digest(values: xr.DataArray) -> str:
    """Digest a variable of text or the like, read whole."""
    with READING:
        texts = values.values.ravel().tolist()
    return hashlib.blake2b(repr(texts).encode(errors="replace"), digest_size=16).hexdigest()


def source_digest(blocks: Mapping[str, Sequence[str]]) -> str:
    """Digest all values of a data set.

    Parameters
    ----------
    blocks
        By the variable's name, the digests (:func:`vcinr.archive.spool.digest_of`) of the chunks that it has in the
        archive, in C order; of text one `text_digest`.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    whole = hashlib.blake2b(digest_size=8)
    for name, digests in sorted(blocks.items()):
        whole.update(json.dumps([name, *digests]).encode())
    return whole.hexdigest()
