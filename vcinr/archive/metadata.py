"""Groups and metadata: what of a data set is its own, in a form that Zarr stores and netCDF gets back unchanged."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import xarray as xr
from xarray.backends.zarr import FillValueCoder, encode_zarr_attr_value

from vcinr.errors import InputError, one_line

PREFIX = "vcinr_"
"""Of every attribute that is ours and not the data's."""
RESERVED = "vcinr"
"""Group of an archive that holds models and manifest."""
_OWN = ("coordinates", "grid_mapping", "bounds", "cell_measures", "formula_terms", "ancillary_variables")
PACKING = ("scale_factor", "add_offset")
"""Attributes that say what stored numbers unpack to."""
_TIMES = ("units", "calendar", "dtype")
_FILL = PREFIX + "fill_value"
_DTYPES, _UNLIMITED = PREFIX + "attribute_dtypes", PREFIX + "unlimited_dims"

Groups = dict[str, xr.Dataset]
"""Path, without a slash at either end, to the variables that lie in that group; the root is the empty path."""
Data = xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset]


def as_groups(data: Data) -> Groups:
    """Take a data set apart into its groups.

    Parameters
    ----------
    data
        A DataTree, data sets by group, or a Dataset, in which names with slashes are members of groups.

    Returns
    -------
    dict
        Data sets by group path, sorted; every parent of a group is there.

    Raises
    ------
    InputError
        For a name that no archive can hold.
    """
    if isinstance(data, xr.DataTree):
        found = {node.path.strip("/"): node.to_dataset(inherit=False) for node in data.subtree}
    elif isinstance(data, xr.Dataset):
        found = _unflattened(data)
    else:
        found = {path.strip("/"): group for path, group in data.items()}
    for path, group in list(found.items()):
        parts = path.split("/") if path else []
        for part in (*parts, *map(str, group.variables)):
            if part in ("", ".", "..", "zarr.json") or part.startswith("__") or "/" in part or "\\" in part:
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
    """Return the full name of a member of a group."""
    return f"{path}/{name}" if path else name


def member(groups: Groups, full: str) -> xr.DataArray:
    """Return a variable with the coordinates that it has in its own group or inherits.

    Parameters
    ----------
    groups
        The data set by groups.
    full
        The variable's name, ``group/name``.

    Returns
    -------
    xarray.DataArray
        Its values are not read.

    Raises
    ------
    KeyError
        Where there is no such variable.
    """
    path, _, name = full.rpartition("/")
    array = groups[path][name]
    while path:
        path = path.rpartition("/")[0]
        for dim, n in array.sizes.items():
            above = groups[path].coords.get(dim)
            if dim not in array.coords and above is not None and above.shape == (n,):
                array = array.assign_coords({dim: above.variable})
    return array


def stored(group: xr.Dataset, path: str = "") -> xr.Dataset:
    """Bring a group into the form in which it is stored.

    Parameters
    ----------
    group
        The group, decoded or not.
    path
        Its path, for messages.

    Returns
    -------
    xarray.Dataset
        Times are numbers, and all that is metadata is in `attrs`. Nothing but times is loaded.

    Raises
    ------
    InputError
        For what Zarr and netCDF have no form for; the message names the variable or the group.
    """
    for name, variable in group.variables.items():
        if len(set(variable.dims)) != variable.ndim:
            raise InputError(f"variable {name!r} has the dimension {variable.dims[0]!r} twice; rename one of them")
    try:
        return _stored(group)
    except (ValueError, TypeError, NotImplementedError) as error:
        raise InputError(
            f"group {path or '/'!r} cannot be stored ({one_line(error)}); drop or convert the variable"
        ) from None


def _stored(group: xr.Dataset) -> xr.Dataset:
    plain = _without_ours(group)
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


