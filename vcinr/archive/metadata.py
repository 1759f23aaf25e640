"""Groups and metadata: what of a data set is its own, in a form that Zarr stores and netCDF gets back unchanged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import xarray as xr
from xarray.backends.zarr import FillValueCoder, encode_zarr_attr_value

from vcinr.errors import InputError

PREFIX = "vcinr_"
"""Of every attribute that is ours and not the data's."""
RESERVED = "vcinr"
"""Group of an archive that holds models and manifest."""
_OWN = ("coordinates", "grid_mapping", "bounds", "cell_measures", "formula_terms", "ancillary_variables")
_TIMES = ("units", "calendar", "dtype")
_DTYPES, _UNLIMITED = PREFIX + "attribute_dtypes", PREFIX + "unlimited_dims"

Groups = dict[str, xr.Dataset]
"""Path, without a slash at either end, to the variables that lie in that group; the root is the empty path."""
Data = xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset]


def as_groups(data: Data) -> Groups:
    """`data` by groups, every parent present; in a data set, names with slashes are members of groups."""
    if isinstance(data, xr.DataTree):
        found = {node.path.strip("/"): node.to_dataset(inherit=False) for node in data.subtree}
    elif isinstance(data, xr.Dataset):
        found = _unflattened(data)
    else:
        found = {path.strip("/"): group for path, group in data.items()}
    for path, group in list(found.items()):
        parts = path.split("/") if path else []
        for part in (*parts, *map(str, group.variables)):
            if part in ("", ".", "..") or part.startswith("__") or "/" in part:
                raise InputError(f"the name {part!r} in group {path!r} cannot be stored; rename it")
        for depth in range(len(parts)):
            found.setdefault("/".join(parts[:depth]), xr.Dataset())
    if any(path == RESERVED or path.startswith(RESERVED + "/") for path in found) or RESERVED in found[""].variables:
        raise InputError(f"the file has a group or variable {RESERVED!r}, a name that archives keep; rename it first")
    return dict(sorted(found.items()))


def _unflattened(dataset: xr.Dataset) -> Groups:
    paths: dict[str, list[str]] = {"": []}
    for name in map(str, dataset.variables):
        paths.setdefault(name.rpartition("/")[0], []).append(name)
    if len(paths) == 1:
        return {"": dataset}
    groups = {}
    for path, names in paths.items():
        chosen = {name.rpartition("/")[2]: dataset.variables[name] for name in names}
        group = xr.Dataset(chosen, attrs=dataset.attrs if not path else None)
        own = [short for short, name in zip(chosen, names, strict=True) if name in dataset.coords]
        groups[path] = group.set_coords(own)
        groups[path].encoding = dict(dataset.encoding) if not path else {}
    return groups


def join(path: str, name: str) -> str:
    """Full name of a member of a group."""
    return f"{path}/{name}" if path else name


def member(groups: Groups, full: str) -> xr.DataArray:
    """Variable ``group/name`` with the coordinates it has in its own group or inherits; KeyError without it."""
    path, _, name = full.rpartition("/")
    array = groups[path][name]
    while path:
        path = path.rpartition("/")[0]
        for dim, n in array.sizes.items():
            above = groups[path].coords.get(dim)
            if dim not in array.coords and above is not None and above.shape == (n,):
                array = array.assign_coords({dim: above.variable})
    return array


def stored(group: xr.Dataset) -> xr.Dataset:
    """A group as it is stored: times as numbers, all that is metadata in `attrs`; nothing but times is loaded."""
    plain = group.copy()
    for variable in plain.variables.values():
        keep = _OWN + (_TIMES if variable.dtype.kind in "mMO" else ())
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in keep}
    variables, attrs = _with_coordinates(plain)
    result = {}
    for name, variable in variables.items():
        if variable.dtype.kind in "mMO":
            variable = xr.conventions.encode_cf_variable(variable, name=name)
        attributes = dict(variable.attrs)
        for key in _OWN:
            if key in variable.encoding:
                attributes.setdefault(key, variable.encoding[key])
        result[str(name)] = xr.Variable(variable.dims, variable._data, attributes)
    unlimited = sorted(str(d) for d in group.encoding.get("unlimited_dims", ()) if d in group.sizes)
    return xr.Dataset(result, attrs={**attrs, _UNLIMITED: unlimited} if unlimited else attrs)


