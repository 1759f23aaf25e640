"""Volume rendering of a radiance field on a grid, and its gradient.

A field has at every vertex of a grid a level and a colour, and between vertices what trilinear interpolation gives.
Along a ray there are samples at equal distances. The opacity of a sample is STEEP * level + 1/2, clipped to [0, 1].
What is seen is the sum of the samples' colours, each times its opacity and the transmittance of all samples before it;
what remains of the light falls on a white ground.

The arithmetic is + - * / and comparisons of float64 in a fixed order, so every processor renders the same views.
"""

from __future__ import annotations

from typing import Any

from vcinr.compiled import inner, outer

STEEP = 2.0
"""Opacity that a sample gains with a unit of level. A level is about a depth below the surface, in cells."""
STRIDE = 0.5
"""Distance of samples, in cells of the grid."""
REACH = 0.5
"""How far beyond the levels that are clipped a gradient that leads back to them is followed."""
_DARK = 0.001  # transmittance below which a ray ends
_FAR: Any = 1e30


@inner()
def _near(origin: Any, ray: Any, shape: Any) -> Any:
    """Where a ray enters the grid, in cells along the ray."""
    near = 0.0
    for a in range(3):
        if ray[a] != 0.0:
            first, last = (0.0 - origin[a]) / ray[a], (shape[a] - 1.0 - origin[a]) / ray[a]
            near = max(near, min(first, last))
    return near


@inner()
def _far(origin: Any, ray: Any, shape: Any) -> Any:
    """Where a ray leaves the grid; negative for one that runs beside it."""
    far = _FAR
    for a in range(3):
        if ray[a] != 0.0:
            first, last = (0.0 - origin[a]) / ray[a], (shape[a] - 1.0 - origin[a]) / ray[a]
            far = min(far, max(first, last))
        elif origin[a] < 0.0 or origin[a] > shape[a] - 1.0:
            far = -1.0
    return far


@inner()
def _weigh(u: Any, v: Any, w: Any, out: Any) -> None:
    """Fill in the weights of the eight vertices of a cell."""
    out[0] = (1.0 - u) * (1.0 - v) * (1.0 - w)
    out[1] = (1.0 - u) * (1.0 - v) * w
    out[2] = (1.0 - u) * v * (1.0 - w)
    out[3] = (1.0 - u) * v * w
    out[4] = u * (1.0 - v) * (1.0 - w)
    out[5] = u * (1.0 - v) * w
    out[6] = u * v * (1.0 - w)
    out[7] = u * v * w


@inner()
def _mixed(field: Any, i: Any, j: Any, k: Any, f: Any, w: Any) -> Any:
    """A feature between the eight vertices of a cell."""
    return (
        w[0] * field[i, j, k, f] + w[1] * field[i, j, k + 1, f] + w[2] * field[i, j + 1, k, f]
        + w[3] * field[i, j + 1, k + 1, f] + w[4] * field[i + 1, j, k, f] + w[5] * field[i + 1, j, k + 1, f]
        + w[6] * field[i + 1, j + 1, k, f] + w[7] * field[i + 1, j + 1, k + 1, f]
    )  # fmt: skip


@outer
def find_empty(field: Any, margin: Any, empty: Any) -> None:
    """Mark the cells in which no sample has any opacity.

    Parameters
    ----------
    field : numpy.ndarray
        float64 ``[X, Y, Z, 4]``: level, red, green and blue of each vertex.
    margin : float
        Levels that a vertex may still rise.
    empty : numpy.ndarray
        bool ``[X - 1, Y - 1, Z - 1]``, changed in place.
    """
    least = -0.5 / STEEP - margin
    for i in range(empty.shape[0]):
        for j in range(empty.shape[1]):
            for k in range(empty.shape[2]):
                empty[i, j, k] = True
                for c in range(8):
                    if field[i + (c >> 2), j + ((c >> 1) & 1), k + (c & 1), 0] > least:
                        empty[i, j, k] = False


