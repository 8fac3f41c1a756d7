"""Where nothing is compared: the rows are not of this log, or whose they are is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diptych.errors import ViewLost
from diptych.log import Log
from diptych.read.following.follower import refuse_foreign_spans
from diptych.read.opening import unclaimed_rows
from diptych.read.port import Checkpoint, ViewStore
from diptych.read.projections import Projection


async def require_comparable(
    one: Projection,
    spans: Sequence[Checkpoint],
    lost: Mapping[str, ViewLost],
    store: ViewStore,
    log: Log,
) -> None:
    """Raise ``ForeignCheckpoint`` or ``ViewLost`` unless a projection stands in this log.

    ``lost`` are those whose rows are gone, as the store says it.
    """
    if one.name in lost:
        raise lost[one.name]
    if not spans:
        raise unclaimed_rows(one, await store.versions())
    await refuse_foreign_spans(one.name, spans, log, lost=True)
