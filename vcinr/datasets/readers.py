"""Files of the formats that scientific arrays come in, as xarray data sets with their values untouched.

The formats are netCDF 3 and 4, HDF5, Zarr 2 and 3 (folder, zip or object store), GRIB, and NumPy files, by local path
or fsspec URL. The first bytes of a file decide what it is; its name counts only where they do not.
"""

from __future__ import annotations

import difflib
import importlib.util
import io
import math
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn

import fsspec
import h5py
import netCDF4
import numpy as np
import xarray as xr
import zarr
from fsspec.implementations.local import LocalFileSystem
from xarray.backends import BackendArray
from xarray.core import indexing

from vcinr.errors import InputError, one_line
from vcinr.places import ABSENT, is_url, stem, suffix

_HDF5 = b"\x89HDF\r\n\x1a\n"
_ZARR = ("zarr.json", ".zgroup", ".zarray", ".zmetadata")
_SUFFIXES = {
    ".grib": "grib",
    ".grib2": "grib",
    ".grb": "grib",
    ".grb2": "grib",
    ".h5": "hdf5",
    ".hdf5": "hdf5",
    ".he5": "hdf5",
    ".nc": "netcdf",
    ".nc3": "netcdf",
    ".nc4": "netcdf",
    ".cdf": "netcdf",
    ".npy": "numpy",
    ".npz": "numpy",
}
_NETCDF3_WIDTH = {1: 1, 2: 1, 3: 2, 4: 4, 5: 4, 6: 8, 7: 1, 8: 2, 9: 4, 10: 8, 11: 8}  # bytes of a value, by type code
# Attributes of CF and UGRID in which a variable names parts of its grid.
_GRID_PARTS = {"bounds", "climatology", "grid_mapping", "cell_measures", "formula_terms", "geometry"}
_GRID_PARTS |= {"node_count", "part_node_count", "interior_ring"}
# Options by which xarray leaves values, times and attributes as they are in the file. Variables that CF's attribute
# `coordinates` names still become coordinates, since xarray writes that attribute back by itself.
_RAW: dict[str, Any] = {
    "mask_and_scale": False,
    "decode_times": False,
    "decode_timedelta": False,
    "decode_coords": True,
}


Groups = dict[str, xr.Dataset]
"""Data sets by group path, which has no slashes at its ends; the root is the empty path and comes first."""


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
        groups = _open_url(name) if is_url(name) else _open_local(Path(name).expanduser(), name)
    except InputError:
        raise
    except ImportError as error:
        raise InputError(f"{name}: a package needed to read it is not installed ({one_line(error)})") from None
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


def _open_local(path: Path, name: str) -> Groups:
    """Open a local file or folder; `name` is what the user called it."""
    if path.is_dir():
        if not any((path / m).exists() for m in _ZARR):
            raise _no_store(name)
        return _zarr(str(path), name)
    with path.open("rb") as stream:
        head = stream.read(8)
    kind = _kind(head, name, h5py.is_hdf5(path))
    if kind == "hdf5":
        file = h5py.File(path, "r")
        if not _has_scales(file):
            return _plain_hdf5(file)
        file.close()
        return _netcdf4(str(path), "netcdf4")
    if kind == "netcdf":
        with path.open("rb") as stream:
            _check_netcdf3(stream, path.stat().st_size, name)
        return {"": xr.open_dataset(path, engine="netcdf4", **_RAW)}
    if kind == "numpy":
        return {"": _npy(path, name, "r")}
    if kind == "zip":
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
        if _is_npz(members):
            return {"": _npz(path)}
        return _zarr(zarr.storage.ZipStore(path, mode="r"), name, _zarr_root(members, name))
    return {"": _grib(path, name)}


