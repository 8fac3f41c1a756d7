"""``diptych do`` and ``diptych ask``: a command or a query from the shell, and its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from cyclopts import Parameter

from diptych.cli.failures import NO, OK
from diptych.cli.options import Given

if TYPE_CHECKING:
    from diptych.app import Module
    from diptych.errors import Rejected
    from diptych.messages import Actor
    from diptych.read.queries import Answer
    from diptych.write.entry import Receipt

Name: TypeAlias = Annotated[str, Parameter(help="Its name, as `diptych describe` shows it.")]
Fields: TypeAlias = Annotated[
    str,
    Parameter(
        help="Its fields: NAME=TEXT, converted to the field's type; NAME:=JSON for lists and such.",
    ),
]
Data: TypeAlias = Annotated[
    str,
    Parameter(
        help="All fields as one JSON object; - reads it from stdin.",
        show_default=False,
        allow_leading_hyphen=True,
    ),
]
Acting: TypeAlias = Annotated[
    str | None, Parameter(help="Who acts; kept in the metadata of the events of a command.")
]
Roles: TypeAlias = Annotated[
    tuple[str, ...],
    Parameter(
        help="A role of the actor, for the rules; may be given again.",
        negative="",
        show_default=False,
    ),
]
Tenant: TypeAlias = Annotated[str | None, Parameter(help="The actor's tenant, for the rules.")]


def do(
    name: Name,
    /,
    *fields: Fields,
    data: Data = "",
    key: Annotated[
        str | None,
        Parameter(help="Idempotency key: the same key gives the first answer again, for ever."),
    ] = None,
    actor: Acting = None,
    role: Roles = (),
    tenant: Tenant = None,
    options: Given,
) -> int:
    """Send a command; print where its events lie in the log.

    The events are durable when this returns, and inline projections have been applied; the other
    views follow: a worker keeps them current, or the next `ask` does.
    """
    from diptych.cli.fields import parse
    from diptych.cli.loading import load
    from diptych.cli.running import run

    app = load(options.app)
    codec = app.compile().codec
    command = parse(codec, "command", name, fields, data)
    who = _actor(actor, role, tenant)

    async def send() -> Receipt | Rejected:
        from diptych.cli.running import opened
        from diptych.errors import Rejected

        async with opened(app, options, create="all", rebuild="never") as running:
            try:
                return await running.do(command, key=key, actor=who)
            except Rejected as rejected:
                return rejected

    from diptych.write.entry import Receipt

    answer = run(send())
    if isinstance(answer, Receipt):
        _show_receipt(name, answer, as_json=options.json)
        return OK
    _show_rejection(answer, as_json=options.json)
    return NO


def ask(
    name: Name,
    /,
    *fields: Fields,
    data: Data = "",
    after: Annotated[
        str | None,
        Parameter(help="Answer with what this token of a command stands for [default: the head]."),
    ] = None,
    wait: Annotated[
        float, Parameter(help="How long the views may take to get there, seconds.")
    ] = 10.0,
    strict: Annotated[
        bool,
        Parameter(help="Not there in time: fail with status 3, no stale answer.", negative=""),
    ] = False,
    actor: Acting = None,
    role: Roles = (),
    tenant: Tenant = None,
    options: Given,
) -> int:
    """Send a query; print the answer and how old it is.

    Views that lie behind are first brought to the head of the log (or to --after), for at most
    --wait seconds: no worker need be running. What is not there in time is answered as it is,
    marked stale.
    """
    from diptych.cli.fields import parse
    from diptych.cli.loading import load
    from diptych.cli.running import run

    app = load(options.app)
    query = parse(app.compile().codec, "query", name, fields, data)
    who = _actor(actor, role, tenant)
    answer, head, stuck = run(_answer(app, options, query, who, after, wait, strict))
    if options.json:
        from diptych.cli.screen import write_json
        from diptych.cli.tables import plain

        write_json(
            {
                "value": plain(answer.value),
                "as_of": answer.as_of,
                "age": answer.age,
                "stale": answer.stale,
                "token": str(answer.token),
            }
        )
    else:
        _show_answer(answer, head)
    if stuck:
        from diptych.cli.failures import warn

        warn(f"a projection stands still: {stuck}" if answer.stale else stuck)
    return OK


def _actor(actor: str | None, roles: tuple[str, ...], tenant: str | None) -> Actor | None:
    """Return who acts, as the options say."""
    from diptych.cli.failures import UsageError
    from diptych.messages import Actor

    if actor is not None:
        return Actor(actor, frozenset(roles), tenant)
    if roles or tenant is not None:
        raise UsageError("--role and --tenant say more of an actor; say who it is by --actor")
    return None


async def _answer(
    app: Module,
    options: Given,
    query: Any,
    actor: Actor | None,
    after: str | None,
    wait: float,
    strict: bool,
) -> tuple[Answer[Any], int, str]:
    from diptych.cli.running import opened
    from diptych.log import Token

    async with opened(app, options, create="views", projections=True, rebuild="never") as running:
        head = await running.log.head()
        token = Token(running.log.identity, head) if after is None else Token.parse(after)
        answer = await running.ask(query, actor=actor, after=token, wait=wait, strict=strict)
        stuck = ""
        if answer.stale:
            stuck = next((s.error for s in await running.status() if s.error), "")
        elif keys := [key for key in await running.parked.keys() if key.events]:
            from diptych.cli.screen import counted

            stuck = f"{counted(len(keys), 'key')} parked: see `diptych parked list`"
        return answer, head, stuck


# --- on the screen --------------------------------------------------------------------------------


def _show_receipt(name: str, receipt: Receipt, *, as_json: bool) -> None:
    from diptych.cli.screen import facts, screen, write_json

    if as_json:
        write_json(
            {
                "token": str(receipt.token),
                "log": receipt.log,
                "first": receipt.first,
                "last": receipt.last,
                "replayed": receipt.replayed,
                "command_id": receipt.command_id,
            }
        )
        return
    if not receipt.first:
        events = "none: there was nothing to change"
    elif receipt.first == receipt.last:
        events = f"{receipt.first}"
    else:
        events = f"{receipt.first} to {receipt.last}"
    rows = {"token": str(receipt.token), "events": events}
    if receipt.replayed:
        rows["replayed"] = "the key was used before; this is the first answer"
    facts(screen(), f"accepted: {name}", "bold green", rows)


def _show_rejection(rejected: Rejected, *, as_json: bool) -> None:
    from diptych.cli.screen import facts, screen, write_json

    if as_json:
        told = {"code": rejected.code, "reason": rejected.reason, "facts": rejected.facts}
        write_json({"rejected": told})
        return
    title = f"rejected[{rejected.code}]: {rejected.reason}"
    facts(screen(), title, "bold yellow", rejected.facts)


def _show_answer(answer: Answer[Any], head: int) -> None:
    from rich.text import Text

    from diptych.cli.screen import screen, seconds
    from diptych.cli.tables import show_value

    console = screen()
    show_value(console, answer.value)
    line = Text(f"as of position {answer.as_of}", "dim")
    line.append(f", age {seconds(answer.age)}" if answer.age else ", current")
    if answer.stale:
        behind = max(head - answer.as_of, 0)
        line.append("  STALE", "bold yellow")
        line.append(f": {behind} events behind the log; wait longer with --wait SECONDS", "yellow")
    console.print(line, soft_wrap=True)
