"""From a request to its answer: metadata, the content a key stands for, receipts, errors."""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from diptych.errors import DiptychError, Invalid, KeyReused, ProjectionFailed, Rejected
from diptych.log import Appended, Refused
from diptych.messages import Metadata, new_id
from diptych.write.entry import Receipt

to_json = msgspec.json.Encoder(enc_hook=str).encode


def new_metadata(
    *, key: str | None, actor: str | None, correlation_id: str | None, causation_id: str | None
) -> Metadata:
    """Return the metadata of a command that has just arrived; ``Invalid`` for a bad text."""
    if not (key is actor is correlation_id is causation_id is None):
        _require_text(
            key=key, actor=actor, correlation_id=correlation_id, causation_id=causation_id
        )
    command_id = new_id()
    return Metadata(
        time=datetime.now(UTC),
        command_id=command_id,
        correlation_id=correlation_id or command_id,
        causation_id=causation_id,
        actor=actor,
    )


def _require_text(**fields: str | None) -> None:
    """Raise ``Invalid`` for what could not be kept beside an event for ever."""
    for field, text in fields.items():
        if text is not None and (type(text) is not str or not text or not text.isprintable()):
            raise Invalid(
                f"That is no {field.replace('_', ' ')}",
                field=field,
                rule="a text, not empty, printable characters only",
                got=repr(text),
            )


def content_of(name: str, payload: bytes) -> bytes:
    """Return the digest by which a key's next request is known to be the same."""
    return blake2b(name.encode() + b"\0" + payload, digest_size=16).digest()


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


def refusal(command: str, key: str | None, outcome: Refused) -> DiptychError:
    """Return the error for an append that was refused for another reason than a conflict."""
    if outcome.reason == "key-reused":
        return KeyReused(
            "The idempotency key was used before, with other content; use a new key for a new "
            "command",
            key=key,
            position=outcome.position,
        )
    failure = ProjectionFailed(
        "An inline projection failed on this command's events; nothing was stored",
        command=command,
        why=outcome.error,
    )
    failure.__cause__ = outcome.error
    return failure
