"""Measured weights in the place of MPG's schedule."""
