"""The uniform quantiser of COIN++ (Dupont et al. 2022), in which nothing is learned by gradient.

All latents together have one mean and standard deviation over the training signals. The range [mean - 3 std, mean + 3
std] is cut into 2^b cells of width 6 std / 2^b, what lies beyond belongs to the outermost cells, and a latent is
restored as the middle of its cell. All dimensions share one table, the histogram of the training signals.
"""

from __future__ import annotations

import numpy as np

from vcinr import config
from vcinr.coding.tables import levels_of, quantise_frequencies
from vcinr.progress import Progress, Watch
from vcinr.quantise.state import Quantiser
from vcinr.quantise.variational import History, Task, networks

REACH = 3.0
"""Half width of the quantised range, in standard deviations."""


def train(task: Task, cfg: config.Quantiser, *, seed: int, watch: Watch) -> tuple[Quantiser, History]:
    """Fit the quantiser, with one rate of the codec for each of ``cfg.bits``, in their order.

    Parameters and results are those of `factorised.train`; `seed` is not used.
    """
    phi = task.latents["train"].astype(np.float64)
    d, bits = phi.shape[1], np.array(cfg.bits)
    mean, std = phi.mean(), max(phi.std(), 1e-6)
    params = {"mean": np.full(d, mean), "std": np.full(d, std), **networks(np.random.default_rng(0), d, 0, 0)}
    gain = np.repeat((2.0**bits / (2 * REACH))[:, None], d, 1)
    offset = np.repeat(-(2 ** (bits - 1))[:, None], d, 1)
    level = np.zeros((len(bits), 1, 2 ** int(bits.max()) + 1), np.uint8)
    level[:, 0] = [
        np.arange(level.shape[-1]) <= 2**b for b in cfg.bits
    ]  # placeholders: `quantise` needs only the length of each table
    arrays = {k: v.astype(np.float32) for k, v in params.items()}
    state = Quantiser(arrays, 0, gain.astype(np.float32), offset.astype(np.int32), level, cells=True)
    history: History = []
    for k, b in enumerate(cfg.bits):
        z = state.quantise(task.latents["train"], k)
        counts = np.bincount((z - offset[k]).ravel(), minlength=2**b)
        level[k, 0, : 2**b + 1] = levels_of(quantise_frequencies(np.concatenate([[0], counts])))
        error = (state.dequantise(z, k) - phi) / std
        row = {"step": float(k + 1), "bits_per_value": _entropy(counts) * d / task.values,
               "distortion": float(np.square(error).mean())}  # fmt: skip
        history.append(row)
        watch(Progress("quantiser", k + 1, len(bits), {name: row[name] for name in ("bits_per_value", "distortion")}))
    return Quantiser(arrays, 0, state.gain, state.offset, level, cells=True), history


def _entropy(counts: np.ndarray) -> float:
    p = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum())
