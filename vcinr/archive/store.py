"""Where archives lie: a folder, a zip file, or any place that fsspec knows; one interface to read, one to publish.

An archive is built in a local folder and then published. It appears under its name at once where the place allows
it (folder, zip), and elsewhere its root metadata, without which it is no archive, is written last.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import Any, Literal

import fsspec
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from vcinr.archive import repository
from vcinr.archive.metadata import RESERVED
from vcinr.errors import CorruptError, InputError, one_line
from vcinr.places import ABSENT, file_system, is_url, remove

ROOT = "zarr.json"
OLD = "old"  # where an archive that is being replaced waits until the new one is in its place
_FIRST = f"{RESERVED}/{ROOT}"  # of an upload, so that one that broke is known for what it is
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip files of equal contents are equal files


def open_store(place: str | Path) -> Store:
    """Open the store of an archive for reading.

    Parameters
    ----------
    place
        A folder, a zip file, an fsspec URL, or an icechunk repository (:mod:`vcinr.archive.repository`).

    Returns
    -------
    zarr.abc.store.Store
        Read-only.

    Raises
    ------
    InputError
        When nothing is there that could be an archive.
    """
    if repository.is_repository(place):
        return repository.open_store(place)
    if is_url(place):
        url = f"zip::{place}" if str(place).endswith(".zip") and "::" not in str(place) else str(place)
        try:
            return zarr.storage.FsspecStore.from_url(url, read_only=True, allowed_exceptions=ABSENT)
        except (ValueError, ImportError, OSError) as error:
            raise InputError(f"{place}: cannot be opened ({error}); give a path or a URL that fsspec reads") from None
    path = Path(place)
    if not path.exists():
        raise InputError(f"{place}: no such archive")
    if path.is_dir():
        return zarr.storage.LocalStore(path, read_only=True)
    if not zipfile.is_zipfile(path):
        raise InputError(f"{place}: neither a Zarr store nor a zip file; give the archive's folder or .zip")
    return sync(zarr.storage.ZipStore.open(path, mode="r", read_only=True))


def get(store: Store, key: str) -> bytes | None:
    """Read one file of an archive.

    Parameters
    ----------
    store
        The archive's store.
    key
        The file.

    Returns
    -------
    bytes or None
        The whole file; None where there is none.

    Raises
    ------
    CorruptError
        Where the place itself cannot read it, or finds it damaged; the message names the key.
    """
    try:
        buffer = sync(store.get(key, default_buffer_prototype()))
    except MemoryError:
        raise
    except Exception as error:  # a zip file's checksum, a server's answer, a disk's
        raise CorruptError(f"chunk {key} cannot be read ({one_line(error)})") from None
    return None if buffer is None else buffer.to_bytes()


def keys(store: Store) -> list[str]:
    """Return every key of a store, sorted."""

    async def collect() -> list[str]:
        return [key async for key in store.list()]

    return sorted(sync(collect()))


def size_of(store: Store, key: str) -> int:
    """Return the size of one file in bytes; 0 where there is none."""
    try:
        return int(sync(store.getsize(key)))
    except FileNotFoundError:
        return 0


def occupant(place: str | Path) -> Literal["nothing", "archive", "other"]:
    """Say what an archive written to a place would replace.

    Parameters
    ----------
    place
        A path or an fsspec URL.

    Returns
    -------
    str
        ``archive`` for an archive of vcinr; ``nothing``, also for an empty folder and for what a broken upload left;
        ``other`` for anything that must not be replaced.

    Raises
    ------
    InputError
        For a URL that fsspec does not know.
    """
    if repository.is_repository(place):
        if not repository.holds_anything(place):
            return "nothing"
        held = open_store(place)
        return "archive" if get(held, ROOT) is not None and get(held, _FIRST) is not None else "other"
    fs, inner = file_system(place) if is_url(place) else (fsspec.filesystem("file"), str(place))
    if not is_url(place) and os.path.islink(inner) and not os.path.exists(inner):
        return "other"
    if not fs.exists(inner):
        return "nothing"
    if fs.isfile(inner):
        with fs.open(inner, "rb") as file:
            if not zipfile.is_zipfile(file):
                return (
                    "nothing" if is_url(place) and file.seek(0) == 0 and file.read(4) in (b"PK\3\4", b"") else "other"
                )
            return "archive" if {ROOT, _FIRST} <= set(zipfile.ZipFile(file).namelist()) else "other"
    if fs.exists(f"{inner}/{ROOT}"):
        return "archive" if fs.exists(f"{inner}/{_FIRST}") else "other"
    broken = is_url(place) and fs.exists(f"{inner}/{_FIRST}")
    return "nothing" if broken or not fs.ls(inner) else "other"


def total_bytes(place: str | Path) -> int:
    """Return the size of a whole archive in bytes."""
    if repository.is_repository(place):
        return repository.total_bytes(place)
    if is_url(place):
        fs, inner = file_system(place)
        return int(fs.du(inner, total=True))
    path = Path(place)
    return path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def workplace(place: str | Path) -> Path:
    """Return the local folder where an archive is built: beside its place, or in the user's cache for a URL."""
    if not is_url(place):
        beside = Path(repository.inner(place))
        return beside.with_name(f".{beside.name}.part")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vcinr"
    return cache / hashlib.sha256(str(place).encode()).hexdigest()[:16]


