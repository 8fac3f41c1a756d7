"""``diptych verify``: have the views applied each event once, and are their rows right?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from diptych.cli.failures import NO, OK, UsageError
from diptych.cli.options import Given

if TYPE_CHECKING:
    from rich.console import Console

    from diptych.read.proving.rowcheck import RowVerdict
    from diptych.read.proving.verify import Verdict


def verify(
    *projections: Annotated[str, Parameter(help="Which projections [default: all].")],
    since: Annotated[
        Literal["start", "last"], Parameter(help="From the start, or from the last proof on.")
    ] = "start",
    rows: Annotated[
        bool, Parameter(help="Fold the events aside and compare the rows.", negative="")
    ] = False,
    sample: Annotated[
        float | None, Parameter(help="With --rows: the share of the keys, as 0.01.")
    ] = None,
    options: Given,
) -> int:
    """Prove that the views applied each event exactly once, up to where they are.

    Reads the log and compares. Names the positions that are missing or were applied twice, and
    ends with status 1 when there are any, or parked keys. An effect is one event applied to one
    key, so an event may have several, or none. What was proved is kept with the views.

    Ends with the command that mends what was found, where there is one.

    With --rows it proves the rows instead: it names those that are missing, should not be, or
    differ, and the columns. Handlers have no fold, so they are passed over.
    """
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run
    from diptych.cli.screen import screen, write_json

    if sample is not None and not rows:
        hint = "add --rows; effects are always compared whole"
        raise UsageError("--sample is for --rows", code="usage", hint=hint, got=sample)
    if since == "last" and rows:
        hint = "leave --since away; --sample looks at a share of the keys"
        raise UsageError("--rows has no --since", code="usage", hint=hint, got=since)
    app = load(options.app)

    async def look() -> list[Verdict] | list[RowVerdict]:
        async with opened(app, options, create="nothing") as running:
            if rows:
                share = 1.0 if sample is None else sample
                return await running.verify_rows(*projections, sample=share)
            return await running.verify(*projections, since=since)

    found = run(look())
    right = all(one.ok and not _parked(one) for one in found)
    if options.json:
        write_json({"ok": right, "projections": found})
        return OK if right else NO
    from rich.text import Text

    from diptych.cli.tables import make_table

    console = screen()
    columns = {"rows": True, "differ": True} if rows else {"up to": True, "effects": True}
    several = not all(_is_live(one) for one in found)
    which = {"version": False} if several else {}
    table = make_table({"projection": False} | which | columns | {"took": True, "result": False})
    for one in found:
        told = Text("ok", "green") if one.ok else Text("differs", "bold red")
        if one.ok and _parked(one):
            told = Text("parked", "yellow")
        elif one.outcome != "compared":
            told = Text(one.outcome, "" if one.ok else "bold red")
        shown = (_version(one),) if several else ()
        table.add_row(one.projection, *shown, *_numbers(one), f"{one.seconds:.2f} s", told)
    console.print(table if found else Text("no projections", "dim"))
    verdicts = Counter(one.projection for one in found)
    for one in found:
        title = one.projection
        if verdicts[title] > 1:
            title += f", {_version(one)}"
        if not one.ok or one.outcome == "new":
            name = (f"{title}: ", "" if one.ok else "bold red")
            console.print(Text.assemble(name, one.reason), soft_wrap=True)
            _print_faults(console, one)
            if one.remedy:
                console.print(Text.assemble(("  → ", "cyan"), one.remedy), soft_wrap=True)
        for text in _beside(one, several=verdicts[one.projection] > 1):
            console.print(Text(f"{title}: {text}", "yellow"), soft_wrap=True)
    return OK if right else NO


def _is_live(one: Verdict | RowVerdict) -> bool:
    """Whether it is of this program's version, and that is the live one."""
    from diptych.read.proving.verify import Verdict

    phase = one.phase if isinstance(one, Verdict) else "live"
    return phase == "live" and one.outcome not in ("unprovable", "not compared")


def _version(one: Verdict | RowVerdict) -> str:
    from diptych.read.proving.verify import Verdict

    if one.outcome == "new":
        return "-"
    rows = "live" if one.outcome in ("compared", "refused") else "not live"
    return f"{one.version}, {one.phase if isinstance(one, Verdict) else rows}"


def _numbers(one: Verdict | RowVerdict) -> tuple[str, str]:
    from diptych.read.proving.verify import Verdict

    if isinstance(one, Verdict):
        return str(one.position), str(one.count)
    return (str(one.rows), str(one.differing)) if one.outcome == "compared" else ("-", "-")


def _parked(one: Verdict | RowVerdict) -> int:
    from diptych.read.proving.verify import Verdict

    return one.parked if isinstance(one, Verdict) else 0


def _beside(one: Verdict | RowVerdict, *, several: bool) -> list[str]:
    """Say what is not applied, and yet no fault."""
    from diptych.cli.screen import counted, harmless
    from diptych.read.proving.verify import Verdict

    if not isinstance(one, Verdict):
        return []
    said: list[str] = []
    if one.parked:
        # Of several versions, this program's own is the one that is not live, and it retries that.
        code = f"with the code of {one.version}, " if several and one.phase == "live" else ""
        said.append(
            f"{counted(one.parked, 'effect')} parked: see `diptych parked list`, correct the "
            f"function, then {code}`diptych parked retry {one.projection}`"
        )
    if one.skipped:
        said.append(f"{counted(one.skipped, 'effect')} skipped")
    if one.unknown:
        types = ", ".join(f"{name}: {count}" for name, count in sorted(one.unknown.items()))
        said.append(harmless(f"unknown types of events: {types}"))
    return said


MOST_FAULTS = 20


def _print_faults(console: Console, verdict: Verdict | RowVerdict) -> None:
    from rich.text import Text

    from diptych.cli.screen import cell
    from diptych.cli.tables import make_table
    from diptych.read.proving.verify import Verdict

    lines: list[tuple[str, ...]]
    number: int
    if isinstance(verdict, Verdict):
        table = make_table(
            {"fault": False, "position": True, "event": False, "key": False, "id": False}
        )
        number = len(verdict.faults)
        lines = [
            (f.what, str(f.position), f.event, cell(f.key), f.event_id) for f in verdict.faults
        ]
    else:
        table = make_table(
            {"row": False, "key": False, "column": False, "expected": False, "stored": False}
        )
        number = verdict.differing
        lines = [line for fault in verdict.faults for line in _row_lines(fault)]
    for line in lines[:MOST_FAULTS]:
        table.add_row(*line)
    if lines:
        console.print(table)
    if isinstance(verdict, Verdict) and number > MOST_FAULTS:
        console.print(Text(f"and {number - MOST_FAULTS} more (--json has all)", "dim"))
    elif not isinstance(verdict, Verdict) and number > len(verdict.faults):
        console.print(Text(f"and {number - len(verdict.faults)} more rows", "dim"))


def _row_lines(fault: Any) -> list[tuple[str, ...]]:
    from diptych.cli.screen import cell

    if not fault.columns:
        return [(fault.what, cell(fault.key), "", "", "")]
    return [
        (fault.what, cell(fault.key), column.name, cell(column.expected), cell(column.found))
        for column in fault.columns
    ]
