"""Sentences about an attribution."""
