"""The peers, each used as its own documentation says. Not installed: not measured."""
