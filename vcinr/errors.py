"""The exceptions a user may meet; each message is one line that names the thing at fault and the remedy."""

from __future__ import annotations


class VcinrError(Exception):
    """Anything vcinr refuses to do, with the reason; the command line prints it as one line."""


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
