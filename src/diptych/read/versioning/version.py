"""The version of a projection: a short hash of what its rows depend on, and how two differ.

That is the fold's code with what it calls and reads of the user's own code, the key, the columns,
the events' types, and the number of slices. Comments, docstrings, formatting and annotations are
not part of it; where there is no source, the bytecode stands for it.
"""

from __future__ import annotations

import ast
import enum
import sys
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from inspect import unwrap
from types import FunctionType, MethodType, ModuleType
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct

from diptych.codec import Codec
from diptych.messages import type_hints
from diptych.read.projections import Handler, Keyed, Projection
from diptych.read.versioning import source
from diptych.read.views import definition_of
from diptych.signatures import members

DIGITS = 8


class Parts(Struct, frozen=True, omit_defaults=True):
    """What a version is made of. ``code``: hashes of all that was reached, by name.

    ``fold`` is the projection's function, ``key`` the one given as ``key=``. ``bytecode`` names
    what had no source. Types are in words.
    """

    code: dict[str, str] = {}
    key: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()
    columns: dict[str, str] = {}
    events: dict[str, dict[str, str]] = {}
    slices: int = 1
    bytecode: tuple[str, ...] = ()

    @property
    def version(self) -> str:
        """The version: some hexadecimal digits."""
        text = msgspec.json.encode(
            [self.code, self.key, self.tables, self.columns, self.events, self.slices],
            order="deterministic",
        )
        return blake2b(text).hexdigest()[:DIGITS]


def parts_of(one: Projection, codec: Codec) -> Parts:
    """Return what a projection's version is made of."""
    reached = _Reached(one)
    reached.look("fold", one.function)
    key: tuple[str, ...] = ()
    if isinstance(one, Keyed):
        key = one.key_names
        if one.keys is not None:
            reached.look("key", one.keys)
    columns: dict[str, str] = {}
    for view in one.views:
        definition = definition_of(view)
        before = "" if isinstance(one, Keyed) else f"{definition.table_name}."
        columns |= {f"{before}{f.name}": type_text(f.type) for f in definition.fields}
    events = {
        codec.of(event).name: {name: type_text(hint) for name, hint in type_hints(event).items()}
        for event in one.events
    }
    for cls in (*one.views, *one.events):
        reached.look("", cls)
    reached.settle()
    reached.defaults([*one.views, *one.events])
    tables = tuple(definition_of(view).table_name for view in one.views)
    compiled = tuple(sorted(reached.bytecode))
    return Parts(reached.code, key, tables, columns, events, one.slices, compiled)


def same_keys(one: Projection, there: Parts, mine: Parts) -> bool:
    """Whether events touch the same keys, in the same slices, in both; ``mine`` is of ``one``."""
    if (there.key, there.slices) != (mine.key, mine.slices):
        return False
    reached = _Reached(one)
    if isinstance(one, Keyed) and one.keys is not None:
        reached.look("key", one.keys)
        reached.settle()
    return all(there.code.get(name, "") == mine.code.get(name) for name in reached.code)


def holds(live: Parts, mine: Parts) -> bool:
    """Whether rows of one version can be read as those of another."""
    return (
        live.tables == mine.tables
        and live.key == mine.key
        and all(
            live.columns.get(column) in (kind, kind.removesuffix(" | None"))
            for column, kind in mine.columns.items()
        )
    )


# --- how two differ -------------------------------------------------------------------------------


def differences(before: Parts, after: Parts) -> list[str]:
    """Say in words why one version is not the other; nothing where they are the same."""
    said: list[str] = []
    said += _columns(before.columns, after.columns)
    if before.tables != after.tables:
        said.append(f"the table is {', '.join(after.tables)}, no longer {', '.join(before.tables)}")
    if before.key != after.key:
        said.append(f"the key is ({', '.join(after.key)}), no longer ({', '.join(before.key)})")
    said += _events(before.events, after.events)
    told = before.events.keys() | after.events.keys()
    for name in sorted(before.code.keys() | after.code.keys()):
        was, now = before.code.get(name), after.code.get(name)
        if was == now:
            continue
        if name == "fold":
            said.append("the fold's code changed")
        elif name == "key":
            said.append(
                "the function given as key= "
                + ("changed" if was and now else "is new" if now else "is gone")
            )
        elif was and now:
            said.append(f"{name} changed")
        elif now and not said and name.removeprefix("the defaults of ") not in told:
            said.append(f"{name} is used now")
    if before.slices != after.slices:
        said.append(f"slices: {before.slices} → {after.slices}")
    if not said and before.version != after.version:
        said.append("what it is made of changed")
    return said


