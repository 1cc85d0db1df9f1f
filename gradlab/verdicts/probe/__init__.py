"""Sentences about the run of a probe."""
