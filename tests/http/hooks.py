"""What schemathesis cannot know, or gets wrong."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any

import schemathesis

_numbers = count()


@schemathesis.serializer("application/x-ndjson")
def lines(context: Any, value: Any) -> bytes:
    """Write a batch; what is no line of one is sent all the same."""
    if isinstance(value, bytes):
        return value
    given = value if isinstance(value, list) else [value]
    return b"".join(json.dumps(one, default=str).encode() + b"\n" for one in given)


@schemathesis.deserializer("application/x-ndjson", "text/event-stream")
def whole(context: Any, response: Any) -> Any:
    """Read answers that are told line by line as the text that they are."""
    return response.text


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Correct what is to be accepted; what is to be refused stays as it is."""
    if case.meta is not None and not case.meta.generation.mode.is_positive:
        return
    headers = case.headers or {}
    if (key := headers.get("Idempotency-Key")) is not None:
        # A key is for one command only.
        plain = key.replace('"', "")[:200]
        headers["Idempotency-Key"] = f"{plain}-{next(_numbers)}"
    # In its coverage phase it overlooks the pattern of this one.
    if not re.fullmatch(r"[0-9a-zA-Z-]{1,64}\.[0-9]{1,18}", headers.get("Diptych-After", "x.1")):
        del headers["Diptych-After"]
    if case.path == "/events":
        # A position has to be one that the log has; what is another log's is 410.
        for given, name in ((case.query, "after"), (headers, "Last-Event-ID")):
            if "." not in (given or {}).get(name, "."):
                given[name] = "0"
    case.body = _whole(case.body)


def _whole(value: Any) -> Any:
    """To JSON Schema 5.0 is an integer, to msgspec a float."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_whole(one) for one in value]
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    return value
