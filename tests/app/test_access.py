"""Who may do what: rules, their enforcement at every way in, and what is recorded."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, assert_type

import pytest

from diptych import (
    Actor,
    App,
    Command,
    DiptychError,
    Event,
    Invalid,
    Module,
    Query,
    Rejected,
    Running,
    anyone,
    authenticated,
    role,
    same_tenant,
)
from diptych.app.access import Check, Rule, rule_of
from diptych.errors import DefinitionError, KeyReused, NotAllowed, NotAuthenticated, RuleFailed
from tests.app.guarded import (
    ANN,
    BOB,
    EVE,
    MAX,
    Cancel,
    Cancelled,
    History,
    Note,
    Noted,
    Opening,
    OrdersOf,
    Place,
    Placed,
    Row,
    Secret,
    app,
)


def opened(of: Module = app) -> Any:
    return of.open(log="memory:", views="memory:")


# --- actors ---------------------------------------------------------------------------------------


def test_an_actor_has_an_id_roles_and_a_tenant() -> None:
    actor = Actor("ann", ["clerk", "clerk"], "acme")  # type: ignore[arg-type]
    assert actor == Actor("ann", frozenset({"clerk"}), "acme")
    assert hash(actor) == hash(Actor("ann", {"clerk"}, "acme"))
    assert (Actor("ann").roles, Actor("ann").tenant) == (frozenset(), None)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        (("",), "actor"),
        ((None,), "actor"),
        (("a\nb",), "actor"),
        (("a" * 1001,), "actor"),
        (("ann", "clerk"), "roles"),
        (("ann", {"clerk": 1}), "roles"),
        (("ann", {""}), "role"),
        (("ann", {1}), "role"),
        (("ann", set(), ""), "tenant"),
        (("ann", set(), 5), "tenant"),
    ],
    ids=str,
)
def test_an_actor_that_is_none_is_refused_when_it_is_made(given: Any, field: str) -> None:
    """A missing claim must not become an actor, nor a text a set of letters."""
    with pytest.raises(Invalid) as caught:
        Actor(*given)
    assert caught.value.field == field


# --- rules ----------------------------------------------------------------------------------------


class Thing(Command):
    tenant: str | None = None


class Colour(enum.Enum):
    RED = "red"


def owner(actor: Actor, message: Thing) -> bool:
    return actor.id == message.tenant


def test_anyone_may_even_without_an_actor() -> None:
    assert anyone(None, Thing())


def test_authenticated_asks_for_an_actor_only() -> None:
    assert authenticated(Actor("ann"), Thing())
    assert not authenticated(None, Thing())


def test_a_role_is_one_of_the_actors_whole_and_exact() -> None:
    assert role("clerk")(ANN, Thing())
    for other in ("cler", "clerks", "Clerk", "ann"):
        assert not role(other)(ANN, Thing())
    assert not role("clerk")(None, Thing())


def test_the_same_tenant_is_the_text_of_the_field() -> None:
    own = same_tenant("tenant")
    assert own(ANN, Thing("acme"))
    assert not own(BOB, Thing("acme"))


@pytest.mark.parametrize("tenant", [None, "None", ""], ids=repr)
def test_no_tenant_is_nobodys(tenant: str | None) -> None:
    """Neither an actor without a tenant nor a message without one is let in by their equality."""
    own = same_tenant("tenant")
    assert not own(Actor("ann"), Thing(tenant))
    assert not own(None, Thing(tenant))
    assert not own(ANN, Thing(tenant))
    assert not own(Actor("ann", tenant="None"), Thing(None))


def test_a_tenant_may_be_a_uuid_a_number_or_an_enum() -> None:
    class Wide(Command):
        id: uuid.UUID
        number: int
        colour: Colour

    wide = Wide(uuid.UUID(int=7), 7, Colour.RED)
    for field, tenant in [("id", str(uuid.UUID(int=7))), ("number", "7"), ("colour", "red")]:
        assert same_tenant(field)(Actor("ann", tenant=tenant), wide)
        assert not same_tenant(field)(Actor("ann", tenant="8"), wide)


def test_a_function_is_asked_only_when_somebody_acts() -> None:
    assert rule_of(owner)(Actor("acme"), Thing("acme"))
    assert not rule_of(owner)(ANN, Thing("acme"))
    assert not rule_of(owner)(None, Thing("acme"))


def test_rules_and_functions_are_combined_by_or_and_and() -> None:
    acts, clerk = Actor("acme"), Actor("x", {"clerk"})
    for rule in (role("clerk") | owner, owner | role("clerk")):
        assert [rule(who, Thing("acme")) for who in (acts, clerk, EVE, None)] == [
            True,
            True,
            False,
            False,
        ]
    both = Actor("acme", {"clerk"})
    for rule in (role("clerk") & owner, owner & role("clerk")):
        assert [rule(who, Thing("acme")) for who in (both, acts, clerk, None)] == [
            True,
            False,
            False,
            False,
        ]


def test_a_rule_says_itself_in_words() -> None:
    own = same_tenant("tenant")
    assert str((role("a") | own) & owner) == '(role("a") | same_tenant("tenant")) & owner'
    assert str(role("a") & own | authenticated) == (
        'role("a") & same_tenant("tenant") | authenticated'
    )
    assert str(rule_of(lambda actor, message: True)).startswith("lambda at test_access.py:")


LOOSE: Any = role("a")
"""Type checkers know that a rule is no condition; here they are not to say so."""


@pytest.mark.parametrize(
    "combine",
    [lambda: LOOSE and role("b"), lambda: LOOSE or role("b"), lambda: not LOOSE],
    ids=["and", "or", "not"],
)
def test_the_words_and_or_not_are_refused(combine: Callable[[], object]) -> None:
    """They would keep one of the two rules and forget the other, silently."""
    with pytest.raises(DefinitionError, match=r"combined by \| and &") as caught:
        combine()
    assert "test_access.py" in caught.value.at


async def later(_actor: Actor, _message: Thing) -> bool:
    return False


@pytest.mark.parametrize(
    "given",
    ["clerk", None, 1, role, same_tenant, later, Actor, lambda: True],
    ids=["text", "none", "number", "role", "same_tenant", "async", "class", "parameters"],
)
def test_what_is_no_rule_is_an_error_where_it_is_declared(given: Any) -> None:
    """An async function, above all: a coroutine is true."""
    with pytest.raises(DefinitionError):
        app.exposes(Placed, allow=given)


@pytest.mark.parametrize("given", ["", None, 1])
def test_a_role_and_a_field_are_words(given: Any) -> None:
    with pytest.raises(DefinitionError, match="A role is a text"):
        role(given)
    with pytest.raises(DefinitionError, match="the field that holds the tenant"):
        same_tenant(given)


ACTORS = [None, Actor("acme"), Actor("x", {"a"}), Actor("x", {"a", "b"}, "acme"), BOB]
SOME: list[Rule | Check] = [anyone, authenticated, role("a"), role("b"), same_tenant("tenant")]


@pytest.mark.parametrize("actor", ACTORS, ids=str)
def test_what_is_foreseen_is_what_is_judged(actor: Actor | None) -> None:
    """Without a message a rule says what it says with each: the table of access is true."""
    leaves = [rule_of(one) for one in [*SOME, owner]]
    pairs = list(product(leaves, leaves))
    rules = [*leaves, *[a | b for a, b in pairs], *[a & b for a, b in pairs]]
    rules += [(a | b) & c for (a, b), c in product(pairs, leaves)]
    tenant = None if actor is None else actor.tenant
    for rule in rules:
        for own in (True, False):
            foreseen = rule.foresee(actor, own=own)
            thing = Thing(tenant if own else "another's")
            if own and tenant is None:
                continue
            if foreseen is None:
                assert "owner" in rule.text
            else:
                assert rule(actor, thing) is foreseen, (rule, actor, own)


def test_what_is_sure_is_foreseen_beside_what_depends() -> None:
    clerk = Actor("x", {"a"})
    assert (role("a") | owner).foresee(clerk, own=False) is True
    assert (role("b") & owner).foresee(clerk, own=False) is False
    assert (role("b") | owner).foresee(clerk, own=False) is None
    assert (role("a") & owner).foresee(clerk, own=False) is None


# --- declared -------------------------------------------------------------------------------------


class Done(Event):
    tenant: str = ""


class Ask(Query[int]):
    pass


def rival(module: Module, *, command: Any = None, query: Any = None) -> None:
    """Declare a command and a query, with these rules or without."""

    def thing(command: Thing) -> Iterator[Done]:
        yield Done()

    def ask(query: Ask) -> int:
        return 1

    if command is None:
        module.decides(thing)
    else:
        module.decides(allow=command)(thing)
    if query is None:
        module.answers(ask)
    else:
        module.answers(allow=query)(ask)


async def test_without_any_rule_everything_is_allowed() -> None:
    module = Module("free")
    rival(module)
    async with opened(module) as running:
        await running.do(Thing())
        await running.do(Thing(), actor="ann")
        assert (await running.ask(Ask())).value == 1
        assert len(await running.events_for(None).read()) == 2
    assert not module.compile().access.guarded


@pytest.mark.parametrize(
    ("rules", "without"),
    [
        ({"command": role("a")}, "Ask"),
        ({"query": anyone}, "Thing"),
        ({}, "Thing, Ask"),
    ],
    ids=["query", "command", "both"],
)
def test_beside_a_rule_a_command_or_query_without_one_is_an_error(
    rules: dict[str, Rule], without: str
) -> None:
    module = Module("half")
    rival(module, **rules)
    if not rules:
        module.exposes(Done, allow=role("a"))
    with pytest.raises(DefinitionError, match="every command and query needs one") as caught:
        module.compile()
    assert caught.value.facts["without"] == without
    assert "test_access.py" in caught.value.at


def test_a_module_without_rules_cannot_slip_into_an_application_with_some() -> None:
    free = Module("free")
    rival(free)
    free.compile()
    with pytest.raises(DefinitionError, match="every command and query needs one"):
        App("whole", app, free).compile()


def test_a_rule_on_a_field_that_is_not_there_is_an_error() -> None:
    module = Module("typo")
    rival(module, command=same_tenant("tenat") | role("a"), query=anyone)
    with pytest.raises(DefinitionError, match="field that the message does not have") as caught:
        module.compile()
    assert caught.value.facts["field"] == "tenat"


def test_an_event_is_exposed_once() -> None:
    module = Module("twice")
    module.exposes(Done, allow=role("a"))
    module.exposes(Done, allow=role("b"))
    with pytest.raises(DefinitionError, match="exposed once"):
        module.compile()
    with pytest.raises(DefinitionError, match="Give event types"):
        module.exposes(Thing, allow=role("a"))  # type: ignore[arg-type]


def test_the_definitions_list_every_endpoint_and_its_rule() -> None:
    found = {(one.kind, one.name): str(one.rule) for one in app.compile().access.endpoints}
    assert found == {
        ("command", "Place"): 'role("clerk") & same_tenant("tenant")',
        ("command", "Cancel"): 'same_tenant("tenant") & himself | role("manager")',
        ("command", "Note"): "authenticated",
        ("query", "OrdersOf"): 'same_tenant("tenant") | role("auditor")',
        ("query", "Opening"): "anyone",
        ("query", "History"): 'role("auditor")',
        ("event", "Placed"): 'same_tenant("tenant") | role("auditor")',
        ("event", "Cancelled"): 'same_tenant("tenant") | role("auditor")',
        ("event", "Noted"): 'role("auditor")',
        ("event", "Secret"): "None",
    }


# --- enforced -------------------------------------------------------------------------------------


async def denied(work: Any, error: type[DiptychError], **facts: str) -> None:
    with pytest.raises(error) as caught:
        await work
    assert caught.value.facts == facts


async def test_a_command_is_only_for_whom_its_rule_names() -> None:
    rule = 'role("clerk") & same_tenant("tenant")'
    async with opened() as running:
        for actor in (Actor("ann", {"clerk"}), Actor("ann", tenant="acme"), BOB, MAX, "ann"):
            who = actor if isinstance(actor, str) else actor.id
            await denied(
                running.do(Place("acme", "1"), actor=actor),
                NotAllowed,
                actor=who,
                message="Place",
                rule=rule,
            )
        await denied(running.do(Place("acme", "1")), NotAuthenticated, message="Place", rule=rule)
        assert await running.log.head() == 0
        await running.do(Place("acme", "1"), actor=ANN)
        assert await running.log.head() == 1


async def test_submitting_is_denied_at_once() -> None:
    async with opened() as running:
        with pytest.raises(NotAllowed):
            running.submit(Place("acme", "1"), actor=BOB)


async def test_a_function_decides_by_the_message() -> None:
    async with opened() as running:
        await running.do(Cancel("acme", "1", "ann"), actor=ANN)
        await running.do(Cancel("acme", "1", "ann"), actor=MAX)
        with pytest.raises(NotAllowed):
            await running.do(Cancel("acme", "1", "bob"), actor=ANN)
        with pytest.raises(NotAllowed):
            await running.do(Cancel("acme", "1", "bob"), actor=BOB)


async def test_a_query_is_only_for_whom_its_rule_names() -> None:
    async with opened() as running:
        receipt = await running.do(Place("acme", "1"), actor=ANN)
        for actor in (ANN, EVE):
            answer = await running.ask(OrdersOf("acme"), actor=actor, after=receipt.token)
            assert answer.value == [Row("1", "acme")]
        rule = 'same_tenant("tenant") | role("auditor")'
        await denied(
            running.ask(OrdersOf("acme"), actor=BOB),
            NotAllowed,
            actor="bob",
            message="OrdersOf",
            rule=rule,
        )
        await denied(running.ask(OrdersOf("acme")), NotAuthenticated, message="OrdersOf", rule=rule)
        assert (await running.ask(Opening())).value == "at nine"


async def test_an_answer_reads_all_events_whoever_asks() -> None:
    """The query's own rule has decided; what its function reads is its own business."""
    async with opened() as running:
        await running.do(Note("1"), actor=ANN)
        assert (await running.ask(History("1"), actor=EVE)).value == 1


