"""Inputs of a bulk run: which files they are, which archive each becomes, and the data set that a batch opens."""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vcinr.archive import metadata
from vcinr.archive.blocks import READING
from vcinr.archive.metadata import Groups
from vcinr.archive.repository import is_repository
from vcinr.bulk.engines import engine_of, run
from vcinr.bulk.place import Place, patiently
from vcinr.bulk.request import Request
from vcinr.errors import InputError, one_line
from vcinr.formats.open import open_groups
from vcinr.places import ABSENT, file_system, is_url, stem

if TYPE_CHECKING:
    from vcinr.formats.concat import Concat, FileFacts

T = TypeVar("T")
U = TypeVar("U")

JOINED = "joined"
"""Folder of the staging place that says what is in files that are joined."""


@dataclass(frozen=True)
class Source:
    """What becomes one archive.

    Parameters
    ----------
    paths
        The path or URL; several where they are joined.
    bytes
        Size of all.
    identity
        Changes when one of them is changed: digest of sizes and times of modification or, of objects, their ETags.
    """

    paths: tuple[str, ...]
    bytes: int
    identity: str

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.paths[0] if len(self.paths) == 1 else f"{self.paths[0]} and {len(self.paths) - 1} more"


def expand(inputs: Iterable[str] | str) -> list[str]:
    """List the files that paths, URLs and patterns stand for.

    Parameters
    ----------
    inputs
        One or several. A pattern is expanded as a shell would; a folder that is no store stands for the files in it.

    Returns
    -------
    list of str
        Those of each input in its turn, sorted; none twice.

    Raises
    ------
    InputError
        Where there is none, or nothing fits a pattern.
    """
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    paths = [path for pattern in map(with_home, given) for path in _expand(pattern)]
    if not paths:
        raise InputError("inputs: no file named; give a path, a pattern or a URL")
    return list(dict.fromkeys(paths))


def targets(inputs: Iterable[str] | str, output: str, *, concat: bool = False) -> list[tuple[tuple[str, ...], str]]:
    """Decide which archive each input becomes.

    Parameters
    ----------
    inputs
        As in `expand`.
    output
        A path or an fsspec URL. For a single input that is not a pattern, a name ending in .zarr or .zip is the
        archive, and so is any name where all inputs are joined. Otherwise it is a folder, which receives an archive
        STEM.zarr for each input.
    concat
        Whether all inputs are joined.

    Returns
    -------
    list of (tuple of str, str)
        Inputs and archive.

    Raises
    ------
    InputError
        Where there is no input, where two inputs would become the same archive, or an archive its own input.
    """
    given = [inputs] if isinstance(inputs, str) else list(inputs)
    output = with_home(output)
    paths = expand(given)
    if concat:
        return _apart([(tuple(paths), output)])
    if len(paths) == 1 and not is_pattern(given[0]) and is_archive_name(output):
        return _apart([((paths[0],), output)])
    if is_archive_name(output) and len(paths) > 1:
        raise InputError(
            f"{output}: {len(paths)} inputs become an archive each, and this is the name of one; give a folder, or "
            "the dimension along which they are joined (--concat)"
        )
    jobs: dict[str, str] = {}
    for path in paths:
        target = f"{output.rstrip('/')}/{stem(path)}.zarr"
        if jobs.setdefault(target, path) != path:
            raise InputError(f"{jobs[target]} and {path} would both become {target}; use two folders")
    return _apart([((path,), target) for target, path in jobs.items()])


def _apart(jobs: list[tuple[tuple[str, ...], str]]) -> list[tuple[tuple[str, ...], str]]:
    for paths, target in jobs:
        own = target if is_url(target) else os.path.realpath(target)
        for path in paths:
            if (path if is_url(path) else os.path.realpath(path)) == own:
                raise InputError(f"{path}: the archive would replace its own input; choose another output")
    return jobs


def is_archive_name(place: str) -> bool:
    """Whether a name is that of one archive, and not of a folder of archives."""
    return place.endswith((".zarr", ".zip")) or is_repository(place)


