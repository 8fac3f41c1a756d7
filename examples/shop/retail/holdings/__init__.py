"""What customers hold: bought, and not given back."""
