"""The exceptions that a user may see. Each message is one line that names what is at fault, and the remedy."""

from __future__ import annotations


class VcinrError(Exception):
    """Base of all errors that vcinr raises on purpose. The command line prints the message as one line."""


NOT_DAMAGE = (MemoryError, AssertionError, AttributeError, ImportError, NameError)
"""Exceptions that damaged data do not cause: they mean that there is too little memory, or a bug.

A library that reads damaged data may raise nearly anything. Code that reports all this as damage lets these pass.
"""


def one_line(error: BaseException) -> str:
    """Describe an exception in one line of at most 200 characters.

    Parameters
    ----------
    error : BaseException
        Any exception.

    Returns
    -------
    str
        The message of a `VcinrError`. For any other exception, its type comes first, because a message such as ``'v'``
        says nothing without it (``KeyError: 'v'``).
    """
    text = " ".join(str(error).split())
    if not isinstance(error, VcinrError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


def naming(place: str, message: str) -> str:
    """A message that begins with the place it is about."""
    return message if message.startswith(place) else f"{place}: {message}"


class InputError(VcinrError):
    """A file, variable or array that cannot be read or used."""


class DownloadError(InputError):
    """A download that failed. Trying again may help."""


class ConfigError(VcinrError):
    """A parameter that is unknown, missing or of the wrong type."""


class ModelError(VcinrError):
    """A model that is missing, damaged, of a later version, or not made for the variable."""


class CorruptError(VcinrError):
    """Bytes that are not those that were written: a checksum, a length or a declared size is wrong."""


class BoundError(VcinrError):
    """An error bound that cannot be kept, or that a decoded value does not keep."""


class EngineLost(VcinrError):
    """Workers that run batches are gone, or make no progress. What they have finished is kept."""


class WorkerLost(VcinrError):
    """A worker that died while it ran a batch."""
