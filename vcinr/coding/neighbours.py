"""Order and neighbours of scattered positions: which point is coded when, and which known points predict it.

Positions are integers, so that all processors compare the same distances (docs/format.md, section Positions). Points
are placed from coarse to fine, always one that is about the farthest from all that are placed (farthest-point
sampling: Gonzalez 1985). Each gets its nearest placed points as neighbours, with the weights by which a plane through
their values, fitted by weighted least squares, predicts the value in their midst.

Both the updates of distances and the search of neighbours walk a hierarchy of boxes over the points in Morton order
(Morton 1966). The hierarchy only spares comparisons: the result depends on the points and their Morton order alone.
"""

from __future__ import annotations

import hashlib
import math
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vcinr.compiled import inner, outer

SCALE_BITS = 28
"""Positions are rounded to multiples of 2^-28 of the radius of the sphere, or of the largest extent of a box."""
NEAREST = 8
"""Most neighbours of a point."""
KINDS = 8
"""Kinds of points by how late they are placed; the last but one has all early ones, the last those that coincide."""
_RIDGE = 0.02  # share of the neighbours' scatter that is added to the plane fit, for points on a line and the like
_LEAF = 16  # points of a box that is not divided further
_BUCKETS = 256  # queues of points by distance, four for each power of 2 of its square
_RADIAN = 57.29577951308232  # degrees
_SINE = np.array([(-1.0) ** k / math.factorial(2 * k + 1) for k in range(8, -1, -1)])
_COSINE = np.array([(-1.0) ** k / math.factorial(2 * k) for k in range(8, -1, -1)])
_QUARTER = 0.017453292519943295  # radians of a degree
_FARTHEST = 1e4  # degrees; a longitude beyond it is taken for missing
_UNKNOWN, _PLACED = 1 << 62, -1  # instead of squared distances
_CACHED = 4  # geometries whose neighbours a process remembers


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the N points of a signal lie.

    Parameters
    ----------
    points : numpy.ndarray
        int32 ``[N, 3]``, of magnitude 2^`SCALE_BITS` at most; it must not be changed.
    """

    points: np.ndarray

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the numbers as little-endian int32 in C order: the name of this geometry."""
        return hashlib.sha256(self.points.astype("<i4").tobytes()).hexdigest()

    @property
    def neighbours(self) -> Neighbours:
        """The order and the neighbours of the points; computed once, and remembered for the last few geometries."""
        with _LOCK:  # all the while, so that threads that decode chunks of one geometry do not all compute it
            known = _KNOWN.pop(self.sha256, None)
            if known is None:
                known = find_neighbours(self.points)
                while len(_KNOWN) >= _CACHED:
                    del _KNOWN[next(iter(_KNOWN))]
            _KNOWN[self.sha256] = known
        return known


@dataclass(frozen=True, eq=False)
class Neighbours:
    """In which order points are coded, and from which others each is predicted.

    Attributes
    ----------
    order : numpy.ndarray
        int32 ``[N]``: the points as they are placed.
    near : numpy.ndarray
        int32 ``[N, NEAREST]``: for each place in the order, the neighbours of that point, the nearest first. Where
        there are fewer, the last one is repeated; the first point of all has none.
    weight : numpy.ndarray
        float64 ``[N, NEAREST]``: by which the neighbours' values are multiplied to predict that point's; they sum to
        about 1, and are 0 for repeated ones.
    kind : numpy.ndarray
        uint8 ``[N]``: the kind of each point in the order, below `KINDS` + 1. Kind k has points of the k-th half from
        the end, kind `KINDS` those that lie where another point lies.
    squared : numpy.ndarray
        float64 ``[N]``: square of the distance to the nearest neighbour; 0 for the first point.
    """

    order: np.ndarray
    near: np.ndarray
    weight: np.ndarray
    kind: np.ndarray
    squared: np.ndarray


_KNOWN: dict[str, Neighbours] = {}
_LOCK = threading.Lock()


