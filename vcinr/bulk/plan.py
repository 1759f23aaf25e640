"""The plan of a bulk run: which archives are made of which inputs, in which batches, at what cost. Nothing is encoded.

Small files are planned by their size alone; many of them are one batch, and each is opened by who runs it. A large file
is opened, its metadata are read, and its chunks are dealt to batches. Values are read by batches alone: where a bound
depends on the least and greatest value of a variable, batches of the stage ``scan`` find them first.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import Any, Literal, Self

import numpy as np

import vcinr
from vcinr.archive import metadata
from vcinr.archive.jobs import Limits, Models, count_pieces
from vcinr.archive.plan import ArrayPlan
from vcinr.archive.plan import plan as plan_arrays
from vcinr.archive.repository import inner
from vcinr.bulk.place import Place
from vcinr.bulk.request import Request
from vcinr.bulk.source import Opened, Source, joined, open_source, source_of, targets
from vcinr.codec.chunk import VERSION
from vcinr.errors import InputError, ModelError, VcinrError
from vcinr.formats.concat import Concat
from vcinr.models import AnyModel, from_bytes, load_model
from vcinr.patches.model import PatchModel

BATCH_SECONDS = 60.0
"""Work in a batch at most, about."""
_LEAST_SECONDS = 10.0  # work in a batch at least, where there is so much: opening its file takes a few hundredths of it
_SHARES = 8  # batches of a file that has enough work, so that many workers share one
_WHOLE_SECONDS = 20.0  # work in a file that is not opened for the plan
_MANY = 64  # inputs from which on there are batches enough without opening any that has no more work than a batch
RATES = {"fast": 12e6, "best": 0.6e6}
"""Values that a core encodes in a second, about, by effort: measured on fields of model output with a bound."""
_MODEL_SLOWER = 2.0  # times that a model makes the search for fewest bytes longer
_SCAN_RATE = 100e6  # values that a core reads and compares in a second
_FILE_SECONDS = 0.5  # to open a file, and to write an archive's metadata
VALUES_A_BYTE = 0.5
"""Values in a byte of a file that is not opened: float32, packed or deflated to half."""
BASE_BYTES = 450 << 20
"""Memory of a worker that has imported all and compiled the coder."""
VALUE_BYTES = 48
"""Memory that encoding a chunk takes for each of its values."""
_MODEL_BYTES = 96  # the same under a model

MODELS = "models"
"""Folder of the staging place."""
Stage = Literal["check", "scan", "encode", "whole"]
Span = tuple[str, int, int]
"""Name of an array, number of a first chunk of it in C order, and of the one after the last."""


@dataclass(frozen=True)
class Array:
    """What is known of an array of a file that was opened: its name, its shapes, its dtype, and what is done with it.

    Parameters
    ----------
    name, shape, chunk, dtype
        Of the array in the archive.
    asked
        Whether it was to be compressed, and is not only kept.
    model
        Whether a model predicts it.
    """

    name: str
    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    asked: bool
    model: bool

    @property
    def chunks(self) -> int:
        """How many there are."""
        return math.prod(-(-n // c) for n, c in zip(self.shape, self.chunk, strict=True))

    @property
    def itemsize(self) -> int:
        """Bytes of a value."""
        return np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Item:
    """One archive that is to be made.

    Parameters
    ----------
    source
        Of what.
    target
        Path or URL of the archive.
    key
        Digest of source, request and target: what is finished of it is found by this.
    arrays
        What is in a file that was opened; None of one that is compressed whole by one batch.
    scan
        Variables whose least and greatest values must be known first, and in how many pieces each is read.
    limits
        These values, as far as they are known.
    """

    source: Source
    target: str
    key: str
    arrays: tuple[Array, ...] | None = None
    scan: Mapping[str, int] = field(default_factory=dict)
    limits: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """Whether all limits are known."""
        return set(self.scan) <= set(self.limits)

    @property
    def known_limits(self) -> Limits | None:
        """The limits, where they are known and needed."""
        return self.limits if self.scan and self.ready else None


@dataclass(frozen=True)
class Batch:
    """Work for one worker: small, picklable, and the same whoever does it, however often.

    Parameters
    ----------
    id
        Its name in the staging place.
    stage
        ``whole`` for archives that are made from beginning to end, ``check`` for one that is there already, ``scan``
        for limits, ``encode`` for chunks.
    place
        The staging place.
    request
        What is asked, as :meth:`vcinr.bulk.request.Request.as_node` gives it.
    models
        SHA-256 of the models by pattern, ``*`` for a single one.
    items
        The archives; one alone but for ``whole``. Their `arrays` are left out.
    spans
        Which pieces are read, or which chunks encoded, of which arrays.
    overwrite
        Whether archives that are there are replaced.
    bytes, values, seconds, memory
        Estimates: bytes of input, values, seconds of a core, and bytes of memory that its worker takes at most.
    allowed
        Bytes of memory that its worker may take; None for any.
    """

    id: str
    stage: Stage
    place: str
    request: Mapping[str, Any]
    models: Mapping[str, str]
    items: tuple[Item, ...]
    spans: tuple[Span, ...] = ()
    overwrite: bool = False
    bytes: int = 0
    values: int = 0
    seconds: float = 0.0
    memory: int = 0
    allowed: int | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        where = self.items[0].source.name + (f" and {len(self.items) - 1} more" if len(self.items) > 1 else "")
        return f"{self.id} ({where})"


@dataclass(frozen=True)
class BulkPlan:
    """All that a run does.

    Parameters
    ----------
    place
        The staging place: a folder beside the archive or, where the output is a folder, in it.
    output
        The output as it was given.
    request
        What is asked.
    models
        SHA-256 of the models by pattern.
    items
        The archives, in the order of the inputs.
    overwrite
        Whether archives that are there are replaced.
    batch_seconds
        How much work a batch has at most, about.
    failed
        Why inputs cannot be planned, by their names.
    joined
        What is in files that are joined, by the key of their item; it has files of its own in the staging place.
    allowed
        Bytes of memory that a worker may take; None for any.
    """

    place: str
    output: str
    request: Request
    models: Mapping[str, str]
    items: tuple[Item, ...]
    overwrite: bool = False
    batch_seconds: float = BATCH_SECONDS
    failed: Mapping[str, str] = field(default_factory=dict)
    joined: Mapping[str, Concat] = field(default_factory=dict)
    allowed: int | None = None

    def check(self, item: Item) -> Batch:
        """The batch that looks whether the archive that is there is what this run would make."""
        size = item.source.bytes
        values = int(size * VALUES_A_BYTE)
        seconds = values / _SCAN_RATE
        return self._batch(f"{item.key}-check", "check", (item,), (), size, values, seconds, _memory(1 << 22, False))

    def scans(self) -> Iterator[Batch]:
        """Batches that find least and greatest values."""
        for item in self.items:
            if not item.ready:
                yield from self._cut(item, "scan", [(n, k, _piece_cost(item, n)) for n, k in item.scan.items()])

    def encodes(self) -> Iterator[Batch]:
        """Batches that make chunks or whole archives, in the order in which they are begun."""
        yield from self._pooled([item for item in self.items if item.arrays is None])
        for item in self.items:
            if item.arrays is not None:
                yield from self.of_item(item)

    def of_item(self, item: Item) -> list[Batch]:
        """Batches that make the chunks of one archive."""
        assert item.arrays is not None
        return list(self._cut(item, "encode", [(a.name, a.chunks, self._cost(a)) for a in item.arrays]))

    def of_whole(self, items: Iterable[Item]) -> Batch:
        """The batch that makes some archives from beginning to end."""
        chosen = tuple(items)
        size = sum(item.source.bytes for item in chosen)
        values = int(size * VALUES_A_BYTE)
        seconds = sum(self._seconds_whole(item) for item in chosen)
        digest = hashlib.sha256("".join(item.key for item in chosen).encode()).hexdigest()[:16]
        return self._batch(
            f"w{digest}", "whole", chosen, (), size, values, seconds, _memory(1 << 20, bool(self.models))
        )

    def _pooled(self, items: list[Item]) -> Iterator[Batch]:
        """Batches of whole files, several in each."""
        pool: list[Item] = []
        spent = 0.0
        for item in items:
            seconds = self._seconds_whole(item)
            if pool and spent + seconds > min(self.batch_seconds, _LEAST_SECONDS):
                yield self.of_whole(pool)
                pool, spent = [], 0.0
            pool, spent = [*pool, item], spent + seconds
        if pool:
            yield self.of_whole(pool)

    def _cut(self, item: Item, stage: Stage, arrays: list[tuple[str, int, _Cost]]) -> Iterator[Batch]:
        """Deal chunks, or pieces, of arrays to batches: in C order, so that a file is read from front to back."""
        whole = sum(count * cost.seconds for _, count, cost in arrays)
        most = min(self.batch_seconds, max(_LEAST_SECONDS, whole / _SHARES))
        spans: list[Span] = []
        values, seconds, memory, size, first, position = 0, 0.0, 0, 0, 0, 0

        def dealt() -> Batch:
            name = f"{item.key}-{stage}-{first}-{position}"
            return self._batch(name, stage, (item,), tuple(spans), size, values, seconds, memory)

        for name, count, cost in arrays:
            start = 0
            while start < count:
                room = max(0.0, most - seconds) / cost.seconds if cost.seconds else math.inf
                taken = int(min(count - start, max(room, 0 if spans else 1)))
                if taken:
                    spans.append((name, start, start + taken))
                    values, seconds = values + taken * cost.values, seconds + taken * cost.seconds
                    size, memory = size + taken * cost.bytes, max(memory, cost.memory)
                    start, position = start + taken, position + taken
                if start < count:
                    yield dealt()
                    spans, values, seconds, memory, size, first = [], 0, 0.0, 0, 0, position
        if spans:
            yield dealt()

    def _batch(
        self, name: str, stage: Stage, items: tuple[Item, ...], spans: tuple[Span, ...], size: int, values: int,
        seconds: float, memory: int,
    ) -> Batch:  # fmt: skip
        small = tuple(replace(item, arrays=None) for item in items)
        return Batch(
            name, stage, self.place, self.request.as_node(), self.models, small, spans, self.overwrite, size, values,
            seconds, memory, self.allowed,
        )  # fmt: skip

    def _cost(self, array: Array) -> _Cost:
        values = math.prod(array.chunk)
        slower = _MODEL_SLOWER if array.model and self.request.effort == "best" else 1.0
        return _Cost(
            values, values / RATES[self.request.effort] * slower, _memory(values, array.model),
            values * array.itemsize,
        )  # fmt: skip

    def _seconds_whole(self, item: Item) -> float:
        return whole_seconds(item.source.bytes, self.request)

    def with_limits(self, found: Mapping[str, Limits]) -> BulkPlan:
        """The plan with the limits of items by their keys, and the arrays that follow from them."""
        models = load_models(self.request)
        items = []
        failed = dict(self.failed)
        for item in self.items:
            if item.key in found and not item.ready:
                try:
                    item = _opened(replace(item, limits=dict(found[item.key])), self, models)
                except VcinrError as error:
                    failed[item.source.name] = str(error)
                    continue
            items.append(item)
        return replace(self, items=tuple(items), failed=failed)

    def without(self, keys: Iterable[str]) -> BulkPlan:
        """The plan without some items, such as those that are done."""
        gone = set(keys)
        return replace(self, items=tuple(item for item in self.items if item.key not in gone))

    def as_node(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "vcinr": vcinr.__version__, "place": self.place, "output": self.output, "request": self.request.as_node(),
            "models": dict(self.models), "overwrite": self.overwrite, "batch_seconds": self.batch_seconds,
            "allowed": self.allowed, "failed": dict(self.failed), "items": [asdict(item) for item in self.items],
        }  # fmt: skip

    @classmethod
    def from_node(cls, node: Mapping[str, Any]) -> Self:
        """Inverse of `as_node`; raises InputError where it was made by another version of vcinr."""
        if node.get("vcinr") != vcinr.__version__:
            raise InputError(
                f"{node.get('place')}: planned by vcinr {node.get('vcinr')}, and this is {vcinr.__version__}; finish "
                "with that version, or run the whole command again"
            )
        items = []
        for one in node["items"]:
            arrays = None if one["arrays"] is None else tuple(
                Array(a["name"], tuple(a["shape"]), tuple(a["chunk"]), a["dtype"], a["asked"], a["model"])
                for a in one["arrays"]
            )  # fmt: skip
            source = Source(tuple(one["source"]["paths"]), one["source"]["bytes"], one["source"]["identity"])
            limits = {name: (float(low), float(high)) for name, (low, high) in one["limits"].items()}
            items.append(Item(source, one["target"], one["key"], arrays, one["scan"], limits))
        return cls(
            node["place"], node["output"], Request.from_node(node["request"]), node["models"], tuple(items),
            node["overwrite"], node["batch_seconds"], node["failed"], allowed=node["allowed"],
        )  # fmt: skip


@dataclass(frozen=True)
class _Cost:
    """What a chunk costs: its values, seconds of a core, bytes of memory, and bytes that are read."""

    values: int
    seconds: float
    memory: int
    bytes: int


def plan(
    inputs: Iterable[str] | str, output: str, request: Request, *, overwrite: bool = False,
    memory: int | None = None, batch_seconds: float = BATCH_SECONDS,
) -> BulkPlan:  # fmt: skip
    """Plan a bulk run.

    Parameters
    ----------
    inputs, output
        As in :func:`vcinr.bulk.source.targets`.
    request
        What is asked.
    overwrite
        Whether archives that are there are replaced; without it, one that is of another request or of other values is
        an error.
    memory
        Bytes that a worker may take at most; by default nothing is refused.
    batch_seconds
        Work in a batch, about, in seconds of a core.

    Returns
    -------
    BulkPlan
        Nothing was written, and no values were read but those of coordinates.

    Raises
    ------
    InputError
        Where there is no input, or a batch would take more memory than it may.
    ModelError
        For a file that is no model.
    """
    jobs = targets(inputs, output, concat=request.concat is not None)
    models = load_models(request)
    names = {"*": models.sha256} if isinstance(models, AnyModel) else {k: m.sha256 for k, m in (models or {}).items()}
    single = len(jobs) == 1 and jobs[0][1] == output
    place = staging(output, folder=not single)
    items: list[Item] = []
    failed: dict[str, str] = {}
    unopened = batch_seconds if len(jobs) >= _MANY else min(batch_seconds, _WHOLE_SECONDS)
    empty = BulkPlan(place, output, request, names, (), overwrite, batch_seconds, allowed=memory)
    for paths, target in jobs:
        try:
            source = source_of(paths)
            item = Item(source, target, _key(source, target, request, names))
            if request.concat is not None:
                empty = replace(empty, joined={item.key: joined(paths, request.concat)})
            if request.concat is not None or whole_seconds(source.bytes, request) > unopened:
                item = _opened(item, empty, models)
            items.append(item)
        except VcinrError as error:
            if len(jobs) == 1:
                raise
            failed[paths[0]] = str(error)
    for item in items:
        check_memory(item.source.name, item.arrays or (), memory)
    if memory is not None and memory < _memory(1 << 20, False):
        raise InputError(
            f"a worker takes about {_memory(1 << 20, False) / 2**20:,.0f} MiB at least, more than the "
            f"{memory / 2**20:,.0f} MiB allowed; allow more"
        )
    return replace(empty, items=tuple(items), failed=failed)


def staging(output: str, *, folder: bool) -> str:
    """Where a run keeps what is finished: in the output where that is a folder of archives, else beside the archive."""
    output = inner(output).rstrip("/")
    if folder:
        return f"{output}/.vcinr-bulk"
    head, slash, name = output.rpartition("/")
    return f"{head}{slash}.{name}.bulk"


def load_models(request: Request) -> Models:
    """Read the models of a request; raises ModelError, which names the file."""
    given = request.models
    if given is None:
        return None
    loaded = _load(given) if isinstance(given, str) else {pattern: _load(path) for pattern, path in given.items()}
    every = loaded.values() if isinstance(loaded, dict) else [loaded]
    if any(isinstance(m, PatchModel) and m.provenance.get("method") == "scenes" for m in every):
        raise InputError("a model of scenes compresses views of one scene after another; leave out --workers")
    return loaded


@cache
def _load(path: str) -> AnyModel:
    return load_model(path)


def note_models(made: BulkPlan) -> None:
    """Keep the models in the staging place, for workers of machines that have no such files."""
    models = load_models(made.request)
    every = models.values() if isinstance(models, Mapping) else [models] if models is not None else []
    for model in every:
        Place(made.place).create(f"{MODELS}/{model.sha256}.vcinr", model.data)


def staged_models(place: str, request: Request, names: Mapping[str, str]) -> Models:
    """Models of a request, by their SHA-256, out of the staging place; raises ModelError where one is not there."""
    if not names:
        return None
    loaded = {pattern: _staged(place, sha256) for pattern, sha256 in names.items()}
    return loaded["*"] if isinstance(request.models, str) else loaded


@cache
def _staged(place: str, sha256: str) -> AnyModel:
    data = Place(place).get(f"{MODELS}/{sha256}.vcinr")
    if data is None:
        raise ModelError(f"{place}: model {sha256} is not there any more; run the command again")
    return from_bytes(data, sha256)


def whole_seconds(size: int, request: Request) -> float:
    """How long a file of so many bytes takes, about, that nobody has opened yet."""
    slower = _MODEL_SLOWER if request.models and request.effort == "best" else 1.0
    return _FILE_SECONDS + size * VALUES_A_BYTE / RATES[request.effort] * slower


def _key(source: Source, target: str, request: Request, models: Mapping[str, str]) -> str:
    node = {**request.as_node(), "models": dict(models)}
    text = json.dumps([VERSION, vcinr.__version__, source.identity, target, node], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Wanted(dict[str, tuple[float, float]]):
    """Limits by name that takes note of those it is asked for and does not know."""

    def __init__(self, known: Limits, high: float) -> None:
        super().__init__(known)
        self.names: dict[str, None] = {}
        self._high = high

    def __missing__(self, name: str) -> tuple[float, float]:
        self.names[name] = None
        return (0.0, self._high)


def arrays_of(
    groups: metadata.Groups, variables: list[str] | None, request: Request, models: Models, limits: Limits | None
) -> list[ArrayPlan]:
    """Plan the arrays of an opened data set; `limits` as in :func:`vcinr.archive.plan.plan`."""
    return plan_arrays(
        groups, model=models, abs_error=request.abs_error, bounds=request.bounds,
        variables=request.variables or variables, chunk=request.chunk, limits=limits,
    )  # fmt: skip


def look_into(opened: Opened, request: Request, models: Models, known: Limits) -> tuple[tuple[Array, ...], list[str]]:
    """Say what is in a data set, and read no values of it.

    Parameters
    ----------
    opened
        The data set.
    request, models
        What is asked.
    known
        Limits as far as they are known.

    Returns
    -------
    arrays : tuple of Array
        Those of numbers.
    wanted : list of str
        Variables whose limits must be known, and are not.
    """
    wanted = _Wanted(known, 2.0 if request.iou is None else 1.0)  # until it is known, all are shapes or none is
    arrays = arrays_of(opened.groups, opened.variables, request, models, wanted)
    found = tuple(
        Array(a.job.name, tuple(a.job.values.shape), a.shape, a.dtype.str, a.job.asked, a.job.model is not None)
        for a in arrays if a.numeric
    )  # fmt: skip
    return found, list(wanted.names)


def _opened(item: Item, made: BulkPlan, models: Models) -> Item:
    """An item with what is in its file."""
    opened = open_source(item.source, made.request, made.place, item.key, made.joined.get(item.key))
    arrays, wanted = look_into(opened, made.request, models, item.limits)
    scan = {name: count_pieces(metadata.member(opened.groups, name).shape) for name in wanted}
    return replace(item, arrays=arrays, scan=scan or item.scan)


def _piece_cost(item: Item, name: str) -> _Cost:
    assert item.arrays is not None
    array = next(a for a in item.arrays if a.name == name)
    values = -(-math.prod(array.shape) // max(1, item.scan[name]))
    size = values * array.itemsize
    return _Cost(values, values / _SCAN_RATE, BASE_BYTES + 4 * size, size)


def _memory(values: int, model: bool) -> int:
    """Bytes that a worker takes to encode a chunk of so many values."""
    return BASE_BYTES + values * (_MODEL_BYTES if model else VALUE_BYTES)


def check_memory(name: str, arrays: Iterable[Array], allowed: int | None) -> None:
    """Check that a worker may take what the chunks of a file need.

    Parameters
    ----------
    name
        The file, for messages.
    arrays
        What is in it.
    allowed
        Bytes that a worker may take; None for any.

    Raises
    ------
    InputError
        Where it needs more.
    """
    for array in arrays:
        values = math.prod(array.chunk)
        if allowed is not None and array.asked and _memory(values, array.model) > allowed:
            raise InputError(
                f"{name}: variable {array.name!r} has chunks of {values:,} values, for which a worker takes about "
                f"{_memory(values, array.model) / 2**20:,.0f} MiB, more than the {allowed / 2**20:,.0f} MiB allowed; "
                "ask for smaller chunks (--chunk), or allow more"
            )
