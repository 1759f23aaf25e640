"""Verify archives: every chunk decodes, all is as it was written and, beside the original, every bound holds."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
import zarr

from vcinr.archive import metadata, models
from vcinr.archive.blocks import READING
from vcinr.archive.contents import Archive, chunks_of, codec_of, counts_of, open_contents
from vcinr.archive.manifest import line
from vcinr.archive.members import Members, members_of, peak_of
from vcinr.archive.metadata import PREFIX, Data
from vcinr.archive.read import info
from vcinr.codec.promise import Bound, allowed_bytes, allowed_errors, errors_of, ious, valid_values
from vcinr.errors import NOT_DAMAGE, CorruptError, InputError, VcinrError, one_line
from vcinr.formats.base import KIND_OF_SIGNAL
from vcinr.progress import Clock, Progress, Watch, silent
from vcinr.quality import psnr_db


def verify(path: str | Path, against: Data | None = None, *, watch: Watch = silent) -> tuple[list[str], dict[str, Any]]:
    """Decode every chunk of an archive and, beside the original, check every bound.

    Parameters
    ----------
    path
        The archive: a folder, a zip file or an fsspec URL.
    against
        The original, undecoded, as ``vcinr.open_groups`` opens it. Without it the bounds are not checked.
    watch
        Is told of each chunk, with the largest error of its variable so far, in the variable's units.

    Returns
    -------
    problems : list of str
        One line a problem, which names the chunk, file or variable. None means: everything decodes, all is as it was
        written, every finite value is within its bound, masks and all other variables are those of the original.
    facts : dict
        For each compressed variable its number of ``chunks`` and the ``max_abs_error`` seen, in the variable's units;
        None without an original. Of shapes beside their originals, where an IoU or a rate was asked for, it has
        ``mean_iou`` and ``lowest_iou``. Of signals of files, such as images, it has also ``psnr_db`` (None where all is
        exact or constant), the ``peak`` of PSNRs in stored numbers, ``peak_is`` in words
        (`vcinr.archive.members.peak_of`), the numbers of ``values`` and of ``valid`` ones among them, and ``signals``:
        of each file ``name``, ``max_abs_error``, ``psnr_db`` and, for such shapes, ``iou``. `whole` sums them up.

    Raises
    ------
    InputError
        When `path` is no archive at all.
    CorruptError
        When an array has a codec that no archive has.

    Notes
    -----
    Every chunk is fetched once. Memory is bounded by a few chunks: the original is read chunk by chunk, too.
    """
    work = Verification(path, against)
    problems = work.preliminary()
    counts = work.counts(problems)
    total, before = sum(counts.values()), 0
    clock = Clock(total)
    for name, count in counts.items():

        def tell(done: int, worst: float, before: int = before) -> None:
            figures = {"max_abs_error": worst}
            watch(Progress("verify", before + done, total, figures, clock.left(before + done)))

        work.add(work.check(name, 0, count, tell))
        before += count
    return work.finish(problems)


@dataclass
class Part:
    """What was seen of some chunks of a variable; it can be pickled, and parts of a variable can be merged.

    Parameters
    ----------
    name
        The variable.
    problems
        One line each.
    worst
        The largest error, in the variable's units.
    squared, valid, low, high
        Sum of the squared errors of the stored numbers, of `valid` of them; the least and the greatest of these.
    compared
        Whether there was an original to compare with.
    ious
        Those of the shapes of each chunk.
    members
        The signals of files in the variable, if any.
    """

    name: str
    compared: bool = False
    problems: list[str] = field(default_factory=list)
    worst: float = 0.0
    squared: float = 0.0
    valid: int = 0
    low: float = math.inf
    high: float = -math.inf
    ious: list[np.ndarray] = field(default_factory=list)
    members: Members | None = None

    def merge(self, other: Part) -> None:
        """Add what was seen of further chunks."""
        self.problems, self.compared = self.problems + other.problems, self.compared or other.compared
        self.worst = max(self.worst, other.worst)
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self.squared, self.valid = self.squared + other.squared, self.valid + other.valid
        self.ious += other.ious
        if self.members is None:
            self.members = other.members
        elif other.members is not None:
            self.members.merge(other.members)


class Verification:
    """An archive that is verified part by part, by one process or by many.

    Parameters
    ----------
    path, against
        As in `verify`.

    Raises
    ------
    InputError, CorruptError
        As in `verify`.
    """

    def __init__(self, path: str | Path, against: Data | None = None) -> None:
        self.archive = open_contents(path)
        self.arrays = dict(self.archive.arrays())
        self._originals: metadata.Groups | None = None
        if against is not None:
            self._originals = {p: metadata.stored(g, p) for p, g in metadata.as_groups(against).items()}
        self._seen: dict[str, Part] = {}

    def preliminary(self) -> list[str]:
        """Return what is wrong with all but the chunks: metadata, models, members that are missing."""
        self._keys = set(self.archive.keys())
        problems = self.archive.problems() + self.archive.manifest.file_problems(self.archive.store, self._keys)
        return problems + (_missing_members(self.archive, self._originals) if self._originals is not None else [])

    def counts(self, problems: list[str]) -> dict[str, int]:
        """Return how many chunks of each variable are to be checked; to declare absurdly many is a problem."""
        room = len(self._keys) + 100
        found = {}
        for name, array in self.arrays.items():
            if array.nchunks > room:
                problems.append(
                    f"variable {name!r}: declares {array.nchunks:,} chunks, more than the archive has files"
                )
            found[name] = min(array.nchunks, room)
        return found

    def check(
        self, name: str, start: int, stop: int, tell: Callable[[int, float], None] = lambda done, worst: None
    ) -> Part:
        """Decode some chunks of a variable and compare them with the original.

        Parameters
        ----------
        name
            The variable.
        start, stop
            Number of the first chunk, in C order, and of the one after the last.
        tell
            Is told after each chunk how many are done, and the largest error so far.

        Returns
        -------
        Part
            What was seen.
        """
        array, sums, original = self.arrays[name], None, None
        part = Part(name)
        try:
            original = None if self._originals is None else _original(self._originals, name, array)
            signals = PREFIX + "bytes" in array.attrs and KIND_OF_SIGNAL in self.archive.root.attrs
            if self._originals is not None and original is not None and signals:
                part.members = members_of(self._originals[name.rpartition("/")[0]], original)
            part.compared = original is not None
            sums = self.archive.manifest.checksums(name, counts_of(array))
        except VcinrError as error:
            part.problems.append(str(error))
        seen = _Seen(array, part)
        for done, chunk in enumerate(itertools.islice(chunks_of(name, array), start, stop), 1):
            try:
                decoded, size = self.archive.load(array, chunk, None if sums is None else int(sums[chunk.number]))
                if array.attrs.get(PREFIX + "bound") == "rate":
                    _check_rate(array, size, decoded.shape)
                if original is not None:
                    seen.compare(_part(original, chunk.part), decoded, chunk.part)
            except NOT_DAMAGE:
                raise
            except Exception as error:  # Zarr's codecs raise what they like on damaged bytes
                part.problems.append(line(chunk.key, one_line(error)))
            tell(done, part.worst)
        return part

    def add(self, part: Part) -> None:
        """Take note of what was seen; parts may come in any order."""
        if part.name in self._seen:
            self._seen[part.name].merge(part)
        else:
            self._seen[part.name] = part

    def finish(self, problems: list[str]) -> tuple[list[str], dict[str, Any]]:
        """Return what `verify` returns, once all parts have been added to what was found before."""
        facts: dict[str, Any] = {}
        for name, array in self.arrays.items():
            part = self._seen.get(name, Part(name))
            problems = problems + part.problems
            seen = _Seen(array, part)
            if part.compared and (missed := seen.missed_psnr()):
                problems.append(f"variable {name!r}: {missed}")
            if PREFIX + "bytes" in array.attrs:
                facts[name] = {"max_abs_error": part.worst if part.compared else None, "chunks": array.nchunks}
                if part.ious:
                    found = np.concatenate(part.ious)
                    facts[name] |= {"mean_iou": float(found.mean()), "lowest_iou": float(found.min())}
                if part.members is not None:
                    facts[name] |= seen.by_signal(part.members, str(self.archive.root.attrs[KIND_OF_SIGNAL]))
        used = {
            str(a.attrs[PREFIX + "model_sha256"]) for a in self.arrays.values() if PREFIX + "model_sha256" in a.attrs
        }
        for sha in sorted(used):
            try:
                models.check(self.archive.store, sha)
            except VcinrError as error:
                problems.append(str(error))
        return list(dict.fromkeys(problems)), facts


def whole(path: str | Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Sum up what `verify` has found of an archive of files beside its originals.

    Parameters
    ----------
    path
        The archive.
    facts
        What `verify` returned.

    Returns
    -------
    dict
        The number of ``signals``; ``max_abs_error``, the largest of all; ``psnr_db`` of all valid values together, each
        relative to the peak of its variable, None where all are exact; ``peak_is``, in words; of shapes that may differ
        their mean ``iou``; and ``bits_per_value`` of the whole archive but its models. Empty where `facts` are of no
        signals of files.

    Raises
    ------
    InputError, CorruptError
        As :func:`vcinr.archive.read.info`.
    """
    parts = [fact for fact in facts.values() if "signals" in fact]
    if not parts:
        return {}
    described = info(path)
    size = described["total_bytes"] - sum(described["models"].values())
    valid = sum(part["valid"] for part in parts)
    found = [signal["iou"] for part in parts for signal in part["signals"] if "iou" in signal]
    share = sum(part["valid"] * 10 ** (-part["psnr_db"] / 10) for part in parts if part["psnr_db"] is not None)
    return {
        "signals": sum(len(part["signals"]) for part in parts),
        "max_abs_error": max(part["max_abs_error"] for part in parts),
        "psnr_db": psnr_db(1.0, share, valid) if share > 0 else None,
        **({"iou": sum(found) / len(found)} if found else {}),
        "peak_is": ", ".join(dict.fromkeys(part["peak_is"] for part in parts)),
        "bits_per_value": 8 * size / max(1, sum(part["values"] for part in parts)),
    }


