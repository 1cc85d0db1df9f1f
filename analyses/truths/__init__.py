"""Truths of gradients: jumps, concentration, cut sums."""
