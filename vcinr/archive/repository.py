"""Archives in icechunk repositories, whose place is ``icechunk:PATH`` or ``icechunk:s3://BUCKET/PREFIX``.

An archive is written by one commit, so readers see all or nothing, and earlier versions of the repository keep what was
there. Needs the package icechunk (``pip install 'vcinr[icechunk]'``).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from vcinr.errors import InputError, one_line

PREFIX = "icechunk:"
"""How such a place begins."""
_BRANCH = "main"


def is_repository(place: str | Path) -> bool:
    """Whether a place is in an icechunk repository."""
    return str(place).startswith(PREFIX)


def inner(place: str | Path) -> str:
    """The path or URL of a repository; of any other place, the place."""
    return str(place).removeprefix(PREFIX)


def open_store(place: str | Path) -> Store:
    """Open a repository for reading; raises InputError where none is there."""
    try:
        repository = _icechunk().Repository.open(_storage(place))
        store: Store = repository.readonly_session(_BRANCH).store
    except InputError:
        raise
    except Exception as error:  # its errors have no common type
        raise InputError(f"{place}: no icechunk repository can be opened there ({one_line(error)})") from None
    return store


def holds_anything(place: str | Path) -> bool:
    """Whether a repository is there, and has anything in it."""
    storage = _storage(place)
    if not _icechunk().Repository.exists(storage):
        return False
    return not sync(open_store(place).is_empty(""))


def total_bytes(place: str | Path) -> int:
    """Size of what the repository's last version holds."""
    return int(sync(open_store(place).getsize_prefix("")))


def publish(tree: Path, place: str | Path) -> None:
    """Commit a finished archive, in the place of what is there.

    Parameters
    ----------
    tree
        The folder in which it was built.
    place
        The repository; it is made where there is none.

    Raises
    ------
    OSError
        Where it cannot be written, or another process has committed at the same time.
    """
    try:
        repository = _icechunk().Repository.open_or_create(_storage(place))
        session = repository.writable_session(_BRANCH)
        sync(session.store.clear())
        files = [p for p in tree.rglob("*") if p.is_file()]
        buffer: Any = default_buffer_prototype().buffer
        for file in sorted(files, key=lambda p: (p.name != "zarr.json", len(p.parts), p)):  # a node before its chunks
            sync(session.store.set(file.relative_to(tree).as_posix(), buffer.from_bytes(file.read_bytes())))
        session.commit("An archive of vcinr")
    except InputError:
        raise
    except Exception as error:  # its errors have no common type
        raise OSError(f"icechunk: {one_line(error)}") from None


def _icechunk() -> Any:
    try:
        import icechunk
    except ImportError:
        raise InputError(
            f"a place that begins with {PREFIX} needs the package icechunk: pip install 'vcinr[icechunk]'"
        ) from None
    return icechunk


def _storage(place: str | Path) -> Any:
    """Where a repository lies; credentials of S3 come from the environment."""
    icechunk, where = _icechunk(), inner(place)
    if "://" not in where:
        return icechunk.local_filesystem_storage(where)
    if not where.startswith("s3://"):
        raise InputError(f"{place}: an icechunk repository lies in a folder or on S3; give icechunk:s3://BUCKET/PREFIX")
    bucket, _, prefix = where.removeprefix("s3://").partition("/")
    return icechunk.s3_storage(bucket=bucket, prefix=prefix or None, from_env=True)
