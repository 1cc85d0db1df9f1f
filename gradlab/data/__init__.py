"""Paths, noise streams and (later) recorded trajectories."""
