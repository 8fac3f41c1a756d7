"""How aircraft are used: their days, leg by leg."""
