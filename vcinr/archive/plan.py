"""What an archive will hold: every array with its codec, its bound and its chunk shape. Nothing is encoded here.

A plan is made of the data set's metadata, and of the least and greatest values of a variable where its bound asks for
them. It writes nothing, so it also says beforehand what a call would store. `vcinr.archive.jobs` says what each
variable is asked, and this module how it is cut.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vcinr.archive import metadata
from vcinr.archive.blocks import CHUNK_VALUES, READING, pieces, read_block
from vcinr.archive.jobs import Job, Limits, Models, jobs_of, known_as
from vcinr.archive.metadata import Groups
from vcinr.archive.zarr_codec import VcinrCodec, encode_axis
from vcinr.coding.bits import items_of
from vcinr.errors import InputError
from vcinr.inr.model import Model
from vcinr.patches.model import PatchModel

_CUT_VALUES = 1 << 24
"""Most values in a chunk of a model of patches or tiles, so that cores share a large signal.

A brain at 1 mm, of 9 million, stays whole: two chunks of it take 4 % more bytes."""
_SOLID_VALUES = 1 << 23
"""Values in a chunk of truth values, or of integers that are 0 or 1.

The coder learns from one shape to the next, so large chunks take fewer bytes. One of this size, 32 shapes of 64^3, is
read in two seconds, and takes 4 % more bytes than 115 such shapes in one."""


@dataclass(frozen=True)
class ArrayPlan:
    """A job with all that fixes its bytes: the codec of the array, its chunk shape and its dtype."""

    job: Job
    codec: VcinrCodec
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def counts(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.job.values.shape, self.shape, strict=True))

    def chunks(self) -> Iterator[tuple[tuple[int, ...], str]]:
        """Index and store key of every chunk, in C order."""
        for index in itertools.product(*map(range, self.counts)):
            yield index, "/".join([self.job.name, "c", *map(str, index)])

    def block(self, index: tuple[int, ...]) -> np.ndarray:
        """Values of the chunk at `index`, in native byte order; raises InputError where they cannot be read."""
        return read_block(self.job.values, index, self.shape)

    @property
    def numeric(self) -> bool:
        """Whether vcinr's codec stores the array, losslessly or not; text and the like keep Zarr's codecs."""
        return self.dtype.kind in "fiub"

    def request(self) -> list[Any]:
        """JSON-able: two plans of equal requests and values have equal bytes."""
        bound = self.job.stored_bound
        peak = bound.peak if bound else None
        return [self.job.name, self.codec.to_dict(), peak, self.shape, self.dtype.str, self.job.values.shape]


def plan(
    groups: Groups,
    *,
    model: Models = None,
    abs_error: float | Mapping[str, float] | None = None,
    bounds: Mapping[str, float | None] | None = None,
    variables: Sequence[str] | None = None,
    chunk: int | None = None,
    limits: Limits | None = None,
) -> list[ArrayPlan]:
    """Plan every array of numbers of a data set, and every other variable that was named.

    Parameters
    ----------
    groups
        The data set by groups, as it is stored (:func:`vcinr.archive.metadata.stored`).
    model, abs_error, variables, chunk
        As in :func:`vcinr.archive.write.compress`.
    bounds
        The other kinds of bound of that function by the parameter's name; None where it is not given.
    limits
        Least and greatest valid stored number of variables by full name, where they are known already; by default they
        are read where they are needed.

    Returns
    -------
    list of ArrayPlan
        In the order of the groups and their variables.

    Raises
    ------
    InputError
        For a request that contradicts itself, or a variable that is missing or cannot be stored.
    ModelError
        For a model that was not made for these variables.
    """
    requests = {"rel_error": None, "point_rel_error": None, "psnr": None, "rate": None, "iou": None, **(bounds or {})}
    with READING:
        return [_array(job, chunk) for job in jobs_of(groups, model, abs_error, requests, variables, limits)]


def signals_of(points: int) -> int:
    """How many signals of so many points a chunk has, where nobody says: about a million values, eight at least."""
    return max(8, (1 << 20) // points)


def _solid_chunks(shape: tuple[int, ...], chunk: int | None) -> tuple[int, ...]:
    """Chunk shape of about `chunk` shapes, by default of `_SOLID_VALUES`; a shape is cut only where it is large."""
    most = _SOLID_VALUES if chunk is None else chunk * math.prod(items_of(shape)[1:])
    return pieces(shape, min(most, CHUNK_VALUES))


def _signal_chunks(job: Job, chunk: int | None) -> tuple[int, ...]:
    """Chunk shape of about `chunk` signals; a signal is cut only where it is large and no model needs it whole."""
    assert job.layout is not None
    sizes = {str(d): n for d, n in job.values.sizes.items()}
    grid = {d: sizes[d] for d in job.layout.value_dims}
    tile = job.model.tile if isinstance(job.model, Model) else None
    cuts = isinstance(job.model, PatchModel) or tile is not None  # a model of patches or tiles, for signals of any size
    most = _CUT_VALUES if cuts else CHUNK_VALUES
    cut = job.layout.dims if cuts else tuple(grid)  # features of a point stay together under a model
    unit = dict.fromkeys(cut, 1) if tile is None else dict(zip(cut, tile, strict=True))  # whole tiles, but for the last
    while (job.model is None or cuts) and math.prod(grid.values()) > most and any(grid[d] > unit[d] for d in cut):
        longest = max(cut, key=lambda d: grid[d] / unit[d])
        grid[longest] = -(-grid[longest] // (2 * unit[longest])) * unit[longest]
    points = math.prod(grid.values())
    room = max(1, min(signals_of(points) if chunk is None else chunk, CHUNK_VALUES // points))
    shape = dict(grid)
    for dim in reversed([d for d in sizes if d not in grid]):
        shape[dim] = max(1, min(sizes[dim], room))
        room = max(1, room // shape[dim])
    return tuple(shape[d] for d in sizes)


def _axes(job: Job) -> tuple[dict[str, Any], ...]:
    """Coordinates of the signal's axes, where a network is evaluated at them."""
    whole = isinstance(job.model, Model) and job.model.tile is None and job.model.domain is None
    if job.layout is None or not whole:
        return ()
    return tuple(encode_axis(a) for a in job.layout.grid.columns)


def _array(job: Job, chunk: int | None) -> ArrayPlan:
    values, bound, layout = job.values, job.stored_bound, job.layout
    grid = () if layout is None else tuple(values.dims.index(d) for d in layout.dims)
    feature = None if layout is None or layout.feature_dim is None else values.dims.index(layout.feature_dim)
    if feature is None and grid == tuple(range(max(0, values.ndim - 2), values.ndim)):
        grid = ()  # what the codec takes where nothing is said
    serializer = VcinrCodec(
        variable=job.name if job.model is None else known_as(job.name, job.model),
        signal_axes=grid,
        axes=_axes(job),
        model=job.model.sha256 if job.model else None,
        scaling=job.scaling,
        bound=(bound.kind, bound.value) if bound else None,
        fill=metadata.fill_values(values),
        limits=metadata.valid_limits(values) if layout is not None else None,
        feature_axis=feature,
        positions=None if job.located is None else job.located.place,
    )
    if job.solid and (layout is None or chunk is None):
        shape = _solid_chunks(values.shape, chunk)
    else:
        shape = pieces(values.shape) if layout is None else _signal_chunks(job, chunk)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        raise InputError(f"variable {job.name!r} is {values.dtype}, which no archive can hold; convert it to float64")
    return ArrayPlan(job, serializer, shape, metadata.native(values.dtype))
