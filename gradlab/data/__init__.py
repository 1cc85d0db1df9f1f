"""Paths, noise streams and recorded trajectories."""