def on_sphere(latitude: np.ndarray, longitude: np.ndarray, *, radians: bool = False) -> Positions:
    """Positions of places on a sphere.

    Parameters
    ----------
    latitude, longitude : numpy.ndarray
        Of any, but the same shape. A point whose latitude is not within 90 degrees, or whose longitude is not within
        10,000 degrees, such as NaN and fill values, lies at the centre of the sphere.
    radians : bool
        Whether they are in radians instead of degrees.
    """
    lat, lon = (np.ascontiguousarray(v, np.float64).ravel() for v in (latitude, longitude))
    points = np.zeros((lat.size, 3), np.int32)
    _project(lat, lon, _RADIAN if radians else 1.0, float(1 << SCALE_BITS), points)
    return Positions(points)


@outer
def _project(lat: np.ndarray, lon: np.ndarray, unit: float, scale: float, points: np.ndarray) -> None:
    for i in range(lat.size):
        north, east = lat[i] * unit, lon[i] * unit
        if abs(north) <= 90.0 and abs(east) <= _FARTHEST:
            up, level = _turn(north)
            along, across = _turn(east)
            points[i, 0] = math.floor(level * across * scale + 0.5)
            points[i, 1] = math.floor(level * along * scale + 0.5)
            points[i, 2] = math.floor(up * scale + 0.5)


@inner()
def _turn(degrees: float) -> tuple[float, float]:
    """Sine and cosine, by Taylor polynomials after reduction to an eighth of a turn."""
    quarter = math.floor(degrees / 90.0 + 0.5)
    x = (degrees - 90.0 * quarter) * _QUARTER
    square, sine, cosine = x * x, 0.0, 0.0
    for n in range(_SINE.size):
        sine = sine * square + _SINE[n]
        cosine = cosine * square + _COSINE[n]
    sine *= x
    turn = quarter & 3
    if turn == 1:
        return cosine, -sine
    if turn == 2:
        return -sine, -cosine
    if turn == 3:
        return -cosine, sine
    return sine, cosine


def find_neighbours(points: np.ndarray) -> Neighbours:
    """Order points from coarse to fine, and find the neighbours of each.

    Parameters
    ----------
    points : numpy.ndarray
        int32 ``[N, 3]``, as in `Positions`.

    Notes
    -----
    The first point of all is placed first. d(q), the squared distance of a point q from the nearest one that has been
    placed, puts it into a queue, where it stays as long as d belongs there. The newest point of the queue of largest
    distances is always placed next, so that a front of points proceeds, with gaps of about one size between them. Of
    the points that one placement moves to other queues, those of low Morton rank are the newer ones. When no d is left
    above 0, the points that coincide with placed ones follow, in the order of their indices.
    """
    count = len(points)
    order, near = np.zeros(count, np.int32), np.zeros((count, NEAREST), np.int32)
    weight, kind, squared = np.zeros((count, NEAREST)), np.zeros(count, np.uint8), np.zeros(count)
    result = Neighbours(order, near, weight, kind, squared)
    if count == 0:
        return result
    index = np.argsort(morton(points), kind="stable").astype(np.int32)
    place = np.empty(count, np.int32)
    place[index] = np.arange(count, dtype=np.int32)
    leaves = 1
    while leaves * _LEAF < count:
        leaves *= 2
    boxes = np.zeros((2 * leaves, 6), np.int32)
    there = np.ascontiguousarray(points[index])  # int32 throughout: most of the time goes into fetching these
    _enclose(there, boxes)
    apart = _place(
        there, index, place, boxes, np.full(count, _UNKNOWN, np.int64), np.zeros(2 * leaves, np.int32),
        np.full((2, count), -1, np.int32), np.full(_BUCKETS, -1, np.int32), np.zeros(count, np.int32),
        np.zeros(128, np.int64), np.zeros(NEAREST, np.int64), order, near, weight, squared,
    )  # fmt: skip
    kind[apart:] = KINDS
    for k in range(KINDS - 1):
        kind[: apart >> (k + 1)] = k + 1
    return result


