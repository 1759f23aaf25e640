"""Outer loop of Algorithm 1: learn theta, phi_0 and the step sizes by backpropagation through the inner loop."""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

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
from vcinr.meta.principal import principal_axes
from vcinr.places import written_aside
from vcinr.progress import Progress, Watch, silent
from vcinr.quality import psnr_of
from vcinr.signals import Signals, coordinates, fixed_known_points, read_signals

HISTORY = ("step", "seconds", "train_loss", "train_psnr_db", "valid_psnr_db", "rate_factor")
COLLAPSE_DB = 3.0
ALIVE_DB = 1.0
MAX_RESTARTS = 4
GROWTH_DB = 0.01
"""Held-out PSNR that has grown by less has not grown."""


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
        Of initialisation and draws.
    threads : int
        Of torch.
    out : str or Path
        Folder to write.
    checkpoint : str or Path
        Written at every validation. A run that finds one of the same data, parameters, seed and code goes on from it;
        any other is ignored.
    device : str
        ``cpu`` or ``cuda``.
    seconds : float, optional
        Time budget. Training ends when it is spent, runs before an interruption included, and the schedule of learning
        rates fits into it. Without one the result is deterministic.
    watch : callable
        Is told of progress.

    Returns
    -------
    dict
        Held-out PSNR, the model's size and digest, steps done, the step of the best parameters, and why training
        stopped: ``steps`` (all done), ``patience`` (held-out PSNR no longer grew) or ``time``.

    Raises
    ------
    InputError
        Where there is no signal to learn from.
    ConfigError
        For a device, or a network, that cannot be had.

    Notes
    -----
    Algorithm 1 of Schwarz et al. 2023. The parameters of the best validation are kept, and training goes back to them
    at a lower rate when it collapses.
    """
    torch.set_num_threads(threads)
    place = device_of(device)
    data = signals if isinstance(signals, Signals) else read_signals(signals)
    train = data.splits["train"]
    if len(train) == 0:
        raise InputError("the training split holds no signal; widen the source's train selection")
    spec = spec_of(inr, coordinates.dimension(data.system), train.features.shape[-1])
    fingerprint = _fingerprint(data, inr, meta, seed)
    run = _State.resumed(load_checkpoint(checkpoint, fingerprint), meta, place)
    if run is None:
        run = _State.fresh(spec, meta, seed, len(data.normalisation), place)
    else:
        watch(Progress("meta-train", run.step, meta.steps, {"resumed_valid_psnr_db": run.best_psnr}))

    cond = conditioning(spec.conditioning)
    x, known = torch.from_numpy(data.inputs).to(place), data.known_points("train")
    held = held_out(data, x)
    flat = _constant_psnr(held)
    pace = Pace(meta.steps, seconds, done=run.step, spent=run.history[-1]["seconds"] if run.history else 0.0)
    size = min(meta.batch, len(train))
    while (stopped := run.stopped(meta, pace)) is None:
        position = pace.position(run.step)
        for group, base in zip(run.optimiser.param_groups, _rates(meta), strict=True):
            group["lr"] = run.factor * base * schedule(position, meta.steps, meta.warmup, run.since, meta.decay)
        chosen = np.sort(run.rng.choice(len(train), size, replace=False))
        batch = batch_of(data, "train", x, chosen, drawn(run.rng, known, meta.points))
        relaxed, penalty = cond.relax(spec, run.parameters, run.rng)
        loss = meta_step(spec, relaxed, batch, meta.inner_steps, meta.inner)
        run.optimiser.zero_grad()
        (loss + penalty).backward()
        torch.nn.utils.clip_grad_norm_(list(run.parameters.values()), meta.clip)
        run.optimiser.step()
        with torch.no_grad():
            run.parameters["alpha"].clamp_(0.0, meta.inner_rate_max)  # a negative step size climbs the loss
        run.step += 1
        if pace.look_due() or run.step % meta.validate_every == 0 or run.step in (*_early(meta), meta.steps):
            before, valid, whole = _judged(spec, run.parameters, held, meta)
            mse = max(loss.item(), 1e-12)
            row = (run.step, round(pace.spent, 2), mse, float(psnr_of(mse)), valid, run.factor)
            run.history.append(dict(zip(HISTORY, row, strict=True)))
            shown = dict(zip(HISTORY[2:5], row[2:5], strict=True))
            watch(Progress("meta-train", run.step, meta.steps, shown, pace.left(run.step)))
            run.judge(spec, meta, seed, pace.position(run.step), valid, _dead(before, whole, flat))
            save_checkpoint(checkpoint, fingerprint, run.saved())
    if not run.history:  # a network that is not trained, but fitted to each signal when encoding
        run.best_psnr = validate(*_finished(spec, run.parameters), held, meta.encode_steps, meta.encode or meta.inner)
        run.history.append(dict(zip(HISTORY, (0, 0.0, math.nan, math.nan, run.best_psnr, 1.0), strict=True)))
    reached = run.best_psnr if run.best is not None else run.history[-1]["valid_psnr_db"]
    if stopped != "steps":
        last = {"valid_psnr_db": reached, "best_step": float(run.best_step)}
        watch(Progress(f"meta-train: stopped by {stopped}", run.step, run.step, last))
    arrays = _arrays(run.best or run.parameters)
    if cond.linear:
        arrays = in_principal_axes(spec, arrays, data, x.cpu())
    spec, arrays = cond.finish(spec, arrays)
    facts = {"method": cond.title, "seed": seed, "steps": run.step}
    if stopped != "steps":
        facts |= {"stopped": stopped, "best_step": run.best_step}
    model = freeze(
        Model(
            spec, arrays, data.system, data.dims,
            data.normalisation, meta.encode_steps, meta.encode_points, {},
            {**facts, **data.attrs}, meta.encode or meta.inner, feature_dim=data.feature_dim,
        )
    )  # fmt: skip
    _write(Path(out), model, run.history)
    return {"valid_psnr_db": reached, "model_bytes": len(model.data), "sha256": model.sha256,
            "parameters": sum(v.size for v in model.params.values()), "restarts": run.restarts,
            "steps": run.step, "best_step": run.best_step, "stopped": stopped,
            "seconds": run.history[-1]["seconds"]}  # fmt: skip


def spec_of(inr: Inr, d_in: int, d_out: int) -> InrSpec:
    """The shape that is trained; raises ConfigError for one that the conditioning cannot have."""
    spec = InrSpec(
        d_in, d_out, inr.width, inr.depth, inr.omega_0, inr.latent, inr.conditioning, inr.rank, inr.mapping_width,
        inr.mapping_blocks, inr.gating,
    )  # fmt: skip
    return conditioning(inr.conditioning).training(spec)


@dataclass
class _State:
    """Everything that training changes, hence what a checkpoint holds.

    factor: of the outer rates, lowered after each collapse. since, restarted: where in the schedule, and at which step,
    the last collapse was: from there the rates warm up again. best_step: of the parameters `best`. grown: held-out PSNR
    the last time that it had grown; idle: validations since then.
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
        parameters = _initial(spec, meta, seed, variables, device)
        return cls(parameters, _optimiser(parameters, meta), np.random.default_rng(seed))

    @classmethod
    def resumed(cls, saved: dict[str, Any] | None, meta: Meta, device: torch.device) -> _State | None:
        if saved is None:
            return None
        saved = dict(saved)
        there = {k: v.to(device) for k, v in saved.pop("parameters").items()}
        parameters = {k: v.requires_grad_(_learned(meta, k)) for k, v in there.items()}
        if saved["best"] is not None:
            saved["best"] = {k: v.to(device) for k, v in saved["best"].items()}
        optimiser, rng = _optimiser(parameters, meta), np.random.default_rng()
        optimiser.load_state_dict(saved.pop("optimiser"))
        rng.bit_generator.state = saved.pop("rng")
        return cls(parameters, optimiser, rng, **saved)

    def saved(self) -> dict[str, Any]:
        """Tensors, numbers and containers, for `save_checkpoint`."""
        rest = {f.name: getattr(self, f.name) for f in fields(self)}
        rest["parameters"] = {k: v.detach() for k, v in self.parameters.items()}
        return {**rest, "optimiser": self.optimiser.state_dict(), "rng": self.rng.bit_generator.state}

    def stopped(self, meta: Meta, pace: Pace) -> str | None:
        """Why no further step is to be taken, or None."""
        if self.step >= meta.steps:
            return "steps"
        if meta.patience and self.idle >= meta.patience:
            return "patience"
        return "time" if self.history and pace.out_of_time else None

    def judge(self, spec: InrSpec, meta: Meta, seed: int, position: float, valid: float, dead: bool) -> None:
        """Keep the best parameters; after a collapse go back to them, or start afresh, at a lower rate.

        Collapses are normal in second-order meta-learning of INRs. Two kinds are told apart from noise: the
        held-out PSNR `valid` fell far below the best; or the inner loop is `dead`.
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
        # Early looks, and those within a short budget, come before an inner loop can be alive.
        if self.step - self.restarted < meta.validate_every:
            return
        self.idle, self.restarted = 0, self.step
        self.restarts, self.factor, self.since = self.restarts + 1, self.factor * 0.5, position
        if self.best is None:
            # Never alive yet: the inner steps overshoot too.
            slower = tuple(self.factor * rate for rate in meta.inner_rates)
            gentler = meta.model_copy(update={"inner_rate": slower})
            phi_0 = self.parameters["phi_0"]
            self.parameters = _initial(spec, gentler, seed + self.restarts, len(phi_0), phi_0.device)
        else:
            self.parameters = {k: v.clone().requires_grad_(_learned(meta, k)) for k, v in self.best.items()}
        self.optimiser = _optimiser(self.parameters, meta)


def _early(meta: Meta) -> tuple[int, ...]:
    """Steps of validations before the first regular one, so that an early collapse has something to go back to."""
    return (meta.validate_every // 8, meta.validate_every // 2) if meta.validate_every >= 100 else ()


def _dead(before: float, after: float, flat: float) -> bool:
    """Whether an inner loop gains next to nothing over phi_0, or little while each signal's own mean would do better.

    Held-out PSNR in dB: at phi_0, after the loop, of the means.
    """
    gain = after - before
    return before < 60.0 and (gain < ALIVE_DB or (gain < 6 * ALIVE_DB and after < flat))


def _judged(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor], held: Batch, meta: Meta
) -> tuple[float, float, float]:  # fmt: skip
    """Held-out PSNR in dB at phi_0, after the inner loop of what would be the model, and after that of all there is."""
    frozen = {k: v.detach() for k, v in parameters.items()}
    found, done = _finished(spec, parameters)
    valid = validate(found, done, held, meta.inner_steps, meta.inner)
    if found == spec:
        return validate(found, done, held, 0, meta.inner), valid, valid
    whole = conditioning(spec.conditioning).relax(spec, frozen, None)[0]
    before = validate(spec, whole, held, 0, meta.inner)
    return before, valid, validate(spec, whole, held, meta.inner_steps, meta.inner)


def _initial(
    spec: InrSpec, meta: Meta, seed: int, variables: int, device: torch.device
) -> dict[str, torch.Tensor]:  # fmt: skip
    arrays = initialise(spec, seed, variables)
    low, high = meta.inner_rates
    arrays["alpha"] = np.random.default_rng(seed).uniform(low, high, spec.latent).astype(np.float32)
    if meta.phi_0 == "zero":
        arrays["phi_0"] = np.zeros_like(arrays["phi_0"])
    return {k: torch.tensor(v, device=device, requires_grad=_learned(meta, k)) for k, v in arrays.items()}


def _learned(meta: Meta, name: str) -> bool:
    """Whether the outer loop changes the parameter called `name`."""
    return {"alpha": inner_loop(meta.inner).learns_rates, "phi_0": meta.phi_0 == "learned"}.get(name, True)


def meta_step(
    spec: InrSpec, parameters: Params, batch: Batch, inner_steps: int, loop: str
) -> torch.Tensor:  # fmt: skip
    """The outer loss: mean over the batch of L(phi after the inner loop), differentiable in every parameter."""
    inner = inner_loop(loop)
    # Of another package it may be a plain function.
    own = inner.outer_loss if isinstance(inner, InnerLoop) else partial(InnerLoop.outer_loss, inner)
    return own(spec, parameters, batch, inner_steps)


def psnr(spec: InrSpec, parameters: Mapping[str, torch.Tensor], batch: Batch, phi: torch.Tensor) -> torch.Tensor:
    """PSNR in dB of each signal at its phi (peak 1, the training range), ``[B]``."""
    with torch.no_grad():
        return -10.0 * torch.log10(signal_loss(spec, parameters, phi, batch).clamp_min(1e-12))


def _finished(
    spec: InrSpec, parameters: Mapping[str, torch.Tensor]
) -> tuple[InrSpec, dict[str, torch.Tensor]]:  # fmt: skip
    """Shape and parameters as they would be, were this the end of training."""
    found, arrays = conditioning(spec.conditioning).finish(spec, _arrays(parameters))
    device = parameters["phi_0"].device
    return found, {k: torch.from_numpy(np.asarray(v)).to(device) for k, v in arrays.items()}


def _arrays(parameters: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {k: v.detach().cpu().numpy() for k, v in parameters.items()}


def device_of(name: str) -> torch.device:
    """The device of that name; raises ConfigError where this machine, or this build of torch, has none."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            "device: cuda, but torch sees no such GPU here; set device: cpu, or install a build with CUDA"
        )
    return torch.device(name)