def _with_coordinates(group: xr.Dataset) -> tuple[Mapping[Any, xr.Variable], Mapping[Any, Any]]:
    """Variables and attributes that say which variables are coordinates.

    Where variables of the group say so themselves, as in a CF file, nothing is added to any of them; a coordinate that
    none of them names is named by the group.
    """
    said = [v.encoding.get("coordinates", v.attrs.get("coordinates")) for v in group.variables.values()]
    if not any(said):
        return xr.conventions.encode_dataset_coordinates(group)
    named = {
        word.strip(":")
        for v in group.variables.values()
        for key in _OWN
        for word in str(v.encoding.get(key, v.attrs.get(key, ""))).split()
    }
    left = sorted(str(c) for c in group.coords if c not in group.dims and c not in named)
    return group.variables, {**group.attrs, "coordinates": " ".join(left)} if left else group.attrs


def portable(attrs: Mapping[Any, Any], where: str, dtype: np.dtype | None = None) -> dict[str, Any]:
    """Attributes as JSON, and the types that JSON loses under a name of ours; `dtype`: the array's, for a fill value.

    Raises InputError naming `where` for a value that JSON cannot hold.
    """
    result: dict[str, Any] = {}
    types: dict[str, str] = {}
    for key, value in attrs.items():
        key = str(key)
        if key == "_FillValue" and dtype is not None:
            result[key] = FillValueCoder.encode(dtype.type(value), dtype)
            continue
        plain = encode_zarr_attr_value(value)
        typed = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "fiub"
        if typed and np.asarray(plain).dtype != value.dtype:
            types[key] = value.dtype.newbyteorder("<").str
        try:
            json.dumps(plain)
        except TypeError:
            raise InputError(
                f"attribute {key!r} of {where} is a {type(value).__name__}; make it text or numbers"
            ) from None
        result[key] = plain
    return {**result, _DTYPES: types} if types else result


def restored(dataset: xr.Dataset) -> xr.Dataset:
    """An undecoded data set of an archive with its attributes' own types and its unlimited dimensions."""
    copy = dataset.copy()
    copy.encoding = {"unlimited_dims": set(copy.attrs.pop(_UNLIMITED, ()))}
    for attrs in (copy.attrs, *(v.attrs for v in copy.variables.values())):
        for key, dtype in attrs.pop(_DTYPES, {}).items():
            attrs[key] = np.asarray(attrs[key], dtype)[()]
    for variable in copy.variables.values():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in _OWN}
        if "_FillValue" in variable.attrs and variable.dtype.kind in "fiu":
            variable.attrs["_FillValue"] = variable.dtype.type(variable.attrs["_FillValue"])
    return copy


def fill_values(values: xr.DataArray | xr.Variable) -> tuple[float | int, ...]:
    """The numbers that CF says stand for missing: ``_FillValue`` and ``missing_value``, as numbers of this dtype.

    What the dtype cannot hold occurs nowhere, and what is not finite is set aside in any case.
    """
    found: list[float | int] = []
    dtype = values.dtype.newbyteorder("=")
    for key in ("_FillValue", "missing_value"):
        if key not in values.attrs or isinstance(values.attrs[key], str):
            continue
        for one in np.asarray(values.attrs[key]).ravel().tolist():
            if not isinstance(one, int | float) or not np.isfinite(one) or dtype.kind not in "fiu":
                continue
            if dtype.kind in "iu" and (one != int(one) or not np.iinfo(dtype).min <= one <= np.iinfo(dtype).max):
                continue
            number = cast("float | int", np.asarray(int(one) if dtype.kind in "iu" else one).astype(dtype).item())
            if np.isfinite(number) and number not in found:
                found.append(number)
    return tuple(found)
