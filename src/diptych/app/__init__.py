"""The composition root: an application is declared in modules and opened on a log and views."""

from diptych.app.modules import App, Definitions, Module

__all__ = ["App", "Definitions", "Module"]
