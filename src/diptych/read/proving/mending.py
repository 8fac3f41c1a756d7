"""What to do about what a proof has found."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from diptych.log import Log
from diptych.read.port import Checkpoint
from diptych.read.projections import Keyed, Projection


def mending(
    one: Projection,
    spans: Sequence[Checkpoint],
    log: Log,
    *,
    gaps: bool = False,
    unknown: Collection[str] = (),
) -> str:
    """Return what mends a projection that differs from its log; nothing where its reason says it.

    ``gaps``: the log itself has lost events, or what is in them. ``unknown``: types of events that
    are not known.
    """
    if gaps:
        return "restore the log from a backup: nothing else knows what was there"
    if not spans or any(span.log != log.identity for span in spans):
        return ""
    if unknown:
        # What was applied of them cannot be compared, and a rewind would forget that it was.
        types = ", ".join(sorted(unknown))
        return (
            f"the log holds events that this program does not know ({types}): if a class was "
            'renamed, give it the name they are stored under, by stored_as="…", and verify again; '
            f"do not rewind {one.title} before that"
        )
    if isinstance(one, Keyed):
        return f"`diptych projections rewind {one.title}` has its rows made anew from the log"
    return (
        f"`diptych projections rewind {one.title} --to POSITION` has all events behind that "
        "handled again, also those that were, with all that it does elsewhere (a mail, a request); "
        "the rows of a handler stay as they are"
    )
