"""Sentences about training runs."""
