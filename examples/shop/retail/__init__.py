"""Retail: a year of a gift shop's invoices, as commands, events, views and queries.

Each folder is a feature. Those that change something hold an event, and a command with its
decision; those that show something hold a view with its projection, and its queries.
``replay`` reads the file and sends the commands.
"""

from examples.shop.retail.application import app

__all__ = ["app"]
