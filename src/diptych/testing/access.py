"""The table of who may do what: every command, query and event, for every actor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from msgspec import Struct

from diptych.errors import Invalid
from diptych.messages import Actor
from diptych.testing.worlds import Composed, Guarded

_WORDS = {True: "yes", False: "no", None: "depends"}


class AccessRow(Struct, frozen=True):
    """One command, query or event: its rule, and ``cells``, "yes", "no" or "depends" by column."""

    kind: str
    name: str
    rule: str
    cells: dict[str, str]


class AccessTable(Struct, frozen=True):
    """Who may do what: a row for each endpoint, a column for each actor.

    An actor of a tenant has two, "ann own" and "ann other": on data of his own tenant, and of
    another's. "depends": a function decides, by the message. ``str`` draws the table.
    """

    columns: tuple[str, ...]
    rows: tuple[AccessRow, ...]

    def cell(self, name: str, column: str, /, *, kind: str | None = None) -> str:
        """Return what stands in a row and a column; ``Invalid`` when there is none, or several."""
        found = [r for r in self.rows if r.name == name and kind in (None, r.kind)]
        if len(found) != 1 or column not in self.columns:
            raise Invalid(
                "There is no such cell, or more than one",
                field="name" if len(found) != 1 else "column",
                rule=", ".join(self.columns if len(found) == 1 else [r.name for r in self.rows]),
                got=column if len(found) == 1 else name,
            )
        return found[0].cells[column]

    def __str__(self) -> str:
        lines = [("kind", "name", *self.columns, "rule")]
        lines += [(r.kind, r.name, *[r.cells[c] for c in self.columns], r.rule) for r in self.rows]
        return "\n".join(_aligned(lines))


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [text.ljust(width) for text, width in zip(line, widths, strict=True)]
        yield "  ".join(cells).rstrip()


def access_table(app: Composed, actors: Iterable[Actor | None], /) -> AccessTable:
    """Return who may do what in a module or application; None among the actors: nobody.

    Rules are judged as they are declared, without a message. Raises ``DefinitionError`` for a
    command or query without a rule where there are others, ``Invalid`` for two actors of one id.
    """
    access = app.compile().access
    columns: dict[str, tuple[Actor | None, bool]] = {}
    for actor in actors:
        for column, own in _columns(actor):
            if column in columns:
                rule = "actors of different ids"
                raise Invalid("Two columns would be named alike", field="actors", rule=rule)
            columns[column] = (actor, own)

    def judged(endpoint: Guarded, actor: Actor | None, own: bool) -> str:
        if not access.guarded:
            return "yes"
        return _WORDS[endpoint.rule is not None and endpoint.rule.foresee(actor, own=own)]

    rows = [
        AccessRow(
            one.kind,
            one.name,
            "none" if one.rule is None else one.rule.text,
            {column: judged(one, actor, own) for column, (actor, own) in columns.items()},
        )
        for one in access.endpoints
    ]
    return AccessTable(tuple(columns), tuple(rows))


def _columns(actor: Actor | None) -> list[tuple[str, bool]]:
    if actor is None:
        return [("nobody", False)]
    if actor.tenant is None:
        return [(actor.id, False)]
    return [(f"{actor.id} own", True), (f"{actor.id} other", False)]
