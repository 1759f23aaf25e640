"""The manifest: what every file of an archive must be, so that nothing changed, exchanged or lost goes unseen.

It is one attribute of the group ``vcinr``: the names of the variables, and digests and a column for each variable as
bytes. A chunk takes four of these, that of a compressed variable eight, before they are deflated.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import zarr
from zarr.abc.store import Store

from vcinr.archive.metadata import RESERVED
from vcinr.archive.store import ROOT, get
from vcinr.errors import NOT_DAMAGE, CorruptError, VcinrError, one_line

KEY = f"{RESERVED}/{ROOT}"
"""The file that has the manifest."""
_FIRST_LAYOUT = f"{RESERVED}/manifest"  # the group that had it in archives of before
_DIGESTS = 40  # bytes of the two digests before the columns
_LARGEST = 1 << 30  # bytes of an inflated manifest: those of a hundred million chunks
MALFORMED = (
    ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError, OverflowError, VcinrError,
    zlib.error,
)  # fmt: skip
"""What JSON gives rise to that is not as it should be."""
MISSING = "it is missing; copy the archive whole"
CHANGED = "these are not the bytes that were written here (manifest)"
_LOST = "the manifest is missing or damaged; restore the archive from a sound copy"
_OTHER = "the metadata are not those that were written; restore the archive from a sound copy"


@dataclass(frozen=True, eq=False)
class Manifest:
    """Checksums of an archive's files, as they were when it was written.

    Parameters
    ----------
    metadata_sha256
        Digest of the metadata of all groups and variables; empty where the manifest is missing or damaged.
    files
        CRC-32 of the files beside the variables, which are those of models, by key.
    chunks
        CRC-32 of the chunks of each variable, in C order.
    chunk_errors
        The largest error of each chunk of a compressed variable, in its units, rounded up to a float32.
    source
        Digest of the values that the archive was made of (:func:`vcinr.archive.plan.source_digest`); empty in archives
        of before.
    """

    metadata_sha256: str = ""
    files: Mapping[str, int] = field(default_factory=dict)
    chunks: Mapping[str, np.ndarray] = field(default_factory=dict)
    chunk_errors: Mapping[str, np.ndarray] = field(default_factory=dict)
    source: str = ""

    @staticmethod
    def read(store: Store) -> Manifest:
        """Read the manifest of an archive.

        Parameters
        ----------
        store
            The archive's store.

        Returns
        -------
        Manifest
            One without anything in it where it is missing or damaged; `problems` then says so.
        """
        try:
            node = json.loads(get(store, KEY) or b"{}")
            if "manifest" in node["attributes"]:
                manifest = Manifest.parse(node["attributes"]["manifest"])
                known = {
                    "attributes": {"manifest": node["attributes"]["manifest"]},
                    "zarr_format": 3,
                    "node_type": "group",
                }
                return manifest if node == known else Manifest()
        except MALFORMED:
            return Manifest()
        return _FirstLayout.read_group(store) or Manifest()

    @classmethod
    def parse(cls, attribute: Mapping[str, Any]) -> Self:
        """Inverse of `attribute`; raises one of `MALFORMED` for what is none."""
        inflate, data = zlib.decompressobj(), base64.b64decode(attribute["data"])
        content = inflate.decompress(data, _LARGEST)
        # There is one way to write bytes in base64, so a change of any letter is seen, at the latest by zlib.
        if base64.b64encode(data).decode() != attribute["data"] or not set(attribute) <= {"arrays", "files", "data"}:
            raise ValueError("it is written in another way")
        arrays = [(str(name), int(count), bool(compressed)) for name, count, compressed in attribute["arrays"]]
        if attribute["arrays"] != [[name, count, int(compressed)] for name, count, compressed in arrays]:
            raise ValueError("a variable has no name, or no number of chunks")
        position = _DIGESTS

        def column(dtype: str, count: int) -> np.ndarray:
            nonlocal position
            start, position = position, position + count * np.dtype(dtype).itemsize
            return np.frombuffer(content, dtype, count, start)

        if any(count < 0 for _, count, _ in arrays):
            raise ValueError("a variable has fewer chunks than none")
        chunks = {name: column("<u4", count) for name, count, _ in arrays}
        errors = {name: column("<f4", count) for name, count, compressed in arrays if compressed}
        if position != len(content) or not inflate.eof:
            raise ValueError("it does not end where it should")
        files = {str(key): int(crc32) for key, crc32 in attribute.get("files", {}).items()}
        return cls(content[:32].hex(), files, chunks, errors, content[32:_DIGESTS].hex())

    def attribute(self) -> dict[str, Any]:
        """Return the manifest for JSON."""
        compressed = {name: int(name in self.chunk_errors) for name in self.chunks}
        columns = [column.astype("<u4").tobytes() for column in self.chunks.values()]
        columns += [_rounded_up(self.chunk_errors[name]).tobytes() for name in self.chunks if compressed[name]]
        content = bytes.fromhex(self.metadata_sha256) + bytes.fromhex(self.source) + b"".join(columns)
        made: dict[str, Any] = {
            "arrays": [[name, len(column), compressed[name]] for name, column in self.chunks.items()],
            "data": base64.b64encode(zlib.compress(content)).decode(),
        }
        return made | ({"files": dict(self.files)} if self.files else {})

    def as_node(self) -> dict[str, Any]:
        """Return the metadata of the group that has the manifest; they lie under `KEY`."""
        return _group(self.attribute())

    def problems(self, store: Store) -> list[str]:
        """Compare the metadata that readers see, attributes, shapes and bounds, with those that were written.

        Parameters
        ----------
        store
            The archive's store. Nothing but the root's metadata are read.

        Returns
        -------
        list of str
            At most one line, which says what is wrong.
        """
        if not self.metadata_sha256:
            return [_LOST]
        try:
            text = json.loads(get(store, ROOT) or b"{}")
            copies = text["consolidated_metadata"]
            nodes = {f"{key}/{ROOT}": node for key, node in copies["metadata"].items()} | {ROOT: text}
            sound = copies["kind"] == "inline" and len(copies) == 3 and self._holds(nodes)
        except MALFORMED:
            sound = False
        return [] if sound else [_OTHER]

    def _holds(self, nodes: dict[str, Any]) -> bool:
        """Whether the metadata are those that were written, by key, of which the root has copies."""
        return metadata_digest(nodes) == self.metadata_sha256

    def file_problems(self, store: Store, keys: Collection[str]) -> list[str]:
        """Compare the files that are no chunk of a variable with their checksums.

        Parameters
        ----------
        store
            The archive's store.
        keys
            All keys that it has.

        Returns
        -------
        list of str
            One line for each file that is missing or changed.
        """
        found = []
        for key, crc32 in self._listed().items():
            try:
                if key not in keys:
                    raise CorruptError(MISSING)
                fetch(store, key, crc32)
            except CorruptError as error:
                found.append(line(key, str(error)))
        return found + self._node_problems(store)

    def _listed(self) -> Mapping[str, int]:
        return self.files

    def _node_problems(self, store: Store) -> list[str]:
        """Compare each node's own metadata with the root's copy of them."""
        found = []
        try:
            copies = json.loads(get(store, ROOT) or b"{}")["consolidated_metadata"]["metadata"]
        except MALFORMED:
            return []  # which `problems` says
        for name, copy in copies.items():
            key = f"{name}/{ROOT}"
            try:
                if canonical(json.loads(fetch(store, key, None))) != canonical(copy):
                    raise CorruptError(CHANGED)
            except CorruptError as error:
                found.append(line(key, str(error)))
            except MALFORMED:
                found.append(line(key, CHANGED))
        return found

    def checksums(self, name: str, counts: tuple[int, ...]) -> np.ndarray:
        """Return the CRC-32 of every chunk of a variable, in C order.

        Parameters
        ----------
        name
            The variable.
        counts
            How many chunks it has along each axis.

        Returns
        -------
        numpy.ndarray
            One-dimensional.

        Raises
        ------
        CorruptError
            Where the manifest has none, or not as many.
        """
        return _column(self.chunks, name, counts)

    def errors(self, name: str, counts: tuple[int, ...]) -> np.ndarray:
        """Return the largest error of every chunk of a compressed variable, in its units; as `checksums`."""
        return _column(self.chunk_errors, name, counts)


@dataclass(frozen=True, eq=False)
class _FirstLayout(Manifest):
    """The manifest of archives of before: a group with an array for each column of each compressed variable.

    Its `files` are all but the chunks of compressed variables.
    """

    store: Store | None = None
    node: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read_group(cls, store: Store) -> _FirstLayout | None:
        try:
            node = json.loads(get(store, f"{_FIRST_LAYOUT}/{ROOT}") or b"{}")
            attributes = node["attributes"]
            files, digest = attributes["files"], attributes["metadata_sha256"]
            if not isinstance(files, dict) or not isinstance(digest, str):
                return None
        except MALFORMED:
            return None
        return cls(digest, files, store=store, node=node)

    def _holds(self, nodes: dict[str, Any]) -> bool:
        copy = nodes.pop(f"{_FIRST_LAYOUT}/{ROOT}")
        copy = {k: v for k, v in copy.items() if k != "consolidated_metadata"}
        return copy == self.node and super()._holds(nodes)

    def _listed(self) -> Mapping[str, int]:
        return {key: crc32 for key, crc32 in self.files.items() if "/c/" not in key and not key.endswith("/c")}

    def _node_problems(self, store: Store) -> list[str]:
        return []  # they are among the files

    def checksums(self, name: str, counts: tuple[int, ...]) -> np.ndarray:
        if f"{_FIRST_LAYOUT}/{name}/crc32/{ROOT}" in self.files:
            return self._column(name, "crc32", counts)
        if math.prod(counts) > len(self.files):
            raise _unreadable(name, "it is of another shape")
        # Chunks of what was not to be compressed are among the files.
        keys = ("/".join([name, "c", *map(str, index)]) for index in itertools.product(*map(range, counts)))
        return np.array([self.files.get(key, -1) for key in keys], np.int64)

    def errors(self, name: str, counts: tuple[int, ...]) -> np.ndarray:
        return self._column(name, "max_abs_error", counts)

    def _column(self, name: str, column: str, counts: tuple[int, ...]) -> np.ndarray:
        try:
            array = zarr.open_array(self.store, path=f"{_FIRST_LAYOUT}/{name}/{column}", mode="r", zarr_format=3)
            # An array of another shape is not read: it may declare any size.
            if array.shape != counts:
                raise ValueError("it is of another shape")
            return np.asarray(array[...]).ravel()
        except NOT_DAMAGE:
            raise
        except Exception as error:  # whatever zarr makes of damaged metadata
            raise _unreadable(name, one_line(error)) from None


def _column(columns: Mapping[str, np.ndarray], name: str, counts: tuple[int, ...]) -> np.ndarray:
    if name not in columns:
        raise _unreadable(name, "it is missing")
    if len(columns[name]) != math.prod(counts):
        raise _unreadable(name, "it is of another shape")
    return columns[name]


def _group(attribute: Mapping[str, Any]) -> dict[str, Any]:
    return {"attributes": {"manifest": attribute}, "zarr_format": 3, "node_type": "group"}


def _rounded_up(errors: np.ndarray) -> np.ndarray:
    """Numbers as float32, none of them smaller."""
    with np.errstate(over="ignore"):
        single = errors.astype("<f4")
    return np.where(single < errors, np.nextafter(single, np.float32(np.inf)), single).astype("<f4")


def _unreadable(name: str, why: str) -> CorruptError:
    return CorruptError(f"variable {name!r}: its manifest cannot be read ({why})")


def fetch(store: Store, key: str, crc32: int | None) -> bytes:
    """Read a file and compare it with its checksum.

    Parameters
    ----------
    store
        The archive's store.
    key
        The file.
    crc32
        What its CRC-32 must be; None where nothing is known of it.

    Returns
    -------
    bytes
        The whole file.

    Raises
    ------
    CorruptError
        Where it is missing or another.
    """
    data = get(store, key)
    if data is None:
        raise CorruptError(MISSING)
    if crc32 is not None and zlib.crc32(data) != crc32:
        raise CorruptError(CHANGED)
    return data


def line(key: str, problem: str) -> str:
    """Describe a problem in one line that names the file."""
    return problem if key in problem else f"chunk {key}: {problem}"


def metadata_digest(nodes: Mapping[str, Mapping[str, Any]]) -> str:
    """Digest the metadata of groups and variables.

    Parameters
    ----------
    nodes
        Parsed JSON by key (``group/array/zarr.json``).

    Returns
    -------
    str
        SHA-256 of a text with one line ``KEY JSON`` for each node, sorted by key; see `canonical`.
    """
    digest = hashlib.sha256()
    for key, node in sorted(nodes.items()):
        digest.update(f"{key} {canonical(node)}\n".encode())
    return digest.hexdigest()


def canonical(node: Mapping[str, Any]) -> str:
    """Write a node's metadata as JSON with sorted keys and no spaces, without consolidated metadata."""
    plain = {k: v for k, v in node.items() if k != "consolidated_metadata"}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def compact(node: Mapping[str, Any]) -> str:
    """Write a node's metadata as JSON without spaces."""
    return json.dumps(node, separators=(",", ":"))
