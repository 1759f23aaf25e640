"""The outer loop of Algorithm 1: theta, phi_0 and the step sizes are learned through the inner loop."""

from __future__ import annotations

import copy
import csv
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from vcinr.config import Inr, Meta
from vcinr.errors import ConfigError, InputError
from vcinr.inr.conditioning import conditioning
from vcinr.inr.model import Model, freeze, save_model
from vcinr.inr.siren import initialise
from vcinr.inr.spec import InrSpec, Params
from vcinr.meta.checkpoint import load_checkpoint, save_checkpoint
from vcinr.meta.inner import Batch, InnerLoop, adapt, batch_of, drawn, inner_loop, signal_loss, solve
from vcinr.meta.pace import Pace
from vcinr.meta.principal import Moments, principal_axes, principal_axes_by_moments
from vcinr.meta.ranks import ALONE, Ranks
from vcinr.places import written_aside
from vcinr.progress import Progress, Watch, silent
from vcinr.quality import psnr_of
from vcinr.signals import Signals, coordinates, fixed_known_points, read_signals
from vcinr.signals.stored import Stored, sha256_of

HISTORY = ("step", "seconds", "train_loss", "train_psnr_db", "valid_psnr_db", "rate_factor")
"""Columns of a learning curve."""
COLLAPSE_DB = 3.0
"""Training has collapsed where held-out PSNR is so far below its best."""
ALIVE_DB = 1.0
"""Least gain of an inner loop over phi_0 that counts as working."""
MAX_RESTARTS = 4
"""Largest number of restarts after collapses."""
GROWTH_DB = 0.01
"""Least growth of held-out PSNR that resets the patience."""
_T = TypeVar("_T")


