"""netCDF files of archives, written chunk by chunk: a file may be larger than memory."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from xarray.backends import NetCDF4DataStore

from vcinr.errors import InputError, one_line

Stream = Iterator[tuple[str, tuple[slice, ...], np.ndarray]]
"""Names of variables, parts of them, and the values of these."""


def write_group(
    file: Path, group: str, mode: Literal["w", "a"], dataset: xr.Dataset, streamed: Collection[str],
    stream: Callable[[list[str]], Stream],
) -> None:  # fmt: skip
    """Write one group to a netCDF file.

    Parameters
    ----------
    file
        The file.
    group
        Path of the group in it, empty for the root.
    mode
        ``w`` for a new file, ``a`` to add to one.
    dataset
        The group undecoded, lazily; what netCDF knows of it (types, fill values, record dimensions) is made of it.
    streamed
        Names of variables of numbers whose values come part by part; those of others are taken from `dataset`, at once.
    stream
        Called with these names in the file's order; returns all their parts, in any order. Each is in memory when it is
        its turn.

    Raises
    ------
    InputError
        For what netCDF has no form for.
    OSError
        Where the file cannot be written.
    """
    variables = {name: _stand_in(v) for name, v in dataset.variables.items()}
    declared = xr.Dataset(variables, attrs=dataset.attrs).set_coords(list(dataset.coords))
    declared.encoding = dataset.encoding
    unlimited = set(dataset.encoding.get("unlimited_dims", ()))
    targets = _Targets()
    with _refusals(file, group):
        store = NetCDF4DataStore.open(str(file), mode=mode, group=group or None)
    try:
        with _refusals(file, group):
            declared.dump_to_store(store, writer=targets, unlimited_dims=unlimited)
        names = []
        for name, (target, values) in targets.items.items():
            if name in streamed and dataset[name].dtype.kind in "fiub":
                names.append(name)
                continue
            with _refusals(file, group):
                target[...] = np.asarray(values)
        for name, part, block in stream(names):
            with _refusals(file, group):
                targets.items[name][0][part] = block.astype("i1") if block.dtype.kind == "b" else block
    finally:
        store.close()


class _Targets:
    """In the place of xarray's writer: takes note of where values go, instead of writing them."""

    def __init__(self) -> None:
        self.items: dict[str, tuple[Any, Any]] = {}

    def add(self, source: Any, target: Any, region: Any = None) -> None:
        self.items[str(target.variable_name)] = (target, source)


def _stand_in(variable: xr.Variable) -> xr.Variable:
    """The variable with zeros that take no memory for its values, where these are numbers; text as it is."""
    attrs, encoding = dict(variable.attrs), dict(variable.encoding)
    if "_FillValue" not in attrs:
        encoding["_FillValue"] = None  # else xarray adds NaN, which the data did not have
    if variable.dtype.kind not in "fiub":
        return xr.Variable(variable.dims, variable._data, attrs, encoding)
    dtype = variable.dtype
    if dtype.kind == "b":  # as xarray writes truth values, which netCDF has not
        dtype, attrs = np.dtype("i1"), {**attrs, "dtype": "bool"}
    return xr.Variable(variable.dims, np.broadcast_to(dtype.type(0), variable.shape), attrs, encoding)


class _refusals:
    """Turns what netCDF4 and xarray raise for data that they cannot hold into InputError."""

    def __init__(self, file: Path, group: str) -> None:
        self._where = f"{file.name}: netCDF cannot hold group {group or '/'!r}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, ValueError | RuntimeError | TypeError | NotImplementedError):
            raise InputError(f"{self._where} ({one_line(error)}); read the archive with xarray") from None
