"""``diptych projections pause``, ``resume`` and ``rewind``."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

from cyclopts import Parameter

from diptych.cli.asking import sure
from diptych.cli.failures import NO, OK, UsageError
from diptych.cli.options import Given, Options
from diptych.read.projections import Keyed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from diptych.app.running import Running
    from diptych.read.parking.desk import Pause

T = TypeVar("T")

ANEW = (
    "a fold's rows depend on all their events, so they are deleted and folded anew from the first"
)

Name: TypeAlias = Annotated[str, Parameter(help="Which projection.")]
Acting: TypeAlias = Annotated[
    str | None, Parameter(name="--actor", help="Who does it [default: the login name].")
]


def pause(
    name: Name,
    /,
    *,
    why: Annotated[str, Parameter(help="The reason; it is kept, and shown by `status`.")],
    actor: Acting = None,
    options: Given,
) -> int:
    """Stop a projection: when this returns, no worker anywhere changes its rows any more.

    It stays so, whatever is restarted, until `resume`. Queries answer from what is there. All
    versions that are kept stop; one that is deployed meanwhile is built beside, and held. Status 1:
    it was paused already; that pause stands, with its reason, and is shown.
    """
    from diptych.cli.screen import moment

    who = login(actor)

    async def paused(running: Running) -> tuple[Pause, bool]:
        before = (await running.steering.pauses()).get(name)
        pause = await running.steering.pause(name, actor=who, why=why)
        return pause, before is not None

    done, already = work(options, paused)
    said = f"{name} is paused: {_kept(options, name)}"
    if already:
        since = moment(done.since.replace(microsecond=0))
        said = f"{name} was paused already, by {done.actor} since {since}: {done.why}"
    _told(options, {"paused": done, "already": already}, said)
    return NO if already else OK


def resume(name: Name, /, *, options: Given) -> int:
    """Let a projection go on; workers take it up within a second. Status 1: it was not paused.

    All versions that are kept go on. One that was held meanwhile waits for `cutover`.
    """
    done = work(options, lambda running: running.steering.resume(name))
    said = f"{name} goes on: {_kept(options, name)}" if done else f"{name} was not paused"
    _told(options, {"resumed": done}, said)
    return OK if done else NO


def rewind(
    name: Name,
    /,
    *,
    to: Annotated[
        str,
        Parameter(help="Of a handler: a position, or a time (after the last event until then)."),
    ] = "0",
    yes: Annotated[bool, Parameter(help="Do it without asking.", negative="")] = False,
    options: Given,
) -> int:
    """Put a projection back, to have events applied again.

    A fold always goes back to position 0, whatever `--to` says: its rows depend on all their
    events, so they are deleted and folded anew from the first; queries answer meanwhile from what
    is there. The rows of a handler stay; it handles again the events behind the position of `--to`,
    with all that it does elsewhere (a mail, a request). Skips behind it are forgotten. Of several
    versions it is that of the code at hand.
    """
    target = _target(to)
    which = name + _other(options, name)
    if _is_fold(options, name):
        what = f"put {which} back to position 0, whatever --to says: {ANEW}"
        then = f": {ANEW}"
    else:
        then = ": its rows stay, and the events behind are handled again"
        elsewhere = "with all that it does elsewhere (a mail, a request)"
        what = f"put {which} back to {to}{then}, {elsewhere}"
    if not sure([what], yes=yes):
        return NO
    done = work(options, lambda running: running.steering.rewind(name, target))
    said = f"{which} is put back from {done.before} to {done.position}{then}"
    _told(options, {"rewound": done}, said)
    return OK


def _kept(options: Options, name: str) -> str:
    """Name the versions that are kept."""
    found = work(options, lambda running: running.projections.versions())
    return ", ".join(f"{one.version} ({one.state})" for one in found if one.projection == name)


def _other(options: Options, name: str) -> str:
    """Name the version at hand, where it is not the live one."""
    found = work(options, lambda running: running.projections.versions())
    there = [one for one in found if one.projection == name]
    own = next((one for one in there if one.own and one.state != "live"), None)
    live = next((one.version for one in there if one.state == "live"), "none")
    return "" if own is None else f", version {own.version} ({own.state}; live is {live}),"


def _is_fold(options: Options, name: str) -> bool:
    """Whether a projection is a fold; a name that there is not is refused later, as elsewhere."""
    from diptych.cli.loading import load

    found = load(options.app).compile().projections
    return any(one.name == name and isinstance(one, Keyed) for one in found)


def _target(text: str) -> int | datetime:
    if text.isascii() and text.isdigit():
        return int(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        raise UsageError(
            "--to is a position, or a time with its offset",
            hint="--to 1000, or --to 2026-01-31T12:00:00Z",
            got=text,
        )
    return found


def login(actor: str | None) -> str:
    """Return who acts: as said, or the login name."""
    if actor:
        return actor
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):
        raise UsageError("Say who does it", hint="--actor NAME") from None


def work(options: Options, what: Callable[[Running], Awaitable[T]]) -> T:
    """Do something with the application, opened without workers."""
    from diptych.cli.loading import load
    from diptych.cli.running import opened, run

    app = load(options.app)

    async def done() -> T:
        async with opened(app, options, create="nothing") as running:
            return await what(running)

    return run(done())


def _told(options: Options, data: object, text: str) -> None:
    from diptych.cli.screen import harmless, write_json

    if options.json:
        write_json(data)
    else:
        print(harmless(text))
