"""Templates to answers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse

from examples.flights.page.places import AIRPORTS, carrier, city
from examples.flights.page.rows import local, number_of, signed

HERE: Final = Path(__file__).parent
SPEEDS: Final = {0.0: "Pause", 1.0: "1 min/s", 5.0: "5 min/s", 15.0: "15 min/s"}


def _clock(moment: datetime, form: str = "%H:%M") -> str:
    return f"{local(moment):{form}}"


def _words(name: str) -> str:
    """Return "aircraft swapped" for "AircraftSwapped"."""
    return "".join(f" {one.lower()}" if one.isupper() else one for one in name).strip()


_env = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_shared: dict[str, Any] = {"AIRPORTS": AIRPORTS, "SPEEDS": SPEEDS, "new_key": uuid4}
_env.filters |= {
    "clock": _clock,
    "city": city,
    "carrier": carrier,
    "number": number_of,
    "signed": signed,
    "words": _words,
}


def draw(template: str, **values: Any) -> str:
    """Return a template, filled in."""
    return _env.get_template(template).render(_shared | values)


def page(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Answer with a template."""
    return HTMLResponse(draw(template, **values), status)


def is_part(request: Request) -> bool:
    """Whether htmx asks, for a part of the page that is already there."""
    return request.headers.get("hx-request") == "true"
