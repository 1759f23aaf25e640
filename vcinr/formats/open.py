"""Files of any known format as xarray data sets with their values untouched, by local path or fsspec URL.

The first bytes of a file decide what it is; its name counts only where they do not.
"""

from __future__ import annotations

import difflib
from pathlib import Path

import xarray as xr

from vcinr import formats
from vcinr.errors import InputError, one_line
from vcinr.formats.base import File, Format, Groups, locate
from vcinr.places import suffix

# Attributes of CF and UGRID in which a variable names parts of its grid; an image names its colour profile.
_GRID_PARTS = {"bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms", "geometry"}
_GRID_PARTS |= {"node_count", "part_node_count", "interior_ring", "icc_profile"}


def open_groups(path: str | Path) -> Groups:
    """Open a file or store, group by group; values are read only when they are used.

    Values are those of the file, packed and with their fill values, and every attribute (units, calendar, _FillValue,
    ...) is kept, so that what is written later is what was read.

    Parameters
    ----------
    path : str or Path
        A local path or an fsspec URL.

    Returns
    -------
    dict
        Data sets by group path. HDF5 files without dimension scales, Zarr groups without dimension names, and NumPy
        files have the dimensions NAME_dim0, NAME_dim1, ...; a .npy file is a variable that is named by the file's stem.

    Raises
    ------
    InputError
        Where the file is absent, empty, damaged or of an unknown format, or a package to read it is missing. The
        message is one line that names the file.
    """
    name = str(path)
    try:
        groups = _read(locate(name))
    except InputError:
        raise
    except ImportError as error:
        raise InputError(
            f"{name}: a package needed to read it is not installed ({one_line(error)}); pip install 'vcinr[formats]'"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{name}: no such file or store; check the path") from None
    except PermissionError as error:
        raise InputError(f"{name}: no permission to read it ({one_line(error)})") from None
    except Exception as error:  # each format's library has exceptions of its own for damaged files
        raise InputError(f"{name}: cannot be read ({one_line(error)}); is the file whole? copy it again") from None
    for group in groups.values():
        for variable in group.variables.values():
            # Without this entry xarray would add a fill value when it writes floats. Packed variables must not have the
            # entry, because it would make xarray decode them to the packed type.
            if variable.dtype.kind == "f" and not {"_FillValue", "scale_factor", "add_offset"} & set(variable.attrs):
                variable.encoding["_FillValue"] = None
    return groups


def open_dataset(path: str | Path, *, decode: bool = False) -> xr.Dataset:
    """Open a file or store as one data set, in which members of groups are named ``group/name``.

    Parameters
    ----------
    path : str or Path
        A local path or an fsspec URL.
    decode : bool
        Whether xarray decodes CF attributes in its usual way.

    Returns
    -------
    xarray.Dataset
        Like those of `open_groups`.

    Raises
    ------
    InputError
        As in `open_groups`, and for CF attributes that cannot be decoded.
    """
    dataset = _flat(open_groups(path))
    if not decode:
        return dataset
    try:
        return xr.decode_cf(dataset)
    except Exception as error:  # meaningless units, dates outside the calendar, ...
        raise InputError(f"{path}: its CF attributes cannot be decoded ({one_line(error)}); correct them") from None


def _flat(groups: Groups) -> xr.Dataset:
    """Merge groups into one data set; names in attributes follow the variables that are renamed."""
    merged = groups[""]
    for prefix, group in groups.items():
        if not prefix:
            continue
        names = {str(v): f"{prefix}/{v}" for v in group.variables}
        # A dimension that groups share keeps its name, unless its lengths differ.
        clash = {d: f"{prefix}/{d}" for d, n in group.sizes.items() if merged.sizes.get(d, n) != n}
        for variable in group.variables.values():
            for attributes in (variable.attrs, variable.encoding):
                for key in ("bounds", "climatology", "coordinates", "grid_mapping"):
                    if isinstance(attributes.get(key), str):
                        attributes[key] = " ".join(names.get(word, word) for word in attributes[key].split())
        merged = merged.assign(group.rename({**clash, **names}).variables).set_coords(
            [names[str(c)] for c in group.coords]
        )
    return merged


def field(dataset: xr.Dataset, name: str, path: str | Path) -> xr.DataArray:
    """Variable `name` of a data set; raises InputError that names the file `path` and the variables that there are."""
    if name in dataset.variables:
        return dataset[name]
    have = [str(v) for v in dataset.data_vars]
    close = difflib.get_close_matches(name, have, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise InputError(f"{path}: no variable {name!r}; {hint}it has {', '.join(have) or 'none'}")


def numeric_fields(dataset: xr.Dataset) -> list[str]:
    """Names of the variables that can be compressed.

    These are real numbers along at least one axis which are neither coordinates nor part of a grid, as other variables
    say in their attributes (cell bounds, grid mappings, a mesh's connectivity, ...).
    """
    grid_parts: set[str] = set()
    for variable in dataset.variables.values():
        for key, value in {**variable.encoding, **variable.attrs}.items():
            if key in _GRID_PARTS or str(key).endswith(("_connectivity", "_coordinates")):
                grid_parts.update(str(value).replace(":", " ").split())
    return [
        str(name)
        for name, variable in dataset.data_vars.items()
        if variable.dtype.kind in "fiu" and variable.ndim and variable.size and name not in grid_parts
    ]


def _read(file: File) -> Groups:
    """Read a file or folder by the format that it is of."""
    form = _folder_format(file)
    if form is not None and form.read_folder is not None:
        return form.read_folder(file.name if file.path is None else str(file.path), file.name)
    form = _file_format(file)
    if file.path is not None:
        return form.read(file.path, file.name)
    if form.read_stream is None:
        raise InputError(f"{file.name}: {form.name} can only be read from local files; copy it to this machine first")
    return form.read_stream(file.stream, file.name)


def _folder_format(file: File) -> Format | None:
    """The format of a folder, None for a file; raises InputError for a folder of no format."""
    if file.path is not None:
        if not file.path.is_dir():
            return None
    elif any(suffix(file.name) in form.suffixes for form in formats.known()):
        return None  # on an object store each question is a request, and some servers answer requests for anything
    for form in formats.known():
        if any(file.holds(member) for member in form.members):
            return form
    if not file.is_folder():
        return None
    stores = "; ".join(
        f"no {form.name} store (it has none of {', '.join(form.members)})" for form in formats.known() if form.members
    )
    raise InputError(f"{file.name}: a folder, but {stores}; give a file or the store's own folder")


def _file_format(file: File) -> Format:
    """The format of a file; raises InputError for an unknown one."""
    if not file.head:
        raise InputError(f"{file.name}: the file is empty; copy it again")
    for form in formats.known():
        if form.recognises(file):
            return form
    if file.head.startswith(b"\x1f\x8b"):
        raise InputError(f"{file.name}: a gzip file; unpack it first (gunzip, or tar xf)")
    ending = suffix(file.name)
    likely = next((form for form in formats.known() if ending in form.suffixes), None)
    if likely is not None and likely.by_suffix:
        return likely
    if likely is not None:
        raise InputError(
            f"{file.name}: not a {ending} file, it begins with {file.head[:8]!r}; copy it again or correct its name"
        )
    *names, last = (form.name for form in formats.known())
    raise InputError(f"{file.name}: unknown format; use {', '.join(names)} or {last}")
