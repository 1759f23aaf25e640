"""Images as they are shown, by the packages Pillow and imagecodecs: PNG, WebP, JPEG, JPEG 2000, GIF, BMP and PNM.

The variable is ``image(y, x)`` for grey and ``image(y, x, channel)`` for colours, uint8 or uint16. Opacity is a
variable of its own, ``alpha(y, x)``, and a colour profile is ``icc_profile(byte)``. Palettes become the colours that
they stand for, and fewer than 8 bits of grey become 8. The orientation that a camera noted is applied, so that y points
down. Animations become ``video(frame, y, x, channel)``.
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import xarray as xr

from vcinr.errors import InputError
from vcinr.formats.base import File, Format, Groups, flat_list, only, values_of
from vcinr.formats.video import check_size, video_dataset

RGB = ["red", "green", "blue"]
CMYK = ["cyan", "magenta", "yellow", "black"]

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_2000 = (b"\x00\x00\x00\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")
_PNM = re.compile(rb"P([1-6])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 2)
_PNM_DEEP = re.compile(rb"P([2356])" + rb"(?:\s|#[^\n]*\n)+(\d+)" * 3 + rb"\s")
_INCH = 0.0254  # metres


def recognises(file: File) -> bool:
    """Whether a file is an image of one of these formats."""
    head = file.head
    return (
        head.startswith((_PNG, b"\xff\xd8\xff", b"GIF87a", b"GIF89a", *_JPEG_2000))
        or (head.startswith(b"RIFF") and head[8:12] == b"WEBP")
        or (head.startswith(b"BM") and head[14:18] in [bytes([n, 0, 0, 0]) for n in (12, 40, 52, 56, 64, 108, 124)])
        or _PNM.match(head) is not None
    )


def read(path: Path, name: str) -> Groups:
    """Read a local file."""
    return _groups(path.read_bytes(), name)


def read_stream(stream: BinaryIO, name: str) -> Groups:
    """Read a file behind a URL, whole."""
    return _groups(stream.read(), name)


def _groups(data: bytes, name: str) -> Groups:
    if data.startswith(_JPEG_2000):
        import imagecodecs

        return {"": _of_samples(imagecodecs.jpeg2k_decode(data))}
    deep = _PNM_DEEP.match(data)
    if deep is not None and int(deep[4]) > 255:
        return {"": _of_samples(_deep_pnm(data, deep, name))}
    return {"": _by_pillow(data, name)}


def _by_pillow(data: bytes, name: str) -> xr.Dataset:
    """An image, or an animation, that Pillow opens."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # large is usual in science
        try:
            opened = Image.open(io.BytesIO(data))
        except UnidentifiedImageError:
            raise InputError(f"{name}: the image's header is damaged; copy it again") from None
    with opened:
        if opened.format in ("GIF", "PNG", "WEBP") and getattr(opened, "is_animated", False):
            return _animation(opened, name)
        profile, dpi = opened.info.get("icc_profile"), opened.info.get("dpi")
        if data.startswith(_PNG) and data[24] == 16:  # Pillow would take the upper byte of colours
            import imagecodecs

            opened.load()  # also reads what follows the image, such as its orientation
            samples = upright(imagecodecs.png_decode(data), opened.getexif().get(0x0112, 1))
        else:
            samples = _samples(ImageOps.exif_transpose(opened), name)
        if opened.mode == "CMYK":
            return image_dataset(samples, channels=CMYK, profile=profile, dpi=dpi)
    return _of_samples(samples, profile=profile, dpi=dpi)


def _samples(image: Any, name: str) -> np.ndarray:
    """The values that an image of Pillow shows."""
    see_through = "transparency" in image.info
    shown = {
        "1": "LA" if see_through else "L",
        "L": "LA" if see_through else "L",
        "P": "RGBA" if see_through else "RGB",
        "RGB": "RGBA" if see_through else "RGB",
        "PA": "RGBA",
        "YCbCr": "RGB",
    }.get(image.mode, image.mode)
    if shown not in ("L", "LA", "RGB", "RGBA", "CMYK") and not shown.startswith("I;16"):
        raise InputError(f"{name}: an image of mode {image.mode}, which is not read; convert it to RGB")
    samples = np.asarray(image if shown == image.mode else image.convert(shown))
    return samples.astype(samples.dtype.newbyteorder("="), copy=False)


def upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image by the orientation that TIFF and Exif number from 1 to 8."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return np.ascontiguousarray(samples)


def _deep_pnm(data: bytes, header: re.Match[bytes], name: str) -> np.ndarray:
    """A grey map or pixel map of 16 bits, as text or as bytes; Pillow would scale it."""
    kind, width, height, white = (int(n) for n in header.groups())
    if white != 65535:
        raise InputError(f"{name}: its white is {white}, and 255 and 65535 are known; scale its values")
    shape = (height, width, 3) if kind in (3, 6) else (height, width)
    n = int(np.prod(shape))
    body = data[header.end() :]
    if kind in (2, 3):
        numbers = np.array(body.split()[:n], dtype=np.int64)
        if numbers.size and (numbers.min() < 0 or numbers.max() > white):
            raise InputError(f"{name}: it has values outside 0..{white}; is the file whole? copy it again")
        return numbers.astype(np.uint16).reshape(shape)
    return np.frombuffer(body, ">u2", n).astype(np.uint16).reshape(shape)


def _of_samples(samples: np.ndarray, *, profile: bytes | None = None, dpi: Sequence[Any] | None = None) -> xr.Dataset:
    """The data set of an image whose last channel, of two or four, is its opacity."""
    alpha, channels = None, None
    if samples.ndim == 3 and samples.shape[2] in (2, 4):
        samples, alpha = samples[..., :-1], samples[..., -1]
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    if samples.ndim == 3:
        channels = RGB if samples.shape[2] == 3 else None
    return image_dataset(samples, alpha=alpha, channels=channels, profile=profile, dpi=dpi)


def image_dataset(
    samples: np.ndarray,
    *,
    alpha: np.ndarray | None = None,
    channels: list[str] | None = None,
    profile: bytes | None = None,
    dpi: Sequence[Any] | None = None,
) -> xr.Dataset:
    """The data set of an image.

    Parameters
    ----------
    samples
        ``[y, x]`` or ``[y, x, channel]``.
    alpha
        Opacity ``[y, x]``, from 0 to the largest number of its type.
    channels
        What the channels are, where it is known.
    profile
        An ICC colour profile.
    dpi
        Dots per inch along x and y.
    """
    attrs: dict[str, Any] = {}
    variables = {}
    if channels is not None:
        attrs["channels"] = list(channels)
    if dpi is not None and all(float(d) > 0 for d in dpi):
        attrs["dpi"] = [float(d) for d in dpi]
    if profile:
        attrs["icc_profile"] = "icc_profile"
        variables["icc_profile"] = (("byte",), np.frombuffer(profile, np.uint8))
    dims = ("y", "x", "channel")[: samples.ndim]
    return xr.Dataset(
        {
            "image": (dims, np.ascontiguousarray(samples), attrs),
            **({} if alpha is None else {"alpha": (dims[:2], np.ascontiguousarray(alpha))}),
            **variables,
        }
    )


def _animation(opened: Any, name: str) -> xr.Dataset:
    """Frames as they are shown one after the other; each must be opaque."""
    from PIL import ImageSequence

    check_size(opened.n_frames, opened.height, opened.width, name)
    frames, durations = [], []
    for frame in ImageSequence.Iterator(opened):
        colours = np.asarray(frame.convert("RGBA"))
        if (colours[..., 3] != 255).any():
            raise InputError(f"{name}: an animation with transparent parts; give it a background, or split its frames")
        frames.append(colours[..., :3])
        milliseconds = Fraction(frame.info.get("duration", 0)).limit_denominator(1000)
        durations.append(milliseconds / 1000)
    starts = [sum(durations[:i], Fraction(0)) for i in range(len(durations))]
    last = starts[-1]  # how long the last frame lasts says little: viewers pause there
    return video_dataset(np.stack(frames), starts, (len(starts) - 1) / last if last else None)


