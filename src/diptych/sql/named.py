"""SQL is source: statements in .sql files, each under a line ``-- name: …``."""

from __future__ import annotations

import re
from importlib.resources import files


def read_sql(package: str, file: str) -> str:
    """Return the text of a .sql file that lies in a package."""
    return (files(package) / file).read_text(encoding="utf-8")


def named_statements(package: str, file: str = "statements.sql") -> dict[str, str]:
    """Return the statements of a .sql file by their names, without comments."""
    text = re.sub(r"^--(?! name: ).*\n", "", read_sql(package, file), flags=re.MULTILINE)
    parts = (part.partition("\n") for part in text.split("-- name: ")[1:])
    return {title.strip(): sql.strip() for title, _, sql in parts}
