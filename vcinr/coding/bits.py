"""Context coding of arrays of bits: occupancy of voxels, flags and masks.

An array is taken as items ``[N, D, H, W]`` of planes ``[H, W]``, which are coded voxel by voxel by the range coder of
`vcinr.coding.kernels`. docs/format.md specifies every number below (section Bits).

1. *Planes.* One decision says whether a plane repeats the one before, another whether it repeats the same plane of the
   item before. So empty planes, and masks that never change, take hardly any bytes and no time.
2. *Quiet voxels.* Where everything nearby that is known has one value, a single counter says whether the voxel has
   another.
3. *Other voxels.* `_CONTEXTS` contexts select two adaptive counters each, a slow and a fast one: neighbours, voxels
   mirrored in each axis and in diagonals, the item before, and how long the row has agreed with those beside it. Two
   sets of weights, chosen by different facts, mix their logits (logistic mixing: Mahoney 2005, "Adaptive weighing of
   context models"), and a third set mixes the two results. Last, a table corrects the probability for each pattern of
   the ten nearest neighbours (adaptive probability map).

Everything is integers, and learns from what has been decoded already; no table is stored.

The range coder and single counters are inlined from `vcinr.coding.kernels`. Numba would not notice here that they have
changed, but what has been written does not let them change.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from vcinr.coding import kernels
from vcinr.coding.kernels import _LOGIT, Coder, _code_bit, rare
from vcinr.compiled import inner, outer
from vcinr.errors import CorruptError

_CONTEXTS = 7
_CONTEXT_COUNT = np.uint64(7)  # _CONTEXTS; an unsigned index spares the check for negative ones
_INPUTS = 14  # a slow and a fast counter of each context
_INPUT_COUNT = np.uint64(14)
_FAST_LIMIT = 4  # where the count of a fast counter stops; that of a slow one stops at kernels.COUNT_LIMIT
_RATE = 24  # how fast weights learn
_FIRST_WEIGHT = 6553  # 0.1
_BITS = 20  # log2 of the largest number of slots of a context
_HASH = 0x9E3779B1  # 2^32 divided by the golden ratio

_STEP = 192  # width of a cell of the adaptive probability map, on the scale of logits
_CELLS = 33  # ends of cells

# Voxel (0, 0, 0) of an item, in a volume that has a border of zeros, so that neighbours need no checks.
_Z0: Any = np.int64(3)
_Y0: Any = np.int64(2)
_X0: Any = np.int64(3)
_BORDER = (4, 4, 5)
_WINDOW = 40  # voxels that `_count_around` counts

# Contexts of single decisions: 16 of quiet voxels come first.
_REPEATS_PLANE = 16
_REPEATS_ITEM = 20
_RARE = 22

_ROOM = 16  # bytes of memory that may be needed for each bit
_LITTLE = 1 << 20  # bytes that may be needed in any case
_VOXELS_PER_CALL = 1 << 16


class _Mixer(NamedTuple):
    """What a coder of bits learns, and its scratch.

    Attributes
    ----------
    counter : numpy.ndarray
        int32 ``[_CONTEXTS, 2^k, 2]``: a slow and a fast counter in each slot, as those of `kernels.Coder`.
    weight : numpy.ndarray
        int64 ``[192, _INPUTS]``: two families of weight sets, with 16 fractional bits. The first 128 are chosen by what
        is known of mirrored voxels and by how often a context has been seen, the others by the nearest neighbours.
    final : numpy.ndarray
        int64 ``[8, 2]``: weights of the two results.
    apm : numpy.ndarray
        int64 ``[1024, _CELLS]``: adaptive probability map, probabilities of 22 bits.
    logit, slot, column, around : numpy.ndarray
        Scratch, int64 ``[_INPUTS]``, ``[_CONTEXTS]``, ``[W + 5]`` and ``[W]``.
    past : numpy.ndarray
        int64 ``[3]``: whether the last plane repeated the one before; whether the last one that did not repeated that
        of the item before; and whether the last plane is empty.
    """

    counter: np.ndarray
    weight: np.ndarray
    final: np.ndarray
    apm: np.ndarray
    logit: np.ndarray
    slot: np.ndarray
    column: np.ndarray
    around: np.ndarray
    past: np.ndarray


def items_of(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The shape ``[N, D, H, W]`` that an array is coded in.

    Axes of length 1 are left out. The last three of the others are D, H and W, lengths that are missing being 1, and N
    is the product of those before.
    """
    longer = [n for n in shape if n != 1]
    depth, height, width = ([1, 1, 1, *longer])[-3:]
    return math.prod(longer[:-3]), depth, height, width


