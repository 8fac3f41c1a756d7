"""Modules, an application of them, and what they declare compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from msgspec import Struct

from diptych.app.access import Access, Check, Endpoint, Rule, rule_of
from diptych.codec import Codec
from diptych.errors import DefinitionError, calling, place
from diptych.messages import Event
from diptych.read.projections import (
    FRESH_SHARE,
    Projection,
    check_projections,
    handler,
    projection,
)
from diptych.read.queries import Answering, answering, check_answers
from diptych.read.views import is_view
from diptych.write.definitions import ModelDeclaration, WriteSide, compile_write_side

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from diptych.app.blocking import BlockingRunning
    from diptych.app.databases import Create, Rebuild
    from diptych.app.running import Running
    from diptych.read.views import View
    from diptych.write.bus import Limits

F = TypeVar("F", bound=Callable[..., Any])

_MISSING: Any = None
"""What a decorator gets that is written with empty brackets."""


def _function(function: Any, decorator: str) -> None:
    if not callable(function):
        raise DefinitionError(
            f"This decorator is written without brackets: @module.{decorator}", at=calling()
        )


def _require_views(decorator: str, *views: Any) -> None:
    for view in views:
        if not is_view(view):
            raise DefinitionError(
                f"Give the view, a subclass of View: @module.{decorator}(View)",
                at=place(view) if inspect.isfunction(view) else calling(),
                got=getattr(view, "__name__", view),
            )


class Definitions(Struct, frozen=True, eq=False):
    """An application, read and checked: what its modules declare, compiled."""

    name: str
    modules: tuple[Module, ...]
    codec: Codec
    write: WriteSide
    projections: tuple[Projection, ...]
    answers: tuple[Answering, ...]
    access: Access


class Module:
    """One feature: its models, decisions, projections and answers.

    Modules are put together as routers are elsewhere: ``App("shop", orders, stock)``. A module
    that builds on another names it in the same way, and can be tested with nothing but that.
    ``events`` registers event types that no function of the module mentions.
    """

    def __init__(self, name: str, /, *modules: Module, events: Sequence[type[Event]] = ()) -> None:
        self.name = name
        self.modules: list[Module] = []
        self.events = list(events)
        self.models: list[ModelDeclaration] = []
        self.decisions: list[Callable[..., Any]] = []
        self.projections: list[Callable[[], Projection]] = []
        self.answerers: list[Callable[..., Any]] = []
        self.rules: dict[Callable[..., Any], Rule] = {}
        self.exposed: list[tuple[type[Event], Rule, str]] = []
        self.include(*modules)

    def include(self, *modules: Module) -> None:
        """Add other modules to this one; ``DefinitionError`` for anything else."""
        given: tuple[Any, ...] = modules
        for module in given:
            if not isinstance(module, Module):
                raise DefinitionError(
                    "A module includes modules, one after the other: include(orders, stock)",
                    at=calling(),
                    module=self.name,
                    got=type(module).__name__,
                )
        self.modules.extend(modules)

    # --- the write side ---------------------------------------------------------------------------

    def model(
        self, initial: Any, /, *, tag: str | tuple[str, ...] | None = None
    ) -> Callable[[F], F]:
        """Declare a decision model: ``(state, event) -> state``, from its initial state.

        ``tag`` says which tag identifies an instance, where the events share several; a tuple of
        tags means all of them, the empty one a single instance over all events of these types.
        """
        if inspect.isfunction(initial):
            raise DefinitionError(
                "Give the initial state: @module.model(State())", at=place(initial)
            )

        def declare(function: F) -> F:
            tags = (tag,) if isinstance(tag, str) else tag
            self.models.append(ModelDeclaration(function, initial, tags))
            return function

        return declare

    @overload
    def decides(self, function: F, /) -> F: ...

    @overload
    def decides(self, /, *, allow: Rule | Check) -> Callable[[F], F]: ...

    def decides(self, function: Any = _MISSING, /, *, allow: Rule | Check | None = None) -> Any:
        """Declare a decision: ``(command, state, …) -> events``, or ``raise Rejected``.

        ``allow`` says who may send the command: a rule, or ``(actor, command) -> bool``.
        """
        return self._declare(self.decisions, "decides", function, allow)

    # --- the read side ----------------------------------------------------------------------------

    def projects(
        self,
        view: type[View],
        /,
        *,
        key: Callable[[Any], Any] | None = None,
        inline: bool = False,
        name: str | None = None,
        slices: int | None = None,
        fresh_within: float | None = None,
        fresh_share: float = FRESH_SHARE,
    ) -> Callable[[F], F]:
        """Declare a projection: ``(row or None, event) -> row or None``, for each key.

        ``key`` gives the key (a list: several) that an event touches, where its fields are not
        named like the view's. ``inline``: in the append's own transaction, where log and views
        share a database. ``name`` is that of the view's table unless given. The keys fall into
        ``slices`` (64), which the workers share out among them. ``fresh_within``: in how many
        seconds a ``fresh_share`` of all effects is to be readable; status and metrics tell how
        that is kept.
        """
        _require_views("projects", view)

        def declare(function: F) -> F:
            # Read when everything is known: annotations may name what is defined further down.
            self.projections.append(
                lambda: projection(
                    function,
                    view,
                    key=key,
                    inline=inline,
                    name=name,
                    slices=slices,
                    fresh_within=fresh_within,
                    fresh_share=fresh_share,
                )
            )
            return function

        return declare

    def handles(
        self,
        *views: type[View],
        name: str | None = None,
        fresh_within: float | None = None,
        fresh_share: float = FRESH_SHARE,
    ) -> Callable[[F], F]:
        """Declare a handler, ``async (event, tx) -> None``: a projection that a fold cannot say.

        It owns the tables of ``views`` and changes them through the transaction it is given.
        ``fresh_within`` and ``fresh_share`` are as in `projects`.
        """
        _require_views("handles", *views)

        def declare(function: F) -> F:
            self.projections.append(
                lambda: handler(
                    function,
                    *views,
                    name=name,
                    fresh_within=fresh_within,
                    fresh_share=fresh_share,
                )
            )
            return function

        return declare

    @overload
    def answers(self, function: F, /) -> F: ...

    @overload
    def answers(self, /, *, allow: Rule | Check) -> Callable[[F], F]: ...

    def answers(self, function: Any = _MISSING, /, *, allow: Rule | Check | None = None) -> Any:
        """Declare the answer to a query: ``(query, views) -> result``, sync or async.

        ``allow`` says who may ask it: a rule, or ``(actor, query) -> bool``.
        """
        return self._declare(self.answerers, "answers", function, allow)

    def exposes(self, *events: type[Event], allow: Rule | Check) -> None:
        """Say who may read these events themselves, from the log; what answers use is not meant.

        ``allow`` is a rule, or ``(actor, event) -> bool``.
        """
        rule, at = rule_of(allow), calling()
        given: tuple[Any, ...] = events
        for event in given:
            if not (isinstance(event, type) and issubclass(event, Event)):
                raise DefinitionError(
                    'Give event types: module.exposes(OrderPlaced, allow=role("…"))',
                    at=at,
                    got=f"{event!r:.100}",
                )
        self.exposed.extend((event, rule, at) for event in events)

    def _declare(
        self,
        declared: list[Callable[..., Any]],
        decorator: str,
        function: Any,
        allow: Rule | Check | None,
    ) -> Any:
        rule = None if allow is None else rule_of(allow)

        def declare(function: F) -> F:
            _function(function, decorator)
            declared.append(function)
            if rule is not None:
                self.rules[function] = rule
            return function

        return declare if rule is not None and function is _MISSING else declare(function)

    # --- put together -----------------------------------------------------------------------------

    def compile(self) -> Definitions:
        """Read and check everything declared here and in the included modules.

        Raises ``DefinitionError``, which names file and line.
        """
        modules = self._flat({})
        codec = Codec()
        write = compile_write_side(
            [model for module in modules for model in module.models],
            [decision for module in modules for decision in module.decisions],
            codec,
        )
        projections = tuple(declared() for module in modules for declared in module.projections)
        check_projections(projections)
        answers = tuple(answering(f) for module in modules for f in module.answerers)
        check_answers(answers)
        codec.register(event for one in projections for event in one.events)
        codec.register(one.query for one in answers)
        codec.register(event for module in modules for event in module.events)
        codec.register(event for module in modules for event, _, _ in module.exposed)
        access = Access(_endpoints(modules, codec, write, answers))
        return Definitions(self.name, tuple(modules), codec, write, projections, answers, access)

    def _flat(self, seen: dict[int, Module]) -> list[Module]:
        """Return this module and all it includes, each once."""
        seen[id(self)] = self
        for module in self.modules:
            if id(module) not in seen:
                module._flat(seen)
        return list(seen.values())

    def open(
        self,
        *,
        log: str,
        views: str | Mapping[str, str],
        limits: Limits | None = None,
        projections: bool = True,
        create: Create = "all",
        rebuild: Rebuild = "auto",
        verify_every: float | None = None,
    ) -> AbstractAsyncContextManager[Running]:
        """Open the application: ``async with app.open(log=URL, views=URL) as running``.

        URLs: ``memory:``, ``sqlite:///path`` (four slashes: an absolute path) or
        ``postgresql://user@host/database``, together or apart. Several read databases are given by
        name, ``views={"main": URL, "reports": URL}``, as views name them (``store="reports"``).
        ``projections=False`` leaves the read side to another process. ``create`` says what is made
        where it is not there yet: "all", "views" or "nothing". ``rebuild``: a version of a
        projection that was never there before is built beside the live one and switched to
        ("auto"), or only when that is asked for ("manual"), or not by this process in any case
        ("never"). ``verify_every`` (seconds): prove the
        views in the background, from the last proof on. Raises ``DefinitionError``,
        ``Invalid`` (a URL), ``NoLog``, ``NoViews``, ``ViewLost``, ``LogUnusable``, ``Unavailable``.
        """
        from diptych.app.running import (
            Opening,  # asyncio and databases: not before they are needed
        )

        return Opening(
            self.compile(),
            log,
            views,
            limits,
            projections=projections,
            create=create,
            rebuild=rebuild,
            verify_every=verify_every,
        )

    def open_blocking(
        self,
        *,
        log: str,
        views: str | Mapping[str, str],
        limits: Limits | None = None,
        projections: bool = True,
        create: Create = "all",
        rebuild: Rebuild = "auto",
        verify_every: float | None = None,
    ) -> BlockingRunning:
        """Open the application for threads without an event loop; parameters as in `open`.

        ``with app.open_blocking(log=URL, views=URL) as running``, or ``running.close()`` at the
        end. Raises besides ``BlocksEventLoop``.
        """
        from diptych.app.blocking import open_app

        opening = self.open(
            log=log,
            views=views,
            limits=limits,
            projections=projections,
            create=create,
            rebuild=rebuild,
            verify_every=verify_every,
        )
        return open_app(opening)


class App(Module):
    """An application: the module at the top, which names all others."""


def _endpoints(
    modules: Sequence[Module], codec: Codec, write: WriteSide, answers: Sequence[Answering]
) -> Iterator[Endpoint]:
    """Return all that may be asked of an application, with the rules that its modules declare."""
    rules = {function: rule for module in modules for function, rule in module.rules.items()}
    for decision in write.decisions.values():
        yield Endpoint("command", decision.command, rules.get(decision.function), decision.at)
    for answer in answers:
        yield Endpoint("query", answer.query, rules.get(answer.function), answer.at)
    exposed: dict[type, tuple[Rule, str]] = {}
    for module in modules:
        for event, rule, at in module.exposed:
            _, other = exposed.setdefault(event, (rule, at))
            if other != at:
                raise DefinitionError(
                    "An event is exposed once; combine the rules by | and &",
                    at=at,
                    event=event.__name__,
                    other=other,
                )
    for registered in codec.events.values():
        cls: Any = registered.cls
        nobody = (None, f"{cls.__module__}.{cls.__qualname__}")
        yield Endpoint("event", cls, *exposed.get(cls, nobody))
