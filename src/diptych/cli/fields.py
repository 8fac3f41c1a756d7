"""Messages from the words of a command line: ``order=42 total=9.90 lines:='[{"sku": "a"}]'``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches
from typing import Any, Literal

import msgspec

from diptych.cli.failures import UsageError
from diptych.cli.types import fields_of
from diptych.codec import Codec
from diptych.errors import Invalid

# A float in between would cost decimals their exactness.
_json = msgspec.json.Decoder(float_hook=Decimal)


def parse(
    codec: Codec, kind: Literal["command", "query"], name: str, words: Sequence[str], data: str
) -> Any:
    """Return the message that the words stand for; ``UsageError``, ``Invalid``."""
    registry = codec.commands if kind == "command" else codec.queries
    registered = registry.get(name)
    if registered is None:
        raise _unknown(codec, kind, name)
    if data and words:
        raise UsageError(
            "Give the fields one by one, or all in --data, not both", fields=" ".join(words)
        )
    try:
        if data:
            return codec.parse(registry, name, sys.stdin.read() if data == "-" else data)
        return codec.validate(codec.from_text(registry, name, dict(_pairs(words))))[0]
    except Invalid as error:
        hint = _usage(registered.cls, name)
        if example := _example(registered.cls, error):
            hint = f"{example}; {hint}"
        raise UsageError(error.message, code=error.code, hint=hint, **error.facts) from error


def _pairs(words: Sequence[str]) -> list[tuple[str, Any]]:
    found: dict[str, Any] = {}
    for word in words:
        left, sign, right = word.partition("=")
        raw = left.endswith(":")
        field = left.removesuffix(":")
        if not sign or not field:
            raise UsageError(
                "A field is written NAME=TEXT or NAME:=JSON", code="invalid", got=repr(word)
            )
        if field in found:
            raise UsageError(
                "A field is given once; a list is written NAME:='[...]'",
                code="invalid",
                field=field,
            )
        found[field] = _decoded(field, right) if raw else right
    return list(found.items())


def _decoded(field: str, text: str) -> Any:
    try:
        return _json.decode(text)
    except msgspec.DecodeError as error:
        raise UsageError(
            "What follows := is JSON; write = for plain text",
            code="invalid",
            field=field,
            got=text,
            why=error,
        ) from error


def _usage(cls: type, name: str) -> str:
    fields = ", ".join(
        f"{one['name']}: {one['type']}" + ("" if one["required"] else " (optional)")
        for one in fields_of(cls)
    )
    return f"{name} takes {fields or 'no fields'}"


def _example(cls: type, error: Invalid) -> str:
    """Return how a value of a field is written, where that is not plain; else ""."""
    field, rule = str(error.facts.get("field", "")), str(error.facts.get("rule", ""))
    if rule.startswith(("Expected `array`", "Expected `object`")):
        known = {one["name"]: one["type"] for one in fields_of(cls)}
        json = _JSON.get(known.get(field, ""), "[…]" if "array" in rule else "{…}")
        return f"write {field}:='{json}'"
    if "datetime" in rule:
        return f"write {field}=2026-01-31T09:30:00Z"
    if rule.endswith("RFC3339 encoded date"):
        return f"write {field}=2026-01-31"
    return ""


_JSON = {"list[str]": '["A1","A2"]', "list[int]": "[1,2]"}


def _unknown(codec: Codec, kind: Literal["command", "query"], name: str) -> UsageError:
    own, other = codec.commands, codec.queries
    hint = ""
    if kind == "query":
        own, other = other, own
    if name in other:
        verb = "ask" if kind == "command" else "do"
        hint = f"{name} is a {'query' if kind == 'command' else 'command'}: diptych {verb} {name}"
    else:
        lower = {known.lower(): known for known in own}
        close = [lower[one] for one in get_close_matches(name.lower(), lower)]
        if close:
            hint = f"did you mean {' or '.join(close)}?"
        else:
            hint = f"there is {', '.join(sorted(own)) or 'none'}"
    return UsageError(f"There is no {kind} {name}", code="unknown-message", hint=hint)
