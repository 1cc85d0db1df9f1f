"""Remedies for learned models: losses, two models, spectral normalisation."""
