"""The schema of a PostgreSQL adapter: named ``.sql`` files, one object a file, and its migrations.

``schema/*.sql`` make what there is today, and change nothing when it is there. ``migrations/*.sql``
lead there from what older versions have made; ``diptych_migrations`` says which were applied.
"""

from __future__ import annotations

from hashlib import sha256
from importlib.resources import files

import asyncpg
from msgspec import Struct

from diptych.errors import LogUnusable
from diptych.sql.postgres import SETUP_LOCK, Connection

_SCHEMA = "CREATE SCHEMA IF NOT EXISTS {schema};\n"
_LEDGER = """\
-- The list of what was applied to the schema.
CREATE TABLE IF NOT EXISTS {schema}.diptych_migrations (
    part    text NOT NULL,
    name    text NOT NULL,
    digest  text NOT NULL,
    applied timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (part, name)
);
"""
_RECORD = """\
INSERT INTO {schema}.diptych_migrations (part, name, digest) VALUES {rows}
ON CONFLICT (part, name) DO UPDATE SET digest = excluded.digest, applied = now();
"""
_OBJECTS = "(objects)"

LONGEST_STEP = 24 * 3600.0
"""Seconds."""


class Step(Struct, frozen=True):
    """SQL to be run: a migration, or a file of the schema."""

    name: str
    sql: str

    @property
    def digest(self) -> str:
        """What tells whether the file has changed."""
        return sha256(self.sql.encode()).hexdigest()[:16]


class Schema:
    """The schema of one part (the log, the views) as its package says it should be."""

    def __init__(self, part: str, package: str) -> None:
        self.part = part
        self.objects = _read(package, "schema")
        self.migrations = _read(package, "migrations")

    @property
    def digest(self) -> str:
        """What tells whether any object has changed."""
        return sha256("".join(step.digest for step in self.objects).encode()).hexdigest()[:16]

    async def pending(self, connection: Connection, schema: str) -> list[Step]:
        """Return what is to be run, in order; nothing when all is as it should be."""
        return (await self.state(connection, schema))[0]

    async def state(self, connection: Connection, schema: str) -> tuple[list[Step], bool]:
        """Return what is pending, and whether this part was made before: both of one look."""
        applied = await self._applied(connection, schema)
        if applied.get(_OBJECTS) == self.digest:
            return [], True
        made = [(step.name, step.digest) for step in self.migrations] + [(_OBJECTS, self.digest)]
        rows = ", ".join(f"('{self.part}', '{name}', '{digest}')" for name, digest in made)
        # Even with IF NOT EXISTS it needs a right that the schema's owner may not have.
        there = await connection.fetchval("SELECT to_regnamespace($1) IS NOT NULL", schema)
        steps = [
            *([] if there else [Step("schema", _SCHEMA)]),
            Step("ledger", _LEDGER),
            *[step for step in self.migrations if applied and step.name not in applied],
            *self.objects,
            Step("record", _RECORD.replace("{rows}", rows)),
        ]
        return steps, bool(applied)

    async def apply(self, connection: Connection, schema: str) -> list[Step]:
        """Run what is pending in one transaction; any number of processes may do so at once.

        Raises ``LogUnusable`` where something else is in the way.
        """
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock($1)", SETUP_LOCK)
            steps = await self.pending(connection, schema)
            for step in steps:
                try:
                    sql = step.sql.replace("{schema}", schema)
                    # An index takes the time that it takes.
                    await connection.execute(sql, timeout=LONGEST_STEP)
                except asyncpg.InsufficientPrivilegeError:
                    raise
                except asyncpg.SyntaxOrAccessError as error:
                    raise LogUnusable(
                        f"The {self.part} cannot be made in this schema, which holds something "
                        "else; choose another by ?schema=… in the URL",
                        schema=schema,
                        step=step.name,
                        why=f"{type(error).__name__}: {error}",
                    ) from error
        return steps

    async def _applied(self, connection: Connection, schema: str) -> dict[str, str]:
        ledger = f"{schema}.diptych_migrations"
        if await connection.fetchval("SELECT to_regclass($1)::text", ledger) is None:
            return {}
        found = await connection.fetch(
            f"SELECT name, digest FROM {ledger} WHERE part = $1", self.part
        )
        return {row["name"]: row["digest"] for row in found}


def _read(package: str, folder: str) -> list[Step]:
    listed = [f for f in files(package).joinpath(folder).iterdir() if f.name.endswith(".sql")]
    listed.sort(key=lambda file: file.name)
    return [
        Step(f"{folder}/{file.name.removesuffix('.sql')}", file.read_text(encoding="utf-8"))
        for file in listed
    ]
