"""Asks before what cannot be undone."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from diptych.cli.failures import UsageError


def sure(what: Iterable[str], *, yes: bool) -> bool:
    """Say what will be done, and whether it is to be done: by --yes, or by an answer."""
    listed = list(what)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            "This asks before it does anything, and nobody is there to answer",
            code="not-confirmed",
            hint="--yes does it without asking",
            would="; ".join(listed),
        )
    for line in listed:
        print(line, file=sys.stderr)
    print("Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
