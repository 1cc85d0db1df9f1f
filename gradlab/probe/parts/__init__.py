"""Exact checks of a loop's own parts: who moved which network, which target, which reward."""
