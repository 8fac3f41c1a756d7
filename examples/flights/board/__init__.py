"""The departures board: a row a flight."""
