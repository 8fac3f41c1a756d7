"""What the floors store: rows of the same size as ours, and how they are decoded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec import Raw, Struct
from msgspec.json import Decoder

from bench.orders import Added, Confirmed, Opened
from diptych import Metadata

DATA: Final = b'{"order":"o-000001","product":"tea","quantity":2}'
_ID: Final = "0" * 36
METADATA: Final = (
    f'{{"time":"2026-01-01T00:00:00.000000Z","command_id":"{_ID}","correlation_id":"{_ID}"}}'
).encode()


class Stored(Struct, frozen=True, array_like=True, gc=False):
    """An event as it lies in a floor's table."""

    position: int
    id: str
    type: str
    tags: tuple[str, ...]
    data: Raw
    metadata: Raw


class Decoded(Struct, frozen=True, gc=False):
    """An event as a reader wants it."""

    position: int
    id: str
    event: Opened | Added | Confirmed
    tags: tuple[str, ...]
    metadata: Metadata


DECODE: Final[dict[str, Callable[[bytes | str], Opened | Added | Confirmed]]] = {
    "Opened": Decoder(Opened).decode,
    "Added": Decoder(Added).decode,
    "Confirmed": Decoder(Confirmed).decode,
}
DECODE_METADATA: Final = Decoder(Metadata).decode
DECODE_TAGS: Final = Decoder(tuple[str, ...]).decode
