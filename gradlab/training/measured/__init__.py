"""Bias and variance of the followed gradient, measured while a policy trains."""
