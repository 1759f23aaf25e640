"""Anything else: signals that a Python function of the user's returns. What is archived is opened as gridded data."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

from pydantic import model_validator

from vcinr.config import Source
from vcinr.errors import ConfigError
from vcinr.kinds import grid
from vcinr.kinds.base import Options
from vcinr.signals import Signals


class PythonOptions(Options):
    """The function, as ``module:name``."""

    function: str

    @model_validator(mode="before")
    @classmethod
    def _given(cls, data: Any) -> Any:
        if not data.get("function"):
            raise ValueError("kind 'python' needs function: 'module:name'")
        return data


def signals(source: Source, options: PythonOptions) -> Signals:
    """Call the function with the source.

    Parameters
    ----------
    source : Source
        What the function is given.
    options : PythonOptions
        Its name.

    Returns
    -------
    Signals
        Its result, with its name among the attributes.

    Raises
    ------
    ConfigError
        For a function that cannot be imported, or does not return signals with the splits train, valid and test.
    """
    module, _, name = options.function.partition(":")
    what = f"function {options.function!r}"
    try:
        function = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{what}: cannot be imported ({error}); write 'module:name' of a module on the path"
        ) from None
    result = function(source)
    if not isinstance(result, Signals) or not {"train", "valid", "test"} <= set(result.splits):
        raise ConfigError(f"{what}: must return vcinr.signals.Signals with the splits train, valid and test")
    return replace(result, attrs={"function": options.function, **result.attrs})


KIND = replace(grid.KIND, options=PythonOptions, signals=signals)
