"""Places: paths and URLs, the names that they give to things, and files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError)
"""What fsspec raises for a file that is not there; KeyError is that of its zip files before 2026.9."""


def is_url(place: str | Path) -> bool:
    """Say whether fsspec opens a place, and not the file system.

    Parameters
    ----------
    place
        A path, or a URL as fsspec understands it.

    Returns
    -------
    bool
        True for ``scheme://...`` and for chains such as ``zip::...``.
    """
    return "://" in str(place) or "::" in str(place)


def stem(place: str | Path) -> str:
    """Name what lies at a place: the last part of it without its suffix.

    Parameters
    ----------
    place
        A path or a URL. Of a chain such as ``zip://inner.nc::https://...`` the first link counts.

    Returns
    -------
    str
        Without the query of a URL and without a slash at the end.
    """
    return Path(_name_of(place)).stem


def suffix(place: str | Path) -> str:
    """Return the suffix of what lies at a place, in lower case and with its dot; see `stem`."""
    return Path(_name_of(place)).suffix.lower()


def _name_of(place: str | Path) -> str:
    text = str(place).split("::")[0]
    # Only a URL has a query: a question mark is a letter like any other in a file's name.
    return (text.split("?")[0] if "://" in text else text).rstrip("/")


@contextmanager
def written_aside(target: str | Path) -> Iterator[Path]:
    """Write a file or a folder under another name beside its own, which it takes when it is whole.

    Parameters
    ----------
    target
        The path of the finished file or folder. Its parent is made where it does not exist; what lies there is
        replaced: a file at once, a folder by removing it first.

    Yields
    ------
    pathlib.Path
        Where to write; nothing is there. It is removed where the body of the ``with`` statement fails.

    Notes
    -----
    The name has a random part, so threads and processes that write the same target do not meet.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield aside
        if aside.is_dir() and target.is_dir():
            shutil.rmtree(target)
        os.replace(aside, target)
    finally:
        remove(aside)


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
