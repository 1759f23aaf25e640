"""Kinds of which each file holds one signal of any size; a model learns from tiles of one size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from pydantic import create_model

from vcinr.config import Positive, Selection, Source
from vcinr.errors import InputError
from vcinr.formats.open import field, open_dataset
from vcinr.kinds.base import Kind, Options, cut
from vcinr.progress import Watch, silent


class TileOptions(Options):
    """Length of the tiles from which a model learns, along each dimension, and the largest number of them in a file."""

    tile: Positive
    tiles: Positive = 500


def file_kind(
    variable: str, dims: tuple[str, ...], endings: tuple[str, ...], *, tile: int,
    network_tile: int | None = None, feature_dim: str | None = None, ragged: bool = False,
    patches: Mapping[str, Any] | None = None,
) -> Kind:  # fmt: skip
    """Make a kind of which each file holds one signal.

    Parameters
    ----------
    variable : str
        The name that formats give the signal.
    dims : tuple of str
        The dimensions of a signal.
    endings : tuple of str
        How files may end into which a signal is written without loss; the first is the usual one.
    tile : int
        Usual length of the tiles from which a model learns. At the edges of short ones a patch sees less around it than
        in whole signals: tiles of 32 instead of 60 voxels cost volumes 8 % of their bytes.
    network_tile : int, optional
        The same for networks, whose latents each describe a whole tile. Default: `tile`.
    feature_dim : str, optional
        The dimension of the features of a point. A signal may lack it.
    ragged : bool
        Whether signals are joined end to end along their only dimension, instead of being stacked.
    patches : mapping, optional
        Parameters of the method ``experts`` that suit the kind.
    """

    def open_selection(path: str, selection: Selection, options: Any, watch: Watch = silent) -> xr.Dataset:
        return cut(open_dataset(path), selection.select, selection.path)

    def variables(source: Source, dataset: xr.Dataset) -> tuple[str, ...]:
        return (variable,)

    def training(dataset: xr.Dataset, options: Any, path: str) -> xr.Dataset:
        values = field(dataset, variable, path)
        return tiled(values, dims, options.tile, options.tiles, path).to_dataset(name=variable)

    return Kind(
        open=open_selection, variables=variables, signal_dims=dims,
        options=create_model("TileOptions", __base__=TileOptions, tile=(Positive, tile)),
        variable=variable, dims=dims, feature_dim=feature_dim, ragged=ragged, endings=endings, training=training,
        method="experts", network_tile=network_tile, patches=patches or {},
    )  # fmt: skip


def tiled(values: xr.DataArray, dims: Sequence[str], size: int, most: int, path: str) -> xr.DataArray:
    """Cut a signal into tiles.

    Parameters
    ----------
    values : xarray.DataArray
        The signal.
    dims : sequence of str
        Its dimensions, along which it is cut.
    size : int
        Length of a tile along each of them; less where the signal is shorter than that along all of them.
    most : int
        Largest number of tiles. Of more, every so-manieth is taken.
    path : str
        The file that it comes from, for messages.

    Returns
    -------
    xarray.DataArray
        The tiles along the new first dimension ``tile``. What remains beyond the last whole tile is left out.

    Raises
    ------
    InputError
        Where the signal is shorter than a tile.
    """
    counts = [values.sizes[d] // size for d in dims]
    if not all(counts):
        lengths = " x ".join(str(values.sizes[d]) for d in dims)
        raise InputError(f"{path}: it has {lengths} points, fewer than a tile of {size}; set tile: to a smaller size")
    total = math.prod(counts)
    chosen = np.unique(np.linspace(0, total - 1, min(total, most)).round().astype(int))
    places = [np.unravel_index(i, counts) for i in chosen]
    tiles = [
        values.isel({d: slice(int(p) * size, (int(p) + 1) * size) for d, p in zip(dims, place, strict=True)}).values
        for place in places
    ]
    return xr.DataArray(np.stack(tiles), dims=("tile", *values.dims), name=values.name, attrs=values.attrs)