def validate(spec: InrSpec, parameters: Mapping[str, torch.Tensor], batch: Batch, steps: int, loop: str) -> float:
    """Mean PSNR in dB after adaptation."""
    phi = adapt(spec, parameters, batch, steps, loop=loop, create_graph=False)
    return float(psnr(spec, parameters, batch, phi).mean())


def held_out(data: Signals, x: torch.Tensor) -> Batch:
    """At most 32 held-out signals at 2,048 fixed points: validation must not outweigh training on large grids."""
    split = "valid" if len(data.splits["valid"]) else "train"
    chosen = np.unique(np.linspace(0, len(data.splits[split]) - 1, 32).astype(int))
    return batch_of(data, split, x, chosen, fixed_known_points(data, split, 2048))


def in_principal_axes(
    spec: InrSpec, arrays: dict[str, np.ndarray], data: Signals, x: torch.Tensor
) -> dict[str, np.ndarray]:
    """`principal_axes` over all training signals, at a fixed part of the points where there are many."""
    where = fixed_known_points(data, "train", 8192)
    parameters = {k: torch.from_numpy(v) for k, v in arrays.items()}
    found = []
    for i in range(0, len(data.splits["train"]), 16):
        batch = batch_of(data, "train", x, slice(i, i + 16), where)
        found.append(solve(spec, parameters, batch).numpy())
    return principal_axes(spec, arrays, x[where].numpy(), np.concatenate(found), data.variable_index("train"))