def _missing_members(archive: Archive, originals: metadata.Groups) -> list[str]:
    stored = {name for name, _ in archive.arrays()}
    names = [metadata.join(path, str(n)) for path, group in originals.items() for n in group.variables]
    return [f"variable {name!r} of the original is not in the archive" for name in names if name not in stored]


def _original(originals: metadata.Groups, name: str, array: zarr.Array[Any]) -> xr.DataArray:
    """The variable to compare with, whose values are not read yet."""
    try:
        values = metadata.member(originals, name)
    except KeyError:
        raise InputError(f"variable {name!r} is not in the file compared with") from None
    numbers = values.dtype.kind in "fiubc"  # the types of text have no order of bytes, and more than one name
    same = not numbers or values.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    if values.shape != array.shape or not same:
        raise InputError(
            f"variable {name!r}: the archive has {array.dtype}{array.shape}, "
            f"the file compared with {values.dtype}{values.shape}"
        )
    return values


def _part(values: xr.DataArray, part: tuple[slice, ...]) -> np.ndarray:
    try:
        with READING:
            return np.asarray(values[part].values)
    except (VcinrError, *NOT_DAMAGE):
        raise
    except Exception as error:  # every format's library has its own for a damaged file
        raise InputError(f"the file compared with cannot be read ({one_line(error)})") from None


