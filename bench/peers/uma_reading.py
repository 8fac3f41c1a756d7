"""UmaDB's read side: the whole log, decoded."""

from __future__ import annotations

import time
import uuid
from itertools import islice

from bench.figures import Figures
from bench.floors.rows import DECODE
from bench.loader import made
from bench.peers.uma import server, umadb_module
from bench.places import Place


async def read(events: int, place: Place) -> Figures:
    """Append events in batches of 500, then read them all and decode their data."""
    umadb = umadb_module()
    with server(place) as url:
        client = umadb.Client(url)
        source = made(events)
        while batch := list(islice(source, 500)):
            client.append(
                [
                    umadb.Event(name, data, [tag], uuid.UUID(identity))
                    for identity, name, tag, data, _ in batch
                ]
            )
        began = time.perf_counter()
        count = 0
        found = client.read()
        while some := found.next_batch():
            decoded = [DECODE[s.event.event_type](s.event.data) for s in some]
            count += len(decoded)
        seconds = time.perf_counter() - began
    assert count == events
    return {"events/s": count / seconds}
