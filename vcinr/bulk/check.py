"""Verification and decompression of archives on an engine: every chunk is fetched once, and a few are held at a time.

Originals are removed here, and nowhere else: each after its whole archive was read back and every bound was kept.
"""

from __future__ import annotations

import glob
import math
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from vcinr.archive import netcdf, read
from vcinr.archive.contents import Archive, open_contents
from vcinr.archive.metadata import PREFIX
from vcinr.archive.verify import Part, Verification
from vcinr.archive.verify import verify as verify_whole
from vcinr.bulk.engines import Engine, report, run
from vcinr.bulk.place import Place
from vcinr.bulk.request import Request
from vcinr.bulk.source import (
    Source,
    close_sources,
    expand,
    is_archive_name,
    is_pattern,
    joined,
    open_source,
    source_of,
    targets,
    with_home,
)
from vcinr.errors import InputError, VcinrError, one_line
from vcinr.formats.base import KIND_OF_SIGNAL, VOXELS
from vcinr.formats.concat import Concat
from vcinr.places import is_url, stem
from vcinr.progress import Clock, Progress, Watch, silent

_RATE = 4e6  # values that a core decodes and compares in a second, about
_MANY = 32  # archives from which on each is verified whole by one worker, without a look into it before


@dataclass(frozen=True)
class Pair:
    """An archive and what it was made of.

    Parameters
    ----------
    archive
        Path or URL.
    source
        The original; None where there is nothing to compare with.
    """

    archive: str
    source: Source | None = None


@dataclass
class Verdict:
    """What was found of an archive.

    Parameters
    ----------
    archive
        Path or URL.
    problems, facts
        As :func:`vcinr.archive.verify.verify` returns them.
    """

    archive: str
    problems: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Batch:
    """Chunks of one archive: `spans` of variables, or all where there are none."""

    number: int
    pair: Pair
    request: Request
    whole: Concat | None
    spans: tuple[tuple[str, int, int], ...] = ()


def pairs(archives: str, against: Iterable[str] | str | None, concat: str | None = None) -> list[Pair]:
    """Say which archives there are, and which original each has.

    Parameters
    ----------
    archives
        An archive, a pattern, or the folder of a bulk run.
    against
        The originals: for an archive its own, and else what the bulk run was given as inputs.
    concat
        The dimension along which they were joined.

    Returns
    -------
    list of Pair

    Raises
    ------
    InputError
        Where there is no archive, or an original is missing.
    """
    archives = with_home(archives)
    if is_archive(archives):
        paths = None if against is None else tuple(expand(against))
        return [Pair(archives, None if paths is None else source_of(paths))]
    if against is not None:
        return [Pair(target, source_of(paths)) for paths, target in targets(against, archives, concat=bool(concat))]
    found = _archives_in(archives)
    if not found:
        raise InputError(f"{archives}: no archive is there; give an archive, a pattern, or a folder of archives")
    return [Pair(archive) for archive in found]


def is_archive(place: str) -> bool:
    """Whether a place is that of one archive, and not a pattern or a folder of archives."""
    if is_pattern(place):
        return False
    if is_archive_name(place) or not (place.endswith("/") if is_url(place) else os.path.isdir(place)):
        return True
    return Place(place).get("zarr.json") is not None


def _archives_in(place: str) -> list[str]:
    """The archives that a pattern or a folder stands for, sorted."""
    if is_pattern(place):
        return expand(place) if is_url(place) else sorted(glob.glob(place))
    if is_url(place):
        return [a for ending in (".zarr", ".zip") for a in _listed(f"{place.rstrip('/')}/*{ending}")]
    return sorted(str(p) for ending in (".zarr", ".zip") for p in Path(place).glob(f"*{ending}"))


def _listed(pattern: str) -> list[str]:
    try:
        return expand(pattern)
    except InputError:
        return []