def _columns(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for name, kind in after.items():
        if name not in before:
            yield f"column `{name}: {kind}` was added"
        elif before[name] != kind:
            yield f"column `{name}` is of type {kind}, no longer {before[name]}"
    for name in before:
        if name not in after:
            yield f"column `{name}` was removed"


def _events(
    before: Mapping[str, Mapping[str, str]], after: Mapping[str, Mapping[str, str]]
) -> Iterator[str]:
    for name, fields in after.items():
        if name not in before:
            yield f"event {name} is used now"
            continue
        for field, kind in fields.items():
            if field not in before[name]:
                yield f"event {name} has a field `{field}: {kind}`"
            elif before[name][field] != kind:
                yield f"event {name}'s `{field}` is of type {kind}, no longer {before[name][field]}"
        for field in before[name]:
            if field not in fields:
                yield f"event {name} has no field `{field}` any more"
    for name in before:
        if name not in after:
            yield f"event {name} is no longer used"


# --- types and values in words --------------------------------------------------------------------


def type_text(hint: Any, within: tuple[Any, ...] = ()) -> str:
    """Return a field's type in words, what it consists of included."""
    if isinstance(hint, NewType):
        return type_text(hint.__supertype__, within)
    origin = get_origin(hint)
    if origin is Annotated:
        return type_text(get_args(hint)[0], within)
    if origin is Literal:
        return f"Literal[{', '.join(sorted(map(repr, get_args(hint))))}]"
    several = members(hint)
    if len(several) > 1:
        texts = sorted(type_text(one, within) for one in several if one is not type(None))
        return " | ".join(texts + ["None"] * (type(None) in several))
    if origin is not None and origin is not Union:
        inner = ", ".join("..." if a is ... else type_text(a, within) for a in get_args(hint))
        return f"{getattr(origin, '__name__', origin)}[{inner}]"
    if not isinstance(hint, type):
        return str(hint)
    if hint in within:
        return hint.__name__
    if issubclass(hint, enum.Enum):
        return f"{hint.__name__}({', '.join(repr(member.value) for member in hint)})"
    if issubclass(hint, Struct):
        fields = type_hints(hint).items()
        inner = ", ".join(f"{name}: {type_text(t, (*within, hint))}" for name, t in fields)
        return f"{hint.__name__}({inner})"
    return "None" if hint is type(None) else hint.__name__


def value_text(value: Any) -> str | None:
    """Return plain data in words; None for what is none."""
    given: Any = value
    if value is None or isinstance(value, (str, bytes, int, float, complex, bool)):
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}({value.value!r})"
    if isinstance(value, (tuple, list, set, frozenset)):
        texts = [value_text(one) for one in given]
        if any(text is None for text in texts):
            return None
        listed = [str(text) for text in texts]
        ordered = sorted(listed) if isinstance(value, (set, frozenset)) else listed
        return f"{type(given).__name__}({', '.join(ordered)})"
    if isinstance(value, dict):
        pairs = [(value_text(key), value_text(one)) for key, one in given.items()]
        if any(key is None or one is None for key, one in pairs):
            return None
        return f"dict({', '.join(f'{key}: {one}' for key, one in pairs)})"
    if isinstance(value, Struct):
        return f"{type(value).__name__}({value_text(msgspec.structs.asdict(value))})"
    if type(value).__module__ in ("decimal", "datetime", "uuid", "fractions", "zoneinfo", "re"):
        return repr(value)
    return None


# --- what code refers to --------------------------------------------------------------------------


