"""Groups and metadata of a data set: a form that Zarr stores, and from which netCDF gets everything back unchanged."""

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
"""Prefix of all attributes that are vcinr's own and not part of the data."""
RESERVED = "vcinr"
"""Group of an archive that holds its models and manifest."""
_OWN = ("coordinates", "grid_mapping", "bounds", "cell_measures", "formula_terms", "ancillary_variables")
PACKING = ("scale_factor", "add_offset")
"""Attributes that say how stored numbers are unpacked."""
_TIMES = ("units", "calendar", "dtype")
_FILL = PREFIX + "fill_value"
_DTYPES, _UNLIMITED = PREFIX + "attribute_dtypes", PREFIX + "unlimited_dims"

Groups = dict[str, xr.Dataset]
"""Data sets by group path, which has no slashes at its ends; the root is the empty path."""
Data = xr.Dataset | xr.DataTree | Mapping[str, xr.Dataset]


def as_groups(data: Data) -> Groups:
    """Split a data set into its groups.

    Parameters
    ----------
    data
        A DataTree, data sets by group, or a Dataset, in which names with slashes are members of groups.

    Returns
    -------
    dict
        Data sets by group path, sorted; every parent of a group is included.

    Raises
    ------
    InputError
        For a name that an archive cannot hold.
    """
    if isinstance(data, xr.DataTree):
        groups = {node.path.strip("/"): node.to_dataset(inherit=False) for node in data.subtree}
    elif isinstance(data, xr.Dataset):
        groups = _unflattened(data)
    else:
        groups = {path.strip("/"): group for path, group in data.items()}
    for path, group in list(groups.items()):
        parts = path.split("/") if path else []
        for part in (*parts, *map(str, group.variables)):
            if part in ("", ".", "..", "zarr.json") or part.startswith("__") or "/" in part or "\\" in part:
                raise InputError(f"the name {part!r} in group {path!r} cannot be stored; rename it")
        for depth in range(len(parts)):
            groups.setdefault("/".join(parts[:depth]), xr.Dataset())
    if any(path == RESERVED or path.startswith(RESERVED + "/") for path in groups) or RESERVED in groups[""].variables:
        raise InputError(
            f"the file has a group or variable {RESERVED!r}, a name that archives reserve; rename it first"
        )
    return dict(sorted(groups.items()))


def _unflattened(dataset: xr.Dataset) -> Groups:
    """The groups of a data set whose members of groups are named ``group/name``."""
    paths: dict[str, list[str]] = {"": []}
    for name in map(str, dataset.variables):
        paths.setdefault(name.rpartition("/")[0], []).append(name)
    if len(paths) == 1:
        return {"": dataset}
    groups = {}
    for path, names in paths.items():
        chosen = {name.rpartition("/")[2]: dataset.variables[name] for name in names}
        group = xr.Dataset(chosen, attrs=dataset.attrs if not path else None)
        coordinates = [short for short, name in zip(chosen, names, strict=True) if name in dataset.coords]
        groups[path] = group.set_coords(coordinates)
        groups[path].encoding = dict(dataset.encoding) if not path else {}
    return groups


def join(path: str, name: str) -> str:
    """Return the full name of a member of a group."""
    return f"{path}/{name}" if path else name


def member(groups: Groups, full: str) -> xr.DataArray:
    """Return a variable with the coordinates of its own group and those that it inherits.

    Parameters
    ----------
    groups
        The data set by groups.
    full
        The variable's name, ``group/name``.

    Returns
    -------
    xarray.DataArray
        The variable; its values are not read.

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
        Times are numbers, and all metadata are in `attrs`. Nothing but times is loaded.

    Raises
    ------
    InputError
        For what Zarr or netCDF cannot represent; the message names the variable or the group.
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
    """`stored`, without the messages."""
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
    """A copy without the attributes of an archive that the group came from, which describe other values."""
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

    Where variables of the group say so themselves, as in a CF file, nothing is added to any of them; coordinates that
    none of them names are named by the group.
    """
    named_by_variables = [v.encoding.get("coordinates", v.attrs.get("coordinates")) for v in group.variables.values()]
    if not any(named_by_variables):
        return xr.conventions.encode_dataset_coordinates(group)
    named = {
        word.strip(":")
        for v in group.variables.values()
        for key in _OWN
        for word in str(v.encoding.get(key, v.attrs.get(key, ""))).split()
    }
    unnamed = sorted(str(c) for c in group.coords if c not in group.dims and c not in named)
    return group.variables, {**group.attrs, "coordinates": " ".join(unnamed)} if unnamed else group.attrs


