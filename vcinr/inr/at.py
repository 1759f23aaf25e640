"""A model at given points: what its network gives there, and the latents of a linear head in closed form."""

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
"""Points evaluated at a time: one tile's activations stay in cache, and every decoder uses the same tiles."""
_KEPT = 1 << 24  # numbers of a basis that are kept: 64 MiB
_FEW = 24  # latents up to which adding up is faster than a matrix product
_T = TypeVar("_T")


@dataclass(frozen=True, eq=False)
class ModelAt:
    """A model at given points. What depends on the points alone is worked out once and kept, unless it is large.

    Parameters
    ----------
    model
        The model.
    x
        Inputs of its network ``[P, d_in]``, float32; they must not be changed.
    """

    model: Model
    x: np.ndarray
    _last: dict[str, tuple[Hashable, Any]] = field(default_factory=dict, init=False, repr=False)

    def basis(self) -> tuple[np.ndarray, np.ndarray]:
        """Evaluate the basis of a linear head.

        Returns
        -------
        psi_0, psi : numpy.ndarray
            The output where all latents are zero ``[P * d_out]`` and the functions that latents multiply
            ``[d, P * d_out]``, float32; the features of a point lie side by side.
        """
        spec = self.model.spec
        small = len(self.x) * spec.d_out * spec.latent <= _KEPT
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
        phi
            Latents ``[B, d]``.

        Returns
        -------
        numpy.ndarray
            Features ``[B, P, d_out]``, float32.

        Notes
        -----
        Signals are evaluated one at a time in tiles of `TILE` points, so the result of a signal does not depend on what
        else is decoded with it. Signals of a linear head are evaluated together, and latents that are the same in all
        of them are added up once; what depends on the others is well within `DELTA`.
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
        still = np.where(differ, 0, phi[0]) if len(phi) else np.zeros(len(psi), np.float32)
        base = self._once("still", still.tobytes(), lambda: psi_0 + still @ psi)
        moving = np.flatnonzero(differ)
        upto = slice(moving.max(initial=-1) + 1)
        phi = np.where(differ, phi, 0)
        if len(moving) <= _FEW:
            rows = upto if upto.stop <= _FEW else moving  # a slice is no copy
            values = added(base, np.ascontiguousarray(phi[:, rows]), psi[rows])
        else:
            values = phi[:, upto] @ psi[upto]
            values += base
        return values.reshape(len(phi), len(self.x), self.model.spec.d_out)

    def sampled(self, points: slice) -> Callable[[np.ndarray], np.ndarray]:
        """Make a function that is `reconstruct` at some of the points, but for rounding.

        Parameters
        ----------
        points
            Which of them, S in all.

        Returns
        -------
        callable
            From phi ``[B, d]`` to features ``[B, S, d_out]``.
        """
        if not self.model.linear:
            return ModelAt(self.model, self.x[points]).reconstruct
        psi_0, psi = self.basis()
        base = psi_0.reshape(len(self.x), -1)[points]

        def taken() -> np.ndarray:
            return np.ascontiguousarray(psi.reshape(len(psi), len(self.x), -1)[:, points].reshape(len(psi), -1))

        key = points.start, points.stop, points.step
        part = taken() if psi.size > _KEPT else self._once("sampled", key, taken)
        return partial(_affine, base, part)

    def fit(self, y: np.ndarray, weight: np.ndarray | None, variable: np.ndarray) -> np.ndarray:
        """Find the latents of signals under a linear head, without torch.

        Parameters
        ----------
        y
            Normalised signals ``[N, P, d_out]``.
        weight
            ``[N, P]``, 0 at masked points and averaging to 1 over each signal; None for 1 everywhere.
        variable
            Rows of phi_0 that the ridge pulls towards, ``[N]`` int64.

        Returns
        -------
        numpy.ndarray
            phi ``[N, d]`` float32.

        Notes
        -----
        Of more than the model's `encode_points` a fixed random part is looked at. Signals of equal weights share one
        solve; see :func:`vcinr.inr.ridge.ridge`.
        """
        start = self.model.params["phi_0"][variable].astype(np.float64)
        points, base, psi = self._looked_at
        flat = y[:, points].reshape(len(y), -1)
        if weight is None:
            onto, pull, shift = self._projection
            return flat @ onto + (start @ pull - shift).astype(np.float32)
        spread = np.repeat(weight[:, points], self.model.spec.d_out, axis=1).astype(np.float64)
        return ridge(base, psi, flat.astype(np.float64), spread, start).astype(np.float32)

    @cached_property
    def _looked_at(self) -> tuple[np.ndarray | slice, np.ndarray, np.ndarray]:
        """Points that `fit` looks at, and the basis there: base ``[Q]`` and psi ``[Q, d]``, float64."""
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
        return projection(*self._looked_at[1:])

    def _once(self, name: str, key: Hashable, make: Callable[[], _T]) -> _T:
        """What `make` makes for `key`; the last by that name is kept."""
        known = self._last.get(name)
        if known is None or known[0] != key:
            known = self._last[name] = key, make()
        return known[1]


def _affine(base: np.ndarray, psi: np.ndarray, phi: np.ndarray) -> np.ndarray:
    return (phi.astype(np.float32) @ psi).reshape(len(phi), *base.shape) + base


def added(base: np.ndarray, phi: np.ndarray, psi: np.ndarray) -> np.ndarray:
    """Add latents' functions to what all signals share, a tile at a time.

    Parameters
    ----------
    base
        ``[Q]``, float32.
    phi
        Latents ``[B, k]``, float32.
    psi
        Their functions ``[k, Q]``, float32.

    Returns
    -------
    numpy.ndarray
        base + phi @ psi, ``[B, Q]``. All signals but the first are made from the first, since most latents of a signal
        are those of another.
    """
    out = np.empty((len(phi), len(base)), np.float32)
    _add_up(base, phi, psi, out)
    return out


@outer
def _add_up(base: np.ndarray, phi: np.ndarray, psi: np.ndarray, out: np.ndarray) -> None:
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
    """Measure the slack that a network needs.

    Parameters
    ----------
    model
        The model.
    phi, x
        Latents ``[B, d]`` and points ``[P, d_in]`` to try.

    Returns
    -------
    float
        Four times the largest rounding error, a power of two, at least `DELTA`; infinite where outputs are not finite.

    Notes
    -----
    Deep networks and large omega_0 amplify rounding: what float32 differs from float64 by is what two float32 decoders
    may differ by.
    """
    params = {k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in model.params.items()}
    exact = forward(model.spec, params, phi.astype(np.float64), x.astype(np.float64))
    worst = float(np.abs(ModelAt(model, x).reconstruct(phi) - exact).max(initial=0.0))
    if not math.isfinite(worst):
        return math.inf
    return max(DELTA, 2.0 ** math.ceil(math.log2(4 * worst))) if worst > 0 else DELTA
