"""Files of images, sounds, videos, volumes, shapes, tables and points: what is written reads as the same data set."""

from __future__ import annotations

import builtins
import gzip
import json
import shutil
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import xarray as xr

import vcinr
from vcinr import formats
from vcinr.errors import InputError
from vcinr.formats.mesh import surface, triangles_of
from vcinr.formats.obj import triangles_of as triangles_of_obj
from vcinr.formats.open import numeric_fields, open_dataset
from vcinr.formats.write import write_dataset
from vcinr.places import suffix

with warnings.catch_warnings():  # of packages that are imported for the first time
    warnings.simplefilter("ignore")
    for module in ("PIL.Image", "tifffile", "imagecodecs", "soundfile", "av", "nibabel", "nrrd", "trimesh", "laspy"):
        pytest.importorskip(module)
    pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("skimage.measure")

RGB = {"channels": ["red", "green", "blue"]}
CMYK = {"channels": ["cyan", "magenta", "yellow", "black"]}


def noise(dtype: str, *shape: int, seed: int = 0) -> np.ndarray:
    """Values over the whole range of a type."""
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.standard_normal(shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)


def signal(name: str, dims: str, values: np.ndarray, **attrs: Any) -> xr.Dataset:
    return xr.Dataset({name: (dims.split(), values, attrs)})


def colour_profile() -> np.ndarray:
    from PIL import ImageCms

    return np.frombuffer(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), np.uint8)


def equal(a: xr.Dataset, b: xr.Dataset) -> None:
    """Assert that two data sets have the same variables, dimensions, types and bits of values."""
    assert set(a.variables) == set(b.variables)
    for name, variable in a.variables.items():
        other = b.variables[name]
        assert (variable.dims, variable.dtype) == (other.dims, other.dtype), name
        np.testing.assert_array_equal(variable.values, other.values)
        if variable.dtype.kind == "f":  # zeros have signs
            np.testing.assert_array_equal(np.signbit(variable.values), np.signbit(other.values))


def round_trip(dataset: xr.Dataset, path: Path) -> xr.Dataset:
    """Write and read; assert that values, given attributes and, written once more, the file are the same."""
    write_dataset(dataset, path)
    back = open_dataset(path).load()
    equal(dataset, back)
    for name, variable in dataset.variables.items():
        for key, value in variable.attrs.items():
            assert back[name].attrs[key] == value, key
    json.dumps([v.attrs for v in back.variables.values()], default=np.generic.item)
    again = path.with_name(f"again{suffix(path)}" if not path.name.endswith(".nii.gz") else "again.nii.gz")
    write_dataset(back, again)
    assert again.read_bytes() == path.read_bytes()
    assert open_dataset(again).identical(back)
    return back


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("size", [(1, 1), (5, 7)])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_images(ending: str, dtype: str, size: tuple[int, int], tmp_path: Path) -> None:
    alpha, path = (["y", "x"], noise(dtype, *size, seed=1)), tmp_path / f"a{ending}"
    grey = signal("image", "y x", noise(dtype, *size))
    colours = signal("image", "y x channel", noise(dtype, *size, 3), **RGB)
    for dataset in (grey, grey.assign(alpha=alpha), colours, colours.assign(alpha=alpha)):
        round_trip(dataset, path)
    profile = colours.assign(alpha=alpha, icc_profile=("byte", colour_profile()))
    profile["image"].attrs["icc_profile"] = "icc_profile"
    back = round_trip(profile, path)
    assert numeric_fields(back) == ["image", "alpha"]
    colours["image"].attrs["dpi"] = [300.0, 72.0]
    write_dataset(colours, path)
    np.testing.assert_allclose(open_dataset(path)["image"].attrs["dpi"], [300, 72], rtol=2e-4)
    round_trip(open_dataset(path), path)


def test_webp_keeps_colours_and_their_opacity(tmp_path: Path) -> None:
    dataset = signal("image", "y x channel", noise("u1", 5, 7, 3), **RGB)
    round_trip(dataset, tmp_path / "a.webp")
    with_alpha = dataset.assign(alpha=(("y", "x"), noise("u1", 5, 7)), icc_profile=("byte", colour_profile()))
    with_alpha["image"].attrs["icc_profile"] = "icc_profile"
    round_trip(with_alpha, tmp_path / "a.webp")


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8"])
def test_multi_band_tiffs(dtype: str, tmp_path: Path) -> None:
    round_trip(signal("image", "y x channel", noise(dtype, 5, 7, 6)), tmp_path / "a.tif")
    round_trip(signal("image", "y x channel", noise(dtype, 1, 1, 2)), tmp_path / "a.tif")
    round_trip(signal("image", "y x channel", noise(dtype, 5, 7, 4), **CMYK), tmp_path / "a.tiff")
    values = noise(dtype, 5, 7, 3)
    associated = signal("image", "y x channel", values, **RGB).assign(
        alpha=(("y", "x"), values[..., 0], {"premultiplied": 1})
    )
    round_trip(associated, tmp_path / "a.tif")


def layouts() -> dict[str, dict[str, Any]]:
    """Ways in which tifffile lays out the same five bands."""
    return {
        "chunky": {"planarconfig": "contig"},
        "planar": {"planarconfig": "separate"},
        "pages": {"metadata": {"axes": "CYX"}},
        "planar tiles": {"planarconfig": "separate", "tile": (16, 32), "compression": "zstd", "predictor": True},
        "chunky strips, big-endian": {"planarconfig": "contig", "rowsperstrip": 3, "byteorder": ">"},
        "LZW, BigTIFF": {"planarconfig": "contig", "compression": "lzw", "bigtiff": True},
    }


@pytest.mark.parametrize("layout", layouts())
def test_layouts_of_bands_are_read_alike(layout: str, tmp_path: Path) -> None:
    import tifffile

    options: dict[str, Any] = {"metadata": None, "photometric": "minisblack", **layouts()[layout]}
    bands = noise("u2", 5, 37, 41)
    chunky = options.get("planarconfig") == "contig"
    # The name says JPEG 2000, as some archives of satellite images have it; the first bytes decide.
    tifffile.imwrite(tmp_path / "a.jp2", np.moveaxis(bands, 0, 2) if chunky else bands, **options)
    data = open_dataset(tmp_path / "a.jp2")
    assert data["image"].dims == ("y", "x", "channel") and data["image"].dtype == np.uint16
    np.testing.assert_array_equal(data["image"].transpose("channel", "y", "x"), bands)