def portable(attrs: Mapping[Any, Any], where: str, dtype: np.dtype | None = None) -> dict[str, Any]:
    """Bring attributes into a form that JSON can hold.

    Parameters
    ----------
    attrs
        The attributes.
    where
        What they belong to, for messages.
    dtype
        The dtype of the array, for its fill value; None for a group.

    Returns
    -------
    dict
        The attributes. An attribute of vcinr's own holds the types that JSON loses; see `restored`.

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
            key = _FILL  # under its usual name xarray could not open the array
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
    """`value` as one number of `dtype`, or None where `dtype` has no such number."""
    try:
        one = np.asarray(value).item()
        with np.errstate(all="ignore"):
            number = dtype.type(one)
        same = number == one or (one != one and number != number)
        # float32 has no 1e20, but readers turn such an attribute into the nearest float32.
        return number if same or (dtype.kind == "f" and np.isfinite(number)) else None
    except (ValueError, TypeError, OverflowError):
        return None


def native(dtype: np.dtype) -> np.dtype:
    """Return a dtype in the machine's byte order; dtypes of text are returned as they are."""
    return dtype.newbyteorder("=") if dtype.kind in "fiubc" else dtype


def unit_of(attrs: Mapping[str, Any], dtype: np.dtype) -> float:
    """Return how much a step of 1 in the stored numbers is, in the variable's units.

    Parameters
    ----------
    attrs
        The variable's attributes.
    dtype
        Its dtype as stored.

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
    """Give an undecoded group of an archive the types of its attributes and its unlimited dimensions back.

    Parameters
    ----------
    dataset
        The group as xarray reads it from the archive.

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

    Readers treat values outside these limits as missing, so no value may be moved there.
    """
    low, high = -np.inf, np.inf
    try:
        if "valid_range" in values.attrs:
            low, high = (float(v) for v in np.asarray(values.attrs["valid_range"]).ravel())
        else:
            low = float(np.asarray(values.attrs.get("valid_min", low)).item())
            high = float(np.asarray(values.attrs.get("valid_max", high)).item())
    except (ValueError, TypeError):
        return None  # text, or not two numbers: not a range that a reader could apply
    return (low, high) if (low > -np.inf or high < np.inf) and low <= high else None


def fill_values(values: xr.DataArray | xr.Variable) -> tuple[float | int, ...]:
    """The numbers by which CF marks missing values, ``_FillValue`` and ``missing_value``, in the variable's dtype.

    Numbers that the dtype cannot hold are left out, since they occur nowhere; so are those that are not finite, since
    such values are set aside in any case.
    """
    fills: list[float | int] = []
    dtype = native(values.dtype)
    for key in ("_FillValue", "missing_value"):
        if key not in values.attrs or isinstance(values.attrs[key], str):
            continue
        for value in np.asarray(values.attrs[key]).ravel().tolist():
            if not isinstance(value, int | float) or not np.isfinite(value) or dtype.kind not in "fiu":
                continue
            if dtype.kind in "iu" and (value != int(value) or not np.iinfo(dtype).min <= value <= np.iinfo(dtype).max):
                continue
            number = cast("float | int", np.asarray(int(value) if dtype.kind in "iu" else value).astype(dtype).item())
            if np.isfinite(number) and number not in fills:
                fills.append(number)
    return tuple(fills)
