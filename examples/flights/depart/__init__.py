"""Take off: the rule that spans two entities, a flight and its aircraft."""
