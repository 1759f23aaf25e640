"""Zarr v3 codec ``vcinr_sharding``: Zarr's own shards, for chunks of the codec ``vcinr`` that have a model.

A chunk inside a shard cannot see the store that holds its model; the shard can, and fetches the model for it. The same
goes for the positions of scattered points. The bytes
are those of ``sharding_indexed``, which is enough for chunks without a model.
"""

from __future__ import annotations

from typing import Any, Self

from zarr.codecs import ShardingCodec

from vcinr.archive.zarr_codec import VcinrCodec
from vcinr.errors import CorruptError

_NAME = "vcinr_sharding"


class VcinrSharding(ShardingCodec):
    """The serializer of an array whose chunks are shards.

    Use it as ``VcinrSharding(chunk_shape=..., codecs=[VcinrCodec(...)])``.
    """

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Make the codec from an array's metadata."""
        return super().from_dict({**data, "name": "sharding_indexed"})

    def to_dict(self) -> dict[str, Any]:
        """The codec as it is written to an array's metadata."""
        return {**super().to_dict(), "name": _NAME}

    async def _decode_partial_single(self, byte_getter: Any, selection: Any, shard_spec: Any) -> Any:
        for codec in self.codecs:
            if isinstance(codec, VcinrCodec):
                await codec.find_model(byte_getter)
                await codec.find_positions(byte_getter, self.chunk_shape)  # whether a chunk needs them or not
        decoded = await super()._decode_partial_single(byte_getter, selection, shard_spec)
        if decoded is None:
            raise CorruptError(f"shard {byte_getter} is missing; copy the archive again")
        return decoded
