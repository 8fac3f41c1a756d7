"""Who sends a request: authentication by bearer tokens (JWT), or by a proxy that is trusted.

Each of these functions returns what ``service(authenticate=…)`` takes: a callable from a request
to an ``Actor``, or None where the request names nobody. What a request claims wrongly is
``NotAuthenticated``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Any

from diptych.errors import DefinitionError, Invalid, NotAuthenticated, calling
from diptych.messages import Actor

if TYPE_CHECKING:
    from starlette.requests import Request


class ExpiringActor(Actor, frozen=True):
    """An actor who is known until a time, ``expires``, in seconds since 1970 (None: for good).

    A stream that he has open ends then.
    """

    expires: float | None = None


def bearer(
    key: Any,
    *,
    algorithms: Sequence[str],
    audience: str | None = None,
    issuer: str | None = None,
    roles: str = "roles",
    tenant: str = "tenant",
    leeway: float = 0.0,
) -> Callable[[Request], Awaitable[Actor | None]]:
    """Authenticate by a JWT in ``Authorization: Bearer …`` (extra ``jwt``).

    ``key``: a secret, a public key in PEM, or a ``jwt.PyJWKClient``. ``algorithms`` are those that
    are accepted, and have to be named. A token has to expire (``exp``, with ``leeway`` seconds)
    and to say who it is for (``sub``, the actor's id); ``roles`` and ``tenant`` name the claims
    that hold these. A stream ends when its token does. Raises ``DefinitionError``.
    """
    try:
        import jwt
    except ModuleNotFoundError as error:
        raise DefinitionError(
            "Bearer tokens need PyJWT, which is not installed: pip install 'diptych[jwt]'",
            at=calling(),
        ) from error
    allowed = list(algorithms)
    if not allowed or any(name.lower() == "none" for name in allowed):
        raise DefinitionError(
            'Name the algorithms of the keys: algorithms=["RS256"]; "none" is none',
            at=calling(),
            got=allowed,
        )

    async def authenticate(request: Request) -> Actor | None:
        token = _bearer_token(request)
        if token is None:
            return None
        try:
            signed_by = key
            if isinstance(key, jwt.PyJWKClient):  # it may have to fetch the keys
                found = await asyncio.to_thread(key.get_signing_key_from_jwt, token)
                signed_by = found.key
            claims: dict[str, Any] = jwt.decode(
                token,
                signed_by,
                algorithms=allowed,
                audience=audience,
                issuer=issuer,
                leeway=leeway,
                options={"require": ["exp", "sub"]},
            )
            return ExpiringActor(
                claims["sub"],
                _words(claims.get(roles, ())),
                claims.get(tenant),
                float(claims["exp"]) + leeway,
            )
        except (jwt.PyJWTError, Invalid) as error:
            raise NotAuthenticated(
                "The bearer token is not valid", why=type(error).__name__
            ) from error

    return authenticate


def _bearer_token(request: Request) -> str | None:
    given = request.headers.getlist("authorization")
    if not given:
        return None
    scheme, _, token = given[0].partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise NotAuthenticated("Send one header, Authorization: Bearer TOKEN")
    return token.strip()


def _words(claim: Any) -> frozenset[str]:
    """Return roles, which some write as a list and some as words with spaces between."""
    if isinstance(claim, str):
        return frozenset(claim.split())
    if isinstance(claim, Iterable):
        listed: list[Any] = list(claim)  # pyright: ignore[reportUnknownArgumentType]
        if all(isinstance(one, str) for one in listed):
            return frozenset(listed)
    raise Invalid("These are no roles", field="roles", rule="a list of texts")


def trusted_proxy(
    user: str,
    *,
    roles: str | None = None,
    tenant: str | None = None,
    proxies: Sequence[str] = ("127.0.0.1", "::1"),
) -> Callable[[Request], Actor | None]:
    """Authenticate by headers that a proxy sets, and takes out of what its clients send.

    ``user``, ``roles`` (with commas or spaces between) and ``tenant`` are headers' names.
    ``proxies`` are addresses or networks; from anywhere else these headers are refused. Raises
    ``DefinitionError``.
    """
    try:
        networks = [ip_network(one) for one in proxies]
    except ValueError as error:
        raise DefinitionError(
            "Proxies are named by their addresses or networks", at=calling(), why=error
        ) from error
    names = [name for name in (user, roles, tenant) if name is not None]

    def authenticate(request: Request) -> Actor | None:
        if not any(name in request.headers for name in names):
            return None
        if not _is_one_of(request, networks):
            raise NotAuthenticated("These headers are taken from a trusted proxy only")
        values = {name: _only(request, name) for name in names}
        given = values[user]
        if given is None:
            return None
        listed = (values[roles] if roles is not None else None) or ""
        try:
            return Actor(
                given,
                frozenset(listed.replace(",", " ").split()),
                values[tenant] if tenant is not None else None,
            )
        except Invalid as error:
            raise NotAuthenticated("The proxy names nobody that could be", why=error) from error

    return authenticate


def _is_one_of(request: Request, networks: Sequence[Any]) -> bool:
    if request.client is None:
        return False
    try:
        address = ip_address(request.client.host)
    except ValueError:
        return False
    return any(address in network for network in networks)


def _only(request: Request, name: str) -> str | None:
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise NotAuthenticated("The proxy's headers are there twice", header=name)
    return found[0] if found else None


__all__ = ["ExpiringActor", "bearer", "trusted_proxy"]
