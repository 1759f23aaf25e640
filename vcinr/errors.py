"""The exceptions a user may meet; each message is one line that names the thing at fault and the remedy."""

from __future__ import annotations


class VcinrError(Exception):
    """Anything vcinr refuses to do, with the reason; the command line prints it as one line."""


def one_line(error: BaseException) -> str:
    """An exception's message on one line, cut where it is long; its type where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else text[:197] + "..."


class InputError(VcinrError):
    """A file, variable or array that cannot be read or used."""


class ConfigError(VcinrError):
    """A parameter that is unknown, missing or of the wrong type."""


class ModelError(VcinrError):
    """A model that is missing, damaged, of another version, or not made for this variable."""


class CorruptError(VcinrError):
    """Bytes that are not what was written: a checksum, a length or a declared size does not fit."""


class BoundError(VcinrError):
    """A decoded value lies outside the error bound that was promised."""
