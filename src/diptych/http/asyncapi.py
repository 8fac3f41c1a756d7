"""``/asyncapi.json``: the streams of the service, as AsyncAPI 3.0, from the types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from diptych.http.messages import EVENTS
from diptych.http.openapi import Describing, operation, versioned
from diptych.http.schemas import WHERE, Schema, described
from diptych.messages import type_hints

if TYPE_CHECKING:
    from diptych.app.modules import Definitions
    from diptych.http.door import Role


def asyncapi(definitions: Definitions, role: Role) -> Schema:
    """Return the description of an application's streams, as AsyncAPI 3.0."""
    one = Describing(definitions, role)
    channels: Schema = {}
    operations: Schema = {}
    messages: Schema = {}
    for name, registered in one.queries.items():
        ident = operation("", name)
        told: Schema = {
            "allOf": [{"$ref": WHERE + "LiveAnswer"}, {"properties": {"value": one.results[name]}}]
        }
        messages[ident] = {
            "name": name,
            "title": f"The answer to {name}",
            "contentType": "application/json",
            "payload": told,
        }
        cls: Any = registered.cls
        channels[ident] = {
            "address": f"/queries/{name}",
            "title": name,
            "description": described(cls, one.answers[cls].function)
            or f"The answer to {name}, then each one that differs from the last.",
            "messages": {ident: {"$ref": f"#/components/messages/{ident}"}},
        }
        properties = {field: one.fields[name, field] for field in type_hints(cls)}
        required = [f.name for f in msgspec.structs.fields(cls) if f.required]
        query: Schema = {"type": "object", "properties": properties, "required": required}
        operations[operation("follow", name)] = {
            "action": "send",
            "channel": {"$ref": f"#/channels/{ident}"},
            "summary": f"With Accept: {EVENTS}; resumed by Last-Event-ID.",
            "bindings": {"http": {"method": "GET", "query": query, "bindingVersion": "0.3.0"}},
        }
    if one.events:
        _describe_events(one, channels, operations, messages)
    content: Schema = {
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations,
        "components": {"schemas": one.schemas.components, "messages": messages},
    }
    return versioned("asyncapi", "3.0.0", definitions, content)


def _describe_events(
    one: Describing, channels: Schema, operations: Schema, messages: Schema
) -> None:
    for name, registered in one.events.items():
        data = {"type": {"const": name}, "data": one.recorded[name]}
        messages[operation("event_", name)] = {
            "name": name,
            "title": name,
            "summary": described(registered.cls).partition("\n")[0],
            "contentType": "application/json",
            "payload": {"allOf": [{"$ref": WHERE + "Told"}, {"properties": data}]},
        }
    listed = [operation("event_", name) for name in one.events]
    channels["events"] = {
        "address": "/events",
        "title": "The log",
        "description": "The events as they are recorded.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in listed},
    }
    names: Schema = {"type": "array", "items": {"enum": list(one.events)}}
    tags: Schema = {"type": "array", "items": {"type": "string"}}
    query: Schema = {
        "type": "object",
        "properties": {"types": names, "tags": tags, "after": {"type": "string"}},
    }
    operations["readEvents"] = {
        "action": "send",
        "channel": {"$ref": "#/channels/events"},
        "summary": "Resumed by Last-Event-ID.",
        "bindings": {"http": {"method": "GET", "query": query, "bindingVersion": "0.3.0"}},
    }


__all__ = ["asyncapi"]
