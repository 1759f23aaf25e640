"""Rival codecs, each as real bytes: ``encode(values, abs_error) -> bytes``, ``decode(bytes, shape, dtype)``.

All take finite float32 or float64 arrays only, because some of them crash on, or silently corrupt, anything
else. None is asked for less than the bound it is given; whether it keeps it is for the runner to measure.

:class:`EofCodec` is the classical learned rival: an EOF (PCA) basis of training maps, its coefficients
entropy coded, and a residual coded with the best of SZ3 and SPERR so that the bound holds.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import constriction
import imagecodecs
import numpy as np
import pysz
import zfpy

from vcinr.errors import BoundError, InputError


@dataclass(frozen=True)
class Rival:
    """One setting of one codec; `name` is how tables call this setting."""

    name: str
    encode: Callable[[np.ndarray, float], bytes]
    decode: Callable[[bytes, tuple[int, ...], np.dtype[Any]], np.ndarray]


def _checked(values: np.ndarray, limit: float) -> np.ndarray:
    if values.dtype not in (np.float32, np.float64) or values.size == 0 or not np.isfinite(values).all():
        raise InputError("rival codecs take finite float32 or float64 values; fill masked cells first")
    if not (limit > 0 and math.isfinite(limit)):
        raise InputError(f"the error bound must be a positive number, got {limit}")
    return np.ascontiguousarray(values)


def _half_ulp(values: np.ndarray) -> float:
    """What rounding to the dtype of `values` can add to an error of a result computed in float64."""
    return float(np.spacing(np.abs(values).max())) / 2


def _at_most_4d(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` with its leading axes joined, for the codecs that stop at four."""
    return (math.prod(shape[:-3]), *shape[-3:]) if len(shape) > 4 else shape


# --- SZ3 ---------------------------------------------------------------------------------------------------


def _sz3(algorithm: str) -> Rival:
    def encode(values: np.ndarray, abs_error: float) -> bytes:
        values = _checked(values, abs_error)
        values = values.reshape(_at_most_4d(values.shape))
        config = pysz.szConfig(values.shape)
        config.errorBoundMode = pysz.szErrorBoundMode.ABS
        config.absErrorBound = abs_error
        config.cmprAlgo = getattr(pysz.szAlgorithm, algorithm)
        compressed, _ = pysz.sz.compress(values, config)
        return compressed.tobytes()

    def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        values, _ = pysz.sz.decompress(np.frombuffer(data, np.uint8), dtype, _at_most_4d(shape))
        return values.reshape(shape)

    return Rival(f"SZ3 {algorithm}", encode, decode)


# --- SPERR -------------------------------------------------------------------------------------------------


def _plane_or_volume(shape: tuple[int, ...]) -> tuple[int, ...]:
    """`shape` as the 2-D or 3-D one that SPERR takes; it aborts on a volume whose first axis has length 1."""
    long = [n for n in shape if n > 1]
    if len(long) < 2:
        return (1, math.prod(shape))
    return (math.prod(long[:-2]), *long[-2:]) if len(long) > 3 else tuple(long)


def _sperr_decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    # Its decoder of planes may read a little beyond the stream: let there be memory, but not more stream.
    stream: Any = memoryview(data + bytes(64))[: len(data)]
    return imagecodecs.sperr_decode(stream, numthreads=1).astype(dtype, copy=False).reshape(shape)


def _sperr_pointwise(values: np.ndarray, abs_error: float) -> bytes:
    values = _checked(values, abs_error)
    planes = values.reshape(_plane_or_volume(values.shape))
    return bytes(imagecodecs.sperr_encode(planes, abs_error, "pwe", numthreads=1))


def _sperr_rms(values: np.ndarray, rms: float) -> bytes:
    values = _checked(values, rms)
    spread = float(values.max()) - float(values.min())
    level = 20 * math.log10(spread / rms) if spread > 0 else 100.0
    planes = values.reshape(_plane_or_volume(values.shape))
    return bytes(imagecodecs.sperr_encode(planes, max(level, 1.0), "psnr", numthreads=1))


# --- ZFP ---------------------------------------------------------------------------------------------------


def _zfp_encode(values: np.ndarray, abs_error: float) -> bytes:
    values = _checked(values, abs_error)
    return zfpy.compress_numpy(values.reshape(_at_most_4d(values.shape)), tolerance=abs_error)


