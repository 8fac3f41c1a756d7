"""Real servers for tests: on a private port, with temporary data, always stopped."""

from diptych.testing.servers.postgresql import PostgresServer, postgres

__all__ = ["PostgresServer", "postgres"]
