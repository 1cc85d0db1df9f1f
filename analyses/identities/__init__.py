"""Identities of the papers' gradients, in worlds where both sides are known."""
