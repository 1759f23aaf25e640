"""What each variable of an archive is asked: its bound, its model, or why it is only kept."""

from __future__ import annotations

import contextlib
import fnmatch
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import xarray as xr

from vcinr.archive import metadata
from vcinr.archive.blocks import CHUNK_VALUES, blocks, index_of, pieces, read_block
from vcinr.archive.metadata import Groups
from vcinr.archive.positions import Located, locate, names_of
from vcinr.codec.promise import SMALL_BYTES, Bound, only_valid
from vcinr.coding.neighbours import Positions
from vcinr.errors import InputError, ModelError
from vcinr.formats.base import KIND_OF_SIGNAL
from vcinr.formats.open import numeric_fields
from vcinr.inr.model import Model
from vcinr.models import AnyModel
from vcinr.patches.model import PatchModel
from vcinr.signals import Layout, Points, layout_of
from vcinr.signals.graph import graph_of

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


def jobs_of(
    groups: Groups, models: Models, abs_error: float | Mapping[str, float] | None,
    requests: Mapping[str, float | None], variables: Sequence[str] | None, limits: Limits | None = None,
) -> list[Job]:  # fmt: skip
    """Say of every variable what is asked of it.

    Parameters
    ----------
    groups, models, abs_error, variables, limits
        As in :func:`vcinr.archive.plan.plan`.
    requests
        All other kinds of bound by name; None where one is not given.

    Returns
    -------
    list of Job
        In the order of the groups and their variables.

    Raises
    ------
    InputError, ModelError
        As in :func:`vcinr.archive.plan.plan`.
    """
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
    suited = _suited(groups, to_compress, shared) if of_files and shared is not None else {}
    for name in names:
        values = metadata.member(groups, name)
        own = requests
        if requests["rate"] and of_files and values.size:
            # Files of a size of their own, such as an icon among photographs, are an array of few values.
            own = {**requests, "rate": max(requests["rate"], 8 * SMALL_BYTES / values.size)}
        if name not in to_compress:
            jobs.append(Job(name, values))
            continue
        model = model_of(name, models)
        solid = model is None and holds_shapes(values, _asked_for(limits, name))
        if solid and (goal := _goal(own)) is not None:
            jobs.append(Job(name, values, bound=goal, asked=True, solid=True))
        elif requests["iou"] is not None:
            raise InputError(
                f"variable {name!r} holds {values.dtype} and not only zeros and ones, for which alone there is an IoU; "
                "give another bound, such as --abs-error"
            )
        elif reason := _never_lossy(values):
            note = f"stored losslessly: {reason}"
            jobs.append(Job(name, values, asked=True, note=note, rate=own["rate"] or math.inf, solid=solid))
        else:
            bound, ends = _bound(name, values, abs_error, own, limits)
            # A bound of zero, or the range of a constant, leaves nothing for a model to do.
            exact = bool(asked) and bound is None
            used = None if exact or (suited and name not in suited) else model
            layout, fitted = suited[name] if used is not None and suited else _fitted(groups, name, used)
            known = [job.located for job in jobs if job.located is not None]
            on_graph = isinstance(fitted, Model) and fitted.domain is not None
            free = bound is not None and (fitted is None or on_graph)
            located = _located(groups, name, to_compress, known) if free else None
            if located is not None and not on_graph:
                layout = layout_of(values, located.dims)
            elif located is not None and located.dims != layout.dims:
                located = None
            jobs.append(Job(name, values, layout, fitted, bound, asked=True, limits=ends, located=located, solid=solid))
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


def _suited(groups: Groups, names: Sequence[str], model: AnyModel) -> dict[str, tuple[Layout, AnyModel | None]]:
    """The arrays of signals of files that a model fits, as `_fitted` has them; grey images among colours may not be.

    Where it fits none, it is the wrong model, and nothing is returned.
    """
    found = {}
    for name in names:
        with contextlib.suppress(ModelError):
            found[name] = _fitted(groups, name, model)
    return found


def _goal(requests: Mapping[str, float | None]) -> Bound | None:
    """What is asked of shapes; None where they are to stay as they are."""
    if requests["iou"] is not None:
        return Bound("iou", float(requests["iou"]))
    return Bound("rate", float(rate)) if (rate := requests["rate"]) else None


def _asked_for(limits: Limits | None, name: str) -> Callable[[], tuple[float, float]] | None:
    """The limits of a variable, looked up only when they are asked for; None where none are known."""
    return None if limits is None else lambda: limits[name]


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
    return all(block.min() >= 0 and block.max() <= 1 for block in blocks(values))


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
        As in :func:`vcinr.archive.plan.plan`.

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
            n for n in every
            if _dimensions(groups, n) > 1 and holds_shapes(metadata.member(groups, n), _asked_for(limits, n))
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
    low, high = limits_of_pieces(values, 0, count_pieces(values.shape))
    return (low, high) if low <= high else (0.0, 0.0)


def count_pieces(shape: tuple[int, ...]) -> int:
    """In how many pieces an array of a shape is read to find its limits."""
    return math.prod(-(-n // c) for n, c in zip(shape, pieces(shape), strict=True))


def limits_of_pieces(values: xr.DataArray, start: int, stop: int) -> tuple[float, float]:
    """Find the least and the greatest valid value of some pieces of a variable.

    Parameters
    ----------
    values
        The variable.
    start, stop
        Number of the first piece, in C order, and of the one after the last, of `count_pieces`.

    Returns
    -------
    low, high : float
        Infinite, the least above the greatest, where there is no valid value.
    """
    fill, shape = metadata.fill_values(values), pieces(values.shape)
    counts = [-(-n // c) for n, c in zip(values.shape, shape, strict=True)]
    low, high = math.inf, -math.inf
    for number in range(start, stop):
        block = read_block(values, index_of(number, counts), shape)
        kept = only_valid(block, fill)
        if kept.size:
            low, high = min(low, float(kept.min())), max(high, float(kept.max()))
    return low, high