def _open_url(url: str) -> Groups:
    """Open a file or store behind an fsspec URL."""
    try:
        fs, inner = fsspec.core.url_to_fs(url)
    except ValueError as error:
        raise InputError(f"{url}: {one_line(error)}; give a local path or a URL that fsspec reads") from None
    if isinstance(fs, LocalFileSystem):
        return _open_local(Path(inner), url)
    # Names of files are not checked for a store: on an object store each check is a request, and some servers answer
    # requests for anything.
    if suffix(url) not in (*_SUFFIXES, ".zip"):
        if any(fs.exists(f"{inner.rstrip('/')}/{member}") for member in _ZARR):
            return _zarr(url, url)
        if fs.isdir(inner):
            raise _no_store(url)
    stream = fs.open(inner, "rb")  # it stays open, because values are read through it later
    head = stream.read(8)
    stream.seek(0)
    kind = _kind(head, url, False)
    if kind == "hdf5":
        file = h5py.File(stream, "r")
        if not _has_scales(file):
            return _plain_hdf5(file)
        file.close()
        stream.seek(0)
        return _netcdf4(stream, "h5netcdf", phony_dims="access")
    if kind == "netcdf":  # the netCDF library reads version 3 only from a path or from memory
        data = stream.read()
        _check_netcdf3(io.BytesIO(data), len(data), url)
        store = xr.backends.NetCDF4DataStore(netCDF4.Dataset("memory", memory=data))
        return {"": xr.open_dataset(store, **_RAW)}
    if kind == "numpy":
        return {"": _npy(stream, url)}
    if kind == "zip":
        with zipfile.ZipFile(stream) as archive:
            members = archive.namelist()
        stream.seek(0)
        if _is_npz(members):
            return {"": _npz(stream)}
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

        zipped = AsyncFileSystemWrapper(fsspec.filesystem("zip", fo=stream), asynchronous=True)
        root = _zarr_root(members, url)
        return _zarr(zarr.storage.FsspecStore(zipped, read_only=True, path=root, allowed_exceptions=ABSENT), url)
    raise InputError(f"{url}: GRIB can only be read from local files; copy it to this machine first")


def _no_store(name: str) -> InputError:
    """The error for a folder that is not a Zarr store."""
    return InputError(
        f"{name}: a folder, but no Zarr store (it has none of {', '.join(_ZARR)}); "
        "give a file or the store's own folder"
    )


def _kind(head: bytes, name: str, is_hdf5: bool) -> str:
    """The format of a file that begins with `head`; raises InputError for an unknown one."""
    if not head:
        raise InputError(f"{name}: the file is empty; copy it again")
    for magic, kind in (
        (_HDF5, "hdf5"),
        (b"CDF\x01", "netcdf"),
        (b"CDF\x02", "netcdf"),
        (b"CDF\x05", "netcdf"),
        (b"\x93NUMPY", "numpy"),
        (b"PK\x03\x04", "zip"),
        (b"GRIB", "grib"),
    ):
        if head.startswith(magic):
            return kind
    if is_hdf5:  # HDF5 after a user block
        return "hdf5"
    if head.startswith(b"\x1f\x8b"):
        raise InputError(f"{name}: a gzip file; unpack it first (gunzip, or tar xf)")
    likely = _SUFFIXES.get(suffix(name))
    if likely == "grib":  # some files have a header before the first message
        return "grib"
    if likely is not None:
        raise InputError(
            f"{name}: not a {suffix(name)} file, it begins with {head!r}; copy it again or correct its name"
        )
    raise InputError(f"{name}: unknown format; use netCDF, HDF5, Zarr, GRIB, .npy or .npz")


class _Lazy(BackendArray):
    """An h5py or Zarr array that xarray reads when its values are asked for."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype = array, array.shape, np.dtype(array.dtype)

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        read = self.array.__getitem__
        return indexing.explicit_indexing_adapter(key, self.shape, indexing.IndexingSupport.BASIC, read)


def _plain(arrays: Iterable[tuple[str, Any]], attrs: dict[str, Any] | None = None) -> xr.Dataset:
    """A data set of arrays whose dimensions have no names."""
    variables = {}
    for name, array in arrays:
        dims = [f"{name}_dim{i}" for i in range(array.ndim)]
        data = array if isinstance(array, np.ndarray) else indexing.LazilyIndexedArray(_Lazy(array))
        variables[name] = xr.Variable(dims, data, _attributes(getattr(array, "attrs", {})))
    return xr.Dataset(variables, attrs=attrs)


def _attributes(attrs: Any) -> dict[str, Any]:
    """Attributes without HDF5's internal references."""
    result = {}
    for key, value in dict(attrs).items():
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        if not isinstance(value, h5py.Empty | h5py.Reference | h5py.RegionReference):
            result[key] = value
    return result


