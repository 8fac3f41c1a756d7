"""HTTP: an application as a service. ``service(app.open(log=URL, views=URL))`` is ASGI."""

from diptych.http.limits import Limits
from diptych.http.service import Service, service

__all__ = ["Limits", "Service", "service"]
