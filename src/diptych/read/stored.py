"""What the SQL stores have written, read back: by hand anything may have been made of it.

None of it may end a program, nor concern other projections. What is not as it was written gets a
value that is never written (a digest that no sum has), so that its projection is refused, or found
wrong by ``verify``; and it stays wrong with all that is added to it later.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from diptych.read.port import Checkpoint, Proof, Tally
from diptych.read.proving.proof import NO_DIGEST

NO_TIME: Final = datetime.fromtimestamp(0, UTC)
"""What a time is read as that is none."""

_is_digest = re.compile(r"[0-9a-f]{32}").fullmatch


def checkpoint_of(row: Sequence[Any]) -> Checkpoint:
    """Return a checkpoint from its row."""
    projection, slice_, slices, log, position, event_id, count, digest, time, tallies, rev = row
    numbers = [slice_, slices, position, count, rev]
    whole = [n if type(n) is int and n >= 0 else None for n in numbers]
    slice_, slices, position, count, rev = (n or 0 for n in whole)
    return Checkpoint(
        projection,
        log,
        position,
        event_id,
        count,
        NO_DIGEST if None in whole else digest_of(digest),
        moment_of(time),
        slice_,
        slices,
        _bytes(tallies),
        rev,
    )


def checkpoints_of(rows: Iterable[Sequence[Any]]) -> dict[str, list[Checkpoint]]:
    """Return all checkpoints, by projection."""
    found: dict[str, list[Checkpoint]] = {}
    for row in rows:
        found.setdefault(row[0], []).append(checkpoint_of(row))
    return found


def tally_of(count: Any, digest: Any) -> Tally:
    """Return the tally of a block from its columns."""
    return Tally(count, digest_of(digest)) if type(count) is int else Tally(0, NO_DIGEST)


def blocks_of(rows: Iterable[Sequence[Any]]) -> dict[int, Tally]:
    """Return the tallies of blocks from rows of number, count and digest."""
    found: dict[int, Tally] = {}
    for block, count, digest in rows:
        sound = type(block) is int
        number, tally = (block, tally_of(count, digest)) if sound else (0, Tally(0, NO_DIGEST))
        found[number] = found.get(number, Tally()).plus(tally)
    return found


def proofs_of(rows: Iterable[Sequence[Any]]) -> dict[str, Proof]:
    """Return what verify found last, by projection; nothing where that cannot be read."""
    found: dict[str, Proof] = {}
    for row in rows:
        values = dict(zip(Proof.__struct_fields__, row, strict=True))
        try:
            values |= {"ok": bool(values["ok"]), "unknown": msgspec.json.decode(values["unknown"])}
            if isinstance(values["reach"], str):
                values["reach"] = msgspec.json.decode(values["reach"])
            values["time"] = moment_of(values["time"])
            found[row[0]] = msgspec.convert(values, Proof)
        except (msgspec.MsgspecError, TypeError):
            continue
    return found


def digest_of(text: Any) -> int:
    """Return a digest from its 32 hexadecimal digits; ``NO_DIGEST`` where they are none."""
    return int(text, 16) if isinstance(text, str) and _is_digest(text) else NO_DIGEST


def moment_of(stored: Any) -> datetime | None:
    """Return a time that was written as one or as ISO 8601; None where there is none."""
    try:
        found = stored if isinstance(stored, datetime) else datetime.fromisoformat(stored)
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _bytes(stored: Any) -> bytes:
    try:
        return bytes.fromhex(stored) if isinstance(stored, str) else bytes(memoryview(stored))
    except (TypeError, ValueError):
        return b""
