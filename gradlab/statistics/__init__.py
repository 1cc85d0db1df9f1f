"""Estimates and intervals: arrays in, numbers out."""
