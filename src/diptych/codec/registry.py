"""Names and types, JSON and back: an explicit registry, never an import by a stored name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeVar, cast, get_args

import msgspec
from msgspec import Struct

from diptych.codec.flaws import Check, decimal_remedy, flaw_finder, place_of_nul
from diptych.errors import (
    DefinitionError,
    Invalid,
    UndecodableEvent,
    UnknownMessage,
    guarded,
    place,
    said,
    text_of,
)
from diptych.log import StoredEvent
from diptych.messages import (
    LONGEST_TEXT,
    Command,
    Event,
    Message,
    Metadata,
    Query,
    Recorded,
    TagField,
    tag_fields,
    tagger,
    type_hints,
)

M = TypeVar("M", bound=Message)

DECIMAL: Final = r"^[+-]?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]{1,3})?$"
"""How a Decimal is written in JSON. Three digits of exponent: `1e999999999` is a short text."""

_DECIMAL = re.compile(DECIMAL.removesuffix("$") + r"\Z")
_SEVERAL = (list, tuple, set, frozenset)
_INT = re.compile(r"[+-]?[0-9]+\Z")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,499}\Z")
_AT = re.compile(r"(?P<rule>.*?)(?: - at `(?P<path>[^`]*)`)?\Z", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<field>[^`]*)`\Z")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]*)`\Z")

_encode = msgspec.json.Encoder().encode
_metadata = msgspec.json.Decoder(Metadata)
_generic = msgspec.json.Decoder(float_hook=Decimal)
_object = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Registered(Struct, frozen=True):
    """A message type with everything the hot paths need, prepared once."""

    cls: type[Message]
    name: str
    version: int
    tag_fields: tuple[TagField, ...]
    tags: Callable[[Any], tuple[str, ...]]
    decode: Callable[[Any], Any]
    flaw: Check | None
    has_decimals: bool
    has_ints: bool


class Codec:
    """The registry of one application's messages, and their JSON."""

    def __init__(self) -> None:
        self.events: dict[str, Registered] = {}
        self.commands: dict[str, Registered] = {}
        self.queries: dict[str, Registered] = {}
        self._of: dict[type, Registered] = {}

    def register(self, types_: Iterable[type[Message]]) -> None:
        """Register commands, events and queries. Twice the same is fine; two of a name are not."""
        for cls in types_:
            if cls in self._of:
                continue
            kind = self._kind(cls)
            name = cls.message_name
            if not _NAME.match(name):
                raise DefinitionError(
                    "A message's name is made of at most 500 letters, digits, '_', '.' and '-'",
                    at=place(cls),
                    name=name,
                )
            if cls.__struct_config__.array_like:
                raise DefinitionError(
                    "A message is stored with its fields' names; leave out array_like=True",
                    at=place(cls),
                )
            if name in kind:
                raise DefinitionError(
                    "Two messages of one kind bear the same name; give one stored_as=...",
                    at=place(cls),
                    name=name,
                    other=place(kind[name].cls),
                )
            kind[name] = self._of[cls] = _registered(cls, name)

    def _kind(self, cls: type[Message]) -> dict[str, Registered]:
        for root, kind in ((Command, self.commands), (Event, self.events), (Query, self.queries)):
            if issubclass(cls, root):
                return kind
        raise DefinitionError("A message is a Command, an Event or a Query", at=place(cls))

    def of(self, cls: type) -> Registered:
        """Return the registration of a message type; ``UnknownMessage`` if there is none."""
        found = self._of.get(cls)
        if found is None:
            raise UnknownMessage(
                "This type is not registered in the application; handle it in a module, or name "
                "it in Module(events=[...])",
                type=cls.__qualname__,
                at=place(cls),
            )
        return found

    # --- messages coming in -----------------------------------------------------------------------

    def validate(self, message: M) -> tuple[M, bytes]:
        """Return a message as its types say it is, and its JSON; or raise ``Invalid``.

        What is returned went through JSON and back: what is decided or stored is exactly what
        anyone will read later.
        """
        registered = self.of(type(message))
        try:
            data = _encode(message)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise _invalid(registered.name, error) from error
        clean = self._decode(registered, data)
        if b"\\u0000" in data and (path := place_of_nul(_generic.decode(data))) is not None:
            rule = "no character U+0000: PostgreSQL holds none"
            raise Invalid(f"{registered.name} is not valid", field=path, rule=rule)
        if len(data) > LONGEST_TEXT // 4:
            _require_tags(registered, clean)
        return clean, data

    def parse(self, kind: Mapping[str, Registered], name: str, data: bytes | str) -> Any:
        """Return the message of a registered name from its JSON; or raise ``Invalid``."""
        registered = kind.get(name)
        if registered is None:
            raise UnknownMessage(
                "There is no such message; see `diptych describe`",
                name=name,
                known=", ".join(sorted(kind)) or "none",
            )
        if registered.has_decimals:
            # What is no JSON at all is told better below.
            with suppress(msgspec.DecodeError, ArithmeticError, UnicodeDecodeError, RecursionError):
                _require_decimals(registered, _generic.decode(data))
        return self._decode(registered, data)

    def from_text(
        self, kind: Mapping[str, Registered], name: str, fields: Mapping[str, Any]
    ) -> Any:
        """Like ``parse``, from fields whose values may be text; yet to be validated."""
        registered = kind.get(name)
        if registered is None:
            return self.parse(kind, name, b"")
        if registered.has_decimals:
            _require_decimals(registered, dict(fields), strict=False)
        try:
            value = msgspec.convert(dict(fields), registered.cls, strict=False)
        except (msgspec.ValidationError, ArithmeticError) as error:
            raise _invalid(registered.name, error) from error
        if registered.has_ints:
            _require_ints(registered, fields, value)
        return value

    @staticmethod
    def _decode(registered: Registered, data: bytes | str) -> Any:
        try:
            clean = registered.decode(data)
        except (msgspec.DecodeError, ArithmeticError, UnicodeDecodeError, RecursionError) as error:
            raise _invalid(registered.name, error) from error
        if registered.flaw is not None and (flaw := registered.flaw(clean)) is not None:
            raise Invalid(f"{registered.name} is not valid", field=flaw[0], rule=flaw[1])
        return clean

    # --- events, stored ---------------------------------------------------------------------------

    def event(self, stored: StoredEvent) -> Event:
        """Decode a stored event's data."""
        registered = self.events.get(stored.type)
        if registered is None:
            raise UnknownMessage(
                "The log holds an event of a type that is not registered here",
                type=stored.type,
                position=stored.position,
            )
        try:
            event: Event = registered.decode(stored.data)
        except MemoryError:
            raise
        except Exception as error:  # of a `__post_init__` too
            raise UndecodableEvent(
                "A stored event does not fit its type; the type has changed since, or the log is "
                "damaged",
                type=stored.type,
                position=stored.position,
                why=text_of(error) or said(error),
            ) from error
        return event

    def recorded(self, stored: StoredEvent) -> Recorded:
        """Decode a stored event whole."""
        return Recorded(
            stored.position,
            stored.id,
            self.event(stored),
            stored.tags,
            metadata_of(stored),
        )


