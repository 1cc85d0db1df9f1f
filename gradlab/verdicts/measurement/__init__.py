"""Sentences about a measurement: one module per form."""
