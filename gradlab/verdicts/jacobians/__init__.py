"""Sentences about a comparison of Jacobians."""