def restore(work: Path, place: str | Path) -> None:
    """Put an archive back that a killed run had moved away to replace it.

    Parameters
    ----------
    work
        The folder where the new archive is built (`workplace`).
    place
        Where the archive belongs.
    """
    if (
        not is_url(place)
        and not repository.is_repository(place)
        and (work / OLD).exists()
        and not os.path.lexists(place)
    ):
        (work / OLD).rename(place)
    remove(work / OLD)


def publish(tree: Path, place: str | Path, present: Collection[str] = ()) -> None:
    """Bring a finished archive to its place, and replace the one that is there.

    Parameters
    ----------
    tree
        The folder in which it was built. It is moved where it can be.
    place
        Where it is to be.
    present
        Keys of files that lie in their place already; behind the URL of a folder alone.

    Raises
    ------
    OSError
        Where the place cannot be written; the archive that was there is then there again.
    """
    if repository.is_repository(place):
        repository.publish(tree, place)
        return
    zipped = str(place).endswith(".zip")
    if zipped:
        file = tree.with_suffix(".zip")
        _zip(tree, file)
    if is_url(place):
        fs, inner = file_system(place)
        if zipped:
            _put(fs, file, inner)
        else:
            _upload(tree, fs, inner.rstrip("/"), present)
        return
    target, new = Path(place), file if zipped else tree
    if zipped and not target.is_dir():
        new.replace(target)
        return
    old = tree.with_name(OLD)  # aside, so that one of the two is there whatever happens
    if os.path.lexists(target):
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists() and not target.exists():
            old.rename(target)
        raise
    remove(old)


def _zip(tree: Path, file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for path in sorted(p for p in tree.rglob("*") if p.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), _EPOCH)
            entry.external_attr = 0o644 << 16
            # Chunks do not deflate, and where they are stored a part of the file is the chunk.
            method = zipfile.ZIP_DEFLATED if path.name == ROOT else zipfile.ZIP_STORED
            archive.writestr(entry, path.read_bytes(), method, 9)


def takes_chunks(place: str | Path) -> bool:
    """Whether chunks can be written to their keys in a place before the archive is published: the URL of a folder."""
    return is_url(place) and not repository.is_repository(place) and not str(place).endswith(".zip")


def begin(place: str) -> None:
    """Prepare the URL of a folder for chunks: what is there is no archive until `publish` has written the root's file.

    Raises
    ------
    OSError
        Where the place cannot be written.
    """
    fs, inner = file_system(place)
    inner = inner.rstrip("/")
    if fs.exists(f"{inner}/{ROOT}"):
        fs.rm(f"{inner}/{ROOT}")
    if not fs.exists(f"{inner}/{_FIRST}"):
        fs.makedirs(f"{inner}/{RESERVED}", exist_ok=True)
        fs.pipe_file(f"{inner}/{_FIRST}", b'{"zarr_format":3,"node_type":"group"}')


def _upload(tree: Path, fs: Any, inner: str, present: Collection[str]) -> None:
    stale = set()
    if fs.exists(inner):
        if fs.exists(f"{inner}/{ROOT}"):
            fs.rm(f"{inner}/{ROOT}")  # from here on it is no archive until the new one is whole
        stale = set(fs.find(inner))
    made = {fs._strip_protocol(f"{inner}/{key}") for key in present}
    files = [p for p in tree.rglob("*") if p.is_file()]
    for path in sorted(files, key=lambda p: (p == tree / ROOT, p != tree / _FIRST, p)):
        name = f"{inner}/{path.relative_to(tree).as_posix()}"
        _put(fs, path, name)
        made.add(fs._strip_protocol(name))
    for name in stale - made:
        if fs.exists(name):
            fs.rm(name)


def _put(fs: Any, path: Path, name: str) -> None:
    fs.makedirs(name.rpartition("/")[0], exist_ok=True)
    fs.put_file(str(path), name)
