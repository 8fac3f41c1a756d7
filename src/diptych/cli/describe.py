"""``diptych describe``: what the application consists of, module by module."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from diptych.cli.options import Given, Options

if TYPE_CHECKING:
    from rich.text import Text
    from rich.tree import Tree

    from diptych.app import Definitions, Module
    from diptych.cli.types import Data
    from diptych.read.projections import Projection


def describe(*, options: Given) -> None:
    """Show what the application consists of.

    Commands with their fields, decisions and boundaries, events, projections and queries, module
    by module. Needs neither log nor views; where they are given, also how many connections a
    process makes to them.
    """
    from diptych.cli.loading import load
    from diptych.cli.screen import screen, write_json

    found = Described(load(options.app)).data
    connections = _connections(options)
    if options.json:
        write_json(found | {"connections": connections})
        return
    screen().print(tree(found))
    for one in connections:
        listening = f", and {one['listening']} that listens" if one["listening"] else ""
        screen().print(
            f"connections of a process to {one['database']}: at most {one['most']}{listening}",
            soft_wrap=True,
        )


def _connections(options: Options) -> list[Data]:
    """Return how many connections a process makes to each PostgreSQL database, at most."""
    from diptych.app.databases import connections
    from diptych.cli.running import addresses

    if not (options.log and options.views):
        return []
    log, views = addresses(options)
    return [
        {"database": one.database, "most": one.most, "listening": one.listening}
        for one in connections(log, views)
    ]


class Described:
    """An application as data."""

    def __init__(self, module: Module) -> None:
        self.definitions: Definitions = module.compile()
        write = self.definitions.write
        self._rules = {
            one.message: None if one.rule is None else one.rule.text
            for one in self.definitions.access.endpoints
        }
        self._decisions = {one.function: one for one in write.decisions.values()}
        self._models = {one.evolve: one for one in write.models}
        self._seen: set[int] = set()
        self._homes = self._homes_of_events(module)
        self.data = self._module(module)

    # --- which module an event belongs to ---------------------------------------------------------

    def _homes_of_events(self, root: Module) -> dict[type, int]:
        """An event belongs to the first module that decides it, else to the first that uses it."""
        modules = list(_walk(root, set()))
        homes: dict[type, int] = {}
        mentions: list[Callable[[Module], Iterable[type]]] = [
            lambda m: [event for f in m.decisions for event in self._decisions[f].emits],
            lambda m: m.events,
            lambda m: [e for d in m.models for e in self._models[d.function].events],
            lambda m: [event for declared in m.projections for event in declared().events],
        ]
        for mentioned in mentions:
            for module in modules:
                for event in mentioned(module):
                    homes.setdefault(event, id(module))
        return homes

    # --- as data ----------------------------------------------------------------------------------

    def _module(self, module: Module) -> Data:
        self._seen.add(id(module))
        found: Data = {
            "name": module.name,
            "commands": [self._command(f) for f in module.decisions],
            "models": [self._model(d.function) for d in module.models],
            "events": [
                self._event(event) for event, home in self._homes.items() if home == id(module)
            ],
            "projections": [self._projection(declared()) for declared in module.projections],
            "queries": [self._query(f) for f in module.answerers],
            "modules": [],
        }
        for inner in module.modules:
            if id(inner) not in self._seen:
                found["modules"].append(self._module(inner))
        return found

    def _command(self, function: Callable[..., Any]) -> Data:
        decision = self._decisions[function]
        cls = decision.command
        return {
            **_message(cls),
            "allow": self._rules[cls],
            "decision": {
                "name": function.__name__,
                "at": decision.at,
                "about": _first_line(function),
                "emits": _names(decision.emits),
                "boundary": [
                    {
                        "model": need.model.name,
                        "tags": [{"key": f.key, "field": f.field} for f in need.fields],
                        "events": _names(need.model.events),
                    }
                    for need in decision.needs
                ],
            },
        }

    def _model(self, function: Callable[..., Any]) -> Data:
        model = self._models[function]
        return {
            "name": model.name,
            "about": _first_line(function),
            "at": model.at,
            "state": model.state_type.__name__,
            "tags": list(model.tags),
            "events": _names(model.events),
        }

    def _event(self, cls: Any) -> Data:
        return {**_message(cls), "version": cls.schema_version, "allow": self._rules[cls]}

    def _projection(self, projection: Projection) -> Data:
        from diptych.cli.types import fields_of
        from diptych.read.views import definition_of

        views: list[Data] = [
            {
                "name": _class_name(one.view),
                "table": one.table_name,
                "key": [field.name for field in one.key_fields],
                "fields": fields_of(one.view),
            }
            for one in map(definition_of, projection.views)
        ]
        return {
            "name": projection.name,
            "about": _first_line(projection.function),
            "at": projection.at,
            "kind": "inline" if projection.inline else "async",
            "events": _names(projection.events),
            "views": views,
        }

    def _query(self, function: Callable[..., Any]) -> Data:
        from diptych.cli.types import type_text
        from diptych.read.queries import answering, result_of

        found = answering(function)
        return {
            **_message(found.query),
            "allow": self._rules[found.query],
            "answer": type_text(result_of(found.query)),
            "answered_by": {"name": function.__name__, "at": found.at},
        }


# --- as a tree ------------------------------------------------------------------------------------


def tree(found: Data) -> Tree:
    """Return a module and all in it as a tree to print."""
    from rich.text import Text
    from rich.tree import Tree

    title = Text.assemble(("module ", "dim"), (found["name"], "bold underline"))
    top = Tree(title, guide_style="dim", highlight=False)
    for one in found["commands"]:
        node = top.add(_title("command", "green", one["name"], one["about"]))
        _add_fields(node, one["fields"])
        _add_rule(node, one)
        decision = one["decision"]
        for need in decision["boundary"]:
            instance = ", ".join(f"{tag['key']}:{{{tag['field']}}}" for tag in need["tags"])
            text = Text.assemble(
                ("reads ", "dim"), need["model"], (f"  {instance or 'all'}  ", "magenta")
            )
            node.add(text.append(" ".join(need["events"]), "dim"))
        emits = " ".join(decision["emits"])
        node.add(Text.assemble(("emits ", "dim"), emits or "(not known)"))
    for one in found["models"]:
        node = top.add(_title("model", "yellow", one["name"], one["about"]))
        by = " ".join(f"#{tag}" for tag in one["tags"]) or "all"
        node.add(Text.assemble(("state ", "dim"), one["state"], ("  one for each ", "dim"), by))
        node.add(Text.assemble(("folds ", "dim"), " ".join(one["events"])))
    for one in found["events"]:
        version = f" v{one['version']}"
        node = top.add(_title("event", "blue", one["name"] + version, one["about"]))
        _add_fields(node, one["fields"])
        _add_rule(node, one)
    for one in found["projections"]:
        node = top.add(_title("projection", "cyan", one["name"], one["about"], one["kind"]))
        for view in one["views"]:
            node.add(
                Text.assemble(("keeps ", "dim"), view["name"], (f"  table {view['table']}", "dim"))
            )
            _add_fields(node, view["fields"])
        node.add(Text.assemble(("folds ", "dim"), " ".join(one["events"])))
    for one in found["queries"]:
        node = top.add(_title("query", "magenta", one["name"], one["about"]))
        _add_fields(node, one["fields"])
        _add_rule(node, one)
        node.add(Text.assemble(("gives ", "dim"), one["answer"]))
    for one in found["modules"]:
        top.add(tree(one))
    return top


def _title(kind: str, style: str, name: str, about: str, note: str = "") -> Text:
    from rich.text import Text

    text = Text.assemble((f"{kind} ", style), (name, "bold"))
    if note:
        text.append(f" {note}", "dim")
    return text.append(f"  {about}", "italic") if about else text


def _add_fields(node: Tree, fields: list[Data]) -> None:
    from rich.text import Text

    from diptych.cli.screen import as_line

    line = Text()
    for one in fields:
        line.append(", " if line else "", "dim").append(one["name"])
        line.append(f": {one['type']}", "dim")
        if "default" in one:
            line.append(f" = {as_line(one['default']).strip()}", "dim")
        elif not one["required"]:
            line.append(" = …", "dim")
        line.append("".join(f" #{tag}" for tag in one.get("tags", ())), "magenta")
        line.append(" key" if one.get("key") else "", "magenta")
    if fields:
        node.add(line)


def _add_rule(node: Tree, one: Data) -> None:
    from rich.text import Text

    if one["allow"] is not None:
        node.add(Text.assemble(("for ", "dim"), (one["allow"], "yellow")))


# --- helpers --------------------------------------------------------------------------------------


def _walk(module: Module, seen: set[int]) -> Iterable[Module]:
    seen.add(id(module))
    yield module
    for inner in module.modules:
        if id(inner) not in seen:
            yield from _walk(inner, seen)


def _message(cls: Any) -> Data:
    from diptych.cli.types import fields_of

    return {"name": cls.message_name, "about": _first_line(cls), "fields": fields_of(cls)}


def _names(events: Iterable[Any]) -> list[str]:
    return [event.message_name for event in events]


def _first_line(thing: Any) -> str:
    from diptych.cli.types import first_line

    return first_line(thing)


def _class_name(cls: Any) -> str:
    name: str = cls.__name__
    return name