def parts_of(dataset: xr.Dataset, path: Path) -> tuple[np.ndarray, np.ndarray | None, bytes]:
    """The image, its opacity and its colour profile, of a data set that is to be written; raises InputError."""
    only(dataset, path, "image", "alpha", "icc_profile")
    samples = values_of(dataset, path, "image", ("y", "x"), ("y", "x", "channel"))
    if not samples.size:
        raise InputError(f"{path}: the image has no pixels; leave it out")
    if samples.ndim == 3 and samples.shape[2] == 1:
        raise InputError(f"{path}: one channel is grey; take it out of its dimension with isel(channel=0)")
    alpha = values_of(dataset, path, "alpha", ("y", "x")) if "alpha" in dataset else None
    if alpha is not None and alpha.dtype != samples.dtype:
        raise InputError(f"{path}: alpha is {alpha.dtype} and image is {samples.dtype}; give them one type")
    profile = b""
    if "icc_profile" in dataset:
        profile = values_of(dataset, path, "icc_profile", ("byte",)).astype(np.uint8).tobytes()
    return samples, alpha, profile


def dpi_of(dataset: xr.Dataset) -> list[float] | None:
    """The resolution that an image states."""
    return flat_list(dataset["image"].attrs["dpi"]) if "dpi" in dataset["image"].attrs else None


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a PNG (8 or 16 bits) or a WebP without loss (8 bits, colours)."""
    samples, alpha, profile = parts_of(dataset, path)
    attrs, dpi = dataset["image"].attrs, dpi_of(dataset)
    webp = path.suffix == ".webp"
    if samples.dtype not in (np.uint8, np.uint16):
        raise InputError(f"{path}: {path.suffix} files hold uint8 or uint16 and image is {samples.dtype}; write .tif")
    if samples.ndim == 3 and (samples.shape[2] != 3 or flat_list(attrs.get("channels", RGB)) != RGB):
        raise InputError(f"{path}: {path.suffix} files hold grey, or red, green and blue; write .tif")
    if alpha is not None and dataset["alpha"].attrs.get("premultiplied"):
        raise InputError(f"{path}: its colours are multiplied by alpha, which {path.suffix} does not say; write .tif")
    whole = samples if alpha is None else np.concatenate([np.atleast_3d(samples), alpha[..., None]], axis=2)
    if not webp:
        path.write_bytes(_png(whole, profile, dpi))
        return
    if samples.ndim == 2 or samples.dtype != np.uint8 or dpi is not None:
        raise InputError(f"{path}: .webp files hold 8-bit colours without a resolution; write .png")
    if alpha is not None and (alpha == 255).all():
        raise InputError(f"{path}: .webp files drop an opaque alpha; leave it out with drop_vars, or write .png")
    from PIL import Image

    Image.fromarray(whole).save(path, "WEBP", lossless=True, exact=True, icc_profile=profile)


def _png(samples: np.ndarray, profile: bytes, dpi: list[float] | None) -> bytes:
    """A PNG; Pillow writes no colours of 16 bits."""
    import imagecodecs

    data = bytes(imagecodecs.png_encode(samples))
    chunks = b""
    if profile:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile))
    if dpi is not None:
        chunks += _chunk(b"pHYs", struct.pack(">IIB", *(round(d / _INCH) for d in dpi), 1))
    header = len(_PNG) + 25  # of the signature and the first chunk, IHDR
    return data[:header] + chunks + data[header:]


def _chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


FORMAT = Format(
    name="PNG, WebP, JPEG and other images",
    recognises=recognises,
    read=read,
    read_stream=read_stream,
    suffixes=(
        ".png", ".webp", ".jpg", ".jpeg", ".jp2", ".j2k", ".gif", ".bmp", ".ppm", ".pgm", ".pbm", ".pnm",
    ),
    written=(".png", ".webp"),
    write=write,
)  # fmt: skip