@outer
def render(field: Any, empty: Any, origins: Any, rays: Any, out: Any, w: Any) -> None:
    """Render rays.

    Parameters
    ----------
    field : numpy.ndarray
        float64 ``[X, Y, Z, 4]``: level, red, green and blue of each vertex.
    empty : numpy.ndarray
        bool ``[X - 1, Y - 1, Z - 1]``, from `find_empty`.
    origins, rays : numpy.ndarray
        float64 ``[N, 3]``, in cells from the first vertex; rays have length 1.
    out : numpy.ndarray
        float64 ``[N, 4]``: the colour that is seen and the transmittance of the whole ray, changed in place.
    w : numpy.ndarray
        float64 ``[8]``, to work in.
    """
    shape = field.shape
    for n in range(origins.shape[0]):
        t, far = _near(origins[n], rays[n], shape) + 0.5 * STRIDE, _far(origins[n], rays[n], shape)
        light, red, green, blue = 1.0, 0.0, 0.0, 0.0
        while t < far and light > _DARK:
            x = origins[n, 0] + t * rays[n, 0]
            y = origins[n, 1] + t * rays[n, 1]
            z = origins[n, 2] + t * rays[n, 2]
            t += STRIDE
            i = max(0, min(int(x), shape[0] - 2))
            j = max(0, min(int(y), shape[1] - 2))
            k = max(0, min(int(z), shape[2] - 2))
            if empty[i, j, k]:
                continue
            _weigh(x - i, y - j, z - k, w)
            opacity = 0.5 + STEEP * _mixed(field, i, j, k, 0, w)
            if opacity <= 0.0:
                continue
            opacity = min(opacity, 1.0)
            part = light * opacity
            red += part * _mixed(field, i, j, k, 1, w)
            green += part * _mixed(field, i, j, k, 2, w)
            blue += part * _mixed(field, i, j, k, 3, w)
            light *= 1.0 - opacity
        out[n, 0], out[n, 1], out[n, 2], out[n, 3] = red + light, green + light, blue + light, light


@outer
def gradient(
    field: Any, empty: Any, origins: Any, rays: Any, target: Any, slope: Any, cells: Any, samples: Any, error: Any,
    behind: Any,
) -> Any:  # fmt: skip
    """Sum the squared errors of rays, and add to `slope` the gradient of that sum in the field.

    A sample of no opacity, or of full one, is given the gradient that it would have just within the clipped levels
    where following it leads there.

    Parameters
    ----------
    field, empty, origins, rays
        As for `render`; `find_empty` has had `REACH` as its margin.
    target : numpy.ndarray
        float64 ``[N, 3]``: the colours to be seen.
    slope : numpy.ndarray
        float64, of the field's shape.
    cells, samples, error, behind : numpy.ndarray
        int64 ``[S, 3]``, float64 ``[S, 14]``, ``[3]`` and ``[3]`` to work in, where S is the largest number of samples
        of a ray.

    Returns
    -------
    float
        The sum.
    """
    shape, total = field.shape, 0.0
    for n in range(origins.shape[0]):
        t, far = _near(origins[n], rays[n], shape) + 0.5 * STRIDE, _far(origins[n], rays[n], shape)
        light, count = 1.0, 0
        while t < far and light > _DARK and count < cells.shape[0]:
            x = origins[n, 0] + t * rays[n, 0]
            y = origins[n, 1] + t * rays[n, 1]
            z = origins[n, 2] + t * rays[n, 2]
            t += STRIDE
            i = max(0, min(int(x), shape[0] - 2))
            j = max(0, min(int(y), shape[1] - 2))
            k = max(0, min(int(z), shape[2] - 2))
            if empty[i, j, k]:
                continue
            w = samples[count]
            _weigh(x - i, y - j, z - k, w)
            opacity = 0.5 + STEEP * _mixed(field, i, j, k, 0, w)
            if opacity <= -REACH * STEEP:
                continue
            w[8] = opacity
            w[9] = max(0.0, min(opacity, 1.0))
            w[10] = _mixed(field, i, j, k, 1, w)
            w[11] = _mixed(field, i, j, k, 2, w)
            w[12] = _mixed(field, i, j, k, 3, w)
            w[13] = light
            cells[count, 0], cells[count, 1], cells[count, 2] = i, j, k
            light *= 1.0 - w[9]
            count += 1
        for f in range(3):
            seen = light
            for s in range(count):
                seen += samples[s, 13] * samples[s, 9] * samples[s, 10 + f]
            error[f] = seen - target[n, f]
            total += error[f] * error[f]
            behind[f] = 1.0
        for s in range(count - 1, -1, -1):
            opacity, part = samples[s, 9], samples[s, 13]
            pull = 0.0
            for f in range(3):
                pull += 2.0 * error[f] * part * (samples[s, 10 + f] - behind[f])
                behind[f] = opacity * samples[s, 10 + f] + (1.0 - opacity) * behind[f]
            pull *= STEEP
            if (samples[s, 8] < 0.0 and pull > 0.0) or (samples[s, 8] > 1.0 and pull < 0.0):
                pull = 0.0
            for c in range(8):
                i, j, k = cells[s, 0] + (c >> 2), cells[s, 1] + ((c >> 1) & 1), cells[s, 2] + (c & 1)
                v = samples[s, c]
                slope[i, j, k, 0] += v * pull
                for f in range(3):
                    slope[i, j, k, 1 + f] += v * 2.0 * error[f] * part * opacity
    return total
