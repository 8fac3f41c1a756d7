"""The options that every command has."""

from __future__ import annotations

from typing import Annotated, NamedTuple, TypeAlias

from cyclopts import Parameter


class Options(NamedTuple):
    """What was said before or after the command's name, or in the environment; "": nothing."""

    app: str = ""
    log: str = ""
    views: str = ""
    json: bool = False
    debug: bool = False


Given: TypeAlias = Annotated[Options, Parameter(parse=False)]
"""How a command takes the options: a keyword parameter that is not read from its own arguments."""
