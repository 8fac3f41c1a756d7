"""Who may do what: rules on commands, queries and events, and the list of all that they guard.

A rule is asked about an actor and a message. ``role("clerk")``, ``same_tenant("tenant")``,
``authenticated``, ``anyone`` and every function ``(actor, message) -> bool`` are rules, combined
by ``|`` and ``&``.
"""

from __future__ import annotations

import enum
import inspect
from collections.abc import Callable, Iterable, Mapping
from os.path import basename
from typing import Any, Literal, NoReturn, TypeAlias

from msgspec import Struct

from diptych.errors import (
    DefinitionError,
    NotAllowed,
    NotAuthenticated,
    RuleFailed,
    calling,
    place,
    raised,
    said,
)
from diptych.messages import Actor, Message, actor_of

Kind: TypeAlias = Literal["command", "query", "event"]


class Rule:
    """Who may: called with an actor (None: nobody said who) and a message, True or False.

    ``text`` says it in words, ``fields`` are those of the message that it compares.
    """

    text: str
    fields: tuple[str, ...] = ()

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        """Whether this actor may do this."""
        raise NotImplementedError

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        """Whether the actor may do such a thing on data of his own tenant, or of another's.

        None: it depends on the message.
        """
        raise NotImplementedError

    def __or__(self, other: Rule | Check) -> Rule:
        """Either of the two is enough."""
        return _Either(self, rule_of(other))

    def __ror__(self, other: Check) -> Rule:
        """Either of the two is enough."""
        return _Either(rule_of(other), self)

    def __and__(self, other: Rule | Check) -> Rule:
        """Both must say yes."""
        return _Both(self, rule_of(other))

    def __rand__(self, other: Check) -> Rule:
        """Both must say yes."""
        return _Both(rule_of(other), self)

    def __bool__(self) -> NoReturn:
        """Refuse `and`, `or` and `not`, which would leave one of two rules out, silently."""
        raise DefinitionError(
            "Rules are combined by | and &, with brackets where both occur; `and`, `or` and `not` "
            "do not work on them",
            at=calling(),
            rule=self.text,
        )

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return self.text


Check: TypeAlias = Callable[[Any, Any], bool]
"""A function of actor and message. It is asked only when somebody acts."""


class _Anyone(Rule):
    text = "anyone"

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        return True

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        return True


class _Authenticated(Rule):
    text = "authenticated"

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        return actor is not None

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        return actor is not None


class _Role(Rule):
    def __init__(self, name: str) -> None:
        self.name = name
        self.text = f'role("{name}")'

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        return actor is not None and self.name in actor.roles

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        return self(actor, None)


class _SameTenant(Rule):
    def __init__(self, field: str) -> None:
        self.field = field
        self.fields = (field,)
        self.text = f'same_tenant("{field}")'

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        value = getattr(message, self.field)
        return actor is not None and value is not None and _text(value) == actor.tenant

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        return own and actor is not None and actor.tenant is not None


class _Function(Rule):
    def __init__(self, function: Callable[..., object]) -> None:
        self.function = function
        self.at = place(function)
        name = getattr(function, "__name__", type(function).__name__)
        self.text = f"lambda at {basename(self.at)}" if name == "<lambda>" else name

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        if actor is None:
            return False
        try:
            answer = self.function(actor, message)
        except BaseException as error:
            raise self._failed(message, said(raised(error))) from error
        if answer is True or answer is False:
            return answer
        raise self._failed(message, f"it returned {answer!r:.50}")

    def _failed(self, message: Any, why: str) -> RuleFailed:
        return RuleFailed(
            "A rule says True or False, and raises nothing; nothing was done",
            message=type(message).__name__,
            rule=self.text,
            why=why,
            at=self.at,
        )

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        return False if actor is None else None


class _Either(Rule):
    def __init__(self, one: Rule, other: Rule) -> None:
        self.rules = rules = (one, other)
        self.text = " | ".join(rule.text for rule in rules)
        self.fields = tuple(field for rule in rules for field in rule.fields)

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        one, other = self.rules
        return one(actor, message) or other(actor, message)

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        found = [rule.foresee(actor, own=own) for rule in self.rules]
        return True if True in found else None if None in found else False


class _Both(Rule):
    def __init__(self, one: Rule, other: Rule) -> None:
        self.rules = rules = (one, other)
        texts = [f"({r.text})" if isinstance(r, _Either) else r.text for r in rules]
        self.text = " & ".join(texts)
        self.fields = tuple(field for rule in rules for field in rule.fields)

    def __call__(self, actor: Actor | None, message: Any) -> bool:
        one, other = self.rules
        return one(actor, message) and other(actor, message)

    def foresee(self, actor: Actor | None, *, own: bool) -> bool | None:
        found = [rule.foresee(actor, own=own) for rule in self.rules]
        return False if False in found else None if None in found else True


anyone: Rule = _Anyone()
"""Everybody may, even where nobody says who acts."""

authenticated: Rule = _Authenticated()
"""Whoever says who he is may."""