async def test_a_rule_judges_the_message_as_it_will_be_decided() -> None:
    """What is not valid is Invalid, before a function of the users' gets to see it."""
    module = Module("strict")
    seen: list[object] = []

    def look(_actor: Actor, message: Thing) -> bool:
        seen.append(message.tenant)
        return True

    rival(module, command=look, query=anyone)
    async with opened(module) as running:
        with pytest.raises(Invalid):
            await running.do(Thing(5), actor=ANN)  # type: ignore[arg-type]
    assert seen == []


@pytest.mark.parametrize(
    ("rule", "why"),
    [
        (lambda actor, message: message.nothing, "AttributeError: 'Thing' object"),
        (lambda actor, message: "yes", "it returned 'yes'"),
        (lambda actor, message: None, "it returned None"),
        (lambda actor, message: 1, "it returned 1"),
    ],
    ids=["raises", "text", "nothing", "number"],
)
async def test_a_rule_that_fails_lets_nobody_in(rule: Check, why: str) -> None:
    module = Module("faulty")
    rival(module, command=rule, query=anyone)
    async with opened(module) as running:
        with pytest.raises(RuleFailed) as caught:
            await running.do(Thing(), actor=ANN)
        assert await running.log.head() == 0
    assert caught.value.facts["why"].startswith(why)
    assert "test_access.py" in caught.value.facts["at"]


