"""Real servers for tests: on a private port, with temporary data, always stopped."""

from diptych.testing.servers.postgresql import PostgresServer, postgres
from diptych.testing.servers.redis import RedisServer, redis

__all__ = ["PostgresServer", "RedisServer", "postgres", "redis"]
