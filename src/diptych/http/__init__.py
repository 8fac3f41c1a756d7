"""HTTP: an application as a service. ``service(app.open(log=URL, views=URL))`` is ASGI."""

from diptych.http.actors import ExpiringActor, bearer, trusted_proxy
from diptych.http.limits import Limits
from diptych.http.service import Service, service

__all__ = ["ExpiringActor", "Limits", "Service", "bearer", "service", "trusted_proxy"]