def test_geotiff_keeps_its_place(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import tifffile

    keys = (1, 1, 0, 2, 1024, 0, 1, 1, 1026, 34737, 7, 0)
    tags = [
        (33550, 12, 3, (10.0, 10.0, 0.0), True),
        (33922, 12, 6, (0.0, 0.0, 0.0, 399960.1, 4e6 / 3, 0.0), True),
        (34735, 3, len(keys), keys, True),
        (34737, 2, 0, "WGS 84|", True),
        (42112, 2, 0, "<GDALMetadata>é</GDALMetadata>".encode(), True),
        (42113, 2, 0, "-9999", True),
    ]
    values = noise("f4", 6, 5, 2)
    options: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", values, extratags=tags, description="a place", **options)
    data = open_dataset(tmp_path / "a.tif")
    assert data["image"].attrs["_FillValue"] == -9999 and data["image"].attrs["description"] == "a place"
    write_dataset(data, tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as a, tifffile.TiffFile(tmp_path / "b.tif") as b:
        for code, *_ in tags:
            one, two = a.pages.first.tags[code], b.pages.first.tags[code]
            assert (one.dtype, one.count, one.value) == (two.dtype, two.count, two.value)
    round_trip(data, tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "c.tif", noise("u1", 6, 5), extratags=tags[-1:], metadata=None)
    assert "_FillValue" not in open_dataset(tmp_path / "c.tif")["image"].attrs  # uint8 has no -9999
    assert capfd.readouterr() == ("", "")
    data["image"].attrs["geotiff_tags"] = '{"256": [3, 1]}'
    with pytest.raises(InputError, match=r"c\.tif: the attribute geotiff_tags is damaged"):
        write_dataset(data, tmp_path / "c.tif")


def test_tiffs_are_read_as_they_are_shown(tmp_path: Path) -> None:
    import tifffile

    def shown(values: np.ndarray, **options: Any) -> np.ndarray:
        tifffile.imwrite(tmp_path / "a.tif", values, metadata=None, **options)
        return open_dataset(tmp_path / "a.tif")["image"].values

    bits = noise("u1", 5, 9) > 127
    np.testing.assert_array_equal(shown(bits, photometric="minisblack"), bits * 255)
    np.testing.assert_array_equal(shown(bits, photometric="miniswhite"), ~bits * 255)
    four = noise("u1", 5, 9) % 16
    np.testing.assert_array_equal(shown(four, photometric="minisblack", bitspersample=4), four * 17)
    np.testing.assert_array_equal(shown(four, photometric="miniswhite", bitspersample=4), 255 - four * 17)
    grey = noise("u2", 5, 9)
    np.testing.assert_array_equal(shown(grey, photometric="miniswhite"), 65535 - grey)
    index, colours = noise("u1", 5, 9), noise("u1", 3, 256)
    np.testing.assert_array_equal(
        shown(index, photometric="palette", colormap=colours * np.uint16(257)), np.moveaxis(colours[:, index], 0, 2)
    )
    np.testing.assert_array_equal(
        shown(grey, photometric="minisblack", extratags=[(274, 3, 1, 6, True)]), np.rot90(grey, -1)
    )


def test_every_image_of_a_tiff_is_read(tmp_path: Path) -> None:
    import tifffile

    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for size, kind in ((8, 0), (4, 1), (6, 0)):  # 1: a smaller copy of the first
            file.write(noise("u1", size, size), photometric="minisblack", metadata=None, subfiletype=kind)
    data = open_dataset(tmp_path / "a.tif")
    assert {n: v.shape for n, v in data.data_vars.items()} == {"image": (8, 8), "image1/image": (6, 6)}
    with pytest.raises(InputError, match=r"no place for the variables image1/image"):
        write_dataset(data, tmp_path / "b.tif")


def test_what_is_missing_from_a_tiff_is_not_made_up(tmp_path: Path) -> None:
    import tifffile

    for compression in (None, "zlib", "lzw", "jpeg", "packbits"):
        values = noise("u1", 64, 64)
        tifffile.imwrite(tmp_path / "a.tif", values, compression=compression, rowsperstrip=8, metadata=None)
        data = (tmp_path / "a.tif").read_bytes()
        for missing in (1, 100, len(data) // 2):
            (tmp_path / "a.tif").write_bytes(data[:-missing])
            with pytest.raises(InputError, match=r"a\.tif: cut off, it has .* copy it again"):
                open_dataset(tmp_path / "a.tif")
    index = noise("u1", 3, 5, 9)
    tifffile.imwrite(tmp_path / "b.tif", index, photometric="palette", colormap=noise("u2", 3, 256), metadata=None)
    with pytest.raises(InputError, match=r"b\.tif: several pages with palettes"):
        open_dataset(tmp_path / "b.tif")


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    data = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        data += struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
    return data


def test_palettes_and_bits_become_what_is_shown(tmp_path: Path) -> None:
    from PIL import Image

    index, path = noise("u1", 5, 9) % 4, tmp_path / "a.png"
    palette = np.array([[255, 0, 0], [0, 128, 0], [1, 2, 3], [9, 9, 9]], np.uint8)
    image = Image.fromarray(index)
    image.putpalette(palette.tobytes())
    for name in ("a.png", "a.gif", "a.bmp"):
        image.save(tmp_path / name)
        data = open_dataset(tmp_path / name)
        np.testing.assert_array_equal(data["image"], palette[index])
        assert data["image"].attrs["channels"] == RGB["channels"] and set(data) == {"image"}
    image.save(path, transparency=2)
    data = open_dataset(path)
    np.testing.assert_array_equal(data["image"], palette[index])
    np.testing.assert_array_equal(data["alpha"], (index != 2) * 255)

    Image.fromarray(index > 1).save(path)
    np.testing.assert_array_equal(open_dataset(path)["image"], (index > 1) * 255)
    Image.fromarray(index > 1).save(tmp_path / "a.pbm")
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.pbm")["image"], (index > 1) * 255)
    header = struct.pack(">IIBBBBB", 4, 1, 2, 0, 0, 0, 0)  # 2 bits of grey
    path.write_bytes(png((b"IHDR", header), (b"IDAT", zlib.compress(b"\0\x1b")), (b"IEND", b"")))
    np.testing.assert_array_equal(open_dataset(path)["image"], [[0, 85, 170, 255]])


def test_a_colour_that_stands_for_nothing_is_transparent(tmp_path: Path) -> None:
    deep = noise("u2", 1, 3, 3)
    header = struct.pack(">IIBBBBB", 3, 1, 16, 2, 0, 0, 0)
    key = struct.pack(">3H", *deep[0, 1])
    body = zlib.compress(b"\0" + deep.astype(">u2").tobytes())
    (tmp_path / "a.png").write_bytes(png((b"IHDR", header), (b"tRNS", key), (b"IDAT", body), (b"IEND", b"")))
    data = open_dataset(tmp_path / "a.png")
    np.testing.assert_array_equal(data["image"], deep)
    np.testing.assert_array_equal(data["alpha"], [[65535, 0, 65535]])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_of_a_camera_is_applied(orientation: int, tmp_path: Path) -> None:
    import tifffile
    from PIL import Image, ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    grey = noise("u1", 5, 7)
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "a.png")))
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.png")["image"], upright)
    Image.fromarray(grey.astype(np.uint16) * 257).save(tmp_path / "b.png", exif=exif)
    np.testing.assert_array_equal(open_dataset(tmp_path / "b.png")["image"], upright.astype(np.uint16) * 257)
    tags = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(tmp_path / "a.tif", grey, photometric="minisblack", extratags=tags, metadata=None)
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.tif")["image"], upright)


