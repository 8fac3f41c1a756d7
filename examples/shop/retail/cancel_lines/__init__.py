"""Take goods back: all that an invoice lists, or nothing of it."""
