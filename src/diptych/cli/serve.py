"""``diptych serve``: the application over HTTP."""

from __future__ import annotations

import sys
from math import inf
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from diptych.cli.failures import INTERRUPTED, OK, UsageError
from diptych.cli.options import Given

if TYPE_CHECKING:
    import signal

    from diptych.app import Module


def serve(
    *,
    role: Annotated[
        Literal["all", "commands", "queries", "workers"],
        Parameter(help="What this process does; the sides may run apart."),
    ] = "all",
    host: Annotated[str, Parameter(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0: a free one, which is printed.")] = 8000,
    server: Annotated[
        Literal["uvicorn", "granian"], Parameter(help="What speaks HTTP; granian is an extra.")
    ] = "uvicorn",
    grace: Annotated[
        float, Parameter(help="How long what is under way may take after SIGTERM, seconds.")
    ] = 10.0,
    authenticate: Annotated[
        str, Parameter(help="Who sends a request: a callable, MODULE:NAME.", show_default=False)
    ] = "",
    allow_host: Annotated[
        list[str] | None,
        Parameter(help="A name that it answers to; may be repeated; * is any.", negative=""),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        Parameter(help="An origin whose pages may call it; may be repeated.", negative=""),
    ] = None,
    insecure: Annotated[
        bool,
        Parameter(help="Let everybody who can reach the address do everything.", negative=""),
    ] = False,
    options: Given,
) -> int:
    """Serve the application over HTTP until Ctrl-C or SIGTERM.

    `all` does everything; `commands` takes commands; `queries` answers them from views that
    `workers` keep current. Each has /health/live and /health/ready. Without --authenticate it
    listens at addresses of this machine only.
    """
    from diptych.cli.loading import load, named
    from diptych.cli.running import run

    try:
        import starlette  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ModuleNotFoundError as error:
        raise UsageError(
            "Serving needs starlette and uvicorn, which are not installed",
            code="not-installed",
            hint="pip install 'diptych[http]'",
        ) from error
    if not 0 <= grace < inf:
        raise UsageError("--grace is a number of seconds, 0 or more", code="usage", got=grace)
    from diptych.http.security import ANY
    from diptych.http.serving import is_loopback

    app = load(options.app)
    who = named(authenticate) if authenticate else None
    if who is None and not insecure and not is_loopback(host):
        raise UsageError(
            "Without authentication it listens at addresses of this machine only",
            code="insecure",
            hint="--authenticate MODULE:NAME, or --insecure where a firewall or proxy keeps guard",
            host=host,
        )
    hosts = [*(allow_host or ()), *([ANY] if insecure else ())] or None
    ended = run(
        _serve(
            app,
            options,
            (host, port),
            {"server": server, "grace": grace},
            {"role": role, "authenticate": who, "hosts": hosts, "origins": allow_origin or ()},
        ),
        stays=True,
        loop=_new_loop(),
    )
    import signal

    return INTERRUPTED if ended == signal.SIGINT else OK


def _new_loop() -> Any:
    try:
        import uvloop
    except ModuleNotFoundError:
        return None
    return uvloop.new_event_loop


async def _serve(
    app: Module,
    options: Given,
    address: tuple[str, int],
    how: dict[str, Any],
    what: dict[str, Any],
) -> signal.Signals:
    from diptych.cli.running import opened
    from diptych.http import serving
    from diptych.http.service import service

    role = what["role"]
    # Who only reads makes no log: a mistaken address is to be noticed.
    create: Any = "all" if role in ("all", "commands") else "views"

    def started(url: str) -> None:
        if options.json:
            from diptych.cli.screen import write_json

            write_json({"url": url, "app": app.name, "role": role})
            sys.stdout.flush()  # who started it waits for this line
        else:
            print(f"{app.name} serves {role} at {url}", flush=True)

    with serving.bound(*address) as sock:
        keeps = role in ("all", "workers")
        async with opened(
            *(app, options),
            create=create,
            projections=keeps,
            rebuild="auto" if keeps else "never",
        ) as running:
            return await serving.run(service(running, **what), sock, started=started, **how)