# --- events ---------------------------------------------------------------------------------------


async def with_events(running: Running) -> None:
    await running.do(Place("acme", "1"), actor=ANN)
    await running.do(Place("bolt", "2"), actor=BOB)
    await running.do(Note("1"), actor=ANN)
    await running.do(Place("acme", "3"), actor=ANN)


async def positions(running: Running, actor: Any, *types: Any, **how: Any) -> list[int]:
    events = running.events_for(actor)
    found = [r.position async for r in events.all(types, **how)]
    assert [r.position for r in await events.read(types, **how)] == found
    return found


async def test_events_are_read_as_far_as_the_rules_let_an_actor() -> None:
    async with opened() as running:
        await with_events(running)
        assert await positions(running, EVE) == [1, 2, 3, 4]
        assert await positions(running, ANN) == [1, 4]
        assert await positions(running, ANN, Placed, Cancelled) == [1, 4]
        assert await positions(running, BOB, Placed) == [2]
        assert await positions(running, EVE, Noted) == [3]
        assert await positions(running, ANN, after=1, until=4) == [4]
        assert await positions(running, ANN, tags=["order:3"]) == [4]
        assert [r.position for r in await running.events.read()] == [1, 2, 3, 4]


async def test_a_page_is_full_of_what_the_actor_may_read() -> None:
    """What the rules withhold does not make a page short: a short one is the end."""
    async with opened() as running:
        await with_events(running)
        await running.do(Place("acme", "5"), actor=ANN)
        for limit in (1, 2, 3, 4):
            found = await running.events_for(ANN).read(limit=limit)
            assert [r.position for r in found] == [1, 4, 5][:limit]


