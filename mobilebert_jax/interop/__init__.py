"""Model formats of other systems, and parameter names in them."""
