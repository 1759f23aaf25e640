"""Reference decoder of vcinr archives, written from `format.md` beside it and from nothing else.

    python reference_decoder.py ARCHIVE VARIABLE [OUT.npy]

It needs Python and NumPy alone, and shares no code with the package vcinr: whoever finds an archive and these two files
can read its arrays. The sections below have the names and the order of the page. It prefers to be clear rather than
fast. `read` returns the numbers as they are stored; scale_factor and add_offset are for the reader to apply.
"""

import argparse
import hashlib
import json
import math
import struct
import sys
import zipfile
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

Array = np.ndarray
Slices = tuple[slice, ...]

# Archive

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
    model = find_model(files, codec)
    whole = np.empty(shape, dtype)
    for index in product(*(range(-(-s // c)) for s, c in zip(shape, chunk_shape, strict=True))):
        data = files.read(chunk_key(variable, node["chunk_key_encoding"], index))
        region = tuple(slice(i * c, min((i + 1) * c, s)) for i, c, s in zip(index, chunk_shape, shape, strict=True))
        inside = tuple(r.stop - r.start for r in region)
        if codec["name"] in SHARDING:
            chunk = decode_shard(data, codec["configuration"], dtype, chunk_shape, inside, fill_value, model)
        else:
            chunk = decode_chunk(data, codec["configuration"], dtype, chunk_shape, fill_value, model)
        whole[region] = chunk[tuple(slice(length) for length in inside)]
    return whole


class Files:
    """The files of an archive by key; `read` compares those that vcinr/manifest lists with their CRC-32."""

    def __init__(self, path: Path):
        self.path = path
        self.zip = None if path.is_dir() else zipfile.ZipFile(path)
        self.manifest: dict[str, Any] = {}
        if "vcinr/manifest/zarr.json" in self.keys():
            self.manifest = json.loads(self.read("vcinr/manifest/zarr.json"))["attributes"]

    def keys(self) -> list[str]:
        """All keys."""
        if self.zip is not None:
            return self.zip.namelist()
        return [file.relative_to(self.path).as_posix() for file in self.path.rglob("*") if file.is_file()]

    def read(self, key: str) -> bytes:
        """The bytes of one file."""
        try:
            data = (self.path / key).read_bytes() if self.zip is None else self.zip.read(key)
        except (FileNotFoundError, KeyError):
            raise ValueError(f"{key} is missing") from None
        except zipfile.BadZipFile as error:
            raise ValueError(f"{key}: {error}") from None
        if zlib.crc32(data) != self.manifest.get("files", {}).get(key, zlib.crc32(data)):
            raise ValueError(f"{key} is damaged: its checksum is not that of the manifest")
        return data

    def check_metadata(self) -> None:
        """Compare all zarr.json with metadata_sha256."""
        if "metadata_sha256" not in self.manifest:
            return
        text = ""
        for key in sorted(self.keys()):
            if key.split("/")[-1] == "zarr.json" and key != "vcinr/manifest/zarr.json":
                node = json.loads(self.read(key))
                node.pop("consolidated_metadata", None)
                text += f"{key} {json.dumps(node, sort_keys=True, separators=(',', ':'))}\n"
        if hashlib.sha256(text.encode()).hexdigest() != self.manifest["metadata_sha256"]:
            raise ValueError("the archive's metadata is damaged: its SHA-256 is not that of the manifest")


def find_model(files: Files, codec: dict[str, Any]) -> "Model | None":
    """The model that the codec `vcinr` (inside that of shards) names."""
    configuration = codec["configuration"]
    if codec["name"] in SHARDING:
        return find_model(files, configuration["codecs"][0])
    name = configuration["model"]
    if name is None:
        return None
    data = files.read(f"vcinr/models/{name}/c/0")
    if hashlib.sha256(data).hexdigest() != name:
        raise ValueError(f"the model {name} is damaged: its SHA-256 is another")
    return Model(data)


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
    model: "Model | None",
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
            chunk, configuration["codecs"][0]["configuration"], dtype, inner, fill_value, model
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
    model: "Model | None" = None,
) -> Array:
    """The chunk that `data` holds, of `chunk_shape`, for the `configuration` of the codec in zarr.json."""
    dtype = np.dtype(dtype).newbyteorder("<")
    if configuration["version"] != 1:
        raise ValueError(f"version {configuration['version']} of the codec vcinr is unknown to this decoder")
    if data[:2] != b"VC" or len(data) < 10:
        raise ValueError("this is no chunk of vcinr")
    version, mode, checksum, flags = struct.unpack_from("<BBIH", data, 2)
    if version != 1 or mode > 1 or flags > 255:
        raise ValueError(f"version {version}, mode {mode}, flags {flags} of a chunk is unknown to this decoder")
    signal_axes = resolve_signal_axes(configuration["signal_axes"], len(chunk_shape))
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
        values = lossless(stream, dtype).reshape(extent)
    else:
        values = decode_signals(sections, stream, configuration, dtype, extent, signal_axes, axes, model)
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
    model: "Model | None",
) -> Array:
    """The extent of a chunk of mode 1, before the exceptions."""
    # [n, *grid]: index axes flattened in their order, then the grid axes in the order of signal_axes.
    index_axes = [axis for axis in range(len(extent)) if axis not in signal_axes]
    order = index_axes + signal_axes
    transposed = tuple(extent[axis] for axis in order)
    grid = tuple(extent[axis] for axis in signal_axes)
    shape = (math.prod(extent[axis] for axis in index_axes), *grid)

    mask = inflate_mask(sections[MASK], shape) if MASK in sections else np.zeros(shape, bool)
    stream = Bitstream(data)
    value = np.zeros(shape)
    if PRIOR in sections:
        if model is None:
            raise ValueError("a chunk was predicted by a model, and the array names none")
        rate = sections[PRIOR][0]
        latents = decode_latents(stream, model, rate, shape[0])
        offset, scale = configuration["scaling"]
        output = model.network(latents, rate, configuration["variable"], axes).astype(float)
        value = offset + scale * output.reshape(shape)
    if CONSTANT in sections:
        value = value + struct.unpack("<f", sections[CONSTANT])[0]
    if RESIDUAL in sections:
        value = value + decode_residual(stream, sections[RESIDUAL], shape, mask)
    if LOG in sections:
        kind = sections[LOG][:1]
        negative = inflate_mask(sections[LOG][1:], shape) if kind == b"\2" else np.full(shape, kind == b"\1")
        with np.errstate(over="ignore"):
            value = np.where(negative, -1.0, 1.0) * np.exp(value)
    values = to_dtype(within_limits(value, dtype, configuration["limits"]), dtype)
    if SPECIALS in sections:
        kind, rest = sections[SPECIALS][0], sections[SPECIALS][1:]
        values[mask] = np.frombuffer(rest, dtype)[0] if kind == 0 else lossless(rest, dtype)
    return values.reshape(transposed).transpose(np.argsort(order).astype(int))


def resolve_signal_axes(signal_axes: list[int], dimensions: int) -> list[int]:
    """The axes of a signal's grid: empty stands for the last two, or all there are."""
    return list(signal_axes) or list(range(max(0, dimensions - 2), dimensions))


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


def lossless(data: bytes, dtype: np.dtype) -> Array:
    """Values of lossless coding: deflated, all first bytes first."""
    inflated = np.frombuffer(zlib.decompress(data), np.uint8).reshape(dtype.itemsize, -1)
    return np.frombuffer(inflated.T.tobytes(), dtype).copy()


def inflate_mask(data: bytes, shape: tuple[int, ...]) -> Array:
    """A mask over the signals: each signal's bits are XOR those of the signal before."""
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


# Bitstream


class Bitstream:
    """An ANS stack decoder: 32-bit words, read from the end, a 64-bit state, 24-bit probabilities."""

    def __init__(self, data: bytes):
        if len(data) % 4:
            raise ValueError("a bitstream is not of whole words")
        self.words = np.frombuffer(data, "<u4").tolist()
        self.state = 0
        self.refill()

    def refill(self) -> None:
        """While the state is below 2^32, a word enters it from below."""
        while self.state < 2**32 and self.words:
            self.state = self.state << 32 | self.words.pop()

    def symbols(self, table: list[int], count: int) -> list[int]:
        """`count` entries of a table, which is given by the left ends of its `intervals`."""
        found = []
        for _ in range(count):
            q = self.state & (2**24 - 1)
            entry = bisect_right(table, q) - 1
            self.state = (self.state >> 24) * (table[entry + 1] - table[entry]) + q - table[entry]
            if self.state < 2**32:
                self.refill()
            found.append(entry)
        return found

    def raw(self, width: int, count: int) -> Array:
        """`count` numbers of `width` raw bits: the lowest 16 bits of every number, then the next 16, ..."""
        numbers = [0] * count
        for low in range(0, width, 16):
            rest = 24 - min(16, width - low)  # the limb is one of equal intervals of 2^rest
            for i in range(count):
                q = self.state & (2**24 - 1)
                self.state = (self.state >> 24 << rest) + (q & (2**rest - 1))
                if self.state < 2**32:
                    self.refill()
                numbers[i] |= (q >> rest) << low
        return np.array(numbers, np.int64)


def intervals(frequencies: list[int]) -> list[int]:
    """The left ends L_0, ..., L_(S-1) of a table's intervals, and L_S = 2^24."""
    entries, total, left = len(frequencies), 0, [0]
    for i, frequency in enumerate(frequencies, 1):
        total += frequency
        left.append((total * (2**24 - entries) >> 16) + i)
    return left


# Latents


def decode_latents(stream: Bitstream, model: "Model", rate: int, n: int) -> Array:
    """The quantised latents of n signals, [n, latent]."""
    frequency, offset = model.tensors["quantiser/frequency"], model.tensors["quantiser/offset"]
    latents = np.zeros((n, offset.shape[1]), np.int64)
    for i in range(offset.shape[1]):
        row = frequency[rate, i]
        symbols = np.array(stream.symbols(intervals(row[row > 0].tolist()), n))
        escape = symbols == 0
        latents[:, i] = offset[rate, i] + symbols - 1
        latents[escape, i] = stream.raw(32, int(escape.sum())) - 2**31
    return latents


# Residual


def decode_residual(stream: Bitstream, section: bytes, shape: tuple[int, ...], mask: Array) -> Array:
    """The residual of the signals [n, *grid]: batches of slices, each interpolated from its lattice."""
    step, spread, plan_axes, bits, tighten = struct.unpack("<dBBBB", section)
    coder = Coder(stream, spread)
    n = shape[0]
    residual, total = np.zeros(shape), np.zeros(shape[1:])
    start = 0
    while start < n:
        reference = bool(bits & 2) and n >= 2
        stop = min(max(1, 2 * start), n) if reference else n
        mean = total / start if start else total
        residual[start:stop] = decode_batch(
            coder, mask[start:stop], mean, step, plan_axes, cubic=bool(bits & 1), tighten=tighten
        )
        for values in residual[start:stop]:
            total = total + values
        start = stop
    return residual


def decode_batch(
    coder: "Coder", mask: Array, mean: Array, step: float, plan_axes: int, cubic: bool, tighten: int
) -> Array:
    """The values of one batch."""
    shape = mask.shape
    mean = np.broadcast_to(mean, shape)
    values, difference, magnitude = np.zeros(shape), np.zeros(shape), np.zeros(shape, np.int64)
    active = [k for k, length in enumerate(shape) if plan_axes >> k & 1 and length > 1]
    levels = max([(shape[k] - 1).bit_length() for k in active], default=0)

    def code(points: Slices, prediction: Array | float, contexts: Array, l: int) -> Array:  # noqa: E741
        """Decode the codes of a pass, and set the values of its points."""
        p = prediction + mean[points]
        kept = ~mask[points]
        codes = np.zeros(kept.shape, np.int64)
        codes[kept] = coder.decode(contexts[kept])
        size = step / min((1 + tighten / 8) ** l, 4)
        values[points] = p + codes * size
        difference[points] = values[points] - mean[points]
        return codes

    lattice = tuple(slice(None, None, 2**levels if k in active else 1) for k in range(len(shape)))
    code(lattice, 0.0, np.full(mask[lattice].shape, 11), levels)
    for level, k, points in passes(shape, active, levels):
        contexts = contexts_of(magnitude, points, k) + (12 if level == 1 else 0)
        codes = code(points, predict(difference, points, k, cubic), contexts, level - 1)
        magnitude[points] = np.minimum(np.abs(codes), 2**20)
    return values


def passes(shape: tuple[int, ...], active: list[int], levels: int) -> Iterator[tuple[int, int, Slices]]:
    """Level, axis and points of every pass after the lattice."""
    for level in range(levels, 0, -1):
        stride = 2 ** (level - 1)
        for k in active:
            if stride < shape[k]:
                points = [slice(None, None, 1) for _ in shape]
                for j in active:
                    points[j] = slice(None, None, stride if j < k else 2 * stride)
                points[k] = slice(stride, None, 2 * stride)
                yield level, k, tuple(points)


def neighbours(array: Array, points: Slices, k: int) -> tuple[Array, Array, int]:
    """What predicts a pass: `array` at the points' places on all axes but k; their positions a on k; the stride."""
    stride = points[k].start
    line = array[(*points[:k], slice(None), *points[k + 1 :])]
    return line, np.arange(stride, array.shape[k], 2 * stride), stride


def predict(difference: Array, points: Slices, k: int, cubic: bool) -> Array:
    """Prediction of the difference at the points of a pass along axis k."""
    line, a, stride = neighbours(difference, points, k)
    length = line.shape[k]
    right = np.where(a + stride < length, a + stride, a - stride)
    prediction = 0.5 * (line.take(a - stride, k) + line.take(right, k))
    if cubic:
        inside = (a - 3 * stride >= 0) & (a + 3 * stride < length)
        b = a[inside]
        near = line.take(b - stride, k) + line.take(b + stride, k)
        far = line.take(b - 3 * stride, k) + line.take(b + 3 * stride, k)
        np.moveaxis(prediction, k, 0)[inside] = np.moveaxis(0.5625 * near - 0.0625 * far, k, 0)
    return prediction


def contexts_of(magnitude: Array, points: Slices, k: int) -> Array:
    """The context c of every point of a pass along axis k."""
    line, a, stride = neighbours(magnitude, points, k)
    right = np.where(a + stride < line.shape[k], a + stride, a - stride)
    t = line.take(a - stride, k) + line.take(right, k)
    u = 2 * t
    for axis in range(t.ndim):
        if axis != k:
            before, after = slice(None, -1), slice(1, None)
            near = [slice(None)] * axis
            u[(*near, after)] += t[(*near, before)]
            u[(*near, before)] += t[(*near, after)]
    bit_length = np.searchsorted(2 ** np.arange(11), u, side="right")  # 11 and more are 11
    return bit_length


# Tokens

TOKENS = 209
WIDTHS = [3 + k // 2 for k in range(80)]
EDGES = [25 + sum(2**b for b in WIDTHS[:k]) for k in range(80)]


class Coder:
    """Codes of the residual, with the tables of all contexts, which live as long as the chunk."""

    def __init__(self, stream: Bitstream, spread: int):
        self.stream = stream
        self.counts = np.tile(np.array(first_counts(spread), np.int64), (24, 1))
        self.tables: dict[int, list[int]] = {}  # left ends by context, until its counts change

    def decode(self, contexts: Array) -> Array:
        """The codes of one pass, in blocks of 256, 512, 1024, 2048, 4096, 4096, ..."""
        codes = np.zeros(len(contexts), np.int64)
        start, size = 0, 256
        while start < len(contexts):
            block = contexts[start : start + size]
            for context in np.unique(block).tolist():
                these = np.flatnonzero(block == context)
                codes[start + these] = self.decode_codes(context, len(these))
            start, size = start + size, min(2 * size, 4096)
        return codes

    def decode_codes(self, context: int, count: int) -> Array:
        """The codes of one context in one block: tokens, then raw bits; then the table's update."""
        if context not in self.tables:
            self.tables[context] = intervals(frequencies_of(self.counts[context]))
        tokens = np.array(self.stream.symbols(self.tables[context], count))
        negative = tokens > 104
        magnitudes = np.where(negative, tokens - 104, tokens)
        buckets = np.where(magnitudes >= 25, magnitudes - 25, -1)
        widths = np.where(buckets >= 0, 3 + buckets // 2, 0)
        for width in np.unique(widths[widths > 0]).tolist():
            these = widths == width
            edges = np.array(EDGES)[buckets[these]]
            magnitudes[these] = edges + self.stream.raw(width, int(these.sum()))
        self.update(context, tokens)
        return np.where(negative, -magnitudes, magnitudes)

    def update(self, context: int, tokens: Array) -> None:
        """Count the tokens of a block."""
        counts = self.counts[context] + 32 * np.bincount(tokens, minlength=TOKENS)
        if counts.sum() > 2**19:
            counts -= counts >> 1
        self.counts[context] = counts
        self.tables.pop(context, None)


# Tables


def first_counts(spread: int) -> list[int]:
    """The counts that every context starts from."""
    weights = []
    for r in range(105):
        size = r if r < 25 else EDGES[r - 25]
        weight = (2**40 >> min(size // spread, 40)) * (2 * spread - size % spread) // (2 * spread)
        if r >= 25:
            weight *= 2 ** min(WIDTHS[r - 25], 16)
        weights.append(min(weight, 2**40))
    weights += weights[1:]
    unit = max(1, sum(weights) // 4)
    return [256 * weight // unit + 1 for weight in weights]


def frequencies_of(counts: Array) -> list[int]:
    """Frequencies of a table, which sum to 2^16."""
    frequencies = 1 + counts * (2**16 - TOKENS) // max(1, int(counts.sum()))
    frequencies[np.argmax(counts)] += 2**16 - frequencies.sum()
    return frequencies.tolist()


# Model


class Model:
    """A model file: the network that predicts signals of its variables from latents."""

    def __init__(self, data: bytes):
        if data[:8] != b"VCINRMDL" or len(data) < 18:
            raise ValueError("this is no model of vcinr")
        version, length = struct.unpack_from("<HI", data, 8)
        if version != 1:
            raise ValueError(f"version {version} of a model is unknown to this decoder")
        if zlib.crc32(data[:-4]) != int.from_bytes(data[-4:], "little"):
            raise ValueError("a model is damaged: the checksum does not match")
        self.header = json.loads(data[14 : 14 + length])
        self.tensors: dict[str, Array] = {}
        position = 14 + length
        for name, dtype, shape, stored in self.header["tensors"]:
            content = data[position : position + stored]
            tensor = np.frombuffer(zlib.decompress(content) if dtype == "<i4" else content, dtype).reshape(shape)
            self.tensors[name] = tensor if dtype == "<i4" else tensor.astype(np.float32)
            position += stored

    def inputs(self, axes: list[Array]) -> Array:
        """Inputs of the network at the points of the full grid, in C order: [points, d_in]."""
        points = np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1)
        system = self.header["system"]
        if system["system"] == "box":
            columns = [
                2 * (column - low) / (high - low) - 1 if high != low else np.zeros(len(column))
                for column, (low, high) in zip(points.T, system["bounds"], strict=True)
            ]
        elif system["system"] == "sphere":
            latitude, longitude = np.deg2rad(points.T)
            columns = [
                np.cos(latitude) * np.cos(longitude),
                np.cos(latitude) * np.sin(longitude),
                np.sin(latitude),
            ]
        else:
            raise ValueError(f"coordinate system {system['system']!r} of a model is unknown to this decoder")
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
        y = (latents / gain[rate]).astype(np.float32)
        h = self.linear(f"{net}.synthesis.in", y)
        h = self.residual_blocks(f"{net}.synthesis", h, int(t["quantiser/blocks"][0]))
        moved = t[f"{net}.mean"] + t[f"{net}.std"] * (y + self.linear(f"{net}.synthesis.out", h))
        names = [name for name, _, _ in self.header["normalisation"]]
        if variable not in names:
            raise ValueError(f"the model knows no variable {variable!r}")
        return t["inr/phi_0"][names.index(variable)] + moved

    def network(self, latents: Array, rate: int, variable: str, axes: list[Array]) -> Array:
        """Output (its first feature) for every signal at every point, [n, points]."""
        phi, x = self.modulations(latents, rate, variable), self.inputs(axes)
        if self.header["spec"]["conditioning"] == "gates":
            return np.stack([self.siren(x, gates)[:, 0] for gates in self.gates(phi)])
        if self.header["spec"]["conditioning"] == "linear":
            psi = self.siren(x, None)[:, : phi.shape[1] + 1]  # those of feature 0
            return np.stack([psi[:, 0] + psi[:, 1:] @ signal for signal in phi])
        raise ValueError(f"conditioning {self.header['spec']['conditioning']!r} of a model is unknown to this decoder")

    def gates(self, phi: Array) -> Array:
        """G_0, ..., G_(L-3) of every signal, [n, L - 2, m, m]."""
        spec = self.header["spec"]
        u = self.residual_blocks("inr/gates", self.linear("inr/gates.in", phi), spec["mapping_blocks"])
        factors = self.linear("inr/gates.out", u).reshape(-1, spec["depth"] - 2, 2, spec["width"], spec["rank"])
        return (1 + np.tanh(factors[:, :, 0] @ factors[:, :, 1].swapaxes(-1, -2) / 2)) / 2

    def siren(self, x: Array, gates: Array | None) -> Array:
        """All outputs of the last layer at the inputs x."""
        last, omega_0 = self.header["spec"]["depth"] - 1, np.float32(self.header["spec"]["omega_0"])
        h = np.sin(omega_0 * self.linear("inr/siren.0", x))
        for layer in range(1, last):
            weight, bias = self.tensors[f"inr/siren.{layer}.weight"], self.tensors[f"inr/siren.{layer}.bias"]
            if gates is not None:
                weight = gates[layer - 1] * weight
            h = np.sin(omega_0 * (h @ weight.T + bias))
        return self.linear(f"inr/siren.{last}", h)


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
