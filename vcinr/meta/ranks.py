"""Processes that train one network together: whose signals are whose, sums over all, and what the first one decides.

Every process draws the same signals from the same generator and computes its share of them. Gradients and loss are
added up over the processes in one message, so that all of them take the same step. A process that nobody started as one
of several is alone, and nothing here costs it anything.

Gradients are not added up by torch's DistributedDataParallel, whose sums of second-order gradients can be wrong without
a word (https://github.com/pytorch/pytorch/issues/63929).
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from vcinr.errors import ConfigError

_PATIENCE = timedelta(days=1)  # for the longest work of the first process alone; torchrun notices a dead one at once
_MEETINGS = itertools.count()
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ranks:
    """One of the processes that train together.

    Parameters
    ----------
    rank : int
        Its number, from 0.
    world : int
        How many they are.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether it is the process that decides, writes and reports."""
        return self.rank == 0

    def share(self, count: int) -> slice:
        """Which of `count` signals in a row this process computes; shares differ by one signal at most."""
        return slice(self.rank * count // self.world, (self.rank + 1) * count // self.world)

    def parts(self, count: int, most: int | None = None) -> list[slice]:
        """The share of a batch of `count` signals, in parts that are computed one after another.

        Parameters
        ----------
        count : int
            Number of signals in the batch of all processes.
        most : int, optional
            Largest number of signals in a part. Default: the share is one part.

        Raises
        ------
        ConfigError
            Where there are more processes than signals.
        """
        if count < self.world:
            raise ConfigError(
                f"a batch of {count} signals cannot be shared by {self.world} processes; use fewer processes, or a "
                "larger batch"
            )
        own = self.share(count)
        step = most or own.stop - own.start
        return [slice(i, min(i + step, own.stop)) for i in range(own.start, own.stop, step)]

    def sum_(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors of one type and device by their sums over all processes, in one message."""
        if self.world == 1:
            return
        tensors = list(tensors)
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        distributed.all_reduce(flat)
        for tensor, total in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(total.view_as(tensor))

    def sum_gradients(self, parameters: Iterable[torch.Tensor], *figures: torch.Tensor) -> None:
        """Replace the gradients of parameters, and some figures, by their sums over all processes.

        A missing gradient counts as zeros, because every process has to send as many numbers.
        """
        if self.world == 1:
            return
        learned = [parameter for parameter in parameters if parameter.requires_grad]
        for parameter in learned:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.sum_([*(parameter.grad for parameter in learned if parameter.grad is not None), *figures])

    def once(self, make: Callable[[], _T]) -> _T:
        """What `make` returns where the first process calls it; the others wait for it and get the same.

        What it raises is raised in all of them.
        """
        if self.world == 1:
            return make()
        told: list[Any] = [None, None]
        if self.first:
            try:
                told[0] = make()
            except Exception as error:
                told[1] = error
        distributed.broadcast_object_list(told)
        if told[1] is not None:
            raise told[1]
        return told[0]

    def same(self, value: object) -> bool:
        """Whether all processes have equal values."""
        if self.world == 1:
            return True
        values: list[Any] = [None] * self.world
        distributed.all_gather_object(values, value)
        return all(other == values[0] for other in values)


ALONE = Ranks()
"""The process of ordinary training."""


def of_several() -> bool:
    """Whether torchrun started this process as one of several."""
    return distributed.is_available() and distributed.is_torchelastic_launched()


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started; a process that it did not start does."""
    return not of_several() or os.environ.get("RANK") == "0"


def _meeting() -> str:
    """A name for this meeting of the processes, under which none has left its address before.

    The store in which processes find each other is torchrun's, and outlives them: those that are started again would
    find the addresses of the dead, and wait for them.
    """
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return f"vcinr/{os.environ['TORCHELASTIC_RESTART_COUNT'] if kept else 0}/{next(_MEETINGS)}"


@contextmanager
def joined(device: str) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started; a process that it did not start is `ALONE`.

    Parameters
    ----------
    device : str
        ``cpu`` or ``cuda``. Every process of a machine has a GPU of its own.

    Raises
    ------
    ConfigError
        Where the machine has fewer GPUs than processes.
    """
    if not of_several():
        yield ALONE
        return
    if device == "cuda":
        own, gpus = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if own >= gpus:
            raise ConfigError(f"device: cuda: process {own} of this machine needs a GPU of its own, and it has {gpus}")
        torch.cuda.set_device(own)
    from torch.distributed.rendezvous import rendezvous

    store, rank, world = next(rendezvous("env://", timeout=_PATIENCE))
    own_store = distributed.PrefixStore(_meeting(), store)  # type: ignore[attr-defined]
    # What the first process decides goes over gloo in any case.
    backend = "gloo" if device == "cpu" else "cpu:gloo,cuda:nccl"
    distributed.init_process_group(backend, store=own_store, rank=rank, world_size=world, timeout=_PATIENCE)
    try:
        yield Ranks(rank, world)
    finally:
        distributed.destroy_process_group()
