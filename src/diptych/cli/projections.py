"""``diptych projections``: pause, resume and rewind."""

from __future__ import annotations

from cyclopts import App

from diptych.cli.steering import pause, resume, rewind

projections = App(name="projections", help="Pause, resume and rewind projections.")
projections.command(pause)
projections.command(resume)
projections.command(rewind)
