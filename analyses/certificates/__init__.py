"""Certificates of engines, and of planted faults."""
