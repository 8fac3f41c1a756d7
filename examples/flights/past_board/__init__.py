"""The board as it was: the board's own fold, over the log up to a position."""
