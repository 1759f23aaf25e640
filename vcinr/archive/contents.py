"""An opened archive: its groups, variables and chunks, checked against the manifest before anything believes them."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import zstd
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.storage import WrapperStore

from vcinr.archive.manifest import Manifest, fetch, line
from vcinr.archive.metadata import RESERVED
from vcinr.archive.store import keys, open_store
from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.codec.promise import MAX_VALUES, check_size
from vcinr.errors import CorruptError, InputError, VcinrError, one_line

_CODECS = {"vcinr", "vcinr_sharding", "bytes", "vlen-utf8", "vlen-bytes", "zstd", "crc32c"}
"""All that an archive's arrays may be stored with: another name could be a codec that does anything."""


class _OneFile(WrapperStore[Store]):
    """A store that has one file in memory, so that who has checked it need not fetch it again to decode it."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.key, self.data = "", b""

    async def get(
        self, key: str, prototype: BufferPrototype | None = None, byte_range: ByteRequest | None = None
    ) -> Buffer | None:
        prototype = prototype or default_buffer_prototype()
        if key == self.key and byte_range is None:
            return prototype.buffer.from_bytes(self.data)
        return await self._store.get(key, prototype, byte_range)


@dataclass(frozen=True)
class Chunk:
    """A chunk of an array: its number in C order, its key in the archive, the part of the array that it holds."""

    number: int
    key: str
    part: tuple[slice, ...]


@dataclass(frozen=True, eq=False)
class Archive:
    """An archive whose arrays have none but known codecs. `open_contents` opens one.

    Parameters
    ----------
    place
        Path or URL, for messages.
    store
        Its store.
    root
        Its root group, on a store that remembers one file.
    manifest
        What its files must be.
    """

    place: str | Path
    store: Store
    root: zarr.Group
    manifest: Manifest

    def problems(self) -> list[str]:
        """Return what is wrong with the metadata, in at most one line."""
        return self.manifest.problems(self.store)

    def keys(self) -> list[str]:
        """Return the keys of all files, sorted."""
        return keys(self.store)

    def arrays(self) -> Iterator[tuple[str, zarr.Array[Any]]]:
        """Yield full name and array of every variable, sorted; not those of the manifest and the models."""
        for name, node in sorted(self.root.members(max_depth=None), key=lambda m: m[0]):
            if isinstance(node, zarr.Array) and not name.startswith(RESERVED + "/"):
                yield name, node

    def groups(self) -> list[str]:
        """Return the paths of all groups, the root first, as an empty path."""
        below = [n for n, node in self.root.members(max_depth=None) if isinstance(node, zarr.Group)]
        return ["", *sorted(n for n in below if n != RESERVED and not n.startswith(RESERVED + "/"))]

    def load(self, array: zarr.Array[Any], chunk: Chunk, crc32: int | None) -> tuple[np.ndarray, int]:
        """Decode one chunk, which is fetched once.

        Parameters
        ----------
        array
            One of `arrays`.
        chunk
            One of its `chunks_of`.
        crc32
            What the CRC-32 of its bytes must be; None where nothing is known of it.

        Returns
        -------
        numpy.ndarray, int
            The values of ``chunk.part``, and how many bytes they take in the archive.

        Raises
        ------
        CorruptError
            Where the chunk is missing, changed or declares too many values; besides, what Zarr's codecs raise.
        """
        check_size(array.chunks)
        if array.shards is not None:  # of a shard Zarr fetches the parts that it needs
            return np.asarray(array[chunk.part]), 0
        data = fetch(self.store, chunk.key, crc32)
        one: Any = self.root.store
        one.key, one.data = chunk.key, data
        try:
            return np.asarray(array[chunk.part]), len(data)
        finally:
            one.key, one.data = "", b""

    def index_problems(self) -> list[str]:
        """Find an enormous coordinate: xarray loads those of dimensions as soon as it opens a data set."""
        for name, array in self.arrays():
            if array.ndim == 1 and _dims(array) == (name.rpartition("/")[2],) and array.size > MAX_VALUES:
                return [
                    f"coordinate {name!r} declares {array.size:,} values; set VCINR_MAX_CHUNK_VALUES if you trust it"
                ]
        return []

    def text_problems(self) -> list[str]:
        """Check text and the like, of which Zarr would read a missing chunk as empty, and inflate a hostile one."""
        for name, array in self.arrays():
            if codec_of(array) is not None:
                continue
            try:
                sums = self.manifest.checksums(name, counts_of(array))
            except CorruptError as error:
                return [str(error)]
            if array.size > MAX_VALUES:
                return [f"variable {name!r} declares {array.size:,} values, more than its files can hold"]
            for chunk in chunks_of(name, array):
                try:
                    data = fetch(self.store, chunk.key, int(sums[chunk.number]))
                except CorruptError as error:
                    return [line(chunk.key, str(error))]
                if problem := _inflates(data, math.prod(array.chunks)) or _miscounts(data, array):
                    return [line(chunk.key, problem)]
        return []


def open_contents(place: str | Path) -> Archive:
    """Open an archive to look into it.

    Parameters
    ----------
    place
        A folder, a zip file or an fsspec URL.

    Returns
    -------
    Archive
        Its metadata are not compared with the manifest yet.

    Raises
    ------
    InputError
        When there is no archive.
    CorruptError
        When an array has a codec that no archive has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            store = open_store(place)
            root = zarr.open_group(_OneFile(store), mode="r", zarr_format=3)
            for name, node in root.members(max_depth=None):
                for one in _all_codecs(node.metadata.to_dict().get("codecs", [])):
                    if one["name"] not in _CODECS:
                        raise CorruptError(
                            f"{place}: variable {name!r} has the codec {one['name']!r}, which no archive has"
                        )
    except (VcinrError, MemoryError):
        raise
    except Exception as error:  # whatever zarr makes of a damaged zarr.json
        raise InputError(f"{place}: not a Zarr v3 archive ({one_line(error)})") from None
    return Archive(place, store, root, Manifest.read(store))


