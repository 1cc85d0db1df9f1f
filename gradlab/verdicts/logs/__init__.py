"""Sentences about recorded trajectories and a model."""