async def test_reading_comes_to_an_end_beyond_the_head() -> None:
    async with opened() as running:
        await with_events(running)
        assert await positions(running, ANN, after=1, until=1000) == [4]
        assert await positions(running, ANN, after=9, until=1000) == []
        found = [r.position async for r in running.events.all(after=1, until=1000)]
        assert found == [2, 3, 4]
        with pytest.raises(Invalid):
            await running.events_for(ANN).read(limit=0)


@pytest.mark.parametrize("event", [Noted, Secret])
async def test_a_type_that_an_actor_may_not_read_is_an_error(event: type[Event]) -> None:
    async with opened() as running:
        rule = 'role("auditor")' if event is Noted else "none"
        facts = {"message": event.__name__, "rule": rule}
        await denied(running.events_for(ANN).read([event]), NotAllowed, actor="ann", **facts)
        await denied(
            anext(running.events_for(ANN).all([Placed, event])), NotAllowed, actor="ann", **facts
        )
        await denied(running.events_for(None).read([event]), NotAuthenticated, **facts)


async def test_an_event_without_a_rule_is_for_nobody() -> None:
    async with opened() as running:
        for actor in (ANN, BOB, EVE, MAX):
            with pytest.raises(NotAllowed):
                await running.events_for(actor).read([Secret])