def test_other_images_are_read(tmp_path: Path) -> None:
    import imagecodecs
    from PIL import Image

    colours, deep = noise("u1", 6, 8, 3), noise("u2", 6, 8, 3)
    for name in ("a.bmp", "a.ppm"):
        Image.fromarray(colours).save(tmp_path / name)
        np.testing.assert_array_equal(open_dataset(tmp_path / name)["image"], colours)
    Image.fromarray(colours).save(tmp_path / "a.jpg", quality=95, dpi=(72, 72))
    data = open_dataset(tmp_path / "a.jpg")
    assert data["image"].dims == ("y", "x", "channel") and data["image"].attrs["dpi"] == [72.0, 72.0]
    Image.fromarray(noise("u1", 6, 8, 4), "CMYK").save(tmp_path / "cmyk.jpg")
    data = open_dataset(tmp_path / "cmyk.jpg")
    assert data["image"].attrs["channels"] == CMYK["channels"] and data["image"].shape == (6, 8, 4)

    (tmp_path / "deep.ppm").write_bytes(b"P6\n# a comment\n8 6\n65535\n" + deep.astype(">u2").tobytes())
    np.testing.assert_array_equal(open_dataset(tmp_path / "deep.ppm")["image"], deep)
    (tmp_path / "deep.pgm").write_text("P2 8 6 65535\n" + " ".join(map(str, deep[..., 0].ravel())))
    np.testing.assert_array_equal(open_dataset(tmp_path / "deep.pgm")["image"], deep[..., 0])
    for values in (deep, deep[..., 0]):
        encoded = imagecodecs.jpeg2k_encode(values, 0, reversible=True, codecformat="jp2")
        (tmp_path / "a.jp2").write_bytes(encoded)
        np.testing.assert_array_equal(open_dataset(tmp_path / "a.jp2")["image"], values)


def test_animations_become_video(tmp_path: Path) -> None:
    from PIL import Image

    frames = noise("u1", 4, 6, 8, 3)
    pictures = [Image.fromarray(f) for f in frames]
    for name in ("a.png", "a.webp"):
        pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], duration=40, lossless=True)
        data = open_dataset(tmp_path / name)
        np.testing.assert_array_equal(data["video"], frames)
        assert data["video"].attrs["frame_rate"] == "25/1"
    round_trip(data, tmp_path / "a.mkv")
    still = [p.quantize(16, dither=Image.Dither.NONE) for p in pictures]
    still[0].save(tmp_path / "a.gif", save_all=True, append_images=still[1:], duration=[40, 40, 100, 40])
    data = open_dataset(tmp_path / "a.gif")
    np.testing.assert_array_equal(data["video"], np.stack([np.asarray(p.convert("RGB")) for p in still]))
    assert (data["video"].attrs["time_base"], data["video"].attrs["frame_ticks"]) == ("1/50", [0, 2, 4, 9])
    assert data["video"].attrs["frame_rate"] == "50/3"
    for name in ("a.mkv", "a.mp4"):
        write_dataset(data, tmp_path / name)
        back = open_dataset(tmp_path / name)
        equal(data, back)
        for key in ("time_base", "frame_ticks"):
            assert back["video"].attrs[key] == data["video"].attrs[key]


def test_an_image_goes_through_an_archive(tmp_path: Path) -> None:
    y, x = np.mgrid[:24, :32]
    colours = np.stack([y * 8, x * 4, y + x], axis=2).astype(np.uint8)
    dataset = signal("image", "y x channel", colours, **RGB).assign(icc_profile=("byte", colour_profile()))
    dataset["image"].attrs["icc_profile"] = "icc_profile"
    write_dataset(dataset, tmp_path / "a.png")
    vcinr.compress(
        vcinr.open_groups(tmp_path / "a.png"), tmp_path / "a.zarr", abs_error=2, effort="fast", variables=["image"]
    )
    with vcinr.open(tmp_path / "a.zarr") as back:
        vcinr.write_dataset(back, tmp_path / "b.png")
    back = open_dataset(tmp_path / "b.png")
    assert np.abs(back["image"].astype(int) - dataset["image"]).max() <= 2
    np.testing.assert_array_equal(back["icc_profile"], dataset["icc_profile"])
    assert back["image"].attrs == dataset["image"].attrs


# ---------------------------------------------------------------- sound


@pytest.mark.parametrize("ending", [".wav", ".flac", ".aiff"])
@pytest.mark.parametrize(("dtype", "bits"), [("i2", 8), ("i2", 16), ("i4", 24)])
def test_sound_of_integers(ending: str, dtype: str, bits: int, tmp_path: Path) -> None:
    path, shift = tmp_path / f"a{ending}", 8 * np.dtype(dtype).itemsize - bits
    for rate, shape in ((8000, (100,)), (44100, (101, 2)), (16000, (1, 3))):
        values = noise(dtype, *shape) >> shift
        dims = ("time channel" if len(shape) == 2 else "time").split()
        tags = {"title": "Über", "artist": "me", "date": "2026"} if ending != ".aiff" else {}
        round_trip(xr.Dataset({"sound": (dims, values, {"sample_rate": rate, "bits": bits, **tags})}), path)


def test_sound_of_floats_and_of_nothing(tmp_path: Path) -> None:
    values = np.array([0, -0.0, 1.5, -3, np.nan, np.inf, 1e-30, 1e30], "f4")
    for array in (values, values.astype("f8") / 3, noise("f4", 10, 2), noise("i4", 10)):
        more = {"bits": 32} if array.dtype.kind == "i" else {}
        dims = "time channel" if array.ndim == 2 else "time"
        round_trip(signal("sound", dims, array, sample_rate=48000, **more), tmp_path / "a.wav")
    for shape in ((0,), (0, 2)):
        dims = "time channel" if len(shape) == 2 else "time"
        empty = signal("sound", dims, np.zeros(shape, "i2"), sample_rate=16000, bits=16)
        round_trip(empty, tmp_path / "a.wav")
        with pytest.raises(InputError, match=r"a\.flac: a \.flac file cannot be empty; write \.wav"):
            write_dataset(empty, tmp_path / "a.flac")


