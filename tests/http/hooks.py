"""What schemathesis cannot know, or gets wrong."""

from __future__ import annotations

import re
from itertools import count
from typing import Any

import schemathesis

_numbers = count()


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
