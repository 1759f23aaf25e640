"""The classical learned rival: an EOF (PCA) basis of training maps, its coefficients entropy coded.

A residual, coded with the smaller of SZ3 and SPERR, makes the bound hold.
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import constriction
import numpy as np

from benchmarks.rivals.base import Rival, checked, half_ulp
from benchmarks.rivals.sperr import SPERR
from benchmarks.rivals.sz3 import SZ3
from vcinr.errors import BoundError, InputError

Precision = Literal["float32", "float16"]

_HEAD = struct.Struct("<hBbbBI")  # step, family, scale shift, log2 of the domain, residual coder, coefficient bytes
_NO_RESIDUAL = 255
_LARGEST = 2**20 - 1  # a symbol's largest size: constriction's 24 bits of precision need room for every symbol
_MODEL = struct.Struct("<4sBIIdd")
_FAMILIES = (constriction.stream.model.QuantizedLaplace, constriction.stream.model.QuantizedGaussian)


def _power(index: int | np.ndarray) -> Any:
    """Return 2^(index/4); steps and scales are whole numbers on this grid, so both sides derive equal parameters."""
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
    def fit(cls, train: np.ndarray, components: int, precision: Precision = "float32") -> EofCodec:
        """Fit a codec to training maps.

        Parameters
        ----------
        train : np.ndarray
            Maps ``[N, *grid]``, finite.
        components : int
            Number of EOFs, at most N - 1.
        precision : {"float32", "float16"}
            In which the mean and the EOFs are stored.
        """
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
        spread = np.sqrt(np.mean(codec.project(flat) ** 2, axis=0))
        return cls(codec.mean, basis, _index(spread).astype(np.int16), offset, unit)

    def to_bytes(self) -> bytes:
        """Return the model as a decoder needs it; its length is what counts as the model's bytes."""
        head = _MODEL.pack(b"EOF1", self.mean.dtype.itemsize, len(self.basis), len(self.mean), self.offset, self.unit)
        return head + self.scales.astype("<i2").tobytes() + self.mean.tobytes() + self.basis.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> EofCodec:
        """Return the codec of the bytes that :meth:`to_bytes` gave."""
        _, size, components, points, offset, unit = _MODEL.unpack_from(data)
        scales = np.frombuffer(data, "<i2", components, _MODEL.size)
        numbers = np.frombuffer(data, f"<f{size}", offset=_MODEL.size + scales.nbytes)
        basis = numbers[points:].reshape(components, points)
        return cls(numbers[:points], basis, scales, offset, unit)

    @property
    def name(self) -> str:
        """How tables call it: components and precision."""
        return f"EOF {len(self.basis)} {self.basis.dtype}"

    def within(self) -> Rival:
        """Return the codec as a rival that takes a bound."""
        return Rival(self.name, self.encode, self.decode, "bound", len(self.to_bytes()), self.parts)

    def aimed(self) -> Rival:
        """Return the codec as a rival that takes an RMS error, coefficients alone.

        A mode has unit RMS over the map, so K coefficients quantised with step s have an RMS error of s sqrt(K / 12).
        """
        share = math.sqrt(12 / len(self.basis))
        encode = lambda values, rms: self.encode_quality(values, rms * share)  # noqa: E731
        return Rival(self.name, encode, self.decode, "rms", len(self.to_bytes()), self.parts)

    def project(self, flat: np.ndarray) -> np.ndarray:
        """Return the coefficients ``[N, K]`` of maps ``[N, P]``."""
        basis = self.basis.astype(np.float64)  # rounded, so no longer exactly orthogonal: solve
        return np.linalg.solve(basis @ basis.T, basis @ (flat - self._mean()).T).T

    def _mean(self) -> np.ndarray:
        return self.mean.astype(np.float64) * self.unit + self.offset

    def reconstruct(self, z: np.ndarray, step: int = 0) -> np.ndarray:
        """Return the maps ``[N, P]`` of coefficients in units of 2^(step / 4)."""
        return self._mean() + (z * _power(step)) @ self.basis.astype(np.float64)

    def _parameters(self, count: int, step: int, shift: int) -> tuple[np.ndarray, np.ndarray]:
        """Return means and standard deviations, in units of the step, of `count` maps' symbols in coding order."""
        spread = np.maximum(_power(self.scales.astype(np.int64) - step + shift), 0.1)
        return np.zeros(count * len(spread)), np.tile(spread, count)

    def _code(self, z: np.ndarray, step: int) -> tuple[bytes, tuple[int, int, int]]:
        """Return the shortest stream of `z` over families and scale shifts, and what a decoder must know."""
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
        return self.reconstruct(z.reshape(count, -1), step), coder, data[_HEAD.size + size :]

    def encode_quality(self, values: np.ndarray, step: float) -> bytes:
        """Encode the coefficients alone, quantised with a step of about `step` in data units; no bound is kept."""
        values = checked(values, step)
        index = int(_index(step))
        z = np.rint(self.project(values.reshape(len(values), -1).astype(np.float64)) / _power(index))
        if np.abs(z).max() > _LARGEST:
            raise InputError(f"step {step:g} is too fine for coefficients of this size")
        return self._pack(*self._code(z, index), index, _NO_RESIDUAL, b"")

    def encode(self, values: np.ndarray, abs_error: float) -> bytes:
        """Encode maps ``[T, *grid]`` within `abs_error`, with the step that gives the fewest bytes in all.

        The total has one minimum over the step, but for some noise. The search goes both ways from a usual step by
        half octaves, each way until two in a row do not help, and then tries the neighbours of the best.

        Raises
        ------
        BoundError
            If no residual coder keeps the bound.
        """
        values = checked(values, abs_error)
        coefficients = self.project(values.reshape(len(values), -1).astype(np.float64))
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
        prior = self.reconstruct(z, step).reshape(values.shape)
        difference = values - prior
        if np.abs(values - prior.astype(values.dtype).astype(np.float64)).max() <= abs_error:
            return self._pack(stream, how, step, _NO_RESIDUAL, b"")
        room = abs_error - half_ulp(values)
        # The coders may pass their bound by a fraction of a percent: ask for less until the bound holds.
        for share in (1.0, 0.995, 0.98):
            if room <= 0:
                break
            streams = [coder.encode(difference.astype(values.dtype), room * share) for coder in self.residual]
            for i in sorted(range(len(streams)), key=lambda i: len(streams[i])):
                data = streams[i]
                back = self.residual[i].decode(data, values.shape, values.dtype)
                out = (prior + back).astype(values.dtype)
                if np.abs(values - out.astype(np.float64)).max() <= abs_error:
                    return self._pack(stream, how, step, i, data)
        return None

    @staticmethod
    def _pack(stream: bytes, how: tuple[int, int, int], step: int, coder: int, residual: bytes) -> bytes:
        return _HEAD.pack(step, *how, coder, len(stream)) + stream + residual

    def decode(self, data: bytes, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
        """Return the values of the bytes that :meth:`encode` or :meth:`encode_quality` gave."""
        shape = tuple(shape)
        prior, coder, residual = self._decode_prior(data, shape[0])
        prior = prior.reshape(shape)
        if coder != _NO_RESIDUAL:
            prior = prior + self.residual[coder].decode(residual, shape, np.dtype(dtype))
        return prior.astype(dtype)

    def parts(self, data: bytes) -> dict[str, Any]:
        """Return where the bytes of one stream go."""
        step, family, _, _, coder, size = _HEAD.unpack_from(data)
        return {
            "step": float(_power(step)),
            "family": ("Laplace", "Gauss")[family],
            "coefficient_bytes": size,
            "residual_bytes": len(data) - _HEAD.size - size,
            "residual_coder": None if coder == _NO_RESIDUAL else self.residual[coder].name,
        }