def is_pattern(path: str) -> bool:
    """Whether a path or URL is a glob pattern."""
    if is_url(path):
        return "*" in path  # URLs contain other wildcards, such as "?", with a meaning of their own
    return any(c in path for c in "*?[") and not os.path.exists(path)


def with_home(path: str) -> str:
    """A path with ``~`` replaced by the home folder; URLs are unchanged."""
    return path if is_url(path) else os.path.expanduser(path)


def _expand(path: str) -> list[str]:
    """The files that a path, URL or pattern stands for, sorted."""
    if is_pattern(path):
        if is_url(path):
            fs, inner = file_system(path)
            matches = [fs.unstrip_protocol(name) for name in patiently(lambda: fs.glob(inner))]
        else:
            matches = glob.glob(path, recursive=True)
        if not matches:
            raise InputError(f"{path}: no file matches this pattern")
        return sorted(matches)
    if not is_url(path) and os.path.isdir(path) and not _is_store(path):
        files = sorted(str(f) for f in Path(path).iterdir() if f.is_file() and not f.name.startswith("."))
        if not files:
            raise InputError(f"{path}: a folder without files; give files, or a folder that has some")
        return files
    return [path]


def _is_store(folder: str) -> bool:
    """Whether a folder is of a known format itself."""
    from vcinr import formats

    return any(os.path.exists(os.path.join(folder, member)) for form in formats.known() for member in form.members)


def source_of(paths: tuple[str, ...]) -> Source:
    """Look at the sizes and times of some files, and open none; raises InputError where one is missing."""
    stamps = [_stamp(path) for path in paths]
    digest = hashlib.blake2b(json.dumps([list(paths), stamps]).encode(), digest_size=16).hexdigest()
    return Source(paths, sum(stamp[0] for stamp in stamps), digest)


def _stamp(path: str) -> tuple[int, str]:
    """Size of a file or a folder, and what tells its contents from others of this size."""
    try:
        if is_url(path):
            fs, inner = file_system(path)
            fs.invalidate_cache()
            one = patiently(lambda: fs.info(inner))
            if one.get("type") == "directory":
                files = patiently(lambda: fs.find(inner, detail=True))
                return sum(int(f["size"] or 0) for f in files.values()), _mark(files)
            return int(one.get("size") or 0), _mark({"": one})
        status = os.stat(path)
        if not os.path.isdir(path):
            return status.st_size, str(status.st_mtime_ns)
        every = [f.stat() for f in Path(path).rglob("*")]
        return sum(f.st_size for f in every), str(max([status.st_mtime_ns, *(f.st_mtime_ns for f in every)]))
    except ABSENT:
        raise InputError(f"{path}: no such file or store; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({one_line(error)}); check the path") from None


def _mark(files: dict[str, Any]) -> str:
    """A digest of what a server says of objects."""
    keys = ("ETag", "mtime", "LastModified", "last_modified", "created", "size")
    said = [[name, *(str(one.get(key, "")) for key in keys)] for name, one in sorted(files.items())]
    return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()


def changed(path: str) -> float | None:
    """When a file, or the newest file of a folder, was changed, in seconds since 1970; None where it is not there.

    0 where that cannot be known.
    """
    try:
        if is_url(path):
            fs, inner = file_system(path)
            fs.invalidate_cache()
            return _seconds(patiently(lambda: fs.info(inner)))
        if not os.path.isdir(path):
            return os.stat(path).st_mtime
        return max(file.stat().st_mtime for file in [Path(path), *Path(path).rglob("*")])
    except ABSENT:
        return None


def _seconds(info: dict[str, Any]) -> float:
    """The time of a change, as various file systems of fsspec say it."""
    for name in ("LastModified", "last_modified", "mtime", "updated", "created"):
        value = info.get(name)
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return 0.0


def check_unchanged(source: Source) -> None:
    """Raise InputError where a file is not as it was when the run was planned."""
    if source_of(source.paths).identity != source.identity:
        raise InputError(f"{source.name}: was changed after the run was planned; run the command again")


