"""Bias and variance of data- and model-driven gradients over horizons."""
