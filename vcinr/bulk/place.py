"""Places of small files that appear whole, here or behind a URL: where runs keep what is finished and who is at work.

Whatever a network or a server may spoil for a while is tried again, with waits that grow and differ by chance.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vcinr.errors import NOT_DAMAGE, VcinrError
from vcinr.places import ABSENT, file_system, is_url, written_aside

T = TypeVar("T")
WAITS = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
"""Seconds, about, until a request to a server is tried again; a minute in all."""
_FINAL = (*ABSENT, *NOT_DAMAGE, VcinrError, FileExistsError, PermissionError, NotImplementedError)


def patiently(call: Callable[[], T]) -> T:
    """Call a function until it does not raise what a network or a server may cause for a while.

    Parameters
    ----------
    call
        What may be called more than once.

    Returns
    -------
    object
        What it returns.

    Raises
    ------
    Exception
        At once, where trying again cannot help: a missing file, one that is there already, no permission, a bug. Else
        the last one, after as many tries as there are `WAITS`, and one.
    """
    for wait in WAITS:
        try:
            return call()
        except _FINAL:
            raise
        except Exception:
            time.sleep(wait * random.uniform(0.5, 1.5))
    return call()


@dataclass(frozen=True)
class Place:
    """A folder of files by key, such as ``receipts/a.json``.

    Parameters
    ----------
    root
        A path or an fsspec URL. Nothing need be there yet.
    """

    root: str

    def path(self, key: str) -> str:
        """Path or URL of a file."""
        return f"{self.root.rstrip('/')}/{key}"

    def put(self, key: str, data: bytes) -> None:
        """Write a file, in place of the one that is there; raises OSError where that cannot be done."""
        if not is_url(self.root):
            with written_aside(self.path(key)) as aside:
                aside.write_bytes(data)
            return
        fs, inner = file_system(self.path(key))
        patiently(lambda: _made(fs, inner).pipe_file(inner, data))

    def create(self, key: str, data: bytes) -> bool:
        """Write a file only where there is none; of many who try at once, one alone gets True."""
        if is_url(self.root):
            fs, inner = file_system(self.path(key))
            try:
                patiently(lambda: _made(fs, inner).pipe_file(inner, data, mode="create"))
            except FileExistsError:
                return self.get(key) == data  # a try that was answered with an error may have written it
            return True
        target = Path(self.path(key))
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{os.getpid()}.{random.getrandbits(32):08x}")
        aside.write_bytes(data)
        try:
            os.link(aside, target)  # a file that is whole when it appears
        except FileExistsError:
            return False
        except OSError:  # a file system without links
            try:
                with target.open("xb") as file:
                    file.write(data)
            except FileExistsError:
                return False
        finally:
            aside.unlink(missing_ok=True)
        return True

    def get(self, key: str) -> bytes | None:
        """Read a file; None where there is none."""
        if not is_url(self.root):
            try:
                return Path(self.path(key)).read_bytes()
            except ABSENT:
                return None
        fs, inner = file_system(self.path(key))
        try:
            data: bytes = patiently(lambda: fs.cat_file(inner))
        except ABSENT:
            return None
        return data

    def sizes(self, folder: str = "") -> dict[str, int]:
        """Keys of all files below a folder, relative to it, and their bytes; those that are being written excepted."""
        return {key: size for key, (size, _) in self.listing(folder).items()}

    def listing(self, folder: str = "") -> dict[str, tuple[int, str]]:
        """As `sizes`, and with each file's ETag, which is empty where the place has none."""
        root = self.path(folder) if folder else self.root
        if not is_url(root):
            top = Path(root)
            found = {}
            for directory, _, names in os.walk(top):
                for name in names:
                    file = Path(directory) / name
                    if not name.startswith("."):
                        with contextlib.suppress(FileNotFoundError):
                            found[file.relative_to(top).as_posix()] = (file.stat().st_size, "")
            return found
        fs, inner = file_system(root.rstrip("/"))
        fs.invalidate_cache()
        try:
            listed: dict[str, Any] = patiently(lambda: fs.find(inner, detail=True))
        except ABSENT:
            return {}
        start = len(fs._strip_protocol(inner).rstrip("/")) + 1
        return {
            name[start:]: (int(one["size"] or 0), str(one.get("ETag", "")).strip('"'))
            for name, one in listed.items() if len(name) > start
        }  # fmt: skip

    def remove(self, key: str = "") -> None:
        """Remove a file or a folder with all that is in it; do nothing where there is none."""
        path = self.path(key) if key else self.root
        if not is_url(path):
            if os.path.isdir(path):
                shutil.rmtree(path, ignore_errors=True)
            else:
                Path(path).unlink(missing_ok=True)
            return
        fs, inner = file_system(path.rstrip("/"))
        fs.invalidate_cache()
        with contextlib.suppress(*ABSENT):
            patiently(lambda: fs.rm(inner, recursive=True))


def _made(fs: Any, inner: str) -> Any:
    """The file system, with the folder of a file in it where it has folders."""
    with contextlib.suppress(OSError, NotImplementedError):
        fs.makedirs(inner.rpartition("/")[0], exist_ok=True)
    return fs
