"""The manifest: what every file of an archive must be, so that nothing changed, exchanged or lost goes unseen."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store

from vcinr.archive.metadata import RESERVED
from vcinr.archive.store import ROOT, get
from vcinr.errors import NOT_DAMAGE, CorruptError, VcinrError, one_line

FIRST_LAYOUT = f"{RESERVED}/manifest"
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError, VcinrError)
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
        CRC-32 of other files by key.
    """

    metadata_sha256: str = ""
    files: Mapping[str, int] = field(default_factory=dict)

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
        return _FirstLayout.parse(store) or Manifest()

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
        for key, crc32 in self.files.items():
            try:
                if key not in keys:
                    raise CorruptError(MISSING)
                fetch(store, key, crc32)
            except CorruptError as error:
                found.append(line(key, str(error)))
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
        raise _unreadable(name, "it is missing")

    def errors(self, name: str, counts: tuple[int, ...]) -> np.ndarray:
        """Return the largest error of every chunk of a compressed variable, in its units; as `checksums`."""
        raise _unreadable(name, "it is missing")


@dataclass(frozen=True, eq=False)
class _FirstLayout(Manifest):
    """The manifest as a group of arrays, one for each column of each compressed variable."""

    store: Store | None = None
    node: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def parse(cls, store: Store) -> _FirstLayout | None:
        try:
            node = json.loads(get(store, f"{FIRST_LAYOUT}/{ROOT}") or b"{}")
            attributes = node["attributes"]
            files, digest = attributes["files"], attributes["metadata_sha256"]
            if not isinstance(files, dict) or not isinstance(digest, str):
                return None
        except MALFORMED:
            return None
        return cls(digest, files, store, node)

    def _holds(self, nodes: dict[str, Any]) -> bool:
        copy = nodes.pop(f"{FIRST_LAYOUT}/{ROOT}")
        copy = {k: v for k, v in copy.items() if k != "consolidated_metadata"}
        return copy == self.node and super()._holds(nodes)

    def checksums(self, name: str, counts: tuple[int, ...]) -> np.ndarray:
        if f"{FIRST_LAYOUT}/{name}/crc32/{ROOT}" in self.files:
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
            array = zarr.open_array(self.store, path=f"{FIRST_LAYOUT}/{name}/{column}", mode="r", zarr_format=3)
            # An array of another shape is not read: it may declare any size.
            if array.shape != counts:
                raise ValueError("it is of another shape")
            return np.asarray(array[...]).ravel()
        except NOT_DAMAGE:
            raise
        except Exception as error:  # whatever zarr makes of damaged metadata
            raise _unreadable(name, one_line(error)) from None


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


def write_manifest(
    root: zarr.Group,
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]],
    counted: Iterable[str],
    tree: Path,
) -> None:
    """Write the manifest of a finished archive: CRC-32 and error columns by variable, CRC-32 of every other file."""
    manifest = root.require_group(FIRST_LAYOUT)
    for variable, (sums, errors) in columns.items():
        group = manifest.require_group(variable)
        for name, column in (("max_abs_error", errors), ("crc32", sums)):
            group.create_array(
                name, data=column, compressors=None, dimension_names=[f"chunk_{i}" for i in range(column.ndim)]
            )
    known, files, nodes = set(counted), {}, {}
    for file in sorted(p for p in tree.rglob("*") if p.is_file()):
        key = file.relative_to(tree).as_posix()
        if key in known or key == f"{FIRST_LAYOUT}/{ROOT}":
            continue
        data = file.read_bytes()
        if file.name == ROOT:
            nodes[key] = json.loads(data)
        if key != ROOT:  # which is written again
            files[key] = zlib.crc32(data)
    manifest.attrs.update({"files": files, "metadata_sha256": metadata_digest(nodes)})