def meta_train(
    signals: str | Path | Signals,
    inr: Inr,
    meta: Meta,
    *,
    seed: int,
    threads: int,
    out: str | Path,
    checkpoint: str | Path,
    device: str = "cpu",
    seconds: float | None = None,
    memory: float | None = None,
    ranks: Ranks = ALONE,
    watch: Watch = silent,
) -> dict[str, Any]:
    """Meta-train an INR and write ``out/model.vcinr`` and ``out/history.csv``.

    Parameters
    ----------
    signals : str, Path or Signals
        A store of signals, or the signals themselves.
    inr, meta : Inr, Meta
        The network and how it is trained.
    seed : int
        Seed of initialisation and draws.
    threads : int
        Number of torch's threads.
    out : str or Path
        Folder to write.
    checkpoint : str or Path
        Written at every validation. A run resumes from the checkpoint of a run with the same data, parameters, seed and
        code; any other is ignored.
    device : str
        ``cpu`` or ``cuda``.
    seconds : float, optional
        Time budget, in which earlier, interrupted runs are included. Training ends when it is spent, and the schedule
        of learning rates fits into it. Without a budget the result is deterministic.
    memory : float, optional
        Gigabytes that the signals may take in memory; see `read_signals`. The result does not depend on it.
    ranks : Ranks
        The processes that train together, each of which calls this function with the same arguments. The first one
        writes. The result is that of one process but for rounding.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        Held-out PSNR, the model's size and digest, the number of steps, the step of the best parameters, and why
        training stopped: ``steps`` (all done), ``patience`` (held-out PSNR no longer grew) or ``time``.

    Raises
    ------
    InputError
        Where there is no signal to learn from, and where processes do not read the same data and checkpoint.
    ConfigError
        For a device, or a network, that is not possible, and for more processes than signals in a batch.

    Notes
    -----
    Algorithm 1 of Schwarz et al. 2023. The parameters of the best validation are kept. When training collapses it goes
    back to them, with lower learning rates.
    """
    torch.set_num_threads(threads)
    torch_device = device_of(device)
    data = signals if isinstance(signals, Signals) else read_signals(signals, memory)
    train = data.splits["train"]
    if len(train) == 0:
        raise InputError("the training split holds no signal; widen the source's train selection")
    spec = spec_of(inr, coordinates.dimension(data.system), train.features.shape[-1])
    fingerprint = _fingerprint(data, inr, meta, seed)
    run = _State.resumed(load_checkpoint(checkpoint, fingerprint), meta, torch_device)
    if not ranks.same((fingerprint, None if run is None else run.step)):
        raise InputError(
            f"{checkpoint}: the processes read different signals or checkpoints; all machines need the same files, at "
            "the same paths, and the same vcinr"
        )
    watch = watch if ranks.first else silent
    if run is None:
        run = _State.fresh(spec, meta, seed, len(data.normalisation), torch_device)
    else:
        watch(Progress("meta-train", run.step, meta.steps, {"resumed_valid_psnr_db": run.best_psnr}))

    cond = conditioning(spec.conditioning)
    x, known_points = torch.from_numpy(data.inputs).to(torch_device), data.known_points("train")
    held_out_batch = held_out(data, x)
    constant_psnr = _constant_psnr(held_out_batch)
    pace = Pace(meta.steps, seconds, done=run.step, spent=run.history[-1]["seconds"] if run.history else 0.0)
    batch_size = min(meta.batch, len(train))
    parts = ranks.parts(batch_size, meta.micro_batch)

    def drawn_signals(rng: np.random.Generator) -> np.ndarray:
        return np.sort(rng.choice(len(train), batch_size, replace=False))

    def agreed(by_clock: _T) -> _T:
        return by_clock if seconds is None else ranks.once(lambda: by_clock)

    while (stopped := agreed(run.stopped(meta, pace))) is None:
        position = agreed(pace.position(run.step))
        for group, base in zip(run.optimiser.param_groups, _rates(meta), strict=True):
            group["lr"] = run.factor * base * schedule(position, meta.steps, meta.warmup, run.since, meta.decay)
        chosen = drawn_signals(run.rng)
        where = drawn(run.rng, known_points, meta.points)
        relaxed, penalty = cond.relax(spec, run.parameters, run.rng)
        # The next step will draw these signals; should it draw others, they are read then.
        after = drawn_signals(copy.deepcopy(run.rng)) if train.streamed else chosen
        run.optimiser.zero_grad()
        loss = torch.zeros((), device=torch_device)
        for own, following in zip(parts, [*(chosen[part] for part in parts[1:]), after[parts[0]]], strict=True):
            batch = batch_of(data, "train", x, chosen[own], where)
            train.read_ahead(following)
            share = len(chosen[own]) / batch_size
            loss += _descended(spec, relaxed, penalty, batch, share, meta, last=own == parts[-1])
        ranks.sum_gradients(run.parameters.values(), loss)
        torch.nn.utils.clip_grad_norm_(list(run.parameters.values()), meta.clip)
        run.optimiser.step()
        with torch.no_grad():
            run.parameters["alpha"].clamp_(
                0.0, meta.inner_rate_max
            )  # with a negative step size a step would climb the loss
        run.step += 1
        due = agreed(pace.look_due())
        if due or run.step % meta.validate_every == 0 or run.step in (*_early(meta), meta.steps):
            before, valid, in_training, spent = ranks.once(
                lambda: (*_judged(spec, run.parameters, held_out_batch, meta), pace.spent)
            )
            mse = max(loss.item(), 1e-12)
            row = (run.step, round(spent, 2), mse, float(psnr_of(mse)), valid, run.factor)
            run.history.append(dict(zip(HISTORY, row, strict=True)))
            shown = dict(zip(HISTORY[2:5], row[2:5], strict=True))
            watch(Progress("meta-train", run.step, meta.steps, shown, pace.left(run.step)))
            position = agreed(pace.position(run.step))
            run.judge(spec, meta, seed, position, valid, _dead(before, in_training, constant_psnr))
            if ranks.first:
                save_checkpoint(checkpoint, fingerprint, run.saved())
    if not run.history:  # not meta-trained: the network is fitted to each signal at encoding
        fitted, loop = _finished(spec, run.parameters), meta.encode or meta.inner
        run.best_psnr = ranks.once(lambda: validate(*fitted, held_out_batch, meta.encode_steps, loop))
        run.history.append(dict(zip(HISTORY, (0, 0.0, math.nan, math.nan, run.best_psnr, 1.0), strict=True)))
    reached = run.best_psnr if run.best is not None else run.history[-1]["valid_psnr_db"]
    if stopped != "steps":
        final = {"valid_psnr_db": reached, "best_step": float(run.best_step)}
        watch(Progress(f"meta-train: stopped by {stopped}", run.step, run.step, final))
    arrays = _arrays(run.best or run.parameters)
    if cond.linear:
        arrays = in_principal_axes(spec, arrays, data, x.cpu(), ranks)
    spec, arrays = cond.finish(spec, arrays)
    facts = {"method": cond.title, "seed": seed, "steps": run.step}
    if stopped != "steps":
        facts |= {"stopped": stopped, "best_step": run.best_step}
    if ranks.world > 1:  # on which the last bits of the parameters depend
        facts["processes"] = ranks.world
    model = freeze(
        Model(
            spec, arrays, data.system, data.dims,
            data.normalisation, meta.encode_steps, meta.encode_points, {},
            {**facts, **data.attrs}, meta.encode or meta.inner, feature_dim=data.feature_dim,
            tile=data.domain.shape if data.tiled else None,
            nodes=np.stack(data.axes).astype(np.float32) if data.system["system"] == "spectral" else None,
        )
    )  # fmt: skip
    ranks.once(lambda: _write(Path(out), model, run.history))
    return {"valid_psnr_db": reached, "model_bytes": len(model.data), "sha256": model.sha256,
            "parameters": sum(v.size for v in model.params.values()), "restarts": run.restarts,
            "steps": run.step, "best_step": run.best_step, "stopped": stopped,
            "seconds": run.history[-1]["seconds"]}  # fmt: skip