def metadata_of(stored: StoredEvent) -> Metadata:
    """Decode a stored event's metadata."""
    try:
        return _metadata.decode(stored.metadata)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableEvent(
            "A stored event's metadata does not have the fields that it must",
            type=stored.type,
            position=stored.position,
            why=error,
        ) from error


def time_of(stored: StoredEvent) -> datetime | None:
    """Return when an event was decided; None where its metadata are damaged."""
    try:
        return metadata_of(stored).time
    except UndecodableEvent:
        return None


def require_whole(stored: StoredEvent) -> None:
    """Raise ``UndecodableEvent`` unless data and metadata are what every event has."""
    metadata_of(stored)
    try:
        _object.decode(stored.data)
        bytes(stored.data).decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UndecodableEvent(
            "A stored event's data are no JSON object: the log is damaged",
            type=stored.type,
            position=stored.position,
            why=error,
        ) from error


def _registered(cls: type[Message], name: str) -> Registered:
    fields = tag_fields(cls)
    try:
        decoder = msgspec.json.Decoder(cls)
    except (TypeError, NameError) as error:
        raise DefinitionError(
            "A field has a type that messages cannot have" + decimal_remedy(error),
            at=place(cls),
            why=error,
        ) from error
    decode = guarded(decoder.decode) if hasattr(cls, "__post_init__") else decoder.decode
    hints = type_hints(cls).values()
    return Registered(
        cls,
        name,
        cls.schema_version,
        fields,
        tagger(fields),
        decode,
        flaw_finder(cls, bounded=True),
        any(_holds(Decimal, hint, set()) for hint in hints),
        any(_holds(int, hint, set()) for hint in hints),
    )


