"""What an archive will hold: every array with its codec, its bound and its chunk shape. Nothing is encoded here.

A plan is made of the data set's metadata, and of the least and greatest values of a variable where its bound asks for
them. It writes nothing, so it also says beforehand what a call would store.
"""

from __future__ import annotations

import fnmatch
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import xarray as xr

from vcinr.archive import metadata
from vcinr.archive.metadata import Groups
from vcinr.archive.positions import Located, locate, names_of
from vcinr.archive.zarr_codec import VcinrCodec, encode_axis
from vcinr.codec.promise import Bound, valid_values
from vcinr.coding.bits import items_of
from vcinr.coding.neighbours import Positions
from vcinr.errors import NOT_DAMAGE, InputError, ModelError, one_line
from vcinr.formats.base import KIND_OF_SIGNAL
from vcinr.formats.open import numeric_fields
from vcinr.inr.model import Model
from vcinr.models import AnyModel
from vcinr.patches.model import PatchModel
from vcinr.signals import Layout, Points, layout_of
from vcinr.signals.graph import graph_of

_CUT_VALUES = 1 << 23  # most values in a chunk of a model of patches or tiles, so that cores share a large signal
CHUNK_VALUES = 1 << 25
"""Most values in a chunk of whole signals, so that encoding it takes about a gigabyte."""
_SOLID_VALUES = 1 << 23
"""Values in a chunk of truth values, or of integers that are 0 or 1.

The coder learns from one shape to the next, so large chunks take fewer bytes. One of this size, 32 shapes of 64^3, is
read in two seconds, and takes 4 % more bytes than 115 such shapes in one."""
SMALL_BYTES = 64
"""What signals of files that share an array may take, whatever the rate: a chunk of a few values has a head as well."""
_PIECE_VALUES = 1 << 22  # most values in a chunk of an array that nobody asked to compress

Models = AnyModel | Mapping[str, AnyModel] | None
"""A model for all variables, or one by pattern of their names, as of `fnmatch`."""
Limits = Mapping[str, tuple[float, float]]
"""Least and greatest valid stored number by the full name of a variable."""


@dataclass(frozen=True)
class Job:
    """One variable and what is asked of it.

    Parameters
    ----------
    name
        Path of the variable in the archive.
    values
        The variable, with the coordinates of its own and of outer groups.
    layout
        Which dimensions are a signal's grid; None where the variable is only kept.
    model
        The model that predicts it, if any.
    bound
        Error bound in the variable's own units; None for lossless or, with a model, best effort.
    asked
        Whether the variable was to be compressed, and is not only kept.
    note
        Why it is stored losslessly although it was to be compressed; None where it is not.
    limits
        Least and greatest stored number, where the bound depends on them.
    rate
        Bits per value that lossless coding must not pass.
    solid
        Whether it holds shapes: truth values, or integers that are 0 or 1.
    located
        Where its points lie, if they are scattered and known; the layout's grid has none of them then.
    """

    name: str
    values: xr.DataArray
    layout: Layout | None = None
    model: AnyModel | None = None
    bound: Bound | None = None
    asked: bool = False
    note: str | None = None
    limits: tuple[float, float] = (0.0, 0.0)
    rate: float = math.inf
    located: Located | None = None
    solid: bool = False

    @property
    def positions(self) -> Positions | None:
        """Where the points of a signal lie, if known."""
        return None if self.located is None else self.located.positions

    @property
    def packing(self) -> tuple[float, float]:
        """(scale_factor, add_offset) from the stored numbers to the variable's units."""
        return _packing(self.values)

    @property
    def unit(self) -> float:
        """Size of a step of 1 in the stored numbers, in the variable's units."""
        return abs(self.packing[0]) if self.values.dtype.kind in "fiu" else 1.0

    @cached_property
    def stored_bound(self) -> Bound | None:
        """The bound for the numbers as stored, such that it also holds for what they unpack to."""
        if self.bound is None or self.packing == (1.0, 0.0) or self.bound.kind not in ("absolute", "relative"):
            return self.bound
        factor, shift = self.packing
        # Readers unpack small integers, or all by a float32, in float32: roundings of the result add to its error.
        types = [
            self.values.dtype,
            *(np.asarray(self.values.attrs[k]).dtype for k in metadata.PACKING if k in self.values.attrs),
        ]
        single = self.values.dtype.itemsize <= 2 or np.dtype(np.float32) in types
        eps = float(np.finfo(np.float32 if single else np.float64).eps)
        if self.bound.kind == "relative":
            return replace(self.bound, value=max(0.0, self.bound.value - 2 * eps * (2 + self.bound.value)))
        unpacked = abs(factor) * max(map(abs, self.limits)) + abs(shift)
        return replace(self.bound, value=max(0.0, self.bound.value - 2 * eps * unpacked) / abs(factor))

    @property
    def scaling(self) -> tuple[float, float]:
        """(offset, scale) of the model for the numbers as stored."""
        if self.model is None:
            return 0.0, 1.0
        factor, shift = self.packing
        offset, scale = self.model.scaling(known_as(self.name, self.model))
        return (offset - shift) / factor, scale / factor

    @property
    def promise(self) -> str:
        """The bound in words."""
        if self.bound is None:
            return "lossless" if self.model is None else "best effort, lossy"
        value = f"{self.bound.value:g}"
        return {
            "absolute": f"within {value} of the input, lossy",
            "relative": f"within {value} of each value's magnitude, lossy",
            "psnr": f"at {value} dB or more, lossy",
            "rate": f"in at most {value} bits per value, lossy",
            "iou": f"at a mean IoU of {value} or more, lossy",
        }[self.bound.kind]


