"""The spool: finished chunks of an archive that is being written, which outlive a killed process.

A chunk is written aside, renamed into place, and then noted in the journal with a digest of the values it was made
of. The next run takes over every chunk whose note, values and bytes fit; nothing else is trusted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from vcinr.errors import InputError


class Spool:
    """Chunks by key under `folder`, for one request (any text that says what is being made); a context manager.

    What another request left there is removed, after `rescue` was called. Raises InputError when another process holds
    the folder, or when it is none of vcinr's.
    """

    def __init__(self, folder: Path, request: str, rescue: Callable[[], None] = lambda: None) -> None:
        self._rescue = rescue
        self._lock = FileLock(f"{folder}.lock")
        self.folder, self._request = folder, hashlib.sha256(request.encode()).hexdigest()
        self._notes: dict[str, dict[str, Any]] = {}
        self._journal: int = -1

    def __enter__(self) -> Spool:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"{self.folder}: another process is writing this archive; wait for it, or choose another name"
            ) from None
        try:
            self._rescue()
            journal = self.folder / "journal"
            lines = journal.read_bytes().split(b"\n") if journal.is_file() else []
            if not lines or lines[0].decode(errors="replace") != self._request:
                if self.folder.exists() and not journal.exists() and any(self.folder.iterdir()):
                    raise InputError(
                        f"{self.folder}: is in the way and none of vcinr's; move it, or choose another name"
                    )
                shutil.rmtree(self.folder, ignore_errors=True)
                (self.folder / "chunks").mkdir(parents=True)
                lines = [self._request.encode(), b""]
            # A line that a kill cut short is not followed by a newline: drop it, so that the next starts afresh.
            whole = [line for line in lines[1:-1] if _parse(line) is not None]
            temporary = self.folder / "journal.new"
            temporary.write_bytes(b"\n".join([self._request.encode(), *whole, b""]))
            temporary.replace(journal)
            self._notes = {note["key"]: note for line in whole if (note := _parse(line)) is not None}
            self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._journal)
        if not self._notes:  # nothing to go on from
            self.discard()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)

    def find(self, key: str, values: np.ndarray) -> tuple[bytes, dict[str, Any]] | None:
        """Bytes and facts of a chunk that an earlier run finished from these very values, or None."""
        note = self._notes.get(key)
        if note is None or note["values"] != _digest(values):
            return None
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        return (data, note["facts"]) if zlib.crc32(data) == note["crc32"] else None

    def add(self, key: str, values: np.ndarray, data: bytes, facts: Mapping[str, Any]) -> None:
        """Keep a finished chunk."""
        path = self.path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self.folder / "chunk.new"
        temporary.write_bytes(data)
        temporary.replace(path)
        note = {"key": key, "values": _digest(values), "crc32": zlib.crc32(data), "facts": dict(facts)}
        line = json.dumps(note, separators=(",", ":")).encode() + b"\n"
        if os.write(self._journal, line) != len(line):
            raise OSError(28, "No space left on device")
        self._notes[key] = note

    def discard(self) -> None:
        """Remove the folder: the work is done, or cannot be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, key: str) -> Path:
        """Where the bytes of a chunk lie."""
        return self.folder / "chunks" / key


def clear(folder: Path) -> None:
    """Remove what a run left that was killed after its archive was in place; not what another is working on."""
    if not folder.exists() and not Path(f"{folder}.lock").exists():
        return
    lock = FileLock(f"{folder}.lock")
    try:
        with lock.acquire(timeout=0):
            shutil.rmtree(folder, ignore_errors=True)
            Path(lock.lock_file).unlink(missing_ok=True)
    except (Timeout, OSError):
        return


def link(source: Path, target: Path) -> None:
    """`target` with the contents of `source`: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _digest(values: np.ndarray) -> str:
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest() if values.size else ""


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        note = json.loads(line)
        return note if {"key", "values", "crc32", "facts"} <= set(note) else None
    except (ValueError, TypeError):
        return None