def verify(
    every: Iterable[Pair], engine: Engine, *, concat: str | None = None, batch_seconds: float = 30.0,
    stall_s: float = 600.0, watch: Watch = silent,
) -> Iterator[Verdict]:  # fmt: skip
    """Verify archives, as :func:`vcinr.archive.verify.verify` does, on an engine.

    Parameters
    ----------
    every
        Archives and originals.
    engine
        Who does it.
    concat
        The dimension along which originals were joined.
    batch_seconds
        Work in a batch, about, in seconds of a core.
    stall_s
        As of :func:`vcinr.bulk.engines.run`.
    watch
        Is told of each batch.

    Yields
    ------
    Verdict
        Of each archive, when it is complete.

    Raises
    ------
    EngineLost
        Where all workers are gone.
    """
    chosen = list(every)
    state: dict[int, _State] = {}
    ended: list[Verdict] = []
    done = 0
    clock = Clock(len(chosen))

    def batches() -> Iterator[_Batch]:
        for number, pair in enumerate(chosen):
            request, whole = Request(), None
            if len(chosen) > _MANY and concat is None:
                state[number] = _State(pair, None, [], 1)
                yield _Batch(number, pair, request, None)
                continue
            try:
                request = _request_of(pair.archive, concat)
                if pair.source is not None and concat is not None:
                    whole = joined(pair.source.paths, concat)
                work = Verification(pair.archive, _original(pair, request, whole))
                problems = work.preliminary()
                made = [
                    _Batch(number, pair, request, whole, spans)
                    for spans in _cut(work, work.counts(problems), batch_seconds)
                ]
            except VcinrError as error:
                ended.append(Verdict(pair.archive, [str(error)]))
                continue
            state[number] = _State(pair, work, problems, len(made))
            if not made:
                ended.append(state.pop(number).verdict())
            yield from made

    for count, (batch, result) in enumerate(run(engine, _verified, batches(), stall_s=stall_s), 1):
        one = state[batch.number]
        one.add(batch, result)
        if not one.left:
            ended.append(state.pop(batch.number).verdict())
        while ended:
            verdict = ended.pop(0)
            done += 1
            watch(Progress("verify", done, len(chosen), {"batches": count}, clock.left(done), verdict.archive))
            yield verdict
    yield from ended
    close_sources()


@dataclass
class _State:
    """An archive whose batches are under way."""

    pair: Pair
    work: Verification | None
    problems: list[str]
    left: int
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, batch: _Batch, result: Any) -> None:
        """Take note of the result of a batch."""
        self.left -= 1
        if isinstance(result, Exception):
            self.problems.append(one_line(result))
        elif self.work is None:
            self.problems, self.facts = result
        else:
            for part in result:
                self.work.add(part)

    def verdict(self) -> Verdict:
        """What was found, once nothing is left."""
        problems, facts = (self.problems, self.facts) if self.work is None else self.work.finish(self.problems)
        return Verdict(self.pair.archive, problems, facts)


