"""Gradients of several learners: how stale they may be, and what they save."""
