"""The log in a SQLite file: durable, for one machine, any number of processes."""

from diptych.logs.sqlite.log import SqliteLog
from diptych.logs.sqlite.reading import read_inside

__all__ = ["SqliteLog", "read_inside"]
