"""Models of any kind: networks that latents modulate, and experts for patches. A file says which it is."""

from __future__ import annotations

from pathlib import Path

from vcinr import container
from vcinr.errors import ModelError
from vcinr.inr import model as networks
from vcinr.inr.model import Model
from vcinr.patches import model as patches
from vcinr.patches.model import PatchModel

AnyModel = Model | PatchModel


def from_bytes(data: bytes, origin: str) -> AnyModel:
    """Decode the bytes of a model file.

    Parameters
    ----------
    data : bytes
        The bytes, which are not trusted.
    origin : str
        Where they come from, for error messages.

    Raises
    ------
    ModelError
        For bytes that are not a model, or that are damaged, malformed or of a later version.
    """
    header, tensors = container.unpack(data, origin)
    kind = header.get("kind") if isinstance(header, dict) else None
    if kind is None:
        return networks.from_parts(header, tensors, data, origin)
    if kind == patches.KIND:
        return patches.from_parts(header, tensors, data, origin)
    raise ModelError(f"{origin}: a model of the kind {kind!r}, which this vcinr does not know; upgrade it")


def load_model(path: str | Path) -> AnyModel:
    """Read a model file; raises ModelError, which names `path`, where it cannot be read or is malformed."""
    return from_bytes(container.read(path), str(path))
