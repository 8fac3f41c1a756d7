"""Queries from the parameters of an address: ``?customer=ann&tags=a&tags=b&near={"lat":1.5}``.

A scalar is its text. A list of scalars is its parameter, repeated. All else is JSON.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin, is_typeddict
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from diptych.codec import Codec, Registered
from diptych.errors import Invalid
from diptych.messages import type_hints

Form: TypeAlias = Literal["text", "texts", "json"]

# A float in between would cost decimals their exactness.
_json = msgspec.json.Decoder(float_hook=Decimal)


class Parameters:
    """How one type of query is written in an address."""

    def __init__(self, registered: Registered) -> None:
        self.name = registered.name
        self.forms: dict[str, Form] = {
            name: form_of(hint) for name, hint in type_hints(registered.cls).items()
        }

    def parse(self, codec: Codec, pairs: list[tuple[str, str]]) -> Any:
        """Return the query that these parameters stand for; ``Invalid``."""
        found: dict[str, Any] = {}
        for name, text in pairs:
            form = self.forms.get(name, "text")
            if form == "texts":
                found.setdefault(name, []).append(text)
                continue
            if name in found:
                raise Invalid(
                    f"{self.name} is not valid", field=name, rule="it is given once, not repeated"
                )
            found[name] = self._decoded(name, text) if form == "json" else text
        return codec.from_text(codec.queries, self.name, found)

    def _decoded(self, name: str, text: str) -> Any:
        try:
            return _json.decode(text)
        except (msgspec.DecodeError, RecursionError) as error:
            raise Invalid(f"{self.name} is not valid", field=name, rule="JSON") from error


def pairs_of(query_string: bytes) -> list[tuple[str, str]]:
    """Return the parameters of an address, in order; ``Invalid``."""
    try:
        text = query_string.decode()
        if "%" in text or "+" in text:
            return parse_qsl(text, keep_blank_values=True, errors="strict")
    except UnicodeDecodeError as error:
        raise Invalid("The address is not valid", field="", rule="UTF-8") from error
    # Most need no decoding, which takes most of the time.
    parts = [part.partition("=") for part in text.split("&") if part]
    return [(name, value) for name, _, value in parts]


def form_of(hint: Any) -> Form:
    """Return how a field of this type is written."""
    origin: Any = get_origin(hint)
    args = get_args(hint)
    if origin is Annotated:
        return form_of(args[0])
    if origin in (Union, types.UnionType):
        forms = [form_of(arg) for arg in args if arg is not type(None)]
        return "json" if "json" in forms else "texts" if "texts" in forms else "text"
    plain: Any = origin or hint
    if not inspect.isclass(plain) or issubclass(plain, (str, bytes)):
        return "text"
    if issubclass(plain, (Mapping, Struct)) or is_dataclass(plain) or is_typeddict(plain):
        return "json"
    if issubclass(plain, Collection):
        inner = [form_of(arg) for arg in args if arg is not ...]
        return "texts" if all(form == "text" for form in inner) else "json"
    return "text"
