"""HTTP requests read: bodies within bounds, headers, JSON."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final

from diptych.errors import Invalid
from diptych.http.problems import Headers, Problem

if TYPE_CHECKING:
    from starlette.types import Receive

    from diptych.http.call import Named

JSON: Final = (b"content-type", b"application/json")
LINES: Final = "application/x-ndjson"
EVENTS: Final = "text/event-stream"

TOKEN: Final = r"^[0-9a-zA-Z-]{1,64}\.[0-9]{1,18}$"
"""The form of a token, for descriptions: clients pass on what they were given."""

_JSON_TYPE = re.compile(rb"application/(?:[\w.+-]+\+)?json\s*(?:;|\Z)", re.IGNORECASE)
_LINES_TYPE = re.compile(rb"application/(?:x-ndjson|jsonl)\s*(?:;|\Z)", re.IGNORECASE)
_STRUCTURE = re.compile(rb'"(?:[^"\\]|\\.)*"?|[\[\]{}]', re.DOTALL)
_KEY = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?\Z")


class ClientGone(Exception):
    """The client has gone away: there is nobody to answer."""


def text_of(headers: Named, name: bytes) -> str | None:
    """Return a header's text."""
    value = headers.get(name)
    return None if value is None else value.decode("latin-1")


# --- bodies ---------------------------------------------------------------------------------------


def require_json(headers: Named) -> None:
    """Raise ``Problem`` unless the body says that it is JSON. Forms of other pages cannot."""
    _require(headers, _JSON_TYPE, JSON[1])


def require_lines(headers: Named) -> None:
    """Raise ``Problem`` unless the body says that it is one JSON document a line."""
    _require(headers, _LINES_TYPE, LINES.encode())


def _require(headers: Named, pattern: re.Pattern[bytes], wanted: bytes) -> None:
    given = headers.get(b"content-type", b"")
    if given != wanted and not pattern.match(given):
        raise Problem(
            "media-type",
            f"Say that the body is JSON: Content-Type: {wanted.decode()}",
            headers=[(b"accept-post", wanted)],
            wanted=wanted.decode(),
            got=given.decode("latin-1"),
        )


def too_large(most: int) -> Problem:
    """Return the refusal of a body of more than so many bytes."""
    return Problem("too-large", f"Send at most {most} bytes", limit=most)


async def chunks_of(receive: Receive) -> AsyncIterator[bytes]:
    """Iterate over the parts of a body; ``ClientGone`` when it is never completed."""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body: bytes = message.get("body", b"")
        if body:
            yield body
        if not message.get("more_body", False):
            return


async def body_of(headers: Named, receive: Receive, most: int) -> bytes:
    """Return the body; ``Problem`` as soon as it is known to be too large."""
    length = headers.get(b"content-length", b"")
    if length.isdigit() and (len(length) > 18 or int(length) > most):
        raise too_large(most)
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientGone
        body: bytes = message.get("body", b"")
        size += len(body)
        if size > most:
            raise too_large(most)
        if not message.get("more_body", False):
            return b"".join([*parts, body]) if parts else body
        parts.append(body)


def require_shallow(data: bytes, most: int) -> None:
    """Raise ``Problem`` when JSON is nested more deeply than that."""
    if data.count(b"[") + data.count(b"{") <= most:
        return
    depth = 0
    for found in _STRUCTURE.finditer(data):
        sign = found.group()
        if sign in b"[{":
            depth += 1
            if depth > most:
                raise Problem("too-deep", f"Nest at most {most} brackets", limit=most)
        elif sign in b"]}":
            depth -= 1


# --- headers --------------------------------------------------------------------------------------


def key_of(headers: Headers) -> str | None:
    """Return the idempotency key, with or without the quotes of a structured field."""
    given = [value for name, value in headers if name == b"idempotency-key"]
    if not given:
        return None
    if len(given) > 1:
        raise Invalid(
            "There are several idempotency keys", field="Idempotency-Key", rule="one header"
        )
    key = given[0].decode("latin-1")
    if len(key) > 1 and key[0] == key[-1] == '"':
        key = key[1:-1]
    return require_key(key, "Idempotency-Key")


def require_key(key: str, field: str) -> str:
    """Return an idempotency key, or raise ``Invalid``."""
    if not _KEY.match(key):
        raise Invalid(
            "That is no idempotency key; a UUID is one",
            field=field,
            rule="1 to 255 printable ASCII characters",
        )
    return key


def preferences(headers: Named) -> dict[str, str]:
    """Return what the client prefers (RFC 7240): ``wait=2, handling=strict``."""
    found: dict[str, str] = {}
    given = text_of(headers, b"prefer")
    if given is None:
        return found
    for one in given.split(","):
        name, _, value = one.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def wait_of(preferred: dict[str, str], most: float) -> float | None:
    """Return how many seconds the client will wait; None where it does not say."""
    seconds = preferred.get("wait")
    if seconds is None or not re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", seconds, re.ASCII):
        return None
    return min(float(seconds), most)
