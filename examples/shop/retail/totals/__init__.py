"""How many events of each type there are, and what they amount to."""
