"""Loops as their users write them, sound and with a planted fault, and what a probe says."""
