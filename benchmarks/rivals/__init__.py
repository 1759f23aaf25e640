"""Rival codecs, a file each, measured on real bytes.

All take finite float32 or float64 arrays only, because some of them crash on anything else, or corrupt it silently.
None is asked for less than the bound it is given; whether it keeps the bound is for the caller to measure. A new rival
is a file like `benchmarks.rivals.zfp` and a line in `RIVALS`.
"""

from collections.abc import Mapping

from benchmarks.rivals.base import Rival
from benchmarks.rivals.bitround import BITROUND
from benchmarks.rivals.linear import JPEGXL, PCODEC
from benchmarks.rivals.sperr import SPERR, SPERR_RMS
from benchmarks.rivals.sz3 import SZ3
from benchmarks.rivals.zfp import ZFP

RIVALS: Mapping[str, tuple[Rival, ...]] = {
    "SZ3": SZ3,
    "SPERR": (SPERR,),
    "ZFP": (ZFP,),
    "linear + pcodec": (PCODEC,),
    "linear + JPEG XL": (JPEGXL,),
    "BitRound + zstd": (BITROUND,),
}
"""Settings of each codec that takes a bound. A comparison tries all settings and keeps the smallest."""

AT_PSNR: Mapping[str, tuple[Rival, ...]] = {**RIVALS, "SPERR": (SPERR_RMS,)}
"""The same codecs where a PSNR is aimed at instead of a bound: SPERR has a mode of its own for that."""