def joined(paths: tuple[str, ...], dim: str) -> Concat:
    """Look into all files that are joined along a dimension; errors as of :func:`vcinr.formats.concat.open_concat`.

    Many files are looked into by a process for each core.
    """
    from vcinr.formats.concat import merge

    parts = [paths[start : start + _LOOK] for start in range(0, len(paths), _LOOK)]
    engine = engine_of("processes" if len(parts) > 2 else "serial")
    return merge(_in_order(run(engine, partial(_facts, dim=dim), parts), parts), paths, dim)


_LOOK = 50  # files that a process looks into at a time


def _facts(paths: tuple[str, ...], dim: str) -> list[FileFacts]:
    from vcinr.formats.concat import facts_of

    with READING:
        return [facts_of(path, dim) for path in paths]


def _in_order(results: Iterator[tuple[T, list[U] | Exception]], parts: Sequence[T]) -> Iterator[U]:
    """What the parts give, in their order, so that errors name the same files whoever was faster."""
    found: dict[T, list[U] | Exception] = {}
    for part in parts:
        while part not in found:
            key, result = next(results)
            found[key] = result
        given = found.pop(part)
        if isinstance(given, Exception):
            raise given
        yield from given


def note_joined(place: str, key: str, whole: Concat) -> None:
    """Keep in the staging place what was seen in the files of an item, so that batches need not look again."""
    Place(place).put(f"{JOINED}/{key}.json", json.dumps(whole.as_node(), separators=(",", ":")).encode())


@lru_cache(2)
def _noted(place: str, key: str) -> Concat:
    from vcinr.formats.concat import concat_of

    data = Place(place).get(f"{JOINED}/{key}.json")
    if data is None:
        raise InputError(f"{place}: what was seen in the files that are joined is gone; run the command again")
    return concat_of(json.loads(data))


@dataclass(frozen=True, eq=False)
class Opened:
    """The data set that becomes an archive.

    Parameters
    ----------
    groups
        By path, as they are stored (:func:`vcinr.archive.metadata.stored`), lazily.
    variables
        Those that hold the signals of a file which is one, such as an image; None of any other.
    files
        What was opened.
    """

    groups: Groups
    variables: list[str] | None
    files: Groups


_OPEN: dict[Any, Opened] = {}
_KEPT = 2  # data sets that a process keeps open for what comes next


def open_source(
    source: Source, request: Request, place: str = "", key: str = "", whole: Concat | None = None
) -> Opened:  # fmt: skip
    """Open the data set that becomes an archive.

    Parameters
    ----------
    source
        Its file or files.
    request
        Says how.
    place, key
        Of files that are joined, the staging place and the key under which it says what is in them.
    whole
        The same, where it is at hand.

    Returns
    -------
    Opened
        All threads of this process share it while it is among the last ones. HDF5 2.2 crashes where a file with text is
        open twice and one of the two is closed.

    Raises
    ------
    InputError
        As :func:`vcinr.formats.open.open_groups`.
    """
    known = (source, request.concat, request.kind, request.resolution)
    with READING:
        if known in _OPEN:
            return _OPEN[known]
        close_sources(_KEPT - 1)
        if request.concat is None:
            files, variables = _opened(source.paths, request)
        else:
            from vcinr.formats.concat import opened

            files, variables = opened(_noted(place, key) if whole is None else whole), None
        groups = {path: metadata.stored(group, path) for path, group in metadata.as_groups(files).items()}
        _OPEN[known] = Opened(groups, variables, files)
        return _OPEN[known]


def close_sources(kept: int = 0) -> None:
    """Close what `open_source` keeps open, but for the last `kept`; where values are asked for, it opens again."""
    with READING:
        while len(_OPEN) > kept:
            for group in _OPEN.pop(next(iter(_OPEN))).files.values():
                group.close()


def _opened(paths: tuple[str, ...], request: Request) -> tuple[Groups, list[str] | None]:
    try:
        from vcinr.kinds import files
    except ImportError as error:
        if request.kind or request.resolution:
            raise InputError(
                f"files of signals such as images need the package {error.name}: pip install 'vcinr[formats]'"
            ) from None
        return open_groups(paths[0]), None
    groups, variables = files.open_files(list(paths), request.kind, request.resolution)
    return groups, variables