def test_without_a_rule_a_message_is_denied_even_when_only_that_is_asked() -> None:
    access = app.compile().access
    assert not access.allows(EVE, Secret("1"))
    with pytest.raises(NotAllowed):
        access.require(EVE, Secret("1"))
    assert not access.may(EVE, Secret)


async def test_who_may_read_no_event_at_all_is_told_so() -> None:
    async with opened() as running:
        with pytest.raises(NotAllowed):
            await running.events_for(MAX).read()
        with pytest.raises(NotAuthenticated):
            await running.events_for(None).read()


def test_a_door_can_ask_before_it_has_a_message() -> None:
    access = app.compile().access
    assert access.may(ANN, Place)
    assert access.may(ANN, Cancel)
    assert not access.may(MAX, Place)
    assert not access.may(None, Note)
    assert access.may(None, Opening)
    with pytest.raises(NotAuthenticated):
        access.require_may(None, Place)
    with pytest.raises(NotAllowed):
        access.require_may(EVE, Place)


# --- recorded -------------------------------------------------------------------------------------


async def test_who_acted_is_recorded_with_tenant_and_roles() -> None:
    async with opened() as running:
        await running.do(Note("1"), actor=Actor("ann", {"z", "a"}, "acme"))
        await running.do(Note("1"), actor="bob")
        first, second = await running.events.read()
    known = first.metadata
    assert (known.actor, known.tenant, known.roles) == ("ann", "acme", ("a", "z"))
    assert first.event == Noted("1", "acme", ("a", "z"))
    known = second.metadata
    assert (known.actor, known.tenant, known.roles) == ("bob", None, ())


