"""Moments of per-sample gradients of every estimator and horizon."""
