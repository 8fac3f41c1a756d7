"""The users' source as trees: where a function or class stands in its file, and its canonical text.

Positions, comments, docstrings and annotations are not part of it, nor is anything that differs
between versions of Python.
"""

from __future__ import annotations

import ast
import dis
import inspect
import linecache
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, Final

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

_OWN: Final = str(Path(__file__).parents[2])
_INSTALLED: Final = tuple(
    {sysconfig.get_paths()[name] for name in ("purelib", "platlib", "stdlib", "platstdlib")}
)


def is_users(module: str | None, package: str) -> bool:
    """Whether a module is the user's own: of his package, or nowhere where things are installed."""
    if not module or module in sys.builtin_module_names:
        return False
    if module.partition(".")[0] == package:
        return True
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None:
        return module in sys.modules and module == "__main__"
    return not str(file).startswith((_OWN, *_INSTALLED))


def tree_of(file: str, names: dict[str, Any] | None) -> ast.Module | None:
    """Return the tree of a source file; None where there is no source."""
    lines = linecache.getlines(file, names)
    return _parsed("".join(lines)) if lines else None


@lru_cache(maxsize=64)
def _parsed(text: str) -> ast.Module | None:
    for _ in range(3):
        try:
            return ast.parse(text)
        except SyntaxError:
            return None
        except SystemError:  # CPython 3.11: the collector ran a finalizer that parses, too
            continue
    return None


def function_node(function: FunctionType) -> list[_Function]:
    """Return where a function is defined; several where lambdas cannot be told apart."""
    code = function.__code__
    tree = tree_of(code.co_filename, function.__globals__)
    if tree is None:
        return []
    found = [node for node in ast.walk(tree) if _is_of(node, code)]
    if len(found) > 1:
        columns = {(line, column) for line, _, column, _ in code.co_positions() if column}
        near = [node for node in found if any(_spans(node, *place) for place in columns)]
        found = near or found
    return [node for node in found if isinstance(node, _Function)]


def _is_of(node: ast.AST, code: CodeType) -> bool:
    if isinstance(node, ast.Lambda):
        return code.co_name == "<lambda>" and node.lineno == code.co_firstlineno
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
        lines = [node.lineno, *(one.lineno for one in node.decorator_list)]
        return node.name == code.co_name and min(lines) == code.co_firstlineno
    return False


def _spans(node: Any, line: int | None, column: int) -> bool:
    body = node.body if isinstance(node, ast.Lambda) else node
    start, end = (body.lineno, body.col_offset), (body.end_lineno, body.end_col_offset)
    return line is not None and start <= (line, column) < end


def class_node(cls: type) -> ast.ClassDef | None:
    """Return where a class is defined."""
    module = sys.modules.get(cls.__module__)
    file = getattr(module, "__file__", None)
    if module is None or file is None:
        return None
    place: Any = tree_of(file, vars(module))
    for name in cls.__qualname__.split("."):
        if name == "<locals>":
            continue
        body: list[ast.AST] = [] if place is None else list(ast.walk(place))
        named = [n for n in body if getattr(n, "name", None) == name]
        place = next((n for n in reversed(named) if isinstance(n, (ast.ClassDef, _Function))), None)
    return place if isinstance(place, ast.ClassDef) else None


def assigned(module: ModuleType, name: str) -> list[ast.AST]:
    """Return what a module assigns to a name, as trees."""
    file = getattr(module, "__file__", None)
    tree = None if file is None else tree_of(file, vars(module))
    found: list[ast.AST] = []
    for node in _all_of(tree):
        if isinstance(node, ast.Assign) and any(name in _targets(t) for t in node.targets):
            found.append(node.value)
        elif isinstance(node, (ast.AnnAssign, ast.AugAssign)) and name in _targets(node.target):
            found += [] if node.value is None else [node.value]
    return found


def _all_of(tree: ast.Module | None) -> list[ast.AST]:
    return [] if tree is None else list(ast.walk(tree))


def _targets(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}


def imported_from(module: ModuleType, name: str) -> tuple[ModuleType, str] | None:
    """Return the module that a name is imported from, and its name there."""
    file = getattr(module, "__file__", None)
    tree = None if file is None else tree_of(file, vars(module))
    for node in _all_of(tree):
        if isinstance(node, ast.ImportFrom):
            for one in node.names:
                if (one.asname or one.name) == name:
                    package = str(getattr(module, "__package__", None) or "")
                    parts = package.split(".")[: len(package.split(".")) - node.level + 1]
                    base = ".".join(parts) if node.level else ""
                    whole = ".".join(part for part in (base, node.module or "") if part)
                    if (found := sys.modules.get(whole)) is not None:
                        return found, one.name
    return None


