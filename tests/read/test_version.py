"""A projection's version: what changes it, what does not, and how two are told apart."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from diptych.codec import Codec
from diptych.read.projections import handler, projection
from diptych.read.versioning.version import Parts, differences, parts_of, type_text

SOURCE = '''
import enum
from decimal import Decimal
from typing import Annotated

from diptych import Event, Key, View
from helpers{n} import RATE, late


class Kind(enum.Enum):
    SMALL = "small"
    LARGE = "large"


LIMIT = 15
NAMES = ("a", "b")


class Base(Event):
    def doubled(self) -> int:
        return 2 * self.pieces


class Placed(Base):
    order: str
    pieces: int
    note: str = "none"


class Cancelled(Event):
    order: str


class Order(View):
    order: Key[str]
    pieces: int
    kind: Kind
    late: bool = False


def size(pieces: int) -> Kind:
    """Say how large an order is."""
    return Kind.LARGE if pieces > LIMIT else Kind.SMALL


def fold(row: Order | None, event: Placed | Cancelled) -> Order | None:
    """Fold."""
    if isinstance(event, Cancelled):
        return None
    total = event.doubled() * RATE  # as agreed
    return Order(event.order, total, size(total), late(total, NAMES))


key = lambda event: event.order
'''

HELPERS = """
RATE = 3
OTHER = 4


def late(total: int, names: tuple[str, ...]) -> bool:
    # a comment
    return total > len(names)


def unused() -> int:
    return OTHER
