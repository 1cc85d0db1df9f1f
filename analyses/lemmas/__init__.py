"""Lemmas of the papers, in worlds where their constants are known."""
