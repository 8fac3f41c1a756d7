"""What identifies things: a field of one of these types tags its message."""

from typing import Annotated

from diptych import Tag

FlightId = Annotated[str, Tag("flight")]
"""Hour of departure (UTC), carrier and number: ``20130101T10-UA1545``."""

AircraftId = Annotated[str, Tag("aircraft")]
"""The tail number: ``N14228``."""
