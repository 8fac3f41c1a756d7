"""What passes through an application: commands, events, queries; tags; metadata."""

from __future__ import annotations

import enum
import os
import time
import uuid
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from datetime import datetime
from operator import attrgetter
from typing import (
    Annotated,
    Any,
    ClassVar,
    Final,
    Generic,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import Struct, StructMeta, field
from msgspec.structs import force_setattr

from diptych.errors import DefinitionError, Invalid, place

R = TypeVar("R")

LONGEST_TEXT: Final = 1000
"""How many bytes of UTF-8 an id, a type, a tag or a key has at most: indexes hold no more."""


class Tag:
    """Marks a field whose value tags the message: ``Annotated[str, Tag("order")]``.

    The field's type is str, int, UUID or an enum, or one of these or None (None: no tag).
    """

    __slots__ = ("key",)

    def __init__(self, key: str) -> None:
        if not key or ":" in key:
            raise DefinitionError("A tag's key is a word without ':'", at=f"Tag({key!r})")
        self.key = key

    def __repr__(self) -> str:
        return f"Tag({self.key!r})"


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class MessageMeta(StructMeta):
    """Frozen structs, known to type checkers as such, with a stored name and a schema version."""

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        stored_as: str | None = None,
        version: int = 1,
        **options: Any,
    ) -> Any:
        options.setdefault("frozen", True)
        # Values that come from JSON form no cycles: the collector need not look at them.
        # Those that keep what they have computed (dict=True) may, and msgspec insists.
        computing = options.get("dict") or any(
            getattr(getattr(base, "__struct_config__", None), "dict", False) for base in bases
        )
        options.setdefault("gc", bool(computing))
        cls = super().__new__(mcls, name, bases, namespace, **options)
        cls.message_name = stored_as or name
        cls.schema_version = version
        return cls

    message_name: str
    schema_version: int


class Message(Struct, metaclass=MessageMeta):
    """The common root of commands, events and queries: a frozen ``msgspec.Struct``.

    Class keywords: ``stored_as`` (the name in logs and addresses; default: the class's name) and
    ``version`` (the schema version written to an event's metadata; default: 1).
    """

    message_name: ClassVar[str]
    schema_version: ClassVar[int]


class Command(Message, forbid_unknown_fields=True):
    """A request to change something. It may be rejected."""


class Event(Message):
    """A fact that was decided. It is never changed and never deleted.

    A field that a later version drops is passed over when an older event is read.
    """


class Query(Message, Generic[R], forbid_unknown_fields=True):
    """A request to read, answered with an ``R``. It changes nothing."""


_WAYS: dict[type[Message], tuple[str, str]] = {
    Command: ("a command", "give it to do()"),
    Query: ("a query", "give it to ask()"),
    Event: ("an event", "events are what decisions yield"),
}


def require_kind(message: object, kind: type[Message]) -> None:
    """Raise ``Invalid`` unless this is a message of the kind: ``Command``, ``Query``, ``Event``."""
    if isinstance(message, kind):
        return
    wanted, got = kind.__name__.lower(), type(message).__name__
    text = f"That is no {wanted}"
    if isinstance(message, type):
        got = message.__name__
        text = f"That is a type; give an instance of it: {got}(...)"
    for other, (called, way) in _WAYS.items():
        if isinstance(message, other):
            text = f"That is {called}, no {wanted}; {way}"
    raise Invalid(text, field=wanted, rule=f"an instance of a {kind.__name__}", got=got)


class Actor(Struct, frozen=True):
    """Who acts: an id, roles, and the tenant on whose data (None: of no tenant).

    ``roles`` may be given as any set, list or tuple of texts, and is a frozenset afterwards.
    Subclass it to give rules more to go by. Raises ``Invalid``.
    """

    id: str
    roles: AbstractSet[str] = frozenset()
    tenant: str | None = None

    def __post_init__(self) -> None:
        """Refuse what would pass for somebody else, such as the empty id of a missing claim."""
        given: Any = self.roles
        if not isinstance(given, (AbstractSet, list, tuple)):
            raise Invalid(
                "Roles are given as a set",
                field="roles",
                rule='a set of texts: {"clerk"}',
                got=repr(given)[:100],
            )
        force_setattr(self, "roles", frozenset(self.roles))
        named = [("actor", self.id), *[("role", role) for role in self.roles]]
        if self.tenant is not None:
            named.append(("tenant", self.tenant))
        for field_name, text in named:
            require_text(field_name, text)


def actor_of(given: Actor | str | None) -> Actor | None:
    """Return who acts, from what ``actor=`` was given: an id alone has no roles and no tenant."""
    if given is None or isinstance(given, Actor):
        return given
    return Actor(given)


def everybody_may(_actor: Actor | None, _message: Message) -> None:
    """Allow everything, as an application without rules does."""


def require_text(name: str, given: object) -> None:
    """Raise ``Invalid`` for what could not be kept beside an event for ever."""
    if type(given) is not str or not given or not given.isprintable():
        rule = "a text, not empty, printable characters only"
    elif len(given) > LONGEST_TEXT // 4 and len(given.encode()) > LONGEST_TEXT:
        rule = f"at most {LONGEST_TEXT} bytes"
    else:
        return
    raise Invalid(
        f"That is no {name.replace('_', ' ')}", field=name, rule=rule, got=repr(given)[:100]
    )


class Metadata(Struct, frozen=True, omit_defaults=True, gc=False):
    """What is known about an event beside its data.

    ``correlation_id`` is shared by all that one outside request led to; ``causation_id`` is the
    message that led to the command (None: it came from outside). ``actor`` is the id of who acted,
    ``tenant`` and ``roles`` (in order) are what he had then. ``traceparent`` is the command's span
    (W3C Trace Context), where it was traced.
    """

    time: datetime
    command_id: str
    correlation_id: str
    causation_id: str | None = None
    actor: str | None = None
    schema_version: int = 1
    tenant: str | None = None
    roles: tuple[str, ...] = ()
    traceparent: str | None = None


