"""The spool: finished chunks of an archive that is being written, which outlive a killed process.

A chunk is written aside, renamed into place, and then noted in the journal with a digest of the values it was made
of. The next run takes over every chunk whose note, values and bytes fit; nothing else is trusted.
"""

from __future__ import annotations

import contextlib
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
from vcinr.places import written_aside


class Spool:
    """Chunks by key under a folder, for one request; a context manager.

    Parameters
    ----------
    folder
        Where the chunks lie. A file of the same name and the suffix ``.lock`` is there while the spool is open.
    request
        Any text that says what is being made. What another request left in the folder is removed.
    rescue
        Called first, once the lock is held.

    Raises
    ------
    InputError
        On entering, when another process holds the folder, or when the folder is none of vcinr's.
    """

    def __init__(self, folder: Path, request: str, rescue: Callable[[], None] = lambda: None) -> None:
        self._rescue = rescue
        self._lock = _Lock(folder)
        self.folder, self._request = folder, hashlib.sha256(request.encode()).hexdigest()
        self._notes: dict[str, dict[str, Any]] = {}
        self._journal: int = -1

    def __enter__(self) -> Spool:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(
                f"{self.folder}: another process is writing this archive; wait for it, or choose another name"
            ) from None
        try:
            self._rescue()
            self._open_journal()
        except BaseException:
            self._lock.release()
            raise
        return self

    def _open_journal(self) -> None:
        journal = self.folder / "journal"
        lines = journal.read_bytes().split(b"\n") if journal.is_file() else []
        if not lines or lines[0].decode(errors="replace") != self._request:
            if self.folder.exists() and not journal.exists() and any(self.folder.iterdir()):
                raise InputError(f"{self.folder}: is in the way and none of vcinr's; move it, or choose another name")
            shutil.rmtree(self.folder, ignore_errors=True)
            (self.folder / "chunks").mkdir(parents=True)
            lines = [self._request.encode(), b""]
        # A line that a kill cut short is not followed by a newline: drop it, so that the next starts afresh.
        whole = [line for line in lines[1:-1] if _parse(line) is not None]
        with written_aside(journal) as aside:
            aside.write_bytes(b"\n".join([self._request.encode(), *whole, b""]))
        self._notes = {note["key"]: note for line in whole if (note := _parse(line)) is not None}
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND)

    def __exit__(self, *_: object) -> None:
        os.close(self._journal)
        if not self._notes:  # nothing to go on from
            self.discard()
        self._lock.release()

    def find(self, key: str, values: np.ndarray) -> tuple[bytes, dict[str, Any]] | None:
        """Look up a chunk that an earlier run finished.

        Parameters
        ----------
        key
            Its key in the archive.
        values
            What it must have been made of.

        Returns
        -------
        tuple of bytes and dict, or None
            Its bytes and the facts that were added with them.
        """
        note = self._notes.get(key)
        if note is None or note["values"] != digest_of(values):
            return None
        try:
            data = self.path(key).read_bytes()
        except OSError:
            return None
        return (data, note["facts"]) if zlib.crc32(data) == note["crc32"] else None

    def add(self, key: str, values: str, data: bytes, facts: Mapping[str, Any]) -> None:
        """Keep a finished chunk.

        Parameters
        ----------
        key
            Its key in the archive.
        values
            Digest of what it was made of (`digest_of`).
        data
            Its bytes.
        facts
            What is to be known of it later; JSON-able.

        Raises
        ------
        OSError
            Where the disk fails; the chunk is then not noted.
        """
        with written_aside(self.path(key)) as aside:
            aside.write_bytes(data)
        note = {"key": key, "values": values, "crc32": zlib.crc32(data), "facts": dict(facts)}
        line = json.dumps(note, separators=(",", ":")).encode() + b"\n"
        while line:  # a system may take less than the whole; if it cannot take the rest, it says why
            line = line[os.write(self._journal, line) :]
        self._notes[key] = note

    def discard(self) -> None:
        """Remove the folder: the work is done, or cannot be."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, key: str) -> Path:
        """Return where the bytes of a chunk lie: in one folder for all, as making folders takes time."""
        return self.folder / "chunks" / hashlib.blake2b(key.encode(), digest_size=16).hexdigest()


class _Lock:
    """A lock on a folder, held by one process; its file lies beside the folder and is there only while it is held.

    The file is removed by its holder, before the lock is released. A process that had opened it by then gets a lock on
    a file that nobody else will find; it sees that, and tries again.
    """

    def __init__(self, folder: Path) -> None:
        self._path = Path(f"{folder}.lock")
        self._lock = FileLock(self._path)

    def acquire(self) -> None:
        """Take the lock; raises Timeout where another holds it."""
        while True:
            # While this file is open no other file has its number: if the path leads to it before and after the lock
            # was taken, it did so in between, and it is the one that was locked.
            probe = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
            try:
                self._lock.acquire(timeout=0)
                with contextlib.suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(probe), os.stat(self._path)):
                        return
                self._lock.release()
            finally:
                os.close(probe)

    def release(self) -> None:
        """Remove the file and give the lock back."""
        with contextlib.suppress(OSError):  # some systems do not remove a file that is open
            self._path.unlink(missing_ok=True)
        self._lock.release()


def clear(folder: Path) -> None:
    """Remove what a killed run left of an archive that is in its place.

    Parameters
    ----------
    folder
        The spool's folder. What another process is working on stays.
    """
    if not folder.exists() and not Path(f"{folder}.lock").exists():
        return
    lock = _Lock(folder)
    try:
        lock.acquire()
    except (Timeout, OSError):
        return
    shutil.rmtree(folder, ignore_errors=True)
    lock.release()


def link(source: Path, target: Path) -> None:
    """Give a file a second name: a hard link, or a copy where the file system has none.

    Parameters
    ----------
    source
        The file.
    target
        Its other name; folders above it are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def digest_of(values: np.ndarray) -> str:
    """Digest the bytes of an array, in C order: 32 hexadecimal digits of BLAKE2b, or nothing for an empty one."""
    return hashlib.blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest() if values.size else ""


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        note = json.loads(line)
        return note if {"key", "values", "crc32", "facts"} <= set(note) else None
    except (ValueError, TypeError):
        return None