@dataclass(frozen=True)
class ArrayPlan:
    """A job with all that fixes its bytes: the codec of the array, its chunk shape and its dtype."""

    job: Job
    codec: VcinrCodec
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def counts(self) -> tuple[int, ...]:
        """How many chunks there are along each axis."""
        return tuple(-(-n // c) for n, c in zip(self.job.values.shape, self.shape, strict=True))

    def chunks(self) -> Iterator[tuple[tuple[int, ...], str]]:
        """Index and store key of every chunk, in C order."""
        for index in itertools.product(*map(range, self.counts)):
            yield index, "/".join([self.job.name, "c", *map(str, index)])

    def block(self, index: tuple[int, ...]) -> np.ndarray:
        """Values of the chunk at `index`, in native byte order; raises InputError where they cannot be read."""
        return read_block(self.job.values, index, self.shape)

    @property
    def numeric(self) -> bool:
        """Whether vcinr's codec stores the array, losslessly or not; text and the like keep Zarr's codecs."""
        return self.dtype.kind in "fiub"

    def request(self) -> list[Any]:
        """JSON-able: two plans of equal requests and values have equal bytes."""
        bound = self.job.stored_bound
        peak = bound.peak if bound else None
        return [self.job.name, self.codec.to_dict(), peak, self.shape, self.dtype.str, self.job.values.shape]


def plan(
    groups: Groups,
    *,
    model: Models = None,
    abs_error: float | Mapping[str, float] | None = None,
    bounds: Mapping[str, float | None] | None = None,
    variables: Sequence[str] | None = None,
    chunk: int | None = None,
    limits: Limits | None = None,
) -> list[ArrayPlan]:
    """Plan every array of numbers of a data set, and every other variable that was named.

    Parameters
    ----------
    groups
        The data set by groups, as it is stored (:func:`vcinr.archive.metadata.stored`).
    model, abs_error, variables, chunk
        As in :func:`vcinr.archive.write.compress`.
    bounds
        The other kinds of bound of that function by the parameter's name; None where it is not given.
    limits
        Least and greatest valid stored number of variables by full name, where they are known already; by default they
        are read where they are needed.

    Returns
    -------
    list of ArrayPlan
        In the order of the groups and their variables.

    Raises
    ------
    InputError
        For a request that contradicts itself, or a variable that is missing or cannot be stored.
    ModelError
        For a model that was not made for these variables.
    """
    requests = {"rel_error": None, "point_rel_error": None, "psnr": None, "rate": None, "iou": None, **(bounds or {})}
    return [_array(job, chunk) for job in _jobs(groups, model, abs_error, requests, variables, limits)]


def _jobs(
    groups: Groups, models: Models, abs_error: float | Mapping[str, float] | None,
    requests: Mapping[str, float | None], variables: Sequence[str] | None, limits: Limits | None,
) -> list[Job]:  # fmt: skip
    """Every array of numbers, and what was named and is none, as a job."""
    asked = {name: value for name, value in {"abs_error": abs_error, **requests}.items() if value is not None}
    if len(asked) > 1:
        raise InputError(f"give one kind of bound, not both {' and '.join(asked)}")
    for name, value in asked.items():
        numbers = value.values() if isinstance(value, Mapping) else [value]
        for number in numbers:
            if not (math.isfinite(number) and number >= 0):
                raise InputError(f"{name}: the bound must be a positive number, got {number}")
    if requests["iou"] is not None and requests["iou"] > 1:
        raise InputError(f"iou: the bound must be between 0 and 1, got {requests['iou']}")
    if requests["iou"] is not None and models:
        raise InputError("iou: shapes are coded without a model; leave it out")
    shapes_alone = requests["iou"] is not None
    to_compress = list(variables) if variables else default_variables(groups, models, solid=shapes_alone, limits=limits)
    names = [metadata.join(path, str(name)) for path, group in groups.items() for name in group.variables]
    for name in to_compress:
        if name not in names:
            raise InputError(f"variable {name!r} is not in the file; it has {', '.join(names)}")
    if isinstance(abs_error, Mapping) and (unknown := set(abs_error) - set(to_compress)):
        raise InputError(f"a bound is given for {', '.join(sorted(unknown))}, which is not compressed")
    jobs: list[Job] = []
    of_files = KIND_OF_SIGNAL in groups[""].attrs
    shared = None if isinstance(models, Mapping) else models
    unsuited = _unsuited(groups, to_compress, shared) if of_files and shared is not None else set()
    whole_rate = requests["rate"]
    for name in names:
        values = metadata.member(groups, name)
        if whole_rate and of_files and values.size:
            # Files of a size of their own, such as an icon among photographs, are an array of few values.
            requests = {**requests, "rate": max(whole_rate, 8 * SMALL_BYTES / values.size)}
        if name not in to_compress:
            jobs.append(Job(name, values))
            continue
        model = model_of(name, models)
        solid = model is None and holds_shapes(values, None if limits is None else (lambda n=name: limits[n]))
        if solid and (goal := _goal(requests)) is not None:
            jobs.append(Job(name, values, bound=goal, asked=True, solid=True))
        elif requests["iou"] is not None:
            raise InputError(
                f"variable {name!r} holds {values.dtype} and not only zeros and ones, for which alone there is an IoU; "
                "give another bound, such as --abs-error"
            )
        elif reason := _never_lossy(values):
            note = f"stored losslessly: {reason}"
            jobs.append(Job(name, values, asked=True, note=note, rate=requests["rate"] or math.inf, solid=solid))
        else:
            bound, ends = _bound(name, values, abs_error, requests, limits)
            # A bound of zero, or the range of a constant, leaves nothing for a model to do.
            exact = bool(asked) and bound is None
            layout, fitted = _fitted(groups, name, None if exact or name in unsuited else model)
            known = [job.located for job in jobs if job.located is not None]
            on_graph = isinstance(fitted, Model) and fitted.domain is not None
            free = bound is not None and (fitted is None or on_graph)
            located = _located(groups, name, to_compress, known) if free else None
            if located is not None and not on_graph:
                layout = layout_of(values, located.dims)
            elif located is not None and located.dims != layout.dims:
                located = None
            jobs.append(
                Job(name, values, layout, fitted, bound, asked=True, limits=ends, located=located, solid=solid)
            )
    return jobs


def model_of(name: str, models: Models) -> AnyModel | None:
    """Choose the model of a variable.

    Parameters
    ----------
    name
        Full name of the variable.
    models
        One for all, or one by pattern; of several patterns that fit, the first counts.

    Returns
    -------
    Model, PatchModel or None
        None where there is none, or where the pattern has wildcards and its model was not trained on the variable.
    """
    if not isinstance(models, Mapping):
        return models
    for pattern, model in models.items():
        if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(name.rpartition("/")[2], pattern):
            named = not any(c in pattern for c in "*?[")
            return model if named or known_as(name, model) in model.normalisation else None
    return None


def _unsuited(groups: Groups, names: Sequence[str], model: AnyModel | None) -> set[str]:
    """The arrays of signals of files that a model does not fit, such as grey images among colours, where it fits some.

    Where it fits none, it is the wrong model, and the set is empty.
    """
    found = set()
    for name in names:
        try:
            _fitted(groups, name, model)
        except ModelError:
            found.add(name)
    return found if len(found) < len(names) else set()


def _goal(requests: Mapping[str, float | None]) -> Bound | None:
    """What is asked of shapes; None where they are to stay as they are."""
    if requests["iou"] is not None:
        return Bound("iou", float(requests["iou"]))
    return Bound("rate", float(rate)) if (rate := requests["rate"]) else None


def holds_shapes(values: xr.DataArray, limits: Callable[[], tuple[float, float]] | None = None) -> bool:
    """Whether a variable holds truth values, or integers that are all 0 or 1 and mean these numbers.

    `limits` returns its least and greatest number; by default they are read where they matter.
    """
    if values.dtype.kind == "b":
        return values.ndim > 0 and values.size > 0
    if values.dtype.kind not in "iu" or values.size == 0 or values.ndim == 0:
        return False
    if any(key in values.attrs for key in (*metadata.PACKING, "_Unsigned")) or metadata.fill_values(values):
        return False
    if limits is not None:
        low, high = limits()
        return low >= 0 and high <= 1
    shape = _pieces(values.shape)
    counts = (range(-(-n // c)) for n, c in zip(values.shape, shape, strict=True))
    blocks = (read_block(values, index, shape) for index in itertools.product(*counts))
    return all(block.min() >= 0 and block.max() <= 1 for block in blocks)


def _located(groups: Groups, name: str, to_compress: Sequence[str], known: Sequence[Located]) -> Located | None:
    """The positions of a variable's points, where they stay exact and a chunk can hold all of them.

    `known` are those of other variables, which need not be read again.
    """
    names = names_of(groups, name)
    if names is None or set(names) & set(to_compress) or metadata.member(groups, names[0]).size > CHUNK_VALUES:
        return None
    return next((other for other in known if other.variables == names), None) or locate(groups, name)


def _never_lossy(values: xr.DataArray) -> str | None:
    """Why these values cannot be compressed within a bound, or None where they can."""
    if values.dtype.kind not in "fiu":
        return f"{values.dtype} is no number with an error"
    if values.size == 0:
        return "it has no values"
    if values.ndim == 0:
        return "it is a single value"
    if str(values.attrs.get("_Unsigned", "")).lower() in ("true", "false"):
        return "_Unsigned makes its numbers wrap around"
    return None


def _bound(
    name: str, values: xr.DataArray, abs_error: float | Mapping[str, float] | None,
    requests: Mapping[str, float | None], known: Limits | None,
) -> tuple[Bound | None, tuple[float, float]]:  # fmt: skip
    """The bound asked for `values`, in its own units, None for best effort or lossless; and their limits if needed."""
    factor, shift = _packing(values)
    packed = (factor, shift) != (1.0, 0.0)
    wanted = requests["rel_error"] is not None or requests["psnr"] is not None
    limits = (0.0, 0.0)
    if packed or wanted:
        limits = limits_of(values) if known is None else known[name]
    spread = limits[1] - limits[0]
    absolute = abs_error.get(name) if isinstance(abs_error, Mapping) else abs_error
    if requests["rel_error"] is not None:
        absolute = requests["rel_error"] * spread * abs(factor)
    if absolute is not None:
        return (Bound("absolute", float(absolute)) if absolute > 0 else None), limits
    if relative := requests["point_rel_error"]:
        if shift != 0.0:
            raise InputError(
                f"variable {name!r} is packed with an add_offset; a bound relative to each value needs "
                "unpacked values: give an absolute bound"
            )
        return Bound("relative", float(relative)), limits
    if psnr := requests["psnr"]:
        return (Bound("psnr", float(psnr), spread) if spread > 0 else None), limits
    return (Bound("rate", float(rate)) if (rate := requests["rate"]) else None), limits


def _fitted(groups: Groups, name: str, model: AnyModel | None) -> tuple[Layout, AnyModel | None]:
    """The layout of a variable, by the model's dimensions and coordinate system where there is one."""
    values = metadata.member(groups, name)
    if model is None:
        return layout_of(values), None
    model.scaling(known_as(name, model))
    dims = model.dims if set(model.dims) <= set(values.dims) else None
    feature, features = model.feature_dim, model.features
    have = 1 if feature is None else values.sizes.get(feature, 0)
    if have != features:
        along = "" if feature is None else f" along dimension {feature!r}"
        raise ModelError(
            f"variable {name!r}: the model was trained on signals of {features} features{along}, and here are "
            f"{have}; train one on this variable, or compress without a model"
        )
    if isinstance(model, PatchModel) or model.tile is not None:
        if dims is None:
            raise ModelError(
                f"variable {name!r} has the dimensions {', '.join(map(str, values.dims))}, the model was trained on "
                f"{', '.join(model.dims)}; rename them, or compress without a model"
            )
        return layout_of(values, dims, "box", feature), model
    if model.domain is not None:
        return _on_graph(groups, name, model, model.domain), model
    layout = layout_of(values, dims, "sphere" if model.system["system"] == "sphere" else "box", feature)
    if len(layout.dims) != len(model.dims):
        raise ModelError(f"variable {name!r} has the grid {layout.dims}, the model was trained on {model.dims}")
    return layout, model


def _on_graph(groups: Groups, name: str, model: Model, nodes: Points) -> Layout:
    """The layout of a variable on the graph that a model was trained on; raises ModelError for any other graph."""
    path, _, short = name.rpartition("/")
    around = [groups[path]]
    while path:
        path = path.rpartition("/")[0]
        around.append(groups[path])
    dim, graph = graph_of(around, short, model.dims[0] if model.dims[0] in around[0][short].dims else None)
    if graph.sha256 != model.system["graph"]:
        raise ModelError(
            f"variable {name!r} lies on another graph ({graph}) than the one of {nodes.points:,} nodes that the model "
            "was trained on; train one on this graph, or compress without a model"
        )
    return Layout((dim,), nodes, dict(model.system), model.feature_dim)


def known_as(name: str, model: AnyModel) -> str:
    """The name by which a model may know a variable: its full name in the archive or, within groups, its last part."""
    return name if name in model.normalisation else name.rpartition("/")[2]


def _packing(values: xr.DataArray) -> tuple[float, float]:
    """(scale_factor, add_offset) of packed values, else (1, 0)."""
    try:
        factor, shift = (
            float(np.asarray(values.attrs.get(k, i)).item()) for k, i in zip(metadata.PACKING, (1, 0), strict=True)
        )
    except (ValueError, TypeError):
        raise InputError(f"variable {values.name!r}: its scale_factor or add_offset is no number; correct it") from None
    if not (math.isfinite(factor) and math.isfinite(shift) and factor != 0.0):
        raise InputError(f"variable {values.name!r}: scale_factor {factor:g} and add_offset {shift:g} unpack nothing")
    return factor, shift


def default_variables(
    groups: Groups, model: Models, *, solid: bool = False, limits: Limits | None = None
) -> list[str]:  # fmt: skip
    """Choose what is compressed when nothing is named.

    Parameters
    ----------
    groups
        The data set by groups.
    model
        The model to compress with, if any: only variables that it knows are taken. Models by pattern choose none.
    solid
        Whether it is shapes that are asked for: those are taken then, and nothing else.
    limits
        As in `plan`.

    Returns
    -------
    list of str
        Full names of variables of two or more dimensions, and of those on the points of a mesh or a table.

    Raises
    ------
    InputError, ModelError
        Where there is no such variable.

    Notes
    -----
    Bare integers are flags, classes and counts as often as measurements: they are coded lossily only by name. So are
    variables of one dimension, unless they say where their points lie, and no positions of others are among them.
    """
    if solid:
        every = [metadata.join(path, str(n)) for path, group in groups.items() for n in group.data_vars]
        found = [
            n for n in every if _dimensions(groups, n) > 1
            and holds_shapes(metadata.member(groups, n), None if limits is None else (lambda n=n: limits[n]))
        ]  # fmt: skip
        if not found:
            raise InputError(
                "an IoU is for truth values and for integers that are all 0 or 1, and the file has no such variable of "
                "two or more dimensions; give another bound, such as --abs-error, or --kind shape for a mesh"
            )
        return found
    numeric = [
        metadata.join(path, n)
        for path, group in groups.items()
        for n in numeric_fields(group)
        if group[n].dtype.kind == "f" or "scale_factor" in group[n].attrs
    ]
    located = {n: names for n in numeric if (names := names_of(groups, n)) is not None}
    positions = {n for names in located.values() for n in names}
    fields = [
        n for n in numeric if n not in positions and (_on_points(groups, n, located) or _dimensions(groups, n) > 1)
    ]
    if model is not None and not isinstance(model, Mapping):
        known = [n for n in fields if known_as(n, model) in model.normalisation]
        if not known:
            raise ModelError(
                f"the model was trained on {', '.join(model.normalisation)}, none of which is in the file "
                f"({', '.join(fields)}); compress without a model or train one"
            )
        return known
    if not fields:
        raise InputError("the file has no numeric variable of two or more dimensions; name one with --var")
    return fields


def _dimensions(groups: Groups, name: str) -> int:
    return metadata.member(groups, name).ndim


def _on_points(groups: Groups, name: str, located: Mapping[str, tuple[str, str]]) -> bool:
    """Whether a variable says itself where its points lie: by a mesh, or by the names of its coordinates."""
    variable = metadata.member(groups, name).variable
    return name in located and any(k in {**variable.encoding, **variable.attrs} for k in ("mesh", "coordinates"))


def limits_of(values: xr.DataArray) -> tuple[float, float]:
    """Least and greatest valid value, read piece by piece; (0, 0) where there is none."""
    low, high = limits_of_pieces(values, 0, pieces(values.shape))
    return (low, high) if low <= high else (0.0, 0.0)


def pieces(shape: tuple[int, ...]) -> int:
    """In how many pieces an array of a shape is read to find its limits."""
    return math.prod(-(-n // c) for n, c in zip(shape, _pieces(shape), strict=True))


def limits_of_pieces(values: xr.DataArray, start: int, stop: int) -> tuple[float, float]:
    """Find the least and the greatest valid value of some pieces of a variable.

    Parameters
    ----------
    values
        The variable.
    start, stop
        Number of the first piece, in C order, and of the one after the last; `pieces` says how many there are.

    Returns
    -------
    low, high : float
        Infinite, the least above the greatest, where there is no valid value.
    """
    fill, shape = metadata.fill_values(values), _pieces(values.shape)
    counts = [-(-n // c) for n, c in zip(values.shape, shape, strict=True)]
    low, high = math.inf, -math.inf
    for number in range(start, stop):
        block = read_block(values, index_of(number, counts), shape)
        kept = block[valid_values(block, fill)]
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return low, high


def index_of(number: int, counts: Sequence[int]) -> tuple[int, ...]:
    """The index of the chunk of that number, in C order, among so many along each axis."""
    index: list[int] = []
    for n in reversed(counts):
        number, rest = divmod(number, n)
        index.append(rest)
    return tuple(reversed(index))


def read_block(values: xr.DataArray, index: tuple[int, ...], shape: tuple[int, ...]) -> np.ndarray:
    """Read one chunk of a variable that may lie in a file.

    Parameters
    ----------
    values
        The variable.
    index
        Which chunk.
    shape
        The shape of all chunks but those at the edges.

    Returns
    -------
    numpy.ndarray
        In native byte order.

    Raises
    ------
    InputError
        Where the file cannot be read.
    """
    part = tuple(slice(i * n, (i + 1) * n) for i, n in zip(index, shape, strict=True))
    try:
        block = np.asarray(values[part].values)
    except NOT_DAMAGE:
        raise
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(
            f"variable {values.name!r} cannot be read ({one_line(error)}); is the file whole? copy it again"
        ) from None
    return block.astype(metadata.native(block.dtype), copy=False)


def text_digest(values: xr.DataArray) -> str:
    """Digest a variable of text or the like, read whole."""
    return hashlib.blake2b(repr(values.values.ravel().tolist()).encode(errors="replace"), digest_size=16).hexdigest()


def source_digest(blocks: Mapping[str, Sequence[str]]) -> str:
    """Digest all values of a data set.

    Parameters
    ----------
    blocks
        By the variable's name, the digests (:func:`vcinr.archive.spool.digest_of`) of the chunks that it has in the
        archive, in C order; of text one `text_digest`.

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    whole = hashlib.blake2b(digest_size=8)
    for name, digests in sorted(blocks.items()):
        whole.update(json.dumps([name, *digests]).encode())
    return whole.hexdigest()


def _pieces(shape: tuple[int, ...], most: int = _PIECE_VALUES) -> tuple[int, ...]:
    """A chunk shape of at most about `most` values: the last axes whole, then a part of one, then single."""
    result: list[int] = []
    room = most
    for n in reversed(shape):
        result.append(max(1, min(n, room)))
        room = max(1, room // max(1, n))
    return tuple(reversed(result))


def signals_of(points: int) -> int:
    """How many signals of so many points a chunk has, where nobody says: about a million values, eight at least."""
    return max(8, (1 << 20) // points)


def _solid_chunks(shape: tuple[int, ...], chunk: int | None) -> tuple[int, ...]:
    """Chunk shape of about `chunk` shapes, by default of `_SOLID_VALUES`; a shape is cut only where it is large."""
    most = _SOLID_VALUES if chunk is None else chunk * math.prod(items_of(shape)[1:])
    return _pieces(shape, min(most, CHUNK_VALUES))


def _signal_chunks(job: Job, chunk: int | None) -> tuple[int, ...]:
    """Chunk shape of about `chunk` signals; a signal is cut only where it is large and no model needs it whole."""
    assert job.layout is not None
    sizes = {str(d): n for d, n in job.values.sizes.items()}
    grid = {d: sizes[d] for d in job.layout.value_dims}
    tile = job.model.tile if isinstance(job.model, Model) else None
    cuts = isinstance(job.model, PatchModel) or tile is not None  # a model of patches or tiles, for signals of any size
    most = _CUT_VALUES if cuts else CHUNK_VALUES
    cut = job.layout.dims if cuts else tuple(grid)  # features of a point stay together under a model
    unit = dict.fromkeys(cut, 1) if tile is None else dict(zip(cut, tile, strict=True))  # whole tiles, but for the last
    while (job.model is None or cuts) and math.prod(grid.values()) > most and any(grid[d] > unit[d] for d in cut):
        longest = max(cut, key=lambda d: grid[d] / unit[d])
        grid[longest] = -(-grid[longest] // (2 * unit[longest])) * unit[longest]
    points = math.prod(grid.values())
    room = max(1, min(signals_of(points) if chunk is None else chunk, CHUNK_VALUES // points))
    shape = dict(grid)
    for dim in reversed([d for d in sizes if d not in grid]):
        shape[dim] = max(1, min(sizes[dim], room))
        room = max(1, room // shape[dim])
    return tuple(shape[d] for d in sizes)


def _axes(job: Job) -> tuple[dict[str, Any], ...]:
    """Coordinates of the signal's axes, where a network is evaluated at them."""
    whole = isinstance(job.model, Model) and job.model.tile is None and job.model.domain is None
    if job.layout is None or not whole:
        return ()
    return tuple(encode_axis(a) for a in job.layout.grid.columns)


def _array(job: Job, chunk: int | None) -> ArrayPlan:
    values, bound, layout = job.values, job.stored_bound, job.layout
    grid = () if layout is None else tuple(values.dims.index(d) for d in layout.dims)
    feature = None if layout is None or layout.feature_dim is None else values.dims.index(layout.feature_dim)
    if feature is None and grid == tuple(range(max(0, values.ndim - 2), values.ndim)):
        grid = ()  # what the codec takes where nothing is said
    serializer = VcinrCodec(
        variable=job.name if job.model is None else known_as(job.name, job.model),
        signal_axes=grid,
        axes=_axes(job),
        model=job.model.sha256 if job.model else None,
        scaling=job.scaling,
        bound=(bound.kind, bound.value) if bound else None,
        fill=metadata.fill_values(values),
        limits=metadata.valid_limits(values) if layout is not None else None,
        feature_axis=feature,
        positions=None if job.located is None else job.located.place,
    )
    if job.solid and (layout is None or chunk is None):
        shape = _solid_chunks(values.shape, chunk)
    else:
        shape = _pieces(values.shape) if layout is None else _signal_chunks(job, chunk)
    if values.dtype.kind == "f" and values.dtype.itemsize > 8:
        raise InputError(f"variable {job.name!r} is {values.dtype}, which no archive can hold; convert it to float64")
    return ArrayPlan(job, serializer, shape, metadata.native(values.dtype))