def spec_of(inr: Inr, d_in: int, d_out: int) -> InrSpec:
    """The shape of the network in training, with `d_in` inputs and `d_out` features.

    Raises ConfigError for a shape that the conditioning cannot have.
    """
    spec = InrSpec(
        d_in, d_out, inr.width, inr.depth, inr.omega_0, inr.latent, inr.conditioning, inr.rank, inr.mapping_width,
        inr.mapping_blocks, inr.gating,
    )  # fmt: skip
    return conditioning(inr.conditioning).training(spec)


@dataclass
class _State:
    """Everything that training changes, and hence what a checkpoint contains.

    Attributes
    ----------
    parameters, optimiser, rng
        The current parameters, Adam's state, and the source of draws.
    step : int
        Steps done.
    best, best_psnr, best_step
        Parameters of the best validation, its held-out PSNR in dB, and its step.
    grown : float
        Held-out PSNR in dB when it last grew by `GROWTH_DB`.
    idle : int
        Validations since then.
    factor : float
        Factor on the outer learning rates, halved at each restart.
    since, restarted
        Position in the schedule, and step, of the last restart; the learning rates warm up again from there.
    restarts : int
        Number of restarts.
    history : list of dict
        Rows of the learning curve.
    """

    parameters: dict[str, torch.Tensor]
    optimiser: torch.optim.Adam
    rng: np.random.Generator
    step: int = 0
    best: dict[str, torch.Tensor] | None = None
    best_psnr: float = -math.inf
    best_step: int = 0
    grown: float = -math.inf
    idle: int = 0
    factor: float = 1.0
    since: float = 0
    restarted: int = 0
    restarts: int = 0
    history: list[dict[str, float]] = field(default_factory=list)

    @classmethod
    def fresh(cls, spec: InrSpec, meta: Meta, seed: int, variables: int, device: torch.device) -> _State:
        """The state before the first step."""
        parameters = _initial(spec, meta, seed, variables, device)
        return cls(parameters, _optimiser(parameters, meta), np.random.default_rng(seed))

    @classmethod
    def resumed(cls, saved: dict[str, Any] | None, meta: Meta, device: torch.device) -> _State | None:
        """The state of a checkpoint; None without one."""
        if saved is None:
            return None
        saved = dict(saved)
        tensors = {k: v.to(device) for k, v in saved.pop("parameters").items()}
        parameters = {k: v.requires_grad_(_learned(meta, k)) for k, v in tensors.items()}
        if saved["best"] is not None:
            saved["best"] = {k: v.to(device) for k, v in saved["best"].items()}
        optimiser, rng = _optimiser(parameters, meta), np.random.default_rng()
        optimiser.load_state_dict(saved.pop("optimiser"))
        rng.bit_generator.state = saved.pop("rng")
        return cls(parameters, optimiser, rng, **saved)

    def saved(self) -> dict[str, Any]:
        """The state as tensors, numbers and containers, for `save_checkpoint`."""
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        rest["parameters"] = {k: v.detach() for k, v in self.parameters.items()}
        return {**rest, "optimiser": self.optimiser.state_dict(), "rng": self.rng.bit_generator.state}

    def stopped(self, meta: Meta, pace: Pace) -> str | None:
        """Why training is over, or None."""
        if self.step >= meta.steps:
            return "steps"
        if meta.patience and self.idle >= meta.patience:
            return "patience"
        return "time" if self.history and pace.out_of_time else None

    def judge(self, spec: InrSpec, meta: Meta, seed: int, position: float, valid: float, dead: bool) -> None:
        """Keep the best parameters; after a collapse, restart from them, or afresh, with lower learning rates.

        Collapses are normal in second-order meta-learning of INRs. Two kinds can be told from noise: the held-out PSNR
        `valid` is far below the best, or the inner loop is `dead`.
        """
        collapsed = not math.isfinite(valid) or valid < self.best_psnr - COLLAPSE_DB
        if not dead and valid > self.best_psnr:
            self.best, self.best_psnr = {k: v.detach().clone() for k, v in self.parameters.items()}, valid
            self.best_step = self.step
        if self.best_psnr >= self.grown + GROWTH_DB:
            self.grown, self.idle = self.best_psnr, 0
        elif self.best is not None:
            self.idle += 1
        if not (dead or collapsed) or self.restarts >= MAX_RESTARTS or position >= meta.steps:
            return
        # Early validations, and those within a short budget, come before an inner loop can work.
        if self.step - self.restarted < meta.validate_every:
            return
        self.idle, self.restarted = 0, self.step
        self.restarts, self.factor, self.since = self.restarts + 1, self.factor * 0.5, position
        if self.best is None:
            # The inner loop has never worked, so its own steps are too long as well.
            slower = tuple(self.factor * rate for rate in meta.inner_rates)
            gentler_meta = meta.model_copy(update={"inner_rate": slower})
            phi_0 = self.parameters["phi_0"]
            self.parameters = _initial(spec, gentler_meta, seed + self.restarts, len(phi_0), phi_0.device)
        else:
            self.parameters = {k: v.clone().requires_grad_(_learned(meta, k)) for k, v in self.best.items()}
        self.optimiser = _optimiser(self.parameters, meta)


