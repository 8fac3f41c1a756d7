"""How punctual the carriers are."""
