"""Sentences about a choice of horizon and weights."""
