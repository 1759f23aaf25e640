"""Models inside archives: stored once, named by their SHA-256, checked when read."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.core.buffer import default_buffer_prototype

from vcinr.archive.metadata import RESERVED
from vcinr.archive.store import get
from vcinr.errors import ModelError
from vcinr.inr.model import Model, from_bytes

GROUP = f"{RESERVED}/models"
_CACHE: dict[str, Model] = {}
_LIMIT = 8


def register(model: Model) -> str:
    """Make `model` known to this process by its SHA-256, which is returned."""
    while len(_CACHE) >= _LIMIT:
        del _CACHE[next(iter(_CACHE))]
    _CACHE[model.sha256] = model
    return model.sha256


def lookup(sha256: str) -> Model | None:
    """A model this process has registered or read before."""
    return _CACHE.get(sha256)


def registered(sha256: str) -> Model:
    """Like `lookup`; raises ModelError naming the hash when there is none."""
    found = lookup(sha256)
    if found is None:
        raise ModelError(f"model {sha256} is not at hand; register it with vcinr.archive.models.register")
    return found


def put(root: zarr.Group, model: Model) -> None:
    """Put `model` into the archive `root` as ``vcinr/models/<sha256>``, a plain byte array of one chunk."""
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


async def find(store: Any, path: str, sha256: str) -> Model | None:
    """Search ``vcinr/models/<sha256>`` in the groups above `path` of a Zarr store; None if it is in none of them.

    Raises ModelError when the bytes found are not those of that name.
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
    """Raise ModelError unless the archive holds the bytes of that name."""
    key = f"{GROUP}/{sha256}/c/0"
    data = get(store, key)
    if data is None:
        raise ModelError(f"model {sha256} is not in this archive ({key}); copy the archive whole")
    if hashlib.sha256(data).hexdigest() != sha256:
        raise ModelError(f"model {sha256}: the bytes in {key} are not this model (damaged or replaced)")