def morton(points: np.ndarray) -> np.ndarray:
    """Morton keys: the highest 21 bits of the three numbers, interleaved."""
    keys = np.zeros(len(points), np.uint64)
    for axis in range(3):
        bits = ((points[:, axis].astype(np.int64) + (1 << SCALE_BITS)) >> (SCALE_BITS - 20)).astype(np.uint64)
        bits = np.minimum(bits, np.uint64((1 << 21) - 1))
        for shift, mask in (
            (32, 0x1F00000000FFFF), (16, 0x1F0000FF0000FF), (8, 0x100F00F00F00F00F), (4, 0x10C30C30C30C30C3),
            (2, 0x1249249249249249),
        ):  # fmt: skip
            bits = (bits | bits << np.uint64(shift)) & np.uint64(mask)
        keys |= bits << np.uint64(axis)
    return keys


@outer
def _enclose(points: np.ndarray, boxes: np.ndarray) -> None:
    """The least and greatest coordinates of every box; an empty one has none that are at most each other."""
    leaves = boxes.shape[0] // 2
    for node in range(2 * leaves - 1, 0, -1):
        for axis in range(3):
            low, high = (1 << 31) - 1, -(1 << 31)
            if node >= leaves:
                for k in range((node - leaves) * _LEAF, min((node - leaves + 1) * _LEAF, points.shape[0])):
                    low, high = min(low, points[k, axis]), max(high, points[k, axis])
            else:
                low = min(boxes[2 * node, axis], boxes[2 * node + 1, axis])
                high = max(boxes[2 * node, axis + 3], boxes[2 * node + 1, axis + 3])
            boxes[node, axis], boxes[node, axis + 3] = low, high


@inner()
def _distance(points: np.ndarray, a: int, b: int) -> int:
    x: Any = np.int64(points[a, 0]) - np.int64(points[b, 0])
    y: Any = np.int64(points[a, 1]) - np.int64(points[b, 1])
    z: Any = np.int64(points[a, 2]) - np.int64(points[b, 2])
    squared: int = x * x + y * y + z * z
    return squared


@inner()
def _from_box(points: np.ndarray, a: int, boxes: np.ndarray, node: int) -> int:
    """Squared distance of a point from a box; `_UNKNOWN` for an empty box."""
    if boxes[node, 0] > boxes[node, 3]:
        return _UNKNOWN
    total = 0
    for axis in range(3):
        at: Any = np.int64(points[a, axis])
        x: Any = max(0, np.int64(boxes[node, axis]) - at, at - np.int64(boxes[node, axis + 3]))
        total += x * x
    return total


@inner()
def _bucket(squared: int) -> int:
    """The queue of points at a squared distance: it grows with the distance, four queues for each doubling of it."""
    length = 0
    for step in (32, 16, 8, 4, 2, 1):
        if squared >> (length + step) > 3:
            length += step
    return 4 * length + (squared >> length)


@inner()
def _beyond(bucket: int) -> int:
    """The least squared distance that belongs to a later queue."""
    return bucket + 1 if bucket < 8 else ((bucket & 3) + 5) << ((bucket >> 2) - 1)


@inner()
def _dequeue(links: np.ndarray, heads: np.ndarray, k: int, bucket: int) -> None:
    after, before = links[0, k], links[1, k]
    if before >= 0:
        links[0, before] = after
    else:
        heads[bucket] = after
    if after >= 0:
        links[1, after] = before


@inner()
def _enqueue(links: np.ndarray, heads: np.ndarray, k: int, bucket: int) -> None:
    links[0, k], links[1, k] = heads[bucket], -1
    if heads[bucket] >= 0:
        links[1, heads[bucket]] = k
    heads[bucket] = k


