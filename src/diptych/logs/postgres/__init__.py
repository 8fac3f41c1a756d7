"""The log in PostgreSQL: durable, for any number of processes on any number of machines."""

from diptych.logs.postgres.log import PostgresLog

__all__ = ["PostgresLog"]
