"""A model at given points: the network's output there, and the latents of a linear head in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from vcinr.compiled import outer
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import DELTA, Model
from vcinr.inr.ridge import projection, ridge
from vcinr.inr.siren import basis, evaluate, forward
from vcinr.signals import fixed_points

TILE = 2048
"""Points that are evaluated at a time: their activations fit into the cache. Every decoder uses the same tiles."""
_LARGEST_KEPT = 1 << 24  # numbers in a basis that stays in memory, at most: 64 MiB
_FEW = 24  # latents up to which adding their functions one by one is faster than a matrix product
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class ModelAt:
    """A model at given points. What depends on the points alone is computed once and kept, unless it is large.

    Parameters
    ----------
    model : Model
        The model.
    x : numpy.ndarray
        Inputs of its network at the points, float32 ``[P, d_in]``. They must not be changed.
    """

    model: Model
    x: np.ndarray
    _last: dict[str, tuple[Hashable, Any]] = field(default_factory=dict, init=False, repr=False)

    def basis(self) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the basis of a linear head.

        Returns
        -------
        psi_0 : numpy.ndarray
            The output where all latents are zero, float32 ``[P * d_out]``; the features of a point lie side by side.
        psi : numpy.ndarray
            The functions that the latents multiply, float32 ``[d, P * d_out]``.
        """
        spec = self.model.spec
        small = len(self.x) * spec.d_out * spec.latent <= _LARGEST_KEPT
        return self._kept_basis if small else self._evaluated_basis()

    @cached_property
    def _kept_basis(self) -> tuple[np.ndarray, np.ndarray]:
        return self._evaluated_basis()

    def _evaluated_basis(self) -> tuple[np.ndarray, np.ndarray]:
        spec, params, x = self.model.spec, self.model.params, self.x
        tiles = [basis(spec, params, x[p : p + TILE]) for p in range(0, len(x), TILE)]
        psi_0 = np.concatenate([t[0].ravel() for t in tiles])
        return psi_0, np.ascontiguousarray(np.concatenate([t[1].reshape(-1, spec.latent) for t in tiles]).T)

    def reconstruct(self, phi: np.ndarray) -> np.ndarray:
        """Evaluate f(x; theta, phi) in plain NumPy.

        Parameters
        ----------
        phi : numpy.ndarray
            Latents ``[B, d]``.

        Returns
        -------
        numpy.ndarray
            Features ``[B, P, d_out]``, float32.

        Notes
        -----
        Signals are evaluated one at a time, in tiles of `TILE` points, so that the result of a signal does not depend
        on the other signals. Only with a linear head are all signals evaluated together: latents that are the same in
        all of them are added up once. The results then depend on the other signals, but by much less than `DELTA`.
        """
        if self.model.linear:
            return self._combined(phi.astype(np.float32))
        spec, params, x = self.model.spec, self.model.params, self.x
        out = np.empty((len(phi), len(x), spec.d_out), np.float32)
        cond = conditioning(spec.conditioning)
        for b in range(len(phi)):
            modulation = cond.modulate(spec, params, phi[b : b + 1].astype(np.float32))
            for p in range(0, len(x), TILE):
                out[b, p : p + TILE] = evaluate(spec, params, modulation, x[p : p + TILE])[0]
        return out

    def _combined(self, phi: np.ndarray) -> np.ndarray:
        """`reconstruct` for a linear head."""
        psi_0, psi = self.basis()
        differ = (phi != phi[:1]).any(0)
        common = np.where(differ, 0, phi[0]) if len(phi) else np.zeros(len(psi), np.float32)
        base = self._once("common", common.tobytes(), lambda: psi_0 + common @ psi)
        differing = np.flatnonzero(differ)
        upto = slice(differing.max(initial=-1) + 1)
        phi = np.where(differ, phi, 0)
        if len(differing) <= _FEW:
            rows = upto if upto.stop <= _FEW else differing  # indexing by a slice makes no copy
            values = added(base, np.ascontiguousarray(phi[:, rows]), psi[rows])
        else:
            values = phi[:, upto] @ psi[upto]
            values += base
        return values.reshape(len(phi), len(self.x), self.model.spec.d_out)

    def sampled(self, points: slice) -> Callable[[np.ndarray], np.ndarray]:
        """Make a function that evaluates the network at some of the points.

        Parameters
        ----------
        points : slice
            The points to take, S of them.

        Returns
        -------
        callable
            A function from latents phi ``[B, d]`` to features ``[B, S, d_out]``, which are those of `reconstruct` but
            for rounding.
        """
        if not self.model.linear:
            return ModelAt(self.model, self.x[points]).reconstruct
        psi_0, psi = self.basis()
        base = psi_0.reshape(len(self.x), -1)[points]

        def part_of_basis() -> np.ndarray:
            return np.ascontiguousarray(psi.reshape(len(psi), len(self.x), -1)[:, points].reshape(len(psi), -1))

        key = points.start, points.stop, points.step
        part = part_of_basis() if psi.size > _LARGEST_KEPT else self._once("sampled", key, part_of_basis)
        return partial(_affine, base, part)

    def fit(self, y: np.ndarray, weight: np.ndarray | None, variable: np.ndarray) -> np.ndarray:
        """Find the latents of signals under a linear head in closed form, without torch.

        Parameters
        ----------
        y : numpy.ndarray
            Normalised signals ``[N, P, d_out]``.
        weight : numpy.ndarray or None
            Weights of the points ``[N, P]``, which are 0 where masked and average to 1 over each signal. None stands
            for 1 everywhere.
        variable : numpy.ndarray
            Index of each signal's variable, int64 ``[N]``: the row of phi_0 that the ridge pulls towards.

        Returns
        -------
        numpy.ndarray
            phi, float32 ``[N, d]``.

        Notes
        -----
        Where there are more points than the model's `encode_points`, the fit uses so many of them, chosen at random but
        always the same. Signals with equal weights share one solve; see :func:`vcinr.inr.ridge.ridge`.
        """
        start = self.model.params["phi_0"][variable].astype(np.float64)
        points, base, psi = self._fitting_basis
        flat = y[:, points].reshape(len(y), -1)
        if weight is None:
            onto, pull, shift = self._projection
            return flat @ onto + (start @ pull - shift).astype(np.float32)
        per_value = np.repeat(weight[:, points], self.model.spec.d_out, axis=1).astype(np.float64)
        return ridge(base, psi, flat.astype(np.float64), per_value, start).astype(np.float32)

    @cached_property
    def _fitting_basis(self) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
        """The points that `fit` uses, and the basis there: psi_0 ``[Q]`` and psi ``[Q, d]``, float64."""
        base, psi = self.basis()
        total, most = len(self.x), self.model.encode_points
        if total <= most:
            return slice(None), base.astype(np.float64), psi.T.astype(np.float64)
        points = fixed_points(total, most)
        base = base.reshape(total, -1)[points].ravel()
        psi = psi.reshape(len(psi), total, -1)[:, points].reshape(len(psi), -1)
        return points, base.astype(np.float64), psi.T.astype(np.float64)

    @cached_property
    def _projection(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return projection(*self._fitting_basis[1:])

    def _once(self, name: str, key: Hashable, make: Callable[[], _T]) -> _T:
        """The result of `make`, or that of the last call with this name if it had the same key."""
        known = self._last.get(name)
        if known is None or known[0] != key:
            known = self._last[name] = key, make()
        return known[1]


def _affine(base: np.ndarray, psi: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """base + phi @ psi, ``[B, *base.shape]``."""
    return (phi.astype(np.float32) @ psi).reshape(len(phi), *base.shape) + base


def added(base: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Add the functions of few latents to what all signals share, one tile after another.

    Parameters
    ----------
    base : numpy.ndarray
        What all signals share, float32 ``[Q]``.
    phi : numpy.ndarray
        Latents, float32 ``[B, k]``.
    psi : numpy.ndarray
        The functions that they multiply, float32 ``[k, Q]``.

    Returns
    -------
    numpy.ndarray
        base + phi @ psi, float32 ``[B, Q]``. Each signal but the first is computed from the first one, because most of
        their latents are equal and then need no work.
    """
    out = np.empty((len(phi), len(base)), np.float32)
    _add_up(base, phi, psi, out)
    return out


@outer
def _add_up(base: np.ndarray, phi: np.ndarray, psi: np.ndarray, out: np.ndarray) -> None:
    """`added`, which writes to `out`."""
    for p in range(0, len(base), TILE):
        for i in range(len(phi)):
            row, start = out[i, p : p + TILE], (base if i == 0 else out[0])[p : p + TILE]
            for q in range(len(row)):
                row[q] = start[q]
            for k in range(len(psi)):
                factor = phi[i, k] - (phi[0, k] if i > 0 else np.float32(0))
                if factor != 0:
                    column = psi[k, p : p + TILE]
                    for q in range(len(row)):
                        row[q] += factor * column[q]


def slack_of(model: Model, phi: np.ndarray, x: np.ndarray) -> float:
    """Measure the slack that a model needs: how much the outputs of two float32 decoders may differ.

    Parameters
    ----------
    model : Model
        The model.
    phi, x : numpy.ndarray
        Latents ``[B, d]`` and points ``[P, d_in]`` at which it is measured.

    Returns
    -------
    float
        Four times the largest rounding error, rounded up to a power of two and at least `DELTA`; infinity where outputs
        are not finite.

    Notes
    -----
    Deep networks and a large omega_0 amplify rounding errors; the difference between float32 and float64 shows how
    much.
    """
    params = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in model.params.items()}
    exact = forward(model.spec, params, phi.astype(np.float64), x.astype(np.float64))
    worst = float(np.abs(ModelAt(model, x).reconstruct(phi) - exact).max(initial=0.0))
    if not math.isfinite(worst):
        return math.inf
    return max(DELTA, 2.0 ** math.ceil(math.log2(4 * worst))) if worst > 0 else DELTA