def test_lossy_sound_is_read(tmp_path: Path) -> None:
    import soundfile

    wave = np.sin(np.arange(8000) / 10)
    for name in ("a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, wave, 16000)
        data = open_dataset(tmp_path / name)
        assert data["sound"].dims == ("time",) and data["sound"].dtype == np.float32 and data["sound"].size >= 8000
        del data["sound"].attrs["subtype"]  # which becomes that of float32
        round_trip(data, tmp_path / "a.wav")


@pytest.mark.parametrize("ending", [".wav", ".aiff"])
def test_a_sound_of_floats_is_the_same_file_at_any_time(ending: str, tmp_path: Path) -> None:
    """The chunk of peaks, which the library adds, holds the time at which it was written."""
    dataset = xr.Dataset({"sound": ("time", np.linspace(-1, 1, 50, dtype="f4"), {"sample_rate": 8000})})
    write_dataset(dataset, tmp_path / f"a{ending}")
    data = (tmp_path / f"a{ending}").read_bytes()
    at = data.index(b"PEAK")
    assert data[at + 12 : at + 16] == bytes(4) and at < data.index(b"data" if ending == ".wav" else b"SSND")
    np.testing.assert_array_equal(open_dataset(tmp_path / f"a{ending}")["sound"], dataset["sound"])


# ---------------------------------------------------------------- video


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (3, 7, 9, 3), (12, 16, 32, 3)])
def test_video(ending: str, shape: tuple[int, ...], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for rate in ("30000/1001", "25/1"):
        dataset = signal("video", "frame y x channel", noise("u1", *shape), frame_rate=rate, **RGB)
        round_trip(dataset, tmp_path / f"a{ending}")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.avi", "mpeg4"), ("a.webm", "libvpx-vp9"), ("a.y4m", "wrapped_avframe"), ("a.mov", "libx264")],
)
def test_other_videos_are_read(name: str, codec: str, tmp_path: Path) -> None:
    import av

    def write(matrix: int) -> xr.DataArray:
        with av.open(tmp_path / name, "w", format="yuv4mpegpipe" if name.endswith("y4m") else None) as container:
            stream: Any = container.add_stream(codec, rate=20)
            stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
            if matrix:
                stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 1
            frame = av.VideoFrame(32, 16, "yuv420p")
            for plane, level in zip(frame.planes, (120, 90, 200), strict=True):
                plane.update(bytes([level]) * plane.buffer_size)
            if matrix:
                frame.colorspace, frame.color_range = matrix, 1
            for i in range(6):
                frame.pts = i
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return open_dataset(tmp_path / name)["video"]

    video = write(0)
    assert video.dims == ("frame", "y", "x", "channel") and video.shape == (6, 16, 32, 3)
    assert video.attrs["frame_rate"] == "20/1" and video.attrs["pixel_format"] == "yuv420p"
    np.testing.assert_allclose(video[3, 8, 8].astype(int), [236, 77, 44], atol=6)  # BT.601 where nothing is said
    if name == "a.mov":
        video = write(1)
        assert (video.attrs["colour_matrix"], video.attrs["colour_range"]) == ("bt709", "limited")
        np.testing.assert_allclose(video[3, 8, 8].astype(int), [250, 91, 41], atol=6)


def test_times_of_unequal_frames_are_kept(tmp_path: Path) -> None:
    import av

    with av.open(tmp_path / "a.mkv", "w") as container:
        stream: Any = container.add_stream("ffv1", rate=1000)
        stream.width, stream.height, stream.pix_fmt = 8, 6, "bgr0"
        for picture, time in zip(noise("u1", 4, 6, 8, 3), (0, 40, 80, 500), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = time
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    data = open_dataset(tmp_path / "a.mkv")
    assert data["video"].attrs["time_base"] == "1/50" and data["video"].attrs["frame_ticks"] == [0, 2, 4, 25]
    data["video"].attrs["time_base"] = "1/30000"
    with pytest.raises(InputError, match=r"b\.mkv: \.mkv files have times in milliseconds.*write \.mp4"):
        write_dataset(data, tmp_path / "b.mkv")
    data["video"].attrs["frame_ticks"] = [0, 1001, 5005, 6006]
    write_dataset(data, tmp_path / "b.mp4")
    assert open_dataset(tmp_path / "b.mp4")["video"].attrs["frame_ticks"] == [0, 1001, 5005, 6006]
    for wrong in ([0, 1, 2], [0, 2, 2, 3]):
        data["video"].attrs["frame_ticks"] = wrong
        with pytest.raises(InputError, match=r"b\.mp4: frame_ticks and time_base do not say .* delete frame_ticks"):
            write_dataset(data, tmp_path / "b.mp4")


def test_long_videos_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = signal("video", "frame y x channel", noise("u1", 4, 6, 8, 3), frame_rate="25/1")
    for name in ("a.mp4", "a.mkv"):  # MKV does not say how many frames it has
        write_dataset(dataset, tmp_path / name)
        with monkeypatch.context() as patch:
            patch.setattr("vcinr.formats.video.LIMIT", 500)
            with pytest.raises(InputError, match=r"frames of 8x6 are .* GB are read; cut it into shorter clips"):
                open_dataset(tmp_path / name)


# ---------------------------------------------------------------- volumes


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".tif"])
@pytest.mark.parametrize("dtype", ["u1", "i2", "f4", "f8", "u2"])
def test_volumes(ending: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    for shape in ((1, 1, 1), (4, 5, 6), (3, 7, 3)):
        round_trip(signal("volume", "z y x", noise(dtype, *shape)), path)
    round_trip(signal("volume", "t z y x", noise(dtype, 2, 4, 5, 6)), path)


def nifti(path: Path, *, version: int = 1, order: str = "<") -> np.ndarray:
    """Write a NIfTI file with nibabel; returns its values, z y x, as they are meant."""
    import nibabel

    kinds: Any = {1: (nibabel.Nifti1Header, nibabel.Nifti1Image), 2: (nibabel.Nifti2Header, nibabel.Nifti2Image)}
    header = kinds[version][0](endianness=order)
    header.set_data_dtype(np.dtype("i2").newbyteorder(order))
    header.set_xyzt_units("mm", "sec")
    header["descrip"] = b"a brain"
    image = kinds[version][1](
        noise("f4", 4, 5, 6), [[2, 0, 0, -9], [0, 2.5, 0.1, 8], [0, 0, 3, 7], [0, 0, 0, 1]], header
    )
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"kept"))
    image.set_qform(np.diag([2, 2.5, 3, 1]), 1)
    image.to_filename(path)
    return np.asarray(nibabel.load(path).dataobj).T


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nifti_comes_back_to_the_bit(ending: str, version: int, order: str, tmp_path: Path) -> None:
    path, target = tmp_path / f"a{ending}", tmp_path / f"b{ending}"
    meant = nifti(path, version=version, order=order)
    data = open_dataset(path)
    assert data["volume"].dtype == np.int16 and data["volume"].dims == ("z", "y", "x")
    attrs = data["volume"].attrs
    assert attrs["affine"][:4] == [2, 0, 0, -9] and (attrs["sform_code"], attrs["qform_code"]) == (2, 1)
    assert (attrs["space_units"], attrs["time_units"]) == ("mm", "sec") and attrs["zooms"] == [2, 2.5, 3]
    np.testing.assert_allclose(open_dataset(path, decode=True)["volume"], meant, rtol=1e-6)
    write_dataset(data, target)
    unpack: Callable[[bytes], bytes] = gzip.decompress if ending == ".nii.gz" else bytes
    assert unpack(target.read_bytes()) == unpack(path.read_bytes())
    with pytest.raises(InputError, match=r"c\.nii: volume has the shape .* delete the attribute nifti_header"):
        write_dataset(data.isel(x=slice(2)), tmp_path / "c.nii")
    del data["volume"].attrs["nifti_header"]
    write_dataset(data, tmp_path / "c.nii")
    again = open_dataset(tmp_path / "c.nii")["volume"].attrs
    for key in ("affine", "zooms", "scale_factor", "add_offset"):  # NIfTI 1 has 32 bits of them, NIfTI 2 64
        np.testing.assert_allclose(again[key], attrs[key], rtol=1e-7)
    assert again["space_units"] == attrs["space_units"]
    data["volume"].attrs["scale_factor"] = 1 / 3
    with pytest.raises(InputError, match=r"c\.nii: NIfTI keeps 32 bits of scale_factor"):
        write_dataset(data, tmp_path / "c.nii")


