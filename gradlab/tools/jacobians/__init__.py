"""Jacobians of whole environment steps: how exact, where a model's differ, how fast they grow."""
