"""Data sets as files of any format that is written; the suffix of the path chooses it."""

from __future__ import annotations

import os
from pathlib import Path

import xarray as xr

from vcinr import formats
from vcinr.errors import NOT_DAMAGE, InputError, one_line
from vcinr.formats.base import Format
from vcinr.places import is_url, written_aside


def write_dataset(dataset: xr.Dataset, path: str | Path) -> None:
    """Write a data set to a local file, which reads as the same data set.

    Parameters
    ----------
    dataset : xarray.Dataset
        One like those that `vcinr.formats.open.open_dataset` returns, undecoded. Its values are written exactly.
    path : str or Path
        The file. Its suffix chooses the format. What lies there is replaced, once the new file is whole.

    Raises
    ------
    InputError
        For a URL, for a suffix that is unknown or whose files are only read (lossy ones, above all), where the format
        cannot hold the data set, and where a package to write it is missing. The message is one line that names the
        file.
    OSError
        Where the file cannot be written.
    """
    name = str(path)
    if is_url(name):
        raise InputError(f"{name}: files are written to this machine only; give a local path")
    path = Path(path).expanduser()
    form, ending = _format_of(path)
    assert form.write is not None
    with written_aside(path) as aside:
        draft = aside.with_name(aside.name + ending)  # writers look at the suffix
        try:
            form.write(dataset, draft)
            os.replace(draft, aside)
        except InputError as error:
            raise InputError(str(error).replace(str(draft), name)) from None
        except ImportError as error:
            raise InputError(
                f"{name}: a package needed to write it is not installed ({one_line(error)}); "
                "pip install 'vcinr[formats]'"
            ) from None
        except (OSError, *NOT_DAMAGE):
            raise
        except Exception as error:  # each format's library has exceptions of its own for its limits
            raise InputError(f"{name}: {form.name} cannot hold this data set ({one_line(error)})") from None
        finally:
            draft.unlink(missing_ok=True)


def _format_of(path: Path) -> tuple[Format, str]:
    """The format by which a file is written, and its suffix; raises InputError where there is none."""
    name = path.name.lower()
    for form in formats.known():
        for ending in sorted(form.suffixes, key=len, reverse=True):
            if not name.endswith(ending):
                continue
            if ending in form.written:
                return form, ending
            if form.written:
                raise InputError(f"{path}: {ending} files are read, and not written; write {' or '.join(form.written)}")
    known = sorted({ending for form in formats.known() for ending in form.written})
    given = f"files with the suffix {path.suffix!r} are" if path.suffix else "files without a suffix are"
    raise InputError(f"{path}: {given} not written; use one of {', '.join(known)}")