def _has_scales(file: h5py.File) -> bool:
    """Whether a file has named dimensions, as netCDF4 and HDF5's interface for dimension scales write them."""
    if "_NCProperties" in file.attrs:
        return True
    has_scale = file.visititems(
        lambda _, node: True if isinstance(node, h5py.Dataset) and h5py.h5ds.is_scale(node.id) else None
    )
    return bool(has_scale)


def _plain_hdf5(file: h5py.File) -> Groups:
    """The groups of an HDF5 file without dimension scales."""
    nodes: list[tuple[str, Any]] = []
    file.visititems(lambda path, node: nodes.append((path, node)))
    groups = {}
    for path, group in [("", file), *((p, n) for p, n in nodes if isinstance(n, h5py.Group))]:
        arrays = []
        for name, node in nodes:
            if _parent(name) != path or not isinstance(node, h5py.Dataset) or node.shape is None:
                continue
            if h5py.check_string_dtype(node.dtype) is not None:
                arrays.append((name.rpartition("/")[2], np.asarray(node.asstr()[()], dtype=object)))
            elif node.dtype.kind in "biufcS":  # references and compound types are not arrays of values
                arrays.append((name.rpartition("/")[2], node))
        groups[path] = _plain(arrays, _attributes(group.attrs))
    return groups


def _check_netcdf3(stream: BinaryIO, size: int, name: str) -> None:
    """Raise InputError where a netCDF 3 file is shorter than its header says.

    The library would read zeros beyond the end.
    """

    def take(n: int) -> bytes:
        data = stream.read(n)
        if len(data) < n:
            raise InputError(f"{name}: cut off within its header; copy it again")
        return data

    version = take(4)[3]
    wide, offset = (8 if version == 5 else 4), (4 if version == 1 else 8)

    def number(n: int = wide) -> int:
        return int.from_bytes(take(n), "big")

    def padded(n: int) -> int:
        return n + -n % 4

    def items() -> range:
        take(4)  # a tag
        return range(number())

    def skip_attributes() -> None:
        for _ in items():
            take(padded(number()))
            width = _NETCDF3_WIDTH[number(4)]
            take(padded(number() * width))

    records, lengths, fixed, per_record = number(), [], [0], []
    for _ in items():
        take(padded(number()))
        lengths.append(number())
    skip_attributes()
    for _ in items():
        take(padded(number()))
        shape = [lengths[number()] for _ in range(number())]
        skip_attributes()
        width = _NETCDF3_WIDTH[number(4)]
        number()  # the size, which is not reliable beyond 4 GiB
        begin = number(offset)
        if shape and shape[0] == 0:  # along the record dimension
            per_record.append((begin, width * math.prod(shape[1:])))
        else:
            fixed.append(begin + width * math.prod(shape))
    end = max(fixed)
    if 0 < records < 256**wide - 1:  # all ones: written as a stream, so that the number is not known
        step = per_record[0][1] if len(per_record) == 1 else sum(padded(n) for _, n in per_record)
        end = max([end, *(begin + (records - 1) * step + n for begin, n in per_record)])
    if size < end:
        raise InputError(f"{name}: cut off, it has {size} of at least {end} bytes; copy it again")


def _netcdf4(source: Any, engine: str, **options: Any) -> Groups:
    """The groups of a netCDF4 file."""
    groups = xr.open_groups(source, engine=engine, **_RAW, **options)
    return {path.strip("/"): group for path, group in sorted(groups.items())}


