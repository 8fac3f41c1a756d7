"""Power cuts on SQLite: what was not synced may be lost, torn, or there."""

from torture.power.cuts import power

__all__ = ["power"]