class Recorded(Struct, frozen=True, gc=False):
    """An event as the log holds it, decoded."""

    position: int
    id: str
    event: Event
    tags: tuple[str, ...]
    metadata: Metadata


_pool: list[str] = []
os.register_at_fork(after_in_child=_pool.clear)


def _refill() -> None:
    """Ask the system for the random parts of many ids at once."""
    digits = os.urandom(9 * 1024).hex()
    parts = [digits[at : at + 18] for at in range(0, len(digits), 18)]
    _pool.extend([f"-7{part[:3]}-8{part[3:6]}-{part[6:]}" for part in parts])


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562), as text: ordered by time, 72 random bits."""
    ms = f"{time.time_ns() // 1_000_000 & 0xFFFF_FFFF_FFFF:012x}"  # a clock may say any year
    while True:
        try:
            random = _pool.pop()  # atomic: threads may share the pool
        except IndexError:
            _refill()
        else:
            return f"{ms[:8]}-{ms[8:]}{random}"


def event_id(command_id: str, number: int) -> str:
    """Return the id of a command's event (the first is number 1), from the command's id.

    It is a UUID of version 7 as well: the last 16 of its random bits give way to the number.
    """
    return f"{command_id[:-4]}{number:04x}" if number < 0x10000 else new_id()


# --- tags from fields -----------------------------------------------------------------------------


class TagField(Struct, frozen=True):
    """A field that tags its message."""

    field: str
    key: str
    optional: bool
    kind: type

    @property
    def plain(self) -> bool:
        """Whether the value, never None, is written into the tag as it is."""
        return not self.optional and self.kind in (str, int, uuid.UUID)

    def tag(self, value: Any) -> str:
        """Return the tag for a value of the field."""
        if isinstance(value, enum.Enum):
            value = value.value
        return f"{self.key}:{value}"


def type_hints(cls: type) -> dict[str, Any]:
    """Return the resolved annotations of a message's or view's fields."""
    try:
        hints = get_type_hints(cls, include_extras=True)
    except Exception as error:
        raise DefinitionError(
            "An annotation cannot be resolved", at=place(cls), type=cls.__qualname__, why=error
        ) from error
    return {name: hints[name] for name in cls.__struct_fields__}  # type: ignore[attr-defined]


def without_none(annotation: Any) -> tuple[Any, bool]:
    """Return what an optional annotation is apart from None, and whether it was optional."""
    args = get_args(annotation)
    if type(None) in args and get_origin(annotation) is not Annotated:
        rest = [arg for arg in args if arg is not type(None)]
        if len(rest) == 1:
            return rest[0], True
    return annotation, False


def tag_fields(cls: type) -> tuple[TagField, ...]:
    """Return the fields of a message that tag it, in order of declaration."""
    found: list[TagField] = []
    for name, hint in type_hints(cls).items():
        inner, optional = without_none(hint)
        if get_origin(inner) is not Annotated:
            continue
        base, *marks = get_args(inner)
        base, also_optional = without_none(base)
        for mark in marks:
            if not isinstance(mark, Tag):
                continue
            if not (isinstance(base, type) and issubclass(base, (str, int, uuid.UUID, enum.Enum))):
                raise DefinitionError(
                    "Only str, int, UUID and enum fields can tag a message",
                    at=place(cls),
                    field=f"{cls.__qualname__}.{name}",
                    type=base,
                )
            found.append(TagField(name, mark.key, optional or also_optional, base))
    return tuple(found)


def instance_of(fields: tuple[TagField, ...]) -> Callable[[Any], tuple[str, ...] | None]:
    """Return the function from a message to one tag for each field; None where one is empty.

    It runs several times a command, so the plain case is made short.
    """
    if len(fields) == 1 and fields[0].plain:
        read, prefix = attrgetter(fields[0].field), fields[0].key + ":"
        return lambda message: (f"{prefix}{read(message)}",)

    def instance(message: Any) -> tuple[str, ...] | None:
        found: list[str] = []
        for f in fields:
            value = getattr(message, f.field)
            if value is None:
                return None
            found.append(f.tag(value))
        return tuple(found)

    return instance


def tagger(fields: tuple[TagField, ...]) -> Callable[[Any], tuple[str, ...]]:
    """Return the function from a message to its tags, duplicates removed."""
    if not fields:
        return lambda _message: ()
    if all(f.plain for f in fields):
        if len(fields) == 1:
            read, prefix = attrgetter(fields[0].field), fields[0].key + ":"
            return lambda message: (f"{prefix}{read(message)}",)
        plain = tuple((f.field, f.key + ":") for f in fields)
        if len({f.key for f in fields}) == len(fields):
            return lambda message: tuple([f"{p}{getattr(message, n)}" for n, p in plain])

    def tags(message: Any) -> tuple[str, ...]:
        found: dict[str, None] = {}
        for f in fields:
            value = getattr(message, f.field)
            if value is not None:
                found[f.tag(value)] = None
        return tuple(found)

    return tags


__all__ = [
    "LONGEST_TEXT",
    "Actor",
    "Command",
    "Event",
    "Message",
    "Metadata",
    "Query",
    "Recorded",
    "Tag",
    "TagField",
    "actor_of",
    "event_id",
    "everybody_may",
    "instance_of",
    "new_id",
    "require_kind",
    "require_text",
    "tag_fields",
    "tagger",
    "type_hints",
    "without_none",
]
