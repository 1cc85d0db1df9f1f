"""Sentences about a test of remedies."""
