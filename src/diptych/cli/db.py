"""``diptych db plan``, ``apply`` and ``assert``: the schemas in PostgreSQL, made by whoever may."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from diptych.cli.failures import NO
from diptych.cli.options import Given, Options

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from diptych.app.schemas import Part

db = App(name="db", help="Make the schemas of log and views in PostgreSQL.")


@db.command
def plan(*, options: Given) -> None:
    """Print the SQL that log and views lack, and run nothing.

    What is printed can be run by psql, in one transaction for each database. One that lacks
    nothing is named in a comment.
    """
    from diptych.app.schemas import plan

    parts = _run(options, plan)
    if options.json:
        _write(parts)
        return
    several = len({part.database for part in parts}) > 1
    for part in parts:
        lacks = f"lacks {len(part.steps)}" if part.steps else "lacks nothing"
        print(f"-- {part.part}: {part.database}, schema {part.schema}: {lacks}")
        if not part.steps:
            continue
        if several:
            print(f"\\connect -reuse-previous=on {_argument(part.database)}")
        print("BEGIN;")
        for step in part.steps:
            print(f"\n-- {step.name}\n{step.sql.rstrip(';')};")
        print("\nCOMMIT;")
    if not parts:
        print("-- Neither log nor views are in PostgreSQL: files are made when they are opened.")


@db.command
def apply(
    *,
    role: Annotated[
        str | None,
        Parameter(help="Let this role append, read and project; not change or delete events."),
    ] = None,
    options: Given,
) -> None:
    """Make what log and views lack; run again, it changes nothing.

    The application's own role then needs no right to create anything: --role grants what it does
    need.
    """
    from diptych.app.schemas import apply

    parts = _run(options, lambda *given: apply(*given, role=role))
    if options.json:
        _write(parts)
        return
    for part in parts:
        made = f"made {len(part.steps)}" if part.steps else "lacked nothing"
        print(f"{part.part}: {part.database}, schema {part.schema}: {made}")
        for step in part.steps:
            print(f"  {step.name}")
    if role is not None and parts:
        print(f"{role} may append, read and project, and neither change nor delete events")


@db.command(name="assert")
def assert_(*, options: Given) -> int:
    """Exit with 1 unless log and views have all that this version needs: for deployments."""
    from diptych.app.schemas import plan

    parts = _run(options, plan)
    lacking = [part for part in parts if part.steps]
    if options.json:
        _write(parts)
    for part in lacking if not options.json else ():
        print(f"{part.part}: {part.database}, schema {part.schema}: lacks {len(part.steps)}")
        for step in part.steps:
            print(f"  {step.name}")
    if not lacking and not options.json:
        print("nothing is lacking")
    return NO if lacking else 0


def _argument(url: str) -> str:
    """Return a URL as psql's own commands take it."""
    quoted = url.replace("\\", "%5C").replace("'", "%27")
    return f"'{quoted}'"


def _run(options: Options, work: Callable[..., Coroutine[Any, Any, list[Part]]]) -> list[Part]:
    from diptych.cli.loading import load
    from diptych.cli.running import addresses, run

    app = load(options.app)
    log, views = addresses(options)
    return run(work(app.compile(), log, views))


def _write(parts: Sequence[Part]) -> None:
    from diptych.cli.screen import write_json

    write_json({"parts": parts})
