"""Sound: one channel or several, of any length. Each file is one signal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median_low
from typing import Any

from vcinr.formats.base import flat_list
from vcinr.kinds.base import Kind
from vcinr.kinds.per_file import file_kind

SECONDS = 0.008
"""What a patch lasts."""
SHORTEST, LONGEST = 128, 512
"""Fewest and most samples of a patch: more of them make a model of megabytes."""
_MULTIPLE = 16
_FOR_EACH = 32  # patches to learn from, for each value of one
_IN_A_FILE = 8  # patches, at least


def patch_length(signals: Sequence[tuple[Mapping[Any, Any], int]]) -> int | None:
    """The length of patches that suits sounds: 8 ms, which are 128 samples at 16 kHz and 352 at 44.1 kHz.

    It is the middle one of their sample rates that counts. Patches are shorter where there are less than 32 of them
    for each of their values, or less than 8 in the middle one of the files.

    Parameters
    ----------
    signals : sequence of (mapping, int)
        The attributes of each sound, of which `sample_rate` says its samples in a second, and its length.

    Returns
    -------
    int or None
        Samples, a multiple of 16 up to `LONGEST`; None where the usual `SHORTEST` suit, or no rate is known.
    """
    rates = [float(flat_list(attrs["sample_rate"])[0]) for attrs, _ in signals if "sample_rate" in attrs]
    if not rates:
        return None
    lengths = [length for _, length in signals]
    most = min(SECONDS * median_low(rates), math.sqrt(sum(lengths) / _FOR_EACH), median_low(lengths) / _IN_A_FILE)
    length = min(LONGEST, int(most) // _MULTIPLE * _MULTIPLE)
    return length if length > SHORTEST else None


KIND: Kind = replace(
    file_kind(
        "sound", dims=("time",), feature_dim="channel", endings=(".wav", ".flac", ".aiff"), ragged=True,
        patches={"psnr": 50.0}, tile=4096, network_tile=800,
    ),
    patch_length=patch_length,
)  # fmt: skip