@pytest.mark.parametrize("ending", [".nrrd", ".tif", ".png", ".wav"])
def test_packed_values_do_not_lose_their_units(ending: str, tmp_path: Path) -> None:
    name, dims = {".png": ("image", "y x"), ".wav": ("sound", "time")}.get(ending, ("volume", "z y x"))
    packed = signal(name, dims, noise("u2", *[3] * len(dims.split())), scale_factor=0.5)
    with pytest.raises(InputError, match=r"is packed, and .* no place for its scale_factor .*decode_cf"):
        write_dataset(packed, tmp_path / f"a{ending}")


def test_nrrd_keeps_its_fields(tmp_path: Path) -> None:
    import nrrd

    fields = {
        "space": "left-posterior-superior",
        "space directions": np.array([[np.nan] * 3, [1, 0, 0], [0, 2, 0], [0, 0, 3.1]]),
        "space origin": np.array([1, 2, 1 / 3]),
        "kinds": ["vector", "domain", "domain", "domain"],
        "my key": "a: b",
        "units": ["", "mm", "mm", "mm"],
    }
    for encoding in ("raw", "gzip", "bzip2", "ASCII"):
        values = noise("i2", 4, 5, 6, 3)
        header = {**fields, "encoding": encoding}
        nrrd.write(str(tmp_path / "a.nrrd"), values, header, index_order="C", custom_field_map={})
        data = open_dataset(tmp_path / "a.nrrd")
        assert data["volume"].dims == ("z", "y", "x", "channel")
        np.testing.assert_array_equal(data["volume"], values)
        write_dataset(data, tmp_path / "b.nrrd")
        back, again = nrrd.read(str(tmp_path / "b.nrrd"), index_order="C")
        np.testing.assert_array_equal(back, values)
        before = nrrd.read_header(str(tmp_path / "a.nrrd"))
        for key in fields:
            np.testing.assert_array_equal(again[key], before[key])
    with pytest.raises(InputError, match=r"b\.nrrd: volume has the sizes .* delete the attribute nrrd_header"):
        write_dataset(data.isel(x=slice(2)), tmp_path / "b.nrrd")
    nrrd.write(str(tmp_path / "a.nhdr"), values, fields, index_order="C")
    np.testing.assert_array_equal(open_dataset(tmp_path / "a.nhdr")["volume"], values)
    memory = fsspec.filesystem("memory")
    memory.pipe("/formats/a.nhdr", (tmp_path / "a.nhdr").read_bytes())
    with pytest.raises(InputError, match=r"a\.nhdr: its values are in a file of their own; copy both"):
        open_dataset("memory://formats/a.nhdr")


def test_pages_are_volumes(tmp_path: Path) -> None:
    import tifffile

    values = noise("u2", 3, 4, 5, 6)
    for options, dims in (
        ({"imagej": True, "metadata": {"axes": "TZYX", "spacing": 2.0}}, "t z y x"),
        ({"ome": True, "metadata": {"axes": "TZYX"}}, "t z y x"),
        ({"metadata": {"axes": "ZCYX"}}, "z channel y x"),
    ):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
        data = open_dataset(tmp_path / "a.tif")
        assert data["volume"].dims == tuple(dims.split())
        np.testing.assert_array_equal(data["volume"], values)
        round_trip(data, tmp_path / "b.tif")
    tifffile.imwrite(tmp_path / "a.tif", values[0], photometric="minisblack", metadata=None)
    assert open_dataset(tmp_path / "a.tif")["volume"].dims == ("z", "y", "x")
    round_trip(signal("volume", "z y x channel", noise("u1", 3, 4, 5, 2)), tmp_path / "a.tif")


# ---------------------------------------------------------------- shapes


def shapes() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    long = np.zeros((3, 2, 400), np.uint8)
    long[1, :, 5:390] = 1
    some, cube = ((rng.random(shape) < 0.3).astype(np.uint8) for shape in ((5, 7, 9), (6, 6, 6)))
    return [np.ones((1, 1, 1), np.uint8), some, cube, long, np.zeros((2, 2, 2), np.uint8)]


def test_voxels(tmp_path: Path) -> None:
    import trimesh

    for voxels in shapes():
        dataset = signal("occupancy", "z y x", voxels, translate=[0.5, -1.0, 1 / 3], scale=2.5)
        round_trip(dataset, tmp_path / "a.binvox")
        if len(set(voxels.shape)) > 1 or voxels.size == 1:  # which trimesh does not read
            continue
        with (tmp_path / "a.binvox").open("rb") as stream:
            outside = trimesh.exchange.binvox.load_binvox(stream)
        np.testing.assert_array_equal(outside.matrix.transpose(2, 1, 0), voxels)


def test_surfaces_are_closed_and_in_place(tmp_path: Path) -> None:
    import trimesh

    far = np.mgrid[-6:7, -6:7, -6:7]
    ball = ((far**2).sum(axis=0) < 30).astype(np.uint8)
    mesh = trimesh.Trimesh(**trimesh.triangles.to_kwargs(surface(ball)))
    assert mesh.is_watertight and mesh.volume == pytest.approx(ball.sum(), rel=0.1)
    for voxels in (ball, *shapes()[:-1]):
        triangles = surface(voxels)
        assert trimesh.triangles.mass_properties(triangles)["volume"] > 0
        _, points = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
        corners = points.reshape(-1, 3)
        sides = np.concatenate([corners[:, [i, (i + 1) % 3]] for i in range(3)])
        forth, back = (np.sort(sides @ [1, len(points)]), np.sort(sides @ [len(points), 1]))
        np.testing.assert_array_equal(forth, back)  # each side is also one of a neighbour, the other way round
        where = np.argwhere(voxels)[:, ::-1]
        np.testing.assert_array_equal(triangles.min(axis=(0, 1)), where.min(axis=0))
        np.testing.assert_array_equal(triangles.max(axis=(0, 1)), where.max(axis=0) + 1)
        dataset = signal("occupancy", "z y x", voxels, translate=[1.0, 2.0, 3.0], scale=4.0)
        for name in ("a.stl", "a.ply", "a.obj"):
            write_dataset(dataset, tmp_path / name)
            read = open_dataset(tmp_path / name)["triangles"].values
            np.testing.assert_allclose(read, triangles * 4 / max(voxels.shape) + [1, 2, 3], rtol=1e-6)
    with pytest.raises(InputError, match=r"a\.stl: the shape is empty"):
        write_dataset(signal("occupancy", "z y x", shapes()[-1]), tmp_path / "a.stl")