"""

_numbers = itertools.count()
Load = Callable[..., Parts]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Load]:
    """Return what makes the version of the source with some texts replaced."""
    monkeypatch.syspath_prepend(str(tmp_path))
    made: list[str] = []

    def parts(*changes: tuple[str, str], **options: Any) -> Parts:
        n = next(_numbers)
        source, helpers = SOURCE.replace("{n}", str(n)), HELPERS
        for old, new in changes:
            assert old in source + helpers, old
            source, helpers = source.replace(old, new), helpers.replace(old, new)
        (tmp_path / f"helpers{n}.py").write_text(helpers)
        path = tmp_path / f"source{n}.py"
        path.write_text(source)
        spec = importlib.util.spec_from_file_location(f"source{n}", path)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        sys.modules[f"source{n}"] = module
        made.extend((f"source{n}", f"helpers{n}"))
        spec.loader.exec_module(module)
        return of(module, **options)

    yield parts
    for name in made:
        sys.modules.pop(name, None)


def of(module: ModuleType, *, keyed: bool = False, slices: int = 64) -> Parts:
    found: Any = module
    key = found.key if keyed else None
    one = projection(found.fold, found.Order, key=key, slices=slices)
    codec = Codec()
    codec.register(one.events)
    return parts_of(one, codec)


@pytest.mark.parametrize(
    "change",
    [
        ("  # as agreed", ""),
        ('    """Fold."""\n', ""),
        ('    """Say how large an order is."""\n', '    """Say\n    how."""\n'),
        ("    # a comment\n", "\n\n\n"),
        ("LIMIT = 15", "LIMIT = (\n    15\n)"),
        ("LIMIT = 15", "LIMIT: int = 15"),
        ("    if isinstance(event, Cancelled):\n", "    if isinstance(\n event, Cancelled\n ):\n"),
        ("return total > len(names)", "return (total > len(names))"),
        ("def unused() -> int:", "def unused(x: int = 1) -> int:"),
        ("OTHER = 4", "OTHER = 5"),
        ("def fold(", "def other():\n    return 1\n\n\ndef fold("),
        (
            "row: Order | None, event: Placed | Cancelled",
            "row: None | Order, event: Placed|Cancelled",
        ),
        (
            "late: bool = False",
            "late: bool = False\n\n    def unread(self) -> int:\n        return 1",
        ),
        ("class Order(View):", 'class Order(View, indexes=(("pieces",),)):'),
        ('"a", "b"', "'a', 'b',"),
    ],
    ids=str,
)
def test_what_does_not_change_rows_does_not_change_the_version(
    load: Load, change: tuple[str, str]
) -> None:
    before, after = load(), load(change)
    assert before.version == after.version
    assert differences(before, after) == []
    assert not before.bytecode


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("return None", "return row"), "the fold's code changed"),
        (("LIMIT = 15", "LIMIT = 16"), "constant LIMIT changed"),
        (("RATE = 3", "RATE = 4"), "constant RATE changed"),
        (("total > len(names)", "total >= len(names)"), "function late() changed"),
        (("pieces > LIMIT", "pieces < LIMIT"), "function size() changed"),
        (('("a", "b")', '("a",)'), "constant NAMES changed"),
        (("2 * self.pieces", "3 * self.pieces"), "Base.doubled() changed"),
        (("pieces: int\n    note", "pieces: float\n    note"), "`pieces` is of type float"),
        (('note: str = "none"', 'note: str = "?"'), "the defaults of Placed changed"),
        (("late: bool = False", "late: bool = True"), "the defaults of Order changed"),
        (
            ("class Cancelled(Event):\n", "class Cancelled(Event):\n    why: str\n"),
            "event Cancelled has a field `why: str`",
        ),
        (
            ("kind: Kind\n", "kind: Kind\n    extra: int | None = None\n"),
            "column `extra: int | None`",
        ),
        (('LARGE = "large"', 'LARGE = "big"'), "column `kind` is of type Kind('small', 'big')"),
        (("class Order(View):", 'class Order(View, table="orders"):'), "the table is orders"),
        (("class Placed(Base):", 'class Placed(Base, stored_as="P"):'), "event P is used now"),
    ],
    ids=str,
)
def test_what_changes_rows_changes_the_version_and_is_named(
    load: Load, change: tuple[str, str], why: str
) -> None:
    before, after = load(), load(change)
    assert before.version != after.version
    assert why in "; ".join(differences(before, after))


def test_the_key_function_and_the_number_of_slices_count(load: Load) -> None:
    plain, keyed = load(), load(keyed=True)
    assert differences(plain, keyed) == ["the function given as key= is new"]
    other = load(("lambda event: event.order", "lambda event: event.order + '!'"), keyed=True)
    assert differences(keyed, other) == ["the function given as key= changed"]
    function = load(
        ("key = lambda event: event.order", "def key(e):\n    return e.order"), keyed=True
    )
    assert function.version != keyed.version  # of another parameter
    wider = ("order: Key[str]\n    pieces: int", "order: Key[str]\n    pieces: Key[int]")
    said = differences(keyed, load(wider, keyed=True))
    assert "the key is (order, pieces), no longer (order)" in said
    assert differences(plain, load(slices=16)) == ["slices: 64 → 16"]


def test_a_removed_event_and_column_are_named(load: Load) -> None:
    before = load()
    after = load(
        ("event: Placed | Cancelled", "event: Placed"),
        ("    late: bool = False\n", ""),
        (", late(total, NAMES))", ")"),
    )
    said = differences(before, after)
    assert "event Cancelled is no longer used" in said
    assert "column `late` was removed" in said


def test_without_source_the_bytecode_stands_for_it(load: Load) -> None:
    def made(text: str) -> Parts:
        names: dict[str, Any] = {"__name__": f"typed{next(_numbers)}"}
        module = ModuleType(names["__name__"])
        sys.modules[module.__name__] = module
        head = SOURCE.partition("def size")[0].replace("from helpers{n} import RATE, late", "")
        exec(compile(head + text, "<typed>", "exec"), vars(module))
        try:
            return of(module)
        finally:
            del sys.modules[module.__name__]

    fold = (
        "def fold(row: Order | None, event: Placed) -> Order:\n"
        "    return Order(event.order, event.pieces, Kind.SMALL)\n"
    )
    before = made(fold)
    assert "fold" in before.bytecode
    assert made("# said\n\n" + fold.replace("    return", "    # more\n    return")).version == (
        before.version
    )
    assert made(fold.replace("SMALL", "LARGE")).version != before.version


def test_what_a_closure_holds_counts_unless_it_may_change(load: Load) -> None:
    from tests.read.world import Order, Placed

    def made(rate: int, seen: list[str]) -> Parts:
        def fold(row: Order | None, event: Placed) -> Order | None:
            seen.append(event.order)
            return None if rate else row

        fold.__annotations__ = {"row": Order | None, "event": Placed, "return": Order | None}
        one = projection(fold, Order)
        codec = Codec()
        codec.register(one.events)
        return parts_of(one, codec)

    assert made(1, []).version == made(1, ["a"]).version
    assert differences(made(1, []), made(2, [])) == ["variable rate changed"]


def test_handlers_have_a_version_of_all_their_views() -> None:
    from tests.read import world

    one = world.journals()
    codec = Codec()
    codec.register(one.events)
    parts = parts_of(one, codec)
    assert parts.version == parts_of(handler(one.function, *one.views), codec).version
    assert all("." in column for column in parts.columns)


def test_types_are_told_in_words() -> None:
    from datetime import datetime
    from typing import Annotated, Literal, NewType

    Name = NewType("Name", str)
    assert type_text(Annotated[Name | None, "x"]) == "str | None"
    assert type_text(None | int) == type_text(int | None) == "int | None"
    assert type_text(Literal["b", "a"]) == "Literal['a', 'b']"
    assert type_text(list[tuple[Name, ...]]) == "list[tuple[str, ...]]"
    assert type_text(dict[str, datetime]) == "dict[str, datetime]"


def test_a_global_named_like_a_local_or_a_field_does_not_count(load: Load) -> None:
    before = load()
    after = load(
        ("def fold(", "for total in range(3):\n    order = pieces = event = total\n\n\ndef fold(")
    )
    assert before.version == after.version