def _early(meta: Meta) -> tuple[int, ...]:
    """Steps of early validations, so that training has something to go back to after an early collapse."""
    return (meta.validate_every // 8, meta.validate_every // 2) if meta.validate_every >= 100 else ()


def _dead(before: float, after: float, flat: float) -> bool:
    """Whether the inner loop does not work.

    That is where it gains next to nothing over phi_0, or only little although replacing each signal by its mean would
    be better.

    Parameters
    ----------
    before, after : float
        Held-out PSNR in dB at phi_0, and after the inner loop.
    flat : float
        PSNR in dB of signals replaced by their means.
    """
    gain = after - before
    # At 60 dB without adaptation hardly anything remains to be gained.
    return before < 60.0 and (gain < ALIVE_DB or (gain < 6 * ALIVE_DB and after < flat))


def _judged(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor], held_out_batch: Batch, meta: Meta
) -> tuple[float, float, float]:  # fmt: skip
    """Held-out PSNR in dB, three times.

    Returns
    -------
    before : float
        At phi_0.
    valid : float
        After the inner loop, with the network as it would be if training ended now.
    relaxed : float
        After the inner loop, with the network in training; it differs where a conditioning drops modulations in the
        end.
    """
    frozen = {k: v.detach() for k, v in parameters.items()}
    finished_spec, finished = _finished(spec, parameters)
    valid = validate(finished_spec, finished, held_out_batch, meta.inner_steps, meta.inner)
    if finished_spec == spec:
        return validate(finished_spec, finished, held_out_batch, 0, meta.inner), valid, valid
    relaxed = conditioning(spec.conditioning).relax(spec, frozen, None)[0]
    before = validate(spec, relaxed, held_out_batch, 0, meta.inner)
    return before, valid, validate(spec, relaxed, held_out_batch, meta.inner_steps, meta.inner)


