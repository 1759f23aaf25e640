"""Compile all kernels in advance, so that no later process on this machine has to wait for it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from vcinr.codec.decode import restore
from vcinr.codec.promise import errors_of
from vcinr.coding import bits, huffman, latents, numbers, residual
from vcinr.coding.exponential import exponentiate
from vcinr.coding.hyperprior import warm as warm_hyperprior
from vcinr.coding.neighbours import on_sphere
from vcinr.coding.residual import CODERS, Plan
from vcinr.coding.residual.interpolated import Choices
from vcinr.coding.simplify import Simplifier
from vcinr.inr.at import added
from vcinr.patches import coder, frames
from vcinr.patches import kernels as patch_kernels
from vcinr.patches.geometry import Geometry
from vcinr.patches.model import Experts, PatchModel
from vcinr.progress import Progress, Watch, silent
from vcinr.quantise.refine import refine
from vcinr.scenes import field, fit


def warm_up(watch: Watch = silent) -> None:
    """Run each kernel once on a few numbers, which makes Numba compile it.

    Parameters
    ----------
    watch : callable
        Is told of progress.

    Notes
    -----
    Numba keeps what it compiles in the package's folder, in the user's cache folder where that cannot be written, or in
    NUMBA_CACHE_DIR. Compiling all kernels takes about 50 seconds of one core, and no time where it has been done
    before.
    """
    jobs: list[Callable[[], object]] = [
        *(partial(_residual, coder.first) for coder in CODERS),
        partial(_residual, Plan("interpolated", choices=Choices(0, 0, 0))),
        _latents,
        _patches,
        _bits,
        _numbers,
        _values,
        _scenes,
    ]
    for done, job in enumerate(jobs, 1):
        job()
        watch(Progress("warm-up", done, len(jobs)))


def _residual(plan: Plan) -> None:
    """Run the kernels of a residual coder, with and without a mask."""
    values = np.sin(np.arange(2 * 3 * 9 * 10.0)).reshape(2, 3, 9, 10)
    places = on_sphere(np.arange(90.0), np.arange(90.0))
    for valid in (None, values > -0.9):
        data, _ = residual.encode(values, 0.1, plan, valid, places)
        residual.decode(data, values.shape, 0.1, plan, valid, places)


def _latents() -> None:
    """Run the kernels that code latents, and those that optimise their rounding."""
    z, offset, frequency = np.ones((2, 3, 2), np.int64), np.array([-1, -1]), np.array([[1, 9, 9, 9], [1, 9, 9, 9]])
    latents.decode(latents.encode(z, offset, frequency), 2, 3, offset, frequency)
    book = huffman.codebook(frequency[0])
    huffman.decode(huffman.bits_of(book.code[[1, 2]], book.length[[1, 2]]), 0, 2, book)
    warm_hyperprior()
    refine(z.reshape(6, 2), np.ones((6, 4)), np.ones((2, 4)), np.ones((2, 3)), np.array([-1, -1]), 0.5)


def _bits() -> None:
    """Run the kernels that code bits, and those that make shapes simpler."""
    some = np.arange(24).reshape(1, 2, 3, 4) % 5 == 0
    bits.decode(bits.encode(some), some.shape)
    Simplifier(some, 1).sweep(1.0)


def _numbers() -> None:
    """Run the kernels that code numbers."""
    some = np.repeat([1e9, 0.0, 1e-9], 9)  # of few different values, so that a dictionary is tried too
    numbers.decode(numbers.encode(some) or b"", some.shape, some.dtype)


def _patches() -> None:
    """Run the kernels that code patches."""
    geometry = Geometry((1, 1, 2), (0, 0, 1), (0, 0, 0))
    model = PatchModel(
        geometry, ("x",), None, {}, np.zeros(1, np.float32), np.zeros((1, 1, 2), np.float32),
        np.eye(2, dtype=np.float32)[None],
    )  # fmt: skip
    stream, decoded = coder.encode(model, np.zeros((1, 1, 1, 4, 1)), 0)
    coder.decode(model, stream, decoded.shape, 0)
    grouped = replace(geometry, motion=1, group=2, finer=(0,))
    later = tuple(Experts(np.zeros((1, grouped.seen(n), 2), np.float32), model.basis) for n in (1, 2))
    film = replace(model, geometry=grouped, later=later)
    stream, decoded = coder.encode(film, np.zeros((1, 3, 1, 4, 1)), 0)
    coder.decode(film, stream, decoded.shape, 0)
    frames.seen([decoded[0]], grouped, 1, 1, 1.0, np.random.default_rng(0))
    patch_kernels.shifts_of(np.ones(3, np.int64), 1, np.zeros((2, 1, 1, 1)))


def _values() -> None:
    """Run the kernels that turn a prior and a residual into values, and measure errors."""
    exponentiate(np.zeros(1))
    prior = added(np.zeros(4, np.float32), np.ones((3, 2), np.float32), np.ones((2, 4), np.float32))
    for dtype in (np.float32, np.float64):
        values = np.empty(12, dtype)
        restore(prior, (0.0, 1.0), 0.0, None, (-math.inf, math.inf), values)
        errors_of(values, values)


def _scenes() -> None:
    """Run the kernels that render scenes, and that of the gradient."""
    camera, frame, box = field.Camera(1, 1, 1.0, 1.0, 0.5, 0.5), field.Frame((0.0, 0.0, 0.0), 1.0), np.arange(6)
    views = fit.Views(np.zeros((1, 1, 1, 3), np.uint8), np.eye(4)[None], camera, "")
    cells = np.zeros((1, 1, 1, field.FEATURES))
    field.views(cells, box, frame, camera, views.poses)
    fit.Rays(views, box, frame, field.FINE).gradient(cells, np.array([0]))
