"""``/openapi.json``, ``/asyncapi.json`` and ``/reference``: what the service says of itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import msgspec

from diptych.http.call import CAREFUL, GUARDED
from diptych.http.messages import JSON
from diptych.http.problems import Problem
from diptych.http.queries import etag_of, is_known

if TYPE_CHECKING:
    from diptych.http.call import Call
    from diptych.http.door import Door, Role

PAGES: Final = {
    "": ("index.html", b"text/html; charset=utf-8"),
    "reference.css": ("reference.css", b"text/css; charset=utf-8"),
    "reference.js": ("reference.js", b"text/javascript; charset=utf-8"),
}

PAGE_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_NO_CACHE: Final = (b"cache-control", b"no-cache")


class Description:
    """A description of the service, made when it is first asked for."""

    def __init__(self, door: Door, describe: Callable[[Any, Role], dict[str, Any]]) -> None:
        self._door = door
        self._describe = describe
        self._made: dict[str, tuple[bytes, bytes]] = {}

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        root = call.root
        if root not in self._made:
            told = self._describe(self._door.definitions, self._door.role)
            if "openapi" in told:
                told["servers"] = [{"url": root or "/"}]
            body = msgspec.json.encode(told)
            self._made = {root: (body, etag_of(body))}
        body, tag = self._made[root]
        headers = [JSON, _NO_CACHE, (b"etag", tag), *GUARDED]
        if is_known(call.headers.get(b"if-none-match", b""), tag):
            await call.unchanged(headers)
            return
        await call.answer(200, body, headers)


class Page:
    """``/reference``: the description as a page, from the package alone."""

    async def __call__(self, call: Call) -> None:
        """Answer a request."""
        found = PAGES.get(call.name)
        if found is None:
            raise Problem("not-found", "/reference is a single page")
        name, media = found
        body = resources.files("diptych.http").joinpath("pages", name).read_bytes()
        policy = [(b"content-security-policy", PAGE_POLICY), (b"referrer-policy", b"no-referrer")]
        await call.answer(200, body, [(b"content-type", media), _NO_CACHE, *CAREFUL, *policy])
