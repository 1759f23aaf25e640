"""numcodecs codec ``vcinr``: one array to bytes and back, for benchmarks and for stores that use numcodecs.

The bytes are a chunk of :mod:`vcinr.codec` after a small header with dtype and shape. The error bound is verified as it
is everywhere. There is no model, because a numcodecs codec sees only values: neither their coordinates nor a store.
"""

from __future__ import annotations

import json
import math
import re
import struct
from typing import Any

import numpy as np
from numcodecs.abc import Codec

from vcinr.codec.decode import decode as decode_chunk
from vcinr.codec.encode import encode as encode_chunk
from vcinr.codec.promise import Bound, Field
from vcinr.errors import CorruptError

_MAGIC = b"VCNC"
_LIMIT = 1 << 40  # bytes of an array; a header that declares more is taken as damaged


class NumcodecsVcinr(Codec):
    """The codec as numcodecs knows it, under the name ``vcinr``.

    Parameters
    ----------
    bound : tuple of (str, float), optional
        Kind (``absolute``, ``relative`` or ``rate``) and value, as in :class:`vcinr.codec.Bound`. Default: lossless.
    fill : float, optional
        The value that stands for missing, besides NaN.

    Notes
    -----
    The last two axes are taken as the grid of a signal.
    """

    codec_id = "vcinr"

    def __init__(self, bound: tuple[str, float] | None = None, fill: float | None = None) -> None:
        if bound is not None and (len(bound) != 2 or bound[0] not in ("absolute", "relative", "rate")):
            raise ValueError(f"bound must be ('absolute' or 'relative' or 'rate', value), got {bound!r}")
        self.bound = None if bound is None else (bound[0], float(bound[1]))
        self.fill = fill

    def get_config(self) -> dict[str, Any]:
        """The codec as a JSON-able mapping."""
        return {"id": self.codec_id, "bound": list(self.bound) if self.bound else None, "fill": self.fill}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> NumcodecsVcinr:
        """Inverse of `get_config`."""
        bound = config.get("bound")
        return cls(tuple(bound) if bound else None, config.get("fill"))

    def encode(self, buf: Any) -> bytes:
        """Compress an array of any real dtype and shape."""
        values = np.asarray(buf)
        bound = None if self.bound is None else Bound(*self.bound)  # type: ignore[arg-type]
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        header = json.dumps([values.dtype.str, list(values.shape)], separators=(",", ":")).encode()
        chunk = encode_chunk(native, self._field(native.ndim), bound).data
        return _MAGIC + struct.pack("<H", len(header)) + header + chunk

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decompress an array.

        Parameters
        ----------
        buf : bytes-like
            From `encode`.
        out : array-like, optional
            Is filled with the values, if given.

        Returns
        -------
        numpy.ndarray
            The values, or `out`.

        Raises
        ------
        CorruptError
            For bytes that `encode` does not make.
        """
        data = bytes(memoryview(buf).cast("B"))
        if len(data) < 6 or data[:4] != _MAGIC:
            raise CorruptError("not an array of the numcodecs codec vcinr")
        (length,) = struct.unpack_from("<H", data, 4)
        try:
            dtype_text, shape = json.loads(data[6 : 6 + length])
            if not re.fullmatch(
                r"[<>|][fiub][1248]", str(dtype_text)
            ):  # anything else must not reach NumPy, which tries to interpret any text
                raise ValueError(f"dtype {dtype_text!r}")
            dtype, shape = np.dtype(dtype_text), tuple(int(n) for n in shape)
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise CorruptError(f"the header is malformed ({error})") from None
        if dtype.kind not in "fiub" or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize > _LIMIT:
            raise CorruptError("the header declares an array that cannot have been encoded")
        native = dtype.newbyteorder("=")
        values = decode_chunk(data[6 + length :], shape, native, self._field(len(shape))).astype(dtype, copy=False)
        if out is None:
            return values
        np.copyto(np.asarray(out).reshape(shape), values)
        return out

    def _field(self, ndim: int) -> Field:
        """What the codec of chunks needs to know of an array."""
        return Field("", tuple(range(max(0, ndim - 2), ndim)), fill=() if self.fill is None else (self.fill,))
