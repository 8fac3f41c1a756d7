"""How much the door takes on."""

from __future__ import annotations

from msgspec import Struct


class Limits(Struct, frozen=True, kw_only=True):
    """Bounds of the door; those of the command side are ``diptych.Limits``.

    ``body``: bytes of a command, of a line of a batch, of a query's parameters. ``batch``: bytes of
    a batch. ``in_flight``: commands of one batch that wait for their answer. ``depth``: brackets
    within brackets in JSON. ``queries``: queries that are being answered or wait for their token.
    ``streams``: streams that are open. Times are seconds. ``seconds``: a command or a query may
    take so long. ``wait``: the longest wait for a token that is granted. ``send``: a stream whose
    client takes nothing for so long is closed. ``heartbeat``: a stream without news says so often
    that it is alive. ``stream``: a stream is closed after so long, and its client, who connects
    again, is asked anew who he is.
    """

    body: int = 1_048_576
    batch: int = 268_435_456
    in_flight: int = 1024
    depth: int = 64
    queries: int = 1000
    streams: int = 2000
    seconds: float = 30.0
    wait: float = 20.0
    send: float = 20.0
    heartbeat: float = 15.0
    stream: float = 3600.0
