"""Fuzz the decoders for a stated time: chunks, models and streams under a correct checksum, and files of an archive.

Usage: python -m tests.faults.fuzz SECONDS [SEED]. Anything but an array of the right shape or an error of vcinr's
own ends the run with the mutated bytes; otherwise the number of executions is printed.
"""

from __future__ import annotations

import shutil
import struct
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import xarray as xr

from vcinr.archive import read, write
from vcinr.archive.numcodecs_codec import NumcodecsVcinr
from vcinr.archive.verify import verify
from vcinr.codec.chunk import seed_of
from vcinr.codec.decode import decode as decode_chunk
from vcinr.codec.encode import encode
from vcinr.codec.promise import Bound, Effort, Field
from vcinr.errors import VcinrError
from vcinr.inr.at import ModelAt
from vcinr.inr.model import Model
from vcinr.inr.siren import initialise
from vcinr.inr.spec import InrSpec
from vcinr.models import from_bytes
from vcinr.signals import Grid

Target = tuple[bytes, Callable[[bytes], object]]


def chunks() -> Iterator[Target]:
    """A golden chunk of every kind of section, and its decoder."""
    rng = np.random.default_rng(0)
    smooth = rng.standard_normal((5, 9, 8)).cumsum(1).cumsum(2).astype("f4")
    holed = smooth.copy()
    holed[:, 2:4, 3:] = np.nan
    holed[0, 0, 0] = np.inf
    cases = [
        (smooth, 0.1), (holed, 0.5), (smooth, None), (np.full_like(smooth, 3.0), 0.1), (smooth.astype("f8"), 1e-9),
        (smooth, Bound("relative", 0.01)), ((smooth * 50).astype("i2"), 3.0),
    ]  # fmt: skip
    field = Field("v", (1, 2), Grid((np.arange(9.0), np.arange(8.0))))
    for values, bound in cases:
        for shape in (values.shape, (8, 9, 8)):
            seed = seed_of(field, values.dtype, shape)
            for effort in get_args(Effort):
                data = encode(values, field, bound, chunk_shape=shape, effort=effort).data
                yield data, lambda b, s=shape, d=values.dtype, k=seed: decode_chunk(sealed(b, k), s, d, field)


def models() -> Iterator[Target]:
    """A small model file."""
    spec = InrSpec(2, 1, 8, 4, 30.0, 4, "gates", 2, 8, 1)
    params = {**initialise(spec, 0), "alpha": np.ones(4, "f4")}
    model = Model(spec, params, {"system": "box", "bounds": [[0, 1], [0, 1]]}, ("y", "x"), {"v": (0.0, 1.0)}, 3, 100)

    def use(data: bytes) -> np.ndarray:
        made = from_bytes(data[:-4] + struct.pack("<I", zlib.crc32(data[:-4])), "fuzz")
        return ModelAt(made, np.zeros((3, made.spec.d_in), np.float32)).reconstruct(made.start("v")[None])

    yield model.data, use


def arrays() -> Iterator[Target]:
    """A numcodecs buffer."""
    yield NumcodecsVcinr(("absolute", 0.1)).encode(np.arange(60.0).reshape(3, 4, 5)), NumcodecsVcinr().decode


def archives(folder: Path) -> Iterator[Target]:
    """Every file of a small archive: what is read of it is right or an error, and verify tells which."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((6, 5, 7)).cumsum(1).astype("f4")
    values[0, 2] = np.nan
    data = xr.Dataset(
        {"v": (("t", "y", "x"), values, {"units": "K"}), "name": ("t", list("abcdef"))}, {"y": np.arange(5.0)}
    )
    place = folder / "a.zarr"
    write.compress(data, place, abs_error=0.1, chunk=4)
    sound = read.open_archive(place).load()

    def use(path: Path, good: bytes, bad: bytes) -> None:
        path.write_bytes(bad)
        try:
            problems, _ = verify(place)
            if problems:
                return
            if not read.open_archive(place).load().identical(sound):
                raise AssertionError(f"{path}: other values, and verify saw nothing")
        finally:
            path.write_bytes(good)

    for path in sorted(p for p in place.rglob("*") if p.is_file()):
        yield path.read_bytes(), partial(use, path, path.read_bytes())


def sealed(data: bytes, seed: int) -> bytes:
    """The chunk with its checksum made right, so that the parser behind it is reached."""
    if len(data) < 8:
        return data
    return data[:4] + struct.pack("<I", zlib.crc32(data[8:], zlib.crc32(data[2:4], seed))) + data[8:]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to six random changes: bytes set, bits flipped, parts cut, repeated or exchanged."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 7)):
        if not out:
            break
        i, j = sorted(int(v) for v in rng.integers(0, len(out) + 1, 2))
        match rng.integers(0, 6):
            case 0:
                out[min(i, len(out) - 1)] = rng.integers(0, 256)
            case 1:
                out[min(i, len(out) - 1)] ^= 1 << int(rng.integers(0, 8))
            case 2:
                del out[i : min(j, i + 16)]
            case 3:
                out[i:i] = out[i : min(j, i + 16)]
            case 4:
                out[i : i + 4] = rng.choice([b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff"])
            case _:
                out = out[:j]
    return bytes(out)


def main(seconds: float, seed: int) -> int:
    """Run for `seconds`; returns the exit status."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(seed)
    folder = Path(tempfile.mkdtemp(prefix="vcinr-fuzz-"))
    quick, slow = [*chunks(), *models(), *arrays()], list(archives(folder))
    runs = accepted = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        # A whole archive takes as long as fifty chunks: one in fifty executions, half of the time.
        targets = slow if rng.random() < 0.02 else quick
        data, decode = targets[int(rng.integers(len(targets)))]
        bad = mutated(data, rng)
        runs += 1
        try:
            decode(bad)
            accepted += 1
        except VcinrError:
            pass
        except BaseException as error:
            print(f"execution {runs}: {type(error).__name__}: {error}\n{bad.hex()}")
            return 1
    shutil.rmtree(folder)
    print(f"{runs} executions in {seconds:g} s over {len(quick) + len(slow)} targets, {accepted} accepted, no crash")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
