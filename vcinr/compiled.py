"""Compilation of kernels by Numba, with the same options for all, and a message to the user when it happens.

A kernel is compiled for the processor when it is first called, and then kept on disk. As that takes some seconds, a
message goes to the log named ``vcinr``. Only *outer* functions, which Python calls, are kept; *inner* functions are
compiled into them. Kernels do not allocate memory but get arrays to work in from Python, which makes them faster to
compile and to run.

Floating-point operations are not reordered or fused (Numba's default), so that all processors get the same bits.
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
    """Decorator ``@inner()`` for a function that kernels call. It takes further options of Numba's ``njit``."""
    return njit(**_OPTIONS, **options)


kernels: list[Any] = []
"""All kernels that `outer` has made in this process."""


def outer(function: _F) -> _F:
    """Decorator for a kernel that Python calls. It is compiled on its first call and kept for later processes.

    Where neither the package's folder nor the user's cache can be written, it is compiled in each process.
    """
    try:
        kernel = njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:  # Numba found no folder for its cache
        kernel = njit(**_OPTIONS)(function)
    kernels.append(kernel)
    return kernel


def _ours(event: event.Event) -> bool:
    return str(event.data["dispatcher"].py_func.__module__).startswith("vcinr.")


class _Listener(event.Listener):
    """Tells the user that compilation has begun, and stops Python's garbage collector meanwhile.

    The collector would make compilation take a tenth longer.
    """

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
