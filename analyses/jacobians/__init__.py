"""Jacobians of MuJoCo's tasks: their errors, their growth, what unrolling does to gradients."""
