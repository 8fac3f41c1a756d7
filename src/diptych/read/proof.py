"""The proof: count and digest of what a projection has applied.

An effect is an event applied to a key. Its hash is BLAKE2b (RFC 7693) with 16 bytes of output over
the JSON array [position, event id, key], which is unambiguous; a digest is the sum of hashes modulo
2**128, so it does not depend on how effects were batched, and differences can be taken apart.
The engine and ``verify`` both hash with ``hash_effects``, and nothing else does.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any, Final

import msgspec
from msgspec import Struct

MODULUS: Final = 1 << 128
BLOCK_SHIFT: Final = 10
"""Count and digest are kept for each block of 1024 positions too: block = position >> 10."""

_encode = msgspec.json.Encoder().encode


class Tally(Struct, frozen=True):
    """How many effects, and the sum of their hashes."""

    count: int = 0
    digest: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(self.count + other.count, (self.digest + other.digest) % MODULUS)


def hash_effects(effects: Iterable[tuple[int, str, Any]]) -> list[bytes]:
    """Return the hash of each (position, event id, key)."""
    encode = _encode
    return [blake2b(encode(effect), digest_size=16).digest() for effect in effects]


def sum_hashes(hashes: Sequence[bytes]) -> int:
    """Return the sum of hashes, each a little-endian number, modulo 2**128."""
    if not hashes:
        return 0
    halves: tuple[int, ...] = struct.unpack(f"<{2 * len(hashes)}Q", b"".join(hashes))
    low, high = sum(halves[0::2]), sum(halves[1::2])
    return (low + (high << 64)) % MODULUS


def tally_blocks(positions: Sequence[int], hashes: Sequence[bytes]) -> dict[int, Tally]:
    """Return the tally of each block; ``positions`` are those of the hashes, ascending."""
    found: dict[int, Tally] = {}
    start, size = 0, len(positions)
    while start < size:
        block = positions[start] >> BLOCK_SHIFT
        end = size
        if positions[-1] >> BLOCK_SHIFT != block:
            end = bisect_left(positions, (block + 1) << BLOCK_SHIFT, start)
        part = hashes[start:end]
        found[block] = Tally(len(part), sum_hashes(part))
        start = end
    return found
