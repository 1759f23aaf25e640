"""Which inputs are new: they have no archive that was written after them."""

from __future__ import annotations

import time
from collections.abc import Iterable

from vcinr.bulk.source import changed, expand, targets, with_home
from vcinr.errors import InputError
from vcinr.places import file_system, is_url


def fresh(inputs: Iterable[str] | str, output: str, settle_s: float = 0.0) -> list[str]:
    """List the inputs that are new.

    Parameters
    ----------
    inputs
        As in :func:`vcinr.bulk.source.expand`.
    output
        The folder or URL of the archives.
    settle_s
        Seconds that an input has to lie unchanged: one that changed later may still be written to, and is left for the
        next time.

    Returns
    -------
    list of str
        Inputs without an archive, and those that were changed after it was written. Where a server does not say when,
        one that has an archive is not new.

    Raises
    ------
    InputError
        Where two inputs would become the same archive.

    Notes
    -----
    Nothing is opened: of each input and each archive a time is asked for.
    """
    if output.rstrip("/").endswith((".zarr", ".zip")):
        raise InputError(f"{output}: the archives of what is new need a folder; leave out the ending")
    given = [inputs] if isinstance(inputs, str) else inputs
    paths = list(dict.fromkeys(path for one in given for path in _there(with_home(one))))
    jobs = targets(paths, f"{output.rstrip('/')}/") if paths else []
    latest = time.time() - settle_s
    found = []
    for (path,), target in jobs:
        came = changed(path)
        if came is None or came > latest:
            continue
        made = changed(f"{target}/zarr.json")
        if made is None or came > made:
            found.append(path)
    return found


def _there(given: str) -> list[str]:
    """The files that an input stands for now; nothing may have come yet."""
    if is_url(given):
        file_system(given)  # raises where it will never be one
    try:
        return expand(given)
    except InputError:
        return []
