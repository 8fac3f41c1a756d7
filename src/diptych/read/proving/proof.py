"""The proof: count and digest of what a projection has applied.

An effect is an event applied to a key. Its hash is the product, modulo 2**128, of two odd numbers:
BLAKE2b (RFC 7693) of the event's position and id, and BLAKE2b of the key in canonical JSON. So an
event is hashed once for all projections, and a key once for all its events. A digest is the sum of
hashes modulo 2**128: it does not depend on how effects were batched, and differences can be taken
apart. The engine and ``verify`` both use the functions here, and nothing else does.
"""

from __future__ import annotations

import enum
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from hashlib import blake2b
from typing import Any, Final, TypeGuard
from uuid import UUID

import msgspec
from msgspec import Struct

from diptych.log import StoredEvent

MODULUS: Final = 1 << 128
MASK: Final = MODULUS - 1
BLOCK_SHIFT: Final = 10
"""Count and digest are kept for each block of 1024 positions too: block = position >> 10."""

NO_DIGEST: Final = -1
"""What stands for a stored digest that is none: no sum is that, nor with any sum added to it."""

KEYS_KEPT: Final = 20_000

# Of the program's own context nothing may depend: two programs would not agree on a key.
_EXACT: Final = Context(MAX_PREC, Emin=MIN_EMIN, Emax=MAX_EMAX)
_OF_FLOATS: Final = Context(28)
"""Of a float's digits as many as tell it from all others."""

_encode = msgspec.json.Encoder().encode
_PACKED: Final = struct.Struct("<QQQ")
"""A tally in a checkpoint: its count, and its digest's lower and higher half."""


class Tally(Struct, frozen=True):
    """How many effects, and the sum of their hashes."""

    count: int = 0
    digest: int = 0

    def plus(self, other: Tally) -> Tally:
        """Return both together."""
        return Tally(self.count + other.count, (self.digest + other.digest) % MODULUS)

    def minus(self, other: Tally) -> Tally:
        """Return what is left without the other's effects."""
        return Tally(self.count - other.count, (self.digest - other.digest) % MODULUS)


# --- hashes ---------------------------------------------------------------------------------------


def hash_event(position: int, event_id: str) -> int:
    """Return an event's part of the hash of its effects."""
    digest = blake2b(b"%d %b" % (position, event_id.encode()), digest_size=16).digest()
    return int.from_bytes(digest, "little") | 1


def hash_events(events: Iterable[StoredEvent]) -> list[int]:
    """Return the same of several, without a call for each."""
    return [
        int.from_bytes(
            blake2b(b"%d %b" % (stored.position, stored.id.encode()), digest_size=16).digest(),
            "little",
        )
        | 1
        for stored in events
    ]


def hash_key(key: Any) -> int:
    """Return a key's part of the hash of its effects; keys that are equal have the same."""
    return hash_text(_encode(_canonical(key)))


def key_text(key: Any) -> str:
    """Return a key in canonical JSON."""
    return _encode(_canonical(key)).decode()


def hash_text(canonical: bytes) -> int:
    """Return the hash of a key that is given in canonical JSON."""
    return int.from_bytes(blake2b(canonical, digest_size=16).digest(), "little") | 1


def slice_of(key: Any, slices: int) -> int:
    """Return the slice that a key belongs to."""
    return (hash_key(key) >> 64) % slices


class KeyHashes(dict[Any, tuple[int, int]]):
    """(hash, slice) of a key, by the key; call ``trim`` now and then."""

    def __init__(self, slices: int) -> None:
        super().__init__()
        self.slices = slices

    def __missing__(self, key: Any) -> tuple[int, int]:
        number = hash_key(key)
        pair = self[key] = (number, (number >> 64) % self.slices)
        return pair

    def trim(self) -> None:
        """Forget all when there are many."""
        if len(self) > KEYS_KEPT:
            self.clear()


def _is_tuple(key: Any) -> TypeGuard[tuple[Any, ...]]:
    return isinstance(key, tuple)


_AS_THEY_ARE: Final = frozenset((type(None), str, int, date, UUID))
"""Types whose values are in canonical form."""


def _canonical(key: Any) -> Any:
    if type(key) in _AS_THEY_ARE:
        return key
    if _is_tuple(key):
        if _AS_THEY_ARE.issuperset(map(type, key)):
            return key
        return [_canonical(part) for part in key]
    if isinstance(key, enum.Enum):
        return _canonical(key.value)
    if isinstance(key, (int, float, Decimal)):  # 1, 1.0, 1.00 and True are equal, so one key
        if key == int(key):
            return int(key)
        context = _OF_FLOATS if isinstance(key, float) else _EXACT
        return {"number": format(Decimal(key).normalize(context), "f")}
    if isinstance(key, datetime) and key.tzinfo is not None:
        return key.astimezone(UTC)
    return str(key) if isinstance(key, str) else key


# --- sums -----------------------------------------------------------------------------------------


def tally_blocks(positions: Sequence[int], hashes: Sequence[int]) -> dict[int, Tally]:
    """Return the tally of each block; ``positions`` are those of the hashes, ascending."""
    found: dict[int, Tally] = {}
    start, size = 0, len(positions)
    while start < size:
        block = positions[start] >> BLOCK_SHIFT
        end = size
        if positions[-1] >> BLOCK_SHIFT != block:
            end = bisect_left(positions, (block + 1) << BLOCK_SHIFT, start)
        found[block] = Tally(end - start, sum(hashes[start:end]) & MASK)
        start = end
    return found


def tally_slices(slices: Sequence[int], hashes: Sequence[int]) -> dict[int, Tally]:
    """Return the tally of each slice; ``slices`` are those of the hashes."""
    counts = Counter(slices)
    sums = dict.fromkeys(counts, 0)
    for number, value in zip(slices, hashes, strict=True):
        sums[number] += value
    return {number: Tally(counts[number], total & MASK) for number, total in sums.items()}


def total_of(tallies: Iterable[Tally]) -> Tally:
    """Return tallies added up."""
    count = digest = 0
    for tally in tallies:
        count += tally.count
        digest += tally.digest
    return Tally(count, digest & MASK)


# --- packed ---------------------------------------------------------------------------------------


def pack(tallies: Iterable[Tally]) -> bytes:
    """Return tallies as a checkpoint holds them: 24 bytes each."""
    return b"".join(
        _PACKED.pack(t.count, t.digest & 0xFFFF_FFFF_FFFF_FFFF, t.digest >> 64) for t in tallies
    )


def unpack(packed: bytes) -> list[Tally]:
    """Return the tallies that a checkpoint holds."""
    return [Tally(count, low | high << 64) for count, low, high in _PACKED.iter_unpack(packed)]


def is_whole(packed: bytes, slices: int) -> bool:
    """Whether packed tallies are those of so many slices."""
    return len(packed) == slices * _PACKED.size


def add_packed(packed: bytes, more: Mapping[int, Tally]) -> bytes:
    """Return packed tallies with others, by index, added."""
    changed = bytearray(packed)
    size = _PACKED.size
    for index, tally in more.items():
        count, low, high = _PACKED.unpack_from(packed, index * size)
        digest = (tally.digest + (low | high << 64)) & MASK
        _PACKED.pack_into(
            changed,
            index * size,
            count + tally.count,
            digest & 0xFFFF_FFFF_FFFF_FFFF,
            digest >> 64,
        )
    return bytes(changed)
