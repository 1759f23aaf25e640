"""TIFF by the packages tifffile and imagecodecs: images of any number of bands, georeferenced ones, and volumes.

An image is ``image(y, x)`` or ``image(y, x, channel)`` as in :mod:`vcinr.formats.image`, of any type of numbers. Pages
of one size are a volume: ``volume(z, y, x)`` or ``volume(t, z, y, x)``. Further images of other sizes are groups of
their own, without the smaller copies that viewers use. What places an image on a map is kept as it is in the file.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import Format, Groups, begins, flat_list, only, values_of
from vcinr.formats.image import CMYK, RGB, dpi_of, image_dataset, parts_of, upright

GEOTIFF = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113, 50844)
"""Tags of GeoTIFF and GDAL: scale, tie points, transformation, keys, metadata, the missing value, and coefficients."""

_SMALLER_OR_MASK = 1 | 4  # of NewSubfileType


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return _groups(path, name)


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL."""
    return _groups(stream, name)


def _groups(source: Any, name: str) -> Groups:
    import tifffile

    with _quiet(), tifffile.TiffFile(source) as file:
        series = [s for i, s in enumerate(file.series) if not i or not s.keyframe.subfiletype & _SMALLER_OR_MASK]
        if not series:
            raise InputError(f"{name}: a TIFF file without images; copy it again")
        pages = [page for s in series for page in s.pages if page is not None]
        end = max(o + n for p in pages for o, n in zip(p.dataoffsets, p.databytecounts, strict=True))
        if end > file.filehandle.size:  # the rest of a JPEG would be grey
            raise InputError(f"{name}: cut off, it has {file.filehandle.size} of at least {end} bytes; copy it again")
        return {f"image{i}" if i else "": _dataset(s, name) for i, s in enumerate(series)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep tifffile from writing lines of its own about what it finds odd in a file."""
    log = logging.getLogger("tifffile")
    before, log.disabled = log.disabled, True
    try:
        yield
    finally:
        log.disabled = before


def _dataset(series: Any, name: str) -> xr.Dataset:
    """One image, or the pages of a volume."""
    page = series.keyframe
    axes = series.axes
    samples = series.asarray()
    if samples.dtype.kind not in "iufb":
        raise InputError(f"{name}: it holds {samples.dtype}, and integers and floats are read; split it into parts")
    samples = np.asarray(samples).astype(samples.dtype.newbyteorder("="), copy=False)
    if set(axes) <= set("YXSC") and axes.count("S") + axes.count("C") <= 1:
        samples = np.moveaxis(samples, [axes.index("Y"), axes.index("X")], [0, 1])
        return _image(samples, page)
    if page.photometric.name == "PALETTE":
        raise InputError(f"{name}: several pages with palettes, which are not read; convert it to RGB")
    samples = _shown(samples, page)
    names = {"Y": "y", "X": "x", "Z": "z", "T": "t", "C": "channel", "S": "sample" if "C" in axes else "channel"}
    free = [d for d in ("z", "t") if d.upper() not in axes]
    for axis in reversed(axes):
        if axis not in names:  # pages of which the file does not say what they are
            names[axis] = free.pop(0) if free else axis.lower()
    return xr.Dataset({"volume": ([names[axis] for axis in axes], samples, _attributes(page))})


def _shown(samples: np.ndarray, page: Any) -> np.ndarray:
    """Grey as it is shown, where a file stores fewer than 8 bits or its negative."""
    bits = page.bitspersample
    if samples.dtype == bool:
        samples = samples.astype(np.uint8)
    if samples.dtype == np.uint8 and bits in (1, 2, 4):
        samples, bits = samples * np.uint8(255 // (2**bits - 1)), 8
    if page.photometric.name == "MINISWHITE" and samples.dtype.kind == "u":
        samples = samples.dtype.type(2**bits - 1) - samples
    return samples


def _image(samples: np.ndarray, page: Any) -> xr.Dataset:
    """An image ``[y, x]`` or ``[y, x, channel]``."""
    alpha, channels = None, None
    kind = page.photometric.name
    if kind == "PALETTE" and samples.ndim == 2:
        colours = page.colormap.T  # 16 bits
        if not (colours % 257).any():
            colours = (colours // 257).astype(np.uint8)
        elif not (colours % 256).any():  # of writers that leave the lower byte empty
            colours = (colours // 256).astype(np.uint8)
        samples, channels = colours[samples], RGB
    else:
        samples = _shown(samples, page)
        extra = [int(e) for e in page.extrasamples]
        if len(extra) == 1 and extra[0] in (1, 2) and samples.ndim == 3:
            samples, alpha = samples[..., :-1], samples[..., -1]
        if samples.ndim == 3:
            named = {"RGB": RGB, "YCBCR": RGB, "SEPARATED": CMYK}.get(kind)
            channels = named if named is not None and len(named) == samples.shape[2] else None
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    orientation = page.tags.valueof(274, 1)
    samples = upright(samples, orientation)
    alpha = None if alpha is None else upright(alpha, orientation)
    profile = page.tags.valueof(34675)
    dataset = image_dataset(samples, alpha=alpha, channels=channels, profile=profile, dpi=_dpi(page))
    if alpha is not None and int(page.extrasamples[0]) == 1:
        dataset["alpha"].attrs["premultiplied"] = 1
    attrs = dataset["image"].attrs
    attrs.update(_attributes(page))
    if (missing := _missing(page, samples.dtype)) is not None:
        attrs["_FillValue"] = missing
    return dataset


def _attributes(page: Any) -> dict[str, Any]:
    """What a file says of an image, besides its numbers."""
    attrs: dict[str, Any] = {}
    tags = {str(c): [int(page.tags[c].dtype), _plain(page.tags[c].value)] for c in GEOTIFF if c in page.tags}
    if tags:
        attrs["geotiff_tags"] = json.dumps(tags)
    description = page.description
    if page.is_shaped:
        description = json.loads(description).get("description", "") if description.startswith("{") else ""
    if description:
        attrs["description"] = description
    if page.bitspersample % 8 and page.bitspersample > 8:
        attrs["bits"] = int(page.bitspersample)
    return attrs


def _plain(value: Any) -> Any:
    """The value of a tag as JSON has it."""
    return value if isinstance(value, str) else np.asarray(value).tolist()


def _dpi(page: Any) -> list[float] | None:
    """Dots per inch along x and y."""
    unit = {2: 1.0, 3: 2.54}.get(int(page.tags.valueof(296, 2)))
    pair = [page.tags.valueof(code) for code in (282, 283)]
    if unit is None or None in pair or not all(p[1] for p in pair):
        return None
    return [unit * p[0] / p[1] for p in pair]


def _missing(page: Any, dtype: np.dtype) -> Any:
    """GDAL's missing value, where the type of the image has it."""
    try:
        number = float(page.tags.valueof(42113, "").strip("\0 "))
    except (ValueError, AttributeError):
        return None
    if dtype.kind == "f":
        return dtype.type(number)
    return dtype.type(int(number)) if number.is_integer() and _fits(int(number), dtype) else None


def _fits(number: int, dtype: np.dtype) -> bool:
    return int(np.iinfo(dtype).min) <= number <= int(np.iinfo(dtype).max)


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write an image or a volume."""
    (_write_volume if "volume" in dataset else _write_image)(dataset, path)


def _write_image(dataset: xr.Dataset, path: Path) -> None:
    samples, alpha, profile = parts_of(dataset, path)
    attrs = dataset["image"].attrs
    names = [str(n) for n in flat_list(attrs["channels"])] if "channels" in attrs else None
    bands = samples.shape[2] if samples.ndim == 3 else 1
    kind = "minisblack"
    if bands > 1 and names is not None:
        kind = {tuple(RGB): "rgb", tuple(CMYK): "separated"}.get(tuple(names), kind)
    colours = {"rgb": 3, "separated": 4, "minisblack": 1}[kind]
    if names is not None and (kind == "minisblack" or colours != bands):
        raise InputError(
            f"{path}: TIFF files do not say what the channels {', '.join(names)} are; delete the attribute channels"
        )
    extra = ["unspecified"] * (bands - colours)
    if alpha is not None:
        if extra:
            raise InputError(f"{path}: alpha goes with grey, RGB or CMYK; leave it out, or set the attribute channels")
        extra.append("assocalpha" if dataset["alpha"].attrs.get("premultiplied") else "unassalpha")
        samples = np.concatenate([np.atleast_3d(samples), alpha[..., None]], axis=2)
    dpi = dpi_of(dataset)
    _save(
        path, samples, photometric=kind, planarconfig="contig" if samples.ndim == 3 else None,
        extrasamples=extra or None, iccprofile=profile or None,
        resolution=None if dpi is None else tuple(dpi), resolutionunit=None if dpi is None else 2,
        extratags=_tags(attrs, path), description=attrs.get("description"), metadata=None,
    )  # fmt: skip


def _write_volume(dataset: xr.Dataset, path: Path) -> None:
    only(dataset, path, "volume")
    dims = tuple(map(str, dataset["volume"].dims))
    letters = {"z": "Z", "y": "Y", "x": "X", "t": "T", "channel": "S" if dims[-1:] == ("channel",) else "C"}
    rest = dims[:-1] if dims[-1:] == ("channel",) else dims
    if rest[-2:] != ("y", "x") or len(set(dims)) < len(dims) or len(dims) < 3 or not set(dims) <= set(letters):
        raise InputError(
            f"{path}: volume has the dimensions ({', '.join(dims)}) and needs some of t, z, channel before y, x, "
            "or channel as the last; rename or transpose them"
        )
    values = values_of(dataset, path, "volume", dims)
    if not values.size:
        raise InputError(f"{path}: the volume has no values; leave it out")
    attrs = dataset["volume"].attrs
    metadata = {"axes": "".join(letters[d] for d in dims)}
    if "description" in attrs:
        metadata["description"] = str(attrs["description"])
    flat = "channel" not in dims[-1:]
    extra = None if flat or values.shape[-1] == 1 else ["unspecified"] * (values.shape[-1] - 1)
    _save(
        path, values, photometric="minisblack", planarconfig=None if flat else "contig", extrasamples=extra,
        extratags=_tags(attrs, path), metadata=metadata,
    )  # fmt: skip


def _save(path: Path, values: np.ndarray, **options: Any) -> None:
    """Write with Deflate, of differences where they are integers, which every reader knows."""
    import tifffile

    predictor = values.dtype.kind in "iu" and values.itemsize <= 4
    big = values.nbytes > 2**32 - 2**25
    tifffile.imwrite(path, values, compression="zlib", predictor=predictor, bigtiff=big, software=False, **options)


def _tags(attrs: dict[str, Any], path: Path) -> list[tuple[Any, ...]]:
    """The tags that `_attributes` kept, for tifffile."""
    if "geotiff_tags" not in attrs:
        return []
    encode: Callable[[Any], Any] = lambda value: value.encode() if isinstance(value, str) else value  # noqa: E731
    try:
        tags = {
            int(code): (int(kind), encode(value)) for code, (kind, value) in json.loads(attrs["geotiff_tags"]).items()
        }
        if not set(tags) <= set(GEOTIFF):
            raise ValueError("a tag that is not one of GeoTIFF")
    except (ValueError, TypeError, AttributeError):
        raise InputError(
            f"{path}: the attribute geotiff_tags is damaged; delete it to write the values alone"
        ) from None
    return [
        (code, kind, 0 if isinstance(v, bytes) else np.size(v), v, True) for code, (kind, v) in sorted(tags.items())
    ]


FORMAT = Format(
    name="TIFF",
    recognises=begins(b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"),
    read=read,
    read_stream=read_stream,
    suffixes=(".tif", ".tiff"),
    written=(".tif", ".tiff"),
    write=write,
)