def _initial(
    spec: InrSpec, meta: Meta, seed: int, variables: int, device: torch.device
) -> dict[str, torch.Tensor]:  # fmt: skip
    """Parameters before the first step."""
    arrays = initialise(spec, seed, variables)
    low, high = meta.inner_rates
    arrays["alpha"] = np.random.default_rng(seed).uniform(low, high, spec.latent).astype(np.float32)
    if meta.phi_0 == "zero":
        arrays["phi_0"] = np.zeros_like(arrays["phi_0"])
    return {k: torch.tensor(v, device=device, requires_grad=_learned(meta, k)) for k, v in arrays.items()}


def _learned(meta: Meta, name: str) -> bool:
    """Whether the outer loop learns the parameter called `name`."""
    return {"alpha": inner_loop(meta.inner).learns_rates, "phi_0": meta.phi_0 == "learned"}.get(name, True)


def meta_step(
    spec: InrSpec, parameters: Params, batch: Batch, inner_steps: int, loop: str
) -> torch.Tensor:  # fmt: skip
    """The outer loss: the mean over the batch of the loss after the inner loop, differentiable in all parameters."""
    inner = inner_loop(loop)
    # An inner loop of another package may be a plain function.
    outer_loss = inner.outer_loss if isinstance(inner, InnerLoop) else partial(InnerLoop.outer_loss, inner)
    return outer_loss(spec, parameters, batch, inner_steps)


def _descended(
    spec: InrSpec, relaxed: Params, penalty: Any, batch: Batch, share: float, meta: Meta, *, last: bool
) -> torch.Tensor:  # fmt: skip
    """Add the gradients of a part of a step's batch, which is such a `share` of it, and return its part of the loss.

    Parts share what relaxation computed, which is kept for all but the `last` one.
    """
    loss = meta_step(spec, relaxed, batch, meta.inner_steps, meta.inner)
    ((loss + penalty) * share).backward(retain_graph=not last)
    return loss.detach() * share


def psnr(spec: InrSpec, parameters: Mapping[str, torch.Tensor], batch: Batch, phi: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of each signal ``[B]`` for its latents phi; the peak is 1, the range of the training data."""
    with torch.no_grad():
        return -10.0 * torch.log10(signal_loss(spec, parameters, phi, batch).clamp_min(1e-12))


def _finished(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor]
) -> tuple[InrSpec, dict[str, torch.Tensor]]:  # fmt: skip
    """Shape and parameters as they would be if training ended now."""
    finished_spec, arrays = conditioning(spec.conditioning).finish(spec, _arrays(parameters))
    device = parameters["phi_0"].device
    return finished_spec, {k: torch.from_numpy(np.asarray(v)).to(device) for k, v in arrays.items()}


def _arrays(parameters: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """Parameters as NumPy arrays."""
    return {k: v.detach().cpu().numpy() for k, v in parameters.items()}


def device_of(name: str) -> torch.device:
    """The torch device of that name; raises ConfigError where it is not available."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device: cuda, but torch sees no such GPU here; set device: cpu, or install a build with CUDA"
        )
    return torch.device(name)


def validate(spec: InrSpec, parameters: Mapping[str, torch.Tensor], batch: Batch, steps: int, loop: str) -> float:
    """Mean PSNR in dB of a batch after `steps` of the inner loop called `loop`."""
    phi = adapt(spec, parameters, batch, steps, loop=loop, create_graph=False)
    return float(psnr(spec, parameters, batch, phi).mean())


def held_out(data: Signals, x: torch.Tensor) -> Batch:
    """At most 32 held-out signals at 2,048 fixed points, so that validation stays cheap on large grids."""
    split = "valid" if len(data.splits["valid"]) else "train"
    chosen = np.unique(np.linspace(0, len(data.splits[split]) - 1, 32).astype(int))
    return batch_of(data, split, x, chosen, fixed_known_points(data, split, 2048))