def codec_of(array: zarr.Array[Any]) -> VcinrCodec | None:
    """Return vcinr's codec of an array, or None where it has another."""
    codecs = array.metadata.codecs  # type: ignore[union-attr]
    return next((c for c in codecs if isinstance(c, VcinrCodec)), None)


def counts_of(array: zarr.Array[Any]) -> tuple[int, ...]:
    """Return how many chunks an array has along each axis."""
    return tuple(-(-n // c) for n, c in zip(array.shape, array.chunks, strict=True))


def chunks_of(name: str, array: zarr.Array[Any]) -> Iterator[Chunk]:
    """Yield the chunks of the array `name`, in C order."""
    for number, index in enumerate(_indices(counts_of(array))):
        part = tuple(
            slice(i * c, min((i + 1) * c, n)) for i, c, n in zip(index, array.chunks, array.shape, strict=True)
        )
        yield Chunk(number, f"{name}/{array.metadata.encode_chunk_key(index)}", part)


def _indices(counts: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Like itertools.product, which would first hold every range in memory, of whatever length is declared."""
    if not counts:
        yield ()
        return
    if 0 in counts:
        return
    for i in range(counts[0]):
        for rest in _indices(counts[1:]):
            yield (i, *rest)


def _all_codecs(declared: Any) -> Iterator[Any]:
    """Codecs of an array's metadata, those within shards too."""
    for one in declared:
        yield one
        inner = one.get("configuration", {})
        yield from _all_codecs([*inner.get("codecs", []), *inner.get("index_codecs", [])])


def _dims(array: zarr.Array[Any]) -> tuple[str | None, ...] | None:
    return array.metadata.dimension_names  # type: ignore[union-attr]


def _inflates(data: bytes, values: int) -> str | None:
    """What is wrong with the size that a zstd chunk of so many values declares: at most a megabyte each, a gigabyte."""
    if data[:4] != b"\x28\xb5\x2f\xfd" or len(data) < 10:
        return "it is no zstd frame"
    single, size = data[4] >> 5 & 1, (0, 2, 4, 8)[data[4] >> 6] or (data[4] >> 5 & 1)
    start = 5 + (0 if single else 1) + (0, 1, 2, 4)[data[4] & 3]
    declared = int.from_bytes(data[start : start + size], "little") + (256 if size == 2 else 0)
    if not size or declared > min(1 << 30, (max(values, 1) + 8) << 20):
        return "it declares no size, or an enormous one"
    return None


def _miscounts(data: bytes, array: zarr.Array[Any]) -> str | None:
    """Whether a chunk of texts, of a size that was checked, begins with another number of them than it has."""
    codecs: Any = array.metadata.to_dict().get("codecs")
    if not any(c["name"].startswith("vlen-") for c in codecs):
        return None
    try:
        count = int.from_bytes(zstd.decompress(data[:-4])[:4], "little")
    except RuntimeError as error:
        return one_line(error)
    return None if count == math.prod(array.chunks) else f"it says that it holds {count:,} texts"
