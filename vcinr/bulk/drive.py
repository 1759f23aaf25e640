"""A bulk run: plan, scan, batches on an engine, commit. A run that was interrupted goes on from what is there."""

from __future__ import annotations

import errno
import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from vcinr.archive.store import begin, occupant, takes_chunks
from vcinr.bulk import done
from vcinr.bulk.batch import RECEIPTS, Receipt, run_batch
from vcinr.bulk.claims import Claims, of_target
from vcinr.bulk.commit import PLAN, commit_item
from vcinr.bulk.engines import Engine, run
from vcinr.bulk.place import Place, patiently
from vcinr.bulk.plan import BATCH_SECONDS, Batch, BulkPlan, Item, note_models, plan, staging
from vcinr.bulk.request import Request
from vcinr.bulk.source import close_sources, note_joined
from vcinr.errors import InputError, VcinrError, naming, one_line
from vcinr.progress import Clock, Progress, Watch, silent

POLL_S = 1.0
"""Seconds until a run looks again at what another is doing."""


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
    left
        The plan of the archives that are still to be committed; None where there are none.
    """

    archives: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    place: str | None = None
    left: BulkPlan | None = None

    def check(self, inputs: int) -> None:
        """Raise InputError that names what failed, if anything did, of so many inputs."""
        if not self.failed:
            return
        lines = "; ".join(naming(name, text) for name, text in self.failed.items())
        if inputs == 1:
            raise InputError(lines)
        raise InputError(f"{len(self.failed)} of {inputs} inputs failed: {lines}")


def compress(
    inputs: Iterable[str] | str, output: str, request: Request, engine: Engine, *, overwrite: bool = False,
    memory: int | None = None, batch_seconds: float = BATCH_SECONDS, part: tuple[int, int] | None = None,
    stall_s: float = 600.0, watch: Watch = silent,
) -> Outcome:  # fmt: skip
    """Compress inputs to archives.

    Parameters
    ----------
    inputs, output, request, overwrite, memory, batch_seconds
        As in :func:`vcinr.bulk.plan.plan`.
    engine
        Who runs the batches.
    part
        Number of a part, from 0, and how many there are, where several calls share the work: each begins with its own
        share and then takes what nobody has begun. Large inputs become archives by `commit` then.
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
    The bytes of the archives depend neither on the engine nor on how the work was cut, interrupted or shared. Several
    calls for the same archives share the work, and each returns when all is done.
    """
    made = plan(inputs, output, request, overwrite=overwrite, memory=memory, batch_seconds=batch_seconds)
    return drive(made, engine, part=part, stall_s=stall_s, watch=watch)


def drive(
    made: BulkPlan, engine: Engine, *, part: tuple[int, int] | None = None, commits: bool = True,
    stall_s: float = 600.0, watch: Watch = silent,
) -> Outcome:  # fmt: skip
    """Carry out a plan.

    Arguments and errors are as of `compress`. Without `commits`, large inputs become archives when the outcome's `left`
    is given to `commit`.
    """
    with _staged(made.place) as claims:
        work = _Run(made, engine, claims, part, stall_s, watch, commits and part is None)
        work.look_around()
        work.scan()
        work.encode()
        return work.finish()


def commit(output: str | BulkPlan, watch: Watch = silent) -> Outcome:
    """Make the archives whose batches are done.

    Parameters
    ----------
    output
        What the parts of a run were given as output, or the plan that a run without `commits` has left.
    watch
        Is told of each archive.

    Returns
    -------
    Outcome
        The archives; those whose batches are missing, or damaged, have failed.

    Raises
    ------
    InputError
        Where no run was begun.
    """
    made = output if isinstance(output, BulkPlan) else _begun(output)
    with _staged(made.place) as claims:
        work = _Run(made, None, claims, None, 0.0, watch)
        work.commit_all()
        return work.finish()


def _begun(output: str) -> BulkPlan:
    """The plan of a run that was begun."""
    for folder in (True, False):
        if (data := Place(staging(output, folder=folder)).get(PLAN)) is not None:
            return BulkPlan.from_node(json.loads(data))
    raise InputError(f"{output}: nothing was begun there that could be finished; run vcinr compress first")


@contextmanager
def _staged(place: str) -> Iterator[Claims]:
    """Claims in a staging place; what a disk or a server refuses there becomes one clear error."""
    try:
        with Claims(Place(place)) as claims:
            yield claims
        close_sources()
    except OSError as error:
        reason = "no space left" if error.errno == errno.ENOSPC else error.strerror or one_line(error)
        raise InputError(
            f"{place}: cannot be written ({reason}); free some space or choose another place. What is finished is "
            "kept: the same command goes on from there"
        ) from None


class _Run:
    """A run of a plan: what it knows at each moment."""

    def __init__(
        self, made: BulkPlan, engine: Engine | None, claims: Claims, part: tuple[int, int] | None, stall_s: float,
        watch: Watch, commits: bool = True,
    ) -> None:  # fmt: skip
        self.commits = commits
        self.made, self.engine, self.claims, self.part = made, engine, claims, part
        self.stall_s, self.watch = stall_s, watch
        self.staging = Place(made.place)
        self.outcome = Outcome(failed=dict(made.failed))
        self.waiting: list[str] = []

    # --- the stages

    def look_around(self) -> None:
        """Leave out what is done, and note the plan for `commit` and for who looks."""
        found = done.keys(self.staging)
        for item in self.made.items:
            if item.key in found and (facts := done.read(self.staging, item)) is not None:
                self.outcome.archives[item.target] = facts
            elif item.arrays is not None:
                self._claim_target(item)
        self._leave_out()
        self._note_plan()
        checks = [self.made.check(item) for item in self.made.items if item.arrays is not None and _occupied(item)]
        for batch, receipt in self._run(checks, "check"):
            for target, there in receipt.archives.items():
                self.outcome.archives[target] = dict(there)
                done.write(self.staging, batch.items[0], dict(there))
        self._leave_out()

    def scan(self) -> None:
        """Find the least and greatest values that bounds depend on."""
        waiting = [item for item in self.made.items if not item.ready]
        if not waiting:
            return
        found: dict[str, dict[str, tuple[float, float]]] = {item.key: {} for item in waiting}
        for batch, receipt in self._run(self.made.scans(), "scan"):
            limits = found[batch.items[0].key]
            for name, ends in receipt.limits.items():
                if ends is not None:
                    low, high = limits.get(name, ends)
                    limits[name] = (min(low, ends[0]), max(high, ends[1]))
        self._leave_out()
        for item in waiting:
            found[item.key] = {name: found[item.key].get(name, (0.0, 0.0)) for name in item.scan}
        self.made = self.made.with_limits(found)
        self.outcome.failed |= self.made.failed
        self._note_plan()

    def encode(self) -> None:
        """Do the batches, and commit each archive when all of its batches are done."""
        left = {i.key: {b.id for b in self.made.of_item(i)} for i in self.made.items if i.arrays is not None}
        items = {item.key: item for item in self.made.items}
        for key in left:
            self._begin(items[key])
        for batch, receipt in self._run(self.made.encodes(), "compress"):
            self.outcome.archives |= {target: dict(facts) for target, facts in receipt.archives.items()}
            self.outcome.failed |= receipt.failed
            if batch.stage == "encode":
                key = batch.items[0].key
                left[key].discard(batch.id)
                if not left[key] and self.commits:
                    self._commit(items[key])
        self._commit_waiting()

    def commit_all(self) -> None:
        """Commit every archive that is not done."""
        for number, item in enumerate(self.made.items, 1):
            if (facts := done.read(self.staging, item)) is not None:
                self.outcome.archives[item.target] = facts
            elif item.arrays is None:
                self.outcome.failed[item.source.name] = f"{item.target}: is missing; run the parts again, which make it"
            else:
                self._commit(item)
            self.watch(Progress("commit", number, len(self.made.items)))
        self._commit_waiting()

    def finish(self) -> Outcome:
        """Remove the staging place where nothing is left to do, and nobody else is at it."""
        self.outcome.place = self.made.place
        complete = {item.target for item in self.made.items} <= set(self.outcome.archives)
        # What parts have left is for `commit`, also where there is nothing to commit: it says so, and clears up.
        if self.part is None and complete and not self.outcome.failed:
            self.claims.end()  # first: of runs that end together, one at least sees no other
            if not self.claims.others():
                self.staging.remove()
                self.outcome.place = None
        self._leave_out()
        self.outcome.left = replace(self.made, failed=dict(self.outcome.failed)) if self.made.items else None
        return self.outcome

    # --- what they share

    def _note_plan(self) -> None:
        if self.made.items:
            note_models(self.made)
            for key, whole in self.made.joined.items():
                note_joined(self.made.place, key, whole)
            self.staging.put(PLAN, json.dumps(self.made.as_node()).encode())

    def _begin(self, item: Item) -> None:
        """Take an archive that is to be replaced away, where its chunks are written straight to their places."""
        if takes_chunks(item.target) and self.staging.get(f"begun/{item.key}") is None:
            patiently(lambda: begin(item.target))
            self.staging.put(f"begun/{item.key}", b"")

    def _leave_out(self) -> None:
        """Drop the items that are done or have failed from the plan."""
        self.made = self.made.without(
            item.key for item in self.made.items
            if item.target in self.outcome.archives or item.source.name in self.outcome.failed
        )  # fmt: skip

    def _claim_target(self, item: Item) -> None:
        """Note that this archive is being made as this request has it; fail where another is being made there."""
        name = of_target(item.target)
        key = f"targets/{name}"
        if self.staging.create(key, item.key.encode()) or self.staging.get(key) == item.key.encode():
            self.claims.take(name)
        elif self.claims.take(name):  # of a run that is dead
            self.staging.put(key, item.key.encode())
        else:
            self.outcome.failed[item.source.name] = (
                f"{item.target}: another run makes this archive by another request ({self.claims.holder(name)}); wait "
                "for it, or choose another name"
            )

    def _commit(self, item: Item) -> None:
        """Commit an archive, unless another run is at it."""
        if item.source.name in self.outcome.failed:
            return
        if not self.claims.take(f"{item.key}-commit"):
            self.waiting.append(item.key)
            return
        try:
            facts = done.read(self.staging, item)
            self.outcome.archives[item.target] = facts or commit_item(self.made, item)
        except VcinrError as error:
            self.outcome.failed[item.source.name] = str(error)

    def _commit_waiting(self) -> None:
        """See that the archives that other runs were committing are there."""
        items = {item.key: item for item in self.made.items}
        while self.waiting:
            waiting, self.waiting = self.waiting, []
            for key in waiting:
                self._commit(items[key])
            if self.waiting:
                time.sleep(POLL_S)

    def _run(self, batches: Iterable[Batch], stage: str) -> Iterator[tuple[Batch, Receipt]]:
        """Run batches, and give those that are done; what fails is noted by its input.

        Those that other runs have begun are waited for. A part waits for nothing but scans, without which it could not
        go on.
        """
        assert self.engine is not None
        todo = list(batches)
        if self.part is not None:  # its own share first
            number, count = self.part
            todo = [b for i, b in enumerate(todo) if i % count == number] + [
                b for i, b in enumerate(todo) if i % count != number
            ]
        counter = _Counter(stage, todo, self.watch)
        while todo:
            alone: list[Batch] = []
            held: list[Batch] = []
            progress = False
            finished = self._finished(todo)
            for batch in [b for b in todo if b.id in finished]:
                yield batch, counter.add(batch, finished[batch.id], again=True)
            todo = [b for b in todo if b.id not in finished]
            for batch, result in run(self.engine, run_batch, self._claimed(todo, held), stall_s=self.stall_s):
                progress = True
                if isinstance(result, Receipt):
                    yield batch, counter.add(batch, result)
                elif isinstance(result, OSError):
                    raise result
                elif len(batch.items) > 1:  # by the fault of one of them
                    alone += [self.made.of_whole([item]) for item in batch.items]
                else:
                    counter.add(batch, None)
                    self.outcome.failed[batch.items[0].source.name] = one_line(result)
            todo = alone + held
            if held and not alone and not progress:
                if self.part is not None and stage != "scan":
                    return
                counter.say(f"waiting for {self.claims.holder(held[0].id) or 'another run'}")
                time.sleep(POLL_S)

    def _claimed(self, batches: list[Batch], held: list[Batch]) -> Iterator[Batch]:
        """The batches that nobody else has begun, claimed one by one as they are drawn; the others go to `held`."""
        for batch in batches:
            if any(item.source.name not in self.outcome.failed for item in batch.items):
                if self.claims.take(batch.id):
                    yield batch
                else:
                    held.append(batch)

    def _finished(self, batches: list[Batch]) -> dict[str, Receipt]:
        """Receipts of batches that are done, by their names."""
        found: dict[str, Receipt] = {}
        written = {name.removesuffix(".json") for name in self.staging.sizes(RECEIPTS)}
        notes = done.keys(self.staging)
        for batch in batches:
            if batch.stage == "whole" and all(item.key in notes for item in batch.items):
                archives = {item.target: done.read(self.staging, item) for item in batch.items}
                if all(facts is not None for facts in archives.values()):
                    found[batch.id] = Receipt(batch.id, archives={k: v for k, v in archives.items() if v is not None})
            elif batch.id in written:
                receipt = Receipt.read(self.staging.get(f"{RECEIPTS}/{batch.id}.json"), batch.id)
                if receipt is not None:
                    found[batch.id] = receipt
        return found


class _Counter:
    """Counts what is done of a stage, and tells a watcher."""

    def __init__(self, stage: str, batches: list[Batch], watch: Watch) -> None:
        self._stage, self._watch, self._total = stage, watch, len(batches)
        self._seconds = sum(batch.seconds for batch in batches)
        self._clock, self._done, self._spent, self._bytes, self._stored, self._here = Clock(1), 0, 0.0, 0, 0, 0.0

    def add(self, batch: Batch, receipt: Receipt | None, again: bool = False) -> Any:
        """Count a batch that was done now or, `again`, was done before; returns its receipt."""
        self._done += 1
        self._spent, self._bytes = self._spent + batch.seconds, self._bytes + batch.bytes
        if not again:
            self._here += batch.seconds
        if receipt is not None:
            self._stored += sum(int(facts["bytes"]) for facts in receipt.chunks.values())
            self._stored += sum(int(facts["total_bytes"]) for facts in receipt.archives.values())
        self.say(f"{receipt.host}:{receipt.pid}" if receipt is not None and not again else "")
        return receipt

    def say(self, note: str) -> None:
        """Tell the watcher."""
        seconds = max(self._clock.spent, 1e-9)
        figures = {"MB": self._bytes / 1e6}
        if self._here and self._spent:
            figures["MB/s"] = self._bytes * self._here / self._spent / 1e6 / seconds
        if self._stored:
            figures["ratio"] = self._bytes / self._stored
        left = seconds / self._here * (self._seconds - self._spent) if self._here else None
        total = max(self._total, self._done)
        self._watch(Progress(self._stage, self._done, total, figures, left, note))


def _occupied(item: Item) -> bool:
    return occupant(item.target) != "nothing"
