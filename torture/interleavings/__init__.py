"""Interleavings of real PostgreSQL sessions, step by step: all that there are, one by one."""

from torture.interleavings.running import BLOCK, interleavings

__all__ = ["BLOCK", "interleavings"]
