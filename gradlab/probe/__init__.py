"""Diagnose while training: what a user's own loop shows, at a stated cost, without touching it."""
