"""Measurements of whole tasks, and of what their logs say."""