def _constant_psnr(batch: Batch) -> float:
    """Mean PSNR in dB of signals replaced by their own mean: what a network that has died still reaches."""
    w = torch.ones_like(batch.y[..., 0]) if batch.weight is None else batch.weight
    mean = (w[..., None] * batch.y).mean(1, keepdim=True)
    mse = (w[..., None] * (batch.y - mean).square()).mean((1, 2))
    return float((-10.0 * torch.log10(mse.clamp_min(1e-12))).mean())


def schedule(position: float, steps: int, warmup: int, since: float = 0, decay: str = "cosine") -> float:
    """Factor on the outer learning rates.

    Parameters
    ----------
    position : float
        Steps done, or what stands for them in a time budget (`vcinr.meta.pace.Pace.position`).
    steps : int
        Where the decay reaches zero.
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
    # Adam moves by about its rate whatever the gradient, so step sizes of hundreds need a rate of their own scale.
    return meta.outer_rate, 0.3 * meta.outer_rate * max(meta.inner_rates)


def _optimiser(parameters: Mapping[str, torch.Tensor], meta: Meta) -> torch.optim.Adam:
    main, alpha = _rates(meta)
    rest = [v for k, v in parameters.items() if k != "alpha"]
    return torch.optim.Adam([{"params": rest, "lr": main}, {"params": [parameters["alpha"]], "lr": alpha}])


def _fingerprint(data: Signals, inr: Inr, meta: Meta, seed: int) -> str:
    known = [inr.model_dump(), meta.model_dump(), seed, data.system, dict(data.normalisation)]
    digest = hashlib.sha256(json.dumps(known).encode())
    digest.update(data.inputs.tobytes())
    for split in (data.splits["train"], data.splits["valid"]):
        digest.update(json.dumps(split.variable).encode())
        for array in (split.features, split.mask):
            if array is not None:
                digest.update(np.ascontiguousarray(array).tobytes())
    for room in ("inr", "meta"):  # a run does not go on from where other code left it
        for path in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _write(out: Path, model: Model, history: list[dict[str, float]]) -> None:
    with written_aside(out) as aside:
        save_model(model, aside / "model.vcinr")
        write_history(aside / "history.csv", history)


def write_history(path: Path, history: list[dict[str, float]]) -> None:
    """Write rows of figures as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)
