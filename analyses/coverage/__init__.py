"""How often intervals cover where the truth is known."""
