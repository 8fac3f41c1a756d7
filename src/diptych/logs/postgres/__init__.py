"""The log in PostgreSQL: durable, for any number of processes on any number of machines."""

from diptych.logs.postgres.log import PostgresLog
from diptych.logs.postgres.reading import reader_inside

__all__ = ["PostgresLog", "reader_inside"]