@outer
def _place(
    points: np.ndarray, index: np.ndarray, place: np.ndarray, boxes: np.ndarray, distance: np.ndarray,
    placed: np.ndarray, links: np.ndarray, heads: np.ndarray, last: np.ndarray, stack: np.ndarray, found: np.ndarray,
    order: np.ndarray, near: np.ndarray, weight: np.ndarray, squared: np.ndarray,
) -> int:  # fmt: skip
    """Fill in `Neighbours` but for the kinds; returns how many points have a spot of their own.

    The points are sorted; `index` gives their own indices, and `place` is its inverse. `distance` holds d, at first
    `_UNKNOWN`; the two rows of `links` and `heads` are the queues, doubly linked lists; `placed` counts the placed
    points of each box. `last` (placed at a spot), `stack` and `found` are scratch.
    """
    count, leaves = index.size, boxes.shape[0] // 2
    k, rank, top = place[0], 0, heads.size - 1
    while True:
        own = distance[k]
        if rank > 0:
            _dequeue(links, heads, k, _bucket(own))
            squared[rank] = own
        order[rank] = index[k]
        n = _search(points, index, boxes, distance, placed, k, stack, found, near[rank])
        _fit(points, place, k, near[rank], weight[rank], n)
        for i in range(max(1, n), NEAREST):
            near[rank, i] = near[rank, max(0, n - 1)]
        _spread(points, boxes, k, own, distance, links, heads, stack)
        distance[k], last[k] = _PLACED, index[k]
        node = leaves + k // _LEAF
        while node > 0:
            placed[node] += 1
            node >>= 1
        rank += 1
        while top >= 0 and heads[top] < 0:
            top -= 1
        if top < 0:
            break
        k = heads[top]
    apart = rank
    for i in range(count):
        k = place[i]
        if distance[k] != _PLACED:  # it is in no queue: its links are its twin, and who was placed here before
            twin, other = links[0, k], last[links[0, k]]
            links[1, k] = other
            for n in range(NEAREST):
                near[rank, n] = other
                other = other if place[other] == twin else links[1, place[other]]
            weight[rank, 0] = 1.0
            order[rank], last[twin] = i, i
            rank += 1
    return apart


@inner()
def _spread(
    points: np.ndarray, boxes: np.ndarray, k: int, own: int, distance: np.ndarray, links: np.ndarray,
    heads: np.ndarray, stack: np.ndarray,
) -> None:  # fmt: skip
    """Update the distances of all points from the placed ones, of which `k` is the newest."""
    leaves = boxes.shape[0] // 2
    limit = _UNKNOWN if own == _UNKNOWN else _beyond(_bucket(own))  # no distance is larger
    stack[0], size = 1, 1
    while size > 0:
        size -= 1
        node = stack[size]
        if node < leaves:
            for child in range(2 * node, 2 * node + 2):
                if _from_box(points, k, boxes, child) < limit:
                    stack[size] = child
                    size += 1
            continue
        for q in range(min((node - leaves + 1) * _LEAF, points.shape[0]) - 1, (node - leaves) * _LEAF - 1, -1):
            before = distance[q]
            if before <= 0 or q == k:
                continue
            now = _distance(points, k, q)
            if now < before:
                distance[q] = now
                old, new = -1 if before == _UNKNOWN else _bucket(before), _bucket(now)
                if old != new and old >= 0:
                    _dequeue(links, heads, q, old)
                if old != new and now > 0:
                    _enqueue(links, heads, q, new)
                if now == 0:
                    links[0, q] = k


