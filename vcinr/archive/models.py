"""Models inside archives: stored once, named by their SHA-256, checked when read."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype

from vcinr.archive.metadata import RESERVED
from vcinr.archive.store import get
from vcinr.errors import ModelError
from vcinr.models import AnyModel, from_bytes

GROUP = f"{RESERVED}/models"
_CACHE: dict[str, AnyModel] = {}
_LIMIT = 8  # models that a process remembers
_LOCK = threading.Lock()  # chunks are decoded by many threads


def register(model: AnyModel) -> str:
    """Make a model known to this process.

    Parameters
    ----------
    model
        The model. Of those that were registered or read, the last eight are remembered.

    Returns
    -------
    str
        Its SHA-256, by which it is found.
    """
    with _LOCK:
        _CACHE.pop(model.sha256, None)
        while len(_CACHE) >= _LIMIT:
            del _CACHE[next(iter(_CACHE))]
        _CACHE[model.sha256] = model
    return model.sha256


def lookup(sha256: str) -> AnyModel | None:
    """Return a model that this process has registered or read before, or None."""
    return _CACHE.get(sha256)


def registered(sha256: str) -> AnyModel:
    """Return a model like `lookup`; raise ModelError naming the hash when there is none."""
    model = lookup(sha256)
    if model is None:
        raise ModelError(f"model {sha256} is not at hand; register it with vcinr.archive.models.register")
    return model


def put(root: zarr.Group, model: AnyModel) -> None:
    """Store a model in an archive.

    Parameters
    ----------
    root
        The archive's root group, writable.
    model
        Stored as ``vcinr/models/<sha256>``, a plain byte array of one chunk, and registered.
    """
    data = np.frombuffer(model.data, np.uint8)
    root.require_group(GROUP).create_array(
        model.sha256,
        shape=data.shape,
        chunks=data.shape,
        dtype="u1",
        compressors=None,
        filters=None,
        fill_value=0,
        dimension_names=["byte"],
    )[...] = data
    register(model)


async def find(store: Any, path: str, sha256: str) -> AnyModel | None:
    """Search a model in the groups above an array.

    Parameters
    ----------
    store
        A Zarr store.
    path
        The array's path; ``vcinr/models/<sha256>`` is looked for in every group above it.
    sha256
        The model's name.

    Returns
    -------
    Model, PatchModel or None
        None where it is in none of them. A model that was read is registered.

    Raises
    ------
    ModelError
        When the bytes there are not those of that name.
    """
    parts = path.split("/")
    for depth in range(len(parts) - 1, -1, -1):
        key = "/".join([*parts[:depth], GROUP, sha256, "c", "0"])
        buffer = await store.get(key, prototype=default_buffer_prototype())
        if buffer is None:
            continue
        data = buffer.to_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ModelError(f"model {sha256}: the bytes under {key} are not this model (damaged or replaced)")
        model = from_bytes(data, key)
        register(model)
        return model
    return None


def check(store: Store, sha256: str) -> None:
    """Check that an archive holds a model.

    Parameters
    ----------
    store
        The archive's store.
    sha256
        The model's name.

    Raises
    ------
    ModelError
        When it is missing, or its bytes are not those of that name.
    """
    key = f"{GROUP}/{sha256}/c/0"
    data = get(store, key)
    if data is None:
        raise ModelError(f"model {sha256} is not in this archive ({key}); copy the archive whole")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"model {sha256}: the bytes in {key} are not this model (damaged or replaced)")
