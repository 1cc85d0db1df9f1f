"""Gradients that mix both orders, pathwise and by likelihood ratio, at every action."""