@inner()
def _search(
    points: np.ndarray, index: np.ndarray, boxes: np.ndarray, distance: np.ndarray, placed: np.ndarray, k: int,
    stack: np.ndarray, found: np.ndarray, near: np.ndarray,
) -> int:  # fmt: skip
    """Find the nearest placed points, of equal distances those of lower index first; returns how many there are.

    `near` ``[NEAREST]`` gets their indices, `found` ``[NEAREST]`` their squared distances.
    """
    leaves, n, size, depth = boxes.shape[0] // 2, 0, 0, 0
    home = leaves + k // _LEAF
    while home >> depth > 1:
        depth += 1
    for up in range(depth - 1, -1, -1):  # from the point's own box outward, the last one pushed is searched first
        other = (home >> up) ^ 1
        if placed[other]:
            stack[size] = other
            size += 1
    if placed[home]:
        stack[size] = home
        size += 1
    while size > 0:
        size -= 1
        node = stack[size]
        if n == NEAREST and _from_box(points, k, boxes, node) > found[NEAREST - 1]:
            continue
        if node < leaves:
            left, right = 2 * node, 2 * node + 1
            if placed[left] and placed[right]:
                if _from_box(points, k, boxes, left) < _from_box(points, k, boxes, right):
                    left, right = right, left
                stack[size], stack[size + 1] = left, right  # the nearer one is searched first
                size += 2
            else:
                stack[size] = left if placed[left] else right
                size += 1
            continue
        for q in range((node - leaves) * _LEAF, min((node - leaves + 1) * _LEAF, points.shape[0])):
            if distance[q] != _PLACED:
                continue
            away, own = _distance(points, k, q), index[q]
            if n == NEAREST and (away > found[n - 1] or (away == found[n - 1] and own > near[n - 1])):
                continue
            n = min(n + 1, NEAREST)
            at = n - 1
            while at > 0 and (away < found[at - 1] or (away == found[at - 1] and own < near[at - 1])):
                found[at], near[at] = found[at - 1], near[at - 1]
                at -= 1
            found[at], near[at] = away, own
    return n


@inner()
def _fit(points: np.ndarray, place: np.ndarray, k: int, near: np.ndarray, weight: np.ndarray, n: int) -> None:
    """Weights of the value at point `k` of the plane through its `n` neighbours.

    A neighbour at the distance r counts as 1 / r^2. With x the offsets from the point, m their weighted mean and C the
    weighted sum of squares about it, the plane's value is the weighted mean of (1 - (x - m) . (C + ridge)^-1 m W) *
    value, where W is the sum of the weights.
    """
    if n == 0:
        return
    first = float(_distance(points, k, place[near[0]]))
    total, mx, my, mz = 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        q = place[near[i]]
        w = first / _distance(points, k, q)
        weight[i] = w
        total += w
        mx += w * (points[q, 0] - points[k, 0])
        my += w * (points[q, 1] - points[k, 1])
        mz += w * (points[q, 2] - points[k, 2])
    mx /= total
    my /= total
    mz /= total
    xx, xy, xz, yy, yz, zz = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(n):
        q, w = place[near[i]], weight[i]
        x = points[q, 0] - points[k, 0] - mx
        y = points[q, 1] - points[k, 1] - my
        z = points[q, 2] - points[k, 2] - mz
        xx += w * x * x
        xy += w * x * y
        xz += w * x * z
        yy += w * y * y
        yz += w * y * z
        zz += w * z * z
    gx, gy, gz = 0.0, 0.0, 0.0
    ridge = _RIDGE * (xx + yy + zz)
    if ridge > 0.0:  # else there is one neighbour
        xx += ridge
        yy += ridge
        zz += ridge
        # C = L D L^T, whose D are all positive thanks to the ridge
        b, c = xy / xx, xz / xx
        yy -= b * xy
        yz -= b * xz
        d = yz / yy
        zz -= c * xz + d * yz
        gx, gy = mx, my - b * mx
        gz = (mz - c * gx - d * gy) / zz
        gy = gy / yy - d * gz
        gx = gx / xx - b * gy - c * gz
    for i in range(n):
        q = place[near[i]]
        x = points[q, 0] - points[k, 0] - mx
        y = points[q, 1] - points[k, 1] - my
        z = points[q, 2] - points[k, 2] - mz
        weight[i] = weight[i] / total * (1.0 - (x * gx + y * gy + z * gz) * total)
