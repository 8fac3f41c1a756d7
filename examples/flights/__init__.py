"""Flights: every departure from New York in 2013, as commands, events, views and queries.

Each folder is a feature. Those that change something hold an event, and a command with its
decision; those that show something hold a view with its projection, and its queries.
"""

from examples.flights.application import app

__all__ = ["app"]
