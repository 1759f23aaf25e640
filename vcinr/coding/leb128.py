"""Numbers of a few bytes: LEB128, of which sections and streams state lengths and counts."""

from __future__ import annotations

from vcinr.errors import CorruptError


def leb128(value: int) -> bytes:
    """Encode a number >= 0 as LEB128: seven bits in each byte, the lowest first, in as few bytes as possible."""
    out = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        out.append(low | (0x80 if value else 0))
        if not value:
            return bytes(out)


def read_leb128(data: bytes, position: int) -> tuple[int, int]:
    """Decode the LEB128 number that starts at `position`; returns it and the position after it."""
    value = 0
    for shift in range(0, 63, 7):
        if position >= len(data):
            break
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise CorruptError("length is malformed")