# --- idempotency keys -----------------------------------------------------------------------------


async def test_the_answer_under_a_key_is_for_the_actor_who_used_it() -> None:
    async with opened() as running:
        first = await running.do(Note("1"), key="k", actor=ANN)
        again = await running.do(Note("1"), key="k", actor=ANN)
        assert (again.first, again.replayed) == (first.first, True)
        promoted = Actor("ann", {"clerk", "lead"}, "acme")
        assert (await running.do(Note("1"), key="k", actor=promoted)).replayed
        for other in ("ann", Actor("ann", tenant="bolt"), BOB, EVE):
            await denied(running.do(Note("1"), key="k", actor=other), KeyReused, key="k")
        assert await running.log.head() == 1


async def test_a_rejection_under_a_key_is_kept_from_others() -> None:
    async with opened() as running:
        await running.do(Place("acme", "1"), actor=ANN)
        for _ in range(2):
            with pytest.raises(Rejected):
                await running.do(Place("acme", "1"), key="k", actor=ANN)
        colleague = Actor("cid", {"clerk"}, "acme")
        await denied(running.do(Place("acme", "1"), key="k", actor=colleague), KeyReused, key="k")


async def test_who_may_no_more_does_not_get_the_answer_under_his_own_key() -> None:
    async with opened() as running:
        await running.do(Place("acme", "1"), key="k", actor=ANN)
        with pytest.raises(NotAllowed):
            await running.do(Place("acme", "1"), key="k", actor=Actor("ann", tenant="acme"))


async def test_a_key_of_nobody_is_not_an_actors() -> None:
    module = Module("free")
    rival(module)
    async with opened(module) as running:
        await running.do(Thing(), key="k")
        assert (await running.do(Thing(), key="k")).replayed
        with pytest.raises(KeyReused):
            await running.do(Thing(), key="k", actor="ann")


# --- without an event loop ------------------------------------------------------------------------


def test_the_blocking_facade_asks_the_same_rules() -> None:
    with app.open_blocking(log="memory:", views="memory:") as running:
        receipt = running.do(Place("acme", "1"), actor=ANN)
        assert running.ask(OrdersOf("acme"), actor=ANN, after=receipt.token).value
        with pytest.raises(NotAllowed):
            running.do(Place("acme", "2"), actor=BOB)
        with pytest.raises(NotAllowed):
            running.submit(Place("acme", "2"), actor=BOB).result()
        with pytest.raises(NotAuthenticated):
            running.ask(OrdersOf("acme"))
        assert [r.event for r in running.events_for(ANN).read()] == [Placed("acme", "1")]
        assert list(running.events_for(BOB).all()) == []
        with pytest.raises(NotAllowed):
            running.events_for(BOB).read([Cancelled, Secret])


# --- types ----------------------------------------------------------------------------------------


def test_types_are_followed_through_both_forms_of_a_decorator() -> None:
    module = Module("typed")

    def thing(command: Thing) -> list[Done]:
        return []

    assert_type(module.decides(thing)(Thing()), list[Done])
    assert_type(module.decides(allow=owner)(thing)(Thing()), list[Done])
    assert_type(role("a") | owner, Rule)
    assert_type(owner | role("a"), Rule)
