"""Zarr v3 array-to-bytes codec ``vcinr`` (entry point group ``zarr.codecs``).

Its configuration holds all that decoding needs besides the model: the grid's coordinates and the model's
SHA-256. The model itself lies once in the same store, under ``vcinr/models/<sha256>`` of a group above the array;
it is found through the store that the chunk is read from, so plain ``zarr.open`` and ``xarray.open_zarr`` work.
Of scattered points, the configuration names the variables that hold their positions, which are found likewise.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer, default_buffer_prototype
from zarr.storage import StorePath

from vcinr.archive import models, positions
from vcinr.archive.positions import Place
from vcinr.codec.chunk import needs_positions
from vcinr.codec.decode import decode
from vcinr.codec.promise import Bound, Field
from vcinr.coding.neighbours import Positions
from vcinr.errors import CorruptError, ModelError, VcinrError
from vcinr.signals.domain import Grid

CONFIG_VERSION = 1


def encode_axis(values: np.ndarray) -> dict[str, Any]:
    """Bring a coordinate axis into a form for JSON.

    Parameters
    ----------
    values
        The coordinates.

    Returns
    -------
    dict
        ``start``, ``stop`` and ``num`` where evenly spaced numbers reproduce it exactly, else its ``values``.
    """
    values = np.asarray(values, np.float64)
    if len(values) > 2:
        even = evenly_spaced(float(values[0]), float(values[-1]), len(values))
        if np.array_equal(even, values):
            return {"start": float(values[0]), "stop": float(values[-1]), "num": len(values)}
    return {"values": [float(v) for v in values]}


def evenly_spaced(start: float, stop: float, num: int) -> np.ndarray:
    """Numbers at equal distances, both ends included, by the operations of docs/format.md.

    Chunks' checksums depend on every bit of them, so this is not left to `numpy.linspace`, which may come to change.

    Parameters
    ----------
    start, stop
        The ends.
    num
        How many numbers.

    Returns
    -------
    numpy.ndarray
        float64 ``[num]``: start + i * ((stop - start) / (num - 1)), the last exactly `stop`.
    """
    if num < 2:
        return np.full(num, start, np.float64)
    values = start + np.arange(num) * ((stop - start) / (num - 1))
    values[-1] = stop
    return values


def decode_axis(axis: Mapping[str, Any], length: int) -> np.ndarray:
    """Inverse of `encode_axis`.

    Parameters
    ----------
    axis
        What `encode_axis` returned.
    length
        How many values it must have.

    Returns
    -------
    numpy.ndarray
        float64.

    Raises
    ------
    CorruptError
        Unless it is an axis of `length` values.
    """
    try:
        if "values" in axis:
            values = np.array(axis["values"], np.float64)
        else:
            values = evenly_spaced(axis["start"], axis["stop"], length if axis["num"] == length else 0)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptError(f"coordinate axis is malformed ({error})") from None
    if values.shape != (length,):
        raise CorruptError("coordinate axis has another length than the array")
    return values


@dataclass(frozen=True)
class VcinrCodec(ArrayBytesCodec, ArrayBytesCodecPartialDecodeMixin):
    """The codec and its JSON configuration.

    Parameters
    ----------
    variable, signal_axes, scaling, fill, limits, feature_axis
        As in :class:`vcinr.codec.promise.Field`.
    axes
        Coordinates of the signal's axes, as `encode_axis` returns them.
    model
        SHA-256 of the model, or None.
    bound
        Kind and value (:class:`vcinr.codec.promise.Bound`) that chunks are encoded with, for the numbers as they are
        stored, or None.
    positions
        Which variables say where the points of a signal lie, for scattered points; else None.
    version
        Of this configuration.

    Notes
    -----
    To *write* through plain Zarr with a model, register it first with ``vcinr.archive.models.register``, and positions
    with ``vcinr.archive.positions.register``.
    """

    is_fixed_size = False

    variable: str = ""
    signal_axes: tuple[int, ...] = ()
    axes: tuple[Mapping[str, Any], ...] = ()
    model: str | None = None
    scaling: tuple[float, float] = (0.0, 1.0)
    bound: tuple[str, float] | None = None
    fill: tuple[float | int, ...] = ()
    limits: tuple[float, float] | None = None
    feature_axis: int | None = None
    positions: Place | None = None
    version: int = CONFIG_VERSION

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """From array metadata; raises CorruptError for a configuration of a later version."""
        config = dict(data.get("configuration", {}))
        if config.setdefault("version", 1) > CONFIG_VERSION:
            raise CorruptError(f"array written by a later vcinr (configuration {config['version']}); upgrade vcinr")
        if not all(isinstance(config.get(k, ()), list | tuple) for k in ("signal_axes", "axes", "scaling", "fill")):
            raise CorruptError("configuration of the vcinr codec is malformed")
        config["signal_axes"] = tuple(config.get("signal_axes", ()))
        config["axes"] = tuple(config.get("axes", ()))
        config["scaling"] = tuple(config.get("scaling", (0.0, 1.0)))
        config["bound"] = tuple(config["bound"]) if config.get("bound") else None
        config["fill"] = tuple(config.get("fill", ()))
        try:
            low_high = config.get("limits")
            config["limits"] = None if low_high is None else (float(low_high[0]), float(low_high[1]))
            place = config.get("positions")
            config["positions"] = None if place is None else Place.from_dict(place)
            made = cls(**config)
        except (TypeError, ValueError, IndexError, KeyError) as error:
            raise CorruptError(f"configuration of the vcinr codec is malformed ({error})") from None
        numbers = (*made.scaling, *made.fill, *(made.bound or ("", 0))[1:])
        sound = [
            isinstance(made.variable, str), made.model is None or isinstance(made.model, str),
            all(type(a) is int and a >= 0 for a in made.signal_axes), len(made.scaling) == 2,
            made.feature_axis is None or (type(made.feature_axis) is int and made.feature_axis >= 0),
            all(isinstance(n, int | float) for n in numbers), all(isinstance(a, Mapping) for a in made.axes),
        ]  # fmt: skip
        if not all(sound) or not (made.limits is None or made.limits[0] <= made.limits[1]):
            raise CorruptError("configuration of the vcinr codec is malformed")
        return made

    def to_dict(self) -> dict[str, Any]:
        """For array metadata; what has its default value is left out, and the version where it is 1."""
        config: dict[str, Any] = {
            "variable": self.variable, "signal_axes": list(self.signal_axes), "axes": [dict(a) for a in self.axes],
            "model": self.model, "bound": list(self.bound) if self.bound else None, "fill": list(self.fill),
            "limits": None if self.limits is None else [repr(float(v)) for v in self.limits],
        }  # fmt: skip
        given = {key: value for key, value in config.items() if value}
        if self.scaling != (0.0, 1.0):
            given["scaling"] = list(self.scaling)
        if self.feature_axis is not None:
            given["feature_axis"] = self.feature_axis
        if self.positions is not None:
            given["positions"] = self.positions.to_dict()
        if self.version != 1:
            given["version"] = self.version
        return {"name": "vcinr", "configuration": given}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        """Compressed sizes are not known beforehand."""
        raise NotImplementedError

    def axes_of(self, ndim: int) -> tuple[int, ...]:
        """The signal's axes in an array of so many; raises CorruptError where it cannot have them."""
        feature = self.feature_axis
        axes = self.signal_axes or tuple([a for a in range(ndim) if a != feature][-2:])
        held = axes if feature is None else (feature, *axes)
        if len(set(held)) != len(held) or any(a >= ndim for a in held) or len(self.axes) not in (0, len(axes)):
            raise CorruptError("the signal's axes are not those of the array")
        return axes

    def field(self, chunk_shape: tuple[int, ...], model: Any, there: Positions | None = None) -> Field:
        """The chunk codec's view of this configuration; raises CorruptError where it does not fit the chunks.

        `there` are the positions that the configuration names, for chunks that need them.
        """
        axes = self.axes_of(len(chunk_shape))
        if there is not None and len(there.points) != math.prod(chunk_shape[a] for a in axes):
            raise CorruptError("the signals of a chunk have another number of points than there are positions")
        grid = Grid(tuple(decode_axis(a, chunk_shape[k]) for k, a in zip(axes, self.axes, strict=False)))
        return Field(
            self.variable, axes, grid, model, self.scaling, self.fill, self.limits, self.feature_axis, there,
            None if self.positions is None else self.positions.sha256,
        )  # fmt: skip

    @property
    def promise(self) -> Bound | None:
        """The bound as the chunk codec takes it."""
        if self.bound is None:
            return None
        kind, value = self.bound
        if kind not in ("absolute", "relative", "rate", "iou"):
            raise CorruptError(f"a chunk cannot be encoded to a bound of kind {kind!r} through Zarr")
        return Bound(kind, float(value))  # type: ignore[arg-type]

    def _decode(self, data: bytes, spec: ArraySpec, model: Any, there: Positions | None) -> np.ndarray:
        dtype = spec.dtype.to_native_dtype()
        return decode(data, spec.shape, dtype, self.field(spec.shape, model, there), padding=spec.fill_value)

    def _at_hand(self, needed: bool) -> tuple[Any, Positions | None]:
        """The model, and the positions if needed, that this process knows already."""
        model = models.registered(self.model) if self.model else None
        return model, None if self.positions is None or not needed else positions.registered(self.positions)

    async def _decode_single(self, chunk_bytes: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        data = chunk_bytes.to_bytes()
        array = await asyncio.to_thread(self._decode, data, chunk_spec, *self._at_hand(needs_positions(data)))
        return chunk_spec.prototype.nd_buffer.from_numpy_array(array)

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, chunk_spec: ArraySpec) -> NDBuffer | None:
        buffer = await byte_getter.get(prototype=default_buffer_prototype())
        where = str(byte_getter) if isinstance(byte_getter, StorePath) else "in a shard"
        if buffer is None:
            # vcinr stores every chunk, so an absent one is lost data, never a chunk of fill values.
            raise CorruptError(f"chunk {where} is missing; copy the archive again")
        try:
            model, there, data = await self.find_model(byte_getter), None, buffer.to_bytes()
            if self.positions is not None and needs_positions(data):
                there = await self.find_positions(byte_getter, chunk_spec.shape)
            array = await asyncio.to_thread(self._decode, data, chunk_spec, model, there)
        except VcinrError as error:
            raise type(error)(f"chunk {where}: {error}") from None
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.asarray(array[selection]))

    async def find_model(self, byte_getter: Any) -> Any:
        """The model by its hash, from what this process knows or the store being read; raises ModelError."""
        if self.model is None:
            return None
        model = models.lookup(self.model)
        if model is None and isinstance(byte_getter, StorePath):
            model = await models.find(byte_getter.store, byte_getter.path, self.model)
        if model is None and not isinstance(byte_getter, StorePath):
            raise ModelError(
                f"model {self.model} cannot be found from within a shard; use vcinr_sharding for its array"
            )
        if model is None:
            raise ModelError(
                f"model {self.model} is not in this archive ({models.GROUP}/{self.model}); open the archive from its "
                "root, and copy it whole"
            )
        return model

    async def find_positions(self, byte_getter: Any, chunk_shape: tuple[int, ...]) -> Positions | None:
        """The positions by their hash, from what this process knows or the store being read; raises CorruptError."""
        if self.positions is None:
            return None
        known = positions.lookup(self.positions)
        if known is not None:
            return known
        if not isinstance(byte_getter, StorePath):
            raise CorruptError("positions cannot be found from within a shard; use vcinr_sharding for the array")
        shape = tuple(chunk_shape[a] for a in self.axes_of(len(chunk_shape)))
        return await positions.find(byte_getter.store, byte_getter.path, self.positions, shape)

    async def _encode_single(self, chunk_array: NDBuffer, chunk_spec: ArraySpec) -> Buffer | None:
        from vcinr.codec.encode import encode  # only here: readers import no search

        values = chunk_array.as_numpy_array()
        encoded = await asyncio.to_thread(encode, values, self.field(values.shape, *self._at_hand(True)), self.promise)
        return chunk_spec.prototype.buffer.from_bytes(encoded.data)