def _cut(work: Verification, counts: Mapping[str, int], seconds: float) -> Iterator[tuple[tuple[str, int, int], ...]]:
    """Deal the chunks of an archive to batches of about so many seconds."""
    spans: list[tuple[str, int, int]] = []
    room = most = seconds * _RATE
    for name, count in counts.items():
        size = math.prod(work.arrays[name].chunks)
        start = 0
        while start < count:
            taken = min(count - start, max(1, int(room // max(1, size))))
            spans.append((name, start, start + taken))
            start, room = start + taken, room - taken * size
            if room < size:
                yield tuple(spans)
                spans, room = [], most
    if spans:
        yield tuple(spans)


_LAST = threading.local()


def _request_of(archive: str, concat: str | None) -> Request:
    """How the original of an archive is opened."""
    root: Mapping[str, Any] = open_contents(archive).root.attrs
    return Request(concat=concat, kind=root.get(KIND_OF_SIGNAL), resolution=root.get(VOXELS))


def _original(pair: Pair, request: Request, whole: Concat | None) -> Any:
    return None if pair.source is None else open_source(pair.source, request, whole=whole).groups


def _verified(batch: _Batch) -> Any:
    """Parts of an archive that a worker has seen; of a whole archive, problems and facts."""
    if not batch.spans:
        request = _request_of(batch.pair.archive, None)
        return verify_whole(batch.pair.archive, _original(batch.pair, request, None), watch=report)
    if getattr(_LAST, "pair", None) != batch.pair:
        _LAST.work = Verification(batch.pair.archive, _original(batch.pair, batch.request, batch.whole))
        _LAST.pair = batch.pair
    parts: list[Part] = []
    for name, start, stop in batch.spans:
        tell = partial(_tell, name, stop - start)
        parts.append(_LAST.work.check(name, start, stop, tell))
    return parts


def _tell(name: str, total: int, done: int, worst: float) -> None:
    report(Progress("verify", done, total, {"max_abs_error": worst}, note=name))


# --- originals


def removable(pair: Pair, verdict: Verdict) -> str | None:
    """Why an original must stay; None where its archive was found whole, and within all its bounds.

    Parameters
    ----------
    pair
        Archive and original.
    verdict
        What `verify` said of them.
    """
    if pair.source is None:
        return "there is nothing to compare with"
    if verdict.problems:
        return verdict.problems[0]
    for name, array in open_contents(pair.archive).arrays():
        if PREFIX + "bytes" in array.attrs and array.attrs.get(PREFIX + "bound") == "none":
            return f"variable {name!r} was compressed without a bound"
    if source_of(pair.source.paths).identity != pair.source.identity:
        return "it was changed after it was compared"
    return None


def remove_original(pair: Pair) -> None:
    """Remove an original, of which `removable` has said that nothing keeps it; raises InputError where it cannot be."""
    assert pair.source is not None
    for path in pair.source.paths:
        local = not is_url(pair.archive) and not is_url(path)
        if local and Path(path).resolve() in (Path(pair.archive).resolve(), *Path(pair.archive).resolve().parents):
            raise InputError(f"{path}: the archive lies in it; it was not removed")
        Place(path).remove()
        if not is_url(path) and os.path.lexists(path):
            raise InputError(f"{path}: cannot be removed; check its permissions")


# --- back to files


@dataclass(frozen=True)
class _Span:
    """Chunks of a variable that are to be decoded."""

    archive: str
    name: str
    start: int
    stop: int


def decompress(
    archive: str, target: str | Path, engine: Engine, *, stall_s: float = 600.0, watch: Watch = silent
) -> None:  # fmt: skip
    """Write an archive to a netCDF file, as :func:`vcinr.archive.read.decompress` does; an engine decodes the chunks.

    Parameters
    ----------
    archive, target
        As there.
    engine
        Who decodes. This process writes.
    stall_s
        As of :func:`vcinr.bulk.engines.run`.
    watch
        Is told of every few chunks.

    Raises
    ------
    InputError, CorruptError
        As there.
    EngineLost
        Where all workers are gone. The file is not there then.
    """

    def decoder(contents: Archive, names: list[str]) -> netcdf.Stream:
        spans = list(_spans(archive, contents, names))
        clock = Clock(len(spans))
        for number, (span, result) in enumerate(run(engine, _decoded, spans, stall_s=stall_s), 1):
            if isinstance(result, Exception):
                raise result
            for part, values in result:
                yield span.name, part, values
            watch(Progress("decompress", number, len(spans), seconds_left=clock.left(number)))

    read.decompress(archive, target, decoder)


def decompress_all(
    archives: str, folder: str | Path, engine: Engine, *, stall_s: float = 600.0, watch: Watch = silent
) -> dict[str, str | None]:  # fmt: skip
    """Write each of many archives to a netCDF file of its own.

    Parameters
    ----------
    archives
        A pattern, or the folder of a bulk run.
    folder
        Receives a file STEM.nc for each.
    engine, stall_s, watch
        As of `decompress`; a worker writes a whole file.

    Returns
    -------
    dict
        By the file's path, None or why it could not be written.

    Raises
    ------
    InputError
        Where there is no archive.
    EngineLost
        Where all workers are gone. Finished files stay.
    """
    found = _archives_in(with_home(archives))
    if not found:
        raise InputError(f"{archives}: no archive is there; give an archive, a pattern, or a folder of archives")
    jobs = [(archive, str(Path(folder) / f"{stem(archive)}.nc")) for archive in found]
    result: dict[str, str | None] = {}
    clock = Clock(len(jobs))
    for number, ((archive, target), one) in enumerate(run(engine, _written, jobs, stall_s=stall_s), 1):
        result[target] = one_line(one) if isinstance(one, Exception) else None
        watch(Progress("decompress", number, len(jobs), {}, clock.left(number), archive))
    return result


def _written(job: tuple[str, str]) -> str:
    """Write one archive to a file, on a worker; returns the file's path."""
    archive, target = job
    read.decompress(archive, target)
    return target


_SPAN_VALUES = 1 << 21  # in the pieces that workers give back: so few that many of them fit into memory


def _spans(archive: str, contents: Archive, names: Iterable[str]) -> Iterator[_Span]:
    arrays = dict(contents.arrays())
    for name in names:
        size = math.prod(arrays[name].chunks)
        step = max(1, _SPAN_VALUES // max(1, size))
        for start in range(0, arrays[name].nchunks, step):
            yield _Span(archive, name, start, min(start + step, arrays[name].nchunks))


def _decoded(span: _Span) -> list[Any]:
    if getattr(_LAST, "archive", None) != span.archive:
        _LAST.contents = open_contents(span.archive)
        _LAST.arrays = dict(_LAST.contents.arrays())
        _LAST.archive = span.archive
    return list(read.parts_of(_LAST.contents, span.name, _LAST.arrays[span.name], span.start, span.stop))
