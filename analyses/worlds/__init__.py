"""Advice on eight simulators as people write them; see `__main__`."""