def role(name: str) -> Rule:
    """Return the rule that actors of this role may."""
    _require_word(name, 'A role is a text: role("clerk")')
    return _Role(name)


def same_tenant(field: str) -> Rule:
    """Return the rule that the message's field names the actor's own tenant.

    The field is a str, int, UUID or enum; its text is compared, as a tag would have it.
    """
    _require_word(field, 'Name the field that holds the tenant: same_tenant("tenant")')
    return _SameTenant(field)


def _require_word(given: object, text: str) -> None:
    if not isinstance(given, str) or not given:
        raise DefinitionError(text, at=calling(), got=repr(given)[:100])


def rule_of(given: Any) -> Rule:
    """Return a rule, or a function as one; ``DefinitionError`` for anything else."""
    if isinstance(given, Rule):
        return given
    if not callable(given) or isinstance(given, type):
        raise DefinitionError(
            'A rule is role("…"), same_tenant("…"), authenticated, anyone, or a function',
            at=calling(),
            got=repr(given)[:100],
        )
    if inspect.iscoroutinefunction(given):
        raise DefinitionError("A rule is a plain function, not an async one", at=place(given))
    try:
        inspect.signature(given).bind(None, None)
    except TypeError as error:
        raise DefinitionError(
            "A rule is a function of two parameters: (actor, message) -> bool", at=place(given)
        ) from error
    return _Function(given)


def _text(value: Any) -> str:
    return str(value.value if isinstance(value, enum.Enum) else value)


# --- an application's rules -----------------------------------------------------------------------


class Endpoint(Struct, frozen=True, eq=False):
    """What may be asked of an application, and by whom. ``rule`` None: none was declared.

    ``at``: file and line of the function; of an event, its class or where it is exposed.
    """

    kind: Kind
    message: type[Message]
    rule: Rule | None
    at: str

    @property
    def name(self) -> str:
        """The message's name."""
        return self.message.message_name


class Access:
    """The rules of one application, and its ``endpoints``: all commands, queries and events.

    ``guarded``: there is a rule, so what has none is allowed to nobody. Raises ``DefinitionError``
    for a command or query without one: it could never be used.
    """

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self.endpoints = tuple(endpoints)
        self.guarded = any(one.rule is not None for one in self.endpoints)
        self._of: Mapping[type, Endpoint] = {one.message: one for one in self.endpoints}
        if self.guarded:
            self._require_rules()
        for one in self.endpoints:
            _require_fields(one)

    def _require_rules(self) -> None:
        bare = [one for one in self.endpoints if one.rule is None and one.kind != "event"]
        if bare:
            raise DefinitionError(
                "Once an application has a rule, every command and query needs one; say who may: "
                '@module.decides(allow=role("…")), or allow=anyone',
                at=bare[0].at,
                without=", ".join(one.name for one in bare),
            )

    # --- asked by the application -----------------------------------------------------------------

    def allows(self, actor: Actor | str | None, message: Message) -> bool:
        """Whether this actor may do, ask or read this. May raise ``RuleFailed``."""
        if not self.guarded:
            return True
        rule = self._rule(type(message))
        return rule is not None and rule(actor_of(actor), message)

    def require(self, actor: Actor | str | None, message: Message) -> None:
        """Raise ``NotAuthenticated`` or ``NotAllowed`` unless this actor may; ``RuleFailed``."""
        if not self.allows(actor, message):
            raise self._denied(actor_of(actor), type(message))

    # --- before there is a message ----------------------------------------------------------------

    def may(self, actor: Actor | str | None, message: type[Message]) -> bool:
        """Whether there is any message of this type that the actor may do, ask or read."""
        if not self.guarded:
            return True
        rule = self._rule(message)
        return rule is not None and rule.foresee(actor_of(actor), own=True) is not False

    def require_may(self, actor: Actor | str | None, message: type[Message]) -> None:
        """Raise ``NotAuthenticated`` or ``NotAllowed`` when no message of this type is allowed."""
        if not self.may(actor, message):
            raise self._denied(actor_of(actor), message)

    def _rule(self, message: type[Message]) -> Rule | None:
        endpoint = self._of.get(message)
        return None if endpoint is None else endpoint.rule

    def _denied(self, actor: Actor | None, message: type[Message]) -> NotAuthenticated | NotAllowed:
        rule = self._rule(message)
        facts = {"message": message.message_name, "rule": "none" if rule is None else rule.text}
        if actor is None:
            return NotAuthenticated("Say who acts: this is not for everybody", **facts)
        return NotAllowed(
            "This actor may not do this; it is for those whom the rule names",
            actor=actor.id,
            **facts,
        )


def _require_fields(endpoint: Endpoint) -> None:
    known = endpoint.message.__struct_fields__
    for field in endpoint.rule.fields if endpoint.rule is not None else ():
        if field not in known:
            raise DefinitionError(
                "A rule compares a field that the message does not have",
                at=endpoint.at,
                message=endpoint.name,
                field=field,
                rule=endpoint.rule,
            )
