"""Races: several gradients, or losses of a user's own, followed for K updates from one policy."""
