"""Compilation by Numba: one set of options for all kernels, and a word to the user when it happens.

A kernel is compiled for a processor when it is first called there, and kept on disk. That takes some seconds, so
whoever waits is told, by the log named ``vcinr``. Only *outer* functions, those that Python calls, are kept; *inner*
ones are compiled into them. Kernels allocate nothing: Python hands them their scratch memory, which makes them quicker
to compile and to run.

Floating-point operations are never reordered or fused (Numba's default), so that all processors get the same bits.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core import event

_log = logging.getLogger("vcinr")
_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False}

_F = TypeVar("_F", bound=Callable[..., Any])


def inner(**options: Any) -> Callable[[_F], _F]:
    """Decorator of a kernel that other kernels call; ``@inner(inline="always")`` for one used in one place."""
    return njit(**_OPTIONS, **options)


kernels: list[Any] = []
"""All that `outer` has made in this process."""


def outer(function: _F) -> _F:
    """Decorator of a kernel that Python calls: compiled on its first call, and kept for later processes.

    Where no folder can be written (neither the package's nor the user's cache), it is compiled in every process.
    """
    try:
        kernel = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # Numba: no locator available
        kernel = njit(**_OPTIONS)(function)
    kernels.append(kernel)
    return kernel


def _ours(event: event.Event) -> bool:
    return str(event.data["dispatcher"].py_func.__module__).startswith("vcinr.")


class _Listener(event.Listener):
    """Says that compiling has begun, and keeps Python's garbage collector out of it, which would take a tenth more."""

    def __init__(self) -> None:
        self._depth, self._told, self._collects = 0, False, False

    def on_start(self, event: event.Event) -> None:
        """Called before Numba compiles a function; those of other packages are none of our business."""
        if not _ours(event):
            return
        self._depth += 1
        if self._depth == 1:
            self._collects = gc.isenabled()
            gc.disable()
        if not self._told:
            self._told = True
            _log.info(
                "compiling the coder for this processor: it takes some 10 to 20 seconds, once (`vcinr warm-up` does it "
                "ahead)"
            )

    def on_end(self, event: event.Event) -> None:
        """Called after Numba has compiled a function."""
        if not _ours(event):
            return
        self._depth -= 1
        if self._depth == 0 and self._collects:
            gc.enable()


event.register("numba:compile", _Listener())
