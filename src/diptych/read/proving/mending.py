"""What to do about what a proof has found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

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
    wrong: Mapping[str, Sequence[int]] | None = None,
) -> str:
    """Return what mends a projection that differs from its log; nothing where its reason says it.

    ``gaps``: the log itself has lost events, or what is in them. ``unknown``: types of events that
    are not known. ``wrong``: the positions that are missing, doubled, ahead; None: not compared.
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
    return _mending_handler(one, min(span.position for span in spans), wrong)


def _mending_handler(
    one: Projection, position: int, wrong: Mapping[str, Sequence[int]] | None
) -> str:
    """Return what mends a handler, which stands at a position: it never does less by a rewind."""
    rewind = f"`diptych projections rewind {one.title} --to"
    again = (
        "has all events behind that handled again, also those that were, with all that it does "
        "elsewhere (a mail, a request); the rows of a handler stay as they are"
    )
    accept = (
        f"{rewind} {position}` accepts what is there, and has nothing handled again (pause it "
        "first where events come in: later ones would be)"
    )
    if wrong is None:
        return f"{rewind} POSITION` {again}"
    if wrong["ahead"]:
        return (
            "nothing takes back what a handler has done: when it goes on, it handles what is ahead "
            "a second time; put that right by hand, and verify again"
        )
    if wrong["missing"]:
        remedy = f"{rewind} {min(wrong['missing']) - 1}` {again}"
    elif wrong["doubled"]:
        remedy = accept
    else:
        remedy = f"where nothing is missing, {accept}; {rewind} POSITION` {again}"
    if wrong["doubled"]:
        by_hand = "nothing takes back what a handler has done twice: put that right by hand; then "
        remedy = by_hand + remedy
    return remedy