def test_meshes(tmp_path: Path) -> None:
    import trimesh

    triangles = noise("f8", 9, 3, 3)
    dataset = signal("triangles", "triangle corner axis", triangles)
    for name in ("a.ply", "a.obj"):
        round_trip(dataset, tmp_path / name)
    with pytest.raises(InputError, match=r"a\.stl: \.stl files hold float32, .* write \.ply or \.obj"):
        write_dataset(dataset, tmp_path / "a.stl")
    narrow = dataset.astype("f4").astype("f8")
    round_trip(narrow, tmp_path / "a.stl")
    mesh = trimesh.Trimesh(**trimesh.triangles.to_kwargs(narrow["triangles"].values), process=False)
    scene = trimesh.Scene()
    scene.add_geometry(mesh, transform=np.diag([2, 2, 2, 1.0]))
    np.testing.assert_array_equal(triangles_of(scene.export(file_type="glb"), "a.glb"), narrow["triangles"].values * 2)
    text = mesh.export(file_type="stl_ascii").encode()
    np.testing.assert_array_equal(triangles_of(text, "a.stl").astype("f4"), narrow["triangles"].values)
    np.testing.assert_array_equal(triangles_of(mesh.export(file_type="stl"), "a.stl"), narrow["triangles"].values)
    written = (tmp_path / "a.obj").read_bytes()
    np.testing.assert_array_equal(triangles_of_obj(written, "a.obj"), triangles)
    with pytest.raises(InputError, match=r"cut\.stl: cut off, its last line is not 'endsolid'"):
        triangles_of(text[:-50], "cut.stl")
    points = trimesh.PointCloud(noise("f8", 5, 3)).export(file_type="ply")
    with pytest.raises(InputError, match=r"a\.ply: it has no faces"):
        triangles_of(points, "a.ply")


# ---------------------------------------------------------------- tables and points


def test_parquet(tmp_path: Path) -> None:
    import datetime
    import decimal

    import pyarrow as pa
    import pyarrow.parquet

    day, time = datetime.date(2020, 1, 1), datetime.datetime(2021, 1, 1, 1, 1, 1, 5, datetime.UTC)
    table = pa.table(
        {
            "whole": [1, 2, 3],
            "gappy": pa.array([1, None, 3], pa.int8()),
            "float": [0.5, None, float("nan")],
            "narrow": pa.array([0.5, None, -0.0], pa.float32()),
            "text": ["a", "", "c"],
            "gaps": ["a", None, ""],
            "truth": [True, False, True],
            "perhaps": [True, False, None],
            "day": [day] * 3,
            "time": pa.array([time, None, time], pa.timestamp("us", tz="UTC")),
            "exact": [decimal.Decimal("1.50")] * 3,
            "kind": pa.array(["x", "y", "x"]).dictionary_encode(),
            "large": pa.array([2**64 - 1, 0, 1], pa.uint64()),
            "span": pa.array([1, 2, 3], pa.duration("ns")),
        }
    ).replace_schema_metadata({"who": "me"})
    for part in (table, table.slice(0, 1), table.slice(0, 0)):
        pyarrow.parquet.write_table(part, tmp_path / "a.parquet")
        data = open_dataset(tmp_path / "a.parquet")
        round_trip(data, tmp_path / "b.parquet")
        back = pyarrow.parquet.read_table(tmp_path / "b.parquet")
        assert back.schema.equals(table.schema, check_metadata=True)
        assert str(back.to_pylist()) == str(part.to_pylist())  # NaN is not equal to NaN
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    data = open_dataset(tmp_path / "a.parquet")
    kinds = {str(n): v.dtype.name for n, v in data.variables.items()}
    assert kinds["whole"] == "int64" and kinds["gappy"] == "float64" and kinds["narrow"] == "float32"
    assert kinds["truth"] == "bool" and kinds["day"] == "int32" and kinds["exact"] == "object"
    data["gappy"][0] = 1.5
    with pytest.raises(InputError, match=r"b\.parquet: gappy is a column of int8 .* between whole numbers"):
        write_dataset(data, tmp_path / "b.parquet")
    data["gappy"][0] = 300
    with pytest.raises(InputError, match=r"b\.parquet: gappy cannot be a column of int8"):
        write_dataset(data, tmp_path / "b.parquet")
    new = xr.Dataset({"b": ("row", [1.5, np.nan]), "a": ("row", np.array(["x", "y"], object))})
    round_trip(new, tmp_path / "new.parquet")
    for column, message in (
        ([2**60 + 1, None], r"'c' has gaps and whole numbers beyond"),
        ([[1], [2]], r"'c' is list"),
    ):
        pyarrow.parquet.write_table(pa.table({"c": column}), tmp_path / "c.parquet")
        with pytest.raises(InputError, match=rf"c\.parquet: column {message}.*leave the column out"):
            open_dataset(tmp_path / "c.parquet")


CSV = """name,n,x,mixed,gaps,e,code,said
a,1,1.50,2.0,,1e+300,007,"a,b"
b,-2,2.25,3.5,4,0.1,010,"c""d"
c,0,-0.00,NaN,5,-inf,9,"two
lines"
"""


def test_csv_comes_back_as_the_same_text(tmp_path: Path) -> None:
    path, target = tmp_path / "a.csv", tmp_path / "b.csv"
    path.write_text(CSV)
    data = open_dataset(path)
    kinds = {n: v.dtype.kind for n, v in data.variables.items()}
    assert kinds == dict(name="O", n="i", x="f", mixed="f", gaps="f", e="f", code="O", said="O")
    assert numeric_fields(data) == ["n", "x", "mixed", "gaps", "e"]
    write_dataset(data, target)
    assert target.read_text() == CSV
    round_trip(data, tmp_path / "a.tsv")
    data["x"][0] = 1.501  # no longer what the file said: exact, though longer
    write_dataset(data, target)
    assert target.read_text() == CSV.replace("1.50,", "1.501,")
    path.write_text("1;2\n3.5;4\n\n")
    data = open_dataset(path)
    assert data["column1"].values.tolist() == [1, 3.5] and data["column2"].values.tolist() == [2, 4]
    write_dataset(data, target)
    assert target.read_text() == "1.0;2\n3.5;4\n"
    path.write_bytes("\ufeffrow\n1\n2\n".encode())
    assert open_dataset(path)["row"].values.tolist() == [1, 2]
    path.write_text("a\n1\n\n3\n")
    np.testing.assert_array_equal(open_dataset(path)["a"], [1, np.nan, 3])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"row 3 has 1 of 2 cells"),
        ("a,a\n1,2\n", r"two columns are named 'a'"),
        (f"a,b\n{2**60 + 1},1\n,2\n", r"column 'a' misses values and has whole numbers beyond 2\*\*53"),
        ("\n\n", r"no columns"),
        ("ä\n", r"byte 0 is not UTF-8"),
    ],
)
def test_wrong_csv_is_explained(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=rf"a\.csv: .*{message}"):
        open_dataset(tmp_path / "a.csv")


