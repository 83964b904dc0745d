"""A finished network in use: text or JSON lines in, JSON lines out."""
