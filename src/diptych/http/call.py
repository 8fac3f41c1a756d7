"""One request on its way to its answer."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from diptych.http.problems import MEDIA_TYPE, Headers, encoded, problem_of

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

Named: TypeAlias = dict[bytes, bytes]
"""Headers by their names, in small letters."""

NO_STORE: Final = (b"cache-control", b"no-store")

CAREFUL: Final[Headers] = [
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
"""What browsers are told with every answer; each header costs a server half a microsecond."""

GUARDED: Final[Headers] = [
    *CAREFUL,
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; sandbox"),
]
"""The same with every answer that is no page: as one it does nothing, and nobody frames it."""

_PROBLEM: Final[Headers] = [(b"content-type", MEDIA_TYPE.encode()), NO_STORE, *GUARDED]


class Call:
    """A request and its answer.

    ``name`` is the last part of the path where the address has one, ``root`` the path below which
    the service is mounted. ``started``: a part of the answer has been sent.
    """

    __slots__ = ("headers", "name", "receive", "root", "scope", "send", "started")

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, headers: Named, root: str, name: str
    ) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.headers = headers
        self.root = root
        self.name = name
        self.started = False

    async def start(self, status: int, headers: Headers) -> None:
        """Send status and headers, ``GUARDED`` or ``CAREFUL`` among them."""
        self.started = True
        await self.send({"type": "http.response.start", "status": status, "headers": headers})

    async def answer(self, status: int, body: bytes, headers: Headers) -> None:
        """Send a whole answer; adds its length to the headers."""
        self.started = True
        send = self.send
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def unchanged(self, headers: Headers) -> None:
        """Say that the client has it already."""
        await self.start(304, headers)
        await self.send({"type": "http.response.body", "body": b""})

    async def problem(self, error: BaseException) -> None:
        """Answer with the problem details of an error."""
        status, told, headers = problem_of(error, reading=self.scope["method"] != "POST")
        await self.answer(status, encoded(told), [*_PROBLEM, *headers])


Endpoint: TypeAlias = Callable[[Call], Awaitable[None]]
