"""From a request to its answer: metadata, the content a key stands for, receipts, errors."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from diptych.errors import (
    Conflict,
    DiptychError,
    KeyReused,
    OutcomeUnknown,
    ProjectionFailed,
    Rejected,
    Unavailable,
)
from diptych.log import Appended, Refused
from diptych.messages import Actor, Metadata, new_id, require_text
from diptych.write.entry import Entry, Receipt

to_json = msgspec.json.Encoder(enc_hook=str).encode


def new_metadata(
    *,
    key: str | None,
    actor: Actor | None,
    correlation_id: str | None,
    causation_id: str | None,
) -> Metadata:
    """Return the metadata of a command that has just arrived; ``Invalid`` for a bad text."""
    if not (key is correlation_id is causation_id is None):
        texts = {"key": key, "correlation_id": correlation_id, "causation_id": causation_id}
        for name, text in texts.items():
            if text is not None:
                require_text(name, text)
    command_id = new_id()
    known = {} if actor is None else known_of(actor)
    correlation_id = correlation_id or command_id
    return Metadata(datetime.now(UTC), command_id, correlation_id, causation_id, **known)


def known_of(actor: Actor | None) -> dict[str, Any]:
    """Return what metadata say of who acted."""
    if actor is None:
        return {}
    return {"actor": actor.id, "tenant": actor.tenant, "roles": tuple(sorted(actor.roles))}


def content_of(name: str, payload: bytes, actor: Actor | None) -> bytes:
    """Return the digest by which a key's next request is known to be the same.

    Who acts is part of it, or one could fetch another's answer by his key. Roles are not: they may
    have changed before the retry.
    """
    content = name.encode() + b"\0" + payload
    if actor is not None:  # \1 stands neither in JSON nor in an actor's texts
        content += b"\1" + actor.id.encode()
        if actor.tenant is not None:
            content += b"\1" + actor.tenant.encode()
    return blake2b(content, digest_size=16).digest()


def receipt(log: str, metadata: Metadata, outcome: Appended) -> Receipt:
    """Return a command's receipt."""
    return Receipt(log, metadata.command_id, outcome.first, outcome.last, outcome.replayed)


def rejection_json(rejection: Rejected) -> bytes:
    """Return a rejection as it is kept under a key."""
    return to_json({"reason": rejection.reason, "code": rejection.code, "facts": rejection.facts})


def rejection_of(kept: bytes) -> Rejected:
    """Return the rejection that was kept under a key."""
    found: dict[str, Any] = msgspec.json.decode(kept)
    return Rejected(found["reason"], code=found["code"], **found["facts"])


def conflict(entry: Entry, outcome: Refused) -> Conflict:
    """Return the error for a command that was overtaken too often."""
    slot = entry.reads[outcome.condition].slot
    return Conflict(
        f"{entry.decision.command.__name__} was overtaken by other events each time it was "
        "decided; send it again",
        position=outcome.position,
        boundary=" ".join((slot.model.name, *slot.key[1])),
        attempts=entry.attempts,
    )


def refusal(command: str, key: str | None, outcome: Refused) -> DiptychError:
    """Return the error for an append that was refused for another reason than a conflict."""
    if outcome.reason == "key-reused":
        return KeyReused(
            "The idempotency key was used before, with other content or by another actor; use a "
            "new key for a new command",
            key=key,
        )
    if isinstance(outcome.error, (Unavailable, OutcomeUnknown)):
        return outcome.error  # the database went away while appends were stored one by one
    failure = ProjectionFailed(
        "An inline projection failed on this command's events; nothing was stored",
        command=command,
        why=outcome.error,
    )
    failure.__cause__ = outcome.error
    return failure
