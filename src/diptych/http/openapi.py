"""``/openapi.json``: what the service takes and answers, as OpenAPI 3.1, from the types."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Final

import msgspec

from diptych.codec import Registered
from diptych.errors import DiptychError
from diptych.http.commands import Accepted
from diptych.http.events import Told
from diptych.http.fields import form_of
from diptych.http.live import LiveAnswer
from diptych.http.messages import EVENTS, LINES, TOKEN
from diptych.http.problems import DOOR, ERRORS, FAULT, MEDIA_TYPE
from diptych.http.schemas import WHERE, Schema, Schemas, described, example_of
from diptych.messages import type_hints
from diptych.read.queries import result_of

if TYPE_CHECKING:
    from diptych.app.modules import Definitions
    from diptych.http.door import Role

PROBLEM: Final[Schema] = {
    "title": "Problem",
    "description": "What went wrong (RFC 9457). `code` is stable, for programs; `detail` is for "
    "people; `facts` are about this case.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "`urn:diptych:` and the kind of problem."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"type": "string"},
        "instance": {"type": "string", "description": "Under this id it has been logged."},
        "facts": {"type": "object"},
    },
    "required": ["type", "title", "status", "detail", "code"],
}

_TOKEN: Final[Schema] = {
    "description": "Stands for a place in the log: pass it on as `Diptych-After`.",
    "schema": {"type": "string", "pattern": TOKEN},
    "required": True,
}
_AS_OF: Final[Schema] = {
    "description": "The position in the log that the views had reached.",
    "schema": {"type": "integer", "minimum": 0},
    "required": True,
}
_AGE: Final[Schema] = {
    "description": "How old that is, seconds, rounded up; 0 is the present.",
    "schema": {"type": "integer", "minimum": 0},
    "required": True,
}
_STALE: Final[Schema] = {
    "description": "Only there where the token was not reached in time.",
    "schema": {"type": "string", "const": "true"},
}
_ETAG: Final[Schema] = {"schema": {"type": "string"}, "required": True}

_KEY: Final[Schema] = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "The same key again gives the first answer again, for ever. A UUID is one.",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
}
_AFTER: Final[Schema] = {
    "name": "Diptych-After",
    "in": "header",
    "description": "A token: answer with what it stands for.",
    "schema": {"type": "string", "pattern": TOKEN},
}
_PREFER: Final[Schema] = {
    "name": "Prefer",
    "in": "header",
    "description": "`wait=2`: how many seconds the views may take to reach the token. "
    "`handling=strict`: no stale answer, but 503.",
    "schema": {"type": "string"},
    "examples": {"both": {"value": "wait=2, handling=strict"}},
}

_COMMAND: Final = ("media-type", "too-large", "too-deep", "foreign-host", "foreign-origin")
_QUERY: Final = ("too-large", "too-deep", "foreign-host", "foreign-origin")


class Describing:
    """An application's addresses, and the schemas of what goes through them."""

    def __init__(self, definitions: Definitions, role: Role) -> None:
        codec = definitions.codec
        sees_commands = role in ("commands", "all")
        sees_queries = role in ("queries", "all")
        self.commands = dict(sorted(codec.commands.items())) if sees_commands else {}
        self.queries = dict(sorted(codec.queries.items())) if sees_queries else {}
        self.events = dict(sorted(codec.events.items())) if sees_queries else {}
        self.decisions = definitions.write.decisions
        self.answers = {one.query: one for one in definitions.answers}
        self.definitions = definitions
        fields = [
            (name, field, hint)
            for name, one in self.queries.items()
            for field, hint in type_hints(one.cls).items()
        ]
        sent = [one.cls for one in self.commands.values()] + [hint for *_, hint in fields]
        answered: list[Any] = [Accepted]
        classes: list[Any] = [one.cls for one in self.queries.values()]
        answered += [result_of(cls) for cls in classes]
        answered += [LiveAnswer, Told] if sees_queries else []
        answered += [one.cls for one in self.events.values()]
        self.schemas = Schemas(sent, answered)
        made = iter(self.schemas.sent)
        self.bodies = {name: next(made) for name in self.commands}
        self.fields = {(name, field): next(made) for name, field, _ in fields}
        self.results = dict(zip(self.queries, self.schemas.answered[1:], strict=False))
        last = len(answered) - len(self.events)
        self.recorded = dict(zip(self.events, self.schemas.answered[last:], strict=True))

    # --- commands ---------------------------------------------------------------------------------

    def command(self, name: str, registered: Registered) -> Schema:
        """Return ``POST /commands/{Name}``."""
        cls: Any = registered.cls
        decision = self.decisions[cls]
        body: Schema = {"schema": self.bodies[name]}
        if (example := self.example(name)) is not None:
            body["example"] = example
        text = described(cls, decision.function)
        return {
            "tags": ["commands"],
            "operationId": operation("do", name),
            "summary": text.partition("\n")[0] or name,
            "description": text,
            "parameters": [_KEY],
            "requestBody": {"required": True, "content": {"application/json": body}},
            "responses": {
                "200": {
                    "description": "Accepted and durable.",
                    "headers": {"Diptych-Token": _TOKEN},
                    "content": {"application/json": {"schema": {"$ref": WHERE + "Accepted"}}},
                },
                **problems(lambda error: error.__name__ not in _NOT_OF_COMMANDS, _COMMAND),
            },
        }

    def example(self, name: str) -> Any:
        """Return an example of a command's fields that is valid; None where none can be had."""
        made = example_of(self.bodies[name], self.schemas.components)
        codec = self.definitions.codec
        try:
            codec.parse(codec.commands, name, msgspec.json.encode(made))
        except DiptychError:
            return None
        return made

    def batch(self) -> Schema:
        """Return ``POST /commands``."""
        example: Schema = {
            "command": next(iter(self.commands), "Name"),
            "data": {},
            "key": "line-1",
        }
        return {
            "tags": ["commands"],
            "operationId": "doMany",
            "summary": "Send many commands, one a line.",
            "description": 'Each line is `{"command": Name, "data": {fields}, "key": …}`; the '
            "key is optional. Each is answered on a line of its own, in the same order, as soon as "
            'it is durable: `{"line": 1, "status": 200, "receipt": {…}}`, or `problem` in '
            "place of `receipt`. Lines that wait together share a transaction.",
            "requestBody": {
                "required": True,
                "content": {
                    LINES: {
                        "schema": {"type": "string"},
                        "example": msgspec.json.encode(example).decode() + "\n",
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "A line for each line.",
                    "content": {LINES: {"schema": {"type": "string"}}},
                },
                **problems(lambda error: False, _COMMAND),
            },
        }

    # --- queries ----------------------------------------------------------------------------------

    def query(self, name: str, registered: Registered) -> Schema:
        """Return ``GET /queries/{Name}``."""
        cls: Any = registered.cls
        text = described(cls, self.answers[cls].function)
        fresh = {
            "Diptych-As-Of": _AS_OF,
            "Diptych-Token": _TOKEN,
            "Diptych-Stale": _STALE,
            "Age": _AGE,
            "ETag": _ETAG,
        }
        fields = msgspec.structs.fields(cls)
        parameters = [self.parameter(name, one) for one in fields]
        known = {"name": "If-None-Match", "in": "header", "schema": {"type": "string"}}
        return {
            "tags": ["queries"],
            "operationId": operation("ask", name),
            "summary": text.partition("\n")[0] or name,
            "description": text,
            "parameters": [*parameters, _AFTER, _PREFER, known],
            "responses": {
                "200": {
                    "description": "The answer, and how fresh it is. With `Accept: "
                    "text/event-stream` the address is the live query: see /asyncapi.json.",
                    "headers": fresh,
                    "content": {"application/json": {"schema": self.results[name]}},
                },
                "304": {"description": "Still what the client has.", "headers": fresh},
                **problems(lambda error: error.__name__ in _OF_QUERIES, _QUERY),
            },
        }

    def parameter(self, name: str, field: msgspec.structs.FieldInfo) -> Schema:
        """Return a field of a query as a parameter."""
        schema = self.fields[name, field.name]
        hint = type_hints(self.queries[name].cls)[field.name]
        told: Schema = {"name": field.name, "in": "query", "required": field.required}
        if (text := schema.get("description")) is not None:
            told["description"] = text
        if form_of(hint) == "json":
            told["content"] = {"application/json": {"schema": schema}}
        else:
            told["schema"] = schema
        return told

    def stream(self) -> Schema:
        """Return ``GET /events``."""
        text: Schema = {"type": "string"}
        start: Schema = {**text, "pattern": r"^([0-9a-zA-Z-]{1,64}\.)?[0-9]{1,18}$"}

        def parameter(name: str, about: str, schema: Schema, where: str = "query") -> Schema:
            return {"name": name, "in": where, "description": about, "schema": schema}

        def some(item: Schema) -> Schema:
            return {"type": "array", "items": item, "minItems": 1}

        names: Schema = {**text, "enum": list(self.events)}
        tag: Schema = {**text, "pattern": "^[^:\\x00]+:[^\\x00]*$"}
        return {
            "tags": ["events"],
            "operationId": "readEvents",
            "summary": "Follow the log.",
            "description": "The events as they are recorded, as server-sent events: see "
            "/asyncapi.json.",
            "parameters": [
                parameter("types", "Of any of these types.", some(names)),
                parameter("tags", "With all of these tags.", some(tag)),
                parameter("after", "A token or a position; without, the head.", start),
                parameter("Last-Event-ID", "The token of the last event.", start, "header"),
            ],
            "responses": {
                "200": {"description": "A stream.", "content": {EVENTS: {"schema": text}}},
                **problems(lambda error: error.__name__ in _OF_QUERIES, _QUERY),
            },
        }


_NOT_OF_COMMANDS: Final = frozenset(
    ("ForeignCheckpoint", "StaleAnswer", "ViewNotReady", "CheckpointMoved")
)
_OF_QUERIES: Final = frozenset(
    ("Invalid", "ForeignCheckpoint", "Overloaded", "Unavailable", "StaleAnswer", "Closed",
     "ViewNotReady", "CheckpointMoved", "TimedOut", "NotAuthenticated", "NotAllowed")
)  # fmt: skip


def operation(verb: str, name: str) -> str:
    """Return an operation's id: generated clients name their functions by it."""
    return verb + re.sub(r"\W", "_", name)


def problems(of: Callable[[type[DiptychError]], bool], door: Sequence[str]) -> Schema:
    """Return the responses for those failures that can come, by status."""
    listed: dict[int, list[str]] = {FAULT.status: [f"{FAULT.title} (`fault` and others)"]}
    retried: set[int] = set()
    for error, answered in ERRORS.items():
        if of(error) and error.code != "unknown-message":
            code = "the code of the rejection" if error.code == "diptych" else f"`{error.code}`"
            listed.setdefault(answered.status, []).append(f"{answered.title} ({code})")
            if answered.retry is not None:
                retried.add(answered.status)
    for code in door:
        answered = DOOR[code]
        listed.setdefault(answered.status, []).append(f"{answered.title} (`{code}`)")
    found: Schema = {}
    for status, titles in sorted(listed.items()):
        told: Schema = {
            "description": "; ".join(titles) + ".",
            "content": {MEDIA_TYPE: {"schema": {"$ref": WHERE + "Problem"}}},
        }
        if status in retried:
            told["headers"] = {
                "Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}
            }
        found[str(status)] = told
    return found


def openapi(definitions: Definitions, role: Role) -> Schema:
    """Return the description of an application's addresses."""
    one = Describing(definitions, role)
    paths: Schema = {}
    for name, registered in one.commands.items():
        paths[f"/commands/{name}"] = {"post": one.command(name, registered)}
    if one.commands:
        paths["/commands"] = {"post": one.batch()}
    for name, registered in one.queries.items():
        paths[f"/queries/{name}"] = {"get": one.query(name, registered)}
    if role in ("queries", "all"):
        paths["/events"] = {"get": one.stream()}
    components = {"schemas": {**one.schemas.components, "Problem": PROBLEM}}
    return versioned("openapi", "3.1.0", definitions, {"paths": paths, "components": components})


def versioned(kind: str, version: str, definitions: Definitions, content: Schema) -> Schema:
    """Return a description, whose version is a digest: another one says something else."""
    digest = blake2b(msgspec.json.encode(content), digest_size=4).hexdigest()
    return {kind: version, "info": {"title": definitions.name, "version": digest}, **content}


__all__ = ["PROBLEM", "Describing", "openapi", "operation", "versioned"]