def _without_ours(group: xr.Dataset) -> xr.Dataset:
    """A copy without what an archive said of itself before: those attributes are of its values, not of these."""
    copy = restored(group) if any(k.startswith(PREFIX) for k in map(str, group.attrs)) else group.copy()
    copy.encoding = dict(group.encoding) | {k: v for k, v in copy.encoding.items() if v}
    for name, variable in copy.variables.items():
        variable.encoding = dict(group.variables[name].encoding)
    for attrs in (copy.attrs, *(v.attrs for v in copy.variables.values())):
        for key in [k for k in attrs if str(k).startswith(PREFIX)]:
            del attrs[key]
    return copy


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
    """Bring attributes into a form that JSON holds.

    Parameters
    ----------
    attrs
        The attributes.
    where
        What they belong to, for messages.
    dtype
        That of the array, for its fill value; None for a group.

    Returns
    -------
    dict
        The attributes, and under a name of vcinr's own the types of those whose type JSON loses; see `restored`.

    Raises
    ------
    InputError
        For a value that JSON cannot hold.
    """
    result: dict[str, Any] = {}
    types: dict[str, str] = {}
    for key, value in attrs.items():
        key = str(key)
        if key == "_FillValue":
            if dtype is not None and (fill := _exactly(value, dtype)) is not None:
                result[key] = FillValueCoder.encode(fill, dtype)
                continue
            key = _FILL  # xarray could not open an array with such a fill value
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


def _exactly(value: Any, dtype: np.dtype) -> Any:
    """`value` as one number of `dtype`, or None where it is none that `dtype` holds."""
    try:
        one = np.asarray(value).item()
        with np.errstate(all="ignore"):
            number = dtype.type(one)
        same = number == one or (one != one and number != number)
        # A float32 has no 1e20, but what a reader makes of that attribute is the float32 next to it.
        return number if same or (dtype.kind == "f" and np.isfinite(number)) else None
    except (ValueError, TypeError, OverflowError):
        return None


def native(dtype: np.dtype) -> np.dtype:
    """Return a dtype in the machine's byte order; the types of text have none."""
    return dtype.newbyteorder("=") if dtype.kind in "fiubc" else dtype


def unit_of(attrs: Mapping[str, Any], dtype: np.dtype) -> float:
    """Return the size of a step of 1 in stored numbers, in the variable's units.

    Parameters
    ----------
    attrs
        The variable's attributes.
    dtype
        Its type as stored.

    Returns
    -------
    float
        1 where the numbers are not packed.
    """
    factor = attrs.get("scale_factor", 1.0)
    if dtype.kind not in "fiu" or not isinstance(factor, int | float) or not np.isfinite(factor):
        return 1.0
    return abs(float(factor)) or 1.0


def restored(dataset: xr.Dataset) -> xr.Dataset:
    """Give an undecoded group of an archive its attributes' own types and its unlimited dimensions back.

    Parameters
    ----------
    dataset
        As xarray reads it from the archive.

    Returns
    -------
    xarray.Dataset
        A copy, without the attributes in which an archive notes these types and dimensions.
    """
    copy = dataset.copy()
    copy.encoding = {"unlimited_dims": set(copy.attrs.pop(_UNLIMITED, ()))}
    for attrs in (copy.attrs, *(v.attrs for v in copy.variables.values())):
        for key, dtype in dict(attrs.pop(_DTYPES, {})).items():
            if key in attrs and re.fullmatch(r"[<>|][fiub][1248]", str(dtype)):
                attrs[key] = np.asarray(attrs[key], dtype)[()]
        if _FILL in attrs:
            attrs["_FillValue"] = attrs.pop(_FILL)
    for variable in copy.variables.values():
        variable.encoding = {k: v for k, v in variable.encoding.items() if k in _OWN}
        fill = variable.attrs.get("_FillValue")
        if variable.dtype.kind in "fiu" and fill is not None and (one := _exactly(fill, variable.dtype)) is not None:
            variable.attrs["_FillValue"] = one
    return copy


def valid_limits(values: xr.DataArray | xr.Variable) -> tuple[float, float] | None:
    """CF's ``valid_range``, or ``valid_min`` and ``valid_max``, in the numbers as stored; None without any.

    Readers take what lies outside for missing, so no value may be pushed there.
    """
    low, high = -np.inf, np.inf
    try:
        if "valid_range" in values.attrs:
            low, high = (float(v) for v in np.asarray(values.attrs["valid_range"]).ravel())
        else:
            low = float(np.asarray(values.attrs.get("valid_min", low)).item())
            high = float(np.asarray(values.attrs.get("valid_max", high)).item())
    except (ValueError, TypeError):
        return None  # text, or not two numbers: no range that a reader could apply
    return (low, high) if (low > -np.inf or high < np.inf) and low <= high else None


def fill_values(values: xr.DataArray | xr.Variable) -> tuple[float | int, ...]:
    """The numbers that CF says stand for missing: ``_FillValue`` and ``missing_value``, as numbers of this dtype.

    What the dtype cannot hold occurs nowhere, and what is not finite is set aside in any case.
    """
    found: list[float | int] = []
    dtype = native(values.dtype)
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