def cloud(path: Path, point_format: int = 6, version: str = "1.4", points: int = 50) -> None:
    """Write a cloud of points with laspy."""
    import laspy

    header = laspy.LasHeader(point_format=point_format, version=version)
    header.scales, header.offsets = [0.01, 0.01, 0.001], [1000, 2000, 0]
    header.add_extra_dim(laspy.ExtraBytesParams("amplitude", "u2"))
    header.add_extra_dim(laspy.ExtraBytesParams("depth", "i4", scales=np.array([0.1]), offsets=np.array([5.0])))
    header.add_extra_dim(laspy.ExtraBytesParams("normal", "3f4"))
    header.vlrs.append(laspy.VLR("me", 7, "kept", b"hello"))
    las = laspy.LasData(header)
    las.X, las.Y, las.Z = noise("i4", points, 3).T
    las.classification, las.gps_time = noise("u1", points) % 20, noise("f8", points)
    las.amplitude, las["normal"] = noise("u2", points), noise("f4", points, 3)
    las.points.array["depth"] = noise("i4", points)
    if version == "1.4":
        las.evlrs = laspy.vlrs.vlrlist.VLRList([laspy.VLR("me", 8, "long", b"record")])
    las.write(str(path))


@pytest.mark.parametrize(("point_format", "version"), [(6, "1.4"), (3, "1.2")])
@pytest.mark.parametrize("ending", [".las", ".laz"])
def test_point_clouds(ending: str, point_format: int, version: str, tmp_path: Path) -> None:
    path = tmp_path / f"a{ending}"
    cloud(path, point_format, version)
    data = open_dataset(path)
    assert data["X"].dtype == np.int32 and data["X"].attrs == {"scale_factor": 0.01, "add_offset": 1000.0}
    assert data["depth"].dtype == np.int32 and data["depth"].attrs == {"scale_factor": 0.1, "add_offset": 5.0}
    assert data["normal"].dims == ("point", "normal_element")
    write_dataset(data, tmp_path / f"b{ending}")
    assert (tmp_path / f"b{ending}").read_bytes() == path.read_bytes()
    for other in (".las", ".laz"):
        round_trip(data, tmp_path / f"c{other}")
    round_trip(data.isel(point=slice(7)), tmp_path / "d.laz")
    for wrong, message in (
        (data.drop_vars("Y"), r"its points lack Y and have nothing"),
        (data.drop_attrs(), r"no attribute las_header"),
        (data.assign(X=data["X"].drop_attrs()), r"X has another scale_factor or add_offset"),
    ):
        with pytest.raises(InputError, match=rf"d\.las: .*{message}"):
            write_dataset(wrong, tmp_path / "d.las")


# ---------------------------------------------------------------- what is wrong


