"""From rows of `benchmarks.table` to how many times fewer bits vcinr takes than the best rival."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]

NO_MODEL = "vcinr, no model"
LEARNED = "EOF"
"""The rival that is trained: shown beside the best of the others, not counted among them."""
PARTS_A_YEAR = {"speedy": 12}
"""Parts that a model's bytes are shared out over. The bytes of other data sets' models are not counted."""
BOUND_SLACK = 1e-6
"""By how much of the bound a rival may be beyond it: float rounding of the comparison itself."""


@dataclass(frozen=True)
class Cell:
    """One variable of a data set at one bound, in bits per value.

    Parameters
    ----------
    dataset, variable : str
        What was compressed.
    bound : float
        Largest error allowed, as a fraction of the range.
    rivals : mapping of str to float
        Untrained rivals that hold the bound.
    learned : float, optional
        An EOF basis with a residual, its own bytes not counted.
    alone : float
        vcinr without a model.
    models : mapping of str to float
        vcinr with each model that knows the variable, the model's bytes not counted.
    model_bytes : mapping of str to int
        Bytes of these models.
    values : float
        Number of values that a model's bytes are shared out over; infinite where they are not counted.
    """

    dataset: str
    variable: str
    bound: float
    rivals: Mapping[str, float]
    learned: float | None
    alone: float
    models: Mapping[str, float]
    model_bytes: Mapping[str, int]
    values: float

    @property
    def best(self) -> str:
        """Name of the smallest rival."""
        return min(self.rivals, key=self.rivals.__getitem__)

    @property
    def ours(self) -> float:
        """Bits of vcinr with its best model or without, no model's bytes counted."""
        return min(self.alone, *self.models.values(), math.inf)

    @property
    def gain(self) -> float:
        """How many times fewer bits than the smallest rival, no model's bytes counted."""
        return self.rivals[self.best] / self.ours


@dataclass(frozen=True)
class Gain:
    """A data set at one bound: geometric mean and least of the gains over the best rival of each variable.

    `bits` are those of vcinr for each variable, with the models that were chosen; `models` the bits per value that each
    of these costs, where their bytes are counted.
    """

    dataset: str
    bound: float
    mean: float
    least: float
    bits: tuple[float, ...]
    models: Mapping[str, float]


def cells(rows: Iterable[Row]) -> list[Cell]:
    """Return a cell for every variable and bound that some untrained rival holds."""
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        if row["bound_fraction"] is not None:
            groups.setdefault((row["dataset"], row["variable"], round(row["bound_fraction"], 6)), []).append(row)
    made = (_cell(*key, group) for key, group in groups.items())
    return [cell for cell in made if cell.rivals]


def _cell(dataset: str, variable: str, bound: float, rows: Sequence[Row]) -> Cell:
    parts = len({row["part"] for row in rows})
    families = {name: whole for name, whole in _families(rows).items() if len(whole) == parts}
    bits = {name: 8 * sum(r["bytes"] for r in f) / sum(r["values"] for r in f) for name, f in families.items()}
    own = {name: family for name, family in families.items() if family[0].get("model")}
    holding = {name for name, f in families.items() if max(r["bound_ratio"] for r in f) <= 1 + BOUND_SLACK}
    a_part = sum(row["values"] for row in families[NO_MODEL]) / parts
    return Cell(
        dataset,
        variable,
        bound,
        rivals={name: bits[name] for name in bits if name in holding - own.keys() - {NO_MODEL, LEARNED}},
        learned=bits.get(LEARNED),
        alone=bits[NO_MODEL],
        models={name: bits[name] for name in own},
        model_bytes={name: family[0]["model_bytes"] for name, family in own.items()},
        values=a_part * PARTS_A_YEAR.get(dataset, math.inf),
    )


def _families(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return by codec, or model of vcinr, the smallest row of each part."""
    smallest: dict[str, dict[str, Row]] = {}
    for row in rows:
        name = row.get("model") or (LEARNED if row["codec"].startswith(LEARNED) else row["codec"])
        family = smallest.setdefault(name, {})
        if row["part"] not in family or row["bytes"] < family[row["part"]]["bytes"]:
            family[row["part"]] = row
    return {name: list(family.values()) for name, family in smallest.items()}


def gains(cells: Sequence[Cell]) -> list[Gain]:
    """Return the gain of every data set at every bound, with the best choice of models."""
    groups: dict[tuple[str, float], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.dataset, cell.bound), []).append(cell)
    return [_gain(*key, group) for key, group in groups.items()]


def _gain(dataset: str, bound: float, cells: Sequence[Cell]) -> Gain:
    """Try every choice of models.

    A model that is chosen is paid for by all variables that it knows, in proportion to their values, whether it serves
    them best or not.
    """
    sizes = {name: size for cell in cells for name, size in cell.model_bytes.items()}
    cost = {name: 8 * size / sum(c.values for c in cells if name in c.models) for name, size in sizes.items()}
    best = Gain(dataset, bound, 0.0, 0.0, (), {})
    for choice in itertools.chain.from_iterable(itertools.combinations(sizes, k) for k in range(len(sizes) + 1)):
        bits = tuple(_with_models(cell, choice, cost) for cell in cells)
        each = [cell.rivals[cell.best] / b for cell, b in zip(cells, bits, strict=True)]
        mean = math.exp(float(np.mean(np.log(each))))
        if mean > best.mean:
            best = Gain(dataset, bound, mean, min(each), bits, {name: cost[name] for name in choice if cost[name]})
    return best


def _with_models(cell: Cell, choice: Sequence[str], cost: Mapping[str, float]) -> float:
    usable = [name for name in choice if name in cell.models]
    return min([cell.alone, *(cell.models[name] for name in usable)]) + sum(cost[name] for name in usable)


def behind(cells: Iterable[Cell], share: float = 1.01) -> Iterator[tuple[Cell, str, float]]:
    """Yield where a rival, EOF included, takes fewer bits: cell, rival and its bits, by more than `share`."""
    for cell in cells:
        others = {**cell.rivals, **({} if cell.learned is None else {LEARNED: cell.learned})}
        for name, bits in others.items():
            if cell.ours > share * bits:
                yield cell, name, bits


def equal_psnr(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return vcinr's points without a bound beside SPERR's bits at the same PSNR, interpolated in dB."""
    free = [r for r in rows if r["bound_fraction"] is None and r["psnr_db"] is not None and r["part"] == "0"]
    points = []
    for dataset, variable in dict.fromkeys((r["dataset"], r["variable"]) for r in free):
        own = [r for r in free if (r["dataset"], r["variable"]) == (dataset, variable)]
        curve = sorted((r["psnr_db"], r["bits_per_value"]) for r in own if r["codec"] == "SPERR")
        quality = [q for q, _ in curve]
        for r in own:
            if r["ours"] and curve and quality[0] <= r["psnr_db"] <= quality[-1]:
                sperr = float(np.interp(r["psnr_db"], quality, [bits for _, bits in curve]))
                points.append(
                    {
                        "dataset": dataset, "variable": variable, "codec": r["codec"], "psnr_db": r["psnr_db"],
                        "bits_per_value": r["bits_per_value"], "sperr": sperr, "ratio": r["bits_per_value"] / sperr,
                    }
                )  # fmt: skip
    return points
