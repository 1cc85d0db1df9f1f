"""Alarms: tests on the rows of a probe, each with its message."""