def _zarr(store: Any, name: str, group: str = "") -> Groups:
    """The groups of a Zarr store; `group` is the path of its root within the store."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Object at .* is not recognized as a component of a Zarr hierarchy")
        root = zarr.open(store, path=group or None, mode="r")
        if isinstance(root, zarr.Array):
            return {"": _plain([(stem(name), root)])}
        members = sorted(root.members(max_depth=None), key=lambda m: m[0])  # folders are listed in any order
        paths = ["", *(where for where, node in members if isinstance(node, zarr.Group))]
        if not any(isinstance(node, zarr.Array) for _, node in members):
            raise InputError(f"{name}: a Zarr store without arrays; was it written whole?")
        consolidated = root.metadata.consolidated_metadata is not None
        groups = {}
        for path in paths:
            if path.partition("/")[0] == "vcinr" and "vcinr_requires" in root.attrs:
                continue  # an archive's models and manifest, which are not part of its data
            arrays = {w.rpartition("/")[2]: a for w, a in members if isinstance(a, zarr.Array) and _parent(w) == path}
            if not all(_zarr_dims(a) for a in arrays.values()):
                attrs = dict(root[path].attrs if path else root.attrs)
                groups[path] = _plain(arrays.items(), attrs)
                continue
            group_path = "/".join(p for p in (group, path) if p) or None
            # Saying whether consolidated metadata exist spares a warning, and the second request after a wrong guess.
            use_consolidated = consolidated and not path
            dataset = xr.open_dataset(
                store, group=group_path, engine="zarr", consolidated=use_consolidated, chunks=None, **_RAW
            )
            names = [m for m in arrays if m in dataset.data_vars]
            groups[path] = dataset.drop_vars(names).assign({n: dataset[n] for n in names})
    return groups


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _zarr_dims(array: zarr.Array[Any]) -> bool:
    """Whether all dimensions of an array have names."""
    named: Any = getattr(array.metadata, "dimension_names", None) or array.attrs.get("_ARRAY_DIMENSIONS")
    return array.ndim == 0 or (named is not None and all(named))


def _zarr_root(members: list[str], name: str) -> str:
    """The folder of a zip file that holds its Zarr store: the outermost one with Zarr metadata."""
    roots = [m.rpartition("/")[0] for m in members if m.rpartition("/")[2] in _ZARR]
    if not roots:
        raise InputError(f"{name}: a zip file with neither a Zarr store nor NumPy arrays in it; unpack it first")
    return min(roots, key=lambda r: (r.count("/") + bool(r), r))


def _is_npz(members: list[str]) -> bool:
    """Whether a zip file with these members is one of NumPy's."""
    return bool(members) and all(m.endswith(".npy") for m in members)


def _npy(source: Any, name: str, mmap_mode: Literal["r"] | None = None) -> xr.Dataset:
    """A .npy file as a data set."""
    try:
        return _plain([(stem(name), np.load(source, mmap_mode=mmap_mode, allow_pickle=False))])
    except ValueError as error:
        if "object" not in str(error).lower():
            raise
        raise InputError(f"{name}: it holds Python objects; save an array of numbers") from None


def _npz(source: Any) -> xr.Dataset:
    """A .npz file as a data set."""
    with np.load(source, allow_pickle=False) as arrays:
        return _plain([(name, arrays[name]) for name in arrays.files])


def _grib(path: Path, name: str) -> xr.Dataset:
    """A GRIB file as a data set."""
    if importlib.util.find_spec("cfgrib") is None:
        raise InputError(f"{name}: reading GRIB needs cfgrib; pip install vcinr[grib]")
    # cfgrib must not write index files beside the user's data, nor skip messages that are damaged or on another grid.
    options = {"indexpath": "", "errors": "raise"}
    try:
        return xr.open_dataset(path, engine="cfgrib", backend_kwargs=options, **_RAW)
    except Exception as error:
        _grib_error(name, error)


def _grib_error(name: str, error: Exception) -> NoReturn:
    """Raise an error that explains why cfgrib cannot read a file."""
    if type(error).__name__ == "DatasetBuildError":
        raise InputError(
            f"{name}: its messages are on several grids or kinds of level ({one_line(error)}); "
            "split it with grib_copy into files of one kind each"
        ) from None
    raise error
