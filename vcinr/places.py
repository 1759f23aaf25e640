"""Places, which are paths or URLs: their names, and files that appear whole or not at all."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vcinr.errors import InputError, one_line

ABSENT = (FileNotFoundError, IsADirectoryError, NotADirectoryError, KeyError)
"""What fsspec raises for a file that is not there; KeyError is that of its zip files before 2026.9."""


def is_url(place: str | Path) -> bool:
    """Whether a place is for fsspec to open, and not a path of the local file system.

    Parameters
    ----------
    place : str or Path
        A path, or a URL as fsspec understands it.

    Returns
    -------
    bool
        True for ``scheme://...`` and for chains such as ``zip::...``.
    """
    return "://" in str(place) or "::" in str(place)


def stem(place: str | Path) -> str:
    """The name of what lies at a place: the last part of the path, without its suffix.

    Parameters
    ----------
    place : str or Path
        A path or a URL. The query of a URL and a slash at the end are ignored. Of a chain such as
        ``zip://inner.nc::https://...`` the first link counts.
    """
    return Path(_name_of(place)).stem


def suffix(place: str | Path) -> str:
    """The suffix of what lies at a place, in lower case and with its dot; see `stem`."""
    return Path(_name_of(place)).suffix.lower()


def _name_of(place: str | Path) -> str:
    """The path in a place, without links of a chain after the first, the query of a URL, and slashes at the end."""
    text = str(place).split("::")[0]
    # Only URLs have a query: the name of a file may contain a question mark.
    return (text.split("?")[0] if "://" in text else text).rstrip("/")


def file_system(url: str | Path) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; raises InputError for a URL that fsspec does not know."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(str(url))
    except (ValueError, ImportError) as error:
        raise InputError(f"{url}: {one_line(error)}; give a path or a URL that fsspec writes") from None


@contextmanager
def written_aside(target: str | Path) -> Iterator[Path]:
    """Write a file or folder under a temporary name beside its own, which it takes once it is whole.

    Parameters
    ----------
    target : str or Path
        The path of the finished file or folder. Its parent is made where it does not exist. What lies at the path is
        replaced: a file in one step, a folder by removing it first.

    Yields
    ------
    pathlib.Path
        The temporary path, at which there is nothing yet. What has been written there is removed where the body of the
        ``with`` statement fails.

    Notes
    -----
    The temporary name has a random part, so that threads and processes that write the same target do not interfere.
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
    """Remove a file, a link or a whole folder; do nothing where it does not exist."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