def _zfp_decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return zfpy.decompress_numpy(data).astype(dtype, copy=False).reshape(shape)


# --- Linear quantisation, then a lossless coder of integers ------------------------------------------------

_GRID = struct.Struct("<dd")  # lowest value, step


def _to_grid(values: np.ndarray, abs_error: float, levels: int) -> tuple[bytes, np.ndarray]:
    values = _checked(values, abs_error)
    step = 2 * (abs_error - _half_ulp(values))
    low = float(values.min())
    if step <= 0 or (float(values.max()) - low) / step >= levels - 1:
        raise InputError(f"bound {abs_error:g} asks for more than {levels} levels over this data")
    return _GRID.pack(low, step), np.rint((values.astype(np.float64) - low) / step)


def _from_grid(data: bytes, codes: np.ndarray, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    low, step = _GRID.unpack_from(data)
    return (low + codes.astype(np.float64) * step).astype(dtype).reshape(shape)


def _pcodec_encode(values: np.ndarray, abs_error: float) -> bytes:
    head, codes = _to_grid(values, abs_error, 2**32)
    return head + imagecodecs.pcodec_encode(codes.astype(np.uint32))


def _pcodec_decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    codes = imagecodecs.pcodec_decode(data[_GRID.size :], shape=shape, dtype=np.dtype(np.uint32))
    return _from_grid(data, codes, shape, dtype)


def _jpegxl_encode(values: np.ndarray, abs_error: float) -> bytes:
    head, codes = _to_grid(values, abs_error, 2**16)
    plane = codes.astype(np.uint16).reshape(-1, values.shape[-1])  # maps one below the other
    return head + imagecodecs.jpegxl_encode(plane, lossless=True, effort=7, numthreads=1)


def _jpegxl_decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    return _from_grid(data, imagecodecs.jpegxl_decode(data[_GRID.size :], numthreads=1), shape, dtype)


# --- BitRound ----------------------------------------------------------------------------------------------


def _bitround_encode(values: np.ndarray, abs_error: float) -> bytes:
    values = _checked(values, abs_error)
    size = values.dtype.itemsize
    integers = values.view(f"u{size}")
    # Rounding to k bits moves a value of binary exponent e by at most 2^(e - k - 1).
    exponent = math.frexp(float(np.abs(values).max()))[1] - 1
    mantissa = np.finfo(values.dtype).nmant
    drop = mantissa - min(max(exponent - 1 - math.floor(math.log2(abs_error)), 0), mantissa)
    if drop:
        one = integers.dtype.type(1)
        half = integers.dtype.type((1 << (drop - 1)) - 1)
        to_even = (integers >> integers.dtype.type(drop)) & one
        integers = ((integers + half + to_even) >> integers.dtype.type(drop)) << integers.dtype.type(drop)
    shuffled = integers.ravel().view(np.uint8).reshape(-1, size).T
    return bytes(imagecodecs.zstd_encode(shuffled.tobytes(), 9))


def _bitround_decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    size = np.dtype(dtype).itemsize
    shuffled = np.frombuffer(imagecodecs.zstd_decode(data), np.uint8).reshape(size, -1)
    return np.ascontiguousarray(shuffled.T).view(dtype).reshape(shape)


SZ3 = tuple(_sz3(algorithm) for algorithm in ("INTERP_LORENZO", "INTERP", "LORENZO_REG"))
SPERR = Rival("SPERR", _sperr_pointwise, _sperr_decode)
SPERR_RMS = Rival("SPERR psnr", _sperr_rms, _sperr_decode)  # the number it takes is an RMS error, not a bound

RIVALS: Mapping[str, tuple[Rival, ...]] = {
    "SZ3": SZ3,
    "SPERR": (SPERR,),
    "ZFP": (Rival("ZFP", _zfp_encode, _zfp_decode),),
    "linear + pcodec": (Rival("linear + pcodec", _pcodec_encode, _pcodec_decode),),
    "linear + JPEG XL": (Rival("linear + JPEG XL", _jpegxl_encode, _jpegxl_decode),),
    "BitRound + zstd": (Rival("BitRound + zstd", _bitround_encode, _bitround_decode),),
}
"""Codecs that take a bound. Of several settings a side-by-side run tries all and keeps the smallest."""


# --- EBCC and a Fourier-feature network, through WebAssembly ------------------------------------------------


def _ebcc(base_ratio: float) -> Rival:
    def codec(abs_error: float) -> Any:
        from numcodecs_wasm_ebcc import Ebcc

        return Ebcc(residual="absolute", error=abs_error, base_cr=base_ratio)

    def encode(values: np.ndarray, abs_error: float) -> bytes:
        values = _checked(values, abs_error)
        if values.dtype != np.float32 or values.shape[-1] < 32 or values.shape[-2] < 32:
            raise InputError("EBCC takes float32 maps of 32 by 32 points or more")
        return np.asarray(codec(abs_error).encode(values)).tobytes()

    def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.asarray(codec(1.0).decode(np.frombuffer(data, np.uint8))).view(dtype).reshape(shape)

    return Rival(f"EBCC {base_ratio:g}", encode, decode)


EBCC = (_ebcc(30.0),)
"""With a base ratio of 30 for its JPEG 2000 layer (100 gave the same sizes); slow, hence not in `RIVALS`."""


def fourier_network(values: np.ndarray, epochs: int = 600) -> tuple[bytes, np.ndarray]:
    """A Fourier-feature network overfitted to a small field (Tancik et al. 2020): its bytes, and the field decoded."""
    from numcodecs_wasm_fourier_network import FourierNetwork

    values = _checked(values, 1.0)
    codec = FourierNetwork(
        fourier_features=8, fourier_scale=2.0, learning_rate=1e-2, mini_batch_size=None, num_blocks=1,
        num_epochs=epochs, seed=0,
    )  # fmt: skip
    data = np.asarray(codec.encode(values)).tobytes()
    decoded = np.empty_like(values)
    codec.decode(np.frombuffer(data, np.uint8), out=decoded)
    return data, decoded


def by_level(rival: Rival) -> Rival:
    """`rival` on every level of ``[T, C, H, W]`` by itself, as a volume over time."""
    count = struct.Struct("<I")

    def encode(values: np.ndarray, abs_error: float) -> bytes:
        if values.ndim != 4:
            raise InputError("by level: four axes are needed")
        parts = [rival.encode(np.ascontiguousarray(values[:, k]), abs_error) for k in range(values.shape[1])]
        return b"".join(count.pack(len(p)) + p for p in parts)

    def decode(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        levels, at = [], 0
        while at < len(data):
            (size,) = count.unpack_from(data, at)
            levels.append(rival.decode(data[at + 4 : at + 4 + size], (shape[0], *shape[2:]), dtype))
            at += 4 + size
        return np.stack(levels, 1)

    return Rival(f"{rival.name} by level", encode, decode)


# --- EOF (PCA) ---------------------------------------------------------------------------------------------

_HEAD = struct.Struct("<hBbbBI")  # step, family, scale shift, log2 of the domain, residual coder, coefficient bytes
_NO_RESIDUAL = 255
_LARGEST = 2**20 - 1  # a symbol's largest size: constriction's 24 bits of precision need room for every symbol
_MODEL = struct.Struct("<4sBIIdd")
_FAMILIES = (constriction.stream.model.QuantizedLaplace, constriction.stream.model.QuantizedGaussian)


def _power(index: int | np.ndarray) -> Any:
    """2^(index/4): steps and scales are whole numbers on this grid, so both sides derive equal parameters."""
    return np.exp2(np.asarray(index, np.float64) / 4)


def _index(value: float | np.ndarray) -> np.ndarray:
    return np.rint(4 * np.log2(np.maximum(value, 1e-30))).astype(np.int64)


@dataclass(frozen=True)
class EofCodec:
    """Maps as mean + sum of K coefficients times EOFs, entropy coded, plus a residual that keeps the bound.

    Model: `mean` ``[P]`` and `basis` ``[K, P]`` in the stored precision (a mode has unit RMS over the map, so
    a coefficient's step is an RMS error in data units), `scales` ``[K]`` the training spread of each
    coefficient as an index on the grid 2^(i/4); the mean is stored as (mean - offset) / unit.
    """

    mean: np.ndarray
    basis: np.ndarray
    scales: np.ndarray
    offset: float
    unit: float
    residual: tuple[Rival, ...] = (*SZ3, SPERR)

    @classmethod
    def fit(cls, train: np.ndarray, components: int, precision: Literal["float32", "float16"] = "float32") -> EofCodec:
        """The leading `components` EOFs (at most N - 1) of training maps ``[N, *grid]``, in `precision`."""
        flat = np.asarray(train, np.float64).reshape(len(train), -1)
        if not np.isfinite(flat).all() or len(flat) < 2:
            raise InputError("an EOF basis needs two training maps or more, all finite")
        components = min(components, len(flat) - 1, flat.shape[1])
        mean = flat.mean(axis=0)
        offset = float(mean.min())
        unit = float(mean.max()) - offset or 1.0
        _, _, modes = np.linalg.svd(flat - mean, full_matrices=False)
        basis = (modes[:components] * math.sqrt(flat.shape[1])).astype(precision)
        codec = cls(((mean - offset) / unit).astype(precision), basis, np.zeros(components, np.int16), offset, unit)
        spread = np.sqrt(np.mean(codec._project(flat) ** 2, axis=0))
        return cls(codec.mean, basis, _index(spread).astype(np.int16), offset, unit)

    def to_bytes(self) -> bytes:
        """The model as a decoder needs it; its length is what bits per value with the model count."""
        head = _MODEL.pack(b"EOF1", self.mean.dtype.itemsize, len(self.basis), len(self.mean), self.offset, self.unit)
        return head + self.scales.astype("<i2").tobytes() + self.mean.tobytes() + self.basis.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> EofCodec:
        """Inverse of :meth:`to_bytes`."""
        _, size, components, points, offset, unit = _MODEL.unpack_from(data)
        scales = np.frombuffer(data, "<i2", components, _MODEL.size)
        numbers = np.frombuffer(data, f"<f{size}", offset=_MODEL.size + scales.nbytes)
        basis = numbers[points:].reshape(components, points)
        return cls(numbers[:points], basis, scales, offset, unit)

    def _project(self, flat: np.ndarray) -> np.ndarray:
        basis = self.basis.astype(np.float64)  # rounded, so no longer exactly orthogonal: solve
        return np.linalg.solve(basis @ basis.T, basis @ (flat - self._mean()).T).T

    def _mean(self) -> np.ndarray:
        return self.mean.astype(np.float64) * self.unit + self.offset

    def _reconstruct(self, z: np.ndarray, step: int) -> np.ndarray:
        return self._mean() + (z * _power(step)) @ self.basis.astype(np.float64)

    def _parameters(self, count: int, step: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations, in units of the step, of `count` maps' symbols in coding order."""
        spread = np.maximum(_power(self.scales.astype(np.int64) - step + shift), 0.1)
        return np.zeros(count * len(spread)), np.tile(spread, count)

    def _code(self, z: np.ndarray, step: int) -> tuple[bytes, tuple[int, int, int]]:
        """The shortest stream of `z` over families and common scale shifts, and what a decoder must know."""
        domain = int(np.abs(z).max(initial=1)).bit_length()
        best: tuple[bytes, tuple[int, int, int]] | None = None
        for family, shift in itertools.product(range(len(_FAMILIES)), (-4, -2, 0, 2, 4, 6)):
            means, spread = self._parameters(len(z), step, shift)
            coder = constriction.stream.queue.RangeEncoder()
            spread = spread / math.sqrt(2) if family == 0 else spread  # Laplace: b = sigma / sqrt(2)
            model = _FAMILIES[family](-(2**domain), 2**domain)
            coder.encode(np.ascontiguousarray(z.ravel(), np.int32), model, means, spread)
            data = coder.get_compressed().astype("<u4").tobytes()
            if best is None or len(data) < len(best[0]):
                best = data, (family, shift, domain)
        assert best is not None
        return best

    def _decode_prior(self, data: bytes, count: int) -> tuple[np.ndarray, int, bytes]:
        step, family, shift, domain, coder, size = _HEAD.unpack_from(data)
        words = np.frombuffer(data, "<u4", size // 4, _HEAD.size).astype(np.uint32)
        means, spread = self._parameters(count, step, shift)
        spread = spread / math.sqrt(2) if family == 0 else spread
        decoder = constriction.stream.queue.RangeDecoder(words)
        z = decoder.decode(_FAMILIES[family](-(2**domain), 2**domain), means, spread)
        return self._reconstruct(z.reshape(count, -1), step), coder, data[_HEAD.size + size :]

    def encode_quality(self, values: np.ndarray, step: float) -> bytes:
        """Coefficients alone, quantised at about `step` (RMS error in data units a mode): no bound."""
        values = _checked(values, step)
        index = int(_index(step))
        z = np.rint(self._project(values.reshape(len(values), -1).astype(np.float64)) / _power(index))
        if np.abs(z).max() > _LARGEST:
            raise InputError(f"step {step:g} is too fine for coefficients of this size")
        return self._pack(*self._code(z, index), index, _NO_RESIDUAL, b"")

    def encode(self, values: np.ndarray, abs_error: float) -> bytes:
        """Maps ``[T, *grid]`` within `abs_error`, with the step that gives the fewest bytes in all.

        The total has one minimum over the step but for some noise: steps are walked by half octaves from a
        usual one, each way until two in a row do not help, and the neighbours of the best are tried.
        Raises BoundError where no residual coder keeps the bound.
        """
        values = _checked(values, abs_error)
        coefficients = self._project(values.reshape(len(values), -1).astype(np.float64))
        start = int(_index(abs_error / 3))
        tried: dict[int, bytes] = {}

        def helps(step: int) -> bool:
            smallest = min(map(len, tried.values()), default=None)
            trial = self._encode_at(values, coefficients, step, abs_error)
            if trial is not None:
                tried[step] = trial
            return trial is not None and (smallest is None or len(trial) < smallest)

        helps(start)
        for stride in (2, -2):
            step, misses = start, 0
            while misses < 2:
                step += stride
                misses = 0 if helps(step) else misses + 1
        if not tried:
            raise BoundError(f"no residual coder keeps the bound {abs_error:g}")
        best = min(tried, key=lambda step: len(tried[step]))
        helps(best - 1)
        helps(best + 1)
        return min(tried.values(), key=len)

    def _encode_at(self, values: np.ndarray, coefficients: np.ndarray, step: int, abs_error: float) -> bytes | None:
        z = np.rint(coefficients / _power(step))
        if np.abs(z).max() > _LARGEST:
            return None
        stream, how = self._code(z, step)
        prior = self._reconstruct(z, step).reshape(values.shape)
        rest = values - prior
        if np.abs(values - prior.astype(values.dtype).astype(np.float64)).max() <= abs_error:
            return self._pack(stream, how, step, _NO_RESIDUAL, b"")
        room = abs_error - _half_ulp(values)
        # The coders may pass their bound by a fraction of a percent: ask for less until the bound holds.
        for share in (1.0, 0.995, 0.98):
            if room <= 0:
                break
            coded = sorted(
                (len(data), i, data)
                for i, coder in enumerate(self.residual)
                for data in [coder.encode(rest.astype(values.dtype), room * share)]
            )
            for _, i, data in coded:
                back = self.residual[i].decode(data, values.shape, values.dtype)
                out = (prior + back).astype(values.dtype)
                if np.abs(values - out.astype(np.float64)).max() <= abs_error:
                    return self._pack(stream, how, step, i, data)
        return None

    @staticmethod
    def _pack(stream: bytes, how: tuple[int, int, int], step: int, coder: int, rest: bytes) -> bytes:
        return _HEAD.pack(step, *how, coder, len(stream)) + stream + rest

    def decode(self, data: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
        """Values of `shape` and `dtype` from the bytes of :meth:`encode` or :meth:`encode_quality`."""
        shape = tuple(shape)
        prior, coder, rest = self._decode_prior(data, shape[0])
        prior = prior.reshape(shape)
        if coder != _NO_RESIDUAL:
            prior = prior + self.residual[coder].decode(rest, shape, np.dtype(dtype))
        return prior.astype(dtype)

    def parts(self, data: bytes) -> dict[str, Any]:
        """Where the bytes of one stream go."""
        step, family, _, _, coder, size = _HEAD.unpack_from(data)
        return {
            "step": float(_power(step)),
            "family": ("Laplace", "Gauss")[family],
            "coefficient_bytes": size,
            "residual_bytes": len(data) - _HEAD.size - size,
            "residual_coder": None if coder == _NO_RESIDUAL else self.residual[coder].name,
        }
