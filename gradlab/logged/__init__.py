"""Recorded trajectories and a learned model, without a simulator: what can still be said."""