@dataclass
class _Seen:
    """Compares chunks of a variable with the original, and counts in `part` what is seen."""

    array: zarr.Array[Any]
    part: Part

    def compare(self, original: np.ndarray, decoded: np.ndarray, part: tuple[slice, ...]) -> None:
        """Compare a chunk, `part` of the array, with the original; raises InputError saying what is not as promised."""
        array, serializer = self.array, codec_of(self.array)
        if PREFIX + "iou" in array.attrs:
            self._compare_shapes(original, decoded, part)
            return
        if serializer is None or PREFIX + "bytes" not in array.attrs or array.dtype.kind not in "fiu":
            if not _same(original, decoded):
                raise InputError("differs from the original, though it is kept losslessly")
            return
        original = original.astype(original.dtype.newbyteorder("="), copy=False)
        kept = valid_values(original, serializer.fill)
        errors = errors_of(original, decoded)
        unit = metadata.unit_of(array.attrs, array.dtype)
        worst = float(errors[kept].max(initial=0.0)) * unit
        self.part.worst = max(self.part.worst, worst)
        self._add(original[kept], errors[kept])
        if self.part.members is not None:
            self.part.members.add(part, errors, kept)
        bound = serializer.bound
        if bound is None and array.attrs.get(PREFIX + "bound") == "lossless":
            bound = ("absolute", 0.0)
        if bound is not None and bound[0] in ("absolute", "relative"):
            allowed = allowed_errors(original, Bound(bound[0], bound[1]))  # type: ignore[arg-type]
            if missed := int(((errors > allowed) & kept).sum()):
                shown: Any = array.attrs.get(PREFIX + "bound_value", bound[1])  # that of the variable, not as stored
                raise InputError(
                    f"{missed} value(s) outside the {bound[0]} bound {shown:g}, the largest error being {worst:g}"
                )
        if original[~kept].tobytes() != decoded[~kept].tobytes():
            raise InputError("masked values (NaN, infinite or fill) differ from the original")
        if not np.array_equal(valid_values(decoded, serializer.fill), kept):
            raise InputError("values of the original have become missing (NaN, infinite or fill)")

    def _compare_shapes(self, original: np.ndarray, decoded: np.ndarray, part: tuple[slice, ...]) -> None:
        """Compare shapes with the original ones; raises InputError where their mean IoU is not as promised."""
        found = ious(original, decoded)
        self.part.ious.append(found)
        errors = errors_of(original, decoded)
        self.part.worst = max(self.part.worst, float(errors.max(initial=0.0)))
        if self.part.members is not None:
            self.part.members.add(part, errors, np.ones(errors.shape, bool))
            self.part.members.iou[part[self.part.members.axis]] = found
        wanted: Any = self.array.attrs.get(PREFIX + "bound_value", 1.0)
        if self.array.attrs.get(PREFIX + "bound") == "iou" and found.size and found.mean() < wanted:
            raise InputError(f"a mean IoU of {found.mean():.4f}, below the {wanted:g} promised")

    def _add(self, values: np.ndarray, errors: np.ndarray) -> None:
        if values.size:
            seen = self.part
            seen.low, seen.high = min(seen.low, float(values.min())), max(seen.high, float(values.max()))
            with np.errstate(over="ignore"):
                seen.squared, seen.valid = seen.squared + float(np.square(errors).sum()), seen.valid + values.size

    def by_signal(self, members: Members, kind: str) -> dict[str, Any]:
        """What `verify` says of the signals of files in the variable, beside its chunks and its largest error."""
        dtype, attrs = np.dtype(self.array.dtype), dict(self.array.attrs)
        peak, words = peak_of(kind, dtype, attrs, self.part.low, self.part.high)

        def quality(squared: float, valid: int) -> float | None:
            return psnr_db(peak, squared, valid) if peak > 0 and 0 < squared < math.inf else None

        unit = metadata.unit_of(attrs, dtype)
        seen = zip(members.names, members.worst, members.squared, members.valid, members.iou, strict=True)
        return {
            "psnr_db": quality(self.part.squared, self.part.valid), "peak": peak, "peak_is": words,
            "values": self.array.size, "valid": self.part.valid,
            "signals": [
                {"name": name, "max_abs_error": float(worst) * unit}
                | ({"psnr_db": quality(float(squared), int(valid))} if np.isnan(iou) else {"iou": float(iou)})
                for name, worst, squared, valid, iou in seen
            ],
        }  # fmt: skip

    def missed_psnr(self) -> str | None:
        """Whether the variable promises a PSNR that it does not have."""
        if self.array.attrs.get(PREFIX + "bound") != "psnr" or not 0 < self.part.squared < math.inf:
            return None
        wanted: Any = self.array.attrs.get(PREFIX + "bound_value", math.inf)
        reached = psnr_db(self.part.high - self.part.low, self.part.squared, self.part.valid)
        return f"its PSNR is {reached:.2f} dB, below the {wanted:g} dB promised" if reached < wanted - 1e-6 else None


def _check_rate(array: zarr.Array[Any], size: int, shape: tuple[int, ...]) -> None:
    """Raise CorruptError where a chunk, of which `shape` lies inside the array, takes more than its variable allows."""
    rate: Any = array.attrs.get(PREFIX + "bound_value", 0.0)
    if size > allowed_bytes(rate, shape, array.chunks):
        raise CorruptError(f"{8 * size / max(1, math.prod(shape)):.3g} bits per value, more than the {rate:g} promised")


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype.kind in "fiub":
        return a.astype(a.dtype.newbyteorder("="), copy=False).tobytes() == b.tobytes()
    if a.dtype.kind == "c":
        return bool(np.array_equal(a, b, equal_nan=True))
    return bool(np.array_equal(a, b))
