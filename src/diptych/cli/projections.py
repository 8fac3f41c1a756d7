"""``diptych projections``: versions of views, built beside the live ones; pause, resume, rewind."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from diptych.cli.asking import sure
from diptych.cli.failures import NO, OK, UsageError
from diptych.cli.options import Given, Options
from diptych.cli.steering import pause, resume, rewind

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from diptych.app.databases import Create
    from diptych.app.running import Running
    from diptych.read.control import Plan, Switched
    from diptych.read.port import Difference
    from diptych.read.versioning.noted import VersionStatus
    from diptych.read.versioning.rebuild import Progress

projections = App(
    name="projections", help="Versions of projections: look, rebuild, switch, drop; pause, rewind."
)
projections.command(pause)
projections.command(resume)
projections.command(rewind)

Names = Annotated[str, Parameter(help="Which projections [default: all].")]
Name = Annotated[str, Parameter(help="Which projection.")]
Yes = Annotated[bool, Parameter(help="Do it without asking.", negative="")]


@projections.command(name="list")
def list_(*, options: Given) -> None:
    """Show the versions that are kept: which is live, and how far each is.

    What stands last, with `not in the code` in place of `own`, is left of projections that the code
    at hand does not have; `drop` removes it.

    A version is a hash of what the rows depend on: the fold's code and what it calls, the key, the
    columns, the types of events. `own` is that of the code at hand.
    """
    from diptych.cli.screen import screen, write_json
    from diptych.cli.tables import make_table

    found = _with(options, lambda running: running.projections.versions(), spare=True)
    if options.json:
        write_json({"versions": found})
        return
    table = make_table(
        {"projection": False, "version": False, "own": False, "state": False}
        | {"since": False, "position": True, "lag": True}
    )
    for one in found:
        table.add_row(*_version_row(one))
    screen().print(table if found else "no projections")


def _version_row(one: VersionStatus) -> list[str]:
    from diptych.cli.screen import moment

    since = moment(one.since.replace(microsecond=0))
    own = "own" if one.own else "" if one.in_code else "not in the code"
    return [one.projection, one.version, own, one.state, since, str(one.position), str(one.lag)]


_ACTIONS = {
    "new": "is new, and will be made at the first start",
    "none": "nothing: it is live",
    "build": "will be built beside the live version, and switched to",
    "building": "is being built",
    "held": "is built, or being built; `cutover` switches to it",
    "old": "was live before; `cutover` switches to it again",
    "dropped": "was dropped; `rebuild` builds it again",
    "adopt": "goes on in its tables with the new code; what was done stays as it is",
    "refused": "is refused: the application does not open with this code",
}


@projections.command
def plan(*names: Names, options: Given) -> int:
    """Show what becomes of the projections with the code at hand, and why. Changes nothing.

    Ends with 1 where one is refused: the application does not open with this code.
    """
    from diptych.cli.screen import write_json

    found = _with(options, lambda running: running.projections.plan(*names))
    if options.json:
        write_json({"projections": found})
    else:
        for one in found:
            _print_plan(one)
        if not found:
            print("no projections")
    return NO if any(one.action == "refused" for one in found) else OK


def _print_plan(one: Plan) -> None:
    from diptych.cli.screen import harmless

    print(f"{one.projection}: {one.version} {_ACTIONS[one.action]}")
    for reason in one.why:
        print(f"  {reason}")
    for reason in one.objections:
        print(harmless(f"  but: {reason}"))
    if one.bytecode:
        print(f"  no source of {', '.join(one.bytecode)}: its bytecode stands for it")


@projections.command
def rebuild(
    *names: Names,
    limit: Annotated[
        float | None, Parameter(help="At most so many events a second, of each.")
    ] = None,
    compare: Annotated[
        bool, Parameter(help="Show how rows differ from the live ones first.", negative="")
    ] = False,
    cutover: Annotated[bool, Parameter(help="Switch to what was built.")] = True,
    options: Given,
) -> int:
    """Build new versions beside the live ones, prove them, and switch to them.

    Queries go on from the live ones until then. Workers with the same code help. Safe to interrupt
    and to start again: it goes on where it was. --no-cutover leaves the switch to `cutover`.

    A version that lacks what the live one has (it has parked keys that are not parked there, or its
    code does not know events that the live one applies) is held, and the command ends with 1.
    """
    from diptych.cli.screen import harmless, screen, write_json

    bars = _Bars(quiet=options.json)
    with bars:
        found = _with(
            options,
            lambda running: running.projections.rebuild(
                *names, limit=limit, compare=compare, cutover=cutover, watch=bars.show
            ),
            create="views",
        )
    lacking = any(one.objections for one in found)
    if options.json:
        write_json({"rebuilt": found})
        return NO if lacking else OK
    console = screen()
    for one in found:
        for difference in one.differences:
            _print_difference(difference)
        said = "live" if one.state == "live" else "built; `diptych projections cutover` switches"
        print(f"{one.projection}: {one.version} is {said}, after {one.seconds:.1f} s")
        for reason in one.objections:
            print(harmless(f"  held: {reason}"))
    if not found:
        console.print("nothing to rebuild: the versions of this code are live")
    return NO if lacking else OK


class _Bars:
    """Progress, on a terminal as bars, else as a line now and then; on stderr."""

    def __init__(self, *, quiet: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Rich

        from diptych.cli.screen import screen

        console = screen(stderr=True)
        self._quiet = quiet
        self._terminal = console.is_terminal
        self._bars = Rich(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            console=console,
            disable=quiet or not self._terminal,
        )
        self._tasks: dict[str, Any] = {}
        self._said: dict[str, int] = {}

    def __enter__(self) -> None:
        self._bars.start()

    def __exit__(self, *exception: object) -> None:
        self._bars.stop()

    def show(self, progress: list[Progress]) -> None:
        """Show how far each is."""
        for one in progress:
            rate = _rate(one)
            if self._terminal:
                if one.projection not in self._tasks:
                    self._tasks[one.projection] = self._bars.add_task(one.projection, rate="")
                self._bars.update(
                    self._tasks[one.projection], completed=one.done, total=one.total, rate=rate
                )
            elif not self._quiet and one.total:
                tenth = one.done * 10 // one.total
                if self._said.get(one.projection) != tenth:
                    self._said[one.projection] = tenth
                    told = f"{one.projection}: {one.done:,} of {one.total:,} events  {rate}"
                    print(told.rstrip(), file=sys.stderr)


def _rate(one: Progress) -> str:
    from diptych.cli.screen import seconds

    if one.problem:
        return one.problem
    if not one.per_second or one.done >= one.total:
        return ""
    left = "" if one.eta is None else f", {seconds(one.eta)} to go"
    return f"{one.per_second:,.0f} events/s{left}"


@projections.command
def compare(
    name: Name,
    /,
    *,
    examples: Annotated[int, Parameter(help="So many rows as examples.")] = 5,
    options: Given,
) -> int:
    """Compare the live rows with those of the code at hand; ends with 1 where they differ.

    In the columns that both have. What events one of them has yet to apply have changed differs,
    too; the positions tell.
    """
    from diptych.cli.screen import write_json

    if examples < 0:
        raise UsageError("--examples is 0 or more", code="usage", got=examples)
    found = _with(options, lambda running: running.projections.compare(name, most=examples))
    if options.json:
        write_json({"differences": found})
    else:
        for one in found:
            _print_difference(one)
    return NO if any(one.missing or one.extra or one.differing for one in found) else OK


def _print_difference(one: Difference) -> None:
    from diptych.cli.screen import cell, screen
    from diptych.cli.tables import make_table

    if not (one.missing or one.extra or one.differing):
        print(f"{one.table}: {one.rows:,} rows, none differs in the columns that both have")
        return
    print(
        f"{one.table}: of {one.rows:,} rows {one.differing:,} differ, {one.missing:,} are only in "
        f"the live table, {one.extra:,} only in the new one"
    )
    for column, count in one.columns.items():
        print(f"  {column}: {count:,}")
    table = make_table({"key": False, "column": False, "live": False, "new": False})
    for key, left, right in one.examples:
        if left is None or right is None:
            there = ("(no row)", "a row") if left is None else ("a row", "(no row)")
            table.add_row(cell(key), "", *there)
            continue
        for column, value in left.items():
            if value != right[column]:
                table.add_row(cell(key), column, cell(value), cell(right[column]))
    screen().print(table)


@projections.command
def cutover(
    name: Name,
    /,
    *,
    force: Annotated[
        bool,
        Parameter(help="Also where it lacks what the live version has applied.", negative=""),
    ] = False,
    yes: Yes = False,
    options: Given,
) -> int:
    """Prove the version of the code at hand, and let queries read it from now on.

    The version that was live is kept, for `rollback`. Refused where the new one has parked keys
    that the live one has not, or its code does not know events that the live one applies: `plan`
    says which; --force switches all the same.
    """
    what = [f"{name}: queries will read the version of this code"]
    return _switch(
        options, what, yes, lambda running: running.projections.cutover(name, force=force)
    )


@projections.command
def rollback(name: Name, /, *, yes: Yes = False, options: Given) -> int:
    """Let queries read the version that was live before, at once.

    It is as current as the workers with its code have kept it.
    """
    back = _with(options, lambda running: running.projections.back(name))
    what = [f"{name}: queries will read the version of before"]
    if back is not None:
        behind = "it is current" if not back[2] else f"it is {back[2]:,} events behind"
        what = [f"{name}: queries will read {back[1]} instead of {back[0]}; {behind}"]
    return _switch(options, what, yes, lambda running: running.projections.rollback(name))


def _switch(
    options: Options, what: list[str], yes: bool, work: Callable[[Running], Awaitable[Switched]]
) -> int:
    from diptych.cli.screen import write_json

    if not sure(what, yes=yes):
        return NO
    done = _with(options, work)
    if options.json:
        write_json(done)
    else:
        behind = f", {done.lag:,} events behind" if done.lag else ""
        print(f"{done.projection}: {done.now} is live, no longer {done.before}{behind}")
    return OK


@projections.command
def drop(
    name: Name,
    /,
    *,
    version: Annotated[
        str | None, Parameter(help="Only this one [default: all that are not live].")
    ] = None,
    yes: Yes = False,
    options: Given,
) -> int:
    """Drop versions that are not live: their tables, checkpoints and proofs.

    Programs with their code read the live version from then on, if it has the columns they know.
    There is no way back but to build them again.

    Of a projection that the code at hand does not have, all is dropped, the live version too.
    Refused while workers run it.
    """
    from diptych.cli.screen import write_json

    there = _with(options, lambda running: running.projections.droppable(name, version), spare=True)
    what = list(map(_will_drop, there))
    if not all(one.in_code for one in there):
        what.append(
            f"{name} is not in the code: its checkpoints, proofs and parked events go too. If it "
            "comes back it begins with the first event: a handler then handles all of them again. "
            "Programs whose code still has it must not run any more"
        )
    if there and not sure(what, yes=yes):
        return NO
    done: list[VersionStatus] = []
    if there:
        done = _with(options, lambda running: running.projections.drop(name, version), spare=True)
    if options.json:
        write_json({"dropped": done})
        return OK
    for one in done:
        print(f"{one.projection}: dropped {one.version}, with {_told(one)}")
    if not done:
        print(f"{name}: there is nothing to drop")
    return OK


def _will_drop(one: VersionStatus) -> str:
    return f"{one.projection}: {one.version} ({one.state}) will be dropped, with {_told(one)}"


def _told(one: VersionStatus) -> str:
    """Name the tables of a version, with their rows where they were counted."""
    if not one.tables:
        return "no table that is its own"
    counted = {table: f" ({rows:,} row{'s' * (rows != 1)})" for table, rows in one.rows.items()}
    return ", ".join(table + counted.get(table, "") for table in one.tables)


def _with(
    options: Options,
    work: Callable[[Running], Awaitable[Any]],
    *,
    create: Create = "nothing",
    spare: bool = False,
) -> Any:
    """Do something with the application open, in which nothing is built unless asked for.

    ``spare``: read databases may be given that no view names.
    """
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run

    app = load(options.app)

    async def whole() -> Any:
        async with opened(app, options, create=create, spare=spare) as running:
            return await work(running)

    return run(whole())