def possible(shape: tuple[int, ...]) -> bool:
    """Whether arrays of this shape can be coded.

    The coder keeps two items with their borders. Shapes for which this would take much memory are refused: long ones of
    one axis, and those whose last axes are short and whose others are very long.
    """
    _, depth, height, width = items_of(shape)
    border = math.prod(n + b for n, b in zip((depth, height, width), _BORDER, strict=True))
    return 2 * border <= _ROOM * math.prod(shape) + _LITTLE


def encode(bits: np.ndarray) -> bytes:
    """Encode an array of bits.

    Parameters
    ----------
    bits : numpy.ndarray
        bool, of any shape that is `possible`. The last three axes longer than 1 are those of a volume.

    Returns
    -------
    bytes
        The stream. It holds neither the shape nor its own length.
    """
    if not possible(bits.shape):
        raise ValueError(f"bits of shape {bits.shape} cannot be coded")
    planes = np.array(bits, bool, order="C").view(np.int8).reshape(_planes(bits.shape))
    c = kernels.coder(1, _RARE)
    data = _code(c, np.empty(16, np.uint8), planes, items_of(bits.shape), True)
    return kernels.stream(c, data)


def decode(data: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """Inverse of `encode`.

    Parameters
    ----------
    data : bytes
        The stream.
    shape : tuple of int
        Shape of the array.

    Returns
    -------
    numpy.ndarray
        bool, of that shape.

    Raises
    ------
    CorruptError
        For a stream that does not end with the array, or a shape that no stream is `possible` of.
    """
    if not possible(shape):
        raise CorruptError("bits of such a shape cannot be coded")
    planes = np.zeros(_planes(shape), np.int8)
    c = kernels.coder(1, _RARE)
    array = kernels.open_stream(c, data)
    _code(c, array, planes, items_of(shape), False)
    kernels.check_end(c, array)
    return planes.view(bool).reshape(shape)


def _planes(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of all planes, ``[N * D, H, W]``."""
    items, depth, height, width = items_of(shape)
    return items * depth, height, width


def _code(
    c: Coder, data: np.ndarray, planes: np.ndarray, items: tuple[int, int, int, int], writing: bool
) -> np.ndarray:
    """Code all planes, int8 ``[N * D, H, W]``, which a reader fills; returns the buffer, which may be a larger one."""
    _, depth, height, width = items
    if planes.size == 0:
        return data
    slots = max(10, min(_BITS, planes.size.bit_length() - 4))
    cells = np.clip((np.arange(_CELLS) - _CELLS // 2) * _STEP, -_LOGIT, _LOGIT) + _LOGIT
    mixer = _Mixer(
        np.full((_CONTEXTS, 1 << slots, 2), 1 << 30, np.int32), np.full((192, _INPUTS), _FIRST_WEIGHT, np.int64),
        np.full((8, 2), 32768, np.int64), np.tile(c.squash[cells].astype(np.int64) << 6, (1024, 1)),
        np.zeros(_INPUTS, np.int64), np.zeros(_CONTEXTS, np.int64), np.zeros(width + _BORDER[2], np.int64),
        np.zeros(width, np.int64), np.zeros(3, np.int64),
    )  # fmt: skip
    volume = np.zeros((2, *(n + b for n, b in zip((depth, height, width), _BORDER, strict=True))), np.int8)
    per_call = max(1, _VOXELS_PER_CALL // (height * width))
    for first in range(0, len(planes), per_call):
        last = min(first + per_call, len(planes))
        if writing:
            # A voxel takes at most little more than two bytes.
            data = kernels.reserve(c.state, data, (last - first) * (height * width // 32 + 1))
        _code_planes(c, data, mixer, volume, planes, first, last, 32 - slots, writing)
    return data


@outer
def _code_planes(
    c: Coder, data: np.ndarray, m: _Mixer, volume: np.ndarray, planes: np.ndarray, begin: int, end: int, shift: int,
    writing: bool,
) -> None:  # fmt: skip
    """Code planes ``[begin, end)``.

    `volume` ``[2, D + 4, H + 4, W + 5]`` holds this item and the one before, each with its border; they change places
    from one item to the next. A hash of 32 bits is shifted right by `shift` to give a slot.
    """
    depth, past = volume.shape[1] - 4, m.past
    for p in range(begin, end):
        i, z = p // depth, p % depth + _Z0
        now, before = volume[i & 1], volume[1 - (i & 1)]
        if z == _Z0:
            for k in range(now.shape[0]):
                _clear(now[k])
            past[0], past[1], past[2] = 1, 0, 1
        same = 1 if writing and _is_equal(planes[p], now[z - 1]) else 0
        past[0] = rare(c, data, _REPEATS_PLANE + 2 * past[0] + past[2], same, writing)
        if past[0]:
            _copy(now[z - 1], now[z])
        else:
            if i > 0:
                same = 1 if writing and _is_equal(planes[p], before[z]) else 0
                past[1] = rare(c, data, _REPEATS_ITEM + past[1], same, writing)
            if past[1]:
                _copy(before[z], now[z])
            else:
                for y in range(planes.shape[1]):
                    _code_row(c, data, m, now, before, planes[p, y], z, y + _Y0, shift, writing)
            past[2] = 1 if _is_empty(now[z]) else 0
        if not writing:
            for y in range(planes.shape[1]):
                for x in range(planes.shape[2]):
                    planes[p, y, x] = now[z, y + _Y0, x + _X0]


@inner()
def _clear(plane: np.ndarray) -> None:
    """Set a plane to zeros."""
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            plane[y, x] = 0


@inner()
def _copy(source: np.ndarray, target: np.ndarray) -> None:
    """Copy a plane."""
    for y in range(source.shape[0]):
        for x in range(source.shape[1]):
            target[y, x] = source[y, x]


@inner()
def _is_equal(plane: np.ndarray, bordered: np.ndarray) -> bool:
    """Whether a plane without a border is equal to one that has it."""
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if plane[y, x] != bordered[y + _Y0, x + _X0]:
                return False
    return True


@inner()
def _is_empty(plane: np.ndarray) -> bool:
    """Whether a plane is all zeros."""
    for y in range(plane.shape[0]):
        for x in range(plane.shape[1]):
            if plane[y, x] != 0:
                return False
    return True


@inner()
def _count_around(m: _Mixer, now: np.ndarray, z: int, y: int) -> None:
    """Fill `m.around`: for each voxel of a row, the number of ones among `_WINDOW` voxels known before the row.

    These are 5 by 5 of the plane before, 2 rows of 5 of this one, and 5 of the plane before the last.
    """
    column, around = m.column, m.around
    for x in range(column.size):
        column[x] = (
            int(now[z, y - 2, x]) + int(now[z, y - 1, x]) + int(now[z - 1, y - 2, x]) + int(now[z - 1, y - 1, x])
            + int(now[z - 1, y, x]) + int(now[z - 1, y + 1, x]) + int(now[z - 1, y + 2, x])
        )  # fmt: skip
    for j in range(around.size):
        x = j + _X0
        around[j] = (
            column[x - 2] + column[x - 1] + column[x] + column[x + 1] + column[x + 2]
            + int(now[z - 2, y, x]) + int(now[z - 2, y - 1, x]) + int(now[z - 2, y + 1, x])
            + int(now[z - 2, y, x - 1]) + int(now[z - 2, y, x + 1])
        )  # fmt: skip


@inner()
def _code_row(
    c: Coder, data: np.ndarray, m: _Mixer, now: np.ndarray, before: np.ndarray, given: np.ndarray, z: int, y: int,
    shift: int, writing: bool,
) -> None:  # fmt: skip
    """Code row `y` of plane `z`; both count the border. A writer takes the voxels from `given`."""
    _count_around(m, now, z, y)
    width = given.size
    # The mirrored places; a voxel is known there where it comes earlier in the order of decoding.
    z_mirror = (now.shape[0] - 4) - 1 + 2 * _Z0 - z
    y_mirror = (now.shape[1] - 4) - 1 + 2 * _Y0 - y
    known_yz = (2 if y > y_mirror else 0) + (4 if z > z_mirror else 0)
    like_plane, like_row, like_mirror, unlike_plane, unlike_row = 0, 0, 0, 0, 0
    for j in range(width):
        x, x_mirror = j + _X0, width - 1 - j + _X0
        west, north, under = int(now[z, y, x - 1]), int(now[z, y - 1, x]), int(now[z - 1, y, x])
        known = known_yz + (1 if x > x_mirror else 0)
        # Mirrored voxels: 0 where they are not known, 1 or 2.
        across_x = 1 + int(now[z, y, x_mirror]) if known & 1 else 0
        across_y = 1 + int(now[z, y_mirror, x]) if known & 2 else 0
        across_z = 1 + int(now[z_mirror, y, x]) if known & 4 else 0
        value = int(given[j]) if writing else 0
        ones = m.around[j] + west + int(now[z, y, x - 2]) + int(now[z, y, x - 3])
        opposite = 2 - west  # what a mirrored voxel is that has not the value of the one in the west
        if (
            (ones == 0 or ones == _WINDOW + 3)
            and across_x != opposite and across_y != opposite and across_z != opposite
        ):  # fmt: skip
            value = west ^ rare(c, data, 2 * known + west, value ^ west, writing)
        else:
            near = _near(now, z, y, x)
            three = near >> 6 & 7
            six = near & 7 | three << 3
            beside_x = int(now[z, y, x_mirror - 1]) | int(now[z, y, x_mirror + 1]) << 1 if known & 1 else 0
            beside_y, beside_z = 0, 0
            if known & 2:
                beside_y = (
                    int(now[z, y_mirror, x + 1]) | int(now[z, y_mirror, x - 1]) << 1
                    | int(now[z, y_mirror - 1, x]) << 2 | int(now[z, y_mirror + 1, x]) << 3
                )  # fmt: skip
            if known & 4:
                beside_z = (
                    int(now[z_mirror, y, x + 1]) | int(now[z_mirror, y, x - 1]) << 1
                    | int(now[z_mirror, y + 1, x]) << 2 | int(now[z_mirror, y - 1, x]) << 3
                    | int(now[z_mirror - 1, y, x]) << 4 | int(now[z_mirror + 1, y, x]) << 5
                )  # fmt: skip
            uneven = (north ^ int(now[z, y - 1, x_mirror])) + (under ^ int(now[z - 1, y, x_mirror]))
            if x > x_mirror + 1:
                uneven |= (west ^ int(now[z, y, x_mirror + 1])) << 2
            m.slot[0] = near & 0xFFFF
            m.slot[1] = near
            m.slot[2] = near & 63 | across_x << 6 | across_y << 8 | across_z << 10 | uneven << 12 | beside_x << 15
            m.slot[3] = six | _item_before(before, z, y, x) << 6
            m.slot[4] = six | across_x << 6 | across_y << 8 | across_z << 10 | _diagonal(now, z, y, x) << 12
            m.slot[5] = (
                six | min(like_plane, 15) << 6 | min(like_row, 15) << 10 | min(like_mirror, 7) << 14 | across_x << 17
                | min(unlike_plane, 2) << 19 | min(unlike_row, 2) << 21
            )  # fmt: skip
            m.slot[6] = near & 0xFFFF | across_z << 16 | beside_z << 18 | across_y << 24 | beside_y << 26
            value = _mixed(c, data, m, near, known, shift, value, writing)
        now[z, y, x] = value
        # How long the row has agreed with its mirror image, the plane before and the row before; how often it has not.
        if known & 1:
            like_mirror = like_mirror + 1 if across_x == 1 + value else 0
        like_plane = like_plane + 1 if value == under else 0
        like_row = like_row + 1 if value == north else 0
        unlike_plane += value ^ under
        unlike_row += value ^ north


@inner(forceinline=True)
def _near(now: np.ndarray, z: int, y: int, x: int) -> int:
    """The 30 nearest voxels that are known, the nearest in the lowest bits."""
    return (
        int(now[z, y, x - 1]) | int(now[z, y - 1, x]) << 1 | int(now[z - 1, y, x]) << 2
        | int(now[z, y - 1, x - 1]) << 3 | int(now[z - 1, y, x - 1]) << 4 | int(now[z - 1, y - 1, x]) << 5
        | int(now[z, y - 1, x + 1]) << 6 | int(now[z - 1, y, x + 1]) << 7 | int(now[z - 1, y + 1, x]) << 8
        | int(now[z, y, x - 2]) << 9 | int(now[z, y - 2, x]) << 10 | int(now[z - 2, y, x]) << 11
        | int(now[z - 1, y - 1, x - 1]) << 12 | int(now[z - 1, y - 1, x + 1]) << 13
        | int(now[z - 1, y + 1, x - 1]) << 14 | int(now[z - 1, y + 1, x + 1]) << 15
        | int(now[z, y - 1, x - 2]) << 16 | int(now[z, y - 1, x + 2]) << 17
        | int(now[z - 1, y, x - 2]) << 18 | int(now[z - 1, y, x + 2]) << 19
        | int(now[z - 2, y, x + 1]) << 20 | int(now[z - 2, y + 1, x]) << 21
        | int(now[z - 2, y - 1, x]) << 22 | int(now[z - 2, y, x - 1]) << 23
        | int(now[z - 1, y + 2, x]) << 24 | int(now[z - 1, y - 2, x]) << 25
        | int(now[z, y, x - 3]) << 26 | int(now[z, y - 2, x + 1]) << 27
        | int(now[z, y - 2, x - 1]) << 28 | int(now[z - 3, y, x]) << 29
    )  # fmt: skip


@inner(forceinline=True)
def _item_before(before: np.ndarray, z: int, y: int, x: int) -> int:
    """The same voxel of the item before, and the six that touch it."""
    return (
        int(before[z, y, x]) | int(before[z, y, x + 1]) << 1 | int(before[z, y + 1, x]) << 2
        | int(before[z + 1, y, x]) << 3 | int(before[z, y, x - 1]) << 4 | int(before[z, y - 1, x]) << 5
        | int(before[z - 1, y, x]) << 6
    )  # fmt: skip


@inner(forceinline=True)
def _diagonal(now: np.ndarray, z: int, y: int, x: int) -> int:
    """Three voxels that a rotation by a quarter, or a reflection in a diagonal of z and x, brings here.

    Each is 0 where it is not known, 1 or 2. They exist only where planes are as many as columns.
    """
    size = now.shape[2] - 5
    if now.shape[0] - 4 != size:
        return 0
    x_mirror = size - 1 + 2 * _X0 - x
    found = 0
    if x < z:
        found = 1 + int(now[x, y, z])
    if x_mirror < z:
        found |= (1 + int(now[x_mirror, y, z])) << 2 | (1 + int(now[x_mirror, y, size - 1 + 2 * _X0 - z])) << 4
    return found


@inner(forceinline=True)
def _mixed(c: Coder, data: np.ndarray, m: _Mixer, near: int, known: int, shift: int, value: int, writing: bool) -> int:
    """Code one decision under the contexts in `m.slot`, which become slots of counters."""
    for i in range(_CONTEXT_COUNT):
        m.slot[i] = (m.slot[i] * _HASH & 0xFFFFFFFF) >> shift
        slot = np.uint64(m.slot[i])
        m.logit[2 * i] = c.stretch[np.uint64(m.counter[i, slot, 0] >> 15)]
        m.logit[2 * i + 1] = c.stretch[np.uint64(m.counter[i, slot, 1] >> 15)]
    seen = min(int(m.counter[1, m.slot[1], 0]) & 1023, 15)
    first, second, final = np.uint64(known + 8 * seen), np.uint64(128 + (near & 63)), np.uint64(near & 7)
    sum_0, sum_1 = 0, 0
    for k in range(_INPUT_COUNT):
        sum_0 += m.weight[first, k] * m.logit[k]
        sum_1 += m.weight[second, k] * m.logit[k]
    x_0: Any = max(-_LOGIT, min(_LOGIT, sum_0 >> 16))
    x_1: Any = max(-_LOGIT, min(_LOGIT, sum_1 >> 16))
    mixed: Any = (m.final[final, 0] * x_0 + m.final[final, 1] * x_1) >> 16
    mixed = max(-_LOGIT, min(_LOGIT, mixed))
    p_mixed = int(c.squash[mixed + _LOGIT])
    pattern, position = near & 1023, mixed + _LOGIT + 1
    cell, part = position // _STEP, position % _STEP
    corrected = (m.apm[pattern, cell] * (_STEP - part) + m.apm[pattern, cell + 1] * part) // _STEP >> 6
    p: Any = max(1, min(65535, (p_mixed + corrected) >> 1))
    value = _code_bit(c.state, data, p, value, writing)

    nearest = cell + (1 if 2 * part >= _STEP else 0)
    m.apm[pattern, nearest] += ((value << 22) - m.apm[pattern, nearest]) >> 6
    error = (value << 16) - p_mixed
    m.final[final, 0] += (x_0 * error + (1 << 19)) >> 20
    m.final[final, 1] += (x_1 * error + (1 << 19)) >> 20
    error_0: Any = ((value << 16) - int(c.squash[x_0 + _LOGIT])) * _RATE
    error_1: Any = ((value << 16) - int(c.squash[x_1 + _LOGIT])) * _RATE
    for k in range(_INPUT_COUNT):
        m.weight[first, k] += (m.logit[k] * error_0 + (1 << 19)) >> 20
        m.weight[second, k] += (m.logit[k] * error_1 + (1 << 19)) >> 20
    for i in range(_CONTEXT_COUNT):
        slot = np.uint64(m.slot[i])
        m.counter[i, slot, 0] = _learnt(c, int(m.counter[i, slot, 0]), value, kernels.COUNT_LIMIT)
        m.counter[i, slot, 1] = _learnt(c, int(m.counter[i, slot, 1]), value, _FAST_LIMIT)
    return value


@inner(forceinline=True)
def _learnt(c: Coder, counter: int, value: int, limit: int) -> int:
    """The counter after a decision: it has moved 1 / (n + 1.6) of the way towards it."""
    seen, probability = counter & 1023, counter >> 10
    probability += ((value << 21) - probability) * c.reciprocal[np.uint64(seen)] >> 16
    return probability << 10 | min(seen + 1, limit)
