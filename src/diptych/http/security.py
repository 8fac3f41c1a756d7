"""Which names and pages may reach the service, and what browsers are told not to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from diptych.http.messages import Named, text_of
from diptych.http.problems import Headers, Problem

if TYPE_CHECKING:
    from starlette.types import Message

LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")
ANY: Final = "*"

SENT: Final = ("content-type", "idempotency-key", "diptych-after", "prefer", "if-none-match")
SHOWN: Final = (
    "diptych-token",
    "diptych-as-of",
    "diptych-stale",
    "age",
    "etag",
    "retry-after",
)
"""Headers that pages of other origins may send, and see."""

_POLICY: Final = (
    b"content-security-policy",
    b"default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
)
_ALWAYS: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Gate:
    """Refuses requests by name and by origin.

    A page that has a name of its own lead to this machine (DNS rebinding) comes with that name; a
    page of another site comes with its origin.
    """

    def __init__(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._any = ANY in self._hosts
        self._origins = frozenset(origins)

    def require(self, headers: Named) -> None:
        """Raise ``Problem`` for a foreign host or origin."""
        host = (text_of(headers, b"host") or "").lower()
        if not self._any and _name(host) not in self._hosts:
            raise Problem(
                "foreign-host", "Call it by one of its names; the service is given them as hosts"
            )
        origin = text_of(headers, b"origin")
        if origin is not None and origin not in self._origins and _netloc(origin) != host:
            raise Problem(
                "foreign-origin", "Only its own pages may, and those that are given as origins"
            )


def _name(host: str) -> str:
    """Return a host without its port."""
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def secured(message: Message) -> Message:
    """Return the start of an answer with what browsers are to be told."""
    headers: Headers = [*message.get("headers", ()), *_ALWAYS]
    if all(name != _POLICY[0] for name, _ in headers):
        headers.append(_POLICY)
    return {**message, "headers": headers}
