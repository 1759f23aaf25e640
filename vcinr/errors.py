"""The exceptions a user may meet; each message is one line that names the thing at fault and the remedy."""

from __future__ import annotations


class VcinrError(Exception):
    """Anything vcinr refuses to do, with the reason; the command line prints it as one line."""


NOT_DAMAGE = (MemoryError, AssertionError, AttributeError, ImportError, NameError)
"""What damaged data do not raise, in any library that reads them: too little memory, or a bug.

Code that reports whatever else a library raises as damage lets these pass.
"""


def one_line(error: BaseException) -> str:
    """Describe an exception on one line, cut where it is long.

    Parameters
    ----------
    error
        Any exception.

    Returns
    -------
    str
        The message of an error of vcinr's own. Of any other, its type and its message: ``'v'`` says nothing where
        ``KeyError: 'v'`` does.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, VcinrError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


class InputError(VcinrError):
    """A file, variable or array that cannot be read or used."""


class DownloadError(InputError):
    """A download that failed: trying again may help."""


class ConfigError(VcinrError):
    """A parameter that is unknown, missing or of the wrong type."""


class ModelError(VcinrError):
    """A model that is missing, damaged, of another version, or not made for this variable."""


class CorruptError(VcinrError):
    """Bytes that are not what was written: a checksum, a length or a declared size does not fit."""


class BoundError(VcinrError):
    """A decoded value lies outside the error bound that was promised."""
