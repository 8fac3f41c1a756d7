"""JSON Schemas of an application's messages and answers, from their types."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, TypeAlias, Union, cast, get_args, get_origin

import msgspec
from msgspec import Struct

from diptych.codec import DECIMAL
from diptych.messages import type_hints

Schema: TypeAlias = dict[str, Any]

WHERE: Final = "#/components/schemas/"


class Schemas:
    """Schemas for one description, and ``components``, which they refer to.

    What is sent may be written in more ways than what is answered: a decimal as text or number.
    A type that stands on both sides has a component for each, where they differ.
    """

    def __init__(self, sent: Iterable[Any], answered: Iterable[Any]) -> None:
        answers = _made(answered, sent=False)
        requests = _made(sent, sent=True)
        both = {n for n in requests[1] if answers[1].get(n, requests[1][n]) != requests[1][n]}
        self.sent: list[Schema] = [_renamed(one, both) for one in requests[0]]
        self.answered: list[Schema] = answers[0]
        self.components: dict[str, Schema] = dict(answers[1])
        for name, one in requests[1].items():
            self.components[f"{name}Sent" if name in both else name] = _renamed(one, both)


def _made(hints: Iterable[Any], *, sent: bool) -> tuple[list[Schema], dict[str, Schema]]:
    listed = list(hints)
    made, components = msgspec.json.schema_components(listed, ref_template=WHERE + "{name}")
    structs: dict[str, type] = {}
    for hint, schema in zip(listed, made, strict=True):
        _visit(hint, schema, components, structs)
    for name, schema in components.items():
        if name in structs:
            schema["description"] = described(structs[name]) or schema.get("description", "")
            if not schema["description"]:
                del schema["description"]
    tidied = [_tidied(_plain(one), sent=sent) for one in made]
    return tidied, {name: _tidied(_plain(one), sent=sent) for name, one in components.items()}


def _plain(schema: Schema) -> Schema:
    """Return a schema as JSON would give it back: defaults are Python's values."""
    plain: Schema = msgspec.json.decode(msgspec.json.encode(schema, enc_hook=str))
    return plain


def _visit(hint: Any, schema: Any, components: Mapping[str, Any], seen: dict[str, type]) -> None:
    """Mark times, which msgspec leaves without a format, in a type's schema and all below it."""
    origin: Any = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        _visit(args[0], schema, components, seen)
    elif origin in (Union, types.UnionType):
        for branch in schema.get("anyOf", [schema]):
            for arg in args:
                _visit(arg, branch, components, seen)
    elif hint is datetime:
        if schema.get("type") == "string":
            schema["format"] = "date-time"
    elif "$ref" in schema:
        name = schema["$ref"].removeprefix(WHERE)
        if name not in seen and inspect.isclass(hint) and issubclass(hint, Struct):
            if components[name].get("title") != hint.__name__:
                return  # another branch of a union
            seen[name] = hint
            hints = type_hints(hint)
            fields = msgspec.structs.fields(hint)
            for field in fields:
                part = components[name].get("properties", {}).get(field.encode_name)
                if part is not None:
                    _visit(hints[field.name], part, components, seen)
    elif inspect.isclass(origin) and issubclass(origin, Mapping):
        if isinstance(schema.get("additionalProperties"), dict):
            _visit(args[1], schema["additionalProperties"], components, seen)
    elif inspect.isclass(origin) and issubclass(origin, Collection):
        items = schema.get("prefixItems") or [schema.get("items")]
        for arg, item in zip([arg for arg in args if arg is not ...], items, strict=False):
            if isinstance(item, dict):
                _visit(arg, item, components, seen)


def _tidied(part: Any, *, sent: bool) -> Any:
    """Return a schema with what generators and validators need to know besides."""
    if isinstance(part, list):
        return [_tidied(one, sent=sent) for one in _items(part)]
    if not isinstance(part, dict):
        return part
    known = cast(Schema, part)
    schema: Schema = {name: _tidied(one, sent=sent) for name, one in known.items()}
    if schema.get("format") == "decimal":
        if "default" in schema:
            schema["default"] = str(schema["default"])
        if sent:
            schema["type"] = ["string", "number"]
        schema["pattern"] = DECIMAL
    return schema


def _items(several: Any) -> list[Any]:
    return list(several)


def _renamed(schema: Any, names: Collection[str]) -> Any:
    if isinstance(schema, list):
        return [_renamed(one, names) for one in _items(schema)]
    if not isinstance(schema, dict):
        return schema
    found: Schema = {k: _renamed(one, names) for k, one in cast(Schema, schema).items()}
    name = str(found.get("$ref", "")).removeprefix(WHERE)
    if name in names:
        found["$ref"] = f"{WHERE}{name}Sent"
    return found


def described(*things: Any) -> str:
    """Return the first documentation that one of these has of its own, in Markdown."""
    for thing in things:
        text = vars(thing).get("__doc__") if isinstance(thing, type) else thing.__doc__
        if text and not text.startswith(f"{getattr(thing, '__name__', '')}("):
            return re.sub(r"``([^`]+)``", r"`\1`", inspect.cleandoc(text))
    return ""


# --- examples -------------------------------------------------------------------------------------

_TEXTS: Final = {
    "date-time": "2026-01-31T09:30:00Z",
    "date": "2026-01-31",
    "time": "09:30:00Z",
    "uuid": "0190f7a2-7d0b-7c3a-9b1e-2f5c8a7e4d10",
    "decimal": "9.50",
    "duration": "PT90S",
    "byte": "ZGlwdHljaA==",
}


def example_of(
    schema: Schema, components: Mapping[str, Schema], name: str = "", within: int = 0
) -> Any:
    """Return a value that fits a schema, as far as one can be made up."""
    if "$ref" in schema:
        schema = components[schema["$ref"].removeprefix(WHERE)]
    if found := schema.get("examples"):
        return found[0]
    for known in ("const", "default"):
        if schema.get(known) is not None:
            return schema[known]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        branches = [one for one in schema["anyOf"] if one.get("type") != "null"]
        return example_of((branches or schema["anyOf"])[0], components, name, within)
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = cast("list[str]", kind)[0]
    if kind == "object":
        fields: Schema = schema.get("properties", {})
        wanted = fields if within < 3 else schema.get("required", ())
        return {n: example_of(fields[n], components, n, within + 1) for n in wanted}
    if kind == "array":
        items: Any = schema.get("prefixItems") or [schema.get("items")]
        if within >= 3 and not schema.get("minItems"):
            return []
        return [
            example_of(cast(Schema, one), components, name, within + 1)
            for one in items
            if isinstance(one, dict)
        ]
    return _scalar(kind, schema, name)


def _scalar(kind: Any, schema: Schema, name: str) -> Any:
    if kind == "string":
        text = _TEXTS.get(schema.get("format", ""), name or "text")
        most = schema.get("maxLength")
        return text.ljust(schema.get("minLength", 0), "x")[:most]
    if kind in ("integer", "number"):
        least = schema.get("minimum", schema.get("exclusiveMinimum", 0) + 1)
        most = schema.get("maximum", schema.get("exclusiveMaximum", least + 1) - 1)
        return min(least, most) if "minimum" not in schema else least
    return True if kind == "boolean" else None


__all__ = ["WHERE", "Schema", "Schemas", "described", "example_of"]
