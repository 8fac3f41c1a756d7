"""What all pages share."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.requests import Request

from diptych import Running
from examples.flights.page.bell import Bell
from examples.flights.page.clock import Clock
from examples.flights.page.leash import Leash

STREAMS = 200
"""Visitors who may follow something at the same time."""


@dataclass
class Desk:
    """The application at work, the flights' clock, the leash of the views, and who looks on."""

    running: Running
    clock: Clock
    leash: Leash
    bell: Bell
    streams: int = 0
    closing: bool = False

    def close(self) -> None:
        """End the streams."""
        self.closing = True
        self.bell.ring()


def desk_of(request: Request) -> Desk:
    """Return the desk that serves a request."""
    desk: Desk = request.app.state.desk
    return desk