def examples(folder: Path) -> dict[str, Path]:
    """A file of each format that this page is about, large enough to be cut."""
    folder.mkdir(exist_ok=True)
    image = signal("image", "y x channel", noise("u1", 40, 50, 3), **RGB)
    sound = signal("sound", "time", noise("i2", 20000), sample_rate=16000)
    volume = signal("volume", "z y x", noise("i2", 9, 10, 11))
    video = signal("video", "frame y x channel", noise("u1", 9, 16, 16, 3), frame_rate="25/1")
    solid = signal("occupancy", "z y x", (noise("u1", 9, 9, 9) > 127).astype("u1"))
    table = xr.Dataset({"a": ("row", noise("f8", 1000)), "b": ("row", noise("i8", 1000))})
    sets = [
        (image, "png webp tif npz"), (sound, "wav flac aiff"), (volume, "nii nii.gz nrrd"), (video, "mp4 mkv"),
        (solid, "binvox stl ply"), (table, "parquet csv"),
    ]  # fmt: skip
    found = {}
    for dataset, endings in sets:
        for ending in endings.split():
            found[ending] = folder / f"whole.{ending}"
            write_dataset(dataset, found[ending])
    found["laz"], found["las"] = folder / "whole.laz", folder / "whole.las"
    for ending in ("laz", "las"):
        cloud(found[ending], 3, "1.2")

    import imagecodecs
    import soundfile
    from PIL import Image

    picture = image["image"].values
    Image.fromarray(picture).save(folder / "whole.jpg")
    Image.fromarray(picture).save(folder / "whole.bmp")
    Image.fromarray(picture).quantize(64).save(folder / "whole.gif")
    (folder / "whole.jp2").write_bytes(imagecodecs.jpeg2k_encode(picture, 0, reversible=True, codecformat="jp2"))
    (folder / "whole.ppm").write_bytes(b"P6 5 4 65535\n" + noise("u1", 120).tobytes())
    soundfile.write(folder / "whole.ogg", noise("f4", 40000) / 9, 16000)
    soundfile.write(folder / "whole.mp3", noise("f4", 40000) / 9, 16000)
    return found | {e: folder / f"whole.{e}" for e in ("jpg", "bmp", "gif", "jp2", "ppm", "ogg", "mp3")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return examples(tmp_path_factory.mktemp("whole"))


def test_files_that_are_cut_are_refused_in_one_line(whole: dict[str, Path], tmp_path: Path) -> None:
    for ending, path in whole.items():
        if ending == "csv":  # text, of which the last line may happen to make sense
            continue
        data = path.read_bytes()
        for part in (0.02, 0.5, 0.9):
            cut = tmp_path / f"cut.{ending}"
            cut.write_bytes(data[: int(part * len(data))])
            with pytest.raises(InputError) as caught:
                open_dataset(cut).load()
            assert "\n" not in str(caught.value) and str(cut) in str(caught.value), f"{ending}: {caught.value}"


def test_names_do_not_matter_and_streams_read_alike(whole: dict[str, Path], tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    for ending, path in whole.items():
        data = open_dataset(path).load()
        memory.pipe(f"/formats/whole.{ending}", path.read_bytes())
        assert open_dataset(f"memory://formats/whole.{ending}").load().identical(data), ending
        if ending in ("csv", "stl", "npz"):  # these begin with anything, or are named by their members
            continue
        shutil.copy(path, tmp_path / "data.dat")
        assert open_dataset(tmp_path / "data.dat").load().identical(data), ending
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(InputError, match=r"text\.png: not a \.png file, it begins with b'no image'"):
        open_dataset(tmp_path / "text.png")


def test_files_come_back_through_an_archive_and_netcdf(whole: dict[str, Path], tmp_path: Path) -> None:
    nifti(tmp_path / "packed.nii.gz")
    files = [whole[ending] for ending in ["png", "tif", "wav", "nrrd", "mp4", "binvox", "stl", "parquet", "csv", "las"]]
    for path in (*files, tmp_path / "packed.nii.gz"):
        ending = path.name.partition(".")[2]
        data, archive = open_dataset(path).load(), tmp_path / f"{ending}.zarr"
        vcinr.compress(vcinr.open_groups(path), archive, variables=numeric_fields(data)[:1], effort="fast")
        vcinr.decompress(archive, tmp_path / f"{ending}.nc")
        with vcinr.open(archive, decode=False) as back:
            write_dataset(back, tmp_path / f"archive.{ending}")
        write_dataset(open_dataset(tmp_path / f"{ending}.nc"), tmp_path / f"netcdf.{ending}")
        write_dataset(data, tmp_path / f"direct.{ending}")
        expected = (tmp_path / f"direct.{ending}").read_bytes()
        assert (tmp_path / f"archive.{ending}").read_bytes() == expected, ending
        assert (tmp_path / f"netcdf.{ending}").read_bytes() == expected, ending


REFUSED = {
    "jpg": (signal("image", "y x", noise("u1", 2, 2)), r"\.jpg files are read, and not written; write \.png"),
    "gif": (signal("image", "y x", noise("u1", 2, 2)), r"\.gif files are read, and not written; write \.png"),
    "mp3": (signal("sound", "time", noise("i2", 9)), r"\.mp3 files are read, and not written; write \.flac or \.wav"),
    "webm": (signal("image", "y x", noise("u1", 2, 2)), r"write \.mkv or \.mp4"),
    "xyz": (signal("a", "x", noise("u1", 2)), r"suffix '\.xyz' are not written; use one of .*\.flac, .*\.png"),
    "grib": (signal("a", "x", noise("u1", 2)), r"suffix '\.grib' are not written; use one of"),
    "": (signal("a", "x", noise("u1", 2)), r"files without a suffix are not written"),
    "png": (signal("image", "y x", noise("f4", 2, 2)), r"uint8 or uint16 and image is float32; write \.tif"),
    "PNG": (signal("image", "y x channel", noise("u1", 2, 2, 5)), r"hold grey, or red, green and blue; write \.tif"),
    "webp": (signal("image", "y x", noise("u1", 2, 2)), r"8-bit colours without a resolution; write \.png"),
    "tif": (signal("image", "x y", noise("u1", 2, 2)), r"image has the dimensions \(x, y\) and needs \(y, x\) or"),
    "tiff": (signal("volume", "y x z", noise("u1", 2, 2, 2)), r"needs some of t, z, channel before y, x"),
    "wav": (signal("sound", "time", noise("i2", 9)), r"set attribute sample_rate"),
    "flac": (
        signal("sound", "time", noise("f4", 9), sample_rate=1),
        r"hold integers and sound is float32; write \.wav",
    ),
    "aiff": (signal("sound", "time", noise("i2", 9), sample_rate=1, bits=8), r"values beyond its 8 bits"),
    "mp4": (signal("video", "frame y x channel", noise("u1", 2, 2, 2, 3)), r"set attribute frame_rate"),
    "mkv": (signal("video", "frame y x channel", noise("u1", 2, 2, 2, 1)), r"needs uint8, frames and 3 colours"),
    "nii": (signal("volume", "a b c", noise("u1", 2, 2, 2)), r"has the dimensions \(a, b, c\)"),
    "nrrd": (
        signal("occupancy", "z y x", noise("u1", 2, 2, 2)),
        r"hold the variable 'volume', and the data set has occ",
    ),
    "binvox": (signal("occupancy", "z y x", noise("u1", 2, 2, 2)), r"must be 0 or 1 everywhere"),
    "ply": (signal("triangles", "triangle corner axis", noise("f8", 2, 3, 2)), r"need 3 corners of 3 numbers"),
    "npy": (xr.Dataset({"a": ("x", [1]), "b": ("x", [2])}), r"holds one array, and the data set has a, b"),
    "npz": (xr.Dataset({"a": ("x", np.array(["b"], object))}), r"a is text or other objects"),
    "csv": (xr.Dataset({"a": (("x", "y"), [[1]])}), r"a has the dimensions \(x, y\), and tables have one, row"),
    "parquet": (xr.Dataset({"a": ("x", [1])}), r"a has the dimensions \(x\), and tables have one, row"),
    "las": (xr.Dataset({"X": ("point", [1])}), r"no attribute las_header"),
}


@pytest.mark.parametrize("ending", REFUSED)
def test_what_a_format_does_not_hold_is_refused_in_one_line(ending: str, tmp_path: Path) -> None:
    dataset, message = REFUSED[ending]
    path = tmp_path / f"a{'.' if ending else ''}{ending}"
    path.write_text("before")
    with pytest.raises(InputError, match=message) as caught:
        write_dataset(dataset, path)
    assert "\n" not in str(caught.value) and str(caught.value).startswith(str(path))
    assert [p.name for p in tmp_path.iterdir()] == [path.name] and path.read_text() == "before"


def test_arrays_of_numpy(tmp_path: Path) -> None:
    dataset = xr.Dataset({"file": (("a", "b"), noise("f4", 2, 3)), "b c": ("x", noise("i2", 4))})
    write_dataset(dataset, tmp_path / "a.npz")
    back = open_dataset(tmp_path / "a.npz")
    assert set(back) == set(dataset)
    for name in dataset:
        np.testing.assert_array_equal(back[name], dataset[name])
    write_dataset(dataset[["file"]], tmp_path / "deep" / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "deep" / "a.npy"), dataset["file"])
    with pytest.raises(InputError, match=r"memory://a\.npy: files are written to this machine only"):
        write_dataset(dataset, "memory://a.npy")


def test_a_package_that_is_missing_is_named(
    whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs = {
        "png": "PIL", "tif": "tifffile", "jp2": "imagecodecs", "wav": "soundfile", "mp4": "av", "nii": "nibabel",
        "nrrd": "nrrd", "ply": "trimesh", "parquet": "pyarrow", "las": "laspy",
    }  # fmt: skip
    data = {ending: open_dataset(whole[ending]).load() for ending in needs}
    imported = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.partition(".")[0] in {*needs.values(), "skimage"}:
            raise ImportError(f"No module named {name!r}")
        return imported(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for ending, package in needs.items():
        with pytest.raises(
            InputError, match=rf"whole\.{ending}: .*not installed.*{package}.*; pip install 'vcinr\[formats\]'"
        ):
            open_dataset(whole[ending])
    solid = signal("occupancy", "z y x", np.ones((2, 2, 2), "u1"))
    for dataset, ending in ((data["png"], "png"), (data["wav"], "wav"), (data["nii"], "nii"), (solid, "ply")):
        with pytest.raises(
            InputError, match=rf"a\.{ending}: .*write it is not installed.*; pip install 'vcinr\[formats\]'"
        ):
            write_dataset(dataset, tmp_path / f"a.{ending}")
    assert not list(tmp_path.iterdir())


def test_formats_load_their_packages_when_they_are_used() -> None:
    # Without pyarrow, which pandas loads.
    names = ["PIL", "tifffile", "imagecodecs", "soundfile", "av", "nibabel", "nrrd", "trimesh", "skimage", "laspy"]
    code = f"import sys, vcinr.formats.open, vcinr.formats.write; print([m for m in {names} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_format_states_what_it_writes() -> None:
    for form in formats.FORMATS:
        assert set(form.written) <= set(form.suffixes) and bool(form.written) == (form.write is not None), form.name
    endings = [ending for form in formats.FORMATS for ending in form.written]
    assert len(set(endings)) == len(endings)
