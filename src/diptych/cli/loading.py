"""Finds the application that ``--app module:name`` means."""

from __future__ import annotations

import importlib
import os
import sys
from difflib import get_close_matches
from typing import Any

from diptych.app import App, Module
from diptych.cli.failures import UsageError, foreign

EXAMPLE = "--app shop.main:app (or DIPTYCH_APP)"


def load(where: str) -> Module:
    """Import a module, from the current folder too, and return the application named in it.

    Raises ``UsageError``: what is missing, what there is instead, or where the import failed.
    """
    if not where:
        raise UsageError("Say which application", code="no-app", hint=EXAMPLE)
    module_name, _, name = where.partition(":")
    if not module_name or module_name.endswith(".py") or os.sep in module_name:
        raise UsageError(
            "An application is named MODULE:NAME, as in an import",
            code="bad-app",
            hint=EXAMPLE,
            got=where,
        )
    module = _import(module_name)
    found: object = module
    for part in (name or "app").split("."):
        found = getattr(found, part, None)
    if isinstance(found, Module):
        return found
    there = [key for key, value in vars(module).items() if isinstance(value, App)]
    hint = f"there is {_or(f'{module_name}:{key}' for key in there)}" if there else EXAMPLE
    if found is None:
        raise UsageError(
            f"The module {module_name} has no {name or 'app'!r}", code="bad-app", hint=hint
        )
    raise UsageError(
        f"{where} is no application",
        code="bad-app",
        hint=hint,
        type=type(found).__qualname__,
        expected="diptych.App",
    )


def named(where: str) -> Any:
    """Import a module and return the callable named in it; ``UsageError``."""
    module_name, _, name = where.partition(":")
    found: object = _import(module_name) if module_name and name else None
    for part in name.split("."):
        found = getattr(found, part, None)
    if not callable(found):
        raise UsageError(
            "That is no callable; write MODULE:NAME, as in an import", code="usage", got=where
        )
    return found


def _import(name: str) -> object:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        if isinstance(error, ModuleNotFoundError) and _is_or_holds(error.name, name):
            raise UsageError(
                f"There is no module {error.name}",
                code="app-not-found",
                hint=_close(name, here),
                looked_in=f"{here} and Python's path",
            ) from error
        failed = UsageError(
            f"Importing {name} failed",
            code="app-failed",
            why=f"{type(error).__name__}: {error}",
        )
        failed.trace = foreign(error)[:-1]
        raise failed from error


def _is_or_holds(missing: str | None, wanted: str) -> bool:
    """Whether the missing module is the wanted one or a package that it should lie in."""
    return missing is not None and (wanted == missing or wanted.startswith(f"{missing}."))


def _close(name: str, here: str) -> str:
    first = name.partition(".")[0]
    there = [
        entry.name.removesuffix(".py")
        for entry in os.scandir(here)
        if entry.name.endswith(".py") or (entry.is_dir() and entry.name.isidentifier())
    ]
    close = [one for one in get_close_matches(first, there) if one != first]
    if close:
        return f"did you mean {_or(close)}?"
    return "run it in the folder that holds the module, or set PYTHONPATH"


def _or(names: object) -> str:
    return " or ".join(map(str, names))  # type: ignore[call-overload]
