"""The variational quantiser as the codec uses it: phi -> integer code z -> phi~, in NumPy alone.

phi stands for the latent relative to its variable's phi_0. One pair of networks serves several rates: rate k
scales the latent by its own gains before rounding and undoes them after,
z = round(gain_k * g_a((phi - mean) / std)), phi~ = mean + std * g_s(z / gain_k)
(Schwarz et al. 2023, Algorithm 2; Ballé et al. 2017; gains as in Cui et al. 2021). Tables are integers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.coding import latents
from vcinr.coding.ans import TOTAL, Reader, Writer
from vcinr.errors import CorruptError, ModelError
from vcinr.inr.conditioning import residual_network, residual_shapes
from vcinr.inr.spec import Array, Params

ESCAPE_BITS = 32
CODERS = ("static", "adaptive")
"""Coders of latents: the tables alone, as one ANS bitstream, or as the first state of adaptive counters."""


def analyse(params: Params, blocks: int, phi: Array) -> Array:
    """g_a on standardised latents ``[B, d]``."""
    return _network(params, "analysis", blocks, (phi - params["mean"]) / params["std"])


def synthesise(params: Params, blocks: int, y: Array) -> Array:
    """g_s and the de-standardisation, ``[B, d]``."""
    return params["mean"] + params["std"] * _network(params, "synthesis", blocks, y)


def _network(params: Params, name: str, blocks: int, h: Array) -> Array:
    # A residual network around the identity: with its last weights at zero it is plain scalar quantisation.
    u = h @ params[f"{name}.in.weight"].T + params[f"{name}.in.bias"]
    u = residual_network(params, f"{name}.block", blocks, u)
    return h + u @ params[f"{name}.out.weight"].T + params[f"{name}.out.bias"]


MAX_LEVEL = 65
_WEIGHTS = np.array([0] + [math.isqrt(math.isqrt(1 << (k + 16))) for k in range(MAX_LEVEL)], np.int64)
"""16 * 2^(k / 4), rounded down, of level k + 1."""


def levels_of(frequency: np.ndarray) -> np.ndarray:
    """Frequencies ``[..., S]``, 0 where padded, in quarters of an octave, uint8: a table in an eighth of its bytes."""
    with np.errstate(divide="ignore"):
        return np.where(frequency > 0, np.rint(4 * np.log2(frequency)) + 1, 0).astype(np.uint8)


def frequencies_of(level: np.ndarray) -> np.ndarray:
    """Integer frequencies of levels ``[..., S]``, int32: see `coding.ans.quantise_frequencies`."""
    weights = _WEIGHTS[level]
    free = TOTAL - np.count_nonzero(level, axis=-1)[..., None]
    found = np.where(level > 0, 1 + weights * free // weights.sum(-1, keepdims=True), 0)
    most = weights.argmax(-1)[..., None]
    rest = TOTAL - found.sum(-1, keepdims=True) + np.take_along_axis(found, most, -1)
    np.put_along_axis(found, most, rest, -1)
    return found.astype(np.int32)


@dataclass(frozen=True)
class Quantiser:
    """Networks, gains ``[K, d]`` and integer tables of a trained quantiser.

    level ``[K, d, S]`` uint8: row (k, i) says the table of z_i at rate k in quarters of an octave; entry 0 is the
    escape, entry 1 + j the symbol ``offset[k, i] + j``, levels of 0 at the end pad the row.
    """

    params: Mapping[str, np.ndarray]
    blocks: int
    gain: np.ndarray
    offset: np.ndarray
    level: np.ndarray

    @cached_property
    def frequency(self) -> np.ndarray:
        """The tables as frequencies ``[K, d, S]`` int32, each at least 1, 0 where padded; rows sum to 2**16."""
        return frequencies_of(self.level)

    @property
    def rates(self) -> int:
        """Number of rates K; the last is the finest."""
        return len(self.gain)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays for the model artifact."""
        return {
            **{f"net.{k}": v for k, v in self.params.items()},
            "blocks": np.array([self.blocks], np.int32), "gain": self.gain.reshape(-1),
            "offset": self.offset, "level": self.level,
        }  # fmt: skip

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Quantiser:
        """Inverse of `to_tensors`; raises ModelError on tables that are none."""
        try:
            params = {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}
            offset, level = tensors["offset"], tensors["level"]
            gain = tensors["gain"].reshape(offset.shape)
            blocks, (width, d) = int(tensors["blocks"].ravel()[0]), (params["analysis.in.bias"].size, offset.shape[-1])
        except (KeyError, ValueError, IndexError) as error:
            raise ModelError(f"the model's quantiser is malformed ({error})") from None
        if (
            not 0 <= blocks <= 1024
            or offset.ndim != 2
            or level.ndim != 3
            or level.dtype != np.uint8
            or level.shape[:2] != offset.shape
            or 0 in level.shape
            or level.shape[-1] > TOTAL // 2
        ):
            raise ModelError("the model's frequency tables do not have the shape of its offsets")
        expected: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,)}
        for name in ("analysis", "synthesis"):
            expected |= {f"{name}.in.weight": (width, d), f"{name}.in.bias": (width,)}
            expected |= residual_shapes(f"{name}.block", blocks, width, width)
            expected |= {f"{name}.out.weight": (d, width), f"{name}.out.bias": (d,)}
        if {k: v.shape for k, v in params.items()} != expected:
            raise ModelError("the quantiser's parameters do not have the shapes they should")
        if (
            level.max(initial=0) > MAX_LEVEL
            or (level[..., 0] == 0).any()
            or ((level[..., 1:] > 0) & (level[..., :-1] == 0)).any()
        ):
            raise ModelError("the model's frequency tables are none")
        return cls(params, blocks, gain, offset, level)

    def quantise(self, phi: np.ndarray, rate: int) -> np.ndarray:
        """phi ``[B, d]`` -> z ``[B, d]`` int64."""
        y = analyse(self.params, self.blocks, phi) * self.gain[rate]
        return np.clip(np.rint(y), -(2**30), 2**30).astype(np.int64)

    def dequantise(self, z: np.ndarray, rate: int) -> np.ndarray:
        """z ``[B, d]`` -> phi~ ``[B, d]`` float32, one signal at a time so that batches do not matter."""
        y = (z / self.gain[rate]).astype(np.float32)
        if self.unit(rate) is not None:  # element by element: they do not
            return synthesise(self.params, self.blocks, y)
        return np.concatenate([synthesise(self.params, self.blocks, row[None]) for row in y])

    def unit(self, rate: int) -> np.ndarray | None:
        """What one unit of z is in each latent ``[d]``, where the networks are the identity; else None."""
        return None if self.params["analysis.in.bias"].size else self.params["std"] / self.gain[rate]

    def _row(self, rate: int, i: int) -> np.ndarray:
        row = self.frequency[rate, i]
        return row[row > 0]

    def bits(self, z: np.ndarray, rate: int) -> float:
        """Modelled rate of z in bits under the tables, escapes included."""
        total = 0.0
        for i in range(z.shape[1]):
            row = self._row(rate, i)
            symbol = self._symbols(z[:, i], rate, i, row)
            total -= float(np.log2(row[symbol] / TOTAL).sum()) - ESCAPE_BITS * int((symbol == 0).sum())
        return total

    def _symbols(self, column: np.ndarray, rate: int, i: int, row: np.ndarray) -> np.ndarray:
        symbol = column - self.offset[rate, i] + 1
        return np.where((symbol >= 1) & (symbol < len(row)), symbol, 0)

    def costs(self, rate: int) -> np.ndarray:
        """Bits of the symbols ``offset[rate, i] + j`` ``[d, S - 1]``; infinite where a table has none."""
        with np.errstate(divide="ignore"):
            return -np.log2(self.frequency[rate, :, 1:] / TOTAL)

    def code(self, z: np.ndarray, rate: int) -> tuple[int, bytes]:
        """The shorter of the two codings of z ``[T, C, d]`` (times, levels), and which: see `CODERS`."""
        writer = Writer()
        self.write(writer, z.reshape(-1, z.shape[-1]), rate)
        coded = writer.getvalue(), latents.encode(z, self.offset[rate], self.frequency[rate])
        return min(enumerate(coded), key=lambda c: len(c[1]))

    def decode(self, coder: int, data: bytes, times: int, levels: int, rate: int) -> np.ndarray:
        """Inverse of `code`: z ``[times, levels, d]`` int64; raises CorruptError."""
        self._check(rate)
        if coder >= len(CODERS):
            raise CorruptError("latents of an unknown coder")
        if CODERS[coder] == "adaptive":
            return latents.decode(data, times, levels, self.offset[rate], self.frequency[rate])
        return self.read(Reader(data), times * levels, rate).reshape(times, levels, -1)

    def _check(self, rate: int) -> None:
        if not 0 <= rate < self.rates:
            raise CorruptError(f"rate {rate} is not one of the model's {self.rates}")

    def write(self, writer: Writer, z: np.ndarray, rate: int) -> None:
        """Entropy code z ``[B, d]``."""
        for i in range(z.shape[1]):
            row = self._row(rate, i)
            symbol = self._symbols(z[:, i], rate, i, row)
            writer.symbols(symbol, row)
            writer.bits(z[symbol == 0, i] + (1 << (ESCAPE_BITS - 1)), ESCAPE_BITS)

    def read(self, reader: Reader, count: int, rate: int) -> np.ndarray:
        """Inverse of `write`: z ``[count, d]`` int64."""
        self._check(rate)
        z = np.empty((count, self.offset.shape[1]), np.int64)
        for i in range(z.shape[1]):
            row = self._row(rate, i)
            symbol = reader.symbols(count, row).astype(np.int64)
            z[:, i] = symbol - 1 + self.offset[rate, i]
            escaped = symbol == 0
            z[escaped, i] = reader.bits(int(escaped.sum()), ESCAPE_BITS) - (1 << (ESCAPE_BITS - 1))
        return z
