"""The command line: ``diptych --app module:app --log URL --views URL COMMAND …``.

A client of the application like any other. Nothing is loaded that a call does not need: cyclopts
only to read a command, a command's module only when it is called.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line (by default ``sys.argv``) and return the exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if given in ([], ["--help"], ["-h"]):
            from diptych.cli.page import page

            print(page())
            status = 0
        else:
            from diptych.cli.commands import build

            answer = build().meta(given)
            status = answer if isinstance(answer, int) else 0
        sys.stdout.flush()
    except BaseException as error:
        from diptych.cli.failures import report

        return report(error, given)
    return status


__all__ = ["main"]
