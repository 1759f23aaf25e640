"""From rows of `benchmarks.speed` to how fast vcinr is beside its rivals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = Mapping[str, Any]
Variable = tuple[str, str]
"""Data set and name."""


@dataclass(frozen=True)
class Ratios:
    """vcinr at one setting and bound, a number for each variable.

    `encode` is times as fast as SPERR, `decode` times as fast as SZ3, `size` times SZ3's bytes, and `best` times the
    bytes of the default effort, where there are such rows.
    """

    codec: str
    bound: float
    encode: tuple[float, ...]
    decode: tuple[float, ...]
    size: tuple[float, ...]
    best: tuple[float, ...]

    @property
    def variables(self) -> int:
        """Number of variables."""
        return len(self.encode)


def ratios(rows: Sequence[Row]) -> Iterator[Ratios]:
    """Yield the ratios of every setting of vcinr, by bound."""
    for bound in dict.fromkeys(r["bound_fraction"] for r in rows):
        at = {(r["codec"], (r["dataset"], r["variable"])): r for r in rows if r["bound_fraction"] == bound}
        for name in dict.fromkeys(codec for codec, _ in at if codec.startswith("vcinr")):
            yield Ratios(
                name,
                bound,
                encode=_over(at, name, "SPERR", "encode_mbs"),
                decode=_over(at, name, "SZ3", "decode_mbs"),
                size=_over(at, name, "SZ3", "bytes"),
                best=_over(at, name, name.replace("fast", "best"), "bytes"),
            )


def _over(at: Mapping[tuple[str, Variable], Row], codec: str, other: str, key: str) -> tuple[float, ...]:
    """Return the figure `key` of `codec` over that of `other`, for each variable that both have it for."""
    own = {variable: row for (name, variable), row in at.items() if name == codec}
    return tuple(row[key] / at[other, v][key] for v, row in own.items() if key in at.get((other, v), {}))
