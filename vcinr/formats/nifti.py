"""NIfTI 1 and 2, plain and gzipped, by the package nibabel.

The variable is ``volume(z, y, x)``, with ``t`` and ``channel`` before them where the file has more dimensions. Its
values are those in the file; the attributes `scale_factor` and `add_offset` bring them to their units, as in CF. The
affine is for readers (16 numbers, row by row, from x, y, z in voxels to space); what is written is the file's own
header.
"""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import File, Format, Groups, decoded, encoded, flat_list, only, values_of

_DIMS = ("x", "y", "z", "t", "channel", "dim6", "dim7")
_HEADER = "nifti_header"


def recognises(file: File) -> bool:
    """Whether a file is NIfTI, also where it is gzipped."""
    return _version(_unpacked_head(file.head)) is not None


def _unpacked_head(head: bytes) -> bytes:
    if not head.startswith(b"\x1f\x8b"):
        return head
    try:
        return zlib.decompressobj(31).decompress(head)
    except zlib.error:
        return b""


def _version(head: bytes) -> tuple[int, bool] | None:
    """The version, and whether the values are in a file of their own; None for another format."""
    size = {head[:4], head[:4][::-1]}
    if (348).to_bytes(4, "little") in size and head[344:348] in (b"n+1\0", b"ni1\0"):
        return 1, head[345:346] == b"i"
    if (540).to_bytes(4, "little") in size and head[4:7] in (b"n+2", b"ni2"):
        return 2, head[5:6] == b"i"
    return None


def read(path: Path, name: str) -> Groups:
    """Read a local file; values of one that is not gzipped are read when they are used."""
    with path.open("rb") as stream:
        packed = stream.read(2) == b"\x1f\x8b"
        data: Any = gzip.decompress(path.read_bytes()) if packed else np.memmap(path, np.uint8, "r")
    return {"": _dataset(data, name)}


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    data = stream.read()
    return {"": _dataset(gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data, name)}


def _header(block: bytes, version: int) -> Any:
    """The header at the beginning of a file."""
    import nibabel

    kind: Any = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version]
    return kind.from_fileobj(io.BytesIO(block), check=False)


def _dataset(data: Any, name: str) -> xr.Dataset:
    version = _version(bytes(data[:540]))
    if version is None:
        raise InputError(f"{name}: cut off within its header; copy it again")
    if version[1]:
        raise InputError(f"{name}: its values are in a file of their own; join the two (fslchfiletype NIFTI)")
    header = _header(bytes(data[: (348, 540)[version[0] - 1]]), version[0])
    rank = int(header["dim"][0])
    shape = tuple(int(n) for n in header["dim"][1 : 1 + rank])
    dtype = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"{name}: it holds {dtype}, and integers and floats of up to 64 bits are read; convert it")
    start = int(header["vox_offset"])
    end = start + math.prod(shape) * dtype.itemsize
    if not 1 <= rank <= 7 or min(shape) < 0 or start < header.sizeof_hdr:
        raise InputError(f"{name}: its header is damaged; copy it again")
    if len(data) < end:
        raise InputError(f"{name}: cut off, it has {len(data)} of at least {end} bytes; copy it again")
    values = (
        np.frombuffer(data, np.uint8)[start:end].view(dtype) if isinstance(data, bytes) else data[start:end].view(dtype)
    )
    if dtype.byteorder == ">":
        values = values.astype(dtype.newbyteorder("="))
    attrs: dict[str, Any] = {}
    slope, inter = _scale(header)
    if (slope, inter) != (1.0, 0.0):
        attrs |= {"scale_factor": slope, "add_offset": inter}
    space, time = header.get_xyzt_units()
    attrs |= {
        "affine": [float(v) for v in header.get_best_affine().ravel()],
        "sform_code": int(header["sform_code"]),
        "qform_code": int(header["qform_code"]),
        "zooms": [float(v) for v in header["pixdim"][1 : 1 + rank]],
        "space_units": str(space),
        "time_units": str(time),
        _HEADER: encoded(bytes(data[:start])),
    }
    return xr.Dataset({"volume": (_DIMS[:rank][::-1], values.reshape(shape[::-1]), attrs)})


def _scale(header: Any) -> tuple[float, float]:
    """Factor and offset of the values; a factor of 0 means that there are none."""
    slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0
    return slope, inter if math.isfinite(inter) else 0.0


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write .nii or .nii.gz, with the header that was read, or a new one where there is none."""
    only(dataset, path, "volume")
    values = values_of(dataset, path, "volume", *(_DIMS[:n][::-1] for n in range(1, 8)), packed=True)
    attrs = dataset["volume"].attrs
    start = _start(values, attrs, path)
    block = start[: 348 if start[344:345] == b"n" else 540]
    header = _header(block, 1 if len(block) == 348 else 2)
    shape = tuple(int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])])
    if shape != values.shape[::-1]:
        raise InputError(
            f"{path}: volume has the shape {values.shape} and its header says {shape[::-1]}; delete the attribute "
            f"{_HEADER} to write a new one, by zooms and affine"
        )
    header.set_data_dtype(values.dtype)
    wanted = (float(attrs.get("scale_factor", 1.0)), float(attrs.get("add_offset", 0.0)))
    if wanted != _scale(header):
        header["scl_slope"], header["scl_inter"] = wanted
        if wanted != _scale(header):
            raise InputError(f"{path}: NIfTI keeps 32 bits of scale_factor and add_offset; round them to float32")
    data = (
        header.binaryblock + start[len(block) :] + values.astype(values.dtype.newbyteorder(header.endianness)).tobytes()
    )
    path.write_bytes(gzip.compress(data, 6, mtime=0) if path.suffix == ".gz" else data)


def _start(values: np.ndarray, attrs: dict[str, Any], path: Path) -> bytes:
    """All that precedes the values in a file: the header that was read, or a new one."""
    import nibabel

    if _HEADER in attrs:
        start = decoded(str(attrs[_HEADER]), path, _HEADER)
        if _version(start) is None:
            raise InputError(f"{path}: the attribute {_HEADER!r} is damaged; remove it to write the values alone")
        return start
    large = max(values.shape) > 32767
    header = nibabel.Nifti2Header() if large else nibabel.Nifti1Header()
    header.set_data_dtype(values.dtype)
    header.set_data_shape(values.shape[::-1])
    if "affine" in attrs:
        affine = np.array(flat_list(attrs["affine"]), float).reshape(4, 4)
        header.set_sform(affine, int(attrs.get("sform_code", 0)) or "scanner")
        header["pixdim"][1:4] = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))
    if "zooms" in attrs:
        zooms = flat_list(attrs["zooms"])
        header["pixdim"][1 : 1 + len(zooms)] = zooms
    header.set_xyzt_units(str(attrs.get("space_units", "unknown")), str(attrs.get("time_units", "unknown")))
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    return header.binaryblock + bytes(header.single_vox_offset - header.sizeof_hdr)


FORMAT = Format(
    name="NIfTI",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(".nii", ".nii.gz"),
    written=(".nii", ".nii.gz"),
    write=write,
)
