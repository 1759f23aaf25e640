"""A bulk run from inputs to archives: plan, scan, batches on an engine, commit; and again, going on from what is there."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from vcinr.bulk import done
from vcinr.bulk.batch import RECEIPTS, Receipt, run_batch
from vcinr.bulk.commit import PLAN, commit_item
from vcinr.bulk.engines import Engine, run
from vcinr.bulk.place import Place
from vcinr.bulk.plan import BATCH_SECONDS, Batch, BulkPlan, Item, plan
from vcinr.bulk.request import Request
from vcinr.errors import InputError, VcinrError, one_line
from vcinr.progress import Clock, Progress, Watch, silent


@dataclass
class Outcome:
    """What a run has come to.

    Parameters
    ----------
    archives
        What :func:`vcinr.archive.read.info` says of each archive, by its path or URL; ``skipped`` is True where it was
        there already.
    failed
        Why an input has no archive, by its name.
    place
        The staging place, where something is left in it; None where all is done.
    """

    archives: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    place: str | None = None

    def check(self, inputs: int) -> None:
        """Raise InputError that names what failed, if anything did, of so many inputs."""
        if not self.failed:
            return
        lines = "; ".join(text if text.startswith(name) else f"{name}: {text}" for name, text in self.failed.items())
        if inputs == 1:
            raise InputError(lines)
        raise InputError(f"{len(self.failed)} of {inputs} inputs failed: {lines}")


def compress(
    inputs: Iterable[str] | str, output: str, request: Request, engine: Engine, *, overwrite: bool = False,
    memory: int | None = None, batch_seconds: float = BATCH_SECONDS, stall_s: float = 600.0, watch: Watch = silent,
) -> Outcome:  # fmt: skip
    """Compress inputs to archives.

    Parameters
    ----------
    inputs, output, request, overwrite, memory, batch_seconds
        As in :func:`vcinr.bulk.plan.plan`.
    engine
        Who runs the batches.
    stall_s
        Seconds after which a run is given up where no batch was finished.
    watch
        Is told of each batch.

    Returns
    -------
    Outcome
        An input that fails does not keep the others from their archives.

    Raises
    ------
    InputError, ModelError
        As `plan`.
    EngineLost
        Where all workers are gone. What is finished is kept, and the same call goes on from there.

    Notes
    -----
    The bytes of the archives depend neither on the engine nor on how the work was cut, interrupted or shared.
    """
    made = plan(inputs, output, request, overwrite=overwrite, memory=memory, batch_seconds=batch_seconds)
    return drive(made, engine, stall_s=stall_s, watch=watch)


def drive(made: BulkPlan, engine: Engine, *, stall_s: float = 600.0, watch: Watch = silent) -> Outcome:
    """Carry out a plan; arguments and errors as of `compress`."""
    work = _Run(made, engine, stall_s, watch)
    work.look_around()
    work.scan()
    work.encode()
    return work.finish()


class _Run:
    """A run of a plan: what it knows at each moment."""

    def __init__(self, made: BulkPlan, engine: Engine, stall_s: float, watch: Watch) -> None:
        self.made, self.engine, self.stall_s, self.watch = made, engine, stall_s, watch
        self.staging = Place(made.place)
        self.outcome = Outcome(failed=dict(made.failed))
        self.receipts: set[str] = set()

    def look_around(self) -> None:
        """Leave out what is done, and note the plan for `vcinr commit` and for who looks."""
        found = done.keys(self.staging)
        for item in self.made.items:
            if item.key in found and (facts := done.read(self.staging, item)) is not None:
                self.outcome.archives[item.target] = facts
        self._drop(self.outcome.archives)
        there = [self.made.check(item) for item in self.made.items if item.arrays is not None and _occupied(item)]
        for batch, receipt in self._run(there, "check"):
            if isinstance(receipt, Receipt):
                for target, facts in receipt.archives.items():
                    self.outcome.archives[target] = dict(facts)
                    done.write(self.staging, batch.items[0], dict(facts))
        self._drop(self.outcome.archives)
        if self.made.items:
            self.staging.put(PLAN, json.dumps(self.made.as_node()).encode())
        self.receipts = {name.removesuffix(".json") for name in self.staging.sizes(RECEIPTS)}

    def scan(self) -> None:
        """Find the least and greatest values that bounds depend on."""
        waiting = [item for item in self.made.items if not item.ready]
        if not waiting:
            return
        found: dict[str, dict[str, tuple[float, float]]] = {item.key: {} for item in waiting}
        for batch, receipt in self._run(self.made.scans(), "scan"):
            if isinstance(receipt, Receipt):
                limits = found[batch.items[0].key]
                for name, ends in receipt.limits.items():
                    if ends is not None:
                        low, high = limits.get(name, ends)
                        limits[name] = (min(low, ends[0]), max(high, ends[1]))
        failed = self.outcome.failed
        for item in waiting:
            found[item.key] = {name: found[item.key].get(name, (0.0, 0.0)) for name in item.scan}
        self.made = self.made.without(item.key for item in waiting if item.source.name in failed).with_limits(found)
        failed |= self.made.failed
        if self.made.items:
            self.staging.put(PLAN, json.dumps(self.made.as_node()).encode())

    def encode(self) -> None:
        """Do the batches, and commit each archive when all of its batches are done."""
        items = {item.key: item for item in self.made.items if item.arrays is not None}
        left = {key: {b.id for b in self.made.of_item(item)} - self.receipts for key, item in items.items()}
        for key in [key for key, batches in left.items() if not batches]:
            self._commit(items[key])
        todo = [b for b in self.made.encodes() if b.stage == "whole" or b.id in left[b.items[0].key]]
        alone: list[Batch] = []
        for batch, receipt in self._run(todo, "compress", blame=lambda batch: len(batch.items) == 1):
            if not isinstance(receipt, Receipt):
                if len(batch.items) > 1:
                    alone += [self.made.of_whole([item]) for item in batch.items]
                continue
            self._note(receipt)
            if batch.stage == "encode":
                key = batch.items[0].key
                left[key].discard(batch.id)
                if not left[key]:
                    self._commit(items[key])
        for _, receipt in self._run(alone, "compress"):
            if isinstance(receipt, Receipt):
                self._note(receipt)

    def finish(self) -> Outcome:
        """Remove the staging place where nothing is left to do."""
        if not self.outcome.failed:
            self.staging.remove()
        else:
            self.outcome.place = self.made.place
        return self.outcome

    def _note(self, receipt: Receipt) -> None:
        self.outcome.archives |= {target: dict(facts) for target, facts in receipt.archives.items()}
        self.outcome.failed |= receipt.failed

    def _commit(self, item: Item) -> None:
        if item.source.name in self.outcome.failed:
            return
        try:
            self.outcome.archives[item.target] = commit_item(self.made, item)
        except VcinrError as error:
            self.outcome.failed[item.source.name] = str(error)

    def _drop(self, targets: Iterable[str]) -> None:
        gone = set(targets)
        self.made = self.made.without(
            i.key for i in self.made.items if i.target in gone or i.source.name in self.outcome.failed
        )

    def _run(
        self, batches: Iterable[Batch], stage: str, blame: Any = lambda batch: True
    ) -> Iterator[tuple[Batch, Receipt | Exception]]:  # fmt: skip
        """Run batches on the engine; what fails is noted by its input, if it is to blame."""
        todo = list(batches)
        if not todo:
            return
        total = sum(batch.seconds for batch in todo) or 1.0
        clock, spent, size, stored = Clock(1), 0.0, 0, 0
        for number, (batch, result) in enumerate(run(self.engine, run_batch, todo, stall_s=self.stall_s), 1):
            if isinstance(result, Receipt):
                stored += sum(int(facts["bytes"]) for facts in result.chunks.values())
                stored += sum(int(facts["total_bytes"]) for facts in result.archives.values())
            elif blame(batch):
                self.outcome.failed[batch.items[0].source.name] = one_line(result)
            spent, size = spent + batch.seconds, size + batch.bytes
            figures = {"MB": size / 1e6, "MB/s": size / 1e6 / max(clock.spent, 1e-9)}
            if stage == "compress" and stored:
                figures["ratio"] = size / stored
            who = f"{result.host}:{result.pid}" if isinstance(result, Receipt) else ""
            left = clock.spent / spent * (total - spent) if spent else None
            self.watch(Progress(stage, number, len(todo), figures, left, who))
            yield batch, result


def _occupied(item: Item) -> bool:
    from vcinr.archive.store import occupant

    return occupant(item.target) != "nothing"