# --- canonical text -------------------------------------------------------------------------------


def canonical(node: Any) -> str:
    """Return a tree as text that formatting, comments, docstrings and annotations do not change."""
    return "".join(_written(node))


_LEFT_OUT: Final = {"annotation", "returns", "type_comment", "kind", "type_params", "ctx"}


def _written(node: Any) -> Iterator[str]:
    listed: Any = node
    if isinstance(node, ast.AnnAssign) and node.value is not None:
        node = ast.Assign(targets=[node.target], value=node.value)
    if isinstance(node, ast.JoinedStr):
        node = ast.JoinedStr(values=[v for v in node.values if getattr(v, "value", True) != ""])
    if isinstance(node, ast.AST):
        yield f"({type(node).__name__}"
        for field, value in ast.iter_fields(node):
            body: Any = value
            if field in _LEFT_OUT or (value is None and not isinstance(node, ast.Constant)):
                continue
            if field == "body" and isinstance(value, list):
                value = _without_docstring(body)
            if isinstance(value, list) and not value:
                continue
            yield f" {field}="
            yield from _written(value)
        yield ")"
    elif isinstance(node, list):
        yield "["
        for one in listed:
            yield from _written(one)
            yield ","
        yield "]"
    else:
        yield repr(node)


def _without_docstring(body: list[Any]) -> list[Any]:
    """Return a body without what is said only: docstrings, bare annotations, ``pass``."""
    kept: list[Any] = []
    for node in body:
        said = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        bare = isinstance(node, ast.AnnAssign) and node.value is None
        if not (said or bare or isinstance(node, ast.Pass)):
            kept.append(node)
    return kept


def function_text(node: _Function) -> str:
    """Return what a function does: its parameters, their defaults and its body, not its name."""
    if isinstance(node, ast.Lambda):
        # So that ``lambda e: e.a`` and a function that returns it are the same.
        return canonical([node.args, [ast.Return(value=node.body)]])
    kind = "async " if isinstance(node, ast.AsyncFunctionDef) else ""
    return kind + canonical([node.args, _without_docstring(node.body)])


def code_text(code: CodeType) -> str:
    """Return what a function does where there is no source: its bytecode."""
    constants = [
        code_text(one) if isinstance(one, CodeType) else repr(one) for one in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_argcount)
    return repr((code.co_code, constants, names, sys.version_info[:2]))


def names_in(node: Any) -> Iterator[tuple[str, ...]]:
    """Return the names that a tree reads, dotted ones in parts."""
    for one in _listed(node):
        if isinstance(one, ast.Attribute) and (path := _path(one)):
            yield path
            continue
        if isinstance(one, ast.Name):
            yield (one.id,)
            continue
        for field, value in ast.iter_fields(one):
            if field in _LEFT_OUT or field == "decorator_list":
                continue
            if isinstance(value, ast.AST) or (isinstance(value, list) and value):
                yield from names_in([v for v in _listed(value) if isinstance(v, ast.AST)])


def _listed(value: Any) -> list[Any]:
    listed: Any = value
    return listed if isinstance(value, list) else [value]


def _path(node: ast.Attribute) -> tuple[str, ...]:
    parts: list[str] = [node.attr]
    inner: Any = node.value
    while isinstance(inner, ast.Attribute):
        parts.append(inner.attr)
        inner = inner.value
    return (inner.id, *reversed(parts)) if isinstance(inner, ast.Name) else ()


def reads_of(code: CodeType) -> tuple[set[str], set[str]]:
    """Return the global and enclosing variables that bytecode reads, and the attributes."""
    names, attributes = set(code.co_freevars), set[str]()
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            names.add(str(instruction.argval))
        elif instruction.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            attributes.add(str(instruction.argval))
    for one in code.co_consts:
        if isinstance(one, CodeType):
            more, others = reads_of(one)
            names |= more
            attributes |= others
    return names, attributes


def closed_over(function: FunctionType) -> dict[str, Any]:
    """Return the variables of enclosing functions that a function reads, with their values."""
    return dict(inspect.getclosurevars(function).nonlocals)
