"""Which names and pages may reach the service, and what browsers are told not to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from diptych.http.messages import text_of
from diptych.http.problems import Problem

if TYPE_CHECKING:
    from diptych.http.call import Named

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

KNOWN: Final = 1000
"""Names, as requests give them, that are kept once they were found right."""


class Gate:
    """Refuses requests by name and by origin.

    A page that has a name of its own lead to this machine (DNS rebinding) comes with that name; a
    page of another site comes with its origin.
    """

    def __init__(self, hosts: Sequence[str], origins: Sequence[str]) -> None:
        self._hosts = frozenset(host.lower() for host in hosts)
        self._any = ANY in self._hosts
        self._origins = frozenset(origins)
        self._right: set[bytes] = set()

    def require(self, headers: Named) -> None:
        """Raise ``Problem`` for a foreign host or origin."""
        given = headers.get(b"host", b"")
        if given in self._right and b"origin" not in headers:
            return
        host = given.decode("latin-1").lower()
        if not self._any and _name(host) not in self._hosts:
            raise Problem(
                "foreign-host", "Call it by one of its names; the service is given them as hosts"
            )
        if len(self._right) < KNOWN:
            self._right.add(given)
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
