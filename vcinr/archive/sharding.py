"""Zarr v3 codec ``vcinr_sharding``: Zarr's own shards, for chunks of the codec ``vcinr`` that have a model.

A chunk inside a shard does not see the store, so the shard, which does, fetches the model for it. The bytes are those
of ``sharding_indexed``. Chunks without a model need only that.
"""

from __future__ import annotations

from typing import Any, Self

from zarr.codecs import ShardingCodec

from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.errors import CorruptError

_NAME = "vcinr_sharding"


class VcinrSharding(ShardingCodec):
    """Serializer ``VcinrSharding(chunk_shape=..., codecs=[VcinrCodec(...)])`` of an array whose chunks are shards."""

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """From array metadata."""
        return super().from_dict({**data, "name": "sharding_indexed"})

    def to_dict(self) -> dict[str, Any]:
        """For array metadata."""
        return {**super().to_dict(), "name": _NAME}

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, shard_spec: Any) -> Any:
        for codec in self.codecs:
            if isinstance(codec, VcinrCodec):
                await codec.find_model(byte_getter)
        found = await super()._decode_partial_single(byte_getter, selection, shard_spec)
        if found is None:
            raise CorruptError(f"shard {byte_getter} is missing; copy the archive again")
        return found