class _Reached:
    """The user's functions, classes and constants that a projection depends on."""

    def __init__(self, one: Projection) -> None:
        self.code: dict[str, str] = {}
        self.bytecode: set[str] = set()
        self._package = (unwrap(one.function).__module__ or "").partition(".")[0]
        self._seen: set[Any] = set()
        self._own = {*one.views, *one.events}
        self._attributes: set[str] = set()
        self._members: list[tuple[str, str, Any]] = []

    def defaults(self, classes: Iterable[type]) -> None:
        """Note what fields are when they are not given: rows and older events depend on it."""
        for cls in classes:
            info = msgspec.structs.fields(cls)
            given = {f.name: _default(f) for f in info if _default(f) is not None}
            if given:
                self._note(f"the defaults of {cls.__name__}", repr(sorted(given.items())))

    def settle(self) -> None:
        """Take up the methods of classes that anything taken up may call."""
        while used := [m for m in self._members if m[0] in self._attributes]:
            self._members = [m for m in self._members if m not in used]
            for _, label, member in used:
                self.look(label, member)

    def look(self, label: str, thing: Any) -> None:
        """Take up a function, class or value, and what it refers to."""
        inner: Any = getattr(thing, "__func__", None)
        kind: Any = thing.__class__
        if isinstance(thing, (MethodType, staticmethod, classmethod)):
            self.look(label, inner)
            return
        if isinstance(thing, FunctionType):
            self._function(label, thing)
        elif isinstance(thing, type):
            if source.is_users(thing.__module__, self._package):
                self._class(thing)
        elif isinstance(thing, property):
            for part in (thing.fget, thing.fset):
                if part is not None:
                    self.look(label, part)
        elif callable(getattr(thing, "func", None)) and hasattr(thing, "args"):  # partial
            self._note(label, repr(value_text(thing.args)) + repr(value_text(thing.keywords)))
            self.look(f"{label}'s function", thing.func)
        elif isinstance(thing, (list, dict, set)):
            return  # it may change while the program runs, and the version must not
        elif (text := value_text(thing)) is not None:
            self._note(label, text)
        elif source.is_users(kind.__module__, self._package):
            self._class(kind)

    def _note(self, label: str, text: str) -> None:
        while label in self.code:  # of the same name in another module
            label += " (another)"
        self.code[label] = blake2b(text.encode(), digest_size=6).hexdigest()

    def _function(self, label: str, function: FunctionType) -> None:
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.look(f"what {label} wraps", wrapped)
        if function in self._seen:
            return
        self._seen.add(function)
        if label not in ("fold", "key") and not source.is_users(function.__module__, self._package):
            return
        nodes = source.function_node(function)
        read, attributes = source.reads_of(function.__code__)
        self._attributes |= attributes
        paths: list[tuple[str, ...]]
        if nodes:
            self._note(label, "|".join(map(source.function_text, nodes)))
            paths = [path for node in nodes for path in source.names_in(node)]
        else:
            self.bytecode.add(label)
            given = (value_text(function.__defaults__), value_text(function.__kwdefaults__))
            self._note(label, source.code_text(function.__code__) + repr(given))
            paths = [(name,) for name in sorted(read)]
        closed = source.closed_over(function)
        module = sys.modules.get(function.__module__)
        # A name that is a local variable here is no global one, though there may be such.
        listed = [path for path in dict.fromkeys(paths) if path[0] in read]
        for name in dict.fromkeys(path[0] for path in listed if path[0] in closed):
            self.look(f"variable {name}", closed[name])
        for path in listed:
            if path[0] not in closed:
                self._global(function.__globals__, module, path)

    def _global(
        self, names: Mapping[str, Any], module: ModuleType | None, path: tuple[str, ...]
    ) -> None:
        name, *rest = path
        if name not in names:
            return
        value: Any = names[name]
        while isinstance(value, ModuleType) and rest:
            if not source.is_users(value.__name__, self._package):
                return
            module, name = value, rest.pop(0)
            value = getattr(value, name, None)
        if isinstance(value, ModuleType):
            return
        if isinstance(value, FunctionType):
            self.look(f"function {value.__qualname__}()", value)
        elif isinstance(value, type):
            self.look(f"class {value.__qualname__}", value)
        elif callable(value) and (inner := getattr(value, "__wrapped__", None)) is not None:
            self.look(f"function {name}()", inner)
        else:
            self._constant(module, name, value)

    def _constant(self, module: ModuleType | None, name: str, value: Any) -> None:
        """Note a constant by its source: what is in it may change while the program runs."""
        while module is not None:
            if not source.is_users(module.__name__, self._package):
                return
            place = (module.__name__, name)
            if place in self._seen:
                return
            self._seen.add(place)
            if nodes := source.assigned(module, name):
                self._note(f"constant {name}", "|".join(map(source.canonical, nodes)))
                for path in sorted({path for node in nodes for path in source.names_in(node)}):
                    self._global(vars(module), module, path)
                return
            found = source.imported_from(module, name)
            if found is None:
                break
            module, name = found
        self.look(f"constant {name}", value)

    def _class(self, cls: type) -> None:
        if cls in self._seen:
            return
        self._seen.add(cls)
        label = f"class {cls.__qualname__}"
        methods, node = _methods(cls), source.class_node(cls)
        if issubclass(cls, enum.Enum):
            self._note(label, repr([(m.name, value_text(m.value)) for m in cls]))
        if node is not None:
            for path in sorted({p for part in _assignments(node) for p in source.names_in(part)}):
                self._global(vars(sys.modules[cls.__module__]), sys.modules[cls.__module__], path)
            if not issubclass(cls, (Struct, enum.Enum)) and (kept := _assignments(node)):
                self._note(label, source.canonical(kept))
        for name, member in methods:
            called = f"{cls.__qualname__}.{name}()"
            if not name.startswith("__"):
                self._members.append((name, called, member))
            elif not _is_made(member):
                self.look(called, member)
        for base in cls.__bases__:
            self.look(f"class {base.__qualname__}", base)
        if issubclass(cls, Struct) and cls not in self._own:
            self.defaults([cls])


def _assignments(node: ast.ClassDef) -> list[ast.AST]:
    return [n for n in node.body if isinstance(n, (ast.Assign, ast.AnnAssign)) and n.value]


def _methods(cls: Any) -> list[tuple[str, Any]]:
    kinds = (FunctionType, staticmethod, classmethod, property)
    members_of: dict[str, Any] = cls.__dict__
    return [(name, member) for name, member in members_of.items() if isinstance(member, kinds)]


def _is_made(member: Any) -> bool:
    """Whether a method was generated, as dataclasses do, not written."""
    code = getattr(getattr(member, "__func__", member), "__code__", None)
    return code is None or code.co_filename.startswith("<")


def _default(field: msgspec.structs.FieldInfo) -> str | None:
    if field.default is not NODEFAULT:
        return value_text(field.default) or type(field.default).__name__
    factory: Any = field.default_factory
    if factory is NODEFAULT:
        return None
    return f"{getattr(factory, '__qualname__', type(factory).__name__)}()"


def kept_in_place(one: Projection) -> bool:
    """Whether a projection is never built beside itself: a handler, or an inline one."""
    return isinstance(one, Handler) or one.inline
