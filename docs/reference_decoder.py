"""Reference decoder of vcinr archives, written from `format.md` beside it and from nothing else.

    python reference_decoder.py ARCHIVE VARIABLE [OUT.npy]

It needs Python and NumPy alone, and shares no code with the package vcinr: whoever finds an archive and these two files
can read its arrays. The sections below have the names and the order of the page. It prefers to be clear rather than
fast. `read` returns the numbers as they are stored; scale_factor and add_offset are for the reader to apply.
"""

import argparse
import base64
import hashlib
import json
import math
import struct
import sys
import zipfile
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray
Rows = list[list]  # of numbers: a plane, or part of one

# Archive

DEFAULTS: dict[str, Any] = {
    "version": 1, "variable": "", "signal_axes": [], "axes": [], "model": None, "scaling": [0.0, 1.0], "fill": [],
    "limits": None, "feature_axis": None, "positions": None,
}  # fmt: skip
SHARDING = ("vcinr_sharding", "sharding_indexed")  # the same, byte for byte


def read(archive: str | Path, variable: str) -> Array:
    """The array `variable` (with its groups: "group/name") of an archive, a folder or a zip file."""
    files = Files(Path(archive))
    files.check_metadata()
    node = json.loads(files.read(f"{variable}/zarr.json"))
    if node.get("node_type") != "array":
        raise ValueError(f"{variable} is a group, not an array")
    if len(node["codecs"]) != 1 or node["codecs"][0]["name"] not in ("vcinr", *SHARDING):
        raise ValueError(f"{variable} has other codecs than vcinr: {[codec['name'] for codec in node['codecs']]}")
    codec = node["codecs"][0]
    dtype = np.dtype(node["data_type"]).newbyteorder("<")
    fill_value = parse_fill_value(node["fill_value"], dtype)
    shape, chunk_shape = node["shape"], node["chunk_grid"]["configuration"]["chunk_shape"]
    model, places = find_model(files, codec), find_positions(archive, variable, codec)
    whole = np.empty(shape, dtype)
    counts = [-(-s // c) for s, c in zip(shape, chunk_shape, strict=True)]
    sums = files.checksums(variable, math.prod(counts))
    for number, index in enumerate(product(*map(range, counts))):
        data = files.read(chunk_key(variable, node["chunk_key_encoding"], index), sums[number])
        region = tuple(slice(i * c, min((i + 1) * c, s)) for i, c, s in zip(index, chunk_shape, shape, strict=True))
        inside = tuple(r.stop - r.start for r in region)
        if codec["name"] in SHARDING:
            chunk = decode_shard(data, codec["configuration"], dtype, chunk_shape, inside, fill_value, model, places)
        else:
            chunk = decode_chunk(data, codec["configuration"], dtype, chunk_shape, fill_value, model, places)
        whole[region] = chunk[tuple(slice(length) for length in inside)]
    return whole


class Files:
    """The files of an archive by key; `read` compares those of which the manifest has a CRC-32 with it."""

    def __init__(self, path: Path):
        self.path = path
        self.zip = None if path.is_dir() else zipfile.ZipFile(path)
        self.sums: dict[str, int] = {}  # CRC-32 by key
        self.chunks: dict[str, list[int]] = {}  # CRC-32 of the chunks of a variable, in C order
        self.metadata_sha256, self.without = (
            "",
            "",
        )  # digest of all zarr.json, but those whose keys begin with `without`
        if "vcinr/manifest/zarr.json" in self.keys():  # the manifest of archives of before
            attributes = json.loads(self.read("vcinr/manifest/zarr.json"))["attributes"]
            self.sums, self.metadata_sha256 = attributes["files"], attributes["metadata_sha256"]
            self.without = "vcinr/manifest/zarr.json"
        elif "vcinr/zarr.json" in self.keys():
            attributes = json.loads(self.read("vcinr/zarr.json"))["attributes"]
            if "manifest" in attributes:
                self.parse_manifest(attributes["manifest"])

    def parse_manifest(self, manifest: dict[str, Any]) -> None:
        """The digest of the metadata and all CRC-32."""
        data = zlib.decompress(base64.b64decode(manifest["data"]))
        self.metadata_sha256, self.without, position = data[:32].hex(), "vcinr/", 40
        self.sums = manifest.get("files", {})
        for name, count, _ in manifest["arrays"]:
            self.chunks[name] = list(struct.unpack_from(f"<{count}I", data, position))
            position += 4 * count

    def checksums(self, variable: str, count: int) -> "list[int] | list[None]":
        """CRC-32 of each of the `count` chunks of a variable; None where the archive has no manifest, or not theirs."""
        if variable not in self.chunks:
            return [None] * count
        if len(self.chunks[variable]) != count:
            raise ValueError(f"the manifest is damaged: {variable} has {count} chunks")
        return self.chunks[variable]

    def keys(self) -> list[str]:
        """All keys."""
        if self.zip is not None:
            return self.zip.namelist()
        return [file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()]

    def read(self, key: str, crc32: "int | None" = None) -> bytes:
        """The bytes of one file, with this CRC-32."""
        try:
            data = (self.path / key).read_bytes() if self.zip is None else self.zip.read(key)
        except (FileNotFoundError, KeyError):
            raise ValueError(f"{key} is missing") from None
        except (zipfile.BadZipFile, zlib.error) as error:
            raise ValueError(f"{key}: {error}") from None
        expected = self.sums.get(key) if crc32 is None else crc32
        if expected is not None and zlib.crc32(data) != expected:
            raise ValueError(f"{key} is damaged: its checksum is not that of the manifest")
        return data

    def check_metadata(self) -> None:
        """Compare all zarr.json with metadata_sha256."""
        if not self.metadata_sha256:
            return
        text = ""
        for key in sorted(self.keys()):
            if key.split("/")[-1] == "zarr.json" and not key.startswith(self.without):
                node = json.loads(self.read(key))
                node.pop("consolidated_metadata", None)
                text += f"{key} {json.dumps(node, sort_keys=True, separators=(',', ':'))}\n"
        if hashlib.sha256(text.encode()).hexdigest() != self.metadata_sha256:
            raise ValueError("the archive's metadata is damaged: its SHA-256 is not that of the manifest")


def find_model(files: Files, codec: dict[str, Any]) -> "AnyModel | None":
    """The model that the codec `vcinr` (inside that of shards) names."""
    configuration = codec["configuration"]
    if codec["name"] in SHARDING:
        return find_model(files, configuration["codecs"][0])
    name = configuration.get("model")
    if name is None:
        return None
    data = files.read(f"vcinr/models/{name}/c/0")
    if hashlib.sha256(data).hexdigest() != name:
        raise ValueError(f"the model {name} is damaged: its SHA-256 is another")
    return Patches(data) if data[8:10] in (b"\2\0", b"\4\0") else Model(data)


def find_positions(archive: str | Path, variable: str, codec: dict[str, Any]) -> "Array | None":
    """The positions that the codec `vcinr` (inside that of shards) names, int64 [N, 3]."""
    configuration = codec["configuration"]
    if codec["name"] in SHARDING:
        return find_positions(archive, variable, configuration["codecs"][0])
    named = configuration.get("positions")
    if named is None:
        return None
    parts = variable.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        try:
            latitude, longitude = (
                read(archive, "/".join([*parts[:depth], named[key]])) for key in ("latitude", "longitude")
            )
        except ValueError:
            continue
        numbers = positions_of(latitude, longitude, named["unit"] == "radian")
        if hashlib.sha256(numbers.astype("<i4").tobytes()).hexdigest() == named["sha256"]:
            return numbers
    raise ValueError(f"the positions {named['latitude']} and {named['longitude']} are missing or damaged")


def chunk_key(variable: str, encoding: dict[str, Any], index: tuple[int, ...]) -> str:
    """The key of a chunk: "c", then its index."""
    if encoding["name"] != "default":
        raise ValueError(f"unknown chunk_key_encoding {encoding['name']!r}")
    separator = encoding.get("configuration", {}).get("separator", "/")
    return f"{variable}/" + separator.join(["c", *map(str, index)])


def parse_fill_value(value: Any, dtype: np.dtype) -> Array:
    """A fill value of zarr.json: a number, "NaN", "Infinity", "-Infinity", or "0x" and the bits of a float."""
    if isinstance(value, str) and value.startswith("0x"):
        return np.array(int(value, 16), f"<u{dtype.itemsize}").view(dtype)
    return np.array(float(value) if isinstance(value, str) else value, dtype)


def decode_shard(
    data: bytes,
    configuration: dict[str, Any],
    dtype: np.dtype,
    shape: list[int],
    inside: tuple[int, ...],
    fill_value: Array,
    model: "AnyModel | None",
    places: "Array | None" = None,
) -> Array:
    """A shard (sharding_indexed): chunks, and an index of their offsets and lengths; `inside` of it is in the array."""
    inner = configuration["chunk_shape"]
    grid = [s // c for s, c in zip(shape, inner, strict=True)]
    length = 16 * math.prod(grid) + 4
    index = data[:length] if configuration.get("index_location") == "start" else data[-length:]
    if len(index) != length or crc32c(index[:-4]) != int.from_bytes(index[-4:], "little"):
        raise ValueError("the index of a shard is damaged: its checksum does not match")
    shard = np.full(shape, fill_value, dtype)
    places = np.frombuffer(index, "<u8", 2 * math.prod(grid)).reshape(-1, 2).tolist()
    for position, (start, size) in zip(product(*map(range, grid)), places, strict=True):
        if any(i * c >= s for i, c, s in zip(position, inner, inside, strict=True)):
            continue
        if start == size == 2**64 - 1:
            raise ValueError(f"chunk {position} of a shard is missing")
        region = tuple(slice(i * c, (i + 1) * c) for i, c in zip(position, inner, strict=True))
        chunk = data[start : start + size]
        shard[region] = decode_chunk(
            chunk, configuration["codecs"][0]["configuration"], dtype, inner, fill_value, model, places
        )
    return shard


def crc32c(data: bytes) -> int:
    """CRC-32 with the polynomial of Castagnoli."""
    crc = 2**32 - 1
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ (2**32 - 1)


# Chunk

EXTENT, MASK, SPECIALS, PRIOR, CONSTANT, RESIDUAL, EXCEPTIONS, LOG = (1 << bit for bit in range(8))


def decode_chunk(
    data: bytes,
    configuration: dict[str, Any],
    dtype: np.dtype,
    chunk_shape: list[int],
    fill_value: Array,
    model: "AnyModel | None" = None,
    places: "Array | None" = None,
) -> Array:
    """The chunk that `data` holds, of `chunk_shape`, for the `configuration` of the codec in zarr.json."""
    dtype = np.dtype(dtype).newbyteorder("<")
    configuration = {**DEFAULTS, **configuration}
    if configuration["version"] != 1:
        raise ValueError(f"version {configuration['version']} of the codec vcinr is unknown to this decoder")
    if data[:2] != b"VC" or len(data) < 10:
        raise ValueError("this is no chunk of vcinr")
    version, mode, checksum, flags = struct.unpack_from("<BBIH", data, 2)
    if version != 1 or mode > 1 or flags > 255:
        raise ValueError(f"version {version}, mode {mode}, flags {flags} of a chunk is unknown to this decoder")
    signal_axes = resolve_signal_axes(configuration["signal_axes"], configuration["feature_axis"], len(chunk_shape))
    axes = [axis_values(axis) for axis in configuration["axes"]]
    context = checksum_context(configuration, signal_axes, axes, dtype, chunk_shape)
    if zlib.crc32(data[2:4] + data[8:], zlib.crc32(context)) != checksum:
        raise ValueError("a chunk is damaged, or its metadata is: the checksum does not match")

    sections, position = {}, 10
    for bit in range(8):
        if flags >> bit & 1:
            length, position = leb128(data, position)
            sections[1 << bit] = data[position : position + length]
            position += length
    stream = data[position:]

    extent, at = tuple(chunk_shape), 0
    if EXTENT in sections:
        lengths = []
        for _ in chunk_shape:
            length, at = leb128(sections[EXTENT], at)
            lengths.append(length)
        extent = tuple(lengths)
    if mode == 0:
        values = lossless(stream, dtype, extent)
    else:
        values = decode_signals(sections, stream, configuration, dtype, extent, signal_axes, axes, model, places)
    if EXCEPTIONS in sections:
        values = values.ravel()
        (count,) = struct.unpack_from("<Q", sections[EXCEPTIONS])
        inflated = zlib.decompress(sections[EXCEPTIONS][8:])
        gaps = np.frombuffer(inflated, "<i8", count)
        values[np.cumsum(gaps)] = np.frombuffer(inflated, dtype, count, offset=8 * count)
        values = values.reshape(extent)
    chunk = np.full(chunk_shape, fill_value, dtype)
    chunk[tuple(slice(length) for length in extent)] = values
    return chunk


def decode_signals(
    sections: dict[int, bytes],
    data: bytes,
    configuration: dict[str, Any],
    dtype: np.dtype,
    extent: tuple[int, ...],
    signal_axes: list[int],
    axes: list[Array],
    model: "AnyModel | None",
    places: "Array | None",
) -> Array:
    """The extent of a chunk of mode 1, before the exceptions."""
    # [n, *grid]: index axes flattened in their order, then the grid axes in the order of signal_axes. With a feature
    # axis [n, features, *grid].
    feature_axes = [] if configuration["feature_axis"] is None else [configuration["feature_axis"]]
    index_axes = [axis for axis in range(len(extent)) if axis not in feature_axes + signal_axes]
    order = index_axes + feature_axes + signal_axes
    transposed = tuple(extent[axis] for axis in order)
    index, features, grid = (tuple(extent[a] for a in axes) for axes in (index_axes, feature_axes, signal_axes))
    shape = (math.prod(index), *features, *grid)

    planes = planes_of(index + features, grid)
    mask = decode_mask(sections[MASK], shape) if MASK in sections else np.zeros(shape, bool)
    value = np.zeros(shape)
    if PRIOR in sections:
        if model is None:
            raise ValueError("a chunk was predicted by a model, and the array names none")
        (prior,) = sections[PRIOR]
        offset, scale = configuration["scaling"]
        if isinstance(model, Patches):
            output = decode_patches(data, model, prior, (shape[0], math.prod(features), *grid))
            value = offset + scale * output.astype(np.float32).astype(float).reshape(shape)
        else:
            output = decode_network(data, prior, model, configuration["variable"], axes, index, grid)
            value = offset + scale * output.swapaxes(1, 2).reshape(shape)
    if CONSTANT in sections:
        value = value + struct.unpack("<f", sections[CONSTANT])[0]
    if RESIDUAL in sections:
        value = value + decode_residual(sections[RESIDUAL], mask.reshape(planes), places).reshape(shape)
    if LOG in sections:
        kind = sections[LOG][:1]
        negative = decode_mask(sections[LOG][1:], shape) if kind == b"\2" else np.full(shape, kind == b"\1")
        value = np.where(negative, -1.0, 1.0) * exponential(value)
    values = to_dtype(within_limits(value, dtype, configuration["limits"]), dtype)
    if SPECIALS in sections:
        kind, rest = sections[SPECIALS][0], sections[SPECIALS][1:]
        values[mask] = np.frombuffer(rest, dtype)[0] if kind == 0 else lossless(rest, dtype, (int(mask.sum()),))
    return values.reshape(transposed).transpose(np.argsort(order).astype(int))


def exponential(x: Array) -> Array:
    """The exponential as the format defines it: one rounding after another, the same on every machine."""
    x = np.minimum(np.where(x > -1400.0, x, -1400.0), 1400.0)
    k = np.floor(x * 1.4426950408889634 + 0.5)
    r = (x - k * float.fromhex("0x1.62e42feep-1")) - k * float.fromhex("0x1.a39ef35793c76p-33")
    y = np.zeros(x.shape)
    for n in range(13, -1, -1):
        y = y * r + 1.0 / math.factorial(n)
    half = k.astype(int) >> 1
    with np.errstate(over="ignore"):
        return y * np.ldexp(1.0, half) * np.ldexp(1.0, k.astype(int) - half)


def planes_of(index: tuple[int, ...], grid: tuple[int, ...]) -> tuple[int, int, int, int]:
    """Times, levels, height and width, from the lengths of the index axes and those of the grid."""
    *before, levels, height, width = (1, 1, 1, 1, *index, *grid)
    times = math.prod(before)
    return (levels, times, height, width) if times == 1 else (times, levels, height, width)


def resolve_signal_axes(signal_axes: list[int], feature_axis: int | None, dimensions: int) -> list[int]:
    """The axes of a signal's grid: empty stands for the last two, or all there are, but that of the features."""
    return list(signal_axes) or [axis for axis in range(dimensions) if axis != feature_axis][-2:]


def axis_values(axis: dict[str, Any]) -> Array:
    """The coordinates of an axis."""
    if "values" in axis:
        return np.array(axis["values"], float)
    start, stop, num = axis["start"], axis["stop"], axis["num"]
    if num == 1:
        return np.array([float(start)])
    values = start + np.arange(num) * ((stop - start) / (num - 1))
    values[-1] = stop
    return values


def checksum_context(
    configuration: dict[str, Any], signal_axes: list[int], axes: list[Array], dtype: np.dtype, chunk_shape: list[int]
) -> bytes:
    """The JSON text that a chunk's checksum starts from: what the chunk means depends on it."""
    fill = [float(v).hex() if dtype.kind == "f" else str(int(v)) for v in configuration["fill"]]
    scaling = [float(v).hex() for v in configuration["scaling"]]
    values = [[v.hex() for v in axis.tolist()] for axis in axes]
    variable, model = configuration["variable"], configuration["model"]
    limits = configuration["limits"] and [float(v).hex() for v in configuration["limits"]]
    context = [variable, signal_axes, values, model, scaling, fill, limits, dtype.str, list(chunk_shape)]
    if configuration["feature_axis"] is not None:
        context.append(configuration["feature_axis"])
    if configuration["positions"] is not None:
        context.append({"positions": configuration["positions"]["sha256"]})
    return json.dumps(context, separators=(",", ":")).encode()


def leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, the lowest first, the highest bit of a byte set where more follow; and its end."""
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def lossless(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> Array:
    """Values of lossless coding: one or two and bits, numbers, coarse, or deflated, all first bytes first."""
    if data[:1] == b"\1":
        two = np.frombuffer(data[: 1 + 2 * dtype.itemsize], dtype, offset=1)
        return np.full(shape, two[0]) if len(two) < 2 else two[decode_bits(data[1 + two.nbytes :], shape).astype(int)]
    if data[:1] == b"\2":
        return decode_numbers(data[1:], shape, dtype)
    if data[:1] == b"\3":
        return decode_coarse(data[1:], dtype, shape)
    inflated = np.frombuffer(zlib.decompress(data), np.uint8).reshape(dtype.itemsize, -1)
    return np.frombuffer(inflated.T.tobytes(), dtype).copy().reshape(shape)


def decode_coarse(data: bytes, dtype: np.dtype, shape: tuple[int, ...]) -> Array:
    """Values of which each fills a block of a volume."""
    factor, position = leb128(data, 0)
    if factor < 2 or data[position : position + 1] == b"\3":
        raise ValueError("a factor of coarse values is below 2, or they are coarse again")
    longer = [n for n in shape if n != 1]
    items, lengths = math.prod(longer[:-3]), [1, 1, 1, *longer][-3:]
    coarse = lossless(data[position:], dtype, (items, *(-(-n // factor) for n in lengths)))
    z, y, x = (np.arange(n) // factor for n in lengths)
    return coarse[:, z[:, None, None], y[:, None], x].reshape(shape)


def decode_mask(data: bytes, shape: tuple[int, ...]) -> Array:
    """A mask over the signals: bits, or deflated, each signal's bits XOR those of the signal before."""
    if data[:1] == b"\1":
        return decode_bits(data[1:], shape)
    bits = np.unpackbits(np.frombuffer(zlib.decompress(data), np.uint8), count=math.prod(shape))
    return np.bitwise_xor.accumulate(bits.reshape(shape), axis=0).astype(bool)


def within_limits(value: Array, dtype: np.dtype, limits: list[str] | None) -> Array:
    """Clipped to the valid range: to the integers, or numbers of the dtype, that lie within it."""
    if limits is None:
        return value
    low, high = (float(v) for v in limits)
    if dtype.kind != "f":
        return np.clip(
            value, math.ceil(low) if math.isfinite(low) else low, math.floor(high) if math.isfinite(high) else high
        )
    with np.errstate(over="ignore"):
        near_low, near_high = dtype.type(low), dtype.type(high)
    inside_low = np.nextafter(near_low, dtype.type(np.inf)) if near_low < low else near_low
    inside_high = np.nextafter(near_high, dtype.type(-np.inf)) if near_high > high else near_high
    return np.clip(value, float(inside_low), float(inside_high))


def to_dtype(value: Array, dtype: np.dtype) -> Array:
    """Integers rounded to nearest even and clipped to their range, floats clipped to the largest finite value."""
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return np.clip(value, -largest, largest).astype(dtype)
    info = np.iinfo(dtype)
    rounded = np.rint(value)
    above, below = rounded >= float(info.max), rounded <= float(info.min)  # 2^63 - 1 is no float64
    values = np.where(above | below, 0, rounded).astype(dtype)
    values[above], values[below] = info.max, info.min
    return values


# Bitstreams


class Words:
    """What ANS and range decoder share: 32-bit words, a 64-bit state, 24-bit probabilities."""

    def __init__(self, data: bytes):
        if len(data) % 4:
            raise ValueError("a bitstream is not of whole words")
        self.words = np.frombuffer(data, "<u4").tolist()

    def entry(self, table: list[int]) -> int:
        """The next entry of a table, which is given by the left ends of its `intervals`."""
        raise NotImplementedError

    def symbols(self, frequencies: list[int], count: int) -> list[int]:
        """`count` entries of a table."""
        if len(frequencies) == 1:
            return [0] * count
        table = intervals(frequencies)
        return [self.entry(table) for _ in range(count)]

    def raw(self, count: int) -> list[int]:
        """`count` numbers of 32 raw bits: the lowest 16 bits of every number, then the highest 16."""
        low, high = ([self.entry(EQUAL) for _ in range(count)] for _ in range(2))
        return [a | b << 16 for a, b in zip(low, high, strict=True)]


class Bitstream(Words):
    """An ANS stack decoder: words are read from the end."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.state = 0
        self.refill()

    def refill(self) -> None:
        """While the state is below 2^32, a word enters it from below."""
        while self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def entry(self, table: list[int]) -> int:
        """The next entry of a table."""
        q = self.state & (2**24 - 1)
        entry = bisect_right(table, q) - 1
        self.state = (self.state >> 24) * (table[entry + 1] - table[entry]) + q - table[entry]
        self.refill()
        return entry


class Range(Words):
    """A range decoder: words are read from the start."""

    def __init__(self, data: bytes):
        super().__init__(data)
        self.words.reverse()
        self.code, self.range = self.next() << 32, 2**64 - 1
        self.code |= self.next()

    def next(self) -> int:
        """The next word, 0 beyond the end."""
        return self.words.pop() if self.words else 0

    def entry(self, table: list[int]) -> int:
        """The next entry of a table."""
        unit = self.range >> 24
        q = self.code // unit
        if q >= 2**24:
            raise ValueError("a bitstream is none of a range coder")
        entry = bisect_right(table, q) - 1
        self.code -= unit * table[entry]
        self.range = unit * (table[entry + 1] - table[entry])
        if self.range < 2**32:
            self.range, self.code = self.range << 32, self.code << 32 | self.next()
        return entry


class Huffman:
    """A decoder of canonical Huffman codes."""

    def __init__(self, data: bytes):
        self.bits, self.position = "".join(f"{byte:08b}" for byte in data), 0

    def symbols(self, frequencies: list[int], count: int) -> list[int]:
        """`count` entries of a table."""
        codes = huffman_codes(frequencies)
        found = []
        for _ in range(count):
            end = self.position
            while (code := self.bits[self.position : end]) not in codes:
                if end > len(self.bits):
                    raise ValueError("a bitstream ends too early")
                end += 1
            self.position = end
            found.append(codes[code])
        return found

    def raw(self, count: int) -> list[int]:
        """`count` numbers of 32 raw bits."""
        start, self.position = self.position, self.position + 32 * count
        return [int(self.bits[at : at + 32], 2) for at in range(start, self.position, 32)]


def huffman_codes(frequencies: list[int]) -> dict[str, int]:
    """The entry of each code, as text; one entry alone has the empty code."""
    nodes = [(weight, number, [number]) for number, weight in enumerate(frequencies)]
    lengths = [0] * len(frequencies)
    for number in range(len(frequencies), 2 * len(frequencies) - 1):
        nodes.sort(reverse=True)
        (a, _, left), (b, _, right) = nodes.pop(), nodes.pop()
        for entry in left + right:
            lengths[entry] += 1
        nodes.append((a + b, number, left + right))
    codes, code, before = {}, -1, 0
    for length, entry in sorted((length, entry) for entry, length in enumerate(lengths)):
        code = (code + 1) << (length - before)
        before = length
        codes[f"{code:0{length}b}" if length else ""] = entry
    return codes


def intervals(frequencies: list[int]) -> list[int]:
    """The left ends L_0, ..., L_(S-1) of a table's intervals, and L_S = 2^24."""
    entries, total, left = len(frequencies), 0, [0]
    for i, frequency in enumerate(frequencies, 1):
        total += frequency
        left.append((total * (2**24 - entries) >> 16) + i)
    return left


EQUAL = list(range(0, 2**24 + 1, 2**8))
STATIC = {0: Bitstream, 2: Range, 3: Huffman}

# Binary stream

UPPER = [min(round(2**16 / (1 + math.exp(-x / 256))), 65535) for x in range(3072)]
SQUASH = [2**16 - p for p in UPPER[:0:-1]] + UPPER  # of x at the place x + 3071
STRETCH = [bisect_left(SQUASH, q) - 3071 for q in range(2**16)]
SIGN = 20  # the node of an integer's sign
EDGES = [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 28, 37, 50, 67, 90, 120, 160, 220, 300, 400, 600, 900]
SCALE = [bisect_right(EDGES, v) for v in range(1024)]

Counter = tuple[int, int]  # P and n


def learn(counter: Counter, decision: int) -> Counter:
    """The counter after a decision."""
    p, n = counter
    return p + ((decision * 2**21 - p) * (655360 // (10 * n + 16)) >> 16), min(n + 1, 400)


class Binary:
    """A decoder of decisions and integers, with all that it learns from them.

    `contexts`: x_0, ..., x_5, set by the caller before each integer. `weights`: what they start at.
    """

    def __init__(self, data: bytes, weights: list[int]):
        self.data, self.taken = data, 4
        self.code, self.range = int.from_bytes(data[:4].ljust(4, b"\0"), "big"), 2**32 - 1
        self.singles: dict[int, Counter] = {}
        self.counters: list[list[dict[int, Counter]]] = [[{} for _ in range(6)] for _ in range(SIGN + 1)]  # node, input
        self.weights = [[weights.copy() for _ in range(SIGN + 1)] for _ in range(9)]  # by set, node, input
        self.contexts = [0] * 6

    def beside(self, weights: list[int]) -> "Binary":
        """A decoder of the same stream, which goes on where this one is, with counters and weights of its own."""
        other = Binary(b"", weights)
        other.decision = self.decision  # type: ignore[method-assign]
        return other

    def start(self, odds: Array, seen: Array, weight: Array) -> None:
        """Counters and weights as a model of patches has them."""
        for i, node, x in np.argwhere(seen).tolist():
            logit = max(-3071, min(3071, 24 * (int(odds[i, node, x]) - 128)))
            self.counters[node][i][x] = SQUASH[logit + 3071] << 5, int(seen[i, node, x])
        self.weights = [[weight[s + 9 * node].tolist() for node in range(SIGN + 1)] for s in range(9)]

    def decision(self, p: int) -> int:
        """A decision that is 1 with probability p / 2^16."""
        value = int(p >= 2**15)
        upper = (self.range >> 16) * (2**16 - p if value else p)
        lower = self.range - upper
        if self.code < lower:
            self.range = lower
        else:
            value, self.code, self.range = 1 - value, self.code - lower, upper
        self.refill()
        return value

    def refill(self) -> None:
        """While the range is below 2^24, take another byte."""
        while self.range < 2**24:
            byte = self.data[self.taken] if self.taken < len(self.data) else 0
            self.range, self.code, self.taken = self.range << 8, self.code << 8 | byte, self.taken + 1

    def check_end(self) -> None:
        """All of the stream has been taken, and at most 4 bytes beyond it."""
        if not self.taken - 4 <= len(self.data) <= self.taken:
            raise ValueError("a binary stream is damaged: it does not end where it should")

    def raw(self, width: int) -> int:
        """Raw bits, the highest first."""
        number = 0
        for _ in range(width):
            number = number << 1 | self.decision(2**15)
        return number

    def several(self, width: int) -> int:
        """Raw bits of width 8 at most, at once."""
        self.range >>= width
        number = min(self.code // self.range, 2**width - 1)
        self.code -= number * self.range
        self.refill()
        return number

    def single(self, context: int) -> int:
        """A single decision."""
        counter = self.singles.get(context, (2**17, 0))
        value = self.decision(min(max(counter[0] >> 5, 1), 65535))
        self.singles[context] = learn(counter, value)
        return value

    def mixed(self, node: int, weight_set: int) -> int:
        """A mixed decision."""
        tables, weights, contexts = self.counters[node], self.weights[weight_set][node], self.contexts
        first = (2**20 if node else 2**19, 0)
        counters = [table.get(x, first) for table, x in zip(tables, contexts, strict=True)]
        logits = [STRETCH[p >> 5] for p, _ in counters]
        x = sum(w * l for w, l in zip(weights, logits, strict=True)) >> 16  # noqa: E741
        p = SQUASH[min(max(x, -3071), 3071) + 3071]
        value = self.decision(p)
        error = 10 * (value * 2**16 - p)
        for i in range(6):
            weights[i] += (logits[i] * error + 2**19) >> 20
            tables[i][contexts[i]] = learn(counters[i], value)
        return value

    def integer(self, first: int, shift: int, weight_set: int) -> int:
        """An integer under the contexts set."""
        m = first
        while m < 20 and self.mixed(m, weight_set):
            m += 1
        if m == 20:
            k = 0
            while k < 50 and self.raw(1):
                k += 1
            m = 19 + 2**k + self.raw(k)
        m = (m << shift) + self.raw(shift)
        return -m if m and self.mixed(SIGN, weight_set) else m


def scale(v: int) -> int:
    """A size on a roughly logarithmic scale."""
    return SCALE[v] if v < 1024 else min(v.bit_length() + 12, 29)


def sign(v: int) -> int:
    """0, 1 or 2 for negative, zero or positive."""
    return (v > 0) - (v < 0) + 1


# Bits

NEAREST = [
    (0, 0, -1), (0, -1, 0), (-1, 0, 0), (0, -1, -1), (-1, 0, -1), (-1, -1, 0), (0, -1, 1), (-1, 0, 1), (-1, 1, 0),
    (0, 0, -2), (0, -2, 0), (-2, 0, 0), (-1, -1, -1), (-1, -1, 1), (-1, 1, -1), (-1, 1, 1), (0, -1, -2), (0, -1, 2),
    (-1, 0, -2), (-1, 0, 2), (-2, 0, 1), (-2, 1, 0), (-2, -1, 0), (-2, 0, -1), (-1, 2, 0), (-1, -2, 0), (0, 0, -3),
    (0, -2, 1), (0, -2, -1), (-3, 0, 0),
]  # fmt: skip
QUIET = [
    *product((-1,), range(-2, 3), range(-2, 3)), *product((0,), (-1, -2), range(-2, 3)),
    (-2, 0, 0), (-2, -1, 0), (-2, 1, 0), (-2, 0, -1), (-2, 0, 1), (0, 0, -1), (0, 0, -2), (0, 0, -3),
]  # fmt: skip


def decode_bits(data: bytes, shape: tuple[int, ...]) -> Array:
    """An array of bits."""
    longer = [n for n in shape if n != 1]
    depth, height, width = [1, 1, 1, *longer][-3:]
    count = math.prod(longer[:-3])
    if not math.prod(shape):
        return np.zeros(shape, bool)
    coder = Bits(Binary(data, []), count * depth * height * width)
    items = []
    before = Item(depth, height, width)
    for i in range(count):
        item, repeats, copies = Item(depth, height, width), 1, 0
        for z in range(depth):
            empty = int(not np.any(item.plane(z - 1)))
            repeats = coder.stream.single(16 + 2 * repeats + empty)
            if repeats:
                item.plane(z)[:] = item.plane(z - 1)
                continue
            if i:
                copies = coder.stream.single(20 + copies)
            if copies:
                item.plane(z)[:] = before.plane(z)
                continue
            for y in range(height):
                coder.row(item, before, z, y)
        items.append(item.voxels[3:-1, 2:-2, 3:-2] > 0)
        before = item
    coder.stream.check_end()
    return np.array(items).reshape(shape)


class Item:
    """Voxels of one item, with a border of zeros."""

    def __init__(self, depth: int, height: int, width: int):
        self.size = depth, height, width
        self.voxels = np.zeros((depth + 4, height + 4, width + 5), np.int64)

    def plane(self, z: int) -> Array:
        """A plane, with its border."""
        return self.voxels[z + 3]

    def at(self, z: int, y: int, x: int) -> int:
        """A voxel."""
        return int(self.voxels[z + 3, y + 2, x + 3])


def packed(bits: list[int]) -> int:
    """An integer, the first bit being its lowest."""
    return sum(bit << k for k, bit in enumerate(bits))


def cut_logit(x: int) -> int:
    """A logit within the table of squash."""
    return min(max(x, -3071), 3071)


class Bits:
    """A decoder of voxels, with all that it learns from them."""

    def __init__(self, stream: Binary, size: int):
        self.stream = stream
        self.hash_bits = min(max(size.bit_length() - 4, 10), 20)
        self.counters: list[dict[int, list[Counter]]] = [{} for _ in range(7)]  # by context, slot: first and second
        self.weights = [[6553] * 14 for _ in range(192)]
        self.final = [[2**15] * 2 for _ in range(8)]
        ends = [SQUASH[cut_logit(192 * (m - 16)) + 3071] << 6 for m in range(33)]
        self.maps = [ends.copy() for _ in range(1024)]

    def row(self, item: Item, before: Item, z: int, y: int) -> None:
        """The voxels of a row."""
        depth, height, width = item.size
        at, z_, y_ = item.at, depth - 1 - z, height - 1 - y
        like_p = like_r = like_m = unlike_p = unlike_r = 0
        for x in range(width):
            x_ = width - 1 - x
            mirrored = (
                1 + at(z, y, x_) if x > x_ else 0, 1 + at(z, y_, x) if y > y_ else 0, 1 + at(z_, y, x) if z > z_ else 0
            )  # fmt: skip
            known = packed([int(m > 0) for m in mirrored])
            west, row, plane = at(z, y, x - 1), at(z, y - 1, x), at(z - 1, y, x)
            if 2 - west not in mirrored and all(at(z + a, y + b, x + c) == west for a, b, c in QUIET):
                voxel = west ^ self.stream.single(2 * known + west)
            else:
                near = packed([at(z + a, y + b, x + c) for a, b, c in NEAREST])
                six = near & 7 | (near >> 6 & 7) << 3
                beside_x = packed([at(z, y, x_ - 1), at(z, y, x_ + 1)]) if x > x_ else 0
                beside_y = beside_z = 0
                if y > y_:
                    beside_y = packed([at(z, y_, x + 1), at(z, y_, x - 1), at(z, y_ - 1, x), at(z, y_ + 1, x)])
                if z > z_:
                    beside_z = packed([
                        at(z_, y, x + 1), at(z_, y, x - 1), at(z_, y + 1, x), at(z_, y - 1, x), at(z_ - 1, y, x),
                        at(z_ + 1, y, x),
                    ])  # fmt: skip
                old = before.at
                previous = packed([
                    old(z, y, x), old(z, y, x + 1), old(z, y + 1, x), old(z + 1, y, x), old(z, y, x - 1),
                    old(z, y - 1, x), old(z - 1, y, x),
                ])  # fmt: skip
                uneven = (row != at(z, y - 1, x_)) + (plane != at(z - 1, y, x_))
                uneven += 4 * (x > x_ + 1 and west != at(z, y, x_ + 1))
                diagonal = 0
                if depth == width:
                    diagonal += 1 + at(x, y, z) if x < z else 0
                    diagonal += 4 * (1 + at(x_, y, z)) + 16 * (1 + at(x_, y, z_)) if x_ < z else 0
                across = mirrored[0] + 4 * mirrored[1] + 16 * mirrored[2]
                contexts = [
                    near & 0xFFFF,
                    near,
                    (near & 63) + (across << 6) + (uneven << 12) + (beside_x << 15),
                    six + (previous << 6),
                    six + (across << 6) + (diagonal << 12),
                    six + (min(like_p, 15) << 6) + (min(like_r, 15) << 10) + (min(like_m, 7) << 14)
                    + (mirrored[0] << 17) + (min(unlike_p, 2) << 19) + (min(unlike_r, 2) << 21),
                    (near & 0xFFFF) + (mirrored[2] << 16) + (beside_z << 18) + (mirrored[1] << 24) + (beside_y << 26),
                ]  # fmt: skip
                voxel = self.mixed(contexts, near, known)
            item.voxels[z + 3, y + 2, x + 3] = voxel
            like_p = like_p + 1 if voxel == plane else 0
            like_r = like_r + 1 if voxel == row else 0
            if x > x_:
                like_m = like_m + 1 if voxel == mirrored[0] - 1 else 0
            unlike_p += voxel != plane
            unlike_r += voxel != row

    def mixed(self, contexts: list[int], near: int, known: int) -> int:
        """A voxel mixed from its contexts."""
        pairs = []
        for table, c in zip(self.counters, contexts, strict=True):
            slot = (c * 2654435761 % 2**32) >> (32 - self.hash_bits)
            pairs.append(table.setdefault(slot, [(2**20, 0), (2**20, 0)]))
        logits = [STRETCH[p >> 5] for pair in pairs for p, _ in pair]
        chosen = [self.weights[known + 8 * min(pairs[1][0][1], 15)], self.weights[128 + (near & 63)]]
        results = [
            cut_logit(sum(w * l for w, l in zip(weights, logits, strict=True)) >> 16)  # noqa: E741
            for weights in chosen
        ]
        final = self.final[near & 7]
        x = cut_logit((final[0] * results[0] + final[1] * results[1]) >> 16)
        p_0 = SQUASH[x + 3071]
        table = self.maps[near & 1023]
        m, f = divmod(x + 3072, 192)
        p_1 = (table[m] * (192 - f) + table[m + 1] * f) // 192 >> 6
        voxel = self.stream.decision(min(max((p_0 + p_1) >> 1, 1), 65535))

        end = m + (f >= 96)
        table[end] += (2**22 * voxel - table[end]) >> 6
        for j, (weights, result) in enumerate(zip(chosen, results, strict=True)):
            final[j] += (result * (2**16 * voxel - p_0) + 2**19) >> 20
            error = 24 * (2**16 * voxel - SQUASH[result + 3071])
            for k in range(14):
                weights[k] += (logits[k] * error + 2**19) >> 20
        for pair in pairs:
            p, n = learn(pair[1], voxel)
            pair[:] = [learn(pair[0], voxel), (p, min(n, 4))]
        return voxel


# Numbers


def decode_numbers(data: bytes, shape: tuple[int, ...], dtype: np.dtype) -> Array:
    """An array of numbers; `dtype` is little-endian."""
    longer, form = [n for n in shape if n != 1], data[0]
    height, width = [1, 1, *longer][-2:]
    size, b = (math.prod(longer[:-2]), height, width), 8 * dtype.itemsize
    if form == 0:
        integers = decode_integers(data[1:], size, b)
    elif form == 3:
        count, start = leb128(data, 1)
        length, start = leb128(data, start)
        entries = decode_integers(data[start : start + length], (1, 1, count), b)
        integers = [entries[i] for i in decode_indices(data[start + length :], size, count)]
    else:
        if dtype.kind != "f" or form not in (1, 2):
            raise ValueError("numbers have an unknown form")
        if form == 1:
            first, start = leb128(data, 1)
            second, start = leb128(data, start)
        else:
            (first, second), start = struct.unpack("<dd", data[1:17]), 17
        length, start = leb128(data, start)
        k = np.array(decode_integers(data[start : start + length], size, 64), np.int64)
        with np.errstate(over="ignore"):
            floats = k * float(first) / float(second) if form == 1 else first + k * second
            floats = floats.astype(dtype)
        integers = [integer_of(v, b) for v in floats.view(f"<i{dtype.itemsize}").tolist()]
        if data[start + length :]:
            corrections = decode_numbers(data[start + length :], shape, np.dtype(f"<i{dtype.itemsize}"))
            half = 2 ** (b // 2 - 1)
            for i, e in enumerate(corrections.ravel().tolist()):
                integers[i] = integers[i] + e if -half <= e < half else e
    if dtype.kind == "f":
        integers = [integer_of(wrapped(v, b), b) for v in integers]
    return np.array([v % 2**b for v in integers], f"<u{dtype.itemsize}").view(dtype).reshape(shape)


def wrapped(v: int, bits: int) -> int:
    """An integer modulo 2^bits, as a two's complement integer of so many bits."""
    v %= 2**bits
    return v - 2**bits if v >= 2 ** (bits - 1) else v


def integer_of(v: int, bits: int) -> int:
    """The integer of a float of these bits, and the bits of a float of this integer."""
    return v if v >= 0 else v ^ (2 ** (bits - 1) - 1)


def decode_integers(data: bytes, size: tuple[int, int, int], bits: int) -> list[int]:
    """Integers [P, H, W] of that width, flattened."""
    planes, height, width = size
    orders, plane = data[0], height * width
    d = decode_differences(data[1:], size)
    for o, distance, length in ((orders >> 4, plane, planes), (orders >> 2 & 3, width, height), (orders & 3, 1, width)):
        for i in range(o, 0, -1):
            for at in range(len(d)):
                if at // distance % length >= i:
                    d[at] += d[at - distance]
    return [wrapped(v, bits) for v in d]


def decode_differences(data: bytes, size: tuple[int, int, int]) -> list[int]:
    """Differences [P, H, W], flattened."""
    planes, height, width = size
    stream = Binary(data, [19660] * 6)
    signs = stream.beside([19660] * 6)
    signs.counters[0] = signs.counters[1]  # they start at P = 2^20
    d: list[int] = []
    s: list[int] = []

    def near(u: int, v: int) -> int:
        return min(max(u - v, -3), 3) + 3

    for z, y, x in product(range(planes), range(height), range(width)):
        at = len(d)
        there = [x > 0, x > 1, y > 0, y > 0 and x > 0, y > 0 and x < width - 1, z > 0]
        places = [at - 1, at - 2, at - width, at - width - 1, at - width + 1, at - height * width]
        l, l2, a, al, ar, e = (  # noqa: E741
            min(max(d[i], -4), 4) + 4 if known else 0 for i, known in zip(places, there, strict=True)
        )
        s_l, s_l2, s_a, _, s_r, s_e = (s[i] if known else 0 for i, known in zip(places, there, strict=True))
        if x == 1:
            s_l2 = s_l
        if y and x == width - 1:
            s_r = s_a
        if x == 0:
            s_l, s_l2 = s_a, s_r
        if y == 0:
            s_a, s_r = s_l, s_l2
        likely = (3 * s_l + 3 * s_a + s_l2 + s_r + 4) >> 3
        if z:
            likely = (3 * likely + s_e + 2) >> 2
        else:
            s_e = likely
        stream.contexts = [
            49 * likely + 7 * near(s_l, likely) + near(s_a, likely),
            49 * likely + 7 * near(s_l2, likely) + near(s_r, likely),
            81 * l + 9 * a + al,
            49 * likely + 7 * near(s_e, likely) + near(s_l, likely),
            81 * l + 9 * l2 + a,
            81 * e + 9 * ar + l,
        ]
        bits = min(max(likely + stream.integer(0, 0, 0), 0), 64)
        value = -(2**63) if bits == 64 else 0
        if 0 < bits < 64:
            c = min(bits, 3) - 1
            signs.contexts = [
                3 * (81 * l + 9 * a + al) + c, 3 * (81 * l + 9 * l2 + a) + c, 3 * (81 * a + 9 * ar + al) + c,
                3 * (81 * e + 9 * l + a) + c, 65 * (l + a - al + 8) + bits, 3 * l + c,
            ]  # fmt: skip
            negative, value = signs.mixed(1, c), 1
            for _ in range(2):
                if value.bit_length() < bits:
                    value = 2 * value + stream.single(4 * (8 * bits + near(likely, bits)) + value)
            rest = bits - value.bit_length()
            while rest:
                count = min(rest, 8)
                value, rest = (value << count) + stream.several(count), rest - count
            value = -value if negative else value
        d.append(value)
        s.append(bits)
    stream.check_end()
    return d


def decode_indices(data: bytes, size: tuple[int, int, int], count: int) -> list[int]:
    """Indices below `count`, [P, H, W] flattened."""
    planes, height, width = size
    n, depth = planes * height * width, (count - 1).bit_length()
    hash_bits = max(min(n.bit_length() + 3, 20), depth)
    above = width if height > 1 else 3
    distances = 1, 2, above, height * width if planes > 1 else above + 1
    coders = [Binary(data, [19660] * 6)]
    coders += [coders[0].beside([19660] * 6) for _ in range(depth - 1)]  # for each place, weights of its own
    for coder in coders:
        coder.counters = coders[0].counters
    indices: list[int] = []

    def slot(v: int) -> int:
        return ((v % 2**32 * 1481765933 + t) % 2**31 * 2654435761 % 2**32) >> (32 - hash_bits)

    for i in range(n if depth else 0):
        i_1, i_2, i_3, i_4 = (1 + indices[i - back] if i >= back else 0 for back in distances)
        t = 1
        for k in range(depth - 1, -1, -1):
            pair, cross = i_1 * 789269575 + i_2, i_1 * 789269575 + i_3
            coders[k].contexts = [t, slot(i_1), slot(pair), slot(i_3), slot(cross), slot(i_4)]
            t = 2 * t + coders[k].mixed(1, 0)  # node 1: counters start at P = 2^20
        indices.append(t - 2**depth)
    coders[0].check_end()
    return indices or [0] * n


# Latents


def decode_latents(data: bytes, coder: int, model: "Model", rate: int, n: int, planes: tuple[int, ...]) -> Array:
    """The quantised latents of n signals, [n, d]."""
    level, offset = model.tensors["quantiser/level"], model.tensors["quantiser/offset"]
    if coder > 4 or (coder == 4 and "quantiser/hyper.level" not in model.tensors) or rate >= len(offset):
        raise ValueError(f"coder {coder} of latents, rate {rate}: unknown to this decoder or the model")
    if coder == 4:
        return hyperprior_latents(data, model, rate, n)
    rows = [frequencies(row) for row in level[rate].tolist()]
    tables = rows * (offset.shape[1] // len(rows)), offset[rate].tolist()
    latents = (
        adaptive_latents(data, *tables, *planes) if coder == 1 else static_latents(STATIC[coder](data), *tables, n)
    )
    return np.array(latents, np.int64).reshape(n, -1)


def frequencies(levels: list[int]) -> list[int]:
    """A table of frequencies from its levels, both padded with zeros."""
    weights = [math.isqrt(math.isqrt(1 << (level + 15))) if level else 0 for level in levels]
    entries, total = sum(1 for level in levels if level), sum(weights)
    found = [1 + weight * (2**16 - entries) // total if weight else 0 for weight in weights]
    found[weights.index(max(weights))] += 2**16 - sum(found)
    return found


def static_latents(stream: Words | Huffman, frequency: Rows, offset: list[int], n: int) -> Array:
    """Each dimension's symbols, then its escapes."""
    latents = np.zeros((n, len(offset)), np.int64)
    for i, (row, start) in enumerate(zip(frequency, offset, strict=True)):
        latents[:, i] = values_of(stream, row, start, n)
    return latents


def values_of(stream: Words | Huffman, row: list[int], start: int, n: int) -> Array:
    """n values of one table, padded with zeros: symbols, then what the escapes stand for."""
    symbols = np.array(stream.symbols([f for f in row if f], n), np.int64)
    values, escape = start + symbols - 1, symbols == 0
    values[escape] = np.array(stream.raw(int(escape.sum())), np.int64) - 2**31
    return values


def hyperprior_latents(data: bytes, model: "Model", rate: int, n: int) -> Array:
    """Side information, and the latents under the tables that it chooses."""
    level, centre, scale, weight = (
        model.tensors[f"quantiser/hyper.{name}"].astype(np.int64) for name in ("level", "centre", "scale", "weight")
    )
    stream, r = Bitstream(data), weight.shape[1]

    def read(index: Array, centres: Array) -> Array:
        values = np.zeros(index.shape, np.int64)
        for k in sorted(set(index.ravel().tolist())):
            row = frequencies(level[k].tolist())
            entries = sum(1 for f in row if f)
            values[index == k] = values_of(stream, row, 1 - entries // 2, int((index == k).sum()))
        return values + centres

    def scales(numbers: Array) -> Array:
        return np.clip(numbers >> 8, 0, len(level) - 1)

    side = read(scales(np.repeat(scale[rate : rate + 1, :r], n, 0)), centre[rate, :r])
    return read(scales(scale[rate, r:] + side @ weight.T), centre[rate, r:])


def adaptive_latents(data: bytes, frequency: Rows, offset: list[int], times: int, levels: int) -> list[Rows]:
    """Signal by signal, each dimension as its difference from a guess; [times, levels, d]."""
    d = len(offset)
    head = (d.bit_length() + 7) // 8
    used = int.from_bytes(data[:head], "little")
    if used > d:
        raise ValueError(f"{used} latents, the model has {d}")
    if used == 0:
        return [[[0] * d for _ in range(levels)] for _ in range(times)]
    stream = Binary(data[head:], [21845] * 3 + [3276] * 3)
    tables = zip(frequency[:used], offset[:used], strict=True)
    sizes = [prime(stream, k, row[1:], start) for k, (row, start) in enumerate(tables)]
    pasts = [[Past(size) for size in sizes] for _ in range(levels)]
    latents = [[decode_signal(stream, past, t) + [0] * (d - used) for past in pasts] for t in range(times)]
    stream.check_end()
    return latents


def prime(stream: Binary, k: int, frequency: list[int], offset: int) -> int:
    """The counters that know dimension k start from its table; returns the usual size that it expects."""
    sizes = [abs(offset + s) for s in range(len(frequency))]
    total = 1 + sum(frequency)
    usual = 16 * (sum(f * size for f, size in zip(frequency, sizes, strict=True)) // total)
    h = latent_shift(usual)
    for node in range(SIGN + 1):
        if node == SIGN:
            all_of = sum(f for f, size in zip(frequency, sizes, strict=True) if size)
            ones = sum(f for s, f in enumerate(frequency) if offset + s < 0)
        else:
            all_of = sum(f for f, size in zip(frequency, sizes, strict=True) if size >> h >= node)
            ones = sum(f for f, size in zip(frequency, sizes, strict=True) if size >> h > node)
        p = min(max((2 * ones + 1) * 2**21 // (2 * all_of + 2), 32), 2**21 - 32)
        stream.counters[node][0][k] = p, 12
        for context in range(3 * k, 3 * k + 3):
            stream.counters[node][1][context] = stream.counters[node][2][context] = p, 12
    return usual


def latent_shift(usual: int) -> int:
    """Raw bits of integers of a usual size."""
    return next(h for h in range(64) if usual >> (4 + h) <= 5)


class Past:
    """What is known of one level and dimension."""

    def __init__(self, usual: int) -> None:
        self.usual = usual
        self.before = self.mean = self.last = 0
        self.missed = [0, 0, 0]

    def guess(self) -> int:
        """The prediction that has missed by least, if by clearly less than none."""
        guess, nearest = 0, 3 * self.missed[0] >> 2
        if self.missed[1] < nearest:
            guess, nearest = self.before, self.missed[1]
        return (self.mean + 128) >> 8 if self.missed[2] < nearest else guess

    def add(self, value: int, difference: int, t: int) -> None:
        """A value, and its difference from the guess."""
        for i, g in enumerate((0, self.before, (self.mean + 128) >> 8)):
            self.missed[i] += 16 * abs(value - g) - (self.missed[i] >> 4)
        self.mean += (2**8 * value - self.mean) // min(t + 1, 16)
        self.usual += (16 * abs(difference) - self.usual) >> 2
        self.last, self.before = difference, value


def decode_signal(stream: Binary, pasts: list[Past], t: int) -> list[int]:
    """The integers of one signal."""
    values = []
    nonzero = one = two = 0
    for k, past in enumerate(pasts):
        last, usual, guess = abs(past.last), past.usual, past.guess()
        stream.contexts = [
            k,
            3 * k + min(last, 2),
            3 * k + min(one + two, 2),
            min(usual >> 2, 60),
            16 * min(usual >> 4, 15) + min(nonzero, 15),
            8 * min(one + two, 7) + min(last, 7),
        ]
        difference = stream.integer(0, latent_shift(usual), min(one + two, 2))
        past.add(guess + difference, difference, t)
        values.append(guess + difference)
        one, two = abs(difference), one
        nonzero += difference != 0
    return values


# Residual


def decode_residual(section: bytes, mask: Array, places: "Array | None") -> Array:
    """The residual of the planes [T, C, H, W]; `places` are the positions of their points, if the array has any."""
    step, plan = struct.unpack_from("<dB", section)
    if section[8:10] == b"\3\3" and 0 < step < math.inf:
        if places is None:
            raise ValueError("a chunk needs positions, and the array names none")
        return decode_nearest(section[10:], step, mask, places)
    if (plan > 127 and plan & 3 != 1) or plan & 3 > 2 or (plan & 2 and plan != 2) or not 0 < step < math.inf:
        raise ValueError(f"step {step}, plan {plan} of a residual is unknown to this decoder")
    if plan & 3 == 2:
        return decode_interpolated(section[9:], step, mask.shape)
    stream = Binary(section[9:], [19660] * 6)
    walk = Adaptive(stream, step, plan >> 3 & 15, bool(plan & 128)) if plan & 3 else Plain(stream, step)
    times, levels, height, width = mask.shape
    blank = [[0.0] * width for _ in range(height)]
    nothing = Plane(blank, [[0] * width for _ in range(height)])
    planes: list[list[Plane]] = []
    activity = np.zeros(mask.shape[1:], np.int64)
    mean = np.zeros(mask.shape[1:])
    for t in range(times):
        planes.append([])
        late = bool(plan & 4) and t > 0
        for c in range(levels):
            around = Around(
                planes[t - 1][c] if late else nothing,
                mean[c].tolist() if late else blank,
                planes[t][c - 1] if c else nothing,
                planes[t - 1][c - 1] if late and c else nothing,
                [[scale(a >> 2) for a in row] for row in activity[c].tolist()],
                late,
                20 if c else 18 if late else 16,
            )
            plane = walk.decode((~mask[t, c]).tolist(), around)
            planes[t].append(plane)
            mean[c] += (np.array(plane.values) - mean[c]) / (t + 1)
            size = 64 * np.abs(np.array(plane.codes, np.int64))
            activity[c] = activity[c] + ((size - activity[c]) >> (3 if t > 7 else 2)) if t else size
    stream.check_end()
    return np.array([[plane.values for plane in level] for level in planes])


class Plane(NamedTuple):
    """Values, and codes cut to -4095 ... 4095, by row and column."""

    values: Rows
    codes: Rows


class Around(NamedTuple):
    """What is known before a plane is decoded: `late` with planes of earlier times, `used` features of a point."""

    earlier: Plane
    mean: Rows
    below: Plane
    before_below: Plane
    active: Rows
    late: bool
    used: int


def residual_shift(v: int) -> int:
    """Raw bits of a code whose neighbours have this size."""
    return next(h for h in range(64) if v >> (3 + h) <= 6)


def cut(code: int) -> int:
    """A code as everything but its own value takes it."""
    return min(max(code, -4095), 4095)


class Plain:
    """The walk in raster order; nothing is predicted."""

    def __init__(self, stream: Binary, step: float):
        self.stream, self.step = stream, step

    def decode(self, there: Rows, around: Around) -> Plane:
        """The next plane."""
        height, width = len(there), len(there[0])
        plane = Plane([[0.0] * width for _ in range(height)], [[0] * width for _ in range(height)])
        # With a border of zeros, (i, j) is at (i + 2, j + 2).
        codes, then, under = (bordered(p.codes) for p in (plane, around.earlier, around.below))
        for i in range(height):
            sizes = [
                min(abs(codes[i + 1][j]), 2) + min(abs(then[i + 2][j]), 2) + min(abs(under[i + 2][j]), 2)
                for j in range(2, width + 2)
            ]
            if not self.stream.single(4095 - scale(sum(sizes))):
                continue
            for j in range(width):
                if there[i][j]:
                    code = self.code(codes, then, under, around.active[i][j], i + 2, j + 2)
                    plane.values[i][j] = code * self.step
                    plane.codes[i][j] = codes[i + 2][j + 2] = cut(code)
        return plane

    def code(self, codes: Rows, codes_t: Rows, codes_c: Rows, active: int, i: int, j: int) -> int:
        """The code of one point."""
        west, north = codes[i][j - 1], codes[i - 1][j]
        near = abs(west) + abs(north)
        side = abs(codes[i - 1][j - 1]) + abs(codes[i - 1][j + 1]) + abs(codes[i][j - 2]) + abs(codes[i - 2][j])
        about = abs(codes_t[i][j - 1]) + abs(codes_t[i][j + 1]) + abs(codes_t[i - 1][j])
        then, under = abs(codes_t[i][j]), abs(codes_c[i][j])
        local, first = 2 * near + side, 0
        if local + then + under == 0:
            first = self.stream.single(10 * active + min(scale(about), 9))
            if not first:
                return 0
        largest = scale(max(abs(west), abs(north)))
        self.stream.contexts = [
            30 * scale(near) + scale(side),
            3 * scale(local + 3 * then + 3 * under) + min(abs(west), 2),
            30 * active + scale(local),
            6 * (6 * scale(then) + min(under, 5)) + min(scale(near), 5),
            30 * scale(about + then) + scale(near),
            3 * (30 * (3 * sign(west) + sign(north)) + largest) + min(under, 2),
        ]
        return self.stream.integer(first, residual_shift(local), min(scale(local) // 3, 8))


def bordered(codes: Rows) -> Rows:
    """Two rows of zeros before, two columns before and after."""
    width = len(codes[0]) + 4
    return [[0] * width, [0] * width, *([0, 0, *row, 0, 0] for row in codes)]


NEAR = [[(-1, -1), (-1, 1), (1, -1), (1, 1)], [(-1, 0), (1, 0), (0, -1), (0, 1)]]  # of centres, of midpoints
BEFORE = [[(0, -2), (-2, 0), (-2, -2), (-2, 2)], [(0, -2), (-2, 0), (-1, -1), (-1, 1)]]
FAR = [
    [[(-3, -1)], [(-3, 1)], [(3, -1)], [(3, 1)], [(-1, -3)], [(1, -3)], [(-1, 3)], [(1, 3)]],
    [
        *([(-3, 0)], [(3, 0)], [(0, -3)], [(0, 3)]),
        *([(-2, -1), (-2, 1)], [(2, -1), (2, 1)], [(-1, -2), (1, -2)], [(-1, 2), (1, 2)]),
    ],
]
FIRST = 8  # the kind of point (0, 0)


class Adaptive:
    """The walk that refines a plane from one point, with a problem for each kind of points."""

    def __init__(self, stream: Binary, step: float, tighten: int, brief: bool):
        self.stream, self.problems = stream, [Problem(step, brief) for _ in range(FIRST)]
        factors = [1.0]
        for _ in range(64):
            factors.append(min(factors[-1] * (1 + tighten / 8), 4.0))
        self.sizes = [step / factor for factor in factors]

    def decode(self, there: Rows, around: Around) -> Plane:
        """The next plane."""
        height, width = len(there), len(there[0])
        plane = Plane([[0.0] * width for _ in range(height)], [[0] * width for _ in range(height)])
        for level, s, kind, i, j in points(height, width):
            base = around.mean[0][0] if around.late else around.below.values[0][0]
            near, before, features = 0, 0, [0.0]
            if kind != FIRST:
                base, near, before, features = look(plane, around, kind & 1, s, i, j)
            prediction, local, code = base, 2 * before + near, 0
            if there[i][j]:
                if kind != FIRST:
                    for w, f in zip(self.problems[kind].weights, features, strict=False):
                        prediction += w * f
                code = self.code(plane, around, kind, s, i, j, near, before)
            plane.values[i][j] = prediction + code * self.sizes[level]
            plane.codes[i][j] = cut(code)
            if there[i][j] and kind != FIRST:
                trust = 1 / (1 + 0.04 * local * local)
                self.problems[kind].add(features, plane.values[i][j] - base, trust)
        return plane

    def code(self, plane: Plane, around: Around, kind: int, s: int, i: int, j: int, near: int, before: int) -> int:
        """The code of one point."""
        then, under = abs(around.earlier.codes[i][j]), abs(around.below.codes[i][j])
        west = sign(plane.codes[i][j - 2 * s]) if j >= 2 * s else 1
        north = sign(plane.codes[i - 2 * s][j]) if i >= 2 * s else 1
        return predicted_code(self.stream, kind, near, before, west, north, then, under, around.active[i][j])


def predicted_code(
    stream: Binary, kind: int, near: int, before: int, west: int, north: int, then: int, under: int, active: int
) -> int:
    """The code of a point that has been predicted."""
    local, first = 2 * before + near, 0
    if local + then + under == 0:
        first = stream.single(3 * (3 * (30 * kind + active) + west) + north)
        if not first:
            return 0
    stream.contexts = [
        22 * (20 * kind + min(scale(near), 19)) + min(scale(before), 21),
        30 * kind + scale(local + 4 * then + 4 * under),
        4 * (30 * kind + active) + min(before, 3),
        6 * (6 * (6 * kind + min(then, 5)) + min(under, 5)) + min(scale(before), 5),
        4 * (30 * kind + scale(16 * then + 16 * under)) + min(scale(before) >> 1, 3),
        30 * (3 * (3 * kind + west) + north) + scale(near + before),
    ]
    return stream.integer(first, residual_shift(local), kind)


def points(height: int, width: int) -> Iterator[tuple[int, int, int, int, int]]:
    """Level, stride, kind, row and column of every point of a plane, in the order of decoding."""
    top = (max(height, width) - 1).bit_length()
    yield top, 2**top, FIRST, 0, 0
    for level in range(top - 1, -1, -1):
        s, kind = 2**level, 2 * min(level, 3)
        for i in range(s, height, 2 * s):
            for j in range(s, width, 2 * s):
                yield level, s, kind, i, j
        for i in range(0, height, s):
            for j in range(0 if i // s % 2 else s, width, 2 * s):
                yield level, s, kind + 1, i, j


def look(plane: Plane, around: Around, half: int, s: int, i: int, j: int) -> tuple[float, int, int, list[float]]:
    """base, near, before and the used features of a centre (half 0) or midpoint (half 1)."""
    values, codes = plane
    height, width = len(values), len(values[0])
    others = around.earlier.values, around.mean, around.below.values, around.before_below.values
    inside = [
        (y, x) if 0 <= (y := i + a * s) < height and 0 <= (x := j + b * s) < width else None for a, b in NEAR[half]
    ]
    found = [place for place in inside if place]
    base = total(values, found) / len(found)
    features = [values[place[0]][place[1]] - base if place else 0.0 for place in inside]
    near = 4 * sum(abs(codes[y][x]) for y, x in found) // len(found)
    before = 0
    for a, b in BEFORE[half]:
        y, x = i + a * s, j + b * s
        there = y >= 0 and 0 <= x < width
        features.append(values[y][x] - base if there else 0.0)
        before += abs(codes[y][x]) if there else near >> 2
    for places in FAR[half]:
        feature = 0.0
        for a, b in places:
            y, x = i + a * s, j + b * s
            if 0 <= y < height and 0 <= x < width:
                feature += values[y][x] - base
        features.append(feature)
    for other in others[: around.used - 16]:
        features.append(other[i][j] - total(other, found) / len(found))
    return base, near, before, features


def total(values: Rows, places: list[tuple[int, int]]) -> float:
    """The sum of values, one by one: that of Python 3.12 and later rounds otherwise."""
    result = 0.0
    for y, x in places:
        result += values[y][x]
    return result


class Problem:
    """A least-squares problem: the weights of features that have predicted best."""

    def __init__(self, step: float, brief: bool):
        self.step, self.seen, self.due, self.forget = step, 0, 64, 512 if brief else 4096
        self.a, self.b, self.weights = np.zeros((20, 20)), np.zeros(20), [0.0] * 20

    def add(self, features: list[float], y: float, trust: float) -> None:
        """An equation; from time to time the solution."""
        used, f = len(features), np.array(features)
        g = f * trust
        self.b[:used] += g * y
        self.a[:used, :used] += g[:, None] * f
        self.seen += 1
        if self.seen < self.due:
            return
        a, b = self.a.tolist(), self.b.tolist()
        trace = 0.0
        for p in range(used):
            trace += a[p][p]
        solution = solve(a, b, 0.1 * self.step * self.step + 1e-5 * trace / used, used)
        if solution is not None:
            self.weights[:used] = solution
        if self.seen > self.forget:
            self.b[:used] *= 0.5
            self.a[:used, :used] *= 0.5
            self.seen >>= 1
        self.due = self.seen + 64


def solve(a: Rows, b: list[float], ridge: float, n: int) -> list[float] | None:
    """(a + ridge I)^-1 b of the first n entries, by Cholesky's decomposition; None where rounding prevents it."""
    rows: Rows = []
    for i in range(n):
        row: list[float] = []
        for j in range(i):
            row.append(less(a[i][j], row, rows[j]) / rows[j][j])
        square = less(a[i][i] + ridge, row, row)
        if not square > 0:
            return None
        rows.append([*row, math.sqrt(square)])
    u: list[float] = []
    for i in range(n):
        u.append(less(b[i], rows[i][:i], u) / rows[i][i])
    w = [0.0] * n
    for i in range(n - 1, -1, -1):
        w[i] = less(u[i], [rows[k][i] for k in range(i + 1, n)], w[i + 1 :]) / rows[i][i]
    return w


def less(number: float, left: list[float], right: list[float]) -> float:
    """The number, minus the products, one by one, of two lists of the length of the first."""
    for p, q in zip(left, right, strict=False):
        number -= p * q
    return number


def decode_nearest(data: bytes, step: float, mask: Array, places: Array) -> Array:
    """The residual of the planes [T, C, H, W] of scattered points."""
    times, levels, height, width = mask.shape
    if height * width == len(places):
        shape = times, levels, len(places)
    elif width == len(places):
        shape = (height, 1, width) if times * levels == 1 else (times * levels, height, width)
    else:
        raise ValueError(f"{len(places)} positions for planes of {height} x {width} points")
    if not data or data[0] > 63:
        raise ValueError("the choices of a residual of scattered points are unknown to this decoder")
    temporal, tighten, brief = bool(data[0] & 1), data[0] >> 1 & 15, bool(data[0] >> 5)
    stream = Binary(data[1:], [19660] * 6)
    mask = mask.reshape(shape)
    kept = np.flatnonzero(~mask.all(axis=(0, 1)))
    out = np.zeros(shape)
    if len(kept):
        out[..., kept] = Nearest(stream, step, tighten, brief, places[kept]).planes(mask[..., kept], temporal)
    stream.check_end()
    return out.reshape(times, levels, height, width)


class Nearest:
    """The walk from coarse to fine over scattered points, with a problem for each kind of points."""

    def __init__(self, stream: Binary, step: float, tighten: int, brief: bool, places: Array):
        self.stream, self.problems = stream, [Problem(step, brief) for _ in range(9)]
        factors = [1.0]
        for _ in range(3):
            factors.append(min(factors[-1] * (1 + tighten / 8), 4.0))
        self.sizes = [step / factors[k // 2] for k in range(8)] + [step]
        self.walk = list(neighbours(places.tolist()))

    def planes(self, mask: Array, temporal: bool) -> Array:
        """All values [T, C, N]."""
        times, levels, count = mask.shape
        out, codes = np.zeros(mask.shape), np.zeros(mask.shape, np.int64)
        nothing, none = np.zeros(count), np.zeros(count, np.int64)
        mean, activity = np.zeros((levels, count)), np.zeros((levels, count), np.int64)
        for t in range(times):
            late = temporal and t > 0
            for c in range(levels):
                others = (
                    out[t - 1, c] if late else nothing,
                    mean[c] if late else nothing,
                    out[t, c - 1] if c else nothing,
                    out[t - 1, c - 1] if late and c else nothing,
                )
                sizes = codes[t - 1, c] if late else none, codes[t, c - 1] if c else none, activity[c] >> 2
                out[t, c], codes[t, c] = self.plane(mask[t, c], others, sizes, late, 20 if c else 18 if late else 16)
                mean[c] += (out[t, c] - mean[c]) / (t + 1)
                size = 64 * np.abs(codes[t, c])
                activity[c] = activity[c] + ((size - activity[c]) >> (3 if t > 7 else 2)) if t else size
        return out

    def plane(
        self, mask: Array, others: tuple[Array, ...], sizes: tuple[Array, ...], late: bool, used: int
    ) -> tuple[list[float], list[int]]:
        """Values and codes of one plane; `others` are earlier, mean, below, before_below, `sizes` what codes go by."""
        rows = [other.tolist() for other in others]
        then, under, active = (array.tolist() for array in sizes)
        values, codes, bends = [0.0] * len(mask), [0] * len(mask), [0.0] * len(mask)
        for place, (index, kind, near, weights, squared) in enumerate(self.walk):
            base = value = rows[1 if late else 2][index]
            inner = outer = code = 0
            west = north = 1
            features = [0.0] * used
            if place:
                base = weighted(weights, near, values)
                inner, outer = (sum(abs(codes[q]) for q in half) for half in (near[:4], near[4:]))
                west, north = sign(codes[near[0]]), sign(codes[near[1]])
                features[:8] = [values[q] - base for q in near]
                features[8] = weighted(weights, near, bends) * squared
                features[16:] = [row[index] - weighted(weights, near, row) for row in rows[: used - 16]]
                value = base
                if mask[index]:
                    value = weighted([1.0] * 8, near, values) / 8
            if not mask[index]:
                if place:
                    for w, f in zip(self.problems[kind].weights, features, strict=False):
                        value += w * f
                code = predicted_code(
                    self.stream, kind, inner, outer, west, north, abs(then[index]), abs(under[index]),
                    scale(active[index]),
                )  # fmt: skip
            values[index], codes[index] = value + code * self.sizes[kind], cut(code)
            if place and not mask[index]:
                local = 2 * outer + inner
                self.problems[kind].add(features, values[index] - base, 1 / (1 + 0.04 * local * local))
                bends[index] = (values[index] - base) / squared if squared else 0.0
        return values, codes


def weighted(weights: list[float], near: list[int], values: list[float]) -> float:
    """The sum of weighted values, one by one."""
    result = 0.0
    for w, q in zip(weights, near, strict=True):
        result += w * values[q]
    return result


# Positions


def positions_of(latitude: Array, longitude: Array, radians: bool) -> Array:
    """Three integers for each point, int64 [N, 3]."""
    unit, numbers = 57.29577951308232 if radians else 1.0, np.zeros((latitude.size, 3), np.int64)
    for i, (a, b) in enumerate(zip(latitude.ravel().tolist(), longitude.ravel().tolist(), strict=True)):
        a, b = a * unit, b * unit
        if abs(a) <= 90 and abs(b) <= 10000:
            (sine, cosine), (sine_b, cosine_b) = turned(a), turned(b)
            for j, x in enumerate((cosine * cosine_b, cosine * sine_b, sine)):
                numbers[i, j] = math.floor(x * 2.0**28 + 0.5)
    return numbers


def turned(x: float) -> tuple[float, float]:
    """Sine and cosine of x degrees."""
    k = math.floor(x / 90 + 0.5)
    r = (x - 90 * k) * 0.017453292519943295
    y, sine, cosine = r * r, 0.0, 0.0
    for n in range(8, -1, -1):
        sine = sine * y + (-1) ** n / math.factorial(2 * n + 1)
        cosine = cosine * y + (-1) ** n / math.factorial(2 * n)
    sine *= r
    return [(sine, cosine), (cosine, -sine), (-sine, -cosine), (-cosine, sine)][k % 4]


def queue(d: int) -> int:
    """The queue of points at a squared distance."""
    t = max(d.bit_length() - 3, 0)
    return 4 * t + (d >> t)


def morton_ranks(points: Rows) -> list[int]:
    """The rank of each point."""
    keys = []
    for point in points:
        key = 0
        for j, number in enumerate(point):
            number = min((number + 2**28) >> 8, 2**21 - 1)
            key |= sum((number >> i & 1) << (3 * i + j) for i in range(21))
        keys.append(key)
    ranks = [0] * len(points)
    for rank, i in enumerate(sorted(range(len(points)), key=lambda i: keys[i])):
        ranks[i] = rank
    return ranks


def neighbours(points: Rows) -> Iterator[tuple[int, int, list[int], list[float], float]]:
    """Index, kind, neighbours, weights and squared distance of each point, in the order of decoding."""
    numbers, ranks = np.array(points, np.int64), morton_ranks(points)
    queues: dict[int, dict[int, None]] = {}  # of points, the newest last
    distances: list[int | None] = [None] * len(points)
    order: list[int] = []
    near: list[list[int]] = []
    index = 0
    while True:
        away = ((numbers - numbers[index]) ** 2).sum(1).tolist()
        near.append(sorted(order, key=lambda q: (away[q], q))[:8])
        order.append(index)
        moved = []
        for q, d in enumerate(away):
            before = distances[q]
            if q == index or (before is not None and d >= before):
                continue
            distances[q] = d
            if before is None or queue(before) != queue(d):
                moved.append(q)
                if before is not None:
                    del queues[queue(before)][q]
        for q in sorted(moved, key=lambda q: -ranks[q]):
            if distances[q]:
                queues.setdefault(queue(distances[q] or 0), {})[q] = None
        distances[index] = -1
        queues = {number: inside for number, inside in queues.items() if inside}
        if not queues:
            break
        last = max(queues)
        index = queues[last].popitem()[0]
    for rank, (i, found) in enumerate(zip(order, near, strict=True)):
        kind = max(k for k in range(8) if k == 0 or rank < len(order) >> k)
        squared = float(sum((a - b) ** 2 for a, b in zip(points[found[0]], points[i], strict=True))) if found else 0.0
        yield i, kind, (found + found[-1:] * 8)[:8], plane_weights(points, i, found), squared
    here: dict[tuple[int, ...], list[int]] = {tuple(points[i]): [i] for i in order}
    for i, point in enumerate(points):
        if distances[i] != -1:
            twins = here[tuple(point)]
            yield i, 8, (twins[:-9:-1] + twins[:1] * 8)[:8], [1.0] + [0.0] * 7, 0.0
            twins.append(i)


def plane_weights(points: Rows, index: int, found: list[int]) -> list[float]:
    """Weights of the neighbours of a point: those of a plane at this point."""
    if not found:
        return [0.0] * 8
    v = [[a - b for a, b in zip(points[q], points[index], strict=True)] for q in found]
    d = [x * x + y * y + z * z for x, y, z in v]
    w = [float(d[0]) / float(e) for e in d]
    total_w = added(w)
    m = [added([a * x[j] for a, x in zip(w, v, strict=True)]) / total_w for j in range(3)]
    u = [[x[j] - m[j] for j in range(3)] for x in v]
    xx, xy, xz, yy, yz, zz = (
        added([a * x[j] * x[k] for a, x in zip(w, u, strict=True)])
        for j, k in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))
    )
    ridge, gx, gy, gz = 0.02 * (xx + yy + zz), 0.0, 0.0, 0.0
    if ridge > 0:
        xx, yy, zz = xx + ridge, yy + ridge, zz + ridge
        b, c = xy / xx, xz / xx
        yy, yz = yy - b * xy, yz - b * xz
        e = yz / yy
        zz = zz - (c * xz + e * yz)
        gx, gy = m[0], m[1] - b * m[0]
        gz = (m[2] - c * gx - e * gy) / zz
        gy = gy / yy - e * gz
        gx = gx / xx - b * gy - c * gz
    h = [a / total_w * (1.0 - (x * gx + y * gy + z * gz) * total_w) for a, (x, y, z) in zip(w, u, strict=True)]
    return h + [0.0] * (8 - len(h))


def added(numbers: list[float]) -> float:
    """The sum of numbers, one by one."""
    result = 0.0
    for x in numbers:
        result += x
    return result


# Interpolated residual

SHARE_AND_PACE = ((0.0, 0.0), (0.5, 0.5), (0.75, 0.5), (1.0, 0.25))


def decode_interpolated(data: bytes, step: float, shape: tuple[int, ...]) -> Array:
    """The residual of planes [T, C, H, W] of that shape."""
    choices, count = data[0], data[1]
    prediction, memory, tighten = choices & 3, choices >> 2 & 3, choices >> 4
    if choices > 63 or prediction > 2 or count < 2:
        raise ValueError(f"choices {choices} of an interpolated residual are unknown to this decoder")
    records = struct.unpack_from(f"<{count}I", data, 2)
    times, levels, height, width = shape
    arrays = [(1, 1), *(size for _, sizes in lattices(height, width) for size in sizes)]
    stream = Interleaved(data[2 + 4 * count :], records)
    codes = np.array(stream.codes(math.prod(shape), levels * height * width, arrays if prediction else None, width))
    if prediction == 0:
        return codes.reshape(shape) * step
    share, pace = SHARE_AND_PACE[memory]
    planes, mean = np.zeros(shape), np.zeros(shape[1:])
    for t in range(times):
        for c in range(levels):
            here, codes = codes[: height * width], codes[height * width :]
            planes[t, c] = interpolate(here, height, width, step, tighten, prediction == 2) + share * mean[c]
            mean[c] = mean[c] + pace * (planes[t, c] - mean[c]) if t else planes[t, c]
    return planes


def lattices(height: int, width: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Every level below top, from there down, and the shapes of its rows, columns and both."""
    for level in range((max(height, width) - 1).bit_length() - 1, -1, -1):
        high, wide = -(-height // 2**level), -(-width // 2**level)
        h, w = -(-high // 2), -(-wide // 2)
        yield level, [(h, wide // 2), (high // 2, w), (high // 2, wide // 2)]


def interpolate(codes: Array, height: int, width: int, step: float, tighten: int, cubic: bool) -> Array:
    """A plane from its codes."""
    top = (max(height, width) - 1).bit_length()
    factors = [1.0]
    for _ in range(top):
        factors.append(min(factors[-1] * (1 + tighten / 8), 4.0))
    known, at = codes[:1].reshape(1, 1) * (step / factors[top]), 1
    for level, shapes in lattices(height, width):
        parts = []
        for shape in shapes:
            parts.append(step / factors[level] * codes[at : at + math.prod(shape)].reshape(shape))
            at += math.prod(shape)
        rows, columns, both = parts
        rows = between(known.T, rows.shape[1], cubic).T + rows
        columns = between(known, columns.shape[0], cubic) + columns
        both = 0.5 * (between(columns.T, both.shape[1], cubic).T + between(rows, both.shape[0], cubic)) + both
        fine = np.zeros((known.shape[0] + columns.shape[0], known.shape[1] + rows.shape[1]))
        fine[::2, ::2], fine[::2, 1::2], fine[1::2, ::2], fine[1::2, 1::2] = known, rows, columns, both
        known = fine
    return known


def between(a: Array, count: int, cubic: bool) -> Array:
    """What lies between the first points of `a` along its first axis, `count` of it."""
    m = len(a)
    out = np.zeros((count, a.shape[1]))
    for k in range(count):
        if cubic and 1 <= k < m - 2:
            out[k] = 0.5625 * (a[k] + a[k + 1]) - 0.0625 * (a[k - 1] + a[k + 2])
        else:
            out[k] = 0.5 * (a[k] + a[k + 1]) if k + 1 < m else a[k]
    return out


class Interleaved:
    """Codes from words: four states, and the tables of the records."""

    def __init__(self, data: bytes, records: tuple[int, ...]):
        if len(data) < 16 or len(data) % 2:
            raise ValueError("the words of an interpolated residual are damaged")
        self.x, self.words, self.at = list(struct.unpack_from("<4I", data)), np.frombuffer(data, "<u2").tolist(), 8
        self.records = records
        contexts = [*range(len(records) - 1), 0]
        self.tables = [table_of(r, reach_of(k)) if r & 4095 else [] for r, k in zip(records, contexts, strict=True)]

    def take(self, i: int, often: int, bits: int, place: int) -> None:
        """State i without what was decoded: an interval of `often` of 2^bits, at `place` in it."""
        self.x[i] = often * (self.x[i] >> bits) + place
        if self.x[i] < 2**16:
            if self.at >= len(self.words):
                raise ValueError("the words of an interpolated residual end too early")
            self.x[i] = self.x[i] * 2**16 + self.words[self.at]
            self.at += 1

    def symbol(self, i: int, start: list[int]) -> int:
        """A symbol from state i, under a table that is given by where its entries start, and its end."""
        q = self.x[i] % 4096
        s = bisect_right(start, q) - 1
        self.take(i, start[s + 1] - start[s], 12, q - start[s])
        return s

    def raw(self, width: int) -> int:
        """Raw bits."""
        if width > 16:
            low = self.raw(16)
            return low + 2**16 * self.raw(width - 16)
        value = self.x[0] % 2**width
        if width:
            self.take(0, 1, width, 0)
        return value

    def singles(self, count: int, record: int, context: int) -> list[int]:
        """Single codes under the table of a record."""
        reach, shift = reach_of(context), max(0, (context >> 1) - 10)
        symbols = [self.symbol(j % 4, self.tables[record]) for j in range(count)]
        codes = []
        for s in symbols:
            code = s - reach - 1
            if s == 0:
                a = self.raw(6)
                code = (reach + 2 ** (a >> 1) + self.raw(a >> 1)) * (-1 if a & 1 else 1)
            codes.append(code * 2**shift + self.raw(shift) - (2**shift >> 1))
        return codes

    def block(self, context: int) -> list[int]:
        """The codes of a block."""
        spare = len(self.records) - 1
        record = self.records[context] if context < spare else 0
        if record & 4095 == 0:
            raise ValueError("a block of an interpolated residual has no table: it is damaged")
        if self.symbol(0, [0, record & 4095, 4096]) == 0:
            return [0] * 16
        if not record >> 24 & 1:
            return self.singles(16, context, context)
        codes: list[int] = []
        for s in [self.symbol(i, self.tables[context]) for i in range(4)]:
            codes += [(s - 1) // 3**q % 3 - 1 for q in range(4)] if s else self.singles(4, spare, 0)
        return codes

    def codes(self, count: int, past: int, arrays: list[tuple[int, int]] | None, width: int) -> list[int]:
        """All codes; arrays: the shapes of a plane's, None without prediction."""
        sides, end, before = [], 0, 1
        for rows, length in arrays or []:
            if rows * length:
                end += rows * length
                sides.append((end, length, before))
                before = rows * length
        codes: list[int] = []
        sizes: list[int] = []

        def near(x: int) -> int:
            if x < 0:
                return 0
            b, r = x >> 4, x % 16
            return ((16 - r) * sizes[b] + r * (sizes[b + 1] if b + 1 < len(sizes) else 0)) >> 4

        while len(codes) < count:
            x = len(codes)
            row, before = next(side[1:] for side in sides if x % end < side[0]) if sides else (width, 2 * width)
            around = (sizes[-1] if sizes else 0) + near(x - row) + near(x - before) + near(x - past)
            n = around.bit_length()
            block = self.block(2 * n + (around >> (n - 2) & 1 if n > 1 else 0))
            codes += block
            sizes.append(sum(map(abs, block)))
        if self.at != len(self.words) or self.x != [2**16] * 4:
            raise ValueError("an interpolated residual does not end where it should")
        return codes[:count]


def reach_of(context: int) -> int:
    """The largest magnitude that has a symbol."""
    return {9: 30}.get(context >> 1, 14 if context >> 1 < 9 else 62)


def table_of(record: int, reach: int) -> list[int]:
    """Where the entries of a record's table start, and its end."""
    zero, quads, last = record >> 12 & 4095, record >> 24 & 1, record >> 25
    if quads:
        frequencies, other = [8 * last + 1], (4096 - zero) >> 1
        rest = 4096 - frequencies[0] - 81
        for s in range(81):
            digits = [s // 3**q % 3 for q in range(4)]
            frequencies.append(1 + (rest * math.prod(zero if d == 1 else other for d in digits) >> 48))
        frequencies[41] += 4096 - sum(frequencies)
    else:
        weights = [2**24]
        for _ in range(reach):
            weights.append(weights[-1] * last >> 7)
        escape = 256 * weights[reach] // (128 - last)
        total, rest = escape + 2 * sum(weights[:reach]), 4096 - zero - 2 * reach - 1
        side = [1 + w * rest // total for w in weights[:reach]]
        frequencies = [1 + escape * rest // total, *side[::-1], 0, *side]
        frequencies[reach + 1] = 4096 - sum(frequencies)
    return [sum(frequencies[:s]) for s in range(len(frequencies) + 1)]


# Model


def decode_network(
    data: bytes,
    prior: int,
    model: "Model",
    variable: str,
    axes: list[Array],
    index: tuple[int, ...],
    grid: tuple[int, ...],
) -> Array:
    """Features at every point of the signals with these lengths of index and grid axes, [n, points, d_out]."""
    rate, coder, n, tile = prior >> 3, prior & 7, math.prod(index), model.header.get("tile")
    if tile is None:
        latents = decode_latents(data, coder, model, rate, n, planes_of(index, (1, 1))[:2])
        return model.network(latents, rate, variable, axes).astype(float)
    if len(tile) != len(grid):
        raise ValueError("a model has tiles of another number of axes than its array")
    starts = [range(0, length, step) for length, step in zip(grid, tile, strict=True)]
    places = [(i, corner) for i in range(n) for corner in product(*starts)]
    latents = decode_latents(data, coder, model, rate, len(places), (len(places), 1))
    found = np.zeros((n, *grid, model.header["spec"]["d_out"]))
    for (i, corner), latent in zip(places, latents, strict=True):
        ends = [min(c + step, length) for c, step, length in zip(corner, tile, grid, strict=True)]
        place = (i, *(slice(c, end) for c, end in zip(corner, ends, strict=True)))
        points = [np.arange(end - c, dtype=float) for c, end in zip(corner, ends, strict=True)]
        found[place] = model.network(latent[None], rate, variable, points).reshape(found[place].shape)
    return found.reshape(n, math.prod(grid), -1)


def unpack(content: bytes, kind: str, shape: list[int]) -> Array:
    """A tensor of a model file."""
    if kind == "rows8":
        steps = np.frombuffer(content[: 4 * shape[0]], "<f4")
        codes = np.frombuffer(zlib.decompress(content[4 * shape[0] :]), "i1").reshape(shape)
        return steps[:, None] * codes.astype(np.float32)
    if kind in ("<i4", "|u1"):
        return np.frombuffer(zlib.decompress(content), kind).reshape(shape)
    return np.frombuffer(content, kind).reshape(shape).astype(np.float32)


class File:
    """A model file: its header and its tensors."""

    versions: tuple[int, ...] = (1, 3)

    def __init__(self, data: bytes):
        if data[:8] != b"VCINRMDL" or len(data) < 18:
            raise ValueError("this is no model of vcinr")
        version, length = struct.unpack_from("<HI", data, 8)
        if version not in self.versions:
            raise ValueError(f"version {version} of a model is unknown to this decoder")
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise ValueError("a model is damaged: the checksum does not match")
        self.header = json.loads(data[14 : 14 + length])
        self.tensors: dict[str, Array] = {}
        position = 14 + length
        for name, dtype, shape, stored in self.header["tensors"]:
            content = data[position : position + stored]
            self.tensors[name] = unpack(content, dtype, shape)
            position += stored


class Model(File):
    """The network that predicts signals of its variables from latents."""

    def inputs(self, axes: list[Array]) -> Array:
        """Inputs of the network at the points of the full grid, or the nodes of its graph: [points, d_in]."""
        if self.header["system"]["system"] == "spectral":
            return np.ascontiguousarray(self.tensors["graph/nodes"].T)
        points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1)
        system = self.header["system"]
        bounds = system.get("bounds", [])
        if system["system"] not in ("box", "sphere"):
            raise ValueError(f"coordinate system {system['system']!r} of a model is unknown to this decoder")
        round_ = system["system"] == "sphere"
        if len(axes) != len(bounds) + 2 * round_:
            raise ValueError("a model has another number of axes than its array")
        columns = [
            2 * (column - low) / (high - low) - 1 if high != low else np.zeros(len(column))
            for column, (low, high) in zip(points.T, bounds, strict=False)
        ]
        if round_:
            latitude, longitude = np.deg2rad(points.T[-2:])
            columns += [
                np.cos(latitude) * np.cos(longitude),
                np.cos(latitude) * np.sin(longitude),
                np.sin(latitude),
            ]
        return np.stack(columns, 1).astype(np.float32)

    def linear(self, name: str, x: Array) -> Array:
        """W x + b."""
        return x @ self.tensors[f"{name}.weight"].T + self.tensors[f"{name}.bias"]

    def residual_blocks(self, name: str, h: Array, blocks: int) -> Array:
        """R: the residual blocks `name`.block.0, ..."""
        for i in range(blocks):
            t = {k: self.tensors[f"{name}.block.{i}.{k}"] for k in ("weight_1", "bias_1", "weight_2", "bias_2")}
            scale, shift = (self.tensors[f"{name}.block.{i}.{k}"] for k in ("scale", "shift"))
            centred = h - h.mean(-1, keepdims=True)
            normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(0.01))
            inner = (normed * scale + shift) @ t["weight_1"].T + t["bias_1"]
            h = h + (inner * (1 + np.tanh(inner / 2)) / 2) @ t["weight_2"].T + t["bias_2"]
        return h

    def modulations(self, latents: Array, rate: int, variable: str) -> Array:
        """phi of every signal, from its quantised latents."""
        t, net = self.tensors, "quantiser/net"
        gain = t["quantiser/gain"].reshape(t["quantiser/offset"].shape)
        y = ((latents + 0.5 if "quantiser/cells" in t else latents) / gain[rate]).astype(np.float32)
        h = self.linear(f"{net}.synthesis.in", y)
        h = self.residual_blocks(f"{net}.synthesis", h, int(t["quantiser/blocks"][0]))
        moved = t[f"{net}.mean"] + t[f"{net}.std"] * (y + self.linear(f"{net}.synthesis.out", h))
        names = [name for name, _, _ in self.header["normalisation"]]
        if variable not in names:
            raise ValueError(f"the model knows no variable {variable!r}")
        return t["inr/phi_0"][names.index(variable)] + moved

    def network(self, latents: Array, rate: int, variable: str, axes: list[Array]) -> Array:
        """Features of every signal at every point, [n, points, d_out]."""
        phi, x, spec = self.modulations(latents, rate, variable), self.inputs(axes), self.header["spec"]
        linear = spec["conditioning"] == "linear"
        basis = self.siren(x, self.layers(phi[0])) if linear else None  # that of every signal
        found = []
        for signal in phi:
            rows = self.siren(x, self.layers(signal)) if basis is None else basis
            if linear or spec["conditioning"] == "gated-basis":
                head = signal if linear else signal[spec["gating"] :]
                rows = rows.reshape(len(x), spec["d_out"], len(head) + 1)
                rows = rows[..., 0] + rows[..., 1:] @ head
            found.append(rows)
        return np.stack(found)

    def layers(self, phi: Array) -> list[tuple[Array, Array]]:
        """Weight and bias of every layer for a signal of modulation phi, [d]."""
        spec, t = self.header["spec"], self.tensors
        layers = [(t[f"inr/siren.{k}.weight"], t[f"inr/siren.{k}.bias"]) for k in range(spec["depth"])]
        kind, last, width = spec["conditioning"], spec["depth"] - 1, spec["width"]
        if kind in ("gates", "gated-basis"):
            g = phi if kind == "gates" else phi[: spec["gating"]]
            factors = self.mapping("inr/gates", g).reshape(last - 1, 2, width, spec["rank"])
            gates = (1 + np.tanh(factors[:, 0] @ factors[:, 1].swapaxes(-1, -2) / 2)) / 2
            layers[1:last] = [(gate * w, b) for gate, (w, b) in zip(gates, layers[1:last], strict=True)]
        elif kind in ("shifts", "sparse"):
            if kind == "shifts":
                shifts = self.mapping("inr/shifts", phi)
            else:
                position = t["inr/sparse.position"]
                shifts = np.append(phi * t["inr/sparse.gate"], np.float32(0))[position]
            parts = zip(shifts.reshape(last, width), layers[:last], strict=True)
            layers[:last] = [(w, b + shift) for shift, (w, b) in parts]
        elif kind == "weights":
            start = 0
            for k, (w, b) in enumerate(layers):
                middle, end = start + w.size, start + w.size + b.size
                layers[k] = w + phi[start:middle].reshape(w.shape), b + phi[middle:end]
                start = end
        elif kind != "linear":
            raise ValueError(f"conditioning {kind!r} of a model is unknown to this decoder")
        return layers

    def mapping(self, name: str, phi: Array) -> Array:
        """M(phi): one linear map, or linear, residual blocks, linear."""
        spec = self.header["spec"]
        if spec["mapping_width"]:
            phi = self.residual_blocks(name, self.linear(f"{name}.in", phi), spec["mapping_blocks"])
        return self.linear(f"{name}.out", phi)

    def siren(self, x: Array, layers: list[tuple[Array, Array]]) -> Array:
        """All outputs of the last layer at the inputs x."""
        omega_0, h = np.float32(self.header["spec"]["omega_0"]), x
        for weight, bias in layers[:-1]:
            h = np.sin(omega_0 * (h @ weight.T + bias))
        return h @ layers[-1][0].T + layers[-1][1]


# Patches


class Patches(File):
    """Experts for patches."""

    versions = (2, 4)

    def __init__(self, data: bytes):
        super().__init__(data)
        if self.header["kind"] != "patches":
            raise ValueError(f"a model of the kind {self.header['kind']!r} is unknown to this decoder")
        self.size = tuple(self.header["size"])
        self.motion = self.header.get("motion", 0)
        ranges = [
            range(-back, size + ahead)
            for size, back, ahead in zip(self.size, self.header["back"], self.header["ahead"], strict=True)
        ]
        self.offsets = [
            o for o in product(*ranges) if tuple(a // n for a, n in zip(o, self.size, strict=True)) < (0, 0, 0)
        ]
        self.near = [sorted(range(len(self.offsets)), key=self.distances(o).__getitem__) for o in self.offsets]
        self.middle = self.tensors["middle"].astype(float)
        self.group, self.margin = self.header.get("group", 0), self.header.get("margin", 0)
        self.finer = self.header.get("finer", [0])
        self.sets = [self.experts(prefix) for prefix in (("", "one/", "two/") if self.group else ("",))]

    def experts(self, prefix: str) -> "Experts":
        """A set of experts."""
        count = sum(name.startswith(f"{prefix}basis/") for name in self.tensors)
        predict, basis = (
            [self.tensors[f"{prefix}{what}/{k}"].astype(float) for k in range(count)] for what in ("predict", "basis")
        )
        return Experts(predict, basis)

    def distances(self, offset: tuple[int, ...]) -> list[int]:
        """Squared distances of all offsets from one."""
        return [sum((a - b) ** 2 for a, b in zip(o, offset, strict=True)) for o in self.offsets]

    def around(
        self, signal: Array, first: tuple[int, ...], shift: tuple[int, int], more: list[Array]
    ) -> tuple[Array, Array]:
        """What is known around a patch, less its mean, and that mean; the signal is [z, y, x, features].

        `more` is seen besides: values [features] of other frames.
        """
        values = []
        for near in self.near:
            for m in near:
                moved = (0, *shift) if self.offsets[m][0] < 0 else (0, 0, 0)
                point = tuple(a + o + v for a, o, v in zip(first, self.offsets[m], moved, strict=True))
                if all(0 <= p < n for p, n in zip(point, signal.shape, strict=False)):
                    values.append(signal[point])
                    break
        unknown = [] if values else [np.zeros(len(self.middle))] * len(self.near)
        values += more
        if not values:
            return np.concatenate([np.zeros(0), *unknown]), self.middle
        mean = np.zeros(len(self.middle))
        for value in values:
            mean = mean + value
        mean = mean / len(values)
        return np.concatenate([*unknown, *(value - mean for value in values)]), mean


class Experts(NamedTuple):
    """A set of experts: predictions and bases."""

    predict: list[Array]
    basis: list[Array]


AnyModel = Model | Patches


class Patch(NamedTuple):
    """What is remembered of a patch; `known` is 0 of one that there is not."""

    expert: int = 0  # + 1
    length: int = 0
    activity: int = 0
    sizes: tuple[int, ...] = ()
    known: int = 0
    shift: tuple[int, int] = (0, 0)
    shifts: tuple[tuple[int, int], ...] = ()
    usual: int = 0

    def size(self, q: int) -> int:
        """The magnitude of a code."""
        return self.sizes[q] if q < len(self.sizes) else 0


def decode_patches(data: bytes, model: Patches, rate: int, shape: tuple[int, ...]) -> Array:
    """Signals of `shape`, [n, features, *grid], from a stream of patches."""
    if rate >= 192:
        raise ValueError(f"rate {rate} of patches is unknown to this decoder")
    codes = Binary(data, [19660] * 6)
    nine = [(codes if k == 0 else codes.beside([19660] * 6)) for k in range(3 * len(model.sets))]
    for k, stream in enumerate(nine):
        begin = f"start/{k // 3}/{('codes', 'experts', 'lengths')[k % 3]}/"
        if f"{begin}odds" in model.tensors:
            stream.start(*(model.tensors[f"{begin}{what}"] for what in ("odds", "seen", "weight")))
    streams = [(nine[k], nine[k + 1], nine[k + 2]) for k in range(0, len(nine), 3)]
    n, features, *grid = shape
    lengths = [1] * (3 - len(grid)) + grid
    if features != len(model.middle):
        raise ValueError(f"{features} features, the model has {len(model.middle)}")
    found = np.zeros(shape)
    for i in range(n):
        decoded = decode_frames if model.group else decode_patched
        signal = decoded(streams, model, rate, lengths)
        found[i] = np.moveaxis(signal, -1, 0).reshape(shape[1:])
    codes.check_end()
    if not np.isfinite(found).all():
        raise ValueError("patches are damaged: they are not made of numbers")
    return found


Streams = list[tuple[Binary, Binary, Binary]]


def step_of(rate: int) -> float:
    """The step of a rate."""
    return (32 - rate % 16) / 32 / 2 ** (rate // 16)


def restored(experts: Experts, expert: int, around: Array, codes: list[int], step: float) -> Array:
    """The values of a patch, less the mean."""
    values = np.zeros(experts.basis[expert].shape[1])
    for value, row in zip(around, experts.predict[expert], strict=True):
        if value != 0.0:
            values = values + value * row
    for code, function in zip(codes, experts.basis[expert], strict=False):
        if code:
            values = values + (code * step) * function
    return values


def decode_patched(streams: Streams, model: Patches, rate: int, lengths: list[int]) -> Array:
    """One signal, [z, y, x, features]."""
    counts = [-(-n // s) for n, s in zip(lengths, model.size, strict=True)]
    signal = np.zeros([*(n * s for n, s in zip(counts, model.size, strict=True)), len(model.middle)])
    patches: dict[tuple[int, ...], Patch] = {}
    for place in product(*map(range, counts)):
        first = tuple(p * s for p, s in zip(place, model.size, strict=True))
        shift = decode_shift(streams[0][1], model, patches, place) if model.motion and place[0] else (0, 0)
        around, mean = model.around(signal, first, shift, [])
        patch, codes = decode_patch(streams[0], model.sets[0], patches, place)
        patches[place] = patch._replace(shift=shift)
        values = restored(model.sets[0], patch.expert - 1, around, codes, step_of(rate))
        region = tuple(slice(f, f + s) for f, s in zip(first, model.size, strict=True))
        signal[region] = values.reshape(*model.size, -1) + mean
    return signal[tuple(slice(n) for n in lengths)]


# Frames of groups


class Frame(NamedTuple):
    """A frame, the frames that it looks at, and its level."""

    z: int
    looks: tuple[int, ...]
    level: int


def frames_in_order(count: int, group: int) -> list[Frame]:
    """Frames as they are coded."""

    def between(a: int, b: int, level: int) -> list[Frame]:
        c = (a + b) // 2
        if c == a:
            return []
        return [Frame(c, (a, b), level), *between(a, c, level + 1), *between(c, b, level + 1)]

    order = [Frame(0, (), 0)]
    for a in range(0, count - 1, group):
        b = min(a + group, count - 1)
        order += [Frame(b, (a,), 1), *between(a, b, 2)]
    return order


def decode_frames(streams: Streams, model: Patches, rate: int, lengths: list[int]) -> Array:
    """One signal of frames in groups, [z, y, x, features]."""
    counts = [-(-n // s) for n, s in zip(lengths, model.size, strict=True)]
    signal = np.zeros([*(n * s for n, s in zip(counts, model.size, strict=True)), len(model.middle)])
    patches: dict[tuple[int, ...], Patch] = {}
    looked: dict[int, tuple[int, ...]] = {}
    last: dict[int, int] = {}  # the frame coded last, by how many frames it looked at
    for z, looks, level in frames_in_order(counts[0], model.group):
        finer = model.finer[min(level, len(model.finer) - 1)]
        step = step_of(min(max(rate + finer, 0), 191))
        looked[z] = looks
        experts, before = model.sets[len(looks)], last.get(len(looks), -1)
        for y, x in product(range(counts[1]), range(counts[2])):
            first = (z, y * model.size[1], x * model.size[2])
            shifts, usual = (), 0
            if looks:
                guesses = guessed(patches, looked, (z, y, x))
                shifts, usual = decode_shifts(streams[len(looks)], model, patches, (z, y, x), before, guesses)
            if usual:
                patch, codes = Patch(1, 0, 0, (), 1), []
            else:
                patch, codes = decode_patch(streams[len(looks)], experts, patches, (z, y, x), before)
            patches[z, y, x] = patch._replace(shifts=shifts, usual=usual)
            more = [
                v for a, shift in zip(looks, shifts, strict=True) for v in displaced(signal[a], model, first, shift)
            ]
            around, mean = model.around(signal, first, (0, 0), more)
            values = restored(experts, patch.expert - 1, around, codes, step)
            region = tuple(slice(f, f + s) for f, s in zip(first, model.size, strict=True))
            signal[region] = values.reshape(*model.size, -1) + mean
        last[len(looks)] = z
    return signal[tuple(slice(n) for n in lengths)]


def guessed(
    patches: dict[tuple[int, ...], Patch], looked: dict[int, tuple[int, ...]], place: tuple[int, int, int]
) -> list[tuple[int, int]]:
    """The displacements of a patch that are guessed, by frame that it looks at."""
    z, y, x = place
    looks = looked[z]
    left, above, right = (patches.get(at) for at in ((z, y, x - 1), (z, y - 1, x), (z, y - 1, x + 1)))
    paths = [0, 0]
    if len(looks) == 2:
        a, b = looks
        if looked[b] and looked[b][0] == a:
            paths = list(patches[b, y, x].shifts[0])
        elif len(looked[a]) == 2 and looked[a][1] == b:
            paths = [-d for d in patches[a, y, x].shifts[1]]
    guesses = []
    for s in range(len(looks)):
        guess = []
        for axis, path in enumerate(paths):
            third = right.shifts[s][axis] if right else 0
            none = 0
            if len(looks) == 2:
                third = none = path * (z - looks[0]) // (looks[1] - looks[0]) - (path if s else 0)
            beside = [p.shifts[s][axis] if p else none for p in (left, above)]
            guess.append(sorted([*beside, third])[1])
        guesses.append((guess[0], guess[1]))
    return guesses


def decode_shifts(
    streams: tuple[Binary, Binary, Binary],
    model: Patches,
    patches: dict[tuple[int, ...], Patch],
    place: tuple[int, int, int],
    last: int,
    guesses: list[tuple[int, int]],
) -> tuple[tuple[tuple[int, int], ...], int]:
    """The displacements of a patch of a frame in a group, and whether it is usual."""
    _, experts, lengths = streams
    z, y, x = place
    none = Patch()
    left, above = patches.get((z, y, x - 1)), patches.get((z, y - 1, x))
    right, before = patches.get((z, y - 1, x + 1), none), patches.get((last, y, x), none)
    beside = [p or none for p in (left, above)]
    n = beside[0].usual + 2 * beside[1].usual + 4 * right.usual
    known = beside[0].known + beside[1].known + before.known
    activity = (2 * sum(p.activity for p in (*beside, before)) + known // 2) // max(1, known)
    spread = [
        [size_class(sum(abs(p.shifts[s][axis] - g) for p in (left, above) if p)) for axis, g in enumerate(guess)]
        for s, guess in enumerate(guesses)
    ]
    lengths.contexts = [
        3400 + n, 3410 + 8 * size_class(before.length) + n, 3500 + 8 * size_class(activity) + n,
        3600 + 8 * size_class(sum(spread[0])) + n,
        3700 + 9 * size_class(beside[0].length) + size_class(beside[1].length),
        3800 + 8 * size_class(before.activity) + n,
    ]  # fmt: skip
    if lengths.mixed(0, 3):
        return tuple(guesses), 1
    shifts: list[list[int]] = []
    first, added = 9, [0, 0]
    for s, guess in enumerate(guesses):
        shifts.append([])
        for axis in range(2):
            at, wide, expected = 2 * s + axis, spread[s][axis], guess[axis] - added[axis]
            experts.contexts = [
                3400 + at, 3410 + 9 * at + wide, 3450 + 10 * wide + first, 3550 + 10 * at + first,
                3600 + 9 * at + size_class(beside[0].length), 3640 + 4 * at + n % 4,
            ]  # fmt: skip
            value = experts.integer(0, 0, 2) + expected
            shifts[s].append(max(-4 * model.motion, min(4 * model.motion, value)))
            first = size_class(abs(shifts[s][axis] - expected))
        if s == 0:
            added = [a - g for a, g in zip(shifts[0], guess, strict=True)]
    return tuple((a, b) for a, b in shifts), 0


def displaced(frame: Array, model: Patches, first: tuple[int, ...], shift: tuple[int, int]) -> list[Array]:
    """What a patch sees of another frame [y, x, features]: values [features], row by row."""
    height, width = (n + 2 * model.margin for n in model.size[1:])
    corner = [4 * (c - model.margin) + d for c, d in zip(first[1:], shift, strict=True)]
    (y, by_y), (x, by_x) = (divmod(c, 4) for c in corner)
    rows = range(y - 3, y + height + 4) if by_y else range(y, y + height)
    along = [interpolated(frame[min(max(at, 0), len(frame) - 1)], x, by_x, width) for at in rows]
    if not by_y:
        return [value for row in along for value in row]
    columns = [interpolated(np.array([row[k] for row in along]), 3, by_y, height) for k in range(width)]
    return [columns[k][i] for i in range(height) for k in range(width)]


TAPS = [
    [t / 64 for t in taps]
    for taps in (
        [],
        [-1, 4, -10, 58, 17, -5, 1, 0],
        [-1, 4, -11, 40, 40, -11, 4, -1],
        [0, 1, -5, 17, 58, -10, 4, -1],
    )
]


def interpolated(line: Array, start: int, part: int, count: int) -> list[Array]:
    """`count` values from start + part / 4 on, between those of a line [points, features]."""
    most, found = len(line) - 1, []
    for k in range(start, start + count):
        if not part:
            found.append(line[min(max(k, 0), most)])
            continue
        value = np.zeros(line.shape[1])
        for t, tap in enumerate(TAPS[part]):
            value = value + tap * line[min(max(k + t - 3, 0), most)]
        found.append(value)
    return found


def decode_shift(
    stream: Binary, model: Patches, patches: dict[tuple[int, ...], Patch], place: tuple[int, ...]
) -> tuple[int, int]:
    """The displacement of a patch along y and x."""
    z, y, x = place
    none = Patch()
    left, above, right, before = (
        patches.get(at, none) for at in ((z, y, x - 1), (z, y - 1, x), (z, y - 1, x + 1), (z - 1, y, x))
    )
    shift: list[int] = []
    for axis in range(2):
        a, b, c = (p.shift[axis] for p in (left, above, right))
        spread = size_class(abs(a - b) + abs(b - c))
        first = size_class(abs(shift[0] - left.shift[0])) if axis else 9
        stream.contexts = [
            3400 + 20 * axis, 3400 + 20 * axis + spread, 3440 + 9 * first + spread, 3540 + first,
            3560 + 9 * axis + size_class(left.length), 3580 + 9 * axis + size_class(before.length),
        ]  # fmt: skip
        value = stream.integer(0, 0, 2) + sorted([a, b, c])[1]
        shift.append(max(-model.motion, min(model.motion, value)))
    return shift[0], shift[1]


def decode_patch(
    streams: tuple[Binary, Binary, Binary],
    model: Experts,
    patches: dict[tuple[int, ...], Patch],
    place: tuple[int, ...],
    last: int | None = None,
) -> tuple[Patch, list[int]]:
    """A patch and its codes. `last` is the plane of the patch before it, the one before where it is not given."""
    coder, experts, lengths = streams
    z, y, x = place
    none = Patch()
    back = z - 1 if last is None else last
    beside = [patches.get(at, none) for at in ((z, y, x - 1), (z, y - 1, x), (back, y, x))]
    left, above, before = beside
    known = sum(p.known for p in beside)

    def mean(values: list[int]) -> int:
        return (2 * sum(values) + known // 2) // max(1, known)

    activity = mean([p.activity for p in beside])
    active, about = size_class(activity), size_class(mean([p.length for p in beside]) // 2)

    expert, a = 0, size_class(activity // 4)
    if len(model.basis) > 1:
        experts.contexts = [
            left.expert, above.expert, 33 * left.expert + above.expert, a, 9 * before.expert + a, 9 * left.expert + a,
        ]  # fmt: skip
        expert = min(abs(experts.integer(0, 0, 0)), len(model.basis) - 1)

    by_left, by_above, by_before = (size_class(p.length) for p in beside)
    corners = [size_class(patches.get((z, y - 1, x + d), none).length) for d in (-1, 1)]
    lengths.contexts = [
        9 * by_left + by_above, 33 * about + expert, 9 * active + about, expert, 9 * by_before + about,
        9 * corners[0] + corners[1],
    ]  # fmt: skip
    w = min(abs(lengths.integer(0, 0, 0)), 15)
    length = int(w > 0)
    for k in range(w - 2, -1, -1):
        at = 16 * w + k
        low = [at, 256 * (1 + length % 2) + at, 9 * at + about, min(length, 1023), 9 * at + active, 9 * at + by_left]
        lengths.contexts = [1000 + x for x in low]
        length = 2 * length + min(abs(lengths.integer(0, 0, 1)), 1)
    length = min(length, len(model.basis[0]))

    codes: list[int] = []
    here = [mean([p.size(q) for p in beside]) for q in range(length)] + [0]
    for q in range(length):
        one, two = (abs(codes[q - d]) if q >= d else 0 for d in (1, 2))
        blurred = (here[q - 1] if q else 0) + 2 * here[q] + here[q + 1]
        coder.contexts = [
            4 * min(q, 1023) + min(one, 3),
            512 * min(here[q], 7) + min(q, 511),
            128 * expert + min(q, 127),
            9 * min(one + two, 11) + size_class(blurred),
            3 * (9 * active + size_class(length >> 2)) + min(one, 2),
            100 * size_class(length - q) + 10 * min(blurred, 7) + min(one + two, 9),
        ]
        shift = 0
        while (here[q] + one + two) >> (2 + shift) > 6:
            shift += 1
        certain = int(q == length - 1 and shift == 0)
        codes.append(min(max(coder.integer(certain, shift, min(one + two, 4)), -(2**50)), 2**50))
    total = min(sum(min(abs(code), 2**20) for code in codes), 2**30)
    return Patch(expert + 1, length, total, tuple(min(abs(code), 32767) for code in codes), 1), codes


def size_class(v: int) -> int:
    """0 to 8: small numbers as they are, larger ones together."""
    return bisect_right([1, 2, 3, 5, 8, 14, 24, 48], v)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Decode a variable of a vcinr archive.")
    parser.add_argument("archive", help="folder or zip file")
    parser.add_argument("variable", help="name, with its groups: group/name")
    parser.add_argument("out", nargs="?", help="file to write (.npy); without it the array is described")
    arguments = parser.parse_args()
    try:
        values = read(arguments.archive, arguments.variable)
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        sys.exit(f"error: {error}")
    if arguments.out:
        np.save(arguments.out, values)
    else:
        print(values.dtype, values.shape)
        print(values)


if __name__ == "__main__":
    main()
