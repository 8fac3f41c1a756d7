"""The commands and the options that all of them have, as cyclopts reads them."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Group, Parameter

from diptych.cli.options import Options
from diptych.cli.page import ABOUT, COMMANDS, FLAGS, OPTIONS, STATUS, variable

_GLOBAL = Group("Options of every command", sort_key=1)


def build() -> App:
    """Return the command line, its commands not yet imported."""
    cli = App(
        name="diptych",
        help=ABOUT,
        help_format="plaintext",
        help_epilogue=STATUS,
        version=_version,
        version_flags=["--version"],
        exit_on_error=False,
        print_error=False,
        suppress_keyboard_interrupt=False,
        result_action="return_value",
    )
    for order, command in enumerate(COMMANDS):
        cli.command(
            f"diptych.cli.{command.where}", name=command.name, help=command.about, sort_key=order
        )

    @cli.meta.default
    def launch(
        *tokens: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
        app: Annotated[str, _option("app")] = "",
        log: Annotated[str, _option("log")] = "",
        views: Annotated[str, _option("views")] = "",
        json: Annotated[bool, _option("json")] = False,
        debug: Annotated[bool, _option("debug")] = False,
    ) -> Any:
        command, bound, ignored = cli.parse_args(tokens)
        options = Options(app=app, log=log, views=views, json=json, debug=debug)
        answer: Any = command(*bound.args, **bound.kwargs, **dict.fromkeys(ignored, options))
        return answer

    return cli


def _option(name: str) -> Parameter:
    return Parameter(
        help=OPTIONS[name],
        env_var=None if name in FLAGS else variable(name),
        group=_GLOBAL,
        negative="",
        show_default=False,
    )


def _version() -> str:
    from importlib.metadata import version

    return f"diptych {version('diptych')}"
