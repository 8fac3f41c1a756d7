"""What to do about what a proof has found."""

from __future__ import annotations

from collections.abc import Sequence

from diptych.log import Log
from diptych.read.port import Checkpoint
from diptych.read.projections import Keyed, Projection


def mending(one: Projection, spans: Sequence[Checkpoint], log: Log, *, gaps: bool = False) -> str:
    """Return what mends a projection that differs from its log; nothing where its reason says it.

    ``gaps``: the log itself has lost events.
    """
    if gaps:
        return "restore the log from a backup: nothing else knows what was there"
    if one.inline or not spans or any(span.log != log.identity for span in spans):
        return ""
    if isinstance(one, Keyed):
        return f"`diptych projections rewind {one.title}` has its rows made anew from the log"
    return (
        f"`diptych projections rewind {one.title} --to POSITION` has the events behind that "
        "handled again; the rows of a handler stay as they are"
    )