def _holds(kind: type, hint: Any, seen: set[type]) -> bool:
    """Whether a type is of a kind, or holds one; a value of it in a Literal counts, too."""
    if isinstance(hint, type) and issubclass(hint, Struct):
        if hint in seen:
            return False
        seen.add(hint)
        return any(_holds(kind, inner, seen) for inner in type_hints(hint).values())
    found = issubclass(hint, kind) if isinstance(hint, type) else isinstance(hint, kind)
    return found or any(_holds(kind, arg, seen) for arg in get_args(hint))


def _require_tags(registered: Registered, message: Any) -> None:
    """Raise ``Invalid`` for a field whose tag no log can keep."""
    for one in registered.tag_fields:
        value = getattr(message, one.field)
        tag = "" if value is None else one.tag(value)
        if len(tag.encode()) > LONGEST_TEXT:
            rule = f"a tag has at most {LONGEST_TEXT} bytes, its key included"
            raise Invalid(f"{registered.name} is not valid", field=one.field, rule=rule)


def _require_decimals(registered: Registered, given: Any, *, strict: bool = True) -> None:
    """Raise ``Invalid`` where a Decimal is written as Python reads it, but JSON's readers do not.

    Every such text is marked; one that stands where the type has a Decimal is none any more.
    """
    if (marked := _marked(given)) is given:
        return
    try:
        msgspec.convert(marked, registered.cls, strict=strict)
    except (msgspec.ValidationError, ArithmeticError) as error:
        if "decimal" in str(error):
            raise _invalid(registered.name, error) from error


def _require_ints(registered: Registered, given: Mapping[str, Any], value: Any) -> None:
    """Raise ``Invalid`` where an int is written as anything but digits, as in `1.0`."""
    cls: Any = registered.cls
    for name, written in zip(cls.__struct_fields__, cls.__struct_encode_fields__, strict=True):
        read = getattr(value, name)
        several = isinstance(given.get(written), list) and isinstance(read, _SEVERAL)
        texts: list[Any] = given[written] if several else [given.get(written)]
        found: list[Any] = [*read] if several else [read]
        for text, one in zip(texts, found, strict=False):
            number = isinstance(one, int) and not isinstance(one, bool)
            if number and isinstance(text, str) and not _INT.match(text):
                raise Invalid(
                    f"{registered.name} is not valid", field=name, rule="Expected `int`, in digits"
                )


def _marked(given: Any) -> Any:
    """Return a copy in which texts that Python alone reads as decimals are none; or the same."""
    if isinstance(given, str):
        return given if _DECIMAL.match(given) or not _is_read(given) else f"no decimal: {given}"
    if isinstance(given, list):
        items = cast("Sequence[Any]", given)
        changed = [_marked(item) for item in items]
        return changed if any(a is not b for a, b in zip(changed, items, strict=True)) else items
    if isinstance(given, dict):
        fields = cast("dict[str, Any]", given)
        values = {name: _marked(value) for name, value in fields.items()}
        return values if any(values[name] is not fields[name] for name in fields) else fields
    return given


def _is_read(text: str) -> bool:
    try:
        Decimal(text)
    except ArithmeticError:
        return False
    return True


def _invalid(name: str, error: Exception) -> Invalid:
    """Return ``Invalid`` with field and rule, from msgspec's "rule - at `$.path`"."""
    match = _AT.match(str(error))
    rule = match["rule"] if match else str(error)
    path = (match["path"] if match else None) or ""
    field = path.removeprefix("$").removeprefix(".")
    for pattern, text in ((_UNKNOWN, "there is no such field"), (_MISSING, "it is required")):
        if (found := pattern.match(rule)) is not None:
            field = f"{field}.{found['field']}" if field else found["field"]
            rule = text
    return Invalid(f"{name} is not valid", field=field, rule=rule)