def in_principal_axes(
    spec: InrSpec, arrays: dict[str, np.ndarray], data: Signals, x: torch.Tensor, ranks: Ranks = ALONE
) -> dict[str, np.ndarray]:
    """Apply `principal_axes`, with all training signals, at a fixed part of the points where there are many.

    Several processes solve for the latents of a part of the signals each, and add up what the axes depend on.
    """
    where, variable = fixed_known_points(data, "train", 8192), data.variable_index("train")
    parameters = {k: torch.from_numpy(v) for k, v in arrays.items()}
    starts = range(0, len(variable), 16)[ranks.share(-(-len(variable) // 16))]

    def solved() -> Iterator[np.ndarray]:
        for i in starts:
            batch = batch_of(data, "train", x, slice(i, i + 16), where)
            data.splits["train"].read_ahead(np.arange(i + 16, min(i + 32, len(variable))))
            yield solve(spec, parameters, batch).numpy()

    if ranks.world == 1:
        return principal_axes(spec, arrays, x[where].numpy(), np.concatenate(list(solved())), variable)
    moments = Moments.none(*arrays["phi_0"].shape)
    for i, phi in zip(starts, solved(), strict=True):
        moments.add(phi - arrays["phi_0"][variable[i : i + 16]], variable[i : i + 16])
    ranks.sum_([torch.from_numpy(v) for v in (moments.count, moments.first, moments.second)])
    return principal_axes_by_moments(spec, arrays, x[where].numpy(), moments)


def _constant_psnr(batch: Batch) -> float:
    """Mean PSNR in dB of signals replaced by their own means, which even a dead network reaches."""
    weight = torch.ones_like(batch.y[..., 0]) if batch.weight is None else batch.weight
    mean = (weight[..., None] * batch.y).mean(1, keepdim=True)
    mse = (weight[..., None] * (batch.y - mean).square()).mean((1, 2))
    return float((-10.0 * torch.log10(mse.clamp_min(1e-12))).mean())


def schedule(position: float, steps: int, warmup: int, since: float = 0, decay: str = "cosine") -> float:
    """Factor on the outer learning rates.

    Parameters
    ----------
    position : float
        Steps done or, with a time budget, what stands for them (`vcinr.meta.pace.Pace.position`).
    steps : int
        Position at which the decay reaches zero.
    warmup : int
        Length of the linear warm-up.
    since : float
        Position at which the warm-up begins.
    decay : str
        ``cosine`` (Loshchilov and Hutter 2017, equation 5, without restarts) or ``none``.

    Returns
    -------
    float
        From 0 to 1.
    """
    falling = 0.5 * (1.0 + math.cos(math.pi * position / steps)) if decay == "cosine" else 1.0
    return min(1.0, (position - since + 1) / max(1, warmup)) * falling


def _rates(meta: Meta) -> tuple[float, float]:
    # A step of Adam is about as long as its rate, whatever the gradient: the rate must fit the scale of the step sizes.
    """Learning rates of the parameters and of the inner step sizes."""
    return meta.outer_rate, 0.3 * meta.outer_rate * max(meta.inner_rates)


def _optimiser(parameters: Mapping[str, torch.Tensor], meta: Meta) -> torch.optim.Adam:
    """Adam, with a learning rate of its own for the inner step sizes."""
    main, alpha = _rates(meta)
    rest = [v for k, v in parameters.items() if k != "alpha"]
    return torch.optim.Adam([{"params": rest, "lr": main}, {"params": [parameters["alpha"]], "lr": alpha}])


def _fingerprint(data: Signals, inr: Inr, meta: Meta, seed: int) -> str:
    """A digest of all that determines a run: data, parameters, seed and code."""
    settings = [inr.model_dump(), meta.model_dump(), seed, data.system, dict(data.normalisation)]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(data.inputs.tobytes())
    for split in (data.splits["train"], data.splits["valid"]):
        digest.update(json.dumps(split.variable).encode())
        for array in (split.features, split.mask):
            if array is not None:  # of an array that stays in its store, what ingestion has noted of it
                digest.update((array.sha256 if isinstance(array, Stored) else sha256_of(array)).encode())
    for room in ("inr", "meta"):  # a checkpoint of other code is not resumed
        for path in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(out: Path, model: Model, history: list[dict[str, float]]) -> None:
    """Write the model and its learning curve."""
    with written_aside(out) as aside:
        save_model(model, aside / "model.vcinr")
        write_history(aside / "history.csv", history)


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write the rows of a learning curve as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
