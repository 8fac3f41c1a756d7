"""Replays the flights of 2013 as commands, in the order in which things happened."""
