"""A trained quantiser as the codec uses it: phi -> integer code z -> phi~, in NumPy alone.

Here phi is the latent relative to its variable's phi_0. One pair of networks, analysis g_a and synthesis g_s, serves
several rates: rate k multiplies the latent by gains of its own before rounding and divides by them afterwards,
z = round(gain_k * g_a((phi - mean) / std)), phi~ = mean + std * g_s(z / gain_k)
(Schwarz et al. 2023, Algorithm 2; Ballé et al. 2017; gains as in Cui et al. 2021). The entropy model is tables of
integers. Every kind of quantiser ends in this form.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vcinr.coding import latents
from vcinr.coding.hyperprior import Hyperprior
from vcinr.coding.static import STATIC, reader, writer
from vcinr.coding.tables import Tables, frequencies_of, sound
from vcinr.errors import ConfigError, CorruptError, ModelError
from vcinr.inr.residual import residual_network, residual_shapes
from vcinr.inr.spec import Array, Params

CODERS = ("ans", "adaptive", "range", "huffman", "hyperprior")
"""Coders of latent codes, in the order of the numbers by which chunks name them.

``ans``, ``range`` and ``huffman`` use the static tables as they are; ``adaptive`` starts its counters from them;
``hyperprior`` uses tables that side information selects.
"""
MAX_RATES = 32
"""Largest number of rates: a chunk stores its rate in five bits."""
MAX_TABLE = 1 << 27
"""Largest number of entries in the tables of one rate: a coder needs 8 bytes of memory for each."""
_TENSORS = {"blocks", "gain", "offset", "level", "coders", "cells"}


def analyse(params: Params, blocks: int, phi: Array) -> Array:
    """Standardise latents ``[B, d]`` and apply the analysis network g_a."""
    return _network(params, "analysis", blocks, (phi - params["mean"]) / params["std"])


def synthesise(params: Params, blocks: int, y: Array) -> Array:
    """Apply the synthesis network g_s to ``[B, d]`` and undo the standardisation."""
    return params["mean"] + params["std"] * _network(params, "synthesis", blocks, y)


def _network(params: Params, name: str, blocks: int, h: Array) -> Array:
    # A residual network around the identity. With its last weights at zero, or without any width, what remains is
    # scalar quantisation.
    if not params[f"{name}.in.bias"].shape[0]:
        return h + params[f"{name}.out.bias"]
    u = h @ params[f"{name}.in.weight"].T + params[f"{name}.in.bias"]
    u = residual_network(params, f"{name}.block", blocks, u)
    return h + u @ params[f"{name}.out.weight"].T + params[f"{name}.out.bias"]


@dataclass(frozen=True)
class Quantiser:
    """Networks, gains and integer tables of a trained quantiser with K rates.

    Attributes
    ----------
    params : mapping of str to numpy.ndarray
        Parameters of the networks, with ``mean`` and ``std``, float32.
    blocks : int
        Residual blocks of each network.
    gain : numpy.ndarray
        ``[K, d]``.
    offset : numpy.ndarray
        int32 ``[K, d]``: the first symbol of each table.
    level : numpy.ndarray
        uint8 ``[K, d, S]``, or ``[K, 1, S]`` where all dimensions share a table. Row (k, i) is the table of z_i at rate
        k in quarters of an octave. Entry 0 is the escape, entry 1 + j the symbol ``offset[k, i] + j``; levels of 0 at
        the end are padding.
    cells : bool
        Whether codes are the cells of a bounded range, that of the table. Then z = floor(gain_k * ...), clipped to it,
        and phi~ is made from the middle of the cell, z + 1/2.
    hyper : Hyperprior, optional
        The hyperprior, where the quantiser has one.
    coders : tuple of str
        Those of `CODERS` that an encoder may use.
    """

    params: Mapping[str, np.ndarray]
    blocks: int
    gain: np.ndarray
    offset: np.ndarray
    level: np.ndarray
    cells: bool = False
    hyper: Hyperprior | None = None
    coders: tuple[str, ...] = ("ans", "adaptive")

    @cached_property
    def frequency(self) -> np.ndarray:
        """The tables as frequencies, int32 ``[K, d, S]``: each at least 1, or 0 where padded; rows sum to 2**16."""
        return np.broadcast_to(frequencies_of(self.level), (*self.offset.shape, self.level.shape[-1]))

    @property
    def rates(self) -> int:
        """Number of rates K; the last is the finest."""
        return len(self.gain)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays for the model file."""
        return {
            **{f"net.{k}": v for k, v in self.params.items()},
            "blocks": np.array([self.blocks], np.int32), "gain": self.gain.reshape(-1),
            "offset": self.offset, "level": self.level,
            "coders": np.array([CODERS.index(c) for c in self.coders], np.uint8),
            **({"cells": np.ones(1, np.uint8)} if self.cells else {}),
            **({f"hyper.{k}": v for k, v in self.hyper.to_tensors().items()} if self.hyper else {}),
        }  # fmt: skip

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Quantiser:
        """Inverse of `to_tensors`; raises ModelError for arrays that are not those of a quantiser."""
        try:
            params = {k.removeprefix("net."): v for k, v in tensors.items() if k.startswith("net.")}
            offset, level = tensors["offset"], tensors["level"]
            gain = tensors["gain"].reshape(offset.shape)
            blocks, (width, d) = int(tensors["blocks"].ravel()[0]), (params["analysis.in.bias"].size, offset.shape[-1])
            coders = tuple(CODERS[i] for i in tensors.get("coders", np.arange(2)).tolist())
            hyper_tensors = {k.removeprefix("hyper."): v for k, v in tensors.items() if k.startswith("hyper.")}
            hyper = Hyperprior.from_tensors(hyper_tensors, len(offset), d) if hyper_tensors else None
            unknown = {k for k in tensors if not k.startswith(("net.", "hyper."))} - _TENSORS
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise ModelError(f"the model's quantiser is malformed ({error})") from None
        if (
            not 0 <= blocks <= 1024
            or offset.ndim != 2
            or len(offset) > MAX_RATES
            or unknown
            or level.shape[-1] * d > MAX_TABLE
            or level.ndim != 3
            or level.shape[:2] not in (offset.shape, (len(offset), 1))
        ):
            raise ModelError("the model's frequency tables do not have the shape of its offsets")
        expected: dict[str, tuple[int, ...]] = {"mean": (d,), "std": (d,)}
        for name in ("analysis", "synthesis"):
            expected |= {f"{name}.in.weight": (width, d), f"{name}.in.bias": (width,)}
            expected |= residual_shapes(f"{name}.block", blocks, width, width)
            expected |= {f"{name}.out.weight": (d, width), f"{name}.out.bias": (d,)}
        if {k: v.shape for k, v in params.items()} != expected:
            raise ModelError("the quantiser's parameters do not have the shapes they should")
        if not sound(level):
            raise ModelError("the model's frequency tables are malformed: none may be empty, too long or have gaps")
        if not coders or ("hyperprior" in coders and hyper is None):
            raise ModelError("the model's quantiser has no coder that an encoder may take")
        return cls(params, blocks, gain, offset, level, "cells" in tensors, hyper, coders)

    def quantise(self, phi: np.ndarray, rate: int) -> np.ndarray:
        """Codes z ``[B, d]`` int64 of latents phi ``[B, d]`` at a rate."""
        y = analyse(self.params, self.blocks, phi) * self.gain[rate]
        if self.cells:
            last = self.offset[rate] + np.count_nonzero(self.frequency[rate], axis=1) - 2
            return np.clip(np.floor(y), self.offset[rate], last).astype(np.int64)
        return np.clip(np.rint(y), -(2**30), 2**30).astype(np.int64)

    def dequantise(self, z: np.ndarray, rate: int) -> np.ndarray:
        """Latents phi~ ``[B, d]`` float32 of codes z ``[B, d]`` at a rate.

        Each signal is restored on its own, so that the result does not depend on what else is in the batch.
        """
        y = ((z + 0.5 if self.cells else z) / self.gain[rate]).astype(np.float32)
        if self.unit(rate) is not None:  # the networks are the identity: every element is computed on its own anyway
            return synthesise(self.params, self.blocks, y)
        return np.concatenate([synthesise(self.params, self.blocks, row[None]) for row in y])

    def unit(self, rate: int) -> np.ndarray | None:
        """How much one unit of z changes each latent.

        Returns
        -------
        numpy.ndarray or None
            ``[d]``; None where the networks are not the identity, so that there is no such constant.
        """
        return None if self.params["analysis.in.bias"].size else self.params["std"] / self.gain[rate]

    def tables(self, rate: int) -> Tables:
        """The static tables of a rate, one for each dimension; raises CorruptError for a rate that the model lacks."""
        if not 0 <= rate < self.rates:
            raise CorruptError(f"rate {rate} is not one of the model's {self.rates}")
        return self._tables[rate]

    @cached_property
    def _tables(self) -> list[Tables]:
        return [Tables(offset, frequency) for offset, frequency in zip(self.offset, self.frequency, strict=True)]

    def bits(self, z: np.ndarray, rate: int) -> float:
        """Bits of codes z ``[B, d]`` under the static tables, escapes included."""
        return self.tables(rate).bits(z)

    def costs(self, rate: int) -> np.ndarray:
        """Bits of each symbol at a rate.

        Returns
        -------
        numpy.ndarray
            ``[d, S - 1]`` for the symbols ``offset[rate, i] + j``; infinite where a table has no such symbol.
        """
        return self.tables(rate).costs()

    def code(self, z: np.ndarray, rate: int, *, quick: bool = False) -> tuple[int, bytes]:
        """Encode codes with whichever of the allowed coders needs the fewest bytes.

        Parameters
        ----------
        z : numpy.ndarray
            int64 ``[T, C, d]`` (times, levels, dimensions).
        rate : int
            Which of the K rates.
        quick : bool
            Whether to use one coder only: adaptive coding where allowed, which is the fastest and seldom longer than
            others.

        Returns
        -------
        coder : int
            Index into `CODERS`.
        data : bytes
            The bitstream.
        """
        coders = ("adaptive" if "adaptive" in self.coders else self.coders[0],) if quick else self.coders
        coded = ((CODERS.index(coder), self._encode(coder, z, rate)) for coder in coders)
        return min(coded, key=lambda c: (len(c[1]), c[0]))

    def _encode(self, coder: str, z: np.ndarray, rate: int) -> bytes:
        """The bitstream of one coder."""
        if coder == "adaptive":
            return latents.encode(z, self.offset[rate], self.frequency[rate])
        flat = z.reshape(-1, z.shape[-1])
        if coder == "hyperprior":
            assert self.hyper is not None
            return self.hyper.encode(flat, rate)
        out = writer(coder)
        self.tables(rate).write(out, flat)
        return out.getvalue()

    def decode(self, coder: int, data: bytes, times: int, levels: int, rate: int) -> np.ndarray:
        """Inverse of `code`.

        Parameters
        ----------
        coder : int
            Index into `CODERS`.
        data : bytes
            The bitstream.
        times, levels : int
            T and C of the codes.
        rate : int
            Which of the K rates.

        Returns
        -------
        numpy.ndarray
            z int64 ``[times, levels, d]``.

        Raises
        ------
        CorruptError
            For a coder or rate that there is not, and bytes that no encoder makes.
        """
        tables, name = self.tables(rate), CODERS[coder] if coder < len(CODERS) else None
        if name == "adaptive":
            return latents.decode(data, times, levels, tables.offset, tables.frequency)
        if name in STATIC:
            return tables.read(reader(name, data), times * levels).reshape(times, levels, -1)
        if name == "hyperprior" and self.hyper is not None:
            return self.hyper.decode(data, times * levels, rate).reshape(times, levels, -1)
        raise CorruptError("the latents were written by an unknown coder")


def coders_of(choice: str, hyper: Hyperprior | None) -> tuple[str, ...]:
    """The coders, of `CODERS`, that a setting of `config.Quantiser.coder` allows.

    Raises ConfigError where the hyperprior is chosen and the quantiser has none.
    """
    if choice == "hyperprior" and hyper is None:
        raise ConfigError("quantiser.coder: hyperprior: this kind of quantiser has none; set kind: hyperprior")
    if choice != "auto":
        return (choice,)
    return ("ans", "adaptive") if hyper is None else ("ans", "adaptive", "hyperprior")
