"""Remedies tested as medicine is: same data, starts, noise and first weights, one thing changed."""
